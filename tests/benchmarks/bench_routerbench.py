"""How fast is RouterBench's evaluation as a sweep, against the scikit-learn loop that does it the usual way?

    ROADTEST_SHARED=... python -m tests.benchmarks.bench_routerbench [--sets mbpp ...] [--runs 5] [--threads 1]

Three sets (`routerbench_part`: ARC-challenge, WinoGrande, MBPP; 11 models), MiniLM's rows given to both sides, one
split, and RouterBench's six routers: kNN at 5, 10 and 40, `MLPRegressor` of (100) and (100, 100), `LinearSVR`. The loop
fits a regressor for each model and predicts again for each of the 32 prices, with the settings that RouterBench has
(`max_iter` 200, cosine, all cores). Ours are two `roadtest run`, one with the same 32 prices and one with the exact
path, each from the start of its process to its HTML report: Ray's start, database, baselines that metrics are relative
to, and report included. Our `mlp` takes no fewer steps of Adam than scikit-learn's took before its loss stood still.

The loop runs once, on as many threads as scikit-learn takes; on a busy machine, where they wait for each other, one is
faster (`--threads 1`). Areas of both sides are printed: they differ by the seeds of the networks alone.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import statistics
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from sklearn.exceptions import ConvergenceWarning
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from sklearn.svm import LinearSVR
from threadpoolctl import threadpool_limits

from tests.benchmarks.bench_grid import rows_file, table
from tests.benchmarks.measuring import RUNS, Figure, Measurement, figure, measured_cpu
from tests.runs import roadtest, select
from workers.benchmarks.base import Benchmark, Floats
from workers.benchmarks.load import load_benchmark
from workers.metrics import areas
from workers.metrics.frontier import GRID_PRICES
from workers.metrics.frontier import Path as Frontier
from workers.splits import Split, split_benchmark

SETS = ("arc_challenge", "mbpp", "winogrande")
KS = (5, 10, 40)
#: Hidden layers by the router's name.
NETWORKS = {"mlp@100": (100,), "mlp@100-100": (100, 100)}
#: scikit-learn's batch size, and ours, which must be a multiple of 16.
BATCH, OUR_BATCH = 200, 192
SEED = 1234
#: scikit-learn's `alpha`, which it divides by the number of rows.
ALPHA, TYPICAL_ROWS = 1e-4, 1000


@dataclass
class Loop:
    """What the usual way finds."""

    #: `auc_path` by set and router.
    areas: dict[tuple[str, str], float] = field(default_factory=dict)
    #: Mean steps of Adam of a network by set and router.
    steps: dict[tuple[str, str], float] = field(default_factory=dict)


def usual(benchmark: Benchmark, X: Floats, sets: Sequence[str]) -> Loop:
    """RouterBench's evaluation of the sets."""
    loop = Loop()
    for task in sets:
        some = benchmark.restrict(tasks=[task])
        rows = np.array([position for position, own in enumerate(benchmark.tasks) if own == task])
        split = split_benchmark(some, 0)
        S, C = some.S, some.C / some.c_ref
        for k in KS:
            name = f"knn@{k}"
            knn = KNeighborsRegressor(n_neighbors=k, metric="cosine", n_jobs=-1)
            complete = split.train[some.complete[split.train]]
            knn.fit(X[rows[complete]], np.hstack([S, C])[complete])
            loop.areas[task, name] = area(S, C, split, lambda: np.hsplit(knn.predict(X[rows[split.test]]), 2))  # noqa: B023
        for name, hidden in NETWORKS.items():
            nets = [fitted(_network(hidden), X[rows], S, C, split, model) for model in range(some.n_models)]
            batches = math.ceil(len(split.train) / BATCH)
            loop.steps[task, name] = batches * float(np.mean([net.n_iter_ for net in nets]))
            loop.areas[task, name] = area(
                S,
                C,
                split,
                lambda: np.stack([net.predict(X[rows[split.test]]) for net in nets]).transpose(2, 1, 0),  # noqa: B023
            )
        lines = [fitted(LinearSVR(random_state=SEED), X[rows], S, None, split, j) for j in range(some.n_models)]
        costs = np.nanmean(C[split.train], axis=0)
        loop.areas[task, "svr"] = area(
            S,
            C,
            split,
            lambda: (np.column_stack([line.predict(X[rows[split.test]]) for line in lines]), costs),  # noqa: B023
        )
    return loop


def _network(hidden: tuple[int, ...]) -> MLPRegressor:
    return MLPRegressor(hidden_layer_sizes=hidden, max_iter=200, random_state=SEED)


