"""What is in a report? Panels with their leaderboards and comparisons, and the sentence that sums them up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.across_sentences import across_sentence
from orchestrator.analysis.claim import Claim
from orchestrator.analysis.claims import claims
from orchestrator.analysis.comparisons import Comparison, compare_to_reference
from orchestrator.analysis.labels import LabelTable, label_tables
from orchestrator.analysis.leaderboard import panel_leaderboard
from orchestrator.analysis.limits import limits, router_names
from orchestrator.analysis.panels import Panel, full_size, panels
from orchestrator.analysis.sentences import verdict_sentence
from orchestrator.analysis.settle import Settlement, settle
from orchestrator.analysis.tuning import Tuning, tunings
from orchestrator.reports.across import AcrossPart, across_parts
from orchestrator.reports.doses import dose
from orchestrator.reports.words import approximate_lines


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One line of a leaderboard; means and sds over splits, None where undefined."""

    #: None for whoever looks at outcomes, blind twins, and routers that lack a split.
    rank: int | None
    router: str
    auc: float | None
    auc_sd: float | None
    auc_path: float | None
    auc_path_sd: float | None
    auc_rel: float | None
    utility: float | None
    utility_sd: float | None
    n_splits: int
    is_reference: bool
    #: What a reader must know of the line besides its name: `reference`, `sees outcomes`, `tuned`, `2 of 3 splits`.
    note: str


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelContent:
    """A panel and what is said about it."""

    panel: Panel
    standings: tuple[Standing, ...]
    #: Best candidate first, each with its comparisons by metric.
    comparisons: tuple[Mapping[str, Comparison], ...]
    tunings: tuple[Tuning, ...]
    #: Whether the sweep's reference has results here.
    has_reference: bool
    #: Whether this is the benchmark's full training size, at which verdicts are given.
    is_full: bool
    #: Whether its embedding is another one's with a part of the rows permuted (`study: locality`).
    is_dosed: bool

    def against_reference(self, router: str) -> Comparison | None:
        """The router's comparison on the judged metric."""
        rows = (row[self.panel.metric] for row in self.comparisons if self.panel.metric in row)
        return next((row for row in rows if row.candidate == router), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Content:
    """Everything that a report says, before it is laid out."""

    name: str
    reference: str | None
    margin: float
    #: What holds across suites where there are several, else what holds of each benchmark.
    sentence: str
    #: What holds benchmark by benchmark, where `sentence` is about suites.
    counts: str = ""
    #: What cannot be concluded, and why; none of a finished sweep of enough splits.
    limits: tuple[str, ...] = ()
    panels: tuple[PanelContent, ...]
    #: Comparisons across suites, the primary family first; none below two suites.
    across: tuple[AcrossPart, ...] = ()
    #: How many labels each router needs, where several training sizes were run.
    labels: tuple[LabelTable, ...] = ()
    #: What the rule says of the sweep, then of each benchmark where there are several.
    settlements: tuple[Settlement, ...] = ()
    #: The paper's other claims.
    claims: tuple[Claim, ...] = ()

    @property
    def question(self) -> str:
        """What the sweep asks."""
        if self.reference is None:
            return "How do these routers do?"
        return f"Which routers differ from {self.reference}, and by how much?"

    @property
    def benchmarks(self) -> dict[str, list[PanelContent]]:
        """Panels by benchmark, in order."""
        grouped: dict[str, list[PanelContent]] = {}
        for content in self.panels:
            grouped.setdefault(content.panel.benchmark, []).append(content)
        return grouped

    @property
    def candidates(self) -> list[str]:
        """Every router that was compared with the reference, in the order of the sweep file."""
        if not self.panels:
            return []
        order = pd.concat([content.panel.results[["sweep_position", "router"]] for content in self.panels])
        compared = {row.candidate for content in self.panels for rows in content.comparisons for row in rows.values()}
        names = order.sort_values(["sweep_position", "router"], kind="stable")["router"].unique().tolist()
        return [name for name in names if name in compared]


def assemble(
    sweep: Mapping[str, Any],
    results: pd.DataFrame,
    findings: pd.DataFrame | None = None,
) -> Content:
    """Analyse a sweep's results, however many there are.

    Args:
        sweep: `name`, `spec`, `reference` (display name or None), `margin`, `states` (evaluations by state),
            `approximate` (recalls of routers that search neighbours by an index).
        results: The view `results` of that sweep.
        findings: The view `findings` of it.

    Raises:
        AnalysisError: When the reference is no router of the sweep or may not be one.
    """
    spec, named, margin = sweep.get("spec") or {}, sweep.get("reference"), float(sweep["margin"])
    lacking = limits(results, reference=named, spec=spec, states=sweep.get("states") or {})
    if results.empty:
        return Content(name=str(sweep["name"]), reference=named, margin=margin, sentence=lacking[0], panels=())
    # A reference that is still to come is nothing to compare with, and no mistake.
    waiting = named in router_names(spec) and not (results["router"] == named).any()
    reference = None if waiting else named
    cut = panels(results, spec)
    full = {id(panel) for panel in full_size(cut)}
    comparisons = compare_to_reference(results, reference, margin=margin, spec=spec) if reference else []
    # Permuted embeddings are the doses of one experiment, not encoders that more could be said across.
    whole = results[results["encoder"].map(dose).isna()]
    across = across_parts(whole, reference, margin=margin, spec=spec)
    verdict = verdict_sentence(comparisons, reference)
    suites_verdict = across_sentence([row for part in across for row in part.rows])
    labels = label_tables(whole, reference, delta=margin, spec=spec)
    settlements = settle(
        whole,
        reference=reference,
        margin=margin,
        spec=spec,
        comparisons=comparisons,
        across=[row for part in across for row in part.rows],
    )
    rows = claims(whole, reference=reference, spec=spec, comparisons=comparisons, labels=labels, findings=findings)
    return Content(
        name=str(sweep["name"]),
        reference=named,
        margin=margin,
        sentence=f"Nothing was compared: {named} has no result." if waiting else suites_verdict or verdict,
        counts=verdict if suites_verdict and not waiting else "",
        limits=(*lacking, *approximate_lines(sweep.get("approximate") or ())),
        across=across,
        panels=tuple(_panel_content(panel, comparisons, reference, is_full=id(panel) in full) for panel in cut),
        labels=tuple(labels),
        settlements=tuple(settlements),
        claims=tuple(rows) if settlements else (),
    )


def _panel_content(
    panel: Panel, comparisons: Sequence[Comparison], reference: str | None, *, is_full: bool
) -> PanelContent:
    identity = (panel.benchmark, panel.encoder, panel.formulation, panel.train_size)
    by_candidate: dict[str, dict[str, Comparison]] = {}
    for row in comparisons:
        if (row.benchmark, row.encoder, row.formulation, row.train_size) == identity:
            by_candidate.setdefault(row.candidate, {})[row.metric] = row
    judged = [rows for rows in by_candidate.values() if panel.metric in rows]
    tuned = tunings(panel)
    return PanelContent(
        panel=panel,
        standings=tuple(
            _standing(
                row,
                is_reference=row["router"] == reference,
                is_tuned=any(row["router"] == tuning.router for tuning in tuned),
                n_splits=panel.n_splits,
            )
            for row in panel_leaderboard(panel).to_dict("records")
        ),
        comparisons=tuple(sorted(judged, key=lambda rows: -rows[panel.metric].difference)),
        tunings=tuple(tuned),
        has_reference=bool((panel.results["router"] == reference).any()),
        is_full=is_full,
        is_dosed=dose(panel.encoder) is not None,
    )


def _standing(row: Mapping[Any, Any], *, is_reference: bool, is_tuned: bool, n_splits: int) -> Standing:
    notes = {
        "reference": is_reference,
        "sees outcomes": row["privileged"],
        "tuned": is_tuned,
        f"{row['n_seeds']} of {n_splits} splits": row["n_seeds"] < n_splits,
    }
    return Standing(
        rank=None if pd.isna(row["rank"]) else int(row["rank"]),
        router=str(row["router"]),
        auc=_number(row["auc_mean"]),
        auc_sd=_number(row["auc_sd"]),
        auc_path=_number(row["auc_path_mean"]),
        auc_path_sd=_number(row["auc_path_sd"]),
        auc_rel=_number(row["auc_rel_mean"]),
        utility=_number(row["utility_mean"]),
        utility_sd=_number(row["utility_sd"]),
        n_splits=int(row["n_seeds"]),
        is_reference=is_reference,
        note=", ".join(note for note, holds in notes.items() if holds),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
