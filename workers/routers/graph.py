"""What do a query's neighbours tell through the models they tried? A graph network on ego-graphs of queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Positions, Side
from workers.routers.graph_network import (
    GraphNetwork,
    convolutions,
    edges_of,
    layer,
    require_torch_geometric,
    weighted_error,
)
from workers.routers.sums import weighted_sums
from workers.routers.surroundings import around, around_each_other, look_ahead, needed_around_each_other
from workers.training import (
    Batch,
    Floats32,
    Tensors,
    check_whole,
    cross_entropy,
    one_thread,
    padded,
    standardise,
)

if TYPE_CHECKING:
    import torch

    from workers.ego_graphs import Ego

#: Nodes of the ego-graphs of one forward pass when predicting, and of those that BatchNorm's statistics are taken of.
NODES = 1 << 15


class Graph(GraphNetwork):
    """A graph network (two GeneralConv layers, BatchNorm, ReLU) that predicts the edges of a query to the models.

    The paper's bipartite graph has queries and models as nodes and edges with score, cost and an observed mask; queries
    are joined to their k nearest training queries, and an MLP on the pair predicts. It prints no training scheme.
    Readings of this project:

    - A query is trained and routed in its ego-graph: itself, its k nearest training queries by cosine (in training
      never itself nor one of its group) and the models. Its own edges to the models are there, as not observed.
    - Scores and costs on edges are standardised per model; an edge between queries has zeros. A query starts as a
      linear map of its embedding, a model as a learned vector that is zero at first.
    - GeneralConv takes means (its sum would depend on k), has the identity as self-connection and no bias; the second
      layer updates the query and the models, which the MLP (one hidden layer) reads.
    - BatchNorm takes the statistics of a batch's nodes in training. For routing, those of training queries evenly
      spread over the training side (all, up to 2^15 nodes) are computed once from the final weights (Wu & Johnson 2021,
      "Rethinking 'batch' in BatchNorm", section 3: precise statistics) instead of averaged on the way.
    - The loss is MSE(ŝ, s) + α MSE(ĉ, c) on standardised targets; as a selector cross-entropy over models.

    k is cut to what the training side offers. k, epochs, rate, decay and batch size were chosen by validation
    `auc_path` under MiniLM at split indices 100 to 102 of RouterBench's rows, which no sweep file reports (zero-router
    83.6, kNN 77.2 at k = 10, 85.2 at 100). After 1, 2, 3, 5, 8, 12 epochs k = 10 had 85.0, 85.1, 85.0, 84.9, 85.4,
    85.3, k = 100 85.4, 85.1, 84.8, 85.1, 85.1, 85.6. At k = 10 and 8 epochs: rate 3e-4 84.9, decay 1e-2 85.2, batch
    128 84.9. Per task after 8 epochs, zero-router, k = 10, k = 100: ARC 92.6, 92.1, 92.5; MBPP 67.2, 65.8, 65.2;
    Winogrande 79.9, 80.5, 80.4. On generated data without anything to learn (zero-router 52.3) k = 10 had 50.2, k = 100
    52.0.

    Args:
        k: Neighbours; the paper has 10 and 100.
        hidden: Width of all layers.
        alpha: Weight of the cost's error.
        learning_rate: Of Adam; rate, decay, epochs and batch size are this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "graph"
    summary = "graph network on a query, its k neighbours and the models"
    source = "Li 2025, arXiv 2505.12601, section 4 (2 GeneralConv layers, hidden 128; k = 10 and 100); You et al. 2020"
    most_epochs = 12

    def __init__(
        self,
        *,
        k: int = 100,
        hidden: int = 128,
        alpha: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 8,
        batch_size: int = 64,
    ) -> None:
        check_whole("k", k, 1)
        check_whole("hidden", hidden, 1)
        self.k = k
        self.hidden = hidden
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.check_training_parameters()

    train_: Side
    #: Neighbours of an ego-graph.
    k_: int
    #: BatchNorm's mean and variance after each layer. [2, 2, H]
    statistics_: Floats32

    def graph(
        self, train: Side, edges: Floats32, n_outputs: int, rng: np.random.Generator
    ) -> tuple[dict[str, Floats32], dict[str, npt.NDArray[Any]]]:
        """Weights, and what ego-graphs are made of."""
        neighbours = around_each_other(train, self.k)
        self.train_, self.k_ = train, neighbours.shape[1]
        hidden = self.hidden
        parameters = {
            "queries": layer(rng, train.embeddings.shape[1], hidden),
            "models": np.zeros((len(train.models), padded(hidden)), dtype=np.float32),
            **convolutions(rng, hidden, inner=False),
            "pair_query": layer(rng, hidden, hidden, fan_in=2 * hidden, inner=True),
            "pair_model": layer(rng, hidden, hidden, fan_in=2 * hidden, inner=True),
            "pair_bias": layer(rng, 1, hidden, fan_in=2 * hidden),
            "outputs": np.zeros((padded(hidden), n_outputs), dtype=np.float32),
        }
        tables = {"neighbours": neighbours, "own": edges.sum(axis=1), "near": _summed(edges, neighbours)}
        return parameters, tables

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """MSE(ŝ, s) + α MSE(ĉ, c), or cross-entropy. [B]."""
        from workers.ego_graphs import Ego, forward

        index = batch.take("neighbours")
        ego = Ego(batch.x(), batch.x(index), batch.take("own", index), batch.take("near"))
        outputs = forward(weights, ego, training=True)
        if "labels" in batch.tables:
            return cross_entropy(outputs[..., 0], batch.take("labels"))
        return weighted_error(outputs, batch.take("targets"), self.alpha)

    def finish(self, train: Side) -> None:
        """Take BatchNorm's statistics from the final weights."""
        import torch

        from workers.convolution import blank_statistics
        from workers.ego_graphs import forward

        rows = np.linspace(0, train.n - 1, num=min(train.n, self._at_once)).astype(np.int64)
        neighbours = around_each_other(train, self.k)[rows]
        running = blank_statistics(padded(self.hidden))
        with one_thread(), torch.no_grad():
            forward(self.tensors(), self._ego(train.X[rows], neighbours), running, training=True)
        self.statistics_ = np.stack([[part.numpy() for part in pair] for pair in running])

    def outputs(self, queries: Side) -> Floats:
        """Network outputs. [n, M, outputs]."""
        import torch

        require_torch_geometric(self.name)
        from workers.ego_graphs import forward

        X, index = queries.X, around(self.train_, queries, self.k_)
        running = [(torch.tensor(mean), torch.tensor(variance)) for mean, variance in self.statistics_]
        with one_thread(), torch.no_grad():
            weights = self.tensors()
            parts = []
            for start in range(0, max(queries.n, 1), self._at_once):
                some = slice(start, start + self._at_once)
                found = forward(weights, self._ego(X[some], index[some]), running, training=False)
                parts.append(found[0].double().numpy())
        return np.concatenate(parts)

    @property
    def _at_once(self) -> int:
        """Ego-graphs of one forward pass."""
        return max(1, NODES // (1 + self.k_ + len(self.train_.models)))

    def _ego(self, X: npt.NDArray[np.float32], index: Positions) -> Ego:
        """Ego-graphs of queries by their embeddings [b, d] and neighbours [b, k]."""
        import torch

        from workers.ego_graphs import Ego

        edges = edges_of(standardise(self.train_).targets)
        parts = (X, self.train_.X[index], edges.sum(axis=1)[index], _summed(edges, index))
        return Ego(*(torch.tensor(part[None]) for part in parts))

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """As `TrainedRouter`, after one search for the neighbours of all jobs."""
        begin = perf_counter()
        wanted = [(job, int(job.router.params()["k"])) for job in jobs]
        look_ahead((job.train, job.train, needed_around_each_other(job.train, k)) for job, k in wanted)
        middle = perf_counter()
        look_ahead((job.train, job.queries, k) for job, k in wanted)
        end = perf_counter()
        for fitted in super().predict_many(jobs):
            yield replace(
                fitted,
                fit_seconds=fitted.fit_seconds + (middle - begin) / len(jobs),
                route_seconds=fitted.route_seconds + (end - middle) / len(jobs),
            )


def _summed(edges: Floats32, index: Positions) -> Floats32:
    """Sum over neighbours of their edges to every model. [b, M, F].

    Args:
        edges: Edges of the training side. [n, M, F]
        index: Positions of neighbours. [b, k]
    """
    if not index.shape[1]:
        return np.zeros((len(index), *edges.shape[1:]), dtype=np.float32)
    table = edges.reshape(len(edges), -1).astype(np.float64)
    sums = weighted_sums(index, np.ones(index.shape), table)
    return sums.reshape(-1, *edges.shape[1:]).astype(np.float32)
