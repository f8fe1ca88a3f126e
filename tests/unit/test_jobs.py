"""What may travel with a job, what its end means, and a dashboard that does not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator import jobs as module
from orchestrator.cluster import Job, Jobs
from orchestrator.errors import ClusterError, DatabaseError, RunError, SweepError
from orchestrator.jobs import Request, check_artifacts_url, database_for_jobs, database_of_node, follow, outcome, submit
from orchestrator.sweep import Sweep

URL = "postgresql+psycopg://me@host:5432/db"
JOB = Job(
    id="j", status="FAILED", over=True, exit_code=None, message="gone\nmore", metadata={}, started=None, ended=None
)


class Told:
    """A cluster that tells what it was told to, in order; the last for ever."""

    address = "http://told"

    def __init__(self, *answers: tuple[Job | None, str] | ClusterError) -> None:
        self.answers = list(answers)
        self.submitted: list[str] = []

    def find(self, job_id: str) -> Job | None:
        answer = self.answers[0]
        if isinstance(answer, ClusterError):
            if len(self.answers) > 1:
                self.answers.pop(0)
            raise answer
        return answer[0]

    def log(self, job_id: str) -> str:
        answer = self.answers[0]
        if len(self.answers) > 1:
            self.answers.pop(0)
        assert not isinstance(answer, ClusterError)
        return answer[1]

    def submit(self, job_id: str, command: str, folder: Path, **_: Any) -> None:
        raise ClusterError("the answer was lost")


@pytest.mark.parametrize(
    ("status", "exit_code", "expected", "said"),
    [
        ("SUCCEEDED", 0, 0, ""),
        ("FAILED", 0, 0, ""),  # Ray's word after the head restarted: the command's own code counts
        ("FAILED", 1, 1, ""),
        ("FAILED", 2, 2, ""),
        ("FAILED", 3, 3, ""),
        ("FAILED", 4, 4, ""),
        ("FAILED", 127, 4, "PATH of `ray start`"),
        ("FAILED", -9, 4, "ended with -9"),
        ("STOPPED", None, 3, "was stopped"),
        ("FAILED", None, 4, "FAILED: gone)"),
    ],
)
def test_the_end_of_a_job(status: str, exit_code: int | None, expected: int, said: str) -> None:
    code, reason = outcome(replace(JOB, status=status, exit_code=exit_code))
    assert code == expected
    assert said in reason
    assert bool(said) == bool(reason)


def test_the_database_that_travels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database_for_jobs("postgresql://me@host:5432/db") == URL
    monkeypatch.setenv("ROADTEST_DB", "postgres://me@host:5432/db")
    assert database_for_jobs(None) == URL
    monkeypatch.setenv("ROADTEST_DB", "postgresql://me:s3cret@host:5432/db")
    assert database_for_jobs(URL) == URL
    for carried in ("me:s3cret@host/db", "me@host/db?password=s3cret"):
        monkeypatch.setenv("ROADTEST_DB", f"postgresql://{carried}")
        with pytest.raises(DatabaseError, match="PGPASSFILE") as refused:
            database_for_jobs(None)
        assert "s3cret" not in str(refused.value)
    monkeypatch.delenv("ROADTEST_DB")
    for sqlite in (None, "sqlite:///r.db"):
        with pytest.raises(DatabaseError, match="PostgreSQL"):
            database_for_jobs(sqlite)


@pytest.mark.parametrize(
    ("own", "used"),
    [
        (None, URL),
        ("postgresql://me:s3cret@host:5432/db", None),
        ("postgresql://me@host:5432/db", None),
        ("postgresql://me:s3cret@host:5432/other", URL),
        ("postgresql://you:s3cret@host:5432/db", URL),
        ("sqlite:///r.db", URL),
    ],
)
def test_a_node_completes_the_url_with_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, used: str | None
) -> None:
    if own is not None:
        monkeypatch.setenv("ROADTEST_DB", own)
    assert database_of_node(URL) == used


def test_artefact_stores_that_travel() -> None:
    for url in ("s3://bucket/a@b", "/shared/artefacts", "gs://bucket"):
        assert check_artifacts_url(url) == url
    with pytest.raises(SweepError, match="AWS_SECRET_ACCESS_KEY") as refused:
        check_artifacts_url("ftp://me:s3cret@host/folder")
    assert "s3cret" not in str(refused.value)


@pytest.fixture
def request_of(folder: Path) -> Request:
    """A job to be."""
    (folder / "any.yaml").write_text("routers: [random]\n")
    sweep = Sweep.from_dict({"name": "s", "benchmarks": ["toolbox"], "routers": ["random"]})
    return Request(id="j", sweep=sweep, file=folder / "any.yaml", database=URL, artifacts="/a b/$c", workers=2)


def test_the_command_is_safe_in_a_shell(request_of: Request) -> None:
    assert request_of.command == f"exec roadtest jobs drive s.yaml --db {URL} --artifacts '/a b/$c' --workers 2"


def test_a_lost_answer_is_told_by_the_id(request_of: Request, tmp_path_factory: pytest.TempPathFactory) -> None:
    packed = tmp_path_factory.mktemp("packed")
    content = module._pack(request_of, packed)
    assert [path.name for path in packed.iterdir()] == ["s.yaml"]
    running = replace(JOB, status="RUNNING", over=False, metadata={"roadtest_content": content})
    assert submit(Told((running, "")), request_of) is False  # type: ignore[arg-type]
    for known, words in (
        (None, "answer was lost"),
        (replace(running, over=True, status="STOPPED"), r"ran already \(STOPPED\)"),
        (replace(running, metadata={}), "another sweep or other options"),
    ):
        with pytest.raises(ClusterError, match=words):
            submit(Told((known, "")), request_of)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match="other options"):
        submit(Told((running, "")), replace(request_of, workers=1))  # type: ignore[arg-type]
    request_of.file.write_text("routers: [oracle]\n")
    with pytest.raises(ClusterError, match="another sweep"):
        submit(Told((running, "")), request_of)  # type: ignore[arg-type]
    with pytest.raises(SweepError, match="--id"):
        submit(Told(), replace(request_of, id="../x"))  # type: ignore[arg-type]


def test_following_writes_each_line_once_and_outlives_a_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    running, away = replace(JOB, over=False), ClusterError("away")
    told = Told(
        (running, "a\n"), (running, "a\n"), (running, "a\nb\n"), away, away, (running, "a\nb\nc"), (JOB, "a\nb\nc\n")
    )
    written: list[str] = []
    assert follow(told, "j", written.append) == JOB  # type: ignore[arg-type]
    assert "".join(written) == "a\nb\nc\n"
    with pytest.raises(RunError, match="logs j --follow"):
        follow(Told((running, ""), (running, ""), away), "j", written.append, patience=0)  # type: ignore[arg-type]
    with pytest.raises(ClusterError, match="jobs list"):
        follow(Told((None, "")), "j", written.append)  # type: ignore[arg-type]


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_dashboard_that_does_not_answer(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    with pytest.raises(ClusterError, match="does not serve this request") as refused:
        Jobs(silent, timeout=0.2)
    assert silent in str(refused.value)
    for address in ("127.0.0.1:6379", "ray://head:10001", "auto", "http://me:s3cret@head:8265"):
        with pytest.raises(ClusterError, match="http://HEAD:8265") as refused:
            Jobs(address)
        assert "s3cret" not in str(refused.value)
