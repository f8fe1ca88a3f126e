"""Several coordinators on one sweep, one that takes it over, and one that loses its database for a moment."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from orchestrator.enlist import enlist
from orchestrator.errors import RunError
from orchestrator.run import load_plan
from orchestrator.store import Session, Store, claims, open_store, registry, results
from orchestrator.store.results import Finished
from orchestrator.sweep import Sweep
from tests.runs import SWEEP, Database, command, environment, outcomes, select, write_plugin, write_sweep
from workers.units import UnitFailure


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database that is not there yet, or is empty."""
    return tmp_path if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def start(sweep: Path, database: Database, *options: str, **more: str) -> subprocess.Popen[bytes]:
    """A run with one thread, and more environment."""
    env = environment(**({"ROADTEST_DB": database} if isinstance(database, str) else {}), **more)
    every = ("--no-report", "--executor", "local", "--workers", "1", *options)
    return subprocess.Popen(command("run", sweep.name, *every), cwd=sweep.parent, env=env, stderr=subprocess.PIPE)


#: A router that begins when as many processes as wanted have got one, and then takes a tenth of a second.
PATIENT = '''
import os
import time
from pathlib import Path

import numpy as np

from roadtest import Prediction, Router


class Patient(Router):
    """Waits for the others."""

    name = "patient"
    needs_embedding = False

    def __init__(self, *, folder="", n=1):
        self.folder, self.n = folder, n

    def fit(self, train, rng):
        folder = Path(self.folder)
        (folder / f"{os.getpid()}.here").touch()
        end = time.monotonic() + 60
        while len(list(folder.glob("*.here"))) < self.n and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.1)
        scores, costs = train.outcomes
        self.scores_, self.costs_ = np.nanmean(scores, axis=0), np.nanmean(costs, axis=0)
        return self

    def predict(self, queries):
        shape = (queries.n, len(self.scores_))
        return Prediction(scores=np.broadcast_to(self.scores_, shape), costs=np.broadcast_to(self.costs_, shape))
'''


@pytest.mark.slow
def test_coordinators_share_a_sweep_and_compute_every_unit_once(database: Database, tmp_path: Path) -> None:
    n, seeds = 3, 90
    patient = {"name": "patient", "folder": str(tmp_path), "n": n}
    sweep = write_sweep(tmp_path, encoders=[], routers=[patient], seeds=seeds, protocol={"bootstrap": 0})
    plugin = write_plugin(tmp_path / "plugin", "patient", PATIENT, patient="Patient")
    # At once: all want to make the schema.
    together = [start(sweep, database, PYTHONPATH=str(plugin)) for _ in range(n)]
    said = [process.communicate(timeout=300)[1] for process in together]

    assert [process.returncode for process in together] == [0] * n, said
    assert outcomes(database) == {"done": seeds}
    assert select(database, "SELECT unit_id FROM attempt GROUP BY unit_id HAVING count(*) > 1") == []
    shares = [share for (share,) in select(database, "SELECT count(*) FROM attempt GROUP BY coordinator_id")]
    assert len(shares) == n
    assert min(shares) >= 15, "a coordinator got less than half of its fair share"


@pytest.mark.slow
def test_a_run_that_takes_over_ends_the_other_and_no_unit_is_done_twice(database: Database, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, seeds=16)
    first = start(sweep, database)
    end = time.monotonic() + 120
    while time.monotonic() < end:
        with suppress(Exception):  # neither a file nor a table yet
            if select(database, "SELECT 1 FROM unit WHERE kind = 'evaluate' AND state = 'done'"):
                break
        time.sleep(0.02)
    second = start(sweep, database, "--takeover")
    said = [process.communicate(timeout=300)[1].decode() for process in (first, second)]

    assert (first.returncode, second.returncode) == (4, 0), said
    assert "another run took this sweep over" in said[0]
    assert "Traceback" not in said[0]
    assert select(database, "SELECT DISTINCT state FROM unit") == [("done",)]
    twice = "SELECT unit_id FROM attempt WHERE outcome = 'done' GROUP BY unit_id HAVING count(*) > 1"
    assert select(database, twice) == []


@pytest.fixture
def enlisted(url: str) -> Iterator[tuple[Store, int]]:
    """A database with the small sweep's units, of which nobody has done any."""
    store = open_store(url)
    store.running = True
    yield store, enlist(store, load_plan(Sweep.from_dict(SWEEP), home=store.home))
    store.close()


