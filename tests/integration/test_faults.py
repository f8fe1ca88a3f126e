"""What goes wrong with one unit stays with that unit: exceptions, dying workers, damaged artefacts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runs import (
    assert_same_results,
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
from workers.benchmarks.load import load_benchmark
from workers.splits import split_benchmark

LOCAL = ("--executor", "local", "--workers", "2")
SEEDS = 6

FRAGILE = '''
import os
import sys
from pathlib import Path

import numpy as np

from roadtest import Prediction, Router


class Odd(Exception):
    """Cannot be unpickled: its constructor wants more than it hands on."""

    def __init__(self, what, why):
        super().__init__(f"{what} because {why}")


class Fragile(Router):
    """Goes wrong where a query is not among the training queries, as long as a file is there."""

    name = "fragile"
    needs_embedding = False

    def __init__(self, *, row=0, how="raise", trap=""):
        self.row, self.how, self.trap = row, how, trap

    def fit(self, train, rng):
        if self.row not in train.rows and Path(self.trap).exists():
            if self.how == "die":
                os._exit(17)
            if self.how == "leave":
                sys.exit("the router left")
            raise Odd("it broke", "it was told to")
        scores, costs = train.outcomes
        self.scores_, self.costs_ = np.nanmean(scores, axis=0), np.nanmean(costs, axis=0)
        return self

    def predict(self, queries):
        shape = (queries.n, len(self.scores_))
        return Prediction(scores=np.broadcast_to(self.scores_, shape), costs=np.broadcast_to(self.costs_, shape))
'''

#: `roadtest run` with a pace of its own: arguments are sweep file, workers and pace as JSON.
PACED = """
import json, sys
from orchestrator.shards import Pace
from orchestrator.run import load_plan, run_plan
from orchestrator.store import open_store
from orchestrator.sweep import Sweep
store = open_store()
plan = load_plan(Sweep.from_yaml(sys.argv[1]), home=store.home)
pace = Pace(**json.loads(sys.argv[3]))
sys.exit(run_plan(store, plan, executor="ray", workers=int(sys.argv[2]), pace=pace).exit_code)
"""


def one_split() -> tuple[int, int]:
    """A query that exactly one of the splits does not train on, and that split."""
    benchmark = load_benchmark("toolbox").restrict(n_queries=400)
    for row in range(benchmark.n_queries):
        without = [seed for seed in range(SEEDS) if row not in split_benchmark(benchmark, seed).train]
        if len(without) == 1:
            return row, without[0]
    raise AssertionError("no such query")


def fragile(folder: Path, **ways: str) -> tuple[Path, dict[str, str], int]:
    """A sweep of fragile routers (name to way of going wrong), its environment, and the split that goes wrong."""
    row, split = one_split()
    trap = folder / "trap"
    trap.touch()
    told = {"use": "fragile", "row": row, "trap": str(trap)}
    routers = [{"name": name, "how": how, **told} for name, how in ways.items()]
    sweep = write_sweep(folder, encoders=[], routers=["zero-router", *routers], seeds=SEEDS)
    return sweep, {"PYTHONPATH": str(write_plugin(folder / "plugin", "fragile", FRAGILE, fragile="Fragile"))}, split


def states(folder: Path) -> dict[tuple[str, int], str]:
    """State of each unit by display name and split."""
    rows = select(folder, "SELECT su.router, u.seed, u.state FROM sweep_unit su JOIN unit u ON u.id = su.unit_id")
    return {(router, seed): state for router, seed, state in rows}


@pytest.mark.slow
def test_a_router_that_raises_fails_alone_after_three_attempts_and_can_be_retried(tmp_path: Path) -> None:
    sweep, env, split = fragile(tmp_path, broken="raise", leaving="leave")

    run(sweep, *LOCAL, env=env, expect=1)

    wrong = {("broken", split), ("leaving", split)}
    assert {unit for unit, state in states(tmp_path).items() if state == "failed"} == wrong
    assert {state for unit, state in states(tmp_path).items() if unit not in wrong} == {"done"}
    failures = select(tmp_path, "SELECT router, seed, error_kind, message, attempts FROM failures ORDER BY router")
    assert failures == [
        ("broken", split, "exception", "it broke because it was told to", 3),
        ("leaving", split, "exception", "the router left", 3),
    ]
    assert outcomes(tmp_path) == {"done": 3 * SEEDS - 2, "failed": 2 * 3}
    traces = {trace for (trace,) in select(tmp_path, "SELECT traceback FROM attempt WHERE outcome = 'failed'")}
    assert all("in fit" in trace for trace in traces)

    run(sweep, *LOCAL, env=env, expect=1)  # given up is given up
    assert outcomes(tmp_path)["failed"] == 2 * 3

    (tmp_path / "trap").unlink()
    assert roadtest("retry", cwd=tmp_path, env=env).stdout.startswith("2 units are ready again")
    run(sweep, *LOCAL, env=env)
    assert set(states(tmp_path).values()) == {"done"}
    assert executed_again(tmp_path) == []


@pytest.mark.slow
def test_a_router_that_kills_its_worker_is_found_by_halving_and_quarantined(tmp_path: Path) -> None:
    sweep, env, split = fragile(tmp_path, deadly="die", odd="raise")

    run(sweep, "--executor", "ray", "--workers", "2", env=env, expect=1)

    _only_the_culprit_suffers(tmp_path, split)
    odd = select(tmp_path, "SELECT error_kind, message, attempts FROM failures WHERE router = 'odd'")
    assert odd == [("exception", "it broke because it was told to", 3)]


@pytest.mark.slow
def test_units_that_wait_behind_a_deadly_one_are_not_blamed(tmp_path: Path) -> None:
    sweep, env, split = fragile(tmp_path, deadly="die")

    arguments = [sys.executable, "-c", PACED, sweep.name, "1", json.dumps({"shard_units": 1})]
    ended = subprocess.run(arguments, cwd=tmp_path, env=environment(**env), capture_output=True, text=True, timeout=300)

    assert ended.returncode == 1, ended.stderr
    _only_the_culprit_suffers(tmp_path, split)


def _only_the_culprit_suffers(folder: Path, split: int) -> None:
    wrong = {unit: state for unit, state in states(folder).items() if state not in ("done", "failed")}
    assert wrong == {("deadly", split): "quarantined"}
    deaths = select(
        folder,
        """SELECT su.router, u.seed, u.n_deaths, count(*) FROM attempt a JOIN unit u ON u.id = a.unit_id
           JOIN sweep_unit su ON su.unit_id = u.id WHERE a.error_kind = 'worker_death' GROUP BY su.router, u.seed""",
    )
    assert deaths == [("deadly", split, 3, 3)]
    assert select(folder, "SELECT max(n_deaths) FROM unit WHERE state <> 'quarantined'") == [(0,)]


ROUTERS = ["zero-router", {"name": "knn@10", "use": "knn", "k": 10}]


@pytest.fixture(scope="module")
def two_splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the sweep has been run with two splits."""
    folder = tmp_path_factory.mktemp("two-splits")
    run(write_sweep(folder, routers=ROUTERS, seeds=2), *LOCAL)
    return folder


