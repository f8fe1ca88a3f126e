"""Verbs about what there is: benchmarks, encoders, routers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.options import AsJson, Database

benchmarks = typer.Typer(help="List, describe and import benchmarks.", no_args_is_help=True)
encoders = typer.Typer(help="List encoders.", no_args_is_help=True)
routers = typer.Typer(help="List routers.", no_args_is_help=True)

Embed = Annotated[str, typer.Option(help="Column that encoders see.")]
Score = Annotated[str, typer.Option(help="Column that holds the score.")]


@benchmarks.command("list")
def list_benchmarks(db: Database = None, as_json: AsJson = False) -> None:
    """List embedded and imported benchmarks."""
    from orchestrator.catalog import imported_folder, imported_names
    from orchestrator.cli.output import print_rows
    from orchestrator.store import home_folder
    from workers.benchmarks.base import embedded_sources

    rows = [
        {"name": name, "kind": "embedded", "summary": source.summary} for name, source in embedded_sources().items()
    ]
    home = home_folder(db)
    rows += [
        {"name": name, "kind": "imported", "summary": str(imported_folder(home) / name)}
        for name in imported_names(home)
    ]
    print_rows(rows, as_json=as_json)


@benchmarks.command("describe")
def describe_benchmark(
    name: Annotated[str, typer.Argument(help="Embedded or imported benchmark, or a path.")],
    db: Database = None,
    embed: Embed = "prompt",
    score: Score = "score",
    as_json: AsJson = False,
) -> None:
    """Count, measure headroom, and warn where routing is pointless."""
    from orchestrator.catalog import load_source
    from orchestrator.cli.output import print_json, print_rows
    from orchestrator.store import home_folder
    from orchestrator.sweep import BenchmarkEntry
    from workers.benchmarks.describe import describe

    path = name if "/" in name or Path(name).exists() else None
    entry = BenchmarkEntry(name=Path(name).name if path else name, path=path, embed=embed, score=score)
    found = describe(load_source(entry, home=home_folder(db), beside=Path()))
    if as_json:
        print_json(found)
        return
    models, headroom, warnings = found.pop("models"), found.pop("headroom"), found.pop("warnings")
    print_rows([{"": key, "value": _shown(value)} for key, value in {**found, **headroom}.items()], as_json=False)
    print_rows(models, as_json=False, title="models")
    for warning in warnings:
        typer.echo(f"warning: {warning}")


def _shown(value: object) -> object:
    return ", ".join(f"{key}: {n}" for key, n in value.items()) if isinstance(value, dict) else value


@benchmarks.command("import")
def import_benchmark(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Folder or file with the data.")],
    name: Annotated[str, typer.Option(help="Name to give it.")],
    db: Database = None,
    embed: Embed = "prompt",
    score: Score = "score",
    task: Annotated[list[str] | None, typer.Option(help="Keep this task; may be given several times.")] = None,
    models: Annotated[list[str] | None, typer.Option(help="Keep this model; may be given several times.")] = None,
    family: Annotated[str | None, typer.Option(help="Keep the models of this family.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an import of the same name.")] = False,
) -> None:
    """Import a benchmark, possibly filtered; its groups, and so its splits, stay the source's."""
    import re
    import secrets
    import shutil

    from orchestrator.catalog import imported_folder, source_name
    from orchestrator.errors import SweepError
    from orchestrator.store import home_folder
    from workers.benchmarks.base import embedded_sources
    from workers.benchmarks.load import load_benchmark
    from workers.benchmarks.tables import save_tables

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", name):
        raise SweepError(
            f"--name {name!r}: use letters, digits and any of . _ @ + -, beginning with a letter or digit."
        )
    if name in embedded_sources():
        raise SweepError(f"--name {name!r} is the name of an embedded benchmark; choose another.")
    target = imported_folder(home_folder(db)) / name
    if target.exists() and not force:
        raise SweepError(f"a benchmark {name!r} is imported already ({target}); choose another --name or give --force.")
    loaded = load_benchmark(source_name(source), path=source, embed=embed, score=score)
    loaded = loaded.restrict(name=name, tasks=task, models=models, family=family)
    fresh = target.with_name(f".{name}.{secrets.token_hex(4)}")  # what is there stays until all is written
    save_tables(loaded, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    typer.echo(f"{name}: {loaded.n_queries} queries x {loaded.n_models} models, imported to {target}")


@encoders.command("list")
def list_encoders(as_json: AsJson = False) -> None:
    """List encoders and whether they are installed."""
    from orchestrator.cli.output import print_rows
    from workers.encoders.base import encoders as known
    from workers.errors import EncoderError

    rows = []
    for name, cls in known().items():
        try:
            installed = "needs a name or path" if name == "st" else "yes" if cls().recipe() else "no"
        except EncoderError as error:
            installed = f"no: {error}"
        rows.append(
            {
                "name": name,
                "modality": cls.modality,
                "version": cls.version,
                "installed": installed,
                "summary": cls.summary,
            }
        )
    print_rows(rows, as_json=as_json)


@routers.command("list")
def list_routers(as_json: AsJson = False) -> None:
    """List routers with source, formulations, needs and tunables."""
    from orchestrator.cli.output import print_rows
    from workers.routers.base import routers as known

    rows = []
    for name, cls in known().items():
        flags = [flag for flag in ("privileged", "query_blind") if getattr(cls, flag)]
        rows.append(
            {
                "name": name,
                "formulation": ", ".join(cls.formulations),
                "needs": ", ".join((*(("embedding",) if cls.needs_embedding else ()), *cls.needs)) or None,
                "tunables": ", ".join(cls.tunables) or None,
                "flags": ", ".join(flags) or None,
                "version": cls.version,
                "summary": cls.summary,
                "source": cls.source or None,
            }
        )
    if not as_json:
        rows = [
            {key: row[key] for key in ("name", "formulation", "needs", "tunables", "flags", "summary")} for row in rows
        ]
    print_rows(rows, as_json=as_json)
