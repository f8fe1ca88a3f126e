"""What does a mean with a standard error say at t quantiles? Shared by the tests over splits and over suites."""

from __future__ import annotations

import math
from functools import cache

from scipy.special import nctdtrinc, stdtr, stdtrit


class TMean:
    """A mean whose standardised error follows a t distribution; subclasses are dataclasses that hold the numbers."""

    mean: float
    #: Standard error of the mean; 0 where there is no spread, and then t is 0 or infinite.
    se: float

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        raise NotImplementedError

    def p_above(self, bound: float) -> float:
        """One-sided p against "the mean is at most `bound`"."""
        return float(stdtr(self.df, -statistic(self.mean - bound, self.se)))

    def p_below(self, bound: float) -> float:
        """One-sided p against "the mean is at least `bound`"."""
        return float(stdtr(self.df, statistic(self.mean - bound, self.se)))

    def p_equivalent(self, margin: float) -> float:
        """Two one-sided tests (Schuirmann 1987): p against "the mean is at least `margin` away from 0"."""
        return max(self.p_above(-margin), self.p_below(margin))

    def equivalence_limit(self, *, alpha: float = 0.05) -> float:
        """Smallest margin at which equivalence could have been shown: at an observed difference of 0, before Holm."""
        return quantile(1 - alpha, self.df) * self.se


def statistic(mean: float, se: float) -> float:
    """Standardise a mean: 0 when both are 0, infinite when the standard error alone is."""
    if se:
        return mean / se
    return math.copysign(math.inf, mean) if mean else 0.0


def interval(mean: float, se: float, df: int, level: float) -> tuple[float, float]:
    """Two-sided interval at this level."""
    half = quantile((1 + level) / 2, df) * se
    return mean - half, mean + half


@cache
def quantile(q: float, df: int) -> float:
    """Quantile of the t distribution."""
    return float(stdtrit(df, q))


@cache
def detectable_errors(df: int, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest detectable mean in units of its standard error.

    Solves `P(T > t_crit) = power` for the noncentrality of a noncentral t (Cohen 1988, chapter 2). The far tail, below
    1e-6, is left out; relative error up to 2e-6, at 1 degree of freedom.

    Args:
        df: Degrees of freedom, at least 1.
        power: In (alpha, 1).
        alpha: Two-sided level.
    """
    return float(nctdtrinc(df, 1 - power, quantile(1 - alpha / 2, df)))
