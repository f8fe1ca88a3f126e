"""Sweeps that are submitted: a real head with its Jobs API, and a PostgreSQL whose password only the head knows."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.cluster.head import Node, joined, ray_head
from tests.cluster.servers import postgres
from tests.postgres import free_port
from tests.runs import (
    assert_same_results,
    command,
    deterministic,
    environment,
    executed_again,
    outcomes,
    roadtest,
    run,
    select,
    write_plugin,
    write_sweep,
)

pytestmark = pytest.mark.slow
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)

#: Fits when a file is there, and fails when it says so: a sweep that is certainly still at work, or goes wrong.
GATED = '''
import time
from pathlib import Path

import numpy as np

from roadtest import Prediction, Router


class Gated(Router):
    """Waits for a file."""

    name = "gated"
    needs_embedding = False

    def __init__(self, *, gate=""):
        self.gate = gate

    def fit(self, train, rng):
        while not Path(self.gate).exists():
            time.sleep(0.05)
        if Path(self.gate).read_text() == "fail":
            raise RuntimeError("it was told to fail")
        scores, costs = train.outcomes
        self.scores_, self.costs_ = np.nanmean(scores, axis=0), np.nanmean(costs, axis=0)
        return self

    def predict(self, queries):
        shape = (queries.n, len(self.scores_))
        return Prediction(scores=np.broadcast_to(self.scores_, shape), costs=np.broadcast_to(self.costs_, shape))
'''


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A head, and the server whose password it has in its PGPASSFILE."""

    head: Node
    port: int
    #: The server's folder, with a socket that asks for no password.
    socket: str
    home: Path

    def database(self) -> tuple[str, str]:
        """An empty database: its URL for clients, and by the socket."""
        name = f"t{uuid4().hex[:12]}"
        inside = f"host={self.socket} port={self.port} user=roadtest dbname=postgres"
        with psycopg.connect(inside, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        return (
            f"postgresql+psycopg://roadtest@127.0.0.1:{self.port}/{name}",
            f"postgresql+psycopg://roadtest@/{name}?host={self.socket}&port={self.port}",
        )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port, home = free_port(), tmp_path_factory.mktemp("home")
    passwords = home / "pgpass"
    passwords.write_text(f"127.0.0.1:{port}:*:roadtest:only-the-head-knows\n")
    passwords.chmod(0o600)
    with tempfile.TemporaryDirectory(prefix="rt-pg-", dir="/tmp") as data:
        Path(data).chmod(0o755)
        with (
            postgres(Path(data), password="only-the-head-knows", address="127.0.0.1", port=port),
            ray_head(PGPASSFILE=str(passwords), ROADTEST_HOME=str(home)) as head,
        ):
            yield Cluster(head=head, port=port, socket=data, home=home)


def client(cluster: Cluster, *arguments: str | Path, cwd: Path, expect: int = 0) -> Any:
    """A command of a machine that knows the dashboard's address and no password."""
    variables = {"RAY_API_SERVER_ADDRESS": cluster.head.dashboard, "ROADTEST_HOME": str(cwd / "home")}
    return roadtest(*arguments, cwd=cwd, env=variables, expect=expect)


def jobs(cluster: Cluster, cwd: Path) -> dict[str, dict[str, Any]]:
    """`jobs list` by id."""
    return {row["id"]: row for row in json.loads(client(cluster, "jobs", "list", "--json", cwd=cwd).stdout)}


def until_claimed(inside: str) -> None:
    """Return when a unit is at work."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if select(inside, "SELECT 1 FROM unit WHERE kind = 'evaluate' AND state = 'running'"):
                return
        except psycopg.errors.UndefinedTable:
            pass
        time.sleep(0.1)
    raise AssertionError("nothing was claimed")


def gated_sweep(folder: Path) -> tuple[Path, Path, Path]:
    """A sweep that waits, its plug-in's folder, and the file that it waits for."""
    gate = folder / "gate"
    routers = ["zero-router", {"name": "gated", "gate": str(gate)}]
    sweep = write_sweep(folder, routers=routers, encoders=[], seeds=3)
    return sweep, write_plugin(folder / "plugins", "gated_router", GATED, gated="Gated"), gate


def test_a_submitted_sweep_gives_the_results_of_a_local_one(cluster: Cluster, tmp_path: Path) -> None:
    url, inside = cluster.database()
    sweep = write_sweep(tmp_path)
    ended = client(cluster, "submit", sweep, "--db", url, "--id", "first", "--wait", cwd=tmp_path)
    assert "evaluate: 32/32" in ended.stdout
    assert "roadtest report --sweep small" in ended.stderr

    run(sweep, "--executor", "local")
    assert_same_results(inside, deterministic(tmp_path))
    assert outcomes(inside) == {"done": 33}
    assert list((cluster.home / "logs").glob("small-*.log"))
    row = jobs(cluster, tmp_path)["first"]
    assert (row["sweep"], row["status"], row["exit_code"]) == ("small", "SUCCEEDED", 0)
    assert "evaluate: 32/32" in client(cluster, "jobs", "logs", "first", cwd=tmp_path).stdout

    again = ("submit", sweep, "--db", url, "--id", "first", "--wait")
    assert "ran already" in client(cluster, *again, cwd=tmp_path, expect=2).stderr
    assert "another sweep or other options" in client(cluster, *again, "--workers", "1", cwd=tmp_path, expect=2).stderr


def test_a_job_that_is_left_goes_on_and_one_that_is_stopped_hands_back(cluster: Cluster, tmp_path: Path) -> None:
    url, inside = cluster.database()
    sweep, plugins, gate = gated_sweep(tmp_path)
    arguments = ["submit", sweep, "--db", url, "--plugins", plugins, "--address", cluster.head.dashboard]
    client(cluster, *arguments, "--id", "left", cwd=tmp_path)
    until_claimed(inside)

    watching = subprocess.Popen(
        command(*arguments, "--id", "left", "--wait"), cwd=tmp_path, env=environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A shell that started the tests in the background made them ignore it, and what they start inherits that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert watching.stdout is not None
    assert "Running entrypoint" in "".join(watching.stdout.readline() for _ in range(2))
    watching.send_signal(signal.SIGINT)
    said = watching.communicate(timeout=60)[1]
    assert watching.returncode == 3
    assert "already running" in said
    assert "jobs stop left" in said
    assert jobs(cluster, tmp_path)["left"]["status"] == "RUNNING"
    assert not select(inside, "SELECT 1 FROM coordinator WHERE exit_code IS NOT NULL")

    client(cluster, "jobs", "stop", "left", "--wait", cwd=tmp_path)
    assert select(inside, "SELECT exit_code FROM coordinator") == [(3,)]
    assert not select(inside, "SELECT 1 FROM unit WHERE state = 'running'")
    client(cluster, "jobs", "logs", "left", "--follow", cwd=tmp_path, expect=3)

    gate.write_text("open")
    client(cluster, *arguments, "--id", "again", "--wait", cwd=tmp_path)
    assert select(inside, "SELECT DISTINCT state FROM unit") == [("done",)]
    assert executed_again(inside) == []


def test_waiting_ends_with_the_exit_code_of_the_sweep(cluster: Cluster, tmp_path: Path) -> None:
    url, _ = cluster.database()
    sweep, plugins, gate = gated_sweep(tmp_path)
    gate.write_text("fail")
    client(
        cluster, "submit", sweep, "--db", url, "--plugins", plugins, "--id", "fails", "--wait", cwd=tmp_path, expect=1
    )
    row = jobs(cluster, tmp_path)["fails"]
    assert (row["status"], row["exit_code"]) == ("FAILED", 1)
    client(cluster, "jobs", "logs", "fails", "--follow", cwd=tmp_path, expect=1)

    lost = url.rpartition("/")[0] + "/nowhere"
    ended = client(cluster, "submit", sweep, "--db", lost, "--plugins", plugins, "--wait", cwd=tmp_path, expect=2)
    assert 'database "nowhere" does not exist' in ended.stdout


def test_what_cannot_be_is_refused_before_anything_is_submitted(cluster: Cluster, tmp_path: Path) -> None:
    url, _ = cluster.database()
    before = jobs(cluster, tmp_path)
    sweep = write_sweep(tmp_path)
    for arguments, words in (
        (["--db", "sqlite:///here.db"], "PostgreSQL server that the head reaches"),
        ([], "PostgreSQL server that the head reaches"),
        (["--db", url, "--artifacts", "s3://key:secret@bucket"], "AWS_SECRET_ACCESS_KEY"),
        (["--db", url, "--id", "a b"], "is no --id"),
        (["--db", url, "--plugins", "nowhere"], "pip install --no-deps --target"),
    ):
        assert words in client(cluster, "submit", sweep, *arguments, cwd=tmp_path, expect=2).stderr
    wrong = write_sweep(tmp_path, routers=["knm"])
    assert "did you mean 'knn'?" in client(cluster, "submit", wrong, "--db", url, cwd=tmp_path, expect=2).stderr
    assert jobs(cluster, tmp_path) == before
    for verb in ("logs", "stop"):
        assert "no job 'nobody'" in client(cluster, "jobs", verb, "nobody", cwd=tmp_path, expect=2).stderr


def findings(shown: str) -> dict[tuple[str, str], dict[str, str]]:
    """Rows of `doctor --json` by node and check."""
    return {(row["node"], row["check"]): row for row in json.loads(shown)}


def test_doctor_asks_every_node(cluster: Cluster, tmp_path: Path) -> None:
    if FAKETIME is None:
        pytest.skip("no libfaketime: apt-get install libfaketime")
    url, inside = cluster.database()
    roadtest("db", "upgrade", "--db", inside, cwd=tmp_path)
    doctor = ("doctor", "--address", cluster.head.dashboard, "--db", url, "--json")
    found = findings(client(cluster, *doctor, cwd=tmp_path).stdout)
    assert {row["ok"] for row in found.values()} == {"yes"}
    assert "login works" in found["127.0.0.2", "database"]["detail"]
    assert "head" in found["127.0.0.2", "answers"]["detail"]

    sweep = write_sweep(tmp_path)
    # A node with another clock, another version of a package, and without the password.
    older = tmp_path / "older" / "numpy-1.0.dist-info"
    older.mkdir(parents=True)
    (older / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    with joined(
        cluster.head,
        "127.0.0.3",
        PYTHONPATH=str(older.parent),
        LD_PRELOAD=str(FAKETIME),
        FAKETIME="+30s",
    ) as other:
        found = findings(client(cluster, *doctor, cwd=tmp_path, expect=1).stdout)
        wrong = {check: row["detail"] for (node, check), row in found.items() if row["ok"] == "NO"}
        assert set(wrong) == {"versions", "clock"}
        assert "numpy 1.0 (here " in wrong["versions"]
        assert "NTP" in wrong["clock"]
        assert float(wrong["clock"].split()[0]) == pytest.approx(30, abs=1)
        assert "Only the head needs a login" in found["127.0.0.3", "database"]["detail"]

        ended = client(cluster, "submit", sweep, "--db", url, "--id", "two-nodes", "--wait", cwd=tmp_path, expect=2)
        assert "the cluster has 2 nodes" in ended.stdout
        for process in other.processes():
            process.suspend()
        try:
            ended = client(cluster, *doctor, "--timeout", "3", cwd=tmp_path, expect=1)
        finally:
            for process in other.processes():
                process.resume()
        assert findings(ended.stdout)["127.0.0.3", "answers"]["detail"] == "no answer within 3 s"
