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

from orchestrator.analysis.across import AcrossSuites
from orchestrator.analysis.across_sentences import clause
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.readings import Reading, reading_notes
from orchestrator.analysis.sentences import comparison_sentence, points
from orchestrator.analysis.verdicts import Kind
from orchestrator.reports import across
from orchestrator.reports.across import AcrossPart
from orchestrator.reports.content import Content, PanelContent, assemble
from orchestrator.reports.settling import LABELS_HEAD, SETTLE_HEAD, claim_rows, labels_rows, labels_title
from orchestrator.reports.words import (
    GLYPHS,
    METRIC_TITLES,
    NOTHING,
    difference,
    interval,
    number,
    p,
    skipped_lines,
    spread,
)

#: Characters of a line that every column of a pair's comparison across suites fits in.
WIDE = 132
_STYLES = {Kind.BETTER: "bold blue", Kind.WORSE: "yellow", Kind.EQUIVALENT: "cyan"}


def print_report(
    console: Console,
    sweep: Mapping[str, Any],
    results: pd.DataFrame,
    findings: pd.DataFrame | None = None,
    content: Content | None = None,
) -> None:
    """Print every leaderboard with its comparison table, label counts, what would settle it, then the sentence.

    Args:
        console: Where to.
        sweep: `name`, `spec`, `reference`, `margin`.
        results: The view `results` of that sweep.
        findings: The view `findings` of it.
        content: What `assemble` makes of both, if it is there already.

    Raises:
        AnalysisError: When the reference is no router of the sweep or may not be one.
    """
    content = content or assemble(sweep, results, findings)
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
    print_across(console, content.across, content.reference)
    for labels in content.labels:
        console.print()
        console.print(_grid(f"{LABELS_HEAD} {labels_title(labels)}", labels_rows(labels)))
    if content.settlements:
        console.print()
        console.print(Padding(Text(f"{SETTLE_HEAD}: {content.settlements[0].sentence}"), (0, 1)))
    if any(claim.measured for claim in content.claims):
        console.print()
        console.print(_grid("The paper's other claims", claim_rows([c for c in content.claims if c.measured])))
    for line in skipped_lines(sweep.get("skipped") or ()):
        console.print(Padding(Text(line, style="dim"), (0, 1)))
    console.print()
    for line in content.limits:
        console.print(Padding(Text(line), (0, 1)))
    if content.counts:
        console.print(Padding(Text(content.counts), (0, 1)))
    console.print(Padding(Text(content.sentence, style="bold"), (0, 1)))


def print_across(console: Console, parts: Sequence[AcrossPart], reference: str | None) -> None:
    """Print the primary family across suites, what it leaves out, and the ranks; the rest is on the page."""
    for part in parts[:1]:
        head, rows = across.table(part)
        if rows:
            shown = [i for i, name in enumerate(head) if name not in across.DETAILS]
            title = f"across suites, {part.title}: difference to {reference}"
            console.print(_text_table(title, [head[i] for i in shown], [[row[i] for i in shown] for row in rows]))
        for note in across.notes(part.rows) + across.rank_notes(part.ranks):
            console.print(Padding(Text(note, style="dim"), (0, 1)))
    if len(parts) > 1:
        rest = ", ".join(part.title.removesuffix(": exploratory") for part in parts[1:])
        console.print(Padding(Text(f"Exploratory, on the page and in the CSV: {rest}.", style="dim"), (0, 1)))


def print_pair_across(console: Console, rows: Sequence[AcrossSuites]) -> None:
    """Print one pair's comparisons across suites and their sentences."""
    if not rows:
        return
    title = f"{rows[0].candidate} − {rows[0].reference} across suites: one pair, exploratory"
    console.print()
    head, body = across.pair_table(rows)
    shown = [i for i, name in enumerate(head) if name != "new suite" or console.width >= WIDE]
    console.print(_text_table(title, [head[i] for i in shown], [[row[i] for i in shown] for row in body]))
    for note in [across.METHOD, *across.notes(rows)]:
        console.print(Padding(Text(note, style="dim"), (0, 1)))
    for row in rows:
        if row.effect and row.metric in ("auc", "utility_mean"):
            encoder = f" with {row.encoder}" if row.encoder else ""
            console.print(Padding(Text(f"Across {row.n_suites} suites{encoder}, {clause(row)}."), (0, 1)))


def print_readings(console: Console, readings: Sequence[Reading]) -> None:
    """Print how likely each difference of a pair is, and how it varies over queries; no verdict rests on either."""
    margin = readings[0].row.margin
    table = _table("two more readings of the same differences; no verdict rests on them")
    for head in ("benchmark", "encoder", "metric"):
        table.add_column(head)
    for head in ("P(better)", f"P(within ±{margin:g})", "P(worse)", "bootstrap ± sd", "bootstrap 95 %"):
        table.add_column(head, justify="right", no_wrap=True)
    for reading in readings:
        row, chances, drawn = reading.row, reading.posterior, reading.bootstrap
        encoder = f"{row.encoder or NOTHING}{'' if row.formulation == 'utility' else f', {row.formulation}'}"
        table.add_row(
            Text(row.benchmark), Text(encoder), METRIC_TITLES[row.metric],
            *(number(x, 3) for x in (chances.better, chances.rope, chances.worse))
            if chances else (NOTHING,) * 3,
            f"{difference(drawn.estimate)} ± {drawn.sd:.2f}" if drawn else NOTHING,
            interval(drawn.ci95 if drawn else None),
        )  # fmt: skip
    console.print()
    console.print(table)
    for line in reading_notes(readings):
        console.print(Padding(Text(line, style="dim"), (0, 1)))


def print_comparisons(console: Console, rows: Sequence[Comparison]) -> None:
    """Print one pair's comparisons: the numbers of every benchmark and metric, then a sentence for each judged one."""
    table = _table(f"{rows[0].candidate} − {rows[0].reference}, margin ±{rows[0].margin:g}")
    table.add_column("benchmark", overflow="fold")
    table.add_column("encoder", overflow="fold")
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


def _grid(title: str, rows: Sequence[Sequence[str]]) -> Table:
    table = _table(title)
    for head in rows[0]:
        table.add_column(head)
    for row in rows[1:]:
        table.add_row(*map(Text, row))
    return table


def _text_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of plain text whose first column and verdict are words, the others numbers."""
    table = _table(title)
    for i, name in enumerate(head):
        words = i == 0 or name.lower() in ("verdict", "metric")
        table.add_column(name, justify="left" if words else "right", no_wrap=not words, min_width=12 if words else None)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
