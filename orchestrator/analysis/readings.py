"""How else may a pair's difference be read? Its posterior and its bootstrap over queries, beside the corrected t."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.correlated_t import Posterior, posterior
from orchestrator.analysis.resamples import CONDITION, Bootstrapped, Floats, paired_bootstrap

#: The area whose resamples are stored.
RESAMPLED = "auc_path"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One comparison of a pair and two more readings of it; no verdict rests on them."""

    row: Comparison
    #: None below 5 splits.
    posterior: Posterior | None
    #: Of `auc_path` alone; None where no resamples are stored.
    bootstrap: Bootstrapped | None

    def as_dict(self) -> dict[str, Any]:
        """The comparison's plain values with `p_better, p_rope, p_worse` and `bootstrap_sd, bootstrap_ci95`."""
        chances, drawn = self.posterior, self.bootstrap
        return self.row.as_dict() | {
            "scope": "benchmark",
            "p_better": chances.better if chances else None,
            "p_rope": chances.rope if chances else None,
            "p_worse": chances.worse if chances else None,
            "bootstrap_sd": drawn.sd if drawn else None,
            "bootstrap_ci95": list(drawn.ci95) if drawn else None,
            "bootstrap_draws": drawn.draws if drawn else None,
        }


def read_pair(rows: Sequence[Comparison], results: pd.DataFrame, areas: Mapping[str, Floats]) -> list[Reading]:
    """Read the comparisons of one pair.

    Args:
        rows: As `compare` gives them.
        results: The view `results` of their sweep.
        areas: Stored bootstrap areas by `unit_key`. [B] each
    """
    return [
        Reading(
            row=row,
            posterior=posterior(row.test, row.margin) if row.test else None,
            bootstrap=_bootstrap(row, results, areas) if row.metric == RESAMPLED else None,
        )
        for row in rows
    ]


def reading_notes(readings: Sequence[Reading]) -> list[str]:
    """What the numbers are, said once."""
    told = [
        "P: Bayesian correlated t with a flat prior, the corrected t read as a posterior: no second piece of evidence."
    ]
    drawn = [reading.bootstrap for reading in readings if reading.bootstrap]
    if drawn:
        draws = sorted({one.draws for one in drawn})
        many = f"{draws[0]}" if len(draws) == 1 else f"{draws[0]} to {draws[-1]}"
        told.append(f"Bootstrap over queries, {many} resamples, estimate ± 1.96 sd of AUC path: {CONDITION}.")
    elif any(reading.row.metric == RESAMPLED for reading in readings):
        told.append("No bootstrap over queries: this sweep stored no resamples (`protocol: {bootstrap: 200}` does).")
    return told


def _bootstrap(row: Comparison, results: pd.DataFrame, areas: Mapping[str, Floats]) -> Bootstrapped | None:
    left, right = (_units(row, results, router) for router in (row.candidate, row.reference))
    both = left.merge(right, on="seed", suffixes=("_candidate", "_reference")).sort_values("seed")
    stored = both["unit_key_candidate"].isin(areas) & both["unit_key_reference"].isin(areas)
    both = both[stored].dropna()
    if both.empty:
        return None
    estimates = both[f"{RESAMPLED}_candidate"] - both[f"{RESAMPLED}_reference"]
    sides = ([areas[key] for key in both[f"unit_key_{side}"]] for side in ("candidate", "reference"))
    return paired_bootstrap(estimates, *sides)


def _units(row: Comparison, results: pd.DataFrame, router: str) -> pd.DataFrame:
    here = (
        (results["router"] == router)
        & (results["benchmark"] == row.benchmark)
        & (results["formulation"] == row.formulation)
        & (results["train_size"] == row.train_size)
        & ((results["encoder"] == row.encoder) | results["encoder"].isna())
    )
    return results.loc[here, ["seed", "unit_key", RESAMPLED]]
