"""Verbs about jobs of a Ray cluster: submit, jobs list|logs|stop."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.options import AsJson

if TYPE_CHECKING:
    from orchestrator.cluster import Jobs

Dashboard = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        show_envvar=False,
        help="Ray dashboard, http://HEAD:8265; default RAY_API_SERVER_ADDRESS.",
    ),
]
Postgres = Annotated[
    str | None, typer.Option("--db", metavar="URL", help="PostgreSQL, without a password; default ROADTEST_DB.")
]
JobId = Annotated[str, typer.Argument(metavar="ID", help="Job, as `jobs list` names it.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Workers; default: all CPUs of the cluster.")]

jobs = typer.Typer(help="Sweeps that were submitted to a Ray cluster.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the verbs."""
    app.command()(submit)
    app.add_typer(jobs, name="jobs")


def submit(
    sweep: Annotated[Path, typer.Argument(metavar="SWEEP", help="Sweep file (YAML).")],
    address: Dashboard,
    db: Postgres = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Artefact store that every node reaches; default the head's ROADTEST_ARTIFACTS."
        ),
    ] = None,
    workers: Workers = None,
    plugins: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Ship plug-ins: a folder made by `pip install --no-deps --target DIR PACKAGE`."
        ),
    ] = None,
    job_id: Annotated[
        str | None,
        typer.Option("--id", metavar="ID", help="Taken once; the same job submitted again is not run twice."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the log and end with the sweep's exit code.")] = False,
) -> None:
    """Run a sweep on a Ray cluster, coordinator included; only the sweep file is shipped."""
    from orchestrator.cluster import Jobs
    from orchestrator.jobs import Request, check_artifacts_url, database_for_jobs
    from orchestrator.jobs import submit as send
    from orchestrator.run import load_plan
    from orchestrator.store import home_folder
    from orchestrator.sweep import Sweep

    database = database_for_jobs(db)
    asked = Sweep.from_yaml(sweep)
    if plugins is not None:
        sys.path.insert(0, str(plugins))  # where a job finds them too
    units = len(load_plan(asked, home=home_folder(db)).units)
    request = Request(
        id=job_id or f"{asked.name}-{datetime.now(UTC):%Y%m%dT%H%M%S}",
        sweep=asked,
        file=sweep,
        database=database,
        artifacts=None if artifacts is None else check_artifacts_url(artifacts),
        workers=workers,
        plugins=plugins,
    )
    cluster = Jobs(address)
    new = send(cluster, request)
    typer.echo(
        f"job {request.id}: {f'{units} units submitted' if new else 'already running'}; "
        f"`roadtest jobs logs {request.id} --follow` shows it.",
        err=True,
    )
    if wait:
        _wait(cluster, request.id)
        typer.echo(f"done; `roadtest report --sweep {asked.name} --db {database}` shows the results.", err=True)


@jobs.command("list")
def list_jobs(address: Dashboard, as_json: AsJson = False) -> None:
    """List the sweeps that were submitted; Ray's status is for display, `roadtest status` asks the database."""
    from orchestrator.cli.output import print_rows
    from orchestrator.cluster import Jobs
    from orchestrator.jobs import submitted

    def shown(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat(timespec="seconds")

    print_rows(
        [
            {
                "id": job.id,
                "sweep": sweep,
                "status": job.status,
                "exit_code": job.exit_code,
                "started": shown(job.started),
                "ended": shown(job.ended),
            }
            for job, sweep in submitted(Jobs(address))
        ],
        as_json=as_json,
    )


@jobs.command()
def logs(
    job_id: JobId,
    address: Dashboard,
    follow: Annotated[
        bool, typer.Option("--follow", help="Until the job ends, and end with the sweep's exit code.")
    ] = False,
) -> None:
    """Print what a job said."""
    from orchestrator.cluster import Jobs
    from orchestrator.jobs import find

    cluster = Jobs(address)
    if follow:
        _wait(cluster, job_id)
    else:
        typer.echo(cluster.log(find(cluster, job_id).id), nl=False)


@jobs.command()
def stop(
    job_id: JobId,
    address: Dashboard,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the job has ended.")] = False,
) -> None:
    """Ask a job to end: it keeps what is done and hands the rest back."""
    from orchestrator.cluster import Jobs
    from orchestrator.jobs import find
    from orchestrator.jobs import follow as wait_for

    cluster = Jobs(address)
    if find(cluster, job_id).over:
        typer.echo(f"job {job_id} had ended.", err=True)
        return
    cluster.stop(job_id)
    if wait:
        wait_for(cluster, job_id, lambda _: None)
    typer.echo(f"job {job_id} {'has ended' if wait else 'is asked to end'}; submitting it again goes on.", err=True)


@jobs.command(hidden=True)
def drive(
    sweep: Path,
    db: Annotated[str, typer.Option("--db")],
    artifacts: Annotated[str | None, typer.Option("--artifacts")] = None,
    workers: Workers = None,
) -> None:
    """What a submitted job runs on the head: the sweep, on the cluster that it is in."""
    from orchestrator.cli.run import run
    from orchestrator.cluster import alive_nodes, connect
    from orchestrator.errors import SweepError
    from orchestrator.jobs import database_of_node

    # The job's own folder is Ray's, and goes with the job.
    os.environ.setdefault("ROADTEST_HOME", str(Path.home() / ".roadtest"))
    if artifacts is not None:
        os.environ["ROADTEST_ARTIFACTS"] = artifacts
    connect("auto", workers=None)
    if "ROADTEST_ARTIFACTS" not in os.environ and alive_nodes() > 1:
        raise SweepError(
            f"the cluster has {alive_nodes()} nodes, and embeddings would lie on the head's own disk: give "
            "--artifacts, or set ROADTEST_ARTIFACTS on the head, to a URL or folder that every node reaches."
        )
    run(sweep, db=database_of_node(db), workers=workers, address="auto", report=False)


def _wait(cluster: Jobs, job_id: str) -> None:
    """Show a job's log to its end, and end as it does."""
    from orchestrator.jobs import follow, outcome

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        job = follow(cluster, job_id, write)
    except KeyboardInterrupt:
        typer.echo(
            f"\njob {job_id} goes on without this terminal; `roadtest jobs logs {job_id} --follow` shows it again, "
            f"`roadtest jobs stop {job_id}` ends it.",
            err=True,
        )
        raise typer.Exit(3) from None
    code, reason = outcome(job)
    if reason:
        typer.echo(reason, err=True)
    if code:
        raise typer.Exit(code)
