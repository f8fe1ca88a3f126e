"""Verbs about the database itself: db upgrade, db check."""

from __future__ import annotations

import typer

from orchestrator.cli.options import Database

app = typer.Typer(help="Look after the database.", no_args_is_help=True)


@app.command()
def upgrade(db: Database = None) -> None:
    """Bring an older database to this version's schema (SQLite: after a backup copy)."""
    from orchestrator.store import maintenance

    typer.echo(maintenance.upgrade(db))


@app.command()
def check(db: Database = None) -> None:
    """Check schema, integrity and that results and states agree."""
    from orchestrator.errors import DatabaseError
    from orchestrator.store import maintenance

    problems = maintenance.check(db)
    if problems:
        raise DatabaseError("the database has problems: " + "; ".join(problems) + ".")
    typer.echo("the database is sound.")
