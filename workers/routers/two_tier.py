"""Is a small model's first token a sign that its answer is wrong? Margin sampling between two models."""

from __future__ import annotations

from typing import Literal

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.two_step import Pairs, TwoStepRouter

Signal = Literal["margin", "learned"]

#: Shares of the queries for which the large model may be called.
SHARES = np.arange(1, 20) / 20


class TwoTier(TwoStepRouter):
    """The small model answers; where its margin is below a quantile, the large model is called and its answer given.

    The margin is the probability of the answer's first token minus that of the runner-up; the quantile is the share of
    calls of the large model that the budget allows. Readings of this project: the original adapts the quantile to the
    margins of a stream of queries, here it is the training side's, for shares of 5, 10, ..., 95 %; and those of
    `TwoStepRouter`.

    Args:
        signal: The column `margin`, or learned from the answer's text.
        pairs: Which models are the small and the large one.
        penalty: Of the squared weights of the learned signal.
    """

    name = "two-tier"
    summary = "large model where the small one's first-token margin is low"
    source = "Ramírez et al. 2024, Uncertainty-based two-tier selection, arXiv 2405.02134, section 3"
    needs = ("margin",)
    column = "margin"

    def __init__(self, *, signal: Signal = "margin", pairs: Pairs = "chain", penalty: float = 10.0) -> None:
        self.signal: Signal = signal
        self.pairs: Pairs = pairs
        self.penalty = penalty
        self.check_shared()

    def propose(self, confidence: Floats, small: Floats, large: Floats) -> Floats:
        """The margin that a share of the queries lies below, or less where margins tie. [19, 1]."""
        return np.sort(confidence)[(SHARES * len(confidence) + 1e-9).astype(np.int64), None]

    def calls_large(self, rules: Floats, confidence: Floats) -> Floats:
        """Where the margin is below the quantile. [K, n]."""
        return (confidence < rules).astype(np.float64)
