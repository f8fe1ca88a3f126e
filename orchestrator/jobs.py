"""How does a sweep become a job of a Ray cluster? What is shipped, under which id, and what its end means."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.cluster import Job, Jobs
from orchestrator.errors import ClusterError, DatabaseError, RunError, SweepError
from orchestrator.store.engine import resolve_url, shown, sqlite_path
from orchestrator.sweep import Sweep

#: Seconds between SIGTERM and SIGKILL of a stopped job: a run keeps what is nearly done and hands the rest back.
STOP_SECONDS = 60
#: Seconds between two looks at a job, and for which a dashboard may be away before nobody waits any more.
LOOK_SECONDS, PATIENCE_SECONDS = 1.0, 300.0
#: Names in a job's metadata.
_SWEEP, _CONTENT = "roadtest_sweep", "roadtest_content"
#: What a shell exits with when there is no such command.
_NO_COMMAND = 127


@dataclass(frozen=True, kw_only=True)
class Request:
    """A job to be: nothing in it is secret, Ray shows all of it to everyone."""

    id: str
    sweep: Sweep
    #: Sweep file.
    file: Path
    #: PostgreSQL's URL without a password.
    database: str
    #: Artefact store of the nodes, None for what their environment says.
    artifacts: str | None = None
    workers: int | None = None
    #: Folder of installed packages with plug-ins.
    plugins: Path | None = None

    @property
    def command(self) -> str:
        """What the head's shell runs in the folder that is shipped."""
        words: list[str] = ["jobs", "drive", f"{self.sweep.name}.yaml", "--db", self.database]
        if self.artifacts is not None:
            words += ["--artifacts", self.artifacts]
        if self.workers is not None:
            words += ["--workers", str(self.workers)]
        return f"exec roadtest {shlex.join(words)}"


def database_for_jobs(url: str | None) -> str:
    """The URL that may travel with a job: PostgreSQL, reached from every node, and without a password.

    Args:
        url: As given by `--db`, else ROADTEST_DB counts.

    Raises:
        DatabaseError: SQLite, or a password.
    """
    parsed = resolve_url(url)
    if sqlite_path(parsed) is not None:
        raise DatabaseError(
            f"{shown(parsed)} is a file of this machine, and a submitted sweep has its coordinator on the cluster's "
            "head: name a PostgreSQL server that the head reaches, --db postgresql+psycopg://USER@HOST/DATABASE "
            "without a password, or ROADTEST_DB."
        )
    if shown(parsed) != parsed.render_as_string(hide_password=False):
        raise DatabaseError(
            "ROADTEST_DB carries a password, and everything that is submitted can be read in Ray's job details: give "
            "the URL without it by --db. The head takes the password from the ROADTEST_DB in its own environment, if "
            "that names the same database, or from its PGPASSFILE (~/.pgpass)."
        )
    return shown(parsed)


def database_of_node(url: str) -> str | None:
    """What to open for a URL that came without a password: None, for ROADTEST_DB, where it names the same database."""
    own = os.environ.get("ROADTEST_DB")
    same = own and shown(resolve_url(None)).replace(":***@", "@") == shown(resolve_url(url))
    return None if same else url


def check_artifacts_url(url: str) -> str:
    """The URL, if it may travel.

    Raises:
        SweepError: It carries credentials.
    """
    if "@" in urlsplit(url).netloc:
        raise SweepError(
            "--artifacts carries credentials, and everything that is submitted can be read in Ray's job details: "
            "leave them out of the URL and put them into the nodes' environment, for S3 AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY."
        )
    return url


