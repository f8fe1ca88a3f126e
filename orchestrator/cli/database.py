"""Verbs about the database itself: db upgrade, check, copy, prune."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Database

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


@app.command()
def copy(
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Database to read; default ROADTEST_DB, else the one here."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Empty database to fill; default ROADTEST_DB.")
    ] = None,
) -> None:
    """Copy everything into an empty database, SQLite or PostgreSQL, and compare row by row."""
    import os

    from orchestrator.cli.output import print_rows
    from orchestrator.errors import DatabaseError
    from orchestrator.store import home_folder
    from orchestrator.store.copying import copy_database

    if target is None and "ROADTEST_DB" not in os.environ:
        raise DatabaseError("where to? Name an empty database with --to, or in ROADTEST_DB.")
    copied = copy_database(source, target)
    print_rows(
        [{"table": table.name, "rows": table.rows, "checksum": table.checksum[:16]} for table in copied],
        as_json=False,
        title="the same on both sides",
    )
    before, after = home_folder(source).resolve(), home_folder(target).resolve()
    if before != after:
        typer.echo(
            f"Embeddings, imported benchmarks and logs stay in {before}; runs on the copy look in {after}: copy that "
            "folder too, or set ROADTEST_HOME."
        )


@app.command()
def prune(
    db: Database = None,
    sweep: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take this sweep out, with the units that no other sweep has.")
    ] = None,
    attempts_older_than: Annotated[
        float | None, typer.Option(min=0, metavar="DAYS", help="Take older attempts and events out.")
    ] = None,
    grace: Annotated[float, typer.Option(min=0, metavar="DAYS", help="Leave younger files alone.")] = 1.0,
    keep_files: Annotated[
        bool, typer.Option("--keep-files", help="Leave all files alone (another database shares them).")
    ] = False,
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without, only show it.")] = False,
    vacuum: Annotated[
        bool, typer.Option("--vacuum", help="Give SQLite's free space back to the disk afterwards.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show, or take out, what no sweep needs: units of no sweep with their results, and artefacts of no unit."""
    from orchestrator.cli.output import print_json, print_rows
    from orchestrator.errors import DatabaseError
    from orchestrator.run import artifacts_url
    from orchestrator.store import maintenance, open_store
    from orchestrator.store.pruning import prune as take_out
    from workers.artifacts import ArtifactStore

    if vacuum and not apply:
        raise DatabaseError("--vacuum changes the file: give it together with --apply.")
    open_store(db, create=False).close()  # an error, not a new database, where there is none
    store = open_store(db, create=apply)
    try:
        if vacuum and store.path is None:
            raise DatabaseError("PostgreSQL reuses free space by itself (autovacuum); --vacuum is for SQLite.")
        found = take_out(
            store,
            None if keep_files else ArtifactStore(artifacts_url(store.home)),
            sweep=sweep,
            history_days=attempts_older_than,
            grace_days=grace,
            apply=apply,
        )
        freed = maintenance.vacuum(store) if vacuum else None
    finally:
        store.close()
    n_bytes = sum(file.n_bytes for file in found.files)
    if as_json:
        print_json(
            {
                "applied": apply,
                "rows": found.rows,
                "files": [file.name for file in found.files],
                "bytes": n_bytes,
                "young_files": found.n_young,
                "vacuumed_bytes": freed,
            }
        )
        return
    rows = [{"what": f"rows of {table}", "n": n, "bytes": None} for table, n in found.rows.items()]
    rows += [{"what": "files of artefacts", "n": len(found.files), "bytes": n_bytes}] if found.files else []
    if rows:
        typer.echo("taken out:" if apply else "would be taken out (--apply does it):")
        print_rows(rows, as_json=False)
    else:
        typer.echo("There is nothing to take out.")
    if found.n_young:
        typer.echo(f"{found.n_young} files that nothing refers to stay: they are younger than --grace {grace:g} days.")
    if found.files and not apply:
        typer.echo("If another database shares the artefact store, it embeds again what it misses; see --keep-files.")
    if freed is not None:
        typer.echo(f"The database file is {freed} bytes smaller.")
