"""How fast is the orchestration itself? Null units, durable, through Ray, beside Ray Tune, Optuna's RDB and joblib.

`python -m tests.benchmarks.bench_orchestration [--units N] [--runs N] [--json FILE]`: PostgreSQL is a server of its
own, with fsync. Ray's start is excluded; planning and enlisting are timed apart. What a unit computes is nothing, a
wait or a busy loop; all else is the product: the same coordinator, executor, queue and store as `roadtest run`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from orchestrator.cluster import Connection
from orchestrator.coordinator import Coordinator
from orchestrator.enlist import enlist
from orchestrator.environment import facts
from orchestrator.executors.base import Context, Shard, Unit, UnitOutcome
from orchestrator.executors.ray import RayExecutor
from orchestrator.plan import PlannedUnit
from orchestrator.shards import Pace
from orchestrator.store import Store, open_store, registry
from orchestrator.sweep import Resources
from tests.benchmarks.measuring import Figure, figure, observed
from tests.postgres import NoPostgresError, postgres_server
from tests.tiny import tiny_plan
from workers.units import EvaluateResult

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


def run_units(
    url: str, name: str, n_units: int, work: Work = "nothing", seconds: float = 0.0, *,
    workers: int = WORKERS, pace: Pace | None = None, address: str | None = None,
) -> dict[str, float]:  # fmt: skip
    """Plan, enlist and work off one sweep of such units, on our own Ray or that at `address`; seconds of each part."""
    begin = time.perf_counter()
    plan = tiny_plan(name, n_units)
    planned = time.perf_counter()
    store = open_store(url)
    store.running = True
    sweep_id = enlist(store, plan)
    enlisted = time.perf_counter()
    environment_id = store.transact(lambda session: registry.put_environment(session, facts()))

    def context(_store: Store, _planned: PlannedUnit, _artifacts: str) -> tuple[Context, str | None]:
        return NullContext(work, seconds), None

    connection = Connection(address, workers=workers)
    executor = RayExecutor(connection, workers=workers, resources=Resources())
    try:
        warm_up(executor, workers)
        started = time.perf_counter()
        coordinator = Coordinator(
            store=store,
            plan=plan,
            sweep_id=sweep_id,
            executor=executor,
            artifacts=str(store.home),
            environment_id=environment_id,
            make_context=context,
            pace=pace or Pace(),
        )
        counts = coordinator.run()
        ended = time.perf_counter()
    finally:
        executor.close()
        connection.join()
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


def warm_up(executor: RayExecutor, workers: int) -> None:
    """Start the workers: Ray's start is not what is measured."""
    executor.share("warm", NullContext("wait", 0.5))
    unit = tiny_plan("warm", 1).units[0].unit
    for i in range(workers):
        executor.submit(Shard(id=-1 - i, stage="evaluate", context="warm", units=(unit,), seconds=60))
    left = workers
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


def joblib_null(n_tasks: int) -> float:
    """Tasks per second of joblib's processes, which store nothing and, once killed, begin anew."""
    from joblib import Parallel, delayed

    with Parallel(n_jobs=WORKERS) as workers:
        workers(delayed(time.sleep)(0.1) for _ in range(WORKERS))  # starts them
        begin = time.perf_counter()
        found = workers(delayed(int)(i) for i in range(n_tasks))
        took = time.perf_counter() - begin
    assert len(found) == n_tasks
    return n_tasks / took


def measure(fresh: Callable[[], str], n_units: int, runs: int) -> dict[str, Any]:
    """All figures of one kind of database, each on an empty one."""
    null = [run_units(fresh(), "null", n_units) for _ in range(runs)]
    ideal = 0.1 / WORKERS
    wait = run_units(fresh(), "wait", 300, "wait", 0.1)
    compute = run_units(fresh(), "compute", 300, "compute", 0.1)
    return {
        "null": {key: statistics.median(run[key] for run in null) for key in null[0]},
        "wait_share_of_ideal": ideal * wait["units"] / wait["run"],
        "compute_share_of_ideal": ideal * compute["units"] / compute["run"],
        "optuna_per_second": optuna_rdb(fresh(), 300),
    }


def figures(n_units: int = 20_000, runs: int = 3) -> list[Figure]:
    """Seconds per null unit against Ray Tune's, Optuna's and joblib's, in turns; starting workers is excluded."""
    found = []
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as folder, ExitStack() as servers:
        os.environ["ROADTEST_HOME"] = folder
        databases: dict[str, Callable[[], str]] = {
            "sqlite": lambda: f"sqlite:///{tempfile.mkdtemp(dir=folder)}/bench.db"
        }
        with suppress(NoPostgresError):
            databases["postgresql"] = servers.enter_context(postgres_server(settings="")).create_database
        for name, fresh in databases.items():
            mine, tune, optuna, joblib = [], [], [], []
            for _ in range(runs):
                mine.append(observed(lambda: 1 / run_units(fresh(), "null", n_units)["units_per_second"]))  # noqa: B023
                tune.append(observed(lambda: 1 / ray_tune(100)))
                optuna.append(observed(lambda: 1 / optuna_rdb(fresh(), 300)))  # noqa: B023
                joblib.append(observed(lambda: 1 / joblib_null(n_units)))
            ours = (f"null units, {WORKERS} workers", mine)
            facts = {"null units per second": 1 / statistics.median(run.value for run in mine)}
            found += [
                figure(f"null units, {name}, Ray Tune", ours=ours, against=("Ray Tune's trials", tune), facts=facts),
                figure(f"null units, {name}, Optuna", ours=ours, against=("Optuna's RDB storage", optuna)),
                figure(f"null units, {name}, joblib", ours=ours, against=("joblib, which stores nothing", joblib)),
            ]
    return found


def show(name: str, found: dict[str, Any], tune: float) -> None:
    """A sentence about one kind of database."""
    null, optuna = found["null"], found["optuna_per_second"]
    ours = null["units_per_second"]
    sys.stdout.write(
        f"{name}: {ours:.0f} null units/s (planned in {null['plan']:.1f} s, enlisted in {null['enlist']:.1f} s); "
        f"{ours / tune:.0f} x Ray Tune ({tune:.1f}/s), {ours / optuna:.0f} x Optuna ({optuna:.1f}/s); units of 100 ms: "
        f"waiting {found['wait_share_of_ideal']:.1%}, computing {found['compute_share_of_ideal']:.1%} of ideal on "
        f"{WORKERS} workers\n"
    )


def main() -> None:
    """Print the figures and, if asked, write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as folder:
        os.environ["ROADTEST_HOME"] = folder
        tune = ray_tune(100)
        figures: dict[str, Any] = {"machine": facts(), "ray_tune_per_second": tune}

        def sqlite() -> str:
            return f"sqlite:///{tempfile.mkdtemp(dir=folder)}/bench.db"

        figures["sqlite"] = measure(sqlite, options.units, options.runs)
        show("sqlite", figures["sqlite"], tune)
        try:
            with postgres_server(settings="") as server:
                figures["postgresql"] = measure(server.create_database, options.units, options.runs)
            show("postgresql", figures["postgresql"], tune)
        except NoPostgresError as error:
            sys.stdout.write(f"postgresql: not measured, {error}\n")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
