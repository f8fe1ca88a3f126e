"""How fast is the orchestration itself? Null units, durable, through Ray, beside Ray Tune and Optuna's RDB storage.

`python -m tests.benchmarks.bench_orchestration [--postgres URL] [--units N] [--json FILE]`: Ray's start is excluded;
planning and enlisting are timed apart. What a unit computes is nothing, a wait or a busy loop; everything else is the
product: the same coordinator, executor, queue and store as `roadtest run`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import numpy as np

from orchestrator.catalog import EvaluatedBenchmark
from orchestrator.coordinator import Coordinator
from orchestrator.enlist import enlist
from orchestrator.environment import facts
from orchestrator.executors.base import Context, Shard, Unit, UnitOutcome
from orchestrator.executors.ray import RayExecutor
from orchestrator.plan import Plan, PlannedUnit, plan_sweep
from orchestrator.store import Store, open_store, registry
from orchestrator.sweep import Resources, Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.units import EvaluateResult

ROUTERS = ("zero-router", "best-single", "random", "task-zero", "oracle")
WORKERS = 2
Work = Literal["nothing", "wait", "compute"]


@dataclass(frozen=True, eq=False)
class NullContext:
    """Does nothing for each unit, or waits, or keeps its core busy."""

    work: Work
    seconds: float

    def compute(self, units: Sequence[Unit]) -> Sequence[UnitOutcome]:
        """A result with one metric for each unit."""
        return [self._one(unit) for unit in units]

    def _one(self, unit: Unit) -> EvaluateResult:
        begin = time.perf_counter()
        if self.work == "wait":
            time.sleep(self.seconds)
        elif self.work == "compute":
            used = time.process_time() + self.seconds
            while time.process_time() < used:
                pass
        took = time.perf_counter() - begin
        return EvaluateResult(key=unit.key, n_train=1, n_validation=1, n_test=1, metrics={"auc": 0.0}, seconds=took)


def tiny_benchmark() -> Benchmark:
    """Twelve queries and two models."""
    rng = np.random.default_rng(0)
    return Benchmark.build(
        name="null",
        queries=[f"q{i:02d}" for i in range(12)],
        prompts=[f"prompt {i}" for i in range(12)],
        tasks=["a", "b"] * 6,
        models=[Model(name="m0"), Model(name="m1")],
        S=rng.random((12, 2)),
        C=rng.random((12, 2)),
    )


def make_plan(name: str, n_units: int) -> Plan:
    """A plan of so many units (rounded up to whole routers)."""
    sweep = Sweep.from_dict(
        {"name": name, "benchmarks": ["null"], "routers": list(ROUTERS), "seeds": -(-n_units // len(ROUTERS))}
    )
    found = tiny_benchmark()
    return plan_sweep(sweep, [EvaluatedBenchmark(name="null", task=None, benchmark=found, source=found)], [])


def run_units(url: str, name: str, n_units: int, work: Work = "nothing", seconds: float = 0.0) -> dict[str, float]:
    """Plan, enlist and work off one sweep of such units; seconds of each part."""
    begin = time.perf_counter()
    plan = make_plan(name, n_units)
    planned = time.perf_counter()
    store = open_store(url)
    store.running = True
    sweep_id = enlist(store, plan)
    enlisted = time.perf_counter()
    environment_id = store.transact(lambda session: registry.put_environment(session, facts()))

    def context(_store: Store, _planned: PlannedUnit, _artifacts: str) -> tuple[Context, str | None]:
        return NullContext(work, seconds), None

    executor = RayExecutor(WORKERS, address=None, resources=Resources())
    try:
        warm_up(executor)
        started = time.perf_counter()
        coordinator = Coordinator(
            store=store,
            plan=plan,
            sweep_id=sweep_id,
            executor=executor,
            artifacts=str(store.home),
            environment_id=environment_id,
            make_context=context,
        )
        counts = coordinator.run()
        ended = time.perf_counter()
    finally:
        executor.close()
        store.close()
    n = len(plan.units)
    assert counts == {("evaluate", "done"): n}, counts
    return {
        "units": n,
        "plan": planned - begin,
        "enlist": enlisted - planned,
        "run": ended - started,
        "units_per_second": n / (ended - started),
    }


def warm_up(executor: RayExecutor) -> None:
    """Start the workers: Ray's start is not what is measured."""
    executor.share("warm", NullContext("wait", 0.5))
    unit = make_plan("warm", 1).units[0].unit
    for i in range(WORKERS):
        executor.submit(Shard(id=-1 - i, stage="evaluate", context="warm", units=(unit,), seconds=60))
    left = WORKERS
    while left:
        left -= len(executor.wait(1.0))


