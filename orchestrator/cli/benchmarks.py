"""Verbs about benchmarks: list, describe, fetch, import, formats, pools."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.fetch import fetch_suite
from orchestrator.cli.options import AsJson, Database, Embed, Score

app = typer.Typer(help="List, describe, fetch and import benchmarks.", no_args_is_help=True)
app.command("fetch")(fetch_suite)

Format = Annotated[
    str | None, typer.Option(help="How to read it, of `benchmarks formats`; default: what it looks like.")
]
Variant = Annotated[str | None, typer.Option(help="Filter or other variant of the answers, in logs that have several.")]
PriceTable = Annotated[
    str | None,
    typer.Option("--prices", metavar="FILE", help="Table of prices: model, input, output (USD per 1M tokens), image."),
]
Scale = Annotated[float, typer.Option(help="Highest score of the logs, such as 100 for percentages.")]
PoolName = Annotated[
    str | None, typer.Option("--pool", help="Keep the models of this pool, of `benchmarks pools`, at its prices.")
]


@app.command("list")
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


@app.command("formats")
def list_formats(as_json: AsJson = False) -> None:
    """List what can be read, and on which files each was verified."""
    from orchestrator.cli.output import print_rows
    from workers.benchmarks.load import LAYOUTS
    from workers.benchmarks.logs import log_formats

    rows = [
        {"format": name, "reads": what, "verified on": "its published files, as their authors wrote them"}
        for name, what in LAYOUTS.items()
    ]
    rows[0]["verified on"] = "the layout of this project"
    rows += [{"format": n, "reads": cls.summary, "verified on": cls.verified} for n, cls in log_formats().items()]
    print_rows(rows, as_json=as_json)


@app.command("pools")
def list_pools(as_json: AsJson = False) -> None:
    """List named pools and their models."""
    from orchestrator.cli.output import print_rows
    from workers.benchmarks.pools import pool_rows

    print_rows(pool_rows(), as_json=as_json)


@app.command("describe")
def describe_benchmark(
    name: Annotated[str, typer.Argument(help="Embedded or imported benchmark, or a path.")],
    db: Database = None,
    embed: Embed = "prompt",
    score: Score = None,
    format: Format = None,
    variant: Variant = None,
    prices: PriceTable = None,
    scale: Scale = 1.0,
    pool: PoolName = None,
    as_json: AsJson = False,
) -> None:
    """Count, measure headroom, and warn where routing is pointless."""
    from orchestrator.catalog import load_source
    from orchestrator.cli.output import print_json, print_rows
    from orchestrator.store import home_folder
    from orchestrator.sweep import BenchmarkEntry
    from workers.benchmarks.describe import describe

    path = name if "/" in name or Path(name).exists() else None
    entry = BenchmarkEntry(
        name=Path(name).name if path else name,
        path=path,
        embed=embed,
        score=score,
        format=format,
        variant=variant,
        prices=prices,
        scale=_scale(scale),
        pool=pool,
    )
    benchmark = load_source(entry, home=home_folder(db), beside=Path())
    found = describe(benchmark)
    if as_json:
        print_json({**found, **{key: benchmark.meta[key] for key in _REPORTS if key in benchmark.meta}})
        return
    models, headroom, warnings = found.pop("models"), found.pop("headroom") or {}, found.pop("warnings")
    print_rows([{"": key, "value": _shown(value)} for key, value in {**found, **headroom}.items()], as_json=False)
    print_rows(models, as_json=False, title="models")
    _print_reports(benchmark.meta)
    for warning in warnings:
        typer.echo(f"warning: {warning}")


@app.command("import")
def import_benchmark(
    source: Annotated[Path, typer.Argument(metavar="PATH", help="Folder or file with the data.")],
    name: Annotated[str, typer.Option(help="Name to give it.")],
    db: Database = None,
    embed: Embed = "prompt",
    score: Score = None,
    format: Format = None,
    variant: Variant = None,
    prices: PriceTable = None,
    scale: Scale = 1.0,
    pool: PoolName = None,
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
    from orchestrator.sweep import find_path
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
    loaded = load_benchmark(
        source_name(source),
        path=source,
        embed=embed,
        score=score,
        format=format,
        variant=variant,
        prices=find_path(prices, beside=Path(), key="prices") if prices else None,
        scale=_scale(scale),
        pool=pool,
    )
    loaded = loaded.restrict(name=name, tasks=task, models=models, family=family)
    fresh = target.with_name(f".{name}.{secrets.token_hex(4)}")  # what is there stays until all is written
    save_tables(loaded, fresh)
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)
    _print_reports(loaded.meta)
    typer.echo(f"{name}: {loaded.n_queries} queries x {loaded.n_models} models, imported to {target}")


#: Parts of a benchmark's `meta` that say how it came about.
_REPORTS = ("join", "pool", "repriced")


def _scale(scale: float) -> float:
    from orchestrator.errors import SweepError

    if not 0 < scale < float("inf"):
        raise SweepError(f"--scale {scale:g}: give the highest score, such as 100 for percentages.")
    return scale


def _shown(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return ", ".join(f"{key}: {n:.2f}" if isinstance(n, float) else f"{key}: {n}" for key, n in value.items())


def _print_reports(meta: Mapping[str, Any]) -> None:
    """What was joined, left out and chosen, and which pool and prices hold."""
    from orchestrator.cli.output import plain

    join, pool, repriced = (meta.get(key) or {} for key in _REPORTS)
    if join:
        _print_join(join)
    if pool:
        missing = f"; not here: {', '.join(pool['missing'])}" if pool["missing"] else ""
        typer.echo(plain(f"pool {pool['name']}: {', '.join(pool['models'])}{missing}"))
        if pool["at_pool_prices"]:
            typer.echo(plain(f"at the pool's prices: {', '.join(pool['at_pool_prices'])}"))
    if repriced:
        typer.echo(plain(f"at the prices of {repriced['source']}: {', '.join(repriced['models'])}"))


def _print_join(join: Mapping[str, Any]) -> None:
    from orchestrator.cli.output import plain, print_rows

    print_rows([{"model": model, **counts} for model, counts in join["models"].items()], as_json=False, title="join")
    others = f", not by all: {', '.join(join['not_by_all'])} …" if join["not_by_all"] else ""
    lines = [
        f"{join['questions']} questions, {join['answered_by_all']} answered by every model, "
        f"{join['scored_by_all']} with every score{others}"
    ]
    lines += [f"{what}: {value}" for what, value in join["chosen"].items()]
    for key, words in (("left_out", "left out"), ("flagged", "note")):
        lines += [f"{words}, {told['n']} x {reason}: {told['such_as'][0]}" for reason, told in join[key].items()]
    if without := join["without_output_tokens"]:
        named = ", ".join(f"{model} ({n})" for model, n in without.items())
        lines.append(f"no output tokens nor text, so these cost their input alone: {named}")
    lines += [f"{what}: {', '.join(values)}" for what, values in join["facts"].items()]
    sources = {"log": "from the log", "prices": f"tokens x {join['prices']}"}
    lines.append("costs: " + ", ".join(f"{n} {sources[source]}" for source, n in join["costs"].items()))
    for line in lines:
        typer.echo(plain(line))
