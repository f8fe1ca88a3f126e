"""Does the sign of a difference hold over suites, whatever its size? Wilcoxon's signed-rank test, exact."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.corrected_t import ROUNDING


@dataclass(frozen=True, kw_only=True)
class SignedRank:
    """The test of one comparison over suites, or why there is none."""

    #: Suites whose difference is not 0.
    n: int
    #: Sum of the ranks of positive differences.
    rank_sum: float
    #: Two-sided, adjusted by Holm over the family; None when refused.
    p_holm: float | None = None
    #: Why it cannot find anything, "" when it can.
    refused: str = ""


def signed_rank_p(differences: npt.ArrayLike) -> tuple[int, float, float]:
    """Two-sided exact p of Wilcoxon (1945): every sign of every difference is as likely as the other.

    Differences below 1e-9 are 0 and left out, equal ones share their mean rank; ties leave the distribution exact.

    Args:
        differences: One per suite. [N]

    Returns:
        Number of differences that are not 0, rank sum of the positive ones, p (1 when all are 0).
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[np.abs(d) >= ROUNDING]
    # Mean ranks are multiples of a half, so twice the rank sum is a whole number.
    doubled = np.rint(2 * pd.Series(np.abs(d).round(9)).rank().to_numpy()).astype(int)
    observed = int(doubled[d > 0].sum())
    chance = np.zeros(int(doubled.sum()) + 1)
    chance[0] = 1.0
    for rank in doubled:
        chance[rank:] = (chance[rank:] + chance[: len(chance) - rank]) / 2
        chance[:rank] /= 2
    p = 2 * min(chance[: observed + 1].sum(), chance[observed:].sum())
    return len(d), observed / 2, min(float(p), 1.0)


def refusal(n: int, n_comparisons: int, alpha: float) -> str:
    """Why the test cannot reject with `n` suites in a family of this size, "" when it can.

    The smallest two-sided p there is, 2 / 2^n, must not exceed alpha over the number of comparisons.
    """
    if 2.0 ** (1 - n) <= alpha / n_comparisons:
        return ""
    needed = math.ceil(1 - math.log2(alpha / n_comparisons))
    among = "" if n_comparisons == 1 else f" among {n_comparisons} comparisons"
    suites = "1 suite that differs" if n == 1 else f"{n} suites that differ"
    least = min(2.0 ** (1 - n), 1.0)
    return f"with {suites} the smallest p is {least:.3g}, so nothing can be found{among}; it takes {needed}"
