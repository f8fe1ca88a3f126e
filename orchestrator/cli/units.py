"""Verbs about units: status, retry, quarantine, invalidate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import AsJson, Database, SweepName

if TYPE_CHECKING:
    from orchestrator.queue import State
    from orchestrator.store import Store

Router = Annotated[str | None, typer.Option(help="Only this router's units.")]
BenchmarkName = Annotated[str | None, typer.Option("--benchmark", help="Only this benchmark's units.")]
Keys = Annotated[
    list[str] | None, typer.Argument(metavar="[UNIT]...", help="Unit keys or beginnings of them; default all.")
]


quarantine = typer.Typer(help="Units that took their workers down.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(status)
    app.command()(retry)
    app.add_typer(quarantine, name="quarantine")
    app.command()(invalidate)


def status(
    db: Database = None,
    sweep: SweepName = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show again every two seconds until nothing runs.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show how far a sweep is, who works on it and what failed."""
    from orchestrator.cli.output import print_json
    from orchestrator.store import open_store
    from orchestrator.store.reading import find_sweep
    from orchestrator.store.reading import status as read_status

    store = open_store(db, create=False)
    try:
        while True:
            found = store.query(lambda session: read_status(session, find_sweep(session, sweep)))
            print_json(found) if as_json else _print_status(found)
            if not watch or not any(row["lease_seconds"] > 0 for row in found["coordinators"]):
                return
            time.sleep(2)
    finally:
        store.close()


def _print_status(found: dict[str, Any]) -> None:
    from orchestrator.cli.output import print_rows

    print_rows(found["counts"], as_json=False, title=f"sweep {found['sweep']}")
    for row in found["coordinators"]:
        stale = "" if row["lease_seconds"] > 0 else "; its lease ran out, the next run takes them"
        typer.echo(f"coordinator {row['id']} on {row['host']} (pid {row['pid']}) holds {row['units']} units{stale}")
    if found["failures"]:
        columns = ("unit_key", "benchmark", "router", "seed", "error_kind", "attempts", "message")
        print_rows(
            [{column: row[column] for column in columns} for row in found["failures"]], as_json=False, title="failures"
        )


def retry(
    db: Database = None,
    sweep: SweepName = None,
    units: Keys = None,
    router: Router = None,
    benchmark: BenchmarkName = None,
) -> None:
    """Make failed units ready again; the next run computes them."""
    from orchestrator.queue import State

    _make_ready(State.FAILED, db, sweep, units, router, benchmark)


@quarantine.command("list")
def list_quarantined(db: Database = None, sweep: SweepName = None, as_json: AsJson = False) -> None:
    """List the quarantined units of a sweep with their last error; `--json` with its traceback."""
    from orchestrator.cli.output import print_rows
    from orchestrator.store import open_store
    from orchestrator.store.reading import find_sweep, quarantined

    store = open_store(db, create=False)
    try:
        rows = store.query(lambda session: quarantined(session, find_sweep(session, sweep)))
    finally:
        store.close()
    print_rows([{k: v for k, v in row.items() if as_json or k != "traceback"} for row in rows], as_json=as_json)


@quarantine.command("release")
def release(
    db: Database = None,
    sweep: SweepName = None,
    units: Keys = None,
    router: Router = None,
    benchmark: BenchmarkName = None,
) -> None:
    """Make quarantined units ready again, for instance with more memory in the sweep; the next run computes them."""
    from orchestrator.queue import State

    _make_ready(State.QUARANTINED, db, sweep, units, router, benchmark)


def _make_ready(
    before: State,
    db: str | None,
    sweep: str | None,
    units: list[str] | None,
    router: str | None,
    benchmark: str | None,
) -> None:
    from orchestrator.queue import State
    from orchestrator.store import claims

    store, ids = _select(db, sweep, (before.value,), units, router, benchmark)
    try:
        n = store.transact(lambda session: claims.move(session, ids, before=before, to=State.READY, reason=None))
    finally:
        store.close()
    typer.echo(f"{n} units are ready again; run the sweep to compute them.")


def invalidate(
    reason: Annotated[str, typer.Option(help="Why; kept in the events.")],
    db: Database = None,
    sweep: SweepName = None,
    units: Keys = None,
    router: Router = None,
    benchmark: BenchmarkName = None,
) -> None:
    """Declare finished units void; the next run computes them again and says if they differ."""
    from orchestrator.store.results import invalidate as void

    store, ids = _select(db, sweep, ("done",), units, router, benchmark)
    try:
        with store.begin() as session:
            n = void(session, ids, reason)
    finally:
        store.close()
    typer.echo(f"{n} units invalidated; run the sweep to compute them again.")


def _select(
    db: str | None,
    sweep: str | None,
    states: tuple[str, ...],
    units: list[str] | None,
    router: str | None,
    benchmark: str | None,
) -> tuple[Store, list[int]]:
    from orchestrator.errors import NotFoundError
    from orchestrator.store import open_store
    from orchestrator.store.reading import find_sweep, select_units

    open_store(db, create=False).close()  # an error, not a new database, where there is none
    store = open_store(db)
    try:
        with store.read() as session:
            name = find_sweep(session, sweep)
            ids = select_units(session, sweep=name, states=states, keys=units or (), router=router, benchmark=benchmark)
    except BaseException:
        store.close()
        raise
    if not ids and (units or router or benchmark):
        store.close()
        raise NotFoundError(
            f"sweep {name!r} has no {' or '.join(states)} unit that fits; `roadtest status` shows what there is."
        )
    return store, ids
