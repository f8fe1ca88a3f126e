"""What do the data say of the paper's other claims? One row each, in the protocol's order (end of 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from orchestrator.analysis.claim import Claim
from orchestrator.analysis.claim_dimension import fewer_labels, locality, predicts
from orchestrator.analysis.claim_neighbours import larger_k
from orchestrator.analysis.claim_rankings import across_benchmarks, across_encoders
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.labels import LabelTable
from orchestrator.analysis.panels import full_size, panels
from orchestrator.analysis.roles import tuned_knn


def claims(
    results: pd.DataFrame,
    *,
    reference: str | None,
    spec: Mapping[str, Any] | None = None,
    comparisons: Sequence[Comparison] = (),
    labels: Sequence[LabelTable] = (),
    findings: pd.DataFrame | None = None,
) -> list[Claim]:
    """Every claim beside what the sweep says of it, of utility prediction at the full training size.

    Args:
        results: The view `results` of one sweep; shifted benchmarks and permuted encoders do not count.
        reference: The sweep's reference.
        spec: The sweep file as a dict.
        comparisons: Those with the reference.
        labels: Label counts.
        findings: The view `findings`, of which the measure `locality` is read.
    """
    rows = results[results["formulation"] == "utility"]
    if "trained_on" in rows:
        rows = rows[rows["trained_on"].isna()]
    rows = rows[~rows["encoder"].fillna("").str.endswith("% permuted")]
    cut = full_size(panels(rows, spec)) if len(rows) else []
    measured = locality(findings)
    knn = tuned_knn(rows, spec, reference) or reference
    return [
        across_benchmarks(cut, comparisons),
        across_encoders(cut),
        larger_k(cut, rows, spec),
        predicts("low intrinsic dimension predicts where kNN suits", "dimension", measured, cut, spec, reference),
        predicts("locality predicts where kNN suits", "correlation", measured, cut, spec, reference),
        fewer_labels("low dimension means fewer labels", measured, cut, labels, knn),
    ]
