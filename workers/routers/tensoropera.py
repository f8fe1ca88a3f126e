"""Which model is probably best, if labels are soft? TensorOpera Router, with a kNN and with an MLP head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs, shifted, wide
from workers.routers.labels import most_probable, most_voted
from workers.routers.lookup import Lookup, LookupRouter, sums
from workers.routers.parameters import check_number, filled, log_integer, log_uniform
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
    padded,
    uniform,
)

if TYPE_CHECKING:
    import torch


class TensorOpera(LookupRouter):
    """TensorOpera Router (TO-Router) with its kNN head: soft labels softmax(T·s), averaged over the k nearest queries.

    As a selector the labels are softmax(T·(s - price · cost)) and the model of the largest mean share is named, ties
    to the cheaper.

    Readings of this project: for utility prediction the shares are brought back to the scale of scores, ŝ = log(q) / T,
    which undoes the softmax; what is the same for all models of a query does not matter to any choice and is set so
    that the mean over the models is that of their training means. Costs are the training means. An unobserved cell has
    the model's training mean. The paper scores by BERT similarity; here the benchmark's score. T = 10 is the paper's
    (checked in a summary of it; that T multiplies, not divides, was not); its k was not found. At k = n_train it is
    query-blind.

    Args:
        k: Neighbours; None: tuned.
        temperature: T.
    """

    name = "tensoropera"
    summary = "soft labels softmax(T·s), averaged over the nearest queries"
    source = "Stripelis et al. 2024, EMNLP industry track, arXiv 2408.12320 (TO-Router), soft labels, kNN router"
    formulations = ("utility", "selection")
    tunables = ("k", "temperature")

    def __init__(self, *, k: int | None = None, temperature: float = 10.0) -> None:
        if k is not None:
            check_whole("k", k, 1)
        check_number("temperature", temperature, 0.0, 100.0, above=True)
        self.k = k
        self.temperature = temperature

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "k": {"log_integer": [1, "n_train"]},
            "temperature": {"log": [1.0, 100.0]},
            "first": [{"k": 100, "temperature": 10.0}, {"k": "n_train", "temperature": 10.0}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The paper's temperature with 100 neighbours and with all, the query-blind limit, then draws."""
        return filled(
            [{"k": min(100, n_train), "temperature": 10.0}, {"k": n_train, "temperature": 10.0}],
            lambda: {"k": log_integer(rng, 1, n_train), "temperature": log_uniform(rng, 1.0, 100.0)},
            budget,
        )

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """More neighbours, then softer labels."""
        return (-params["k"], params["temperature"])

    def lookups(self, queries: Side) -> Sequence[Lookup]:
        """Sums of the neighbours' soft labels."""
        if self.k is None:
            raise RouterError("router 'tensoropera': k is neither given nor tuned; give k.")
        labels = soft_labels(self.train_, self.price_, self.temperature)
        return [Lookup(train=self.train_, queries=queries, k=self.k, reduce=sums(labels))]

    def answer(self, queries: Side, found: Sequence[Floats]) -> Prediction | Positions:
        """Logarithms of the mean shares on the scale of scores, or the model of the largest."""
        shares = found[0] / found[0].sum(axis=1, keepdims=True)
        if self.price_ is not None:
            return most_voted(shares, mean_outcomes(self.train_)[1])
        return _on_scale(np.log(shares), self.temperature, *mean_outcomes(self.train_))


