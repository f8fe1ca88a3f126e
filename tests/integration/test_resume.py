"""What was done is never done again: finished, overlapping and interrupted sweeps, one coordinator or two."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.coordinator import Coordinator
from orchestrator.enlist import enlist
from orchestrator.errors import RunError
from orchestrator.executors.local import LocalExecutor
from orchestrator.run import load_plan
from orchestrator.store import Session, Store, claims, open_store
from orchestrator.sweep import Sweep
from tests.runs import (
    SWEEP,
    Database,
    assert_same_results,
    command,
    deterministic,
    environment,
    executed_again,
    outcomes,
    run,
    select,
    write_sweep,
)

LOCAL = ("--executor", "local", "--workers", "2")
#: 8 routers with twins, 4 splits, and one slice of the embedding.
UNITS = 8 * 4 + 1


@pytest.fixture
def no_ray(tmp_path: Path) -> dict[str, str]:
    """An environment in which whoever imports ray fails."""
    trap = tmp_path / "trap" / "ray"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text("raise AssertionError('ray was imported')")
    return {"PYTHONPATH": str(trap.parent)}


@pytest.mark.slow
def test_a_finished_sweep_is_not_run_again_and_starts_no_ray(tmp_path: Path, no_ray: dict[str, str]) -> None:
    sweep = write_sweep(tmp_path)
    run(sweep, *LOCAL)
    assert outcomes(tmp_path) == {"done": UNITS}
    results = deterministic(tmp_path)

    run(sweep, "--executor", "ray", env=no_ray)

    assert outcomes(tmp_path) == {"done": UNITS}
    assert_same_results(tmp_path, results)


@pytest.mark.slow
def test_the_trap_for_ray_works(tmp_path: Path, no_ray: dict[str, str]) -> None:
    said = run(write_sweep(tmp_path), "--executor", "ray", env=no_ray, expect=4)
    assert "ray was imported" in said


@pytest.mark.slow
def test_an_overlapping_sweep_computes_only_what_is_new(tmp_path: Path) -> None:
    run(write_sweep(tmp_path, seeds=3), *LOCAL)
    before = set(select(tmp_path, "SELECT id, unit_id, finished_at FROM attempt"))

    # Another name, one more split, one more router under its own name, one that is known under another name.
    routers = [*SWEEP["routers"], "best-single", {"name": "ten-neighbours", "use": "knn", "k": 10}]
    run(write_sweep(tmp_path, name="other", routers=routers), *LOCAL)

    after = set(select(tmp_path, "SELECT id, unit_id, finished_at FROM attempt"))
    assert before < after
    assert executed_again(tmp_path) == []
    new = select(
        tmp_path,
        """SELECT u.router, u.seed, count(*) FROM attempt a JOIN unit u ON u.id = a.unit_id
           WHERE a.id > ? GROUP BY u.router, u.seed ORDER BY u.router, u.seed""",
        max(row[0] for row in before),
    )
    per_split = {"knn": 3, "linear": 2, "oracle": 1, "task-zero": 1, "zero-router": 1}
    fourth = [(router, 3, n) for router, n in per_split.items()]
    assert new == sorted([("best-single", seed, 1) for seed in range(4)] + fourth)
    shown = select(tmp_path, "SELECT count(*) FROM results WHERE sweep = 'other' AND router = 'ten-neighbours'")
    assert shown == [(4,)]


@pytest.mark.slow
def test_sigterm_hands_back_and_the_same_command_goes_on(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, seeds=16)  # much more than can be done in the time that a stop waits
    process = subprocess.Popen(
        command("run", sweep.name, "--no-report", *LOCAL), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    )
    _wait_for_one_of(tmp_path, "knn")
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)

    assert process.returncode == 3, said
    assert b"the same command goes on" in said
    states = dict(select(tmp_path, "SELECT state, count(*) FROM unit GROUP BY state"))
    assert set(states) == {"done", "ready"}
    assert select(tmp_path, "SELECT exit_code FROM coordinator") == [(3,)]

    run(sweep, *LOCAL)
    assert executed_again(tmp_path) == []
    assert outcomes(tmp_path)["done"] == 8 * 16 + 1


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """A database that is not there yet, or is empty."""
    return tmp_path if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


def _start(sweep: Path, database: Database) -> subprocess.Popen[bytes]:
    """A run with one thread."""
    env = environment(**({"ROADTEST_DB": database} if isinstance(database, str) else {}))
    options = ("--no-report", "--executor", "local", "--workers", "1")
    return subprocess.Popen(command("run", sweep.name, *options), cwd=sweep.parent, env=env, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_postgresql_survives_a_kill_and_holds_the_same_bits(postgres_url: str, tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path)
    process = _start(sweep, postgres_url)
    _wait_for_one_of(postgres_url, "knn")
    process.kill()
    process.communicate(timeout=60)
    unfinished = _start(sweep, postgres_url)
    assert unfinished.wait(timeout=300) == 0, unfinished.communicate()

    assert executed_again(postgres_url) == []
    assert outcomes(postgres_url)["lost"] > 0
    run(sweep, *LOCAL)
    assert_same_results(postgres_url, deterministic(tmp_path))


@pytest.fixture
def enlisted(tmp_path: Path) -> Iterator[tuple[Store, int]]:
    """A database with the small sweep's units, of which nobody has done any."""
    store = open_store(f"sqlite:///{tmp_path / 'roadtest.db'}")
    plan = load_plan(Sweep.from_dict(SWEEP), home=store.home)
    yield store, enlist(store, plan)
    store.close()


