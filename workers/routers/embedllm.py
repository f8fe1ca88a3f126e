"""Will this model answer this query well? Learned model embeddings against the projected query, through a logistic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.routers.base import Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.training import (
    Batch,
    Network,
    Tensors,
    TrainedRouter,
    affine,
    check_optimiser,
    check_whole,
    padded,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Training means are kept this far from the ends of the scale, where the logistic has no argument.
EDGE = 1e-6


class EmbedLLM(TrainedRouter):
    """P(correct) = σ(wᵀ(p_m ⊙ (A x + a)) + b_m), with logistic loss over the observed cells.

    Verified in the authors' code (`algorithm/mf.py`): the projection of a frozen embedding, its product element by
    element with the model's embedding, a linear classifier with two classes (whose difference is w), cross-entropy,
    Gaussian noise on the query's embedding in training alone, width 232, noise 0.05, Adam, weight decay 1e-5.

    Readings of this project: a score between 0 and 1 is a soft label (other scores are first brought to [0, 1] by the
    training range, and back); a batch holds whole queries with all their models and one draw of noise per query; each
    model has an intercept b_m instead of one for all, which starts at its training mean while p_m starts at zero, so
    that without an epoch it is the zero-router. Costs are the models' training means: the paper predicts none.

    The code's rate 1e-4 for 50 epochs is for 1600 steps an epoch (112 models x 29 000 prompts / 2048 pairs). Rate,
    epochs and batch size here were chosen by validation `auc_path` under MiniLM at split indices 100 to 102, which no
    sweep file reports (zero-router 83.6 on RouterBench's rows; 65.8, 90.9, 78.6 on mbpp, ARC-challenge, winogrande), at
    2, 5, 10, 20 epochs in batches of 32: rate 1e-3 85.4, 85.9, 85.8, 84.8 (10 epochs on the tasks: 66.4, 91.4, 78.5);
    3e-4 84.9, 85.2, 85.7, 85.9 (20 epochs: 66.6, 91.4, 78.5); of 128: 1e-3 84.9, 84.9, 85.9, 85.8; 3e-4 84.8, 84.9,
    84.9, 85.6; 3e-3 84.9, 85.8, 85.5, 84.8. Batches of 128 lost on 420 synthetic training queries (54.2 against 70.4
    after 10 epochs at 1e-3). Without noise 1e-3 in batches of 128 fell from 85.9 after 10 epochs to 85.4 after 20.

    Args:
        dim: Width of the model embeddings.
        noise: Standard deviation of the noise on every coordinate of x.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "embedllm"
    summary = "logistic in learned model embeddings times the projected query"
    source = "Zhuang et al. 2025, EmbedLLM, arXiv 2410.02223"

    def __init__(
        self,
        *,
        dim: int = 232,
        noise: float = 0.05,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
        epochs: int = 10,
        batch_size: int = 32,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("dim", dim, 1)
        if not (isinstance(noise, int | float) and 0 <= noise < math.inf):
            raise ValueError(f"noise must be a number, at least 0, not {noise!r}.")
        self.dim = dim
        self.noise = noise
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Projection, classifier and model embeddings, and the scores as chances."""
        scores, _ = train.outcomes
        means, self.mean_costs_ = mean_outcomes(train)
        observed = scores[~np.isnan(scores)]
        self.low_ = float(observed.min(initial=0.0))
        self.range_ = float(observed.max(initial=1.0)) - self.low_
        self.n_models_, self.width_ = len(train.models), train.embeddings.shape[1]
        chances = np.clip((means - self.low_) / self.range_, EDGE, 1.0 - EDGE)
        start = np.log(chances) - np.log1p(-chances)
        #: What float32 takes from the start of the intercepts.
        self.rest_ = start - start.astype(np.float32)
        more = padded(self.dim) - self.dim
        bound, inner = 1.0 / math.sqrt(self.width_), 1.0 / math.sqrt(self.dim)
        parameters = {
            "projection": np.pad(uniform(rng, bound, self.width_, self.dim), ((0, 0), (0, more))),
            "shift": np.pad(uniform(rng, bound, 1, self.dim), ((0, 0), (0, more))),
            "classifier": np.pad(uniform(rng, inner, self.dim, 1), ((0, more), (0, 0))),
            "models": np.zeros((self.dim + more, padded(self.n_models_)), dtype=np.float32),
            "bias": np.pad(start, (0, padded(self.n_models_) - self.n_models_))[None].astype(np.float32),
        }
        return Network(
            parameters=parameters, tables={"targets": ((scores - self.low_) / self.range_).astype(np.float32)}
        )

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """Noise on a batch's embeddings. [size, d]."""
        return {"noise": np.float32(self.noise) * rng.standard_normal((size, self.width_), dtype=np.float32)}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Logistic loss, mean over the observed cells. [B]."""
        import torch

        targets = batch.take("targets")
        observed = ~targets.isnan()
        logits = self._forward(weights, batch.x() + batch.draws["noise"])
        losses = (torch.nn.functional.softplus(logits) - logits * targets.nan_to_num()) * observed
        counts = observed.flatten(1).sum(dim=-1).clamp(min=1)
        return losses.flatten(1).sum(dim=-1) / counts

    def predict(self, queries: Side) -> Prediction:
        """Chances on the score scale, and training means as costs. [n, M]."""
        from scipy.special import expit

        logits = network_outputs(self._forward, self.weights_, queries.X) + self.rest_
        costs = np.broadcast_to(self.mean_costs_, logits.shape)
        return Prediction(scores=self.low_ + self.range_ * expit(logits), costs=costs)

    def _forward(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Logits [B, b, M] of embeddings [B, b, d]."""
        projected = affine(inputs, weights["projection"], weights["shift"])
        # wᵀ(p_m ⊙ z) = (w ⊙ p_m)ᵀ z: the classifier is applied to the models, which are fewer than the queries. Its
        # gradient is a sum along contiguous rows; by a product with ones it would have other bits in company.
        directions = weights["models"] * weights["classifier"]
        return affine(projected, directions, weights["bias"])[..., : self.n_models_]