def ray_tune(n_trials: int) -> float:
    """Trials per second of Ray Tune with the same workers: a function that returns at once."""
    import ray
    from ray import tune

    ray.init(address="local", num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as folder:
            tuner = tune.Tuner(
                lambda _config: {"auc": 0.0},
                param_space={"seed": tune.randint(0, 1_000_000)},
                tune_config=tune.TuneConfig(num_samples=n_trials, max_concurrent_trials=WORKERS, reuse_actors=True),
                run_config=tune.RunConfig(storage_path=folder, verbose=0),
            )
            begin = time.perf_counter()
            found = tuner.fit()
            took = time.perf_counter() - begin
        assert len(found) == n_trials
    finally:
        ray.shutdown()
    return n_trials / took


def optuna_rdb(url: str, n_trials: int) -> float:
    """Trials per second of Optuna on its RDB storage, in this process with as many threads as we have workers."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    best = 0.0
    for threads in (1, WORKERS):  # threads help PostgreSQL and hinder SQLite: its better figure counts
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
        begin = time.perf_counter()
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=n_trials, n_jobs=threads)
        best = max(best, n_trials / (time.perf_counter() - begin))
    return best


def measure(url: str | None, n_units: int, runs: int) -> dict[str, Any]:
    """All figures of one database: a fresh one for every run (SQLite) or a fresh schema (PostgreSQL)."""
    null = [run_units(_fresh(url), "null", n_units) for _ in range(runs)]
    best = {key: statistics.median(run[key] for run in null) for key in null[0]}
    ideal = 0.1 / WORKERS
    wait = run_units(_fresh(url), "wait", 300, "wait", 0.1)
    compute = run_units(_fresh(url), "compute", 300, "compute", 0.1)
    return {
        "null": best,
        "wait_share_of_ideal": ideal * wait["units"] / wait["run"],
        "compute_share_of_ideal": ideal * compute["units"] / compute["run"],
        "optuna_per_second": optuna_rdb(_fresh(url), 300),
    }


def _fresh(url: str | None) -> str:
    if url is None:
        return f"sqlite:///{tempfile.mkdtemp(prefix='rt-bench-')}/bench.db"
    import psycopg

    name = f"bench_{uuid4().hex[:12]}"
    with psycopg.connect(url.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
    return f"{url}/{name}"


def main() -> None:
    """Print a table and, if asked, write the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--postgres", help="server's URL without a database, such as postgresql+psycopg://u@127.0.0.1:5432"
    )
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["ROADTEST_HOME"] = tempfile.mkdtemp(prefix="rt-bench-home-")
    figures: dict[str, Any] = {"machine": facts(), "ray_tune_per_second": ray_tune(200)}
    for name, url in (("sqlite", None), ("postgresql", options.postgres)):
        if name == "sqlite" or url:
            figures[name] = found = measure(url, options.units, options.runs)
            ours = found["null"]["units_per_second"]
            sys.stdout.write(
                f"{name}: {ours:.0f} null units/s (planned in {found['null']['plan']:.1f} s, enlisted in "
                f"{found['null']['enlist']:.1f} s); {ours / figures['ray_tune_per_second']:.0f} x Ray Tune "
                f"({figures['ray_tune_per_second']:.1f}/s), {ours / found['optuna_per_second']:.0f} x Optuna "
                f"({found['optuna_per_second']:.1f}/s); units of 100 ms: waiting {found['wait_share_of_ideal']:.1%}, "
                f"computing {found['compute_share_of_ideal']:.1%} of ideal on {WORKERS} workers\n"
            )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
