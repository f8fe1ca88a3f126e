"""What does the primary family say of each router, in the plain form that the claim's rule reads?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from orchestrator.analysis.across import across_reference

#: Columns of the mean utility at each of the protocol's preferences.
UTILITIES: Mapping[str, str] = {
    "low-cost": "utility_low_cost",
    "balanced": "utility_balanced",
    "high-performance": "utility_high_performance",
}


def primary_family(
    results: pd.DataFrame, reference: str, *, margin: float = 1.0, spec: Mapping[str, Any] | None = None
) -> pd.DataFrame | None:
    """Verdicts of utility prediction across suites at the primary encoder; None below two suites.

    Args:
        results: The view `results` of one sweep.
        reference: Display name of the router to compare with.
        margin: Margin of equivalence in points.
        spec: The sweep file as a dict.

    Returns:
        Columns router, verdict, detectable (points), n_splits, n_suites.
    """
    return _verdicts(results[results["formulation"] == "utility"], reference, margin, spec)


def primary_at_preferences(
    results: pd.DataFrame, reference: str, *, margin: float = 1.0, spec: Mapping[str, Any] | None = None
) -> dict[str, pd.DataFrame]:
    """The same of selection utility, by preference; a Holm family each. Nothing without selection on two suites."""
    rows = results[results["formulation"] == "selection"]
    found = {
        preference: _verdicts(rows.assign(utility_mean=rows[column]), reference, margin, spec)
        for preference, column in UTILITIES.items()
        if column in rows
    }
    return {preference: verdicts for preference, verdicts in found.items() if verdicts is not None}


def _verdicts(rows: pd.DataFrame, reference: str, margin: float, spec: Mapping[str, Any] | None) -> pd.DataFrame | None:
    if not (rows["router"] == reference).any():
        return None
    primary = [row for row in across_reference(rows, reference, margin=margin, spec=spec) if row.primary]
    if not primary:
        return None
    return pd.DataFrame(
        [
            {
                "router": row.candidate,
                "verdict": row.verdict,
                "detectable": row.effect.detectable() if row.effect else None,
                "n_splits": row.n_splits,
                "n_suites": row.n_suites,
            }
            for row in primary
        ]
    )
