"""What do a report and the other reading commands cost on a database of a million metrics?

    python -m tests.benchmarks.report_scale --metrics 1000000
    python -m tests.benchmarks.report_scale --metrics 1000000 --postgres

Makes the database by the store's own functions: five benchmarks of 3000 queries × 10 models, sweeps of 12 routers with
blind twins and three baselines over 20 splits, one of them the reported one, and one of `study: locality`. No router is
fitted: a unit's result is measured, by the product's own metrics, of the true outcomes plus noise, once for all sweeps;
only its bootstrap areas, tuning and times are made up. Every command runs in a process of its own; seconds and the peak
resident set are what the operating system counted for it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from orchestrator.enlist import enlist
from orchestrator.plan import Plan
from orchestrator.run import load_plan
from orchestrator.store import Store, claims, open_store, registry, results
from orchestrator.sweep import Sweep
from tests.benchmarks.scale import Cost, measured
from tests.postgres import postgres_server
from tests.runs import command
from workers.benchmarks.base import Benchmark
from workers.measures.locality import Locality
from workers.metrics.summary import Measured, both_areas, measure
from workers.routers.base import Prediction
from workers.sides import cost_ratios
from workers.splits import split_benchmark
from workers.units import (
    EmbedResult,
    EmbedUnit,
    EvaluateResult,
    EvaluateUnit,
    Finding,
    MeasureResult,
    MeasureUnit,
    ProtocolOptions,
)

N_BENCHMARKS, N_QUERIES, N_MODELS, SEEDS = 5, 3000, 10, 20
#: Name of the sweep that is read, as of the two others that show what it depends on.
REPORTED, SMALL, STUDY = "reported", "small", "study"
#: Four of the twelve are tuned.
TWELVE: tuple[Mapping[str, Any], ...] = (
    {"name": "knn", "twin": True},
    {"name": "linear", "tune": True, "twin": True},
    {"name": "mlp", "tune": True, "twin": True},
    {"name": "avengers", "tune": True, "twin": True},
    *({"name": f"knn@{k}", "use": "knn", "k": k, "twin": True} for k in (1, 3, 10, 30, 100, 300)),
    *({"name": f"ridge@{p}", "use": "linear", "penalty": p, "twin": True} for p in (1, 10)),
)
BASELINES = ("oracle", "zero-router", "task-zero")


def write_benchmarks(folder: Path) -> list[dict[str, str]]:
    """Write tables whose scores depend on task and model; returns the entries of a sweep file."""
    entries = []
    for number in range(N_BENCHMARKS):
        rng = np.random.default_rng(number)
        keys = [f"question-{i:06d}" for i in range(N_QUERIES)]
        tasks = rng.integers(0, 6, N_QUERIES)
        skill = np.linspace(0.35, 0.75, N_MODELS) + rng.normal(0, 0.12, (6, N_MODELS))
        scores = (rng.random((N_QUERIES, N_MODELS)) < skill[tasks]).astype(float)
        costs = np.geomspace(2e-5, 4e-3, N_MODELS) * rng.lognormal(0, 0.4, (N_QUERIES, N_MODELS))
        target = folder / f"suite-{number}"
        target.mkdir()
        prompts = [f"Question {i} of suite {number}: {rng.integers(10**9)}?" for i in range(N_QUERIES)]
        pd.DataFrame({"query_id": keys, "prompt": prompts, "task": [f"task {t}" for t in tasks]}).to_parquet(
            target / "queries.parquet"
        )
        models = [f"vendor-{j % 3}/model-{j}-instruct" for j in range(N_MODELS)]
        pd.DataFrame(
            {
                "query_id": np.repeat(keys, N_MODELS),
                "model": models * N_QUERIES,
                "score": scores.ravel(),
                "cost": costs.ravel(),
            }
        ).to_parquet(target / "outcomes.parquet")
        entries.append({"name": f"suite-{number}", "path": str(target)})
    return entries


def sweep_file(folder: Path, name: str, benchmarks: Sequence[Mapping[str, str]], **changes: Any) -> Path:
    """Write a sweep of the twelve routers; another root seed makes every unit another one."""
    path = folder / f"{name}.yaml"
    sweep = {
        "name": name,
        "benchmarks": list(benchmarks),
        "encoders": ["hash-ngrams"],
        "routers": [*BASELINES, *TWELVE],
        "reference": "knn",
        "seeds": SEEDS,
        **changes,
    }
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


class Outcomes:
    """Results by benchmark, router and split, the same for every sweep."""

    def __init__(self) -> None:
        self._measured: dict[tuple[str, str, bool, int], EvaluateResult] = {}
        self._found: dict[str, tuple[Finding, ...]] = {}

    def evaluated(self, benchmark: Benchmark, unit: EvaluateUnit) -> EvaluateResult:
        """Metrics, frontier and decisions of noisy predictions."""
        name = unit.router + repr(sorted(unit.params.items())) + str(unit.tuned)
        place = (benchmark.name, name, unit.twin, unit.split)
        if place not in self._measured:
            self._measured[place] = _evaluate(benchmark, unit, sum(map(ord, name)))
        return replace(self._measured[place], key=unit.key)

    def located(self, benchmark: Benchmark, unit: MeasureUnit) -> tuple[Finding, ...]:
        """Findings of locality in noise."""
        if benchmark.name not in self._found:
            rows = np.random.default_rng(0).normal(size=(benchmark.n_queries, 32)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            self._found[benchmark.name] = tuple(Locality(permutations=19).findings(benchmark, rows, unit))
        return self._found[benchmark.name]


@cache
def _test_side(benchmark: Benchmark, split: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], int, int]:
    """Scores, cost ratios, and how many train and validate."""
    sides = split_benchmark(benchmark, split, root_seed=0, train_size=1.0)
    costs = cost_ratios(benchmark, ProtocolOptions())
    return benchmark.S[sides.test], costs[sides.test], len(sides.train), len(sides.validation)


def _evaluate(benchmark: Benchmark, unit: EvaluateUnit, stream: int) -> EvaluateResult:
    scores, costs, n_train, n_validation = _test_side(benchmark, unit.split)
    rng = np.random.default_rng([stream, unit.split, unit.twin])
    known = 0.0 if unit.twin else 1.0 if unit.router == "oracle" else 0.02 + stream % 13 / 100
    noise = rng.normal(0, 0.0 if unit.router in BASELINES else 0.1, scores.shape)
    guess = known * scores + (1 - known) * benchmark.S.mean(axis=0) + noise
    found = _measure(Prediction(scores=guess, costs=costs), scores, costs, [model.name for model in benchmark.models])
    made_up = {"fit_seconds": 0.1 * rng.random(), "route_us_per_query": 9.0 * rng.random(), "router_bytes": 1e6}
    chosen = None
    if unit.tuned:
        tried = sorted(float(score) for score in rng.uniform(70, 80, 20))
        params = {"k": int(rng.integers(1, 2000)), "weights": "softmax", "similarity": "cosine"}
        chosen = {"params": params, "criterion": "auc_path", "folds": 1, "score": tried[-1], "scores": tried}
    return EvaluateResult(
        key="",
        n_train=n_train,
        n_validation=n_validation,
        n_test=len(scores),
        metrics={**found.metrics, **made_up},
        chosen=chosen,
        frontier=found.frontier,
        decisions=found.decisions,
        bootstrap=rng.normal(70, 1, 200),
        tuning_seconds=1.0 if unit.tuned else None,
        seconds=0.2,
    )


def _measure(
    prediction: Prediction, scores: npt.NDArray[np.float64], costs: npt.NDArray[np.float64], models: Sequence[str]
) -> Measured:
    options = ProtocolOptions()
    oracle = both_areas(Prediction(scores=scores, costs=costs), scores, costs, options)
    return measure(
        prediction=prediction,
        scores=scores,
        costs=costs,
        models=models,
        best_single=int(scores.mean(axis=0).argmax()),
        zero=(60.0, 60.0),
        oracle=(oracle.auc, oracle.auc_path),
        options=options,
    )


def compute(store: Store, plan: Plan, outcomes: Outcomes) -> None:
    """Enlist a plan, claim its units as a coordinator would, and record a result for each."""
    sweep_id = enlist(store, plan)
    coordinator = f"made-up-{sweep_id}"
    units = list(plan.units)

    def begin(session: Any) -> int:
        claims.register(session, coordinator, sweep_id, "host")
        return registry.put_environment(session, {"roadtest": "made up", "machine": {"cpu": "made up"}})

    environment_id = store.transact(begin)
    rows: Sequence[Mapping[str, Any]] = [{}]
    while rows:
        with store.begin() as session:
            rows = claims.claim(session, sweep_id, coordinator, limit=1000, lease=3600)
            if rows:
                finished = [_finished(units[row["position"]], row, outcomes) for row in rows]
                results.record(session, coordinator, finished, environment_id=environment_id)
    with store.begin() as session:
        claims.end(session, coordinator, 0)


def _finished(planned: Any, row: Mapping[str, Any], outcomes: Outcomes) -> results.Finished:
    unit = planned.unit
    claim = {"unit_id": row["id"], "epoch": row["epoch"], "host": "host", "worker": "worker"}
    if isinstance(unit, EmbedUnit):
        n = unit.stop - unit.start
        slice_ = EmbedResult(key=unit.key, url="file:///made-up.npy", sha256="0" * 64, n_rows=n, dim=256, n_bytes=n)
        return results.Finished(result=slice_, embedding=unit.embedding, start=unit.start, stop=unit.stop, **claim)
    benchmark = planned.evaluated.benchmark
    if isinstance(unit, MeasureUnit):
        measure_result = MeasureResult(key=unit.key, findings=outcomes.located(benchmark, unit), seconds=0.2)
        return results.Finished(result=measure_result, embedding_sha256="0" * 64, **claim)
    return results.Finished(result=outcomes.evaluated(benchmark, unit), embedding_sha256="0" * 64, **claim)


def fill(url: str, folder: Path, n_metrics: int) -> None:
    """Make a database of at least so many metrics."""
    benchmarks, outcomes = write_benchmarks(folder), Outcomes()
    small = [{"name": "knn", "twin": True}, {"name": "linear", "tune": True}]
    store = open_store(url)
    try:

        def make(name: str, **changes: Any) -> int:
            path = sweep_file(folder, name, changes.pop("benchmarks", benchmarks), **changes)
            compute(store, load_plan(Sweep.from_yaml(path), home=folder), outcomes)
            with store.read() as session:
                n = int(session.one("SELECT count(*) FROM metric"))
            _say(f"{name}: {n} metrics\n")
            return n

        make(REPORTED)
        make(STUDY, study="locality", routers=["zero-router", *small], root_seed=1000)
        make(SMALL, benchmarks=benchmarks[:1], routers=["zero-router", *small], seeds=10, root_seed=2000)
        number = 0
        while make(f"other-{number}", root_seed=1 + number) < n_metrics:
            number += 1
    finally:
        store.close()


@contextmanager
def database(folder: Path, *, postgres: bool) -> Iterator[str]:
    """URL of an empty database."""
    if not postgres:
        yield f"sqlite:///{folder}/scale.db"
        return
    with postgres_server() as server:
        yield server.create_database()


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metrics", type=int, default=1_000_000)
    parser.add_argument("--postgres", action="store_true", help="on a PostgreSQL of its own instead of SQLite")
    parser.add_argument("--keep", type=Path, help="folder to keep the SQLite database and the reports in")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt-report-") as name:
        folder = asked.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        with database(folder, postgres=asked.postgres) as url:
            if not (folder / "scale.db").exists():
                # In a process of its own: a command's peak would begin at that of the process that starts it.
                filling = get_context("spawn").Process(target=fill, args=(url, folder, asked.metrics))
                filling.start()
                filling.join()
                if filling.exitcode:
                    raise SystemExit(filling.exitcode)
            look(folder, url)


def look(folder: Path, url: str) -> None:
    """Run every command that reads."""
    _say(f"\n{'command':<44}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'bytes':>12}\n")
    for sweep in (REPORTED, STUDY, SMALL):
        for form in ("html", "md", "latex", "csv") if sweep == REPORTED else ("html",):
            out = folder / f"{sweep}-{form}"
            options = ("--sweep", sweep, "--db", url, "--out", out, "--format", form)
            cost = measured(command("report", *options), folder)
            _row(f"report --sweep {sweep} --format {form}", cost, sum(p.stat().st_size for p in out.iterdir()))
    board = f"SELECT * FROM leaderboard WHERE sweep = '{REPORTED}'"
    for arguments in (
        ("compare", "linear", "knn", "--sweep", REPORTED),
        ("status", "--sweep", REPORTED),
        ("sql", board, "--json"),
    ):
        cost = measured(command(*arguments, "--db", url), folder, out=folder / "said")
        _row(" ".join(arguments)[:43], cost, (folder / "said").stat().st_size)


def _row(name: str, cost: Cost, n_bytes: int) -> None:
    _say(f"{name:<44}{cost.seconds:>8.1f}{cost.busy:>8.1f}{cost.peak / 1e6:>9.0f}{n_bytes:>12}\n")


def _say(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