def fitted(regressor: Any, X: Floats, S: Floats, C: Floats | None, split: Split, model: int) -> Any:
    """A regressor of one model's score, and of its cost, on the training rows where it was observed."""
    rows = split.train[~np.isnan(S[split.train, model])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regressor.fit(
            X[rows], S[rows, model] if C is None else np.column_stack([S[rows, model], C[rows, model]])
        )


def area(S: Floats, C: Floats, split: Split, predict: Any) -> float:
    """`auc_path` of the operating points at 32 prices, each of which predicts for itself."""
    points = []
    for price in GRID_PRICES:
        scores, costs = predict()
        chosen = (scores - price * costs).argmax(axis=1)[:, None]
        points.append([np.take_along_axis(outcomes[split.test], chosen, axis=1).mean() for outcomes in (C, S)])
    costs, scores = np.array(points).T
    return areas.auc_path(Frontier(costs=costs, scores=scores, prices=GRID_PRICES))


def epochs(benchmark: Benchmark, loop: Loop, sets: Sequence[str], name: str) -> int:
    """Epochs of our network after which it has taken at least as many steps on every set."""
    found = []
    for task in sets:
        n_train = len(split_benchmark(benchmark.restrict(tasks=[task]), 0).train)
        found.append(math.ceil(loop.steps[task, name] / max(1, n_train // min(OUR_BATCH, n_train // 16 * 16))))
    return max(found)


def sweep(name: str, sets: Sequence[str], routers: Sequence[Mapping[str, Any]], **protocol: Any) -> dict[str, Any]:
    """A sweep file over the sets."""
    whole = {"path": str(table()), "embed": "question"}
    if set(sets) == set(SETS):
        benchmarks = [{"name": "rb", **whole, "tasks": "each"}]
    else:
        benchmarks = [{"name": task, **whole, "tasks": [task]} for task in sets]
    return {
        "name": name,
        "benchmarks": benchmarks,
        "encoders": ["minilm"],
        "routers": list(routers),
        "seeds": 1,
        "reference": routers[0]["name"],
        "protocol": {"bootstrap": 0, **protocol},
    }


def same_work(epochs_of: Mapping[str, int]) -> list[dict[str, Any]]:
    """RouterBench's routers as entries of a sweep."""
    knn = [{"name": f"knn@{k}", "use": "knn", "k": k} for k in KS]
    mlp = [
        {
            "name": name,
            "use": "mlp",
            "hidden": 100,
            "depth": len(hidden) + 1,
            "epochs": epochs_of[name],
            "batch_size": OUR_BATCH,
            "weight_decay": ALPHA / TYPICAL_ROWS,
        }
        for name, hidden in NETWORKS.items()
    ]
    return [*knn, *mlp, {"name": "svr", "use": "svr", "C": 1.0}]


def primed() -> Path:
    """A folder with the database and artefacts of a sweep that embedded the sets; kept for the next time."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_routerbench"
    folder.mkdir(exist_ok=True)
    (folder / "prime.yaml").write_text(yaml.safe_dump(sweep("prime", SETS, [{"name": "knn@1", "use": "knn", "k": 1}])))
    roadtest("run", "prime.yaml", "--no-report", "--executor", "local", cwd=folder, env=_env(), timeout=3600)
    return folder


def _env() -> dict[str, str]:
    return {"ROADTEST_SHARED": os.environ["ROADTEST_SHARED"]}


def ours(folder: Path, file: str) -> tuple[Measurement, float]:
    """One sweep, wall seconds and CPU seconds."""
    return measured_cpu(partial(roadtest, "run", file, cwd=folder, env=_env(), timeout=3600))


def together(grid: Measurement, exact: Measurement) -> Measurement:
    """One after the other."""
    return Measurement(value=grid.value + exact.value, peak=max(grid.peak, exact.peak))


def areas_of(folder: Path) -> dict[tuple[str, str], float]:
    """`auc_path` on the grid by set and router."""
    rows = select(folder, "SELECT benchmark, router, auc_path_mean FROM leaderboard WHERE sweep = 'grid'")
    return {(benchmark.rpartition("/")[2], router): area for benchmark, router, area in rows}


def figures(sets: Sequence[str] = SETS, runs: int = RUNS, threads: int | None = None) -> list[Figure]:
    """Two sweeps against one loop, whose threads may be limited."""
    X = np.load(rows_file())
    benchmark = load_benchmark("rb", path=table(), embed="question")
    found: list[Loop] = []
    with threadpool_limits(limits=threads):
        slow, slow_cpu = measured_cpu(lambda: found.append(usual(benchmark, X, sets)))
    [loop] = found
    home = primed()
    routers = same_work({name: epochs(benchmark, loop, sets, name) for name in NETWORKS})
    for name in ("grid", "exact"):
        (home / f"{name}.yaml").write_text(yaml.safe_dump(sweep(name, sets, routers, **{"lambda": name})))
    grid, exact, mine = [], [], {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="rt-bench-") as scratch:
            folder = Path(scratch) / "home"
            shutil.copytree(home, folder)
            grid.append(ours(folder, "grid.yaml"))
            exact.append(ours(folder, "exact.yaml"))
            mine = areas_of(folder)
    differences = {" ".join(key): mine[key] - theirs for key, theirs in loop.areas.items()}
    facts = {
        "sets": ", ".join(sets),
        "CPU s of grid, exact, loop": [
            *(statistics.median(cpu for _, cpu in found) for found in (grid, exact)),
            slow_cpu,
        ],
        "epochs": ", ".join(f"{router['name']} {router['epochs']}" for router in routers if "epochs" in router),
        "auc_path, ours minus theirs, mean": float(np.mean(list(differences.values()))),
        "auc_path, ours minus theirs": ", ".join(f"{key} {value:+.2f}" for key, value in differences.items()),
    }
    against = ("scikit-learn, 32 prices", [slow])
    alone = [run for run, _ in exact]
    both = [together(run, other) for (run, _), other in zip(grid, alone, strict=True)]
    return [
        figure(
            "RouterBench, 32 prices and exact path",
            ours=("two `roadtest run`", both),
            against=against,
            wanted=20,
            facts=facts,
        ),
        figure("RouterBench, exact path alone", ours=("one `roadtest run`", alone), against=against),
    ]


def main() -> None:
    """Print the figure."""
    from tests.benchmarks.run import row

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, help="of the loop; default: scikit-learn's")
    asked = parser.parse_args()
    sys.stdout.write("".join(row(found.as_json()) for found in figures(asked.sets, asked.runs, asked.threads)))


if __name__ == "__main__":
    main()
