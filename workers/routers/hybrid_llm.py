"""Is the small model's answer good enough for this query? Hybrid LLM's three routers."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.routers.base import Side
from workers.routers.labels import TIE
from workers.routers.pairs import PairHead
from workers.training import check_optimiser

Variant = Literal["deterministic", "probabilistic", "transformed"]

#: Relaxations t that `transformed` tries: scores lie in [0, 1].
RELAXATIONS = np.linspace(0.0, 1.0, 101)
#: Mean differences closer than this are equal, and the smaller relaxation wins.
EQUAL = 1e-12


class HybridLLM(PairHead):
    """r(x) = P[s_small >= s_large - t], by a linear head on x and binary cross-entropy; low r calls the large model.

    Labels (Ding et al., section 3): `deterministic`: 1[s_small >= s_large] by one answer of each; `probabilistic`:
    Pr[s_small >= s_large] over repeated answers; `transformed`: Pr[s_small >= s_large - t] with the t that maximises
    the mean absolute difference of the labels of two queries, for small models that rarely match the large one.

    Readings of this project: over repeated answers the probability is over all pairs of an answer of each; t is
    looked for in steps of 0.01 from 0 to 1, the smallest of equals; the original's transformer is the sweep's encoder,
    frozen. For a price of cost a gain in score is needed and not a rank: E[s_large - s_small | x] = a + b·(1 - r(x)),
    where a and b are the least squares of the difference on 1 - label over the training side. Of labels of 0 and 1
    these are the mean differences with either label, so the expectation is exact if given the label it does not
    depend on x. Then the price of cost sweeps the original's threshold, as far as the large model is expected to gain.
    Pairs of more than two models are those of `ChainRouter`.

    Args:
        variant: The labels; the last two need `samples`.
        learning_rate: Of Adam; rate, decay, epochs and batch size of the head are this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side.
        batch_size: Queries of a minibatch.
    """

    name = "hybrid-llm"
    summary = "P(small model at least as good), deterministic to transformed labels"
    source = "Ding et al. 2024, Hybrid LLM, arXiv 2404.14618, section 3"

    def __init__(
        self,
        *,
        variant: Variant = "deterministic",
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 30,
        batch_size: int = 64,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        if variant not in get_args(Variant):
            raise ValueError(f"variant must be one of {', '.join(get_args(Variant))}, not {variant!r}.")
        self.variant: Variant = variant
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    #: Intercept and slope of the expected difference on 1 - r. [2, P]
    calibration_: Floats
    #: Relaxation t of every pair. [P]
    relaxations_: Floats

    def requirements(self) -> tuple[str, ...]:
        """Repeated answers, where labels are probabilities."""
        return self.needs if self.variant == "deterministic" else ("samples",)

    def labels(self, train: Side, price: float | None) -> Floats:
        """The small model is good enough, and it is not. [n, P, 2]."""
        gaps = self.keep_chain(train, price)
        enough = np.empty_like(gaps)
        self.relaxations_ = np.zeros(gaps.shape[1])
        for pair in range(gaps.shape[1]):
            differences = gaps[:, pair, None] if self.variant == "deterministic" else self._sampled(train, pair)
            if self.variant == "transformed":
                self.relaxations_[pair] = best_relaxation(differences)
            enough[:, pair] = good_enough(differences, self.relaxations_[pair])
        enough[np.isnan(gaps)] = np.nan
        self.calibration_ = _least_squares(1.0 - enough, gaps)
        return np.stack([enough, 1.0 - enough], axis=2)

    def _sampled(self, train: Side, pair: int) -> Floats:
        """Differences of every answer of the large and of the small model of a pair, NaN unobserved. [n, R²]."""
        samples = train.extra("samples")
        if samples.shape[2] < 2:
            raise RouterError(f"router 'hybrid-llm': {self.variant} labels need at least two samples of each answer.")
        small, large = samples[:, self.chain_[pair]], samples[:, self.chain_[pair + 1]]
        differences: Floats = (large[:, :, None] - small[:, None, :]).reshape(len(samples), -1)
        return differences

    def gains(self, queries: Side) -> Floats:
        """Expected difference given r. [n, P]."""
        found: Floats = self.calibration_[0] + self.calibration_[1] * self.chances(queries, 2)[..., 1]
        return found


def good_enough(differences: Floats, relaxation: float) -> Floats:
    """Share of the differences of at most the relaxation; NaN without any. [n].

    Args:
        differences: Large model's minus small model's score of every pair of answers, NaN unobserved. [n, R]
        relaxation: t.
    """
    observed = ~np.isnan(differences)
    count = observed.sum(axis=1)
    shares = (np.nan_to_num(differences, nan=np.inf) <= relaxation + TIE).sum(axis=1) / np.maximum(count, 1)
    return np.where(count > 0, shares, np.nan)


def best_relaxation(differences: Floats) -> float:
    """The smallest t whose labels differ most between two queries, in the mean.

    Args:
        differences: As of `good_enough`. [n, R]
    """
    spreads = np.array([mean_difference(good_enough(differences, float(t))) for t in RELAXATIONS])
    return float(RELAXATIONS[spreads >= spreads.max() - EQUAL][0])


def mean_difference(values: Floats) -> float:
    """Mean absolute difference of two of the observed values, drawn with replacement: Gini's, by sorting."""
    ordered = np.sort(values[~np.isnan(values)])
    n = len(ordered)
    if not n:
        return 0.0
    return float(2.0 * ((2.0 * np.arange(1, n + 1) - n - 1.0) * ordered).sum() / n**2)


def _least_squares(inputs: Floats, outputs: Floats) -> Floats:
    """Intercept and slope of every column on its observed rows; slope 0 where the inputs are constant. [2, P]."""
    found = np.zeros((2, inputs.shape[1]))
    for column in range(inputs.shape[1]):
        rows = ~(np.isnan(inputs[:, column]) | np.isnan(outputs[:, column]))
        if not rows.any():
            continue
        x, y = inputs[rows, column], outputs[rows, column]
        spread = ((x - x.mean()) ** 2).sum()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / spread if spread > TIE else 0.0
        found[:, column] = y.mean() - slope * x.mean(), slope
    return found
