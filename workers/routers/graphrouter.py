"""Do tasks help to predict which model suits? A graph of tasks, queries and models, trained on masked edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Side
from workers.routers.graph_network import (
    EDGE_FEATURES,
    GraphNetwork,
    convolutions,
    edges_of,
    layer,
    require_torch_geometric,
    weighted_error,
)
from workers.routers.parameters import check_number, log_uniform
from workers.training import Batch, Floats32, Tensors, check_whole, one_thread, padded, standardise

if TYPE_CHECKING:
    import torch

#: Queries of one forward pass when predicting.
BLOCK = 1024


class GraphRouter(GraphNetwork):
    """A graph network on task, query and model nodes that predicts edges between queries and models.

    In training a random share of a batch's edges is hidden, and predicted from the states that two GeneralConv layers
    make of the visible ones. A routed query joins the graph of the training side by its task alone.

    Read in the authors' code (model/graph_nn.py): messages run from queries to models along the visible edges only, so
    that a query learns nothing from its own outcomes, as when it is routed; edge features pass a linear layer with
    ReLU; BatchNorm after both layers, ReLU between them; an edge is the mean product of the states at its ends; as a
    selector binary cross-entropy on whether the model is the best; AdamW. Their `train_mask_rate` is the share of
    edges that stays visible, `mask` here the share that is hidden; their checkpoint is the best on validation edges.
    Readings of this project:

    - Tasks are nodes, as in the paper (in the code a part of the query): a query receives its task's message over an
      edge whose features are 1. A task that training lacks is the mean training query's.
    - Tasks and models start as learned vectors of zeros: there are no descriptions of them to embed.
    - An edge to a model has standardised score and cost and the observed mask.
    - A step's graph is a minibatch's, not the whole training side's. GeneralConv takes means, as the paper's formula
      (the code adds up), has the identity as self-connection and no bias. BatchNorm's statistics for routing and the
      states of models and tasks are those of the whole training side, from the final weights.
    - An edge's prediction weighs the products by a learned vector for each output, zero at first, and reads the
      query's state after its layers (the code: its first state).
    - In utility form the edges' scores and costs are predicted: MSE(ŝ, s) + α MSE(ĉ, c), standardised per model.
    - As a selector labels that tie are shared.

    Epochs, decay and batch size were chosen by validation `auc_path` under MiniLM at split indices 100 to 102 of
    RouterBench's rows, which no sweep file reports (zero-router 83.6, kNN at k = 100 85.2), after 5, 12, 20, 30 epochs:
    mask 0.3, batch 128, decay 1e-4: 84.5, 85.1, 85.2, 83.4 (width 8: 84.8, 85.1, 85.1, 84.9; 64: 84.3, 85.0, 84.4,
    83.0), and further down with more steps; batch 32, decay 3: 85.0, 85.0, 85.3, 85.2, with mask 0.5 85.1, 85.2, 85.5,
    85.2; decay 10: 84.5, 84.7, 84.7, 84.7. 420 generated training queries need as many steps (zero-router 52.3, kNN
    72.5): mask 0.5, batch 32 and decay 3 had 56.5, 65.0, 72.5 after 12, 20, 30 epochs.

    Args:
        hidden: Width of all layers; theirs are 8 to 64.
        mask: Share of a batch's edges that is hidden.
        alpha: Weight of the cost's error.
        learning_rate: Of AdamW.
        weight_decay: AdamW's, decoupled from the gradient.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "graphrouter"
    summary = "graph network on tasks, queries and models; predicts masked edges"
    source = "Feng, Shen & You 2024, GraphRouter, arXiv 2410.03834, section 4; their code, model/graph_nn.py"
    needs = ("task",)
    decoupled_decay = True

    def __init__(
        self,
        *,
        hidden: int = 32,
        mask: float = 0.5,
        alpha: float = 1.0,
        learning_rate: float = 3e-4,
        weight_decay: float = 3.0,
        epochs: int = 30,
        batch_size: int = 32,
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
    #: States of the tasks as each layer sends them. [2, T + 1, H]
    tasks_: Floats32
    #: States of the models after the last layer. [M, H]
    models_: Floats32
    #: BatchNorm's mean and variance after each layer. [2, 2, H]
    statistics_: Floats32

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """As `GraphNetwork`, with more decay."""
        return {**super().space(), "weight_decay": {"log": [1e-2, 1e1]}}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """As `GraphNetwork`, with more decay."""
        first, *drawn = super().candidates(n_train=n_train, budget=budget, fixed=fixed, rng=rng)
        return [first, *({**config, "weight_decay": log_uniform(rng, 1e-2, 1e1)} for config in drawn)]

    def graph(
        self, train: Side, edges: Floats32, n_outputs: int, rng: np.random.Generator
    ) -> tuple[dict[str, Floats32], dict[str, npt.NDArray[Any]]]:
        """Weights, and the edges of each query."""
        names = sorted(set(train.tasks))
        self.task_rows_ = {name: row for row, name in enumerate(names)}
        parameters = {
            "queries": layer(rng, train.embeddings.shape[1], self.hidden),
            "tasks": np.zeros((len(names), padded(self.hidden)), dtype=np.float32),
            "models": np.zeros((len(train.models), padded(self.hidden)), dtype=np.float32),
            "features": layer(rng, EDGE_FEATURES, EDGE_FEATURES),
            "features_bias": layer(rng, 1, EDGE_FEATURES, fan_in=EDGE_FEATURES),
            **convolutions(rng, self.hidden, inner=True),
            "outputs": np.zeros((n_outputs, padded(self.hidden)), dtype=np.float32),
        }
        return parameters, {"edges": edges, "task": self._task_rows(train)}

    def first_logits(self, shares: Floats) -> Floats:
        """Log odds: every edge is a yes or no of its own. [M]."""
        return np.log(shares / (1.0 - shares))

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[np.bool_]]:
        """Which edges are hidden."""
        return {"hidden": rng.random((size, self.means_.shape[1])) < self.mask}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """MSE(ŝ, s) + α MSE(ĉ, c), or binary cross-entropy, of the hidden edges. [B]."""
        from workers.task_graphs import binary_cross_entropy, convolved, predicted, receiving, start

        edges, hidden = batch.take("edges"), batch.draws["hidden"]
        observed = edges[..., -1] > 0
        nodes = start(weights, batch.x())
        receive = receiving(weights, nodes.shape[1], edges, observed & ~hidden, batch.take("task"))
        states = convolved(weights, nodes, receive, training=True)
        b, m = hidden.shape[1:]
        outputs = predicted(weights, states[:, :b], states[:, b : b + m])
        if "labels" in batch.tables:
            return binary_cross_entropy(outputs[..., 0], batch.take("labels"), (observed & hidden).float())
        targets = batch.take("targets").masked_fill(~hidden[..., None], float("nan"))
        return weighted_error(outputs, targets, self.alpha)

    def finish(self, train: Side) -> None:
        """Take the states of models and tasks, and BatchNorm's statistics, from the whole training side's graph."""
        import torch

        from workers.convolution import blank_statistics
        from workers.task_graphs import convolved, receiving, start

        edges = torch.from_numpy(edges_of(standardise(train).targets)[None])
        tasks = torch.from_numpy(self._task_rows(train)[None])
        first = train.n + len(train.models)
        sent, running = [], blank_statistics(padded(self.hidden))
        with one_thread(), torch.no_grad():
            weights = self.tensors()
            nodes = start(weights, torch.from_numpy(train.X[None]))
            receive = receiving(weights, nodes.shape[1], edges, edges[..., -1] > 0, tasks)

            def watched(states: torch.Tensor, number: int) -> Sequence[torch.Tensor]:
                of_tasks = states[0, first:]
                unseen = of_tasks[tasks[0]].mean(dim=0, keepdim=True)
                sent.append(torch.cat([of_tasks, unseen]))
                return receive(states, number)

            convolved(weights, nodes, receive, running, training=True)
            states = convolved(weights, nodes, watched, running, training=False)
        self.tasks_ = torch.stack(sent).numpy()
        self.models_ = states[0, train.n : first].numpy().copy()
        self.statistics_ = np.stack([[part.numpy() for part in pair] for pair in running])

    def outputs(self, queries: Side) -> Floats:
        """Predicted edges. [n, M, outputs]."""
        import torch

        require_torch_geometric(self.name)
        from workers.task_graphs import convolved, predicted, task_features

        X, rows = queries.X, self._task_rows(queries)
        running = [(torch.tensor(mean), torch.tensor(variance)) for mean, variance in self.statistics_]
        models, parts = torch.tensor(self.models_[None]), []
        with one_thread(), torch.no_grad():
            weights = self.tensors()
            for begin in range(0, max(queries.n, 1), BLOCK):
                x = torch.from_numpy(X[None, begin : begin + BLOCK])
                sent = torch.tensor(self.tasks_[:, None, rows[begin : begin + BLOCK]])
                features = task_features(weights, x.shape[1])

                def receive(
                    states: torch.Tensor, number: int, sent: torch.Tensor = sent, features: torch.Tensor = features
                ) -> Sequence[torch.Tensor]:
                    return sent[number - 1], features

                states = convolved(weights, x @ weights["queries"], receive, running, training=False)
                parts.append(predicted(weights, states, models)[0].double().numpy())
        return np.concatenate(parts)

    def _task_rows(self, side: Side) -> Positions:
        """Row of each query's task. [n]."""
        unseen = len(self.task_rows_)
        return np.array([self.task_rows_.get(task, unseen) for task in side.tasks], dtype=np.int64)
