"""What does a sweep of a million units cost before any of them is computed, and what does going on with one cost?

    python -m tests.benchmarks.scale --units 1000000 --finished 100000

Every command runs in a process of its own; seconds and the peak resident set are what the operating system counted for
it. Units are never computed: those that shall be finished get a made-up result by SQL.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import create_engine, text

from tests.runs import command, environment

SEEDS = 20
#: `toolbox` has six tasks, evaluated one by one and together.
BENCHMARKS = 7

ENLIST = """
import sys
from pathlib import Path
from orchestrator.enlist import enlist
from orchestrator.run import load_plan
from orchestrator.store import open_store
from orchestrator.sweep import Sweep
store = open_store(sys.argv[1])
enlist(store, load_plan(Sweep.from_yaml(sys.argv[2]), home=Path("home")))
store.close()
"""
#: `roadtest run`, with the second of each stage's end told on stderr; ends after the first claim.
CLAIM = """
import functools, json, os, sys, time
import psutil
began = psutil.Process().create_time()
marks = {}
def marked(name, work, last=False):
    @functools.wraps(work)
    def wrapped(*given, **named):
        found = work(*given, **named)
        if name not in marks:
            marks[name] = time.time() - began, time.process_time()
        if last:
            assert found, "nothing was claimed"
            sys.stderr.write("MARKS " + json.dumps(marks) + chr(10))
            sys.stderr.flush()
            os._exit(0)
        return found
    return wrapped
