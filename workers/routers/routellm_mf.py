"""Which model answers a query better? RouteLLM's matrix factorisation of battles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Side
from workers.routers.forward import network_outputs, shifted, wide
from workers.routers.labels import TIE
from workers.routers.pairs import WinRateRouter
from workers.routers.routellm_sw import bradley_terry, weighted_battles
from workers.training import (
    Batch,
    Floats32,
    Network,
    Tensors,
    TrainedRouter,
    check_optimiser,
    check_whole,
    over_batch,
    padded,
    repeat,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Sorts unobserved scores behind all others.
BEYOND = 1e9
#: Weight of the tie that is added to every two models' battles for the initial strengths, training queries being 1.
PRIOR = 1e-6


class RouteLLMMF(WinRateRouter, TrainedRouter):
    """P(model j beats model k | x) = σ(δ(j, x) - δ(k, x)) with δ(m, x) = w₂ᵀ(v̂_m ⊙ W₁x) + β_m, by BCE on battles.

    A training query is a battle between every two models observed on it. Verified in the released code
    (github.com/lm-sys/RouteLLM, `train_matrix_factorization.py`): model vectors are normalised, W₁ and w₂ have no
    bias, d = 128, Adam at 3e-4 with weight decay 1e-5, batches of 64, 100 epochs, Gaussian noise of 0.1 on every
    coordinate of x while training; ties are left out there.

    Readings of this project: a tie is half a win for each; a batch is of queries with all their battles and not of
    battles drawn one by one, which is the same expectation; a strength β_m, which begins at the Bradley-Terry
    strength of the training battles, with w₂ at zero, so that without an epoch every query gets the same answer.
    Pairs and ŝ are those of `WinRateRouter`.

    Args:
        dim: Width of the model vectors.
        noise: Standard deviation of the noise on x while training.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side.
        batch_size: Queries of a minibatch.
    """

    name = "routellm-mf"
    summary = "win rates by matrix factorisation of training battles"
    source = "Ong et al. 2024, RouteLLM, arXiv 2406.18665, matrix factorization"
    most_epochs = 100

    def __init__(
        self,
        *,
        dim: int = 128,
        noise: float = 0.1,
        learning_rate: float = 3e-4,
        weight_decay: float = 1e-5,
        epochs: int = 100,
        batch_size: int = 64,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        check_whole("dim", dim, 1)
        if not (isinstance(noise, int | float) and not isinstance(noise, bool) and 0 <= noise < math.inf):
            raise ValueError(f"noise must be a number, at least 0, not {noise!r}.")
        self.dim = dim
        self.noise = noise
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    #: Width of x.
    width_: int

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Random vectors and projection, w₂ at zero, strengths of the training battles."""
        self.keep_battles(train, price)
        scores = train.outcomes[0]
        self.width_ = train.embeddings.shape[1]
        n_models, more = scores.shape[1], padded(self.dim) - self.dim
        even = np.full((1, train.n), 1.0 / train.n)
        vectors = rng.normal(size=(n_models, self.dim)).astype(np.float32)
        project = uniform(rng, 1.0 / math.sqrt(self.width_), self.width_, self.dim)
        return Network(
            parameters={
                "vectors": np.pad(vectors, ((0, 0), (0, more))),
                "project": np.pad(project, ((0, 0), (0, more))),
                "combine": np.zeros((1, self.dim + more), dtype=np.float32),
                "strengths": wide(bradley_terry(*weighted_battles(even, scores, PRIOR))[0]),
            },
            tables={"ranks": ranks(scores)},
        )

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """Noise on the batch's embeddings."""
        noise = rng.normal(size=(size, self.width_)) if self.noise else np.zeros((size, self.width_))
        return {"noise": (self.noise * noise).astype(np.float32)}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Binary cross-entropy, mean over the battles of the batch. [B]."""
        import torch

        strengths = self._strengths(weights, batch.x() + batch.draws["noise"])
        place = batch.take("ranks")
        pairs = _pairs(strengths)
        gaps, order = strengths @ pairs, place.nan_to_num() @ pairs
        fought = ((~place.isnan()).float() @ pairs.abs() == 2).float()
        outcomes = (order.sign() + 1) / 2
        losses = (torch.nn.functional.softplus(gaps) - outcomes * gaps) * fought
        counts = over_batch(fought).sum(dim=-1).clamp(min=1)
        return over_batch(losses).sum(dim=-1) / counts

    def win_rates(self, queries: Side) -> Floats:
        """Of the strong model of every pair of the chain. [n, P]."""
        strengths = network_outputs(self._strengths, self.weights_, queries.X)[:, self.chain_]
        rates: Floats = 1.0 / (1.0 + np.exp(-np.diff(strengths, axis=1)))
        return rates

    def _strengths(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """δ of every model, [B, b, M], of inputs [B, b, d]."""
        import torch

        vectors = torch.nn.functional.normalize(weights["vectors"], dim=-1)
        combined = (inputs @ weights["project"]) * repeat(weights["combine"], inputs.shape[1])
        return shifted(combined @ vectors.transpose(1, 2), weights["strengths"])


def _pairs(strengths: torch.Tensor) -> torch.Tensor:
    """The first minus the second of every two models, as a matrix. [B, M, M(M - 1) / 2]."""
    import torch

    members, _, n_models = strengths.shape
    first, second = torch.triu_indices(n_models, n_models, offset=1, device=strengths.device)
    eye = torch.eye(n_models, device=strengths.device)
    return (eye[:, first] - eye[:, second]).expand(members, -1, -1).contiguous()


def ranks(scores: Floats) -> Floats32:
    """Place of every model's score among those of its query, ties equal, NaN = not observed. [n, M].

    Differences of float32 scores would not show which ones tie.
    """
    order = np.argsort(scores, axis=1, kind="stable")  # NaN last
    ascending = np.take_along_axis(scores, order, axis=1)
    places = np.zeros(scores.shape)
    places[:, 1:] = np.cumsum(np.diff(np.nan_to_num(ascending, nan=BEYOND), axis=1) > TIE, axis=1)
    found = np.empty(scores.shape, dtype=np.float32)
    np.put_along_axis(found, order, places.astype(np.float32), axis=1)
    found[np.isnan(scores)] = np.nan
    return found