def failure(key: str) -> UnitFailure:
    return UnitFailure(key=key, kind="exception", message="it broke")


def test_recording_the_same_again_changes_nothing(enlisted: tuple[Store, int]) -> None:
    """As when the connection goes down with the commit: nobody knows whether it went through."""
    store, sweep = enlisted
    store.transact(lambda session: claims.register(session, "me", sweep, "here"))
    (row,) = store.transact(lambda session: claims.claim(session, sweep, "me", limit=1, lease=60.0))
    finished = [Finished(unit_id=row["id"], epoch=row["epoch"], result=failure(row["key"]), alone=True)]

    states = [
        store.transact(lambda session: results.record(session, "me", finished, environment_id=0)) for _ in range(3)
    ]

    assert states == [["ready"], [None], [None]]
    assert store.query(lambda session: session.rows("SELECT outcome FROM attempt")) == [{"outcome": "failed"}]
    counted = store.query(lambda session: session.one("SELECT n_failures FROM unit WHERE id = :u", u=row["id"]))
    assert counted == 1


def test_claims_that_were_committed_unseen_are_found(enlisted: tuple[Store, int]) -> None:
    store, sweep = enlisted
    store.transact(lambda session: claims.register(session, "me", sweep, "here"))
    seen = store.transact(lambda session: claims.claim(session, sweep, "me", limit=2, lease=60.0))
    unseen = store.transact(lambda session: claims.claim(session, sweep, "me", limit=3, lease=60.0))

    found = store.query(lambda session: claims.forgotten(session, "me", {row["id"] for row in seen}))

    assert [(row["id"], row["position"], row["epoch"]) for row in found] == [
        (row["id"], row["position"], row["epoch"]) for row in unseen
    ]


def test_a_coordinator_that_was_taken_over_can_neither_claim_nor_beat(enlisted: tuple[Store, int]) -> None:
    store, sweep = enlisted
    for name in ("old", "new"):
        store.transact(lambda session, name=name: claims.register(session, name, sweep, "here"))  # type: ignore[misc]
    store.transact(lambda session: claims.claim(session, sweep, "old", limit=3, lease=60.0))

    assert store.transact(lambda session: claims.take_over(session, sweep, "new")) == 1

    for refused in (
        lambda session: claims.claim(session, sweep, "old", limit=1, lease=60.0),
        lambda session: claims.beat(session, "old", lease=60.0),
    ):
        with pytest.raises(RunError, match="took this sweep over"):
            store.transact(refused)
    again = store.transact(lambda session: claims.claim(session, sweep, "new", limit=3, lease=60.0))
    assert [row["epoch"] for row in again] == [2, 2, 2]


class Cut:
    """Work whose connection is cut from outside before its first `times` commits."""

    def __init__(self, url: str, times: int) -> None:
        self.url, self.times, self.calls = url.replace("+psycopg", ""), times, 0

    def __call__(self, session: Session) -> int:
        import psycopg

        self.calls += 1
        session.run("UPDATE unit SET n_failures = n_failures + 1")
        if self.calls <= self.times:
            with psycopg.connect(self.url, autocommit=True) as other:
                pid = session.one("SELECT pg_backend_pid()")
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        registry.put_event(session, "cut", "it went through")
        return int(session.one("SELECT max(n_failures) FROM unit"))


def test_a_lost_connection_is_made_again_and_nothing_is_done_twice(postgres_url: str, tmp_path: Path) -> None:
    store = open_store(postgres_url)
    store.running = True
    enlist(store, load_plan(Sweep.from_dict(SWEEP), home=tmp_path))
    work = Cut(postgres_url, times=2)
    assert store.transact(work) == 1
    assert work.calls == 3
    assert store.query(lambda session: session.rows("SELECT message FROM event WHERE kind = 'cut'")) == [
        {"message": "it went through"}
    ]
    store.reconnect_seconds = 0.5
    with pytest.raises(RunError, match="terminating connection"):
        store.transact(Cut(postgres_url, times=1000))
    store.close()


def test_a_wrong_statement_is_not_tried_again(enlisted: tuple[Store, int]) -> None:
    store, _ = enlisted
    calls: list[int] = []

    def wrong(session: Session) -> None:
        calls.append(1)
        session.run("UPDATE unit SET state = 'no such state'")

    with pytest.raises(RunError, match="state_is_known"):
        store.transact(wrong)
    assert calls == [1]
