"""Verbs that start work: init, plan, run."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from orchestrator.cli.options import AsJson, Database, Logging

if TYPE_CHECKING:
    from orchestrator.cluster import Connection
    from orchestrator.sweep import Sweep

SweepFile = Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep file (YAML).")]


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(init)
    app.command()(plan)
    app.command()(run)


def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("sweep.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite.")] = False,
    benchmark: Annotated[str, typer.Option(help="Embedded or imported benchmark that it begins with.")] = "toolbox",
) -> None:
    """Write a commented sweep file to start from."""
    import json
    from importlib.resources import files

    from orchestrator.errors import SweepError

    if path.exists() and not force:
        raise SweepError(f"{path} is there already; name another file or give --force.")
    template = files("orchestrator").joinpath("sweep-template.yaml").read_text(encoding="utf-8")
    shown = benchmark if benchmark.isidentifier() else json.dumps(benchmark)
    path.write_text(template.replace("  - toolbox #", f"  - {shown} #", 1), encoding="utf-8")
    typer.echo(f"{path} written; `roadtest run {path}` runs it.")


def plan(
    sweep: SweepFile,
    db: Database = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say for each unit why it will or will not be computed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would compute; writes nothing."""
    from orchestrator.cli.output import print_rows
    from orchestrator.errors import NoDatabaseError
    from orchestrator.explain import explain_all
    from orchestrator.run import load_plan
    from orchestrator.store import home_folder, open_store
    from orchestrator.sweep import Sweep

    planned = load_plan(Sweep.from_yaml(sweep), home=home_folder(db))
    with ExitStack() as stack:
        session = None
        with suppress(NoDatabaseError):  # everything is new
            store = open_store(db, create=False)
            stack.callback(store.close)
            session = stack.enter_context(store.read())
        reasons = explain_all(session, planned)
        if explain:
            rows = (
                {
                    "unit": unit.key if as_json else unit.key[:15],
                    "kind": unit.kind,
                    "benchmark": unit.evaluated.name if unit.evaluated else None,
                    "encoder": unit.encoder,
                    "router": unit.router,
                    "seed": unit.spec.get("split"),
                    "state": name,
                    "why": sentence,
                }
                for unit, name, sentence in reasons
            )
            print_rows(rows, as_json=as_json)
            return
        numbers: Counter[tuple[str, str]] = Counter()
        left_out: Counter[tuple[str | None, str | None, str]] = Counter()
        for unit, name, sentence in reasons:
            numbers[unit.kind, name] += 1
            if name == "skipped":
                left_out[unit.router, unit.evaluated.name if unit.evaluated else None, sentence] += 1
    print_rows(
        [{"kind": kind, "state": name, "units": n} for (kind, name), n in sorted(numbers.items())],
        as_json=as_json,
        title=None if as_json else f"sweep {planned.sweep.name}: {len(planned.units)} units",
    )
    if left_out and not as_json:
        from orchestrator.reports.words import skipped_lines  # brings statistics along, a second

        keys = ("router", "benchmark", "reason")
        for line in skipped_lines([dict(zip(keys, place, strict=True)) | {"n": n} for place, n in left_out.items()]):
            typer.echo(line)


def run(
    sweep: SweepFile,
    db: Database = None,
    executor: Annotated[Literal["ray", "local"], typer.Option(help="Ray actors, or threads of this process.")] = "ray",
    workers: Annotated[int | None, typer.Option(min=1, help="Workers; default: all CPUs.")] = None,
    address: Annotated[str | None, typer.Option(help="Address of a Ray cluster; default: a local Ray.")] = None,
    takeover: Annotated[
        bool, typer.Option("--takeover", help="End other runs of this sweep, alive or not, and take their units.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Print the leaderboard and write the HTML report at the end.")] = True,
    out: Annotated[Path, typer.Option(help="Folder of the HTML report.")] = Path("roadtest-report"),
) -> None:
    """Run a sweep; running it again finishes what is left and recomputes nothing."""
    from orchestrator.errors import SweepError
    from orchestrator.sweep import Sweep

    if address is not None and executor == "local":
        raise SweepError("--address names a Ray cluster, --executor local uses none; drop one of them.")
    asked = Sweep.from_yaml(sweep)
    connection = _ray_ahead(asked, db, workers, address) if executor == "ray" else None
    try:
        _run(asked, db, executor, workers, address, connection, takeover=takeover, out=out if report else None)
    finally:
        if connection is not None:
            connection.close()


def _ray_ahead(sweep: Sweep, db: str | None, workers: int | None, address: str | None) -> Connection | None:
    """Ray, begun before the rest is imported and the sweep planned; None where all that is known of it is done."""
    from orchestrator.cluster import Connection
    from orchestrator.errors import NoDatabaseError, OrchestratorError
    from orchestrator.store import claims, open_store

    try:
        store = open_store(db, create=False)
    except NoDatabaseError:
        return Connection(address, workers=workers)
    except OrchestratorError:
        return None  # who opens it to write will say why
    try:
        wanted = store.query(lambda session: claims.may_be_open(session, sweep.name))
    finally:
        store.close()
    return Connection(address, workers=workers) if wanted else None


def _run(
    asked: Sweep,
    db: str | None,
    executor: Literal["ray", "local"],
    workers: int | None,
    address: str | None,
    connection: Connection | None,
    *,
    takeover: bool,
    out: Path | None,
) -> None:
    """Plan, run and report into a folder, if one is given."""
    from orchestrator.cli.output import log_to_file
    from orchestrator.cli.progress import shown_progress
    from orchestrator.cli.read import prepare_report, show_report
    from orchestrator.errors import AnalysisError
    from orchestrator.run import load_plan, run_plan
    from orchestrator.store import check_home, home_folder, open_store

    # Planned first: bad input leaves neither a database nor a log behind.
    planned = load_plan(asked, home=home_folder(db))
    check_home(home_folder(db))
    store = open_store(db)
    try:
        log = log_to_file(store.home / "logs", asked.name, Logging.format)
        if out is not None and connection is not None:
            prepare_report()  # while Ray starts
        with shown_progress() as progress:
            summary = run_plan(
                store,
                planned,
                executor=executor,
                workers=workers,
                address=address,
                connection=connection,
                progress=progress,
                takeover=takeover,
            )
        if summary.exit_code == 3:
            typer.echo(
                f"interrupted: {summary.number('done')} units are done; the same command goes on. Log: {log}", err=True
            )
        elif summary.exit_code == 1:
            typer.echo(
                f"{summary.number('failed', 'quarantined')} units failed, "
                f"{summary.number('ready', 'invalidated')} wait for one that did; "
                "`roadtest status` names them, `roadtest retry` and `roadtest quarantine release` try again. "
                f"Log: {log}",
                err=True,
            )
        if out is not None and summary.exit_code != 3:
            store.running = False
            try:
                show_report(store, asked.name, out)
            except AnalysisError as error:
                if not summary.exit_code:
                    raise
                typer.echo(f"no report: {error}", err=True)  # what failed is said above, and is the exit code
    finally:
        store.close()
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)
