"""How would a difference vary over other queries, were the fitted routers kept? Paired bootstrap from stored areas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from orchestrator.errors import AnalysisError

Floats = npt.NDArray[np.float64]

#: How the interval is labelled wherever it is shown (protocol 5.3); no verdict rests on it.
CONDITION = "conditional on the fitted routers"


@dataclass(frozen=True, kw_only=True)
class Bootstrapped:
    """Difference in `auc_path` over resampled queries, the fitted routers held fixed; in points."""

    #: Mean over splits of the difference on the very test queries.
    estimate: float
    #: sd over draws of the mean difference, ddof 1.
    sd: float
    #: estimate +- 1.96 sd.
    ci95: tuple[float, float]
    n_splits: int
    #: Draws on which some split has a test query.
    draws: int


def paired_bootstrap(
    estimates: npt.ArrayLike, candidate: Sequence[Floats], reference: Sequence[Floats]
) -> Bootstrapped:
    """Pair two routers draw by draw: one draw resamples the groups of the whole benchmark, the same for every split.

    Args:
        estimates: Difference in `auc_path` on each split. [K]
        candidate: `auc_path` x 100 on every draw, one array per split; NaN where a draw has no test query. [K] of [B]
        reference: The same of the reference. Of different numbers of draws the first ones pair. [K] of [B]

    Raises:
        AnalysisError: When no split or fewer than two draws pair.
    """
    n_draws = min((len(areas) for areas in [*candidate, *reference]), default=0)
    if n_draws < 2 or len(candidate) != len(reference):
        raise AnalysisError(
            "no two resamples of this pair are stored; run the sweep with `protocol: {bootstrap: 200}`."
        )
    left, right = (np.stack([areas[:n_draws] for areas in side]) for side in (candidate, reference))
    differences = left - right
    differences = differences[:, ~np.isnan(differences).all(axis=0)]
    draws = np.nanmean(differences, axis=0)
    if len(draws) < 2:
        raise AnalysisError("fewer than two resamples of this pair have a test query, so they have no spread.")
    estimate, sd = float(np.mean(np.asarray(estimates, dtype=np.float64))), float(draws.std(ddof=1))
    half = float(ndtri(0.975)) * sd
    return Bootstrapped(
        estimate=estimate,
        sd=sd,
        ci95=(estimate - half, estimate + half),
        n_splits=len(candidate),
        draws=len(draws),
    )