@pytest.mark.parametrize(
    ("slice_is", "left"),
    # Baselines need no embedding: 3 x 4 units. The other 20 can be claimed once the slice is done.
    [("ready", 1 + 12), ("running", 1 + 12), ("done", 12 + 20), ("failed", 12), ("quarantined", 12)],
)
def test_what_is_left_is_what_runs_or_can_be_claimed(enlisted: tuple[Store, int], slice_is: str, left: int) -> None:
    store, sweep = enlisted
    with store.begin() as session:
        session.run("UPDATE unit SET state = :s WHERE kind = 'embed'", s=slice_is)
        session.run(f"UPDATE unit SET lease_expires = {session.now} + 60 WHERE kind = 'embed'")
    with store.begin() as session:
        assert claims.anything_left(session, sweep) == (left > 0)
        assert len(_claimable(session, sweep)) + (slice_is == "running") == left


def test_nothing_is_left_when_only_what_waits_for_a_failed_slice_is(enlisted: tuple[Store, int]) -> None:
    store, sweep = enlisted
    with store.begin() as session:
        session.run("UPDATE unit SET state = 'failed' WHERE kind = 'embed'")
        session.run("UPDATE unit SET state = 'done' WHERE kind = 'evaluate' AND embedding IS NULL")
        assert not claims.anything_left(session, sweep)
        session.run("UPDATE unit SET state = 'done' WHERE kind = 'embed'")
        assert claims.anything_left(session, sweep)


def test_a_second_claim_of_one_unit_fences_the_first(enlisted: tuple[Store, int]) -> None:
    store, sweep = enlisted
    with store.begin() as session:
        for name in ("me", "you"):
            claims.register(session, name, sweep, "here")
        (first,) = claims.claim(session, sweep, "me", limit=1, lease=-1.0)  # a machine slept, and its lease ran out
        (other,) = claims.claim(session, sweep, "me", limit=1, lease=60.0)
        assert first["id"] != other["id"]  # its own work is not claimed again: it still does it
        (second,) = claims.claim(session, sweep, "you", limit=1, lease=60.0)
        assert first["id"] == second["id"]
        both = [(row["id"], row["epoch"]) for row in (first, second)]
        assert claims.settled(session, "me", both) == (set(), set())
        assert claims.settled(session, "you", both) == ({both[1]}, set())
        claims.release(session, "you")
        assert claims.settled(session, "you", both) == (set(), {both[1]})


def test_who_reads_holds_no_lock(enlisted: tuple[Store, int]) -> None:
    store, sweep = enlisted
    with store.read() as session:
        assert claims.counts(session, sweep)
        with closing(sqlite3.connect(str(store.path), timeout=0)) as other:
            other.execute("BEGIN IMMEDIATE")


def test_a_run_stops_when_its_sweep_is_given_another_file(enlisted: tuple[Store, int], tmp_path: Path) -> None:
    store, sweep = enlisted
    plan = load_plan(Sweep.from_dict({**SWEEP, "routers": ["oracle"]}), home=store.home)
    executor = LocalExecutor(1)
    coordinator = Coordinator(
        store=store, plan=plan, sweep_id=sweep, executor=executor, artifacts=str(tmp_path), environment_id=0
    )
    with pytest.raises(RunError, match="another specification"):
        coordinator.run()
    executor.close()
    assert select(tmp_path, "SELECT DISTINCT state FROM unit") == [("ready",)]


def _claimable(session: Session, sweep: int) -> list[Any]:
    claims.register(session, "someone", sweep, "here")
    return claims.claim(session, sweep, "someone", limit=1000, lease=60.0)


def _wait_for_one_of(database: Database, router: str) -> None:
    """Until one unit of a router is done."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            if select(database, f"SELECT 1 FROM unit WHERE state = 'done' AND router = '{router}'"):
                return
        except Exception as error:  # of either driver
            assert "unable to open" in str(error) or "unit" in str(error), error  # no file or no schema yet
        time.sleep(0.01)
    raise AssertionError("no unit was done in time")
