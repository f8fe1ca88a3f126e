"""Is a mean difference over overlapping splits real, or small enough? The corrected t of Nadeau and Bengio."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats

from orchestrator.errors import AnalysisError

#: Differences and spreads below this many points are rounding, as among the protocol's ties.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class CorrectedTest:
    """Corrected t test of one mean difference; in the unit of the differences but for k, ratio, t, p."""

    #: Number of splits.
    k: int
    #: n_test / n_train, mean over the splits.
    ratio: float
    mean: float
    #: ddof 1 over splits; 0 when all differences agree to rounding.
    sd: float
    #: sd * sqrt(1/k + ratio).
    se: float
    #: 0 when mean and se are; infinite when se alone is.
    t: float
    #: Two-sided, df = k - 1.
    p: float
    ci95: tuple[float, float]
    ci90: tuple[float, float]

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return self.k - 1

    def p_above(self, bound: float) -> float:
        """One-sided p against "the mean is at most `bound`"."""
        return float(stats.t.sf(_statistic(self.mean - bound, self.se), self.df))

    def p_below(self, bound: float) -> float:
        """One-sided p against "the mean is at least `bound`"."""
        return float(stats.t.cdf(_statistic(self.mean - bound, self.se), self.df))

    def p_equivalent(self, margin: float) -> float:
        """Two one-sided tests (Schuirmann 1987): p against "the mean is at least `margin` away from 0"."""
        return max(self.p_above(-margin), self.p_below(margin))

    def detectable(self, *, power: float = 0.8, alpha: float = 0.05) -> float:
        """Smallest true difference that the two-sided test at `alpha` finds with this power, given this sd."""
        return detectable_factor(self.k, self.ratio, power=power, alpha=alpha) * self.sd

    def equivalence_limit(self, *, alpha: float = 0.05) -> float:
        """Smallest margin at which equivalence could have been shown: at an observed difference of 0, before Holm."""
        return _quantile(1 - alpha, self.df) * self.se


def nadeau_bengio(
    d: npt.ArrayLike,
    n_train: npt.ArrayLike,
    n_test: npt.ArrayLike,
) -> CorrectedTest:
    """Test a mean difference, paired by split, whose training and test sides overlap between splits.

    The variance of the mean is `s^2 (1/K + n_test/n_train)` (Nadeau and Bengio 2003, "Inference for the generalization
    error", section 5), here with the mean over the splits of their ratios; validation queries do not count.
    Differences below 1e-9 are taken as 0, and so is such a spread: then t is 0 (p = 1) or infinite (p = 0).

    Args:
        d: Differences, one per split, at least 2. [K]
        n_train: Training queries of each split, or one number for all. [K]
        n_test: Test queries of each split, or one number for all. [K]

    Raises:
        AnalysisError: For fewer than 2 differences, any that is not finite, or an empty side.
    """
    d = np.asarray(d, dtype=np.float64)
    k = len(d)
    n_train, n_test = (np.broadcast_to(np.asarray(n, dtype=np.float64), (k,)) for n in (n_train, n_test))
    if k < 2 or not np.isfinite(d).all():
        raise AnalysisError(f"a test over splits needs at least 2 finite differences, not {d.tolist()}.")
    if (n_train <= 0).any() or (n_test <= 0).any():
        raise AnalysisError("a split without training or test queries cannot be tested.")
    d = np.where(np.abs(d) < ROUNDING, 0.0, d)
    mean, sd, ratio = float(d.mean()), float(d.std(ddof=1)), float((n_test / n_train).mean())
    if sd < ROUNDING:
        sd = 0.0
    se = sd * math.sqrt(1 / k + ratio)
    t = _statistic(mean, se)
    p = float(2 * stats.t.sf(abs(t), k - 1))
    half95, half90 = (_quantile(q, k - 1) * se for q in (0.975, 0.95))
    ci95, ci90 = (mean - half95, mean + half95), (mean - half90, mean + half90)
    return CorrectedTest(k=k, ratio=ratio, mean=mean, sd=sd, se=se, t=t, p=p, ci95=ci95, ci90=ci90)


@cache
def detectable_factor(k: int, ratio: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest detectable difference in units of the sd over splits: 2.62, 1.96, 1.71 at K = 5, 10, 20 and 2/7.

    Solves `P(T > t_crit) = power` for the noncentrality of a noncentral t with K - 1 degrees of freedom (Cohen 1988,
    chapter 2) and multiplies it by sqrt(1/K + ratio). The far tail, below 1e-6, is left out.

    Args:
        k: Number of splits, at least 2.
        ratio: n_test / n_train.
        power: In (alpha, 1).
        alpha: Two-sided level.
    """
    critical = _quantile(1 - alpha / 2, k - 1)
    excess = optimize.brentq(lambda shift: stats.nct.sf(critical, k - 1, shift) - power, 0.0, critical + 10.0)
    return float(excess) * math.sqrt(1 / k + ratio)


def _statistic(mean: float, se: float) -> float:
    if se:
        return mean / se
    return math.copysign(math.inf, mean) if mean else 0.0


@cache
def _quantile(q: float, df: int) -> float:
    return float(stats.t.ppf(q, df))
