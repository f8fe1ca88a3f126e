"""What is a claim of the paper beside the data? One row: a figure, a verdict in words, or that it is not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from orchestrator.analysis.panels import Panel

NOT_MEASURED = "not measured in this sweep"


@dataclass(frozen=True, kw_only=True, eq=False)
class Scatter:
    """Points of a claim that is a picture and no test."""

    #: Columns name, x, y.
    points: pd.DataFrame
    x_title: str
    y_title: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Claim:
    """One claim of the paper beside what the data here say."""

    claim: str
    #: A figure with its interval or null, or `not measured in this sweep`.
    found: str
    #: In words; what it would take where it is not measured.
    verdict: str
    scatter: Scatter | None = None

    @property
    def measured(self) -> bool:
        """Whether the sweep holds anything about it."""
        return self.found != NOT_MEASURED


def not_measured(claim: str, needs: str) -> Claim:
    """A claim on which the sweep is silent, with what it would take."""
    return Claim(claim=claim, found=NOT_MEASURED, verdict=f"takes {needs}")


def claim_frame(rows: Sequence[Claim]) -> pd.DataFrame:
    """Claims as a data frame, one row each."""
    return pd.DataFrame([{"claim": row.claim, "found": row.found, "verdict": row.verdict} for row in rows])


def first_panels(panels: Sequence[Panel]) -> list[Panel]:
    """Of every benchmark the panel of its first encoder."""
    first: dict[str, Panel] = {}
    for panel in panels:
        first.setdefault(panel.benchmark, panel)
    return list(first.values())


def suite_of(panel: Panel) -> str:
    """The suite that a panel's benchmark belongs to; by itself where results do not say."""
    return str(panel.results["suite"].iloc[0]) if "suite" in panel.results else panel.benchmark


def counted(n: int, thing: str) -> str:
    """A number of things: `1 suite`, `3 suites`."""
    return f"{n} {thing}{'' if n == 1 else 's'}"
