"""What do routers on graphs of queries and models share? Targets, labels, tuning, and torch_geometric's extra."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import Positions, Prediction, Side
from workers.routers.forward import wide
from workers.routers.labels import most_probable, spread_labels
from workers.routers.parameters import check_number
from workers.training import (
    Floats32,
    Network,
    TrainedRouter,
    check_optimiser,
    in_units,
    padded,
    squared_error,
    standardise,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Weights of the cost's error that tuning tries (protocol 4).
ALPHAS = (0.1, 1.0, 10.0)
#: What an edge between a query and a model says: standardised score and cost, and whether they were observed.
EDGE_FEATURES = 3


class GraphNetwork(TrainedRouter, ABC):
    """Outputs for every pair of a query and a model: standardised score and cost, or a logit.

    What models differ by starts at zero, and so does every output: without an epoch it predicts the training means
    (as a selector, the shares of the labels), and all models start alike.
    """

    formulations = ("utility", "selection")
    tunables = (*TrainedRouter.tunables, "alpha")

    alpha: float
    #: Score and cost of every model: mean and scale. Both [2, M]
    means_: Floats
    scales_: Floats

    @abstractmethod
    def graph(
        self, train: Side, edges: Floats32, n_outputs: int, rng: np.random.Generator
    ) -> tuple[dict[str, Floats32], dict[str, npt.NDArray[Any]]]:
        """First weights, but for the biases of the outputs, and tables beside the targets.

        Args:
            train: Training side.
            edges: Its edges to the models. [n, M, EDGE_FEATURES]
            n_outputs: 2 for score and cost, 1 for a logit.
            rng: The job's stream.
        """

    def check_training_parameters(self) -> None:
        """Refuse parameters of training that cannot work.

        Raises:
            ValueError: Names the parameter.
        """
        check_optimiser(self.learning_rate, self.weight_decay, self.epochs, self.batch_size)
        check_number("alpha", self.alpha, 0.0, above=True)

    @abstractmethod
    def outputs(self, queries: Side) -> Floats:
        """What the fitted network says. [n, M, outputs]."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """Fitted weights of one member. [1, ...] each."""
        import torch

        return {name: torch.tensor(array[None]) for name, array in self.weights_.items()}

    def first_logits(self, shares: Floats) -> Floats:
        """Logits that give every model its share of the labels. [M]."""
        return np.log(shares)

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Weights and targets: standardised scores and costs, or labels spread over ties."""
        require_torch_geometric(self.name)
        units = standardise(train)
        self.means_, self.scales_ = units.means, units.scales
        n_outputs = 2 if price is None else 1
        parameters, tables = self.graph(train, edges_of(units.targets), n_outputs, rng)
        if price is None:
            tables["targets"], bias = units.targets, np.zeros(2 * len(train.models))
        else:
            labels = spread_labels(*train.outcomes, price)
            tables["labels"] = labels.astype(np.float32)
            bias = self.first_logits(np.clip(labels.mean(axis=0), 1e-6, 1 - 1e-6))
        return Network(parameters={**parameters, "bias": wide(bias)}, tables=tables)

    def predict(self, queries: Side) -> Prediction:
        """Outputs in the units of the targets. [n, M]."""
        return in_units(self.outputs(queries), self.means_, self.scales_)

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        return most_probable(self.outputs(queries)[:, :, 0], self.means_[1])

    def check(self, *, n_train: int) -> None:
        """Refuse to plan what torch_geometric is missing for."""
        require_torch_geometric(self.name)

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


def weighted_error(outputs: torch.Tensor, targets: torch.Tensor, alpha: float) -> torch.Tensor:
    """MSE(ŝ, s) + α MSE(ĉ, c) over the targets that are there. [B].

    Args:
        outputs: [B, b, M, 2]
        targets: NaN where none. [B, b, M, 2]
        alpha: Weight of the cost's error.
    """
    score, cost = (squared_error(outputs[..., i : i + 1], targets[..., i : i + 1]) for i in range(2))
    return score + alpha * cost


def edges_of(targets: Floats32) -> Floats32:
    """Features of the edges between queries and models: score, cost, observed; zeros where not. [n, M, 3].

    Args:
        targets: Standardised scores and costs, NaN = not observed. [n, M, 2]
    """
    observed = ~np.isnan(targets[..., :1])
    return np.concatenate([np.nan_to_num(targets), observed], axis=2).astype(np.float32)


def layer(
    rng: np.random.Generator, rows: int, width: int, *, fan_in: int | None = None, inner: bool = False
) -> Floats32:
    """Weights as torch starts a linear layer, its widths inside the network filled up with zeros. [rows, width].

    Args:
        rng: The job's stream.
        rows: Inputs.
        width: Outputs, filled up.
        fan_in: Inputs of the whole layer, if these are a part of it.
        inner: Whether the inputs are outputs of another layer, so filled up too.
    """
    weight = uniform(rng, 1.0 / math.sqrt(fan_in or rows), rows, width)
    return np.pad(weight, ((0, padded(rows) - rows if inner else 0), (0, padded(width) - width)))


def convolutions(rng: np.random.Generator, width: int, *, inner: bool) -> dict[str, Floats32]:
    """Weights of two GeneralConv layers for nodes and edges, `message` and `edge`, and of a BatchNorm after each."""
    weights = {}
    for i in (1, 2):
        weights[f"message{i}"] = layer(rng, width, width, inner=True)
        weights[f"edge{i}"] = layer(rng, EDGE_FEATURES, width, inner=inner)
        weights[f"scale{i}"] = np.ones((1, padded(width)), dtype=np.float32)
        weights[f"shift{i}"] = np.zeros((1, padded(width)), dtype=np.float32)
    return weights


def require_torch_geometric(router: str) -> None:
    """Refuse to go on without the library of graphs.

    Raises:
        RouterError: Says how to install it.
    """
    if find_spec("torch_geometric") is None:
        raise RouterError(
            f"router {router!r} needs the package 'torch_geometric', which is not installed; "
            "install it with: pip install 'roadtest[graph]'."
        )
