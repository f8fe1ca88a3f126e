"""What does attention make of a query's nearest labelled queries? Conditional neural processes over a support set."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Positions, Prediction, Side
from workers.routers.forward import shifted, wide
from workers.routers.graph_network import ALPHAS, edges_of, weighted_error
from workers.routers.labels import most_probable, spread_labels
from workers.routers.parameters import check_number
from workers.routers.surroundings import around, around_each_other, look_ahead, needed_around_each_other
from workers.training import (
    Batch,
    Floats32,
    Network,
    Tensors,
    TrainedRouter,
    check_optimiser,
    check_whole,
    cross_entropy,
    in_units,
    one_thread,
    padded,
    standardise,
    uniform,
)

if TYPE_CHECKING:
    import torch

    from workers.attention import Support

#: Tokens of one forward pass when predicting.
TOKENS = 1 << 14
#: Width of a head (protocol 4: 4 heads of 32).
HEAD = 32


class AttentionRouter(TrainedRouter, ABC):
    """A conditional neural process (Garnelo et al. 2018; attentive: Kim et al. 2019) whose support set is kNN's.

    Readings of this project, as the paper prints neither sizes nor a training scheme: a training query's support set is
    its k nearest others by cosine, never one of its own group; outcomes are standardised per model, an unobserved one
    is zeros with a flag; a learned null token is in every support set, so that a query may attend to none; states are
    normalised before each layer (LayerNorm without parameters) and added to after it; the output layer is zero at
    first, so that without an epoch it predicts the training means. The loss is MSE(ŝ, s) + α MSE(ĉ, c) on standardised
    targets; as a selector cross-entropy over models. k is cut to what the training side offers.

    Rate and batch size are those of `graph`. After 1, 2, 3, 5, 8 epochs validation `auc_path` under MiniLM at split
    indices 100 to 102 of RouterBench's rows, which no sweep file reports (zero-router 83.6, kNN 77.2 at k = 10, 85.2 at
    100), was 85.5, 85.8, 84.4, 85.6, 84.8 (`attn`, k = 10), 85.8, 85.8, 84.7, 85.1, 84.8 (`attn`, k = 100) and
    85.2, 84.7, 84.7, 84.8, 84.8 (`double-attn`, k = 10). Five are kept for all, though one or two
    were best there, because of a few hundred training queries an epoch makes a handful of steps.

    Args:
        k: Size of the support set; the paper has 10 and 100.
        heads: Heads of 32.
        alpha: Weight of the cost's error.
        learning_rate: Of Adam; rate, decay, epochs and batch size are this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    formulations = ("utility", "selection")
    tunables = (*TrainedRouter.tunables, "alpha")
    most_epochs = 12

    def __init__(
        self,
        *,
        k: int = 100,
        heads: int = 4,
        alpha: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 5,
        batch_size: int = 64,
    ) -> None:
        check_whole("k", k, 1)
        check_whole("heads", heads, 1)
        check_number("alpha", alpha, 0.0, above=True)
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        self.k = k
        self.heads = heads
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    train_: Side
    #: Size of a support set.
    k_: int
    #: Score and cost of every model: mean and scale. Both [2, M]
    means_: Floats
    scales_: Floats
    #: 2 for score and cost, 1 for a logit.
    n_outputs_: int

    @abstractmethod
    def first_weights(self, dim: int, n_models: int, n_outputs: int, rng: np.random.Generator) -> dict[str, Floats32]:
        """Initial weights, but for the biases of the outputs."""

    @abstractmethod
    def forward(self, weights: Tensors, support: Support, n_outputs: int) -> torch.Tensor:
        """Outputs without their biases. [B, b, M * outputs]."""

    @property
    def width(self) -> int:
        """Width of tokens and states."""
        return self.heads * HEAD

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Weights, targets and support sets."""
        units = standardise(train)
        self.means_, self.scales_, self.n_outputs_ = units.means, units.scales, 2 if price is None else 1
        neighbours = around_each_other(train, self.k)
        self.train_, self.k_ = train, neighbours.shape[1]
        m = len(train.models)
        tables: dict[str, npt.NDArray[Any]] = {"neighbours": neighbours, "outcomes": edges_of(units.targets)}
        if price is None:
            tables["targets"], bias = units.targets, np.zeros(2 * m)
        else:
            labels = spread_labels(*train.outcomes, price)
            tables["labels"] = labels.astype(np.float32)
            bias = np.log(np.clip(labels.mean(axis=0), 1e-6, 1 - 1e-6))
        parameters = self.first_weights(train.embeddings.shape[1], m, self.n_outputs_, rng)
        return Network(parameters={**parameters, "bias": wide(bias)}, tables=tables)

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """MSE(ŝ, s) + α MSE(ĉ, c), or cross-entropy. [B]."""
        from workers.attention import Support

        index = batch.take("neighbours")
        support = Support(batch.x(), batch.x(index), batch.take("outcomes", index))
        if "labels" in batch.tables:
            return cross_entropy(self._outputs(weights, support, 1)[..., 0], batch.take("labels"))
        return weighted_error(self._outputs(weights, support, 2), batch.take("targets"), self.alpha)

    def predict(self, queries: Side) -> Prediction:
        """Outputs in the units of the targets. [n, M]."""
        return in_units(self._answers(queries), self.means_, self.scales_)

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        return most_probable(self._answers(queries)[:, :, 0], self.means_[1])

    def _outputs(self, weights: Tensors, support: Support, n_outputs: int) -> torch.Tensor:
        """[B, b, M, outputs]."""
        outputs = shifted(self.forward(weights, support, n_outputs), weights["bias"])
        return outputs.view(*outputs.shape[:2], -1, n_outputs)

    def _answers(self, queries: Side) -> Floats:
        """What the fitted network says. [n, M, outputs]."""
        import torch

        from workers.attention import Support

        X, index, outcomes = (
            queries.X,
            around(self.train_, queries, self.k_),
            edges_of(standardise(self.train_).targets),
        )
        examples = self.train_.X
        size = max(1, TOKENS // (1 + self.k_))
        parts = []
        with one_thread(), torch.no_grad():
            weights = {name: torch.tensor(array[None]) for name, array in self.weights_.items()}
            for start in range(0, max(queries.n, 1), size):
                some = index[start : start + size]
                arrays = (X[start : start + size], examples[some], outcomes[some])
                support = Support(*(torch.tensor(array[None]) for array in arrays))
                parts.append(self._outputs(weights, support, self.n_outputs_)[0].double().numpy())
        return np.concatenate(parts)

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """Rate and decay of `TrainedRouter`, and the weight of the cost's error."""
        return {**super().space(), "alpha": list(ALPHAS)}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """As `TrainedRouter`, with a drawn weight of the cost's error."""
        first, *drawn = super().candidates(n_train=n_train, budget=budget, fixed=fixed, rng=rng)
        return [first, *({**config, "alpha": float(rng.choice(ALPHAS))} for config in drawn)]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """As `TrainedRouter`, then nearer to equal weights."""
        return (*super().simplicity(params), abs(math.log(params["alpha"])), params["alpha"])

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

    def _common(self, dim: int, n_models: int, rng: np.random.Generator) -> dict[str, Floats32]:
        """Weights that both networks have."""
        width = self.width
        return {
            "query": _first(rng, dim, width),
            "example": _first(rng, dim, width),
            "outcomes": _first(rng, 3 * n_models, width),
            "null": _first(rng, 1, width, fan_in=width),
            "examples_qkv": _first(rng, width, 3 * width),
            "examples_out": _first(rng, width, width),
            "hidden": _first(rng, width, width),
            "hidden_bias": _first(rng, 1, width, fan_in=width),
        }