import orchestrator.run, orchestrator.store
from orchestrator.cli import main
from orchestrator.store import claims, registry
from orchestrator.sweep import Sweep
marks["import"] = time.time() - began, time.process_time()
Sweep.from_yaml = marked("read the sweep file", Sweep.from_yaml)
orchestrator.run.load_plan = marked("load benchmarks, plan", orchestrator.run.load_plan)
orchestrator.store.open_store = marked("open the database", orchestrator.store.open_store)
orchestrator.run.enlist = marked("enlist", orchestrator.run.enlist)
claims.claim = marked("coordinator, first claim", claims.claim, last=True)
sys.argv[:1] = ["roadtest"]
main()
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one process took."""

    seconds: float
    #: Seconds of processor time.
    busy: float
    #: Bytes.
    peak: int
    stderr: str


def measured(arguments: Sequence[str], folder: Path, *, out: Path | None = None) -> Cost:
    """Run a command to its end; what it prints goes to a file."""
    target = out or folder / "stdout"
    begin = time.perf_counter()
    with target.open("w") as stdout, (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(arguments, cwd=folder, env=environment(), stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)  # the only call that tells one child's peak
    process.returncode = os.waitstatus_to_exitcode(status)
    said = (folder / "stderr").read_text()
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments[-4:])} ended with {process.returncode}:\n{said}")
    return Cost(
        seconds=time.perf_counter() - begin,
        busy=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss * 1024,
        stderr=said,
    )


def write_sweep(path: Path, n_units: int, *, more: int = 0) -> int:
    """Write a sweep of at least so many units, and `more` routers at its end; return the number of units."""
    n_routers = -(-n_units // (SEEDS * BENCHMARKS)) + more
    routers = [{"name": f"ridge-{i}", "use": "linear", "penalty": 1 + i / 64} for i in range(n_routers)]
    sweep: dict[str, Any] = {
        "name": "large",
        "benchmarks": [{"name": "toolbox", "tasks": "each+all"}],
        "encoders": ["hash-ngrams"],
        "routers": routers,
        "seeds": SEEDS,
    }
    path.write_text(yaml.dump(sweep, Dumper=yaml.CSafeDumper, sort_keys=False))
    return n_routers * SEEDS * BENCHMARKS


def finish(url: str, *, but: int) -> None:
    """Give every evaluation but the last so many a made-up result of the usual size."""
    sqlite = url.startswith("sqlite")
    blob = "zeroblob(1600)" if sqlite else "decode(repeat('00', 1600), 'hex')"
    digest = "lower(hex(randomblob(32)))" if sqlite else "md5(key) || md5(spec)"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO environment (digest, facts, created_at) VALUES ('made up', '{}', 0) ON CONFLICT DO NOTHING"
            )
        )
        environment_id = connection.execute(text("SELECT max(id) FROM environment")).scalar()
        left = connection.execute(
            text("SELECT min(p) FROM (SELECT position AS p FROM sweep_unit ORDER BY position DESC LIMIT :n) x"),
            {"n": max(but, 1)},
        ).scalar()
        connection.execute(
            text(
                f"""UPDATE unit SET state = 'done', n_train = 1, n_validation = 1, n_test = 1, seconds = 0.01,
                    bootstrap = {blob}, result_digest = {digest}, finished_at = 1, environment_id = :e
                    WHERE kind = 'evaluate' AND state = 'ready'
                    AND id IN (SELECT unit_id FROM sweep_unit WHERE position < :left OR :but = 0)"""
            ),
            {"e": environment_id, "left": left, "but": but},
        )
    engine.dispose()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--units", type=int, default=1_000_000)
    parser.add_argument("--finished", type=int, default=100_000)
    parser.add_argument("--db", help="URL of an empty PostgreSQL database; default: SQLite files")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt-scale-") as name:
        folder = Path(name)
        if asked.units:
            large(folder, asked.db or f"sqlite:///{folder}/large.db", asked.units)
        if asked.finished:
            resume(folder, asked.db or f"sqlite:///{folder}/resume.db", asked.finished)


def large(folder: Path, url: str, n_units: int) -> None:
    """Plan, enlist and look at a large sweep."""
    n = write_sweep(folder / "large.yaml", n_units)
    _say(f"\n{n} units\n{'command':<42}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}\n")
    explained = folder / "explained.json"
    enlist = [sys.executable, "-c", ENLIST, url, "large.yaml"]
    plan = command("plan", "large.yaml", "--db", url)
    _row("plan, no database", measured(plan, folder) if url.startswith("sqlite") else None)
    _row("enlist (what `run` does first)", measured(enlist, folder))
    _row("enlist again, nothing changed", measured(enlist, folder))
    finish(url, but=n // 2)
    _row("plan, half of it done", measured(plan, folder))
    _row("plan --explain --json, half of it done", measured([*plan, "--explain", "--json"], folder, out=explained))
    with explained.open() as lines:
        found = sum(1 for line in lines if line.startswith('    "unit": "u1:'))
    assert found >= n, f"{found} of {n} units explained"
    _row("plan --explain, half of it done", measured([*plan, "--explain"], folder))
    _row("status", measured(command("status", "--db", url), folder))


def resume(folder: Path, url: str, n_units: int) -> None:
    """Go on with a sweep of which nearly everything is done, up to the first claim."""
    write_sweep(folder / "resume.yaml", n_units)
    # The embedding is made for real, by a sweep with one router.
    write_sweep(folder / "first.yaml", 1)
    run = ("--executor", "local", "--workers", "1", "--no-report", "--db", url)
    subprocess.run(command("run", "first.yaml", *run), cwd=folder, env=environment(), check=True, capture_output=True)
    measured([sys.executable, "-c", ENLIST, url, "resume.yaml"], folder)
    finish(url, but=1)
    claim = [sys.executable, "-c", CLAIM, "run"]
    _stages("one unit left, the same sweep file", measured([*claim, "resume.yaml", *run], folder))
    release(url)
    finish(url, but=0)
    write_sweep(folder / "more.yaml", n_units, more=1)
    _stages("all done, and a router more", measured([*claim, "more.yaml", *run], folder))


def release(url: str) -> None:
    """Make the unit of the run that was cut off ready again."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE unit SET state = 'ready', coordinator_id = NULL WHERE state = 'running'"))
    engine.dispose()


def _stages(name: str, cost: Cost) -> None:
    [line] = [line for line in cost.stderr.splitlines() if line.startswith("MARKS ")]
    marks = sorted(json.loads(line.removeprefix("MARKS ")).items(), key=lambda mark: mark[1])
    wall, busy = marks[-1][1]
    _say(f"\n{name:<40}{'wall s':>9}{'CPU s':>9}\n{'process start to first claim':<40}{wall:>9.2f}{busy:>9.2f}\n")
    before = (0.0, 0.0)
    for stage, at in marks:
        _say(f"  {stage:<38}{at[0] - before[0]:>9.2f}{at[1] - before[1]:>9.2f}\n")
        before = at


def _row(name: str, cost: Cost | None) -> None:
    if cost is not None:
        _say(f"{name:<42}{cost.seconds:>9.1f}{cost.busy:>9.1f}{cost.peak / 1e6:>9.0f}\n")


def _say(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
