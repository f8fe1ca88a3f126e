"""What does a small neural network per model learn? All models of one fit are one batch of networks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
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
    one_thread,
    padded,
    squared_error,
    standardise,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Rows of one forward pass when predicting.
BLOCK = 1024


class MLP(TrainedRouter):
    """A network per model, with outputs for score and cost; as a selector, one logit per model and cross-entropy.

    The loss is MSE(ŝ, s) + MSE(ĉ, c) over observed cells, on targets standardised per model on the training side.
    The output layer starts at zero, so that without an epoch it predicts the training means. Epochs and batch size were
    chosen by validation `auc_path` under wordllama at split indices 100 to 102, which no sweep file reports, among
    5, 10, 20, 40 epochs at 128 and 10 at 64: RouterBench's rows 84.3, 85.2, 83.6, 77.0, 83.7; LLMRouter's data 57.7,
    57.9, 55.3, 53.1, 57.0; toolbox 77.0, 80.7, 81.3, 81.5, 81.0.

    Args:
        hidden: Width of the hidden layers.
        depth: Fully connected layers, the output layer included.
        learning_rate: Of Adam; the paper prints no optimiser, rate, decay or epochs: these are this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "mlp"
    version = "2"
    summary = "a 3-layer perceptron per model"
    source = "Li 2025, arXiv 2505.12601, section 4 (3 layers, ReLU, hidden width 100)"
    formulations = ("utility", "selection")

    def __init__(
        self,
        *,
        hidden: int = 100,
        depth: int = 3,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("hidden", hidden, 1)
        check_whole("depth", depth, 1)
        self.hidden = hidden
        self.depth = depth
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Networks for standardised scores and costs, or for labels spread over ties."""
        if price is None:
            units = standardise(train)
            self.means_, self.scales_ = units.means, units.scales
            bias, tables = np.zeros((len(train.models), 2)), {"targets": units.targets}
        else:
            labels = spread_labels(*train.outcomes, price)
            self.mean_costs_ = mean_outcomes(train)[1]
            bias = np.log(np.maximum(labels.mean(axis=0), 1e-6))[:, None]
            tables = {"labels": labels.astype(np.float32)}
        return Network(parameters=self._initial(train.embeddings.shape[1], bias, rng), tables=tables)

    def _initial(self, dim: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """Weights [M, in, out] and biases [M, 1, out], layer by layer; the output layer starts as its bias.

        Args:
            dim: Width of the inputs.
            bias: [M, outputs]
            rng: The job's stream.
        """
        n_models, n_outputs = bias.shape
        parameters = {}
        widths = [dim, *[self.hidden] * (self.depth - 1), n_outputs]
        for layer, (fan_in, fan_out) in enumerate(pairwise(widths)):
            bound = 1.0 / math.sqrt(fan_in)
            weight, shift = (uniform(rng, bound, n_models, rows, fan_out) for rows in (fan_in, 1))
            last = layer == self.depth - 1
            if last:
                weight, shift = np.zeros_like(weight), bias[:, None].astype(np.float32)
            more = padded(self.hidden) - self.hidden
            more_in, more_out = more if layer else 0, 0 if last else more
            parameters[f"weight{layer}"] = np.pad(weight, ((0, 0), (0, more_in), (0, more_out)))
            parameters[f"bias{layer}"] = np.pad(shift, ((0, 0), (0, 0), (0, more_out)))
        return parameters

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Squared error, or cross-entropy. [B]."""
        outputs = self._forward(weights, batch.x())
        if "labels" in batch.tables:
            return cross_entropy(outputs[..., 0], batch.take("labels"))
        return squared_error(outputs, batch.take("targets"))

    def predict(self, queries: Side) -> Prediction:
        """Network outputs in the units of the targets. [n, M]."""
        return in_units(self._outputs(queries), self.means_, self.scales_)

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        return most_probable(self._outputs(queries)[:, :, 0], self.mean_costs_)

    def _outputs(self, queries: Side) -> Floats:
        """Raw outputs. [n, M, outputs]."""
        import torch

        X = queries.X
        with one_thread(), torch.no_grad():
            weights = {name: torch.tensor(array[None]) for name, array in self.weights_.items()}
            parts = [
                self._forward(weights, torch.from_numpy(X[None, start : start + BLOCK]))[0].double().numpy()
                for start in range(0, len(X), BLOCK)
            ]
        return np.concatenate(parts)

    def _forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, b, M, outputs] of inputs [B, b, d]."""
        first, bias = weights["weight0"], weights["bias0"]
        members, n_models, fan_in, fan_out = first.shape
        # The inputs are everybody's: one wide product instead of one for each network.
        wide = affine(
            inputs,
            first.transpose(1, 2).reshape(members, fan_in, n_models * fan_out),
            bias.view(members, 1, n_models * fan_out),
        )
        hidden = wide.view(members, -1, n_models, fan_out).transpose(1, 2)
        for layer in range(1, self.depth):
            hidden = affine(hidden.relu(), weights[f"weight{layer}"], weights[f"bias{layer}"])
        return hidden.transpose(1, 2)
