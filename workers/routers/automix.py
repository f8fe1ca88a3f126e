"""Can a small model tell that its answer is wrong? AutoMix: self-verification, judged by a meta-verifier."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions
from workers.routers.two_step import Pairs, TwoStepRouter, check_number
from workers.training import check_whole

Method = Literal["pomdp", "greedy", "threshold", "double"]
Signal = Literal["verifier", "learned"]
Flags = npt.NDArray[np.bool_]

#: Confidences closer than this to a bound are equal to it: j / bins of any source.
EQUAL = 1e-9
#: POMDP: what a call of the large model loses, and the rewards of a right answer that are tried.
CALL = 100.0
REWARDS = np.arange(5000.0)
#: Greedy: width of the Gaussian that smooths the bins' gains, in bins.
WIDTH = 2.0
#: From this score on an answer counts as right.
RIGHT = 0.5


class AutoMix(TwoStepRouter):
    """The small model answers and verifies itself; by its confidence v the answer is given or the large model called.

    A meta-verifier decides by v. Methods of the original's code (checked in `automix/automix_methods.py` of
    github.com/automix-llm/automix), each of which proposes settings: `threshold` calls where v <= t = 0, 1/bins, ...;
    `double` where t1 <= v <= t2, as answers of very low confidence may be beyond the large model too. The others see
    v's nearest j/bins. `pomdp`: a query is needy (the large model alone is right), good (the small one is) or hopeless,
    with probabilities by bin from the training side; a call loses 100, a needy query that is kept r, a hopeless one
    r + 1, or r if it is called; every r from 0 to 4999 proposes what is best in expectation. `greedy`: bins are called
    in descending order of what calling gains, smoothed by a Gaussian of 2 bins, one more at a time. In the original
    `POMDP` names the union of all four.

    Readings of this project: of the proposals those remain that some price of cost would choose by their training
    means; the original keeps the one of the highest IBC lift (`ibc_lift`) on its training side. Answers are right from
    a score of 0.5 on. `greedy` bins to the nearest when it fits, as when it routes (the original by floor). A learned
    verifier is charged as verification all the same. The others are those of `TwoStepRouter`.

    Args:
        method: The meta-verifier.
        signal: v is the column `verifier`, or learned from the answer's text.
        pairs: Which models are the small and the large one.
        bins: Of v; 8 in the original.
        verifier_cost: Of a verification, in calls of the small model; a verified query pays 1 + verifier_cost of them.
        penalty: Of the squared weights of the learned verifier.
    """

    name = "automix"
    summary = "small model verifies itself, a meta-verifier calls the large one"
    source = "Aggarwal et al. 2024, AutoMix, arXiv 2310.12963, sections 3 and 4"
    needs = ("verifier",)
    column = "verifier"

    def __init__(
        self,
        *,
        method: Method = "pomdp",
        signal: Signal = "verifier",
        pairs: Pairs = "chain",
        bins: int = 8,
        verifier_cost: float = 1.0,
        penalty: float = 10.0,
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}.")
        check_whole("bins", bins, 1)
        check_number("verifier_cost", verifier_cost, above=False)
        self.method: Method = method
        self.signal: Signal = signal
        self.pairs: Pairs = pairs
        self.bins = bins
        self.verifier_cost = verifier_cost
        self.penalty = penalty
        self.check_shared()

    @property
    def further_calls(self) -> float:
        """The verification."""
        return self.verifier_cost

    def propose(self, confidence: Floats, small: Floats, large: Floats) -> Floats:
        """Whether each cell of v calls the large model, 0 or 1. [K, 4 bins + 3]."""
        return proposals(self.method, confidence, small, large, self.bins).astype(np.float64)

    def calls_large(self, rules: Floats, confidence: Floats) -> Floats:
        """Look the confidences' cells up. [K, n]."""
        return rules[:, _cells(confidence, self.bins)]


def ibc_lift(score: float, cost: float, *, small: tuple[float, float], large: tuple[float, float]) -> float:
    """Incremental benefit per cost over the small model, relative to the large model's, in percent (section 4.1).

    IBC = (score - score of small) / (cost - cost of small); the lift is 100 · (IBC - IBC of large) / IBC of large. NaN
    where a cost is the small model's, or the large model's score is.

    Args:
        score: Mean score of a mixture.
        cost: Its mean cost, in any unit.
        small: Mean score and cost of the small model alone.
        large: The same of the large model alone.
    """
    if cost == small[1] or large[1] == small[1] or large[0] == small[0]:
        return math.nan
    base = (large[0] - small[0]) / (large[1] - small[1])
    return 100.0 * ((score - small[0]) / (cost - small[1]) - base) / base


def proposals(method: Method, verified: Floats, small: Floats, large: Floats, bins: int) -> Flags:
    """The settings that a meta-verifier proposes: whether each cell of v calls the large model. [K, 4 bins + 3].

    Args:
        method: As of `AutoMix`.
        verified: Confidence in the small model's answers. [n]
        small: Scores of the small model, NaN = not observed. [n]
        large: Scores of the large model. [n]
        bins: As of `AutoMix`.
    """
    cell = np.arange(4 * bins + 3)
    if method == "threshold":
        return cell <= 4 * np.arange(bins + 1)[:, None] + 1
    if method == "double":
        low, high = np.triu_indices(bins, k=1)
        return (cell >= 4 * low[:, None] + 1) & (cell <= 4 * high[:, None] + 1)
    both = ~(np.isnan(small) | np.isnan(large))
    bin_of, small, large = _bin(_cells(verified[both], bins), bins), small[both], large[both]
    tables = (_pomdp if method == "pomdp" else _greedy)(bin_of, small, large, bins + 1)
    return tables[:, _bin(cell, bins)]


def _pomdp(bin_of: Positions, small: Floats, large: Floats, n_bins: int) -> Flags:
    """What is best in expectation at each reward, by bin. [K, n_bins]."""
    counts = np.maximum(np.bincount(bin_of, minlength=n_bins), 1)
    wrong = small < RIGHT
    needy, hopeless = (
        np.bincount(bin_of, weights=wrong & right, minlength=n_bins) / counts
        for right in (large >= RIGHT, large < RIGHT)
    )
    # Kept: -r·needy - (r + 1)·hopeless; called: -100 - r·hopeless.
    return np.unique(REWARDS[:, None] * needy + hopeless > CALL, axis=0)


def _greedy(bin_of: Positions, small: Floats, large: Floats, n_bins: int) -> Flags:
    """One bin more at a time, the one of the largest smoothed gain first. [n_bins, n_bins]."""
    from scipy.ndimage import gaussian_filter1d

    counts = np.maximum(np.bincount(bin_of, minlength=n_bins), 1)
    gains = gaussian_filter1d(np.bincount(bin_of, weights=large - small, minlength=n_bins) / counts, WIDTH)
    place = np.argsort(np.argsort(-np.round(gains, 9), kind="stable"))
    return place <= np.arange(n_bins)[:, None]


def _cells(verified: Floats, bins: int) -> Positions:
    """Where confidences lie: in cell 2j + 1 at j / (2 bins), in cell 2j between that and the point before. [n]."""
    grid = np.arange(2 * bins + 1) / (2 * bins)
    cells: Positions = np.searchsorted(grid - EQUAL, verified) + np.searchsorted(grid + EQUAL, verified)
    return cells


def _bin(cell: Positions, bins: int) -> Positions:
    """The j whose j / bins is nearest to a cell, the higher one of two."""
    return np.minimum((cell + 1) // 4, bins)
