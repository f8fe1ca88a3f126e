"""How does a sweep's report look in a terminal? Leaderboards, comparisons, and the verdict as the last line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.sentences import comparison_sentence, points
from orchestrator.analysis.verdicts import Kind
from orchestrator.reports.content import METRIC_TITLES, Content, PanelContent, assemble
from orchestrator.reports.words import GLYPHS, NOTHING, difference, interval, number, p, skipped_lines, spread

_STYLES = {Kind.BETTER: "bold blue", Kind.WORSE: "yellow", Kind.EQUIVALENT: "cyan"}


def print_report(
    console: Console, sweep: Mapping[str, Any], results: pd.DataFrame, content: Content | None = None
) -> None:
    """Print every leaderboard with its comparison table, then the sentence.

    Args:
        console: Where to.
        sweep: `name`, `spec`, `reference`, `margin`.
        results: The view `results` of that sweep.
        content: What `assemble` makes of both, if it is there already.

    Raises:
        AnalysisError: When the reference is no router of the sweep or may not be one.
    """
    content = content or assemble(sweep, results)
    dosed = sum(panel.is_dosed for panel in content.panels)
    for panel in content.panels:
        if panel.is_dosed:
            continue
        console.print()
        console.print(leaderboard(panel))
        if panel.comparisons:
            console.print(comparison_table(panel))
        elif panel.is_full and content.reference and not panel.has_reference:
            console.print(Text(f"{content.reference} has no result here, so nothing is compared with it."))
    if dosed:
        console.print(
            Padding(Text(f"{dosed} panels of permuted embeddings are on the page and in the CSV.", "dim"), (0, 1))
        )
    for line in skipped_lines(sweep.get("skipped") or ()):
        console.print(Padding(Text(line, style="dim"), (0, 1)))
    console.print()
    for line in content.limits:
        console.print(Padding(Text(line), (0, 1)))
    console.print(Padding(Text(content.sentence, style="bold"), (0, 1)))


def print_comparisons(console: Console, rows: Sequence[Comparison]) -> None:
    """Print one pair's comparisons: the numbers of every benchmark and metric, then a sentence for each judged one."""
    table = _table(f"{rows[0].candidate} − {rows[0].reference}, margin ±{rows[0].margin:g}")
    table.add_column("benchmark")
    table.add_column("encoder")
    table.add_column("metric")
    for head in ("difference", "95 % interval", "p", "detectable", "splits"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict")
    for row in rows:
        encoder = f"{row.encoder or NOTHING}{'' if row.formulation == 'utility' else f', {row.formulation}'}"
        table.add_row(
            Text(row.benchmark), Text(encoder), METRIC_TITLES[row.metric], difference(row.difference),
            interval(row.test.ci95 if row.test else None), p(row.test.p if row.test else None), number(row.detectable),
            str(row.n_splits), verdict(row),
        )  # fmt: skip
    console.print()
    console.print(table)
    for row in rows:
        if row.metric != "auc_path":
            console.print(Padding(Text(comparison_sentence(row)), (0, 1)))


def leaderboard(content: PanelContent) -> Table:
    """Means ± sd over splits, best first; references and routers that lack a split carry no rank."""
    utility = content.panel.formulation == "utility"
    table = _table(f"{content.panel.benchmark} · {content.panel.title}")
    table.add_column("#", justify="right")
    table.add_column("router")
    for head in ("AUC", "AUC path", "AUC rel") if utility else ():
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("utility", justify="right", no_wrap=True)
    table.add_column("splits", justify="right")
    for row in content.standings:
        areas = (spread(row.auc, row.auc_sd), spread(row.auc_path, row.auc_path_sd), number(row.auc_rel, 3))
        utilities = number(row.utility) if utility else spread(row.utility, row.utility_sd)
        name = Text(row.router).append(f"  {row.note}" if row.note else "", style="dim")
        table.add_row(
            str(row.rank or NOTHING), name, *(areas if utility else ()), utilities, str(row.n_splits),
            style="bold" if row.is_reference else "" if row.rank else "dim",
        )  # fmt: skip
    return table


def comparison_table(content: PanelContent) -> Table:
    """Differences to the reference, best first: the judged metric in full, the other area's difference beside it."""
    judged = content.comparisons[0][content.panel.metric]
    table = _table(f"difference to {judged.reference}, margin ±{points(judged.margin, judged.metric)}")
    table.add_column("router")
    table.add_column(f"Δ {METRIC_TITLES[judged.metric]}", justify="right", no_wrap=True)
    table.add_column("95 % interval", justify="right", no_wrap=True)
    table.add_column("Holm p", justify="right", no_wrap=True)
    paths = "auc_path" in content.comparisons[0]
    if paths:
        table.add_column("Δ path", justify="right", no_wrap=True)
    table.add_column("detectable", justify="right", no_wrap=True)
    table.add_column("verdict")
    for rows in content.comparisons:
        row = rows[content.panel.metric]
        path = (difference(row.other_difference),) if paths else ()
        table.add_row(
            Text(row.candidate), difference(row.difference), interval(row.test.ci95 if row.test else None),
            p(row.p_holm), *path, number(row.detectable), verdict(row),
        )  # fmt: skip
    return table


def verdict(row: Comparison) -> Text:
    """The verdict with its sign and, where the spread forbids it, that equivalence cannot be shown."""
    text = Text(f"{GLYPHS[row.kind]} {row.verdict}", style=_STYLES.get(row.kind, ""))
    if row.cannot_show_equivalence and row.kind in (Kind.INCONCLUSIVE, Kind.NOT_WORSE):
        text.append("; cannot show equivalence", style="dim")
    return text


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