def submit(jobs: Jobs, request: Request) -> bool:
    """Submit, once per id; returns False when the same job runs already.

    Raises:
        ClusterError: Unreachable, or the id belongs to another job or to one that ended.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@+-]*", request.id):
        raise SweepError(f"{request.id!r} is no --id; use letters, digits, '.', '_', '@', '+' and '-'.")
    with tempfile.TemporaryDirectory(prefix="roadtest-job-") as folder:
        content = _pack(request, Path(folder))
        metadata = {_SWEEP: request.sweep.name, _CONTENT: content}
        # Read by Ray's supervisor of the job, which would else kill after 3 s.
        variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        try:
            jobs.submit(request.id, request.command, Path(folder), metadata=metadata, variables=variables)
            return True
        except ClusterError:
            # Taken, or started although the answer was lost: the id tells.
            known = jobs.find(request.id)
            if known is None:
                raise
    if known.metadata.get(_CONTENT) != content:
        raise ClusterError(
            f"job {request.id!r} is there already, with another sweep or other options; give another --id."
        )
    if known.over:
        raise ClusterError(
            f"job {request.id!r} ran already ({known.status}); give another --id to run the sweep again, "
            "which recomputes nothing."
        )
    return False


def _pack(request: Request, folder: Path) -> str:
    """Lay out what is shipped; returns its sha256, the command's included."""
    if request.plugins is not None:
        if not request.plugins.is_dir():
            raise SweepError(
                f"--plugins {request.plugins}: no such folder; make it by `pip install --no-deps --target`."
            )
        shutil.copytree(
            request.plugins, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".git")
        )
    shutil.copyfile(request.file, folder / f"{request.sweep.name}.yaml")
    digest = hashlib.sha256(request.command.encode())
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"\0{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def ask_head(jobs: Jobs, job_id: str, words: Sequence[str]) -> tuple[Job, str]:
    """Run a `roadtest` command on the head: the job that did it, and what it said."""
    command = f"exec roadtest {shlex.join(words)}"
    with tempfile.TemporaryDirectory(prefix="roadtest-job-") as folder:
        jobs.submit(job_id, command, Path(folder), metadata={}, variables={})
    said: list[str] = []
    job = follow(jobs, job_id, said.append)
    # Ray's own lines come first.
    return job, "".join(said).rpartition(f"{command}\n")[2]


def find(jobs: Jobs, job_id: str) -> Job:
    """The job of this id.

    Raises:
        ClusterError: There is none.
    """
    job = jobs.find(job_id)
    if job is None:
        raise ClusterError(f"there is no job {job_id!r} on {jobs.address}; `roadtest jobs list` names them.")
    return job


def submitted(jobs: Jobs) -> Sequence[tuple[Job, str]]:
    """Jobs that `roadtest submit` made, each with its sweep's name."""
    return [(job, job.metadata[_SWEEP]) for job in jobs.list() if _SWEEP in job.metadata]


def follow(jobs: Jobs, job_id: str, write: Callable[[str], object], *, patience: float = PATIENCE_SECONDS) -> Job:
    """Write what a job says until it ends; a dashboard that goes away for a while is waited for.

    Raises:
        ClusterError: There is no such job.
        RunError: Contact was lost for `patience` seconds; the job itself may go on.
    """
    written, job, heard = 0, find(jobs, job_id), time.monotonic()
    while True:
        try:
            job = find(jobs, job_id)
            log = jobs.log(job_id)
        except ClusterError as error:
            if time.monotonic() - heard > patience:
                raise RunError(
                    f"no contact to job {job_id!r} for {patience:g} s ({error}) It may still run; `roadtest jobs logs "
                    f"{job_id} --follow` waits again, `roadtest status` asks the database."
                ) from error
        else:
            heard = time.monotonic()
            write(log[written:])
            written = max(written, len(log))
            if job.over:
                return job
        time.sleep(LOOK_SECONDS)


def outcome(job: Job) -> tuple[int, str]:
    """Exit code of a job's end, and a sentence where it is not the sweep's own.

    The code is the command's, whatever Ray's status says: a finished job was seen as FAILED after the head restarted.
    """
    if job.exit_code in (0, 1, 2, 3, 4):
        return job.exit_code, ""
    if job.exit_code == _NO_COMMAND:
        return 4, (
            "the head knows no command `roadtest`: put the folder of its virtual environment's commands on the PATH of "
            "`ray start`, and see that the wheel is installed in it."
        )
    if job.exit_code is not None:
        return 4, f"the coordinator ended with {job.exit_code}; what is done is kept, submitting again goes on."
    if job.status == "STOPPED":
        return 3, "the job was stopped; what is done is kept, submitting again goes on."
    said = job.message.strip().partition("\n")[0]
    return 4, (
        f"Ray did not see the job end ({job.status}: {said}). The database knows: `roadtest status`; "
        "submitting again goes on."
    )
