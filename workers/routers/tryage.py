"""How large is each expert's loss on this query? Tryage's router: predicted losses plus weighted constraints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workers.metrics.frontier import choose
from workers.routers import trunk
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.training import (
    Batch,
    Network,
    Tensors,
    TrainedRouter,
    check_optimiser,
    check_whole,
    squared_error,
    standardise,
)

if TYPE_CHECKING:
    import torch


class Tryage(TrainedRouter):
    """Tryage: one network predicts the loss of every expert; the choice minimises loss + Σ λ · constraint.

    The loss of a model on a query is 1 - score. The original fine-tunes a small language model to predict it; here that
    is a hidden layer on the frozen embedding with an output per model (reading of this project), trained on the squared
    error of losses standardised per model. Of the original's constraints the data know cost alone, here a constant of
    each model as its size is: the mean training cost, weighed by the protocol's price λ. Size, recency and the other
    flags of the original are absent from routing benchmarks, so there is no option for them. Scores are 1 - predicted
    loss, so that maximising score - λ · cost is the original's minimum. As a selector it is the same choice at the
    preference's price. Of the original the abstract was read, not the training settings.

    The outputs start at the training means, so that without an epoch it is the zero-router.

    Args:
        hidden: Width of the hidden layer.
        learning_rate: Of Adam; like decay, epochs and batch size this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "tryage"
    summary = "one small network predicts each model's loss; cost is the constraint"
    source = "Hari & Thomson 2023, Tryage, arXiv 2308.11601"
    formulations = ("utility", "selection")

    price_: float | None

    def __init__(
        self,
        *,
        hidden: int = 128,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("hidden", hidden, 1)
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """A network of standardised losses; the price is for the choice alone."""
        units = standardise(train)
        mean_scores, self.costs_ = mean_outcomes(train)
        self.mean_losses_, self.scales_, self.price_ = 1.0 - mean_scores, units.scales[0], price
        bias = np.zeros(len(train.models))
        # A loss is above its mean by as much as the score is below its own.
        return Network(
            parameters=trunk.initial(train.embeddings.shape[1], self.hidden, bias, rng),
            tables={"losses": -units.targets[:, :, :1]},
        )

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Squared error of the standardised losses. [B]."""
        losses = batch.take("losses")
        outputs = trunk.forward(weights, batch.x())[..., : losses.shape[2]]
        return squared_error(outputs[..., None], losses)

    def predict(self, queries: Side) -> Prediction:
        """1 - predicted loss, and training mean costs. [n, M]."""
        outputs = network_outputs(trunk.forward, self.weights_, queries.X)[:, : len(self.costs_)]
        losses = self.mean_losses_ + self.scales_ * outputs
        return Prediction(scores=1.0 - losses, costs=np.broadcast_to(self.costs_, losses.shape))

    def select(self, queries: Side) -> Positions:
        """The least predicted loss + price · cost. [n]."""
        assert self.price_ is not None
        return choose(self.predict(queries), self.price_)
