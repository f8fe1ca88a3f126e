"""What goes wrong with one unit stays with that unit: exceptions, dying workers, damaged artefacts."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fragile import rows_digest
from tests.runs import (
    assert_same_results,
    deterministic,
    environment,
    executed_again,
    outcomes,
    roadtest,
    run,
    select,
    write_fragile,
    write_sweep,
)
from workers.benchmarks.load import load_benchmark
from workers.splits import split_benchmark

LOCAL = ("--executor", "local", "--workers", "2")
SEEDS = 6

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


#: The split that goes wrong.
SPLIT = 2


def fragile(folder: Path, **ways: str) -> tuple[Path, dict[str, str]]:
    """A sweep of fragile routers (name to way of going wrong at `SPLIT`), and its environment."""
    benchmark = load_benchmark("toolbox").restrict(n_queries=400)
    side = rows_digest(split_benchmark(benchmark, SPLIT).train)
    trap = folder / "trap"
    trap.touch()
    routers = [{"name": name, "use": "fragile", "wrong": f"{way}:{side}"} for name, way in ways.items()]
    sweep = write_sweep(folder, encoders=[], routers=["zero-router", *routers], seeds=SEEDS)
    return sweep, {"PYTHONPATH": str(write_fragile(folder / "plugin")), "FRAGILE_TRAP": str(trap)}


def states(folder: Path) -> dict[tuple[str, int], str]:
    """State of each unit by display name and split."""
    rows = select(folder, "SELECT su.router, u.seed, u.state FROM sweep_unit su JOIN unit u ON u.id = su.unit_id")
    return {(router, seed): state for router, seed, state in rows}


@pytest.mark.slow
def test_a_router_that_raises_fails_alone_after_three_attempts_and_can_be_retried(tmp_path: Path) -> None:
    sweep, env = fragile(tmp_path, broken="raise", leaving="leave")

    run(sweep, *LOCAL, env=env, expect=1)

    wrong = {("broken", SPLIT), ("leaving", SPLIT)}
    assert {unit for unit, state in states(tmp_path).items() if state == "failed"} == wrong
    assert {state for unit, state in states(tmp_path).items() if unit not in wrong} == {"done"}
    failures = select(tmp_path, "SELECT router, seed, error_kind, message, attempts FROM failures ORDER BY router")
    assert failures == [
        ("broken", SPLIT, "exception", "it broke because it was told to", 3),
        ("leaving", SPLIT, "exception", "the router left", 3),
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
    sweep, env = fragile(tmp_path, deadly="die", odd="raise")

    run(sweep, "--executor", "ray", "--workers", "2", env=env, expect=1)

    _only_the_culprit_suffers(tmp_path)
    odd = select(tmp_path, "SELECT error_kind, message, attempts FROM failures WHERE router = 'odd'")
    assert odd == [("exception", "it broke because it was told to", 3)]


@pytest.mark.slow
def test_units_that_wait_behind_a_deadly_one_are_not_blamed(tmp_path: Path) -> None:
    sweep, env = fragile(tmp_path, deadly="die")

    arguments = [sys.executable, "-c", PACED, sweep.name, "1", json.dumps({"shard_units": 1})]
    ended = subprocess.run(arguments, cwd=tmp_path, env=environment(**env), capture_output=True, text=True, timeout=300)

    assert ended.returncode == 1, ended.stderr
    _only_the_culprit_suffers(tmp_path)


def _only_the_culprit_suffers(folder: Path) -> None:
    wrong = {unit: state for unit, state in states(folder).items() if state not in ("done", "failed")}
    assert wrong == {("deadly", SPLIT): "quarantined"}
    deaths = select(
        folder,
        """SELECT su.router, u.seed, u.n_deaths, count(*) FROM attempt a JOIN unit u ON u.id = a.unit_id
           JOIN sweep_unit su ON su.unit_id = u.id WHERE a.error_kind = 'worker_death' GROUP BY su.router, u.seed""",
    )
    assert deaths == [("deadly", SPLIT, 3, 3)]
    assert select(folder, "SELECT max(n_deaths) FROM unit WHERE state <> 'quarantined'") == [(0,)]


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_a_router_that_hangs_is_quarantined_with_where_it_hung(executor: str, tmp_path: Path) -> None:
    sweep, env = fragile(tmp_path, hanging="hang")
    text = sweep.read_text() + "resources: {evaluate: {timeout: 4}}\n"
    sweep.write_text(text)

    run(sweep, "--executor", executor, "--workers", "2", env=env, expect=1)

    assert {unit: state for unit, state in states(tmp_path).items() if state != "done"} == {
        ("hanging", SPLIT): "quarantined"
    }
    ends = select(tmp_path, "SELECT error_kind, traceback FROM attempt WHERE outcome = 'failed'")
    assert [kind for kind, _ in ends] == ["timeout"] * 3
    assert all("in go_wrong\n    time.sleep(1000)" in trace for _, trace in ends)
    listed = json.loads(roadtest("quarantine", "list", "--json", cwd=tmp_path, env=env).stdout)
    assert [(row["router"], row["seed"], row["attempts"]) for row in listed] == [("hanging", SPLIT, 3)]
    assert "time.sleep(1000)" in listed[0]["traceback"]

    (tmp_path / "trap").unlink()
    assert roadtest("quarantine", "release", cwd=tmp_path, env=env).stdout.startswith("1 units are ready again")
    run(sweep, *LOCAL, env=env)
    assert set(states(tmp_path).values()) == {"done"}


@pytest.mark.slow
def test_a_router_that_leaks_is_tried_once_more_with_more_memory(tmp_path: Path) -> None:
    sweep, env = fragile(tmp_path, leaking="leak", dripping="leak")
    for memory, state, attempts in ((1_000_000_000, "quarantined", 2), (2_500_000_000, "done", 2)):
        folder = shutil.copytree(tmp_path, tmp_path / str(memory))
        limited = folder / sweep.name
        limited.write_text(sweep.read_text() + f"resources: {{evaluate: {{memory: {memory}}}}}\n")

        run(limited, "--workers", "1", env=env, expect=int(state != "done"))

        leaking = {("leaking", SPLIT), ("dripping", SPLIT)}
        assert {unit for unit, found in states(folder).items() if found == state and unit in leaking} == leaking
        assert {other for unit, other in states(folder).items() if unit not in leaking} == {"done"}
        # What was leaked went with its worker: nobody else ran out of memory.
        hungry = """SELECT DISTINCT su.router, u.seed FROM attempt a JOIN unit u ON u.id = a.unit_id
                    JOIN sweep_unit su ON su.unit_id = u.id WHERE a.error_kind = 'out_of_memory'"""
        assert set(select(folder, hungry)) == leaking
        ends = select(
            folder,
            """SELECT a.outcome, a.error_kind, a.traceback FROM attempt a JOIN unit u ON u.id = a.unit_id
               JOIN sweep_unit su ON su.unit_id = u.id WHERE su.router = 'leaking' AND u.seed = ? ORDER BY a.id""",
            SPLIT,
        )
        assert len(ends) == attempts
        assert ends[0][1] == "out_of_memory"
        assert "in leak" in ends[0][2]


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
@pytest.mark.parametrize("damage", ["missing", "other bytes"])
def test_a_damaged_artefact_is_noticed_and_embedded_again(
    damage: str, two_splits: Path, four_splits: dict[str, list[tuple[Any, ...]]], tmp_path: Path
) -> None:
    folder = shutil.copytree(two_splits, tmp_path / "sweep")
    (rows,) = (folder / ".roadtest" / "artifacts").rglob("*.npy")
    if damage == "missing":
        rows.unlink()
    else:
        content = bytearray(rows.read_bytes())
        content[-1] ^= 1
        rows.write_bytes(content)

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
