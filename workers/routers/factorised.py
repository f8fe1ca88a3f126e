"""Do learned model embeddings help? Factorised predictors: every model is one learned vector e_m."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.routers.labels import most_probable, spread_labels
from workers.training import (
    Batch,
    Floats32,
    Network,
    Tensors,
    TrainedRouter,
    affine,
    check_optimiser,
    check_whole,
    cross_entropy,
    in_units,
    padded,
    repeat,
    squared_error,
    standardise,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Weights of the cost's error that tuning tries (protocol 4).
ALPHAS = (0.1, 1.0, 10.0)


class Factorised(TrainedRouter, ABC):
    """Outputs from x and e_m, for standardised score and cost or for a selector's logit. A subclass says how.

    The loss is MSE(ŝ, s) + α·MSE(ĉ, c) over observed cells, each mean squared error summed over models; as a selector
    cross-entropy over the models' logits with labels spread over ties. The paper prints neither optimiser, rate, decay,
    epochs nor α; all of these are this project's. Also readings of this project: one e_m serves score and cost (a model
    is one vector), so that α weighs and is tuned; every output has an intercept per model; all e_m start at zero, as do
    the outputs for score and cost, so that without an epoch it predicts the training means (as a selector the labels'
    shares), and models differ by their data, never by their order.
    """

    formulations = ("utility", "selection")
    tunables = (*TrainedRouter.tunables, "alpha")

    dim: int
    alpha: float

    @abstractmethod
    def initial(self, width: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """Weights before the first step.

        Args:
            width: Width of the embeddings of queries.
            bias: What the outputs start at: score and cost, or a logit. [M, outputs]
            rng: The job's stream.
        """

    @abstractmethod
    def forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, b, M, outputs] of embeddings [B, b, d]."""

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

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Weights and targets: standardised scores and costs, or labels spread over ties."""
        self.n_models_, width = len(train.models), train.embeddings.shape[1]
        if price is None:
            units = standardise(train)
            self.means_, self.scales_ = units.means, units.scales
            bias, tables = np.zeros((self.n_models_, 2)), {"targets": units.targets}
        else:
            labels = spread_labels(*train.outcomes, price)
            self.mean_costs_ = mean_outcomes(train)[1]
            bias = np.log(np.maximum(labels.mean(axis=0), 1e-6))[:, None]
            tables = {"labels": labels.astype(np.float32)}
        return Network(parameters=self.initial(width, bias, rng), tables=tables)

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """MSE(ŝ, s) + α MSE(ĉ, c), or cross-entropy. [B]."""
        outputs = self.forward(weights, batch.x())
        if "labels" in batch.tables:
            return cross_entropy(outputs[..., 0], batch.take("labels"))
        targets = batch.take("targets")
        score, cost = (squared_error(outputs[..., i : i + 1], targets[..., i : i + 1]) for i in range(2))
        return score + self.alpha * cost

    def predict(self, queries: Side) -> Prediction:
        """Outputs in the units of the targets. [n, M]."""
        outputs = network_outputs(self.forward, self.weights_, queries.X)
        return in_units(outputs, self.means_, self.scales_)

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        logits = network_outputs(self.forward, self.weights_, queries.X)[:, :, 0]
        return most_probable(logits, self.mean_costs_)

    def _check(self) -> None:
        check_optimiser(self.learning_rate, self.weight_decay, self.epochs, self.batch_size)
        check_whole("dim", self.dim, 1)
        if not (isinstance(self.alpha, int | float) and 0 < self.alpha < math.inf):
            raise ValueError(f"alpha must be a number above 0, not {self.alpha!r}.")


class LinearMF(Factorised):
    """Matrix factorisation: ŝ = xᵀ W e_m + b_m and ĉ = xᵀ V e_m + c_m; as a selector, one such logit.

    Score and cost have a projection each (a reading: "likewise ĉ") and share e_m.

    Rate and epochs were chosen by validation `auc_path` under MiniLM at split indices 100 to 102, which no sweep file
    reports (zero-router 83.6 on RouterBench's rows; 65.8, 90.9, 78.6 on mbpp, ARC-challenge, winogrande), at 2, 5, 10,
    20, 30 epochs: rate 1e-3 84.9, 84.6, 85.0, 84.5, 84.3 (10 epochs on the tasks: 66.7, 91.3, 78.7); 3e-4 84.8, 84.9,
    84.8, 84.8, 85.0 (20 epochs: 66.7, 91.4, 78.8); 3e-3 84.9, 84.8, 84.3, 82.8, 80.5; 1e-2 84.4, 83.5, 80.9, 79.6,
    79.7. Decays from 1e-6 to 1e-2 differ by at most 0.1. On 420 synthetic training queries 3e-4 had not learned enough
    after 20 epochs (66.4 against 70.3 with 1e-3 after 10).

    Args:
        dim: Width of the model embeddings.
        alpha: Weight α of the cost's error; without effect on a selector.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "linear-mf"
    summary = "score and cost bilinear in query and learned model embeddings"
    source = "Li 2025, arXiv 2505.12601, section 4 (W: d x 128, e_m in R^128)"

    def __init__(
        self,
        *,
        dim: int = 128,
        alpha: float = 1.0,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        self.dim = dim
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self._check()

    def initial(self, width: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """One projection per output, and the model embeddings as columns."""
        n_models, n_outputs = bias.shape
        more, empty = padded(self.dim) - self.dim, padded(n_models) - n_models
        projection = uniform(rng, 1.0 / math.sqrt(width), width, n_outputs, self.dim)
        return {
            "projection": np.pad(projection, ((0, 0), (0, 0), (0, more))).reshape(width, -1),
            "models": np.zeros((self.dim + more, n_models + empty), dtype=np.float32),
            "bias": np.pad(bias.T, ((0, 0), (0, empty))).reshape(1, -1).astype(np.float32),
        }

    def forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, b, M, outputs] of embeddings [B, b, d]."""
        members, dim, n_columns = weights["models"].shape
        n = inputs.shape[1]
        projected = (inputs @ weights["projection"]).view(members, -1, dim)
        outputs = (projected @ weights["models"]).view(members, n, -1)
        outputs = outputs + repeat(weights["bias"], n)
        return outputs.view(members, n, -1, n_columns)[..., : self.n_models_].transpose(2, 3)


class MLPMF(Factorised):
    """One perceptron for all models on [x ; e_m], with outputs for score and cost; as a selector, for a logit.

    Rate and epochs were chosen by validation `auc_path` under MiniLM at split indices 100 to 102, which no sweep file
    reports (zero-router 83.6 on RouterBench's rows; 65.8, 90.9, 78.6 on mbpp, ARC-challenge, winogrande), at 2, 5, 10,
    20, 30 epochs: rate 3e-3 85.2, 84.7, 84.9, 85.0, 84.4 (15 epochs 85.0, on the tasks: 65.6, 91.3, 78.3); 1e-3 84.7,
    85.1, 84.8, 84.5, 85.5 (10 epochs: 65.6, 91.5, 78.7); 3e-4 84.7, 84.7, 84.9, 85.1, 84.8 (20 epochs: 65.5, 91.4,
    78.8). Decays from 1e-6 to 1e-2 differ by at most 0.1; e_m that start at N(0, 1) gave no more. What decided are 420
    synthetic training queries, where 3e-4 after 20 and 1e-3 after 10 epochs had hardly begun to tell the models apart
    (53.0 and 53.1 where 3e-3 after 15 has 70.5).

    Args:
        dim: Width of the model embeddings.
        hidden: Width of the hidden layers.
        depth: Fully connected layers, the output layer included (a reading: as `mlp`).
        alpha: Weight α of the cost's error; without effect on a selector.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "mlp-mf"
    summary = "one perceptron on the query's and a learned model embedding"
    source = "Li 2025, arXiv 2505.12601, section 4 (MLP on [x ; e_m], hidden width 100)"

    def __init__(
        self,
        *,
        dim: int = 128,
        hidden: int = 100,
        depth: int = 3,
        alpha: float = 1.0,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        epochs: int = 15,
        batch_size: int = 128,
    ) -> None:
        check_whole("hidden", hidden, 1)
        check_whole("depth", depth, 2)
        self.dim = dim
        self.hidden = hidden
        self.depth = depth
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size
        self._check()

    def initial(self, width: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """Layers as torch starts them, but outputs at zero; the first is split into its rows for x and for e_m."""
        n_models, n_outputs = bias.shape
        dim, hidden = padded(self.dim), padded(self.hidden)
        more = hidden - self.hidden
        parameters = {"models": np.zeros((n_models, dim), dtype=np.float32)}
        for layer, fan_in in enumerate([width + self.dim, *[self.hidden] * (self.depth - 2)]):
            bound = 1.0 / math.sqrt(fan_in)
            weight = np.pad(uniform(rng, bound, fan_in, self.hidden), ((0, 0), (0, more)))
            if layer == 0:
                parameters["queries0"] = weight[:width]
                parameters["models0"] = np.pad(weight[width:], ((0, dim - self.dim), (0, 0)))
            else:
                parameters[f"weight{layer}"] = np.pad(weight, ((0, more), (0, 0)))
            parameters[f"bias{layer}"] = np.pad(uniform(rng, bound, 1, self.hidden), ((0, 0), (0, more)))
        parameters["outputs"] = np.zeros((hidden, n_outputs), dtype=np.float32)
        if n_outputs == 1:
            # While all e_m are zero a logit's weights add the same to every model: a softmax does not see it, and from
            # zero no weight would ever move.
            parameters["outputs"][: self.hidden] = uniform(rng, 1.0 / math.sqrt(self.hidden), self.hidden, 1)
        parameters["bias"] = bias[:, None].astype(np.float32)
        return parameters

    def forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, b, M, outputs] of embeddings [B, b, d]."""
        members, n = inputs.shape[:2]
        n_models, width = weights["models"].shape[1], weights["bias0"].shape[2]
        queries = inputs @ weights["queries0"]
        models = affine(weights["models"], weights["models0"], weights["bias0"])
        # The first layer of every pair is a sum of its two parts.
        spread = repeat(queries.view(members, 1, -1), n_models).view(members, n_models, n, width)
        hidden = (spread + repeat(models.view(members, n_models, 1, width), n)).view(members, -1, width)
        for layer in range(1, self.depth - 1):
            hidden = affine(hidden.relu(), weights[f"weight{layer}"], weights[f"bias{layer}"])
        outputs = (hidden.relu() @ weights["outputs"]).view(members, n_models, n, -1)
        return (outputs + repeat(weights["bias"], n)).transpose(1, 2)
