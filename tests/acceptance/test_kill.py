"""Kill a run at any moment: the same command finishes the rest, and nothing tells that it was ever killed.

Six kills by default; ROADTEST_KILLS=20 does them all. Each prints its seed, moment and what had been done.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runs import (
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

#: Phase of the run, signal, executor; the first six meet every phase, both signals and both executors.
KILLS = [
    ("evaluating", signal.SIGKILL, "ray"),
    ("planning", signal.SIGINT, "local"),
    ("committing", signal.SIGKILL, "local"),
    ("embedding", signal.SIGKILL, "local"),
    ("evaluating", signal.SIGINT, "local"),
    ("embedding", signal.SIGINT, "ray"),
    ("planning", signal.SIGKILL, "local"),
    ("evaluating", signal.SIGKILL, "local"),
    ("committing", signal.SIGINT, "local"),
    ("embedding", signal.SIGINT, "local"),
    ("planning", signal.SIGKILL, "ray"),
    ("committing", signal.SIGKILL, "ray"),
    ("evaluating", signal.SIGINT, "ray"),
    ("committing", signal.SIGKILL, "local"),
    ("evaluating", signal.SIGKILL, "local"),
    ("planning", signal.SIGINT, "ray"),
    ("embedding", signal.SIGKILL, "ray"),
    ("committing", signal.SIGINT, "ray"),
    ("planning", signal.SIGINT, "local"),
    ("evaluating", signal.SIGKILL, "local"),
]
N = int(os.environ.get("ROADTEST_KILLS", "6"))
EMBED_SLICES, EVALUATE_UNITS = 1, 32
#: Seconds in which a killed driver's workers and daemons notice it.
ORPHANS_GONE = 60
#: Two agents of Ray first spend over a minute on reporting to a control store that is gone too (seen with 2.60).
SLOW_TO_GO = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(write_sweep(folder), "--executor", "local", "--workers", "1")
    return deterministic(folder)


@dataclass(frozen=True)
class Watched:
    """A run that is watched from outside, by its database."""

    folder: Path
    process: subprocess.Popen[bytes]

    def done(self, kind: str) -> int:
        """Finished units of a kind; -1 before the units are in the database."""
        try:
            rows = select(
                self.folder, "SELECT count(*), coalesce(sum(state = 'done'), 0) FROM unit WHERE kind = ?", kind
            )
        except sqlite3.OperationalError:
            return -1  # no file or no schema yet
        return rows[0][1] if rows[0][0] else -1

    def wal(self) -> float:
        """Changes with every commit."""
        with suppress(FileNotFoundError):
            return (self.folder / "roadtest.db-wal").stat().st_mtime_ns
        return 0.0

    def wait(self, phase: str, rng: random.Random) -> None:
        """Return at a random moment of the phase."""
        if phase == "planning":
            self._until(lambda: self.done("embed") >= 0, at_most=rng.uniform(0.2, 2.5))
        elif phase == "embedding":
            self._until(lambda: self.done("embed") >= 0)
            self._until(lambda: self.done("embed") >= EMBED_SLICES, at_most=rng.uniform(0.0, 0.5))
        elif phase == "evaluating":
            self._until(lambda: self.done("embed") >= EMBED_SLICES)
            share = rng.random()
            self._until(lambda: self.done("evaluate") >= share * EVALUATE_UNITS)
            time.sleep(rng.uniform(0.0, 0.3))
        else:
            self._until(lambda: self.done("embed") >= EMBED_SLICES)
            for _ in range(rng.randint(1, 4)):  # the very moment when the log of writes grows
                before = self.wal()
                self._until(lambda before=before: self.wal() != before, nap=0.0)

    def _until(self, reached: Any, *, at_most: float = 120.0, nap: float = 0.002) -> None:
        end = time.monotonic() + at_most
        while self.process.poll() is None and time.monotonic() < end and not reached():
            time.sleep(nap)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(N))
def test_a_killed_run_is_finished_by_the_same_command(
    number: int, undisturbed: dict[str, list[tuple[Any, ...]]], tmp_path: Path
) -> None:
    phase, signum, executor = KILLS[number % len(KILLS)]
    rng = random.Random(number)
    sweep = write_sweep(tmp_path)
    options = ("--executor", executor, "--workers", "2")
    with (tmp_path / "killed.txt").open("wb") as said:
        process = subprocess.Popen(
            command("run", sweep.name, "--no-report", *options),
            cwd=tmp_path,
            env=environment(),
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        watched = Watched(tmp_path, process)
        watched.wait(phase, rng)
        family = _descendants(process.pid)
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # as a terminal does: the workers get it too
        else:
            process.send_signal(signum)
        code = process.wait(timeout=60)
    before = (watched.done("embed"), watched.done("evaluate"))
    sys.stdout.write(f"kill {number}: seed {number}, {phase}, {signum.name}, {executor}: exit {code}, done {before}\n")
    assert code in {-signum, 3, 0}, (tmp_path / "killed.txt").read_text()
    if signum == signal.SIGINT and before[0] >= 0 and code == 3:
        assert select(tmp_path, "SELECT * FROM unit WHERE state = 'running'") == []
    until = time.monotonic() + ORPHANS_GONE
    while (alive := [each for each in family if _stays(each)]) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive, f"left behind: {alive}"

    run(sweep, *options)

    assert executed_again(tmp_path) == []
    assert outcomes(tmp_path)["done"] == EMBED_SLICES + EVALUATE_UNITS
    assert_same_results(tmp_path, undisturbed)
    assert select(tmp_path, "PRAGMA integrity_check") == [("ok",)]


def _descendants(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def _stays(process: psutil.Process) -> bool:
    """Whether it is there and not known to be slow; an agent has its name only once it is at work."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and psutil.Process(process.pid).name() not in SLOW_TO_GO
    return False
