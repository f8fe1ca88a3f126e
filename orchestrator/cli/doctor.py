"""Verbs about the installation: doctor, schema."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Database


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(doctor)
    app.command()(schema)


def doctor(
    db: Database = None,
    address: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Check every node of a Ray cluster: HEAD:6379 from one of them, http://HEAD:8265 from elsewhere.",
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for the nodes to answer.")] = 60.0,
    as_json: AsJson = False,
) -> None:
    """Check versions, database, artefact store, clocks and free disk, of this machine or of a cluster's nodes."""
    from orchestrator.checkup import check_cluster, check_up
    from orchestrator.cli.output import print_rows
    from orchestrator.jobs import database_of_node

    if address is not None and "://" in address:
        _on_head(address, db, timeout, as_json)
        return
    db = None if db is None else database_of_node(db)
    findings = check_up(db)
    if address is not None:
        findings += check_cluster(db, address, timeout=timeout)
    print_rows(
        [
            {
                **({} if address is None else {"node": f.node or "this machine"}),
                "check": f.name,
                "ok": "yes" if f.ok else "NO",
                "detail": f.detail,
            }
            for f in findings
        ],
        as_json=as_json,
    )
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _on_head(address: str, db: str | None, timeout: float, as_json: bool) -> None:
    """Have the head ask: Ray answers only to machines that belong to the cluster."""
    from orchestrator.cluster import Jobs
    from orchestrator.jobs import ask_head, database_for_jobs, outcome

    words = ["doctor", "--address", "auto", "--timeout", f"{timeout:g}"]
    if db is not None or "ROADTEST_DB" in os.environ:
        words += ["--db", database_for_jobs(db)]
    job, said = ask_head(
        Jobs(address), f"doctor-{datetime.now(UTC):%Y%m%dT%H%M%S%f}", [*words, *(["--json"] if as_json else [])]
    )
    sys.stdout.write(said)
    code, reason = outcome(job)
    if reason:
        typer.echo(reason, err=True)
    if code:
        raise typer.Exit(code)


def schema() -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from orchestrator.cli.output import print_json
    from orchestrator.sweep import Sweep

    print_json(Sweep.model_json_schema(by_alias=True))
