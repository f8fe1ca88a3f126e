"""Which verdicts across suites does the rule read? Those against tuned kNN, of AUC and of selection utility."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.analysis.across import AcrossSuites, across_frame, across_slice
from orchestrator.analysis.comparisons import PREFERENCES
from orchestrator.analysis.suites import slices


def primary_family(
    results: pd.DataFrame,
    knn: str,
    *,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
    made: Sequence[AcrossSuites] = (),
) -> pd.DataFrame:
    """Verdicts of utility prediction on AUC at the first encoder, across suites; columns router, verdict and more.

    Args:
        results: The view `results` of one sweep.
        knn: Display name of the tuned kNN.
        margin: Margin of equivalence in points.
        spec: The sweep file as a dict.
        made: Comparisons across suites that were made already; those with another reference do not count.
    """
    known = [row for row in made if row.reference == knn and row.metric == "auc"]
    if not known:
        known = _first(results[results["formulation"] == "utility"], knn, "auc", margin, spec)
    return _frame([row for row in known if row.encoder == known[0].encoder])


def primary_at_preferences(
    results: pd.DataFrame, knn: str, *, margin: float = 1.0, spec: Mapping[str, Any] | None = None
) -> dict[str, pd.DataFrame]:
    """The same of selection utility, by preference; a family for each. Nothing without selection runs."""
    rows = results[results["formulation"] == "selection"]
    if rows.empty or not set(PREFERENCES.values()) <= set(rows):
        return {}
    # Suites are compared on the mean utility of selection: here that of one preference takes its place.
    return {
        preference: _frame(
            _first(rows.assign(utility_mean=pd.to_numeric(rows[column])), knn, "utility_mean", margin, spec)
        )
        for preference, column in PREFERENCES.items()
    }


def _first(
    rows: pd.DataFrame, knn: str, metric: str, margin: float, spec: Mapping[str, Any] | None
) -> list[AcrossSuites]:
    """Comparisons with kNN on a metric at the first encoder, none below two suites."""
    if rows.empty or not (rows["router"] == knn).any():
        return []
    return [
        row for part in slices(rows, spec)[:1] for row in across_slice(part, knn, margin=margin) if row.metric == metric
    ]


def _frame(rows: Sequence[AcrossSuites]) -> pd.DataFrame:
    return across_frame(rows).rename(columns={"candidate": "router"})