class TensorOperaMLP(TrainedRouter):
    """TensorOpera Router (TO-Router) with its MLP head: cross-entropy with the soft labels softmax(T·s).

    Readings of this project, beside those of `tensoropera`: one hidden layer of 128 units on the frozen embedding, Adam
    at 1e-3 and 10 epochs (the paper's sizes were not found). The biases of the output start at T times the training
    means, so that without an epoch it predicts these; as a selector at the logarithms of the mean labels.

    Args:
        temperature: T.
        hidden: Width of the hidden layers.
        depth: Fully connected layers, the output layer included.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side.
        batch_size: Queries of a minibatch.
    """

    name = "tensoropera-mlp"
    summary = "soft labels softmax(T·s), learned by a perceptron"
    source = "Stripelis et al. 2024, EMNLP industry track, arXiv 2408.12320 (TO-Router), soft labels, MLP router"
    formulations = ("utility", "selection")

    def __init__(
        self,
        *,
        temperature: float = 10.0,
        hidden: int = 128,
        depth: int = 2,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_number("temperature", temperature, 0.0, 100.0, above=True)
        check_whole("hidden", hidden, 1)
        check_whole("depth", depth, 1)
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        self.temperature = temperature
        self.hidden = hidden
        self.depth = depth
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Uniform hidden layers, an output layer of zeros, and the soft labels."""
        self.means_, self.mean_costs_ = mean_outcomes(train)
        labels = soft_labels(train, price, self.temperature)
        bias = self.temperature * self.means_ if price is None else np.log(np.maximum(labels.mean(axis=0), 1e-6))
        widths = [train.embeddings.shape[1], *[self.hidden] * (self.depth - 1), labels.shape[1]]
        parameters: dict[str, Floats32] = {}
        for layer, (rows, columns) in enumerate(pairwise(widths)):
            bound, inner = 1.0 / math.sqrt(rows), padded(rows) if layer else rows
            if layer == self.depth - 1:
                parameters[f"weight{layer}"] = np.zeros((inner, columns), dtype=np.float32)
                parameters["bias"] = wide(bias)
                break
            weight, shift = uniform(rng, bound, rows, columns), uniform(rng, bound, 1, columns)
            more = padded(columns) - columns
            parameters[f"weight{layer}"] = np.pad(weight, ((0, inner - rows), (0, more)))
            parameters[f"bias{layer}"] = np.pad(shift, ((0, 0), (0, more)))
        return Network(parameters=parameters, tables={"labels": labels.astype(np.float32)})

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Cross-entropy. [B]."""
        return cross_entropy(self._logits(weights, batch.x()), batch.take("labels"))

    def predict(self, queries: Side) -> Prediction:
        """Logits on the scale of scores. [n, M]."""
        return _on_scale(self._outputs(queries), self.temperature, self.means_, self.mean_costs_)

    def select(self, queries: Side) -> Positions:
        """The most probable model; ties to the lower mean training cost. [n]."""
        return most_probable(self._outputs(queries), self.mean_costs_)

    def _outputs(self, queries: Side) -> Floats:
        return network_outputs(self._logits, self.weights_, queries.X)

    def _logits(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Logits [B, b, M] of inputs [B, b, d]."""
        last = self.depth - 1
        for layer in range(last):
            inputs = affine(inputs, weights[f"weight{layer}"], weights[f"bias{layer}"]).relu()
        return shifted(inputs @ weights[f"weight{last}"], weights["bias"])


def soft_labels(train: Side, price: float | None, temperature: float) -> Floats:
    """softmax(T·s) of every training query, or softmax(T·(s - price · cost)); rows sum to 1. [n, M].

    An unobserved cell has the model's training means.
    """
    scores, costs = (
        np.where(np.isnan(values), mean, values)
        for values, mean in zip(train.outcomes, mean_outcomes(train), strict=True)
    )
    logits = temperature * (scores if price is None else scores - price * costs)
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    labels: Floats = odds / odds.sum(axis=1, keepdims=True)
    return labels


def _on_scale(logits: Floats, temperature: float, means: Floats, mean_costs: Floats) -> Prediction:
    """Scores that differ as logits / T do, their mean over the models that of the training means. [n, M]."""
    scores = logits / temperature
    scores = scores - scores.mean(axis=1, keepdims=True) + means.mean()
    return Prediction(scores=scores, costs=np.broadcast_to(mean_costs, scores.shape))