class Attn(AttentionRouter):
    """Self-attention over the support set's (x_i, s, c), then cross-attention from the query; heads for s and c."""

    name = "attn"
    summary = "attention over the k nearest labelled queries, then from the query to them"
    source = "Li 2025, arXiv 2505.12601, section 4 (conditional neural process, 4 heads x 32; k = 10 and 100)"

    def first_weights(self, dim: int, n_models: int, n_outputs: int, rng: np.random.Generator) -> dict[str, Floats32]:
        """An output column for every model and quantity."""
        width = self.width
        return {
            **self._common(dim, n_models, rng),
            "cross_q": _first(rng, width, width),
            "cross_kv": _first(rng, width, 2 * width),
            "cross_out": _first(rng, width, width),
            "outputs": np.zeros((width, padded(n_models * n_outputs)), dtype=np.float32),
        }

    def forward(self, weights: Tensors, support: Support, n_outputs: int) -> torch.Tensor:
        """Outputs without their biases. [B, b, M * outputs]."""
        from workers.attention import attend_examples, read_out

        states = attend_examples(weights, support, heads=self.heads)
        return read_out(weights, states, "outputs")[..., : support.outcomes.shape[3] * n_outputs]


class DoubleAttn(AttentionRouter):
    """Attention that alternates over examples and over models; one head for s and c reads every model's state.

    Reading of this project: a token for every pair of example and model would cost M times as much, so a pair's keys
    and values are the example's plus linear maps of the model's own outcome there, and it is the models' states that
    attend, to examples and to each other, in two rounds.
    """

    name = "double-attn"
    summary = "attention alternating over labelled queries and over models"
    source = "Li 2025, arXiv 2505.12601, section 4 (attention alternating over examples and models; k = 10 and 100)"

    #: Rounds of attention to examples, then to models.
    ROUNDS = 2

    def first_weights(self, dim: int, n_models: int, n_outputs: int, rng: np.random.Generator) -> dict[str, Floats32]:
        """Models differ by their outcomes alone at first: their vectors are zero."""
        width = self.width
        weights = {
            **self._common(dim, n_models, rng),
            "models": np.zeros((n_models, width), dtype=np.float32),
            "outputs": np.zeros((width, LANES_OF_OUTPUTS), dtype=np.float32),
        }
        for i in range(self.ROUNDS):
            weights[f"cross_q{i}"] = _first(rng, width, width)
            weights[f"cross_kv{i}"] = _first(rng, width, 2 * width)
            weights[f"cross_out{i}"] = _first(rng, width, width)
            weights[f"own_k{i}"] = _first(rng, 3, width)
            weights[f"own_v{i}"] = _first(rng, 3, width)
            weights[f"models{i}_qkv"] = _first(rng, width, 3 * width)
            weights[f"models{i}_out"] = _first(rng, width, width)
        return weights

    def forward(self, weights: Tensors, support: Support, n_outputs: int) -> torch.Tensor:
        """Outputs without their biases. [B, b, M * outputs]."""
        from workers.attention import attend_both, read_out

        states = attend_both(weights, support, heads=self.heads, rounds=self.ROUNDS)
        members, b, m, _ = states.shape
        outputs = read_out(weights, states.flatten(1, 2), "outputs")[..., :n_outputs]
        return outputs.reshape(members, b, m * n_outputs)


#: Columns of an output layer of one or two outputs, filled up with zeros that nothing reads.
LANES_OF_OUTPUTS = padded(2)


def _first(rng: np.random.Generator, rows: int, columns: int, *, fan_in: int | None = None) -> Floats32:
    """Weights as torch starts a linear layer. [rows, columns]."""
    return uniform(rng, 1.0 / math.sqrt(fan_in or rows), rows, columns)
