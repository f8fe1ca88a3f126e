"""How likely is a router better, practically equal or worse? The corrected t read as a posterior."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import stdtr

from orchestrator.analysis.corrected_t import CorrectedTest


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Probabilities of the true difference; they sum to 1."""

    #: Above the margin.
    better: float
    #: Within the margin on both sides, the region of practical equivalence.
    rope: float
    #: Below minus the margin.
    worse: float


def posterior(test: CorrectedTest, margin: float) -> Posterior:
    """Bayesian correlated t (Corani and Benavoli 2015) under a flat prior.

    With a correlation of rho = n_test / (n_train + n_test) between splits the posterior of the mean is a t distribution
    with K - 1 degrees of freedom and variance s^2 (1/K + rho / (1 - rho)), and rho / (1 - rho) is n_test / n_train: the
    corrected t of Nadeau and Bengio, in other words. A reading of that test, no second piece of evidence.

    Args:
        test: Candidate - reference over splits.
        margin: Half the width of the rope, in the unit of the differences.
    """
    if not test.se:
        return Posterior(
            better=float(test.mean > margin), rope=float(abs(test.mean) <= margin), worse=float(test.mean < -margin)
        )
    above, below = (float(stdtr(test.df, (x - margin) / test.se)) for x in (test.mean, -test.mean))
    return Posterior(better=above, rope=max(0.0, 1.0 - above - below), worse=below)
