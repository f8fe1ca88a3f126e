"""Can scores be distilled into a classifier? Zooter learns the softmax of scores that its tags have smoothed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.baselines import grouped_means
from workers.routers.forward import network_outputs
from workers.routers.labels import most_probable
from workers.training import (
    Batch,
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

#: Logit of a model that a query did not observe.
SHUT = -1e9


class Zooter(TrainedRouter):
    """Minimises KL(softmax(r*) ‖ softmax(f(x))) with r* = β r + (1 - β) · mean reward of the query's tag.

    Rewards r are the scores; as a selector, the utilities at its price. The task is the tag (the paper tags by a
    model, several tags a query). A softmax is over the models that the query observed.

    Readings of this project: β weighs the query's own reward (the paper's text was not at hand, and no code of theirs
    was found); f is a dense layer, GELU and a linear layer on the frozen embedding, as the mDeBERTa classifier that the
    paper fine-tunes ends (there the dense layer is as wide as the encoder). The logarithm of softmax(r*) is r* but for
    a constant of the query, which changes no choice at any λ: so f is on the score scale as it is, and the constant is
    set so that a query's mean over models is the training mean. (Smoothing shrinks what sets a query apart from its
    task to β of it: that is the method's, and stays.) f starts at the models' mean rewards, so that without
    an epoch it is the zero-router. Costs are the models' training means.

    Rate and epochs were chosen by validation `auc_path` under MiniLM at split indices 100 to 102, which no sweep file
    reports (zero-router 83.6 on RouterBench's rows; 65.8, 90.9, 78.6 on mbpp, ARC-challenge, winogrande), at 2, 5, 10,
    20, 30 epochs: rate 1e-3 85.9, 85.9, 85.8, 85.9, 85.9 (10 epochs on the tasks: 66.7, 91.3, 78.8); 3e-4 85.0, 86.0,
    86.0, 86.0, 85.9 (20 epochs: 66.7, 91.2, 78.8); 3e-3 85.6, 85.8, 85.9, 85.8, 85.8. A linear f: 3e-4 86.1, 86.1,
    86.0, 85.8, 85.6; 1e-3 86.0, 85.8, 85.3, 85.4, 85.3.

    Args:
        beta: Weight β of a query's own reward against its tag's mean, between 0 and 1.
        hidden: Width of the dense layer.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "zooter"
    summary = "distils the softmax of task-smoothed scores into a classifier"
    source = "Lu et al. 2023, Routing to the Expert (Zooter), arXiv 2311.08692"
    formulations = ("utility", "selection")
    needs = ("task",)

    def __init__(
        self,
        *,
        beta: float = 0.3,
        hidden: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("hidden", hidden, 1)
        if not (isinstance(beta, int | float) and 0 <= beta <= 1):
            raise ValueError(f"beta must be a number between 0 and 1, not {beta!r}.")
        self.beta = beta
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """A head that starts at the mean rewards, and the softmax that it is to learn."""
        (scores, costs), (mean_scores, self.mean_costs_) = train.outcomes, mean_outcomes(train)
        λ = 0.0 if price is None else price
        rewards, means = scores - λ * costs, mean_scores - λ * self.mean_costs_
        names, of = np.unique(np.array(train.tasks), return_inverse=True)
        tags = grouped_means(rewards, of, len(names), means)[of]
        labels = softmax_of_observed(self.beta * rewards + (1.0 - self.beta) * tags)
        #: Mean reward over models, and what float32 takes from the start of the biases.
        self.centre_, self.rest_ = float(means.mean()), means - means.astype(np.float32)
        self.n_models_, width = len(train.models), train.embeddings.shape[1]
        more, empty = (padded(number) - number for number in (self.hidden, self.n_models_))
        bound = 1.0 / math.sqrt(width)
        parameters = {
            "weight": np.pad(uniform(rng, bound, width, self.hidden), ((0, 0), (0, more))),
            "shift": np.pad(uniform(rng, bound, 1, self.hidden), ((0, 0), (0, more))),
            "outputs": np.zeros((self.hidden + more, self.n_models_ + empty), dtype=np.float32),
            "bias": np.pad(means, (0, empty))[None].astype(np.float32),
        }
        return Network(parameters=parameters, tables={"labels": labels.astype(np.float32)})

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """The divergence but for the labels' entropy, which no weight changes. [B]."""
        labels = batch.take("labels")
        return cross_entropy(self._forward(weights, batch.x()).masked_fill(labels == 0, SHUT), labels)

    def predict(self, queries: Side) -> Prediction:
        """Logits around the mean training score, and training means as costs. [n, M]."""
        logits = network_outputs(self._forward, self.weights_, queries.X) + self.rest_
        scores = logits - logits.mean(axis=1, keepdims=True) + self.centre_
        return Prediction(scores=scores, costs=np.broadcast_to(self.mean_costs_, scores.shape))

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        return most_probable(network_outputs(self._forward, self.weights_, queries.X), self.mean_costs_)

    def _forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Logits [B, b, M] of embeddings [B, b, d]."""
        import torch

        hidden = torch.nn.functional.gelu(affine(inputs, weights["weight"], weights["shift"]))
        return affine(hidden, weights["outputs"], weights["bias"])[..., : self.n_models_]


def softmax_of_observed(rewards: Floats) -> Floats:
    """Softmax of each row over its observed models; zeros for the others, and in a row without any. [n, M]."""
    observed = ~np.isnan(rewards)
    top = np.max(rewards, axis=1, keepdims=True, where=observed, initial=-np.inf)
    odds = np.where(observed, np.exp(np.where(observed, rewards - top, 0.0)), 0.0)
    shares: Floats = odds / np.maximum(odds.sum(axis=1, keepdims=True), 1.0)
    return shares
