"""Do tasks help to predict which model suits? A graph of tasks, queries and models, trained on masked edges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Side
from workers.routers.forward import shifted
from workers.routers.graph_network import EDGE_FEATURES, GraphNetwork, convolutions, edges_of, layer
from workers.routers.parameters import check_number
from workers.training import (
    Batch,
    Floats32,
    Tensors,
    affine,
    check_whole,
    one_thread,
    over_batch,
    padded,
    squared_error,
    standardise,
)

if TYPE_CHECKING:
    import torch

    from workers.convolution import Statistics

#: Queries of one forward pass when predicting.
BLOCK = 1024

#: From states [B, n, H] and the layer to the means of the sending nodes [B, n, H] and of the edges [B, n, F].
Receive = Callable[["torch.Tensor", int], tuple["torch.Tensor", "torch.Tensor"]]


class GraphRouter(GraphNetwork):
    name = "graphrouter"
    summary = "graph network on tasks, queries and models that predicts masked edges"
    source = "Feng, Shen & You 2024, GraphRouter, arXiv 2410.03834; their code, model/graph_nn.py"
    needs = ("task",)
    decoupled_decay = True
    most_epochs = 200

    def __init__(
        self,
        *,
        hidden: int = 64,
        mask: float = 0.3,
        alpha: float = 1.0,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-4,
        epochs: int = 100,
        batch_size: int = 128,
    ) -> None:
        check_whole("hidden", hidden, 1)
        check_number("mask", mask, 0.0, 1.0, above=True)
        self.hidden = hidden
        self.mask = mask
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.check_training_parameters()

    #: Row of each task in `tasks_`; the last row is for tasks that training lacks.
    task_rows_: dict[str, int]
    #: States of the tasks as each layer reads them, then of the models after the last. [2, T + 1, H], [M, H]
    tasks_: Floats32
    models_: Floats32
    #: BatchNorm's mean and variance after each layer. [2, 2, H]
    statistics_: Floats32

    def graph(
        self, train: Side, edges: Floats32, n_outputs: int, rng: np.random.Generator
    ) -> tuple[dict[str, Floats32], dict[str, Any]]:
        names = sorted(set(train.tasks))
        self.task_rows_ = {name: row for row, name in enumerate(names)}
        hidden, width = self.hidden, padded(self.hidden)
        parameters = {
            "queries": layer(rng, train.embeddings.shape[1], hidden),
            "tasks": np.zeros((len(names), width), dtype=np.float32),
            "models": np.zeros((len(train.models), width), dtype=np.float32),
            "features": layer(rng, EDGE_FEATURES, EDGE_FEATURES),
            "features_bias": layer(rng, 1, EDGE_FEATURES, fan_in=EDGE_FEATURES),
            **convolutions(rng, hidden, inner=True),
            "outputs": np.zeros((n_outputs, width), dtype=np.float32),
        }
        return parameters, {"edges": edges, "task": self._task_rows(train)}

    def first_logits(self, shares: Floats) -> Floats:
        return np.log(shares / (1.0 - shares))

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.bool_]]:
        return {"hidden": rng.random((size, self.means_.shape[1])) < self.mask}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        edges, hidden = batch.take("edges"), batch.draws["hidden"]
        observed = edges[..., -1] > 0
        tasks = batch.take("task")
        nodes = _start(weights, batch.x())
        received = _received(weights, nodes.shape[1], edges, observed & ~hidden, tasks)
        states = _layers(weights, nodes, received, training=True)
        b, m = hidden.shape[1:]
        outputs = _scores(weights, states[:, :b], states[:, b : b + m])
        asked = (hidden & observed).float()
        if "labels" in batch.tables:
            return _binary_cross_entropy(outputs[..., 0], batch.take("labels"), asked)
        targets = batch.take("targets").where(hidden[..., None], float("nan"))
        score, cost = (squared_error(outputs[..., i : i + 1], targets[..., i : i + 1]) for i in range(2))
        return score + self.alpha * cost

    def finish(self, train: Side) -> None:
        import torch

        from workers.convolution import blank_statistics

        edges = torch.from_numpy(edges_of(standardise(train).targets)[None])
        tasks = torch.from_numpy(self._task_rows(train)[None])
        running = blank_statistics(padded(self.hidden))
        first = train.n + len(train.models)
        seen = []
        with one_thread(), torch.no_grad():
            weights = self._tensors()
            nodes = _start(weights, torch.from_numpy(train.X[None]))
            receive = _received(weights, nodes.shape[1], edges, edges[..., -1] > 0, tasks)

            def watched(states: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
                seen.append(states[0, first:])
                return receive(states, number)

            states = _layers(weights, nodes, watched, running, training=True)
        # A task that training lacks is like the mean training query's.
        unseen = [each[tasks[0]].mean(dim=0, keepdim=True) for each in seen]
        self.tasks_ = torch.stack([torch.cat(pair) for pair in zip(seen, unseen, strict=True)]).numpy()
        self.models_ = states[0, train.n : first].numpy().copy()
        self.statistics_ = np.stack([[part.numpy() for part in pair] for pair in running])

    def outputs(self, queries: Side) -> Floats:
        import torch

        X, rows = queries.X, self._task_rows(queries)
        running = [(torch.tensor(mean), torch.tensor(variance)) for mean, variance in self.statistics_]
        with one_thread(), torch.no_grad():
            weights = self._tensors()
            models, parts = torch.tensor(self.models_[None]), []
            for start in range(0, max(queries.n, 1), BLOCK):
                some = slice(start, start + BLOCK)
                sent = torch.from_numpy(self.tasks_[:, None, rows[some]])
                features = _task_features(weights, sent.shape[2])
                nodes = torch.from_numpy(X[None, some]) @ weights["queries"]
                states = _layers(
                    weights, nodes, lambda _, number: (sent[number - 1], features), running, training=False
                )
                parts.append(_scores(weights, states, models)[0].double().numpy())
        return np.concatenate(parts)

    def _task_rows(self, side: Side) -> Positions:
        unseen = len(self.task_rows_)
        return np.array([self.task_rows_.get(task, unseen) for task in side.tasks], dtype=np.int64)

    def _tensors(self) -> dict[str, torch.Tensor]:
        import torch

        return {name: torch.tensor(array[None]) for name, array in self.weights_.items()}


def _start(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.cat([x @ weights["queries"], weights["models"], weights["tasks"]], dim=1)


def _task_features(weights: Tensors, b: int) -> torch.Tensor:
    first = weights["features"]
    ones = first.new_zeros(len(first), b, EDGE_FEATURES)
    ones[..., -1] = 1.0
    return affine(ones, first, weights["features_bias"]).relu()


def _received(weights, n, edges, visible, tasks) -> Receive:
    import torch

    from workers.convolution import MeanOverEdges

    members, b, m = visible.shape
    features = affine(edges.flatten(1, 2), weights["features"], weights["features_bias"]).relu().view(members, b, m, -1)
    member, query, model = visible.nonzero(as_tuple=True)
    offsets = n * torch.arange(members, device=tasks.device)[:, None]
    queries = offsets + torch.arange(b, device=tasks.device)
    sender = torch.cat([(offsets + b + m + tasks).flatten(), n * member + query])
    receiver = torch.cat([queries.flatten(), n * member + b + model])
    edge_index = torch.stack([sender, receiver])
    all_features = torch.cat([_task_features(weights, b).flatten(0, 1), features[visible]])
    mean_over_edges = MeanOverEdges()

    def receive(states, number):
        means = mean_over_edges(states.flatten(0, 1), edge_index, all_features).view(members, n, -1)
        return means.split([states.shape[2], features.shape[3]], dim=2)

    return receive


def _layers(weights, nodes, receive, running=None, *, training):
    from workers.convolution import normalised

    for number in (1, 2):
        senders, edges = receive(nodes, number)
        nodes = nodes + senders @ weights[f"message{number}"] + edges @ weights[f"edge{number}"]
        nodes = normalised(nodes, weights, number, running and running[number - 1], training=training)
        if number == 1:
            nodes = nodes.relu()
    return nodes


def _scores(weights, queries, models):
    from workers.convolution import spread

    members, m, width = models.shape
    how = spread(weights["outputs"].flatten(1), m).view(members, m, -1, width)
    read = (how * models[:, :, None]).flatten(1, 2)
    outputs = shifted(queries @ read.transpose(1, 2), weights["bias"])
    return outputs.view(*outputs.shape[:2], m, -1)


def _binary_cross_entropy(logits, labels, asked):
    from torch.nn.functional import binary_cross_entropy_with_logits

    losses = binary_cross_entropy_with_logits(logits, labels, weight=asked, reduction="none")
    return over_batch(losses).sum(dim=-1) / over_batch(asked).sum(dim=-1).clamp(min=1)
