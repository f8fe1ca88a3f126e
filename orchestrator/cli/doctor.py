"""Verbs about the installation: doctor, schema."""

from __future__ import annotations

import typer

from orchestrator.cli.options import AsJson, Database


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(doctor)
    app.command()(schema)


def doctor(db: Database = None, as_json: AsJson = False) -> None:
    """Check versions, database, artefact folder and free disk of this machine."""
    from orchestrator.checkup import check_up
    from orchestrator.cli.output import print_rows

    findings = check_up(db)
    print_rows(
        [{"check": f.name, "ok": "yes" if f.ok else "NO", "detail": f.detail} for f in findings], as_json=as_json
    )
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def schema() -> None:
    """Print the JSON Schema of the sweep file, for editors."""
    from orchestrator.cli.output import print_json
    from orchestrator.sweep import Sweep

    print_json(Sweep.model_json_schema(by_alias=True))
