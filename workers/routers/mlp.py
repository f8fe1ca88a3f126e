"""What does a small neural network per model learn? All models of one fit are one batch of networks."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.base import Floats
from workers.perceptrons import Descending, Layer, Perceptrons
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.routers.labels import most_probable, spread_labels
from workers.training import (
    Batch,
    Floats32,
    Network,
    Tensors,
    TrainedRouter,
    check_optimiser,
    check_whole,
    in_units,
    padded,
    standardise,
    uniform,
)

if TYPE_CHECKING:
    import torch


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
    version = "3"
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
            bias, tables = np.zeros((len(train.models), 2)), {"targets": np.nan_to_num(units.targets)}
            observed = ~np.isnan(units.targets[:, :, 0])
            if not observed.all():
                tables["observed"] = observed.astype(np.float32)
        else:
            labels = spread_labels(*train.outcomes, price)
            self.mean_costs_ = mean_outcomes(train)[1]
            bias = np.log(np.maximum(labels.mean(axis=0), 1e-6))[:, None]
            tables = {"labels": labels.astype(np.float32)}
        return Network(parameters=self._initial(train.embeddings.shape[1], bias, rng), tables=tables)

    def _initial(self, dim: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """Weights [M, in, out], those of the first layer [in, M, out], and biases [M, 1, out], layer by layer.

        The output layer starts as its bias.

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
            weight = np.pad(weight, ((0, 0), (0, more_in), (0, more_out)))
            parameters[f"weight{layer}"] = weight if layer else np.ascontiguousarray(weight.transpose(1, 0, 2))
            parameters[f"bias{layer}"] = np.pad(shift, ((0, 0), (0, 0), (0, more_out)))
        return parameters

    def gradients(self, weights: Tensors, batch: Batch, into: Tensors) -> None:
        """Of the squared error, or of the cross-entropy."""
        import torch

        with torch.no_grad():
            if "networks" not in batch.kept:
                batch.kept["networks"] = Descending(self._layers(weights), self._layers(into), batch.index.shape[1])
            networks, inputs = batch.kept["networks"], batch.x()
            networks.backward(inputs, self._slopes(networks.outputs(inputs), batch))

    def _slopes(self, outputs: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Gradient of the loss by the outputs. Both [B, M, b, outputs]."""
        if "labels" in batch.tables:
            labels, n = batch.take("labels"), outputs.shape[2]
            shares = outputs[..., 0].transpose(1, 2).softmax(dim=-1)
            slopes = (shares * labels.sum(dim=-1, keepdim=True) - labels) / n
            return slopes.transpose(1, 2)[..., None].contiguous()
        errors = outputs - batch.take("targets").transpose(1, 2)
        if "observed" not in batch.tables:
            return errors * (2.0 / outputs.shape[2])
        observed = batch.take("observed").transpose(1, 2)
        counts = observed.contiguous().sum(dim=2, keepdim=True).clamp(min=1)
        return errors * (observed * (2.0 / counts))[..., None]

    def predict(self, queries: Side) -> Prediction:
        """Network outputs in the units of the targets. [n, M]."""
        return in_units(self._outputs(queries), self.means_, self.scales_)

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        return most_probable(self._outputs(queries)[:, :, 0], self.mean_costs_)

    def _outputs(self, queries: Side) -> Floats:
        """Raw outputs. [n, M, outputs]."""
        return network_outputs(self._forward, self.weights_, queries.X)

    def _forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, b, M, outputs] of inputs [B, b, d]."""
        return Perceptrons(self._layers(weights), inputs.shape[1]).outputs(inputs).transpose(1, 2)

    def _layers(self, weights: Tensors) -> list[Layer]:
        return [Layer(weights[f"weight{layer}"], weights[f"bias{layer}"]) for layer in range(self.depth)]
