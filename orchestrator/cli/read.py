"""Verbs that read results: report, compare, sql, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.options import AsJson, Database, SweepName

if TYPE_CHECKING:
    from orchestrator.reports.evidence import Frames
    from orchestrator.store import Session, Store


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(report)
    app.command()(compare)
    app.command()(sql)
    app.command()(export)


def report(
    db: Database = None,
    sweep: SweepName = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("roadtest-report"),
    format: Annotated[
        Literal["html", "md", "latex", "csv"], typer.Option(help="A page, or the tables for a paper or a program.")
    ] = "html",
) -> None:
    """Print the leaderboard and the verdict, write the report."""
    from orchestrator.store import open_store
    from orchestrator.store.reading import find_sweep

    store = open_store(db, create=False)
    try:
        with store.read() as session:
            name = find_sweep(session, sweep)
        show_report(store, name, out, format)
    finally:
        store.close()


def show_report(store: Store, sweep: str, out: Path, format: Literal["html", "md", "latex", "csv"] = "html") -> None:
    """Print a sweep's report and write its page, or its tables."""
    from orchestrator.cli.output import console
    from orchestrator.reports import html, terminal
    from orchestrator.reports.content import assemble
    from orchestrator.reports.papers import TEXTS, tables
    from orchestrator.store import reading

    with store.read() as session:
        facts = reading.sweep_facts(session, sweep, store.shown)
        frames = read_frames(session, sweep, facts["reference"], pictures=format == "html")
    content = assemble(facts, frames.results, frames.findings)
    terminal.print_report(console(), facts, frames.results, frames.findings, content)
    out.mkdir(parents=True, exist_ok=True)
    if format == "html":
        page = out / f"{sweep}.html"
        page.write_text(html.render(facts, frames, content), encoding="utf-8")
        typer.echo(f"Report: {page.resolve()}")
        return
    if format in TEXTS:
        text = out / f"{sweep}.{'tex' if format == 'latex' else format}"
        text.write_text(TEXTS[format](content), encoding="utf-8")
        typer.echo(f"Report: {text.resolve()}")
        return
    for name, frame in tables(content).items():
        path = out / f"{sweep}-{name}.csv"
        frame.to_csv(path, index=False)
        typer.echo(f"Report: {path.resolve()}")


def prepare_report() -> None:
    """Import and compile what a page is made with."""
    from orchestrator.reports import html, papers, terminal  # noqa: F401

    html.template()


def read_frames(session: Session, sweep: str, reference: str | None, *, pictures: bool = True) -> Frames:
    """All that a report is made of; without `pictures` what its tables are made of."""
    import pandas as pd

    from orchestrator.reports.evidence import Frames
    from orchestrator.store import reading

    results = reading.results_frame(session, sweep)
    findings = reading.findings_frame(session, sweep)
    if not pictures:
        return Frames(results=results, frontier=pd.DataFrame(), models=pd.DataFrame(), findings=findings)
    return Frames(
        results=results,
        frontier=reading.hulls_frame(session, sweep),
        models=reading.models_frame(session, sweep),
        findings=findings,
        shares=reading.shares_frame(session, sweep),
        **({"hardest": reading.hardest_frame(session, sweep, reference)} if reference else {}),
    )


def compare(
    a: Annotated[str, typer.Argument(help="Router, as the leaderboard names it.")],
    b: Annotated[str, typer.Argument(help="Router to compare it with.")],
    db: Database = None,
    sweep: SweepName = None,
    benchmark: Annotated[str | None, typer.Option(help="One benchmark; default all.")] = None,
    encoder: Annotated[str | None, typer.Option(help="One encoder; default all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two routers: differences by split with intervals and verdicts, across suites, over queries, Bayesian."""
    from orchestrator import api
    from orchestrator.cli.output import console, print_json
    from orchestrator.reports import terminal

    found = api.compared(a, b, sweep=sweep, benchmark=benchmark, encoder=encoder, db=db)
    if as_json:
        print_json([one.as_dict() for one in found.readings] + [row.as_dict() for row in found.across])
        return
    terminal.print_comparisons(console(), [one.row for one in found.readings])
    terminal.print_readings(console(), found.readings)
    terminal.print_pair_across(console(), found.across)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT statement over the views and tables of docs/schema.md.")],
    db: Database = None,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
) -> None:
    """Query the database; read-only."""
    import csv
    import sys

    from orchestrator.cli.output import print_rows
    from orchestrator.store import open_store, reading

    open_store(db, create=False).close()
    columns, rows = reading.run_statement(db, query)
    if as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
        return
    print_rows((dict(zip(columns, row, strict=True)) for row in rows), as_json=as_json)


def export(
    db: Database = None,
    sweep: SweepName = None,
    format: Annotated[Literal["parquet", "csv"], typer.Option(help="File format.")] = "parquet",
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("roadtest-export"),
) -> None:
    """Write a sweep's views to files."""
    from orchestrator.store import open_store, reading, views

    store = open_store(db, create=False)
    try:
        with store.read() as session:
            name = reading.find_sweep(session, sweep)
            out.mkdir(parents=True, exist_ok=True)
            for view, frame in reading.view_frames(session, name, views.NAMES):
                path = out / f"{view}.{format}"
                if format == "parquet":
                    frame.to_parquet(path, index=False, schema=reading.parquet_schema(view))
                else:
                    frame.to_csv(path, index=False)
                typer.echo(f"{path}: {len(frame)} rows")
    finally:
        store.close()
