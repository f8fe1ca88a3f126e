"""How does a sweep's report look as one HTML page that needs nothing else?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2
import pandas as pd
import yaml

from orchestrator.analysis.verdicts import INTERVAL_SPLITS, VERDICT_SPLITS, Kind
from orchestrator.reports import across, settling, words
from orchestrator.reports.charts import Chart, Ladder
from orchestrator.reports.content import Content, PanelContent, assemble
from orchestrator.reports.evidence import Frames, benchmark_charts, shift_charts
from orchestrator.reports.figures import ForestFigure, FrontierFigure, forest_figure, frontier_figure


@dataclass(frozen=True, kw_only=True, eq=False)
class PanelFigures:
    """A panel with its figures, None where there is nothing to draw."""

    content: PanelContent
    frontier: FrontierFigure | None
    forest: ForestFigure | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Section:
    """One benchmark of the page."""

    #: Fragment identifier, never made of names.
    anchor: str
    benchmark: str
    panels: tuple[PanelFigures, ...]
    #: `model, family, mean_cost, mean_score`, dearest last.
    models: tuple[Mapping[Any, Any], ...]
    #: Numbers of queries over splits: `train`, `validation`, `test` as "700" or "690 to 712".
    #: Empty where no router was evaluated.
    sizes: Mapping[str, str]
    #: Validation and test queries of a split that were left out, "" when none were.
    dropped: str
    charts: tuple[Chart, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class AcrossView:
    """What is said across suites under one encoder and formulation."""

    title: str
    reference: str | None
    head: tuple[str, ...]
    #: Cells of each comparison and its verdict.
    rows: tuple[tuple[tuple[str, ...], Kind], ...]
    notes: tuple[str, ...]
    ladder: Ladder | None
    method: str = across.METHOD


@cache
def template() -> jinja2.Template:
    """The page's template, compiled with all that it includes: half a second that may be spent beforehand."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("orchestrator.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number, "difference": words.difference, "interval": words.interval, "p": words.p,
        "chosen": words.chosen, "folds": words.folds,
    }  # fmt: skip
    for name in environment.list_templates(extensions=["j2"]):
        environment.get_template(name)
    return environment.get_template("report.html.j2")


def render(sweep: Mapping[str, Any], frames: Frames, content: Content | None = None) -> str:
    """Lay a sweep's report out as HTML: no script, no network, every name escaped, the same bytes for the same input.

    Args:
        sweep: `name`, `spec` (the sweep file as a dict), `reference` (display name or None), `margin` (points),
            `created_at`, `environments` (one dict per environment), `url_shown` (database, without a password),
            `skipped` (what was not computed, with the reason).
        frames: What the database holds of it.
        content: What `assemble` makes of both, if it is there already.

    Raises:
        AnalysisError: When the reference is no router of the sweep or may not be one.
    """
    results = frames.results
    content = content or assemble(sweep, results, frames.findings)
    return template().render(
        sweep=sweep,
        content=content,
        sections=_sections(content, frames),
        across=[_across_view(part, content.reference) for part in content.across],
        shifts=shift_charts(results),
        heads={"labels": settling.LABELS_HEAD, "settle": settling.SETTLE_HEAD},
        first_labels=settling.first_tables(content.labels),
        labels_title=settling.labels_title,
        labels_rows=settling.labels_rows,
        judged_rows=settling.judged_rows,
        claim_rows=settling.claim_rows,
        claim_charts=list(settling.claim_charts(content.claims)),
        environments=[list(_facts(environment)) for environment in sweep.get("environments") or ()],
        spec=yaml.safe_dump(sweep.get("spec") or {}, sort_keys=False, allow_unicode=True),
        protocol=list(_facts((sweep.get("spec") or {}).get("protocol") or {})),
        skipped=words.skipped_lines(sweep.get("skipped") or ()),
        seeds=sorted(int(seed) for seed in results["seed"].unique()),
        n_results=len(results),
        metric_titles=words.METRIC_TITLES,
        glyphs=words.GLYPHS,
        kinds=Kind,
        interval_splits=INTERVAL_SPLITS,
        verdict_splits=VERDICT_SPLITS,
    )


def _across_view(part: across.AcrossPart, reference: str | None) -> AcrossView:
    head, cells = across.table(part)
    return AcrossView(
        title=part.title,
        reference=reference,
        head=tuple(head),
        rows=tuple((tuple(own), row.kind) for own, row in zip(cells, part.judged, strict=True)),
        notes=(*across.notes(part.rows), *across.rank_notes(part.ranks)),
        ladder=across.ladder_chart(part),
    )


def _sections(content: Content, frames: Frames) -> Sequence[Section]:
    results, frontier, models = frames.results, frames.frontier, frames.models
    sections = []
    panels_of = content.benchmarks
    measured = frames.findings["benchmark"].dropna().unique().tolist() if len(frames.findings) else []
    for i, benchmark in enumerate(dict.fromkeys([*panels_of, *measured]), 1):  # a study may measure and not evaluate
        panels = panels_of.get(benchmark, [])
        rows = results[results["benchmark"] == benchmark]
        full = rows[rows["train_size"] == rows["train_size"].max()]
        own = models[models["benchmark"] == benchmark].sort_values(["mean_cost", "model"], kind="stable")
        sections.append(
            Section(
                anchor=f"benchmark-{i}",
                benchmark=benchmark,
                panels=tuple(
                    PanelFigures(
                        content=panel,
                        frontier=frontier_figure(panel.panel, frontier, own, reference=content.reference)
                        if panel.is_full and not panel.is_dosed
                        else None,
                        forest=forest_figure(panel.comparisons, panel.panel.metric),
                    )
                    for panel in panels
                ),
                models=tuple(own.astype(object).where(own.notna(), None).to_dict("records")),
                sizes={side: _range(full[f"n_{side}"]) for side in ("train", "validation", "test")}
                if len(full)
                else {},
                dropped=_range(full["n_dropped"]) if "n_dropped" in full and full["n_dropped"].any() else "",
                charts=tuple(benchmark_charts(content, frames, benchmark)),
            )
        )
    return sections


def _range(counts: pd.Series[Any]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _facts(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Flatten nested facts to name and text, in their order."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _facts(value, f"{name} · ")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(str(item) for item in value)
        elif value is not None:
            yield name, str(value)
