"""Where and in which company a unit is computed changes no bit of its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.run import ExecutorName, RunSummary, load_plan, run_plan
from orchestrator.shards import Pace
from orchestrator.store import open_store
from orchestrator.sweep import Sweep
from tests.runs import SWEEP, assert_same_results, deterministic, outcomes, run, select, write_sweep

#: Enough questions that the embedding has several slices.
SWEEP_OF_SLICES = {
    **SWEEP,
    "benchmarks": [{"name": "toolbox", "queries": 2400}],
    "seeds": 3,
    "train_sizes": [0.2],
    "formulation": ["utility", "selection"],
}


def run_here(folder: Path, executor: ExecutorName, *, workers: int, shard_units: int) -> RunSummary:
    """Run the sweep in this process, with shards of a given size."""
    store = open_store(f"sqlite:///{folder / 'roadtest.db'}")
    try:
        plan = load_plan(Sweep.from_dict(SWEEP_OF_SLICES), home=store.home)
        pace = Pace(shard_units=shard_units, first_units=shard_units, shard_seconds=3600.0)
        return run_plan(store, plan, executor=executor, workers=workers, pace=pace)
    finally:
        store.close()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[tuple[Any, ...]]]:
    """Results of one thread that does one unit at a time."""
    folder = tmp_path_factory.mktemp("alone")
    assert run_here(folder, "local", workers=1, shard_units=1).exit_code == 0
    return deterministic(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("executor", "workers", "shard_units"),
    [("local", 1, 7), ("local", 4, 256), ("local", 4, 1), ("ray", 4, 7)],
)
def test_executor_workers_and_shard_size_change_no_bit(
    executor: ExecutorName,
    workers: int,
    shard_units: int,
    alone: dict[str, list[tuple[Any, ...]]],
    tmp_path: Path,
) -> None:
    assert run_here(tmp_path, executor, workers=workers, shard_units=shard_units).exit_code == 0

    assert_same_results(tmp_path, alone)
    assert set(outcomes(tmp_path)) == {"done"}
    processes = select(tmp_path, "SELECT count(DISTINCT worker), count(DISTINCT pid) FROM attempt")[0]
    if executor == "ray":
        assert min(processes) >= 2
    else:
        assert processes == (1, 1)


@pytest.mark.slow
def test_stages_that_cannot_live_side_by_side_take_turns(tmp_path: Path) -> None:
    resources = {"embed": {"num_cpus": 2}, "evaluate": {"num_cpus": 1}}
    routers = ["zero-router", {"name": "knn@10", "use": "knn", "k": 10}]  # before, and after the embedding
    sweep = write_sweep(tmp_path, resources=resources, routers=routers)
    run(sweep, "--executor", "ray", "--workers", "2")
    assert outcomes(tmp_path) == {"done": 1 + 2 * 4}


@pytest.mark.slow
def test_a_worker_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    sweep = write_sweep(tmp_path, resources={"evaluate": {"num_gpus": 64}})
    said = run(sweep, "--executor", "ray", "--workers", "1", expect=2)
    assert "resources.evaluate: a worker wants 1 CPU, 64 GPU, the largest node of Ray has 1 CPU, 0 GPU" in said
