"""Is a mean difference over overlapping splits real, or small enough? The corrected t of Nadeau and Bengio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from orchestrator.analysis.t_mean import TMean, detectable_errors, interval, statistic
from orchestrator.errors import AnalysisError

#: Differences and spreads below this many points are rounding, as among the protocol's ties.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class CorrectedTest(TMean):
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

    def detectable(self, *, power: float = 0.8, alpha: float = 0.05) -> float:
        """Smallest true difference that the two-sided test at `alpha` finds with this power, given this sd."""
        return detectable_factor(self.k, self.ratio, power=power, alpha=alpha) * self.sd


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
    t = statistic(mean, se)
    p = float(2 * stdtr(k - 1, -abs(t)))
    ci95, ci90 = (interval(mean, se, k - 1, level) for level in (0.95, 0.9))
    return CorrectedTest(k=k, ratio=ratio, mean=mean, sd=sd, se=se, t=t, p=p, ci95=ci95, ci90=ci90)


def detectable_factor(k: int, ratio: float, *, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest detectable difference in units of the sd over splits: 2.62, 1.96, 1.71 at K = 5, 10, 20 and 2/7.

    Args:
        k: Number of splits, at least 2.
        ratio: n_test / n_train.
        power: In (alpha, 1).
        alpha: Two-sided level.
    """
    return detectable_errors(k - 1, power=power, alpha=alpha) * math.sqrt(1 / k + ratio)