@pytest.fixture(scope="module")
def four_splits(two_splits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """Results of four splits, undisturbed."""
    folder = shutil.copytree(two_splits, tmp_path_factory.mktemp("four-splits") / "sweep")
    run(write_sweep(folder, routers=ROUTERS, seeds=4), *LOCAL)
    return deterministic(folder)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["missing", "truncated", "other bytes", "no manifest"])
def test_a_damaged_artefact_is_noticed_and_embedded_again(
    damage: str, two_splits: Path, four_splits: dict[str, list[tuple[Any, ...]]], tmp_path: Path
) -> None:
    folder = shutil.copytree(two_splits, tmp_path / "sweep")
    (rows,) = (folder / ".roadtest" / "artifacts").rglob("*.npy")
    if damage == "missing":
        rows.unlink()
    elif damage == "truncated":
        rows.write_bytes(rows.read_bytes()[:5000])
    elif damage == "other bytes":
        content = bytearray(rows.read_bytes())
        content[-1] ^= 1
        rows.write_bytes(content)
    else:
        rows.with_suffix(".json").unlink()

    run(write_sweep(folder, routers=ROUTERS, seeds=4), *LOCAL)

    assert_same_results(folder, four_splits)
    lost = "SELECT u.kind FROM event e JOIN unit u ON u.id = e.unit_id WHERE e.kind = 'artifact_lost'"
    assert select(folder, lost) == [("embed",)]
    again = select(
        folder,
        """SELECT u.kind, count(*) FROM attempt a JOIN unit u ON u.id = a.unit_id
           WHERE a.outcome = 'done' GROUP BY u.id HAVING count(*) > 1""",
    )
    assert again == [("embed", 2)]
