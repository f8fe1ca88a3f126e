"""What is the mean difference over suites, and how much do suites differ? Random effects, Hartung-Knapp intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from orchestrator.analysis.t_mean import TMean, detectable_errors, interval, statistic
from orchestrator.errors import AnalysisError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class RandomEffects(TMean):
    """Mean over suites; in the unit of the effects but for n, q, t, p."""

    #: Number of suites.
    n: int
    mean: float
    #: sqrt(max(q, 1) / sum of weights).
    se: float
    #: sd of the true differences between suites.
    tau: float
    #: Hartung and Knapp's scale, before it is held at 1 or above.
    q: float
    t: float
    #: Two-sided, df = n - 1.
    p: float
    ci95: tuple[float, float]
    ci90: tuple[float, float]
    #: Where the true difference of one more suite is to be expected, 95 %; approximate.
    prediction: tuple[float, float]

    @property
    def df(self) -> int:
        """Degrees of freedom."""
        return self.n - 1

    def detectable(self, *, power: float = 0.8, alpha: float = 0.05) -> float:
        """Smallest true mean that the two-sided test at `alpha` finds with this power, given this standard error."""
        return detectable_errors(self.df, power=power, alpha=alpha) * self.se


def random_effects(effects: npt.ArrayLike, variances: npt.ArrayLike) -> RandomEffects:
    """Average the effects of independent suites, each known up to its variance.

    Between-suite variance by Paule and Mandel (1982); standard error by Hartung and Knapp (2001) and Sidik and Jonkman
    (2002), their scale held at 1 or above (Roever, Knapp and Friede 2015, the modification); t quantiles at N - 1.
    Prediction interval: mean +- t sqrt(tau^2 + se^2) with the same quantile (IntHout et al. 2016).

    A suite without any spread gets the least variance among the others, as no suite is known exactly; where none has
    any, the suites' own spread is all there is.

    Args:
        effects: One per suite, at least 2. [N]
        variances: Of each effect. [N]

    Raises:
        AnalysisError: For fewer than 2 suites, or numbers that are not finite.
    """
    y, v = (np.asarray(x, dtype=np.float64) for x in (effects, variances))
    n = len(y)
    if n < 2 or not (np.isfinite(y).all() and np.isfinite(v).all()):
        raise AnalysisError(f"a mean over suites needs at least 2 finite differences, not {y.tolist()}.")
    if (v > 0).any():
        v = np.where(v > 0, v, v[v > 0].min())
    tau2 = paule_mandel(y, v)
    total = v + tau2
    if (total > 0).all():
        weights = 1 / total
        mean = float(weights @ y / weights.sum())
        q = float(weights @ (y - mean) ** 2) / (n - 1)
        se = math.sqrt(max(q, 1.0) / float(weights.sum()))
    else:
        mean, q, se = float(y.mean()), 0.0, 0.0
    t = statistic(mean, se)
    return RandomEffects(
        n=n,
        mean=mean,
        se=se,
        tau=math.sqrt(tau2),
        q=q,
        t=t,
        p=float(2 * stdtr(n - 1, -abs(t))),
        ci95=interval(mean, se, n - 1, 0.95),
        ci90=interval(mean, se, n - 1, 0.9),
        prediction=interval(mean, math.hypot(math.sqrt(tau2), se), n - 1, 0.95),
    )


def paule_mandel(effects: Floats, variances: Floats) -> float:
    """Variance between suites: where the weighted sum of squares about the mean is its expectation, N - 1; 0 at least.

    Args:
        effects: One per suite. [N]
        variances: All above 0, or all 0. [N]
    """
    n = len(effects)
    # At this value the sum is at most N - 1: the mean that minimises it is no better than the plain one.
    most = float(((effects - effects.mean()) ** 2).sum()) / (n - 1)
    if not variances.any():
        return most

    def excess(tau2: float) -> float:
        weights = 1 / (variances + tau2)
        mean = weights @ effects / weights.sum()
        return float(weights @ (effects - mean) ** 2) - (n - 1)

    if excess(0.0) <= 0:
        return 0.0
    from scipy.optimize import brentq

    return float(brentq(excess, 0.0, most, xtol=1e-14 * most, rtol=8.9e-16, maxiter=500))
