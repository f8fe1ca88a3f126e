"""Do routers rank alike over suites, and which average ranks differ? Friedman, Iman-Davenport and Nemenyi."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import fdtrc, ndtr

from orchestrator.errors import AnalysisError

#: Suites below which the picture of average ranks carries no verdict (protocol 5.3).
RANKING_SUITES = 10


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Average ranks over suites, 1 = best, and what they show."""

    routers: tuple[str, ...]
    suites: tuple[str, ...]
    #: Of each router, equal values share their mean rank.
    ranks: tuple[float, ...]
    #: Friedman's chi-square, corrected for ties; NaN when all routers tie everywhere.
    chi_square: float
    #: Iman and Davenport's F; infinite when all suites agree.
    f: float
    #: Of F at (k - 1, (k - 1)(N - 1)); where all suites agree, the chance that they do.
    p: float
    #: Nemenyi's critical difference of two average ranks at 5 %.
    critical_difference: float

    @property
    def carries_verdict(self) -> bool:
        """Whether there are suites enough to say anything by ranks."""
        return len(self.suites) >= RANKING_SUITES

    @property
    def cliques(self) -> list[tuple[str, ...]]:
        """Largest groups of routers whose average ranks lie within the critical difference, best first."""
        order = sorted(range(len(self.routers)), key=lambda i: (self.ranks[i], self.routers[i]))
        found: list[tuple[int, int]] = []
        for first in range(len(order)):
            last = max(
                i
                for i in range(first, len(order))
                if self.ranks[order[i]] - self.ranks[order[first]] <= self.critical_difference
            )
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return [tuple(self.routers[order[i]] for i in range(first, last + 1)) for first, last in found]


def rank_routers(
    values: npt.ArrayLike, routers: Sequence[str], suites: Sequence[str], *, alpha: float = 0.05
) -> Ranking:
    """Rank routers within each suite and test whether the average ranks differ.

    Friedman (1937) with its correction for ties; F of Iman and Davenport (1980), which is `(N - 1) chi2 / (N (k - 1) -
    chi2)`; critical difference of Nemenyi (1963) as Demsar (2006) has it. Values equal to 1e-9 tie.

    Args:
        values: Complete; higher is better. [N, k]
        routers: Names of the columns. [k]
        suites: Names of the rows. [N]
        alpha: Family-wise level of the critical difference.

    Raises:
        AnalysisError: For fewer than 2 suites or 2 routers, or a value that is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    n, k = table.shape
    if n < 2 or k < 2 or not np.isfinite(table).all():
        raise AnalysisError(f"ranks need 2 suites and 2 routers without a gap, not {n} and {k}.")
    ranks = pd.DataFrame(-table.round(9)).rank(axis=1).to_numpy(np.float64)
    middle = (k + 1) / 2
    within = float(((ranks - middle) ** 2).sum())
    between = n * float(((ranks.mean(axis=0) - middle) ** 2).sum())
    if not within:
        chi_square, f, p = math.nan, math.nan, 1.0
    elif within - between <= 1e-9 * within:
        chi_square, f, p = n * (k - 1.0), math.inf, _chance_of_agreement(ranks)
    else:
        chi_square = n * (k - 1) * between / within
        f = (n - 1) * chi_square / (n * (k - 1) - chi_square)
        p = float(fdtrc(k - 1, (k - 1) * (n - 1), f))
    return Ranking(
        routers=tuple(routers),
        suites=tuple(suites),
        ranks=tuple(ranks.mean(axis=0).tolist()),
        chi_square=chi_square,
        f=f,
        p=p,
        critical_difference=critical_difference(k, n, alpha=alpha),
    )


@cache
def critical_difference(k: int, n: int, *, alpha: float = 0.05) -> float:
    """Difference of two average ranks of `k` routers over `n` suites that Nemenyi's test takes at this level."""
    return range_quantile(1 - alpha, k) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * n))


def range_quantile(level: float, k: int) -> float:
    """Quantile of the range of `k` standard normal values: the studentized range with infinite degrees of freedom.

    scipy.stats has it too, and is slow to be imported; every run with a report would wait for it.

    Args:
        level: Between 0 and 1; the quantile is found where it is below 20.
        k: At least 2.
    """
    z = np.linspace(-9.0, 9.0, 721)  # of the lowest of them
    weight = k * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
    low, high = 0.0, 20.0
    for _ in range(50):
        middle = (low + high) / 2
        below = float((weight * (ndtr(z + middle) - ndtr(z)) ** (k - 1)).sum())
        low, high = (middle, high) if below < level else (low, middle)
    return low


def _chance_of_agreement(ranks: npt.NDArray[np.float64]) -> float:
    """Chance that all suites rank as the first does, when every order of its ranks is as likely as any other."""
    ties = np.unique(ranks[0], return_counts=True)[1]
    orders = math.factorial(ranks.shape[1]) / math.prod(math.factorial(count) for count in ties.tolist())
    return float(orders ** (1 - len(ranks)))
