"""How fast is RouterBench's evaluation as a sweep, against the scikit-learn loop that does it the usual way?

    python -m tests.benchmarks.bench_routerbench [--sets mbpp ...] [--runs 5] [--threads 1] [--steps]

Three sets (`routerbench_part`: ARC-challenge, WinoGrande, MBPP; 11 models), MiniLM's rows given to both sides, one
split, and six routers: kNN at 5, 10 and 40, networks of (100) and (100, 100), ridge. The loop has RouterBench's
settings (`MLPRegressor` with `max_iter` 200, kNN by cosine on all cores), fits a network and a ridge for each model,
predicts again for each of RouterBench's 32 prices of cost, and then tries every price at which two predictions cross:
the exact path. Ours is a `roadtest run` of the exact path, on which the choices at the 32 prices lie, from the start of
its process to its HTML report: Ray's start, database, baselines that metrics are relative to, and report included; a
second figure is without Ray (`--executor local`). Our `mlp` trains as it does by default, for far fewer steps
than scikit-learn's; with `--steps` another figure has no fewer steps of Adam than scikit-learn's networks took.

The loop runs once, on as many threads as scikit-learn takes. Areas of both sides are printed.

With ROADTEST_ROUTERBENCH=/path/to/a/checkout of github.com/withmartian/routerbench its own code evaluates the same rows
on the same splits too, once: the six routers with LinearSVR for ridge, the 32 prices alone, no exact path.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from tests.benchmarks.bench_grid import rows_file, table
from tests.benchmarks.measuring import RUNS, Figure, Measurement, NotMeasuredError, figure, measured, observed
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
VARIABLE = "ROADTEST_ROUTERBENCH"
#: Of the networks, which scikit-learn divides by the number of rows, and of ridge.
ALPHA, TYPICAL_ROWS, ALPHA_RIDGE = 1e-4, 1000, 1.0


#: `auc_path` by set and router.
Areas = dict[tuple[str, str], float]


@dataclass
class Loop:
    """What the usual way finds."""

    areas: Areas = field(default_factory=dict)
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
        lines = [fitted(Ridge(alpha=ALPHA_RIDGE), X[rows], S, C, split, j) for j in range(some.n_models)]
        loop.areas[task, "ridge"] = area(
            S,
            C,
            split,
            lambda: np.stack([line.predict(X[rows[split.test]]) for line in lines]).transpose(2, 1, 0),  # noqa: B023
        )
    return loop


def _network(hidden: tuple[int, ...]) -> MLPRegressor:
    return MLPRegressor(hidden_layer_sizes=hidden, max_iter=200, random_state=SEED)


def fitted(regressor: Any, X: Floats, S: Floats, C: Floats, split: Split, model: int) -> Any:
    """A regressor of one model's score, and of its cost, on the training rows where it was observed."""
    rows = split.train[~np.isnan(S[split.train, model])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return regressor.fit(X[rows], np.column_stack([S[rows, model], C[rows, model]]))


def area(S: Floats, C: Floats, split: Split, predict: Any) -> float:
    """`auc_path` of the exact path, after the operating points at 32 prices, each of which predicts for itself."""
    for price in GRID_PRICES:
        point(S, C, split, *predict(), price)
    scores, costs = predict()
    first, second = np.triu_indices(scores.shape[1], 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = (scores[:, first] - scores[:, second]) / (costs[:, first] - costs[:, second])
    prices = np.unique(np.concatenate([[0.0], crossings[(crossings > 0) & np.isfinite(crossings)]]))
    # The choice at a crossing itself is a tie: in the middle between two it is none.
    between = np.append((prices[:-1] + prices[1:]) / 2, 2 * prices[-1] + 1)
    points = [point(S, C, split, scores, costs, price) for price in between]
    path_costs, path_scores = np.array(points).T
    return areas.auc_path(Frontier(costs=path_costs, scores=path_scores, prices=between))


def point(S: Floats, C: Floats, split: Split, scores: Floats, costs: Floats, price: float) -> tuple[float, float]:
    """Mean cost and score of the choices at a price."""
    chosen = (scores - price * costs).argmax(axis=1)
    return float(C[split.test, chosen].mean()), float(S[split.test, chosen].mean())


def epochs(benchmark: Benchmark, loop: Loop, sets: Sequence[str], name: str) -> int:
    """Epochs of our network after which it has taken at least as many steps on every set."""
    found = []
    for task in sets:
        n_train = len(split_benchmark(benchmark.restrict(tasks=[task]), 0).train)
        found.append(math.ceil(loop.steps[task, name] / max(1, n_train // min(OUR_BATCH, n_train // 16 * 16))))
    return max(found)


def sweep(name: str, sets: Sequence[str], routers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
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
        "protocol": {"bootstrap": 0},
    }


def same_work(epochs_of: Mapping[str, int] | None = None) -> list[dict[str, Any]]:
    """The six routers as entries of a sweep; networks with their defaults, or in scikit-learn's steps."""
    knn = [{"name": f"knn@{k}", "use": "knn", "k": k} for k in KS]
    mlp = [{"name": name, "use": "mlp", "hidden": 100, "depth": len(hidden) + 1} for name, hidden in NETWORKS.items()]
    for network in mlp if epochs_of is not None else ():
        assert epochs_of is not None
        steps = {"epochs": epochs_of[str(network["name"])], "batch_size": OUR_BATCH}
        network |= {**steps, "weight_decay": ALPHA / TYPICAL_ROWS}
    return [*knn, *mlp, {"name": "ridge", "use": "linear", "penalty": ALPHA_RIDGE}]


def primed() -> Path:
    """A folder with the database and artefacts of a sweep that embedded the sets; kept for the next time."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_routerbench"
    folder.mkdir(exist_ok=True)
    (folder / "prime.yaml").write_text(yaml.safe_dump(sweep("prime", SETS, [{"name": "knn@1", "use": "knn", "k": 1}])))
    roadtest("run", "prime.yaml", "--no-report", "--executor", "local", cwd=folder, env=_env(), timeout=3600)
    return folder


def _env() -> dict[str, str]:
    return {"ROADTEST_SHARED": os.environ["ROADTEST_SHARED"]}


def ours(folder: Path, *options: str) -> Measurement:
    """The sweep, wall seconds."""
    return measured(partial(roadtest, "run", "sweep.yaml", *options, cwd=folder, env=_env(), timeout=3600))


def areas_of(folder: Path) -> Areas:
    """`auc_path` by set and router."""
    rows = select(folder, "SELECT benchmark, router, auc_path_mean FROM leaderboard WHERE sweep = 'sweep'")
    return {(benchmark.rpartition("/")[2], router): area for benchmark, router, area in rows}


def written(folder: Path, benchmark: Benchmark, X: Floats, sets: Sequence[str]) -> None:
    """RouterBench's wide tables of our splits, and the rows of their prompts."""
    wide = pd.concat(pd.read_csv(path) for path in sorted((table().parents[1] / "raw/routerbench").glob("*.csv")))
    scores = [model.name for model in benchmark.models]
    wide = wide.dropna(subset=scores).drop_duplicates("sample_id")
    wide = wide.set_index("rb_" + wide["sample_id"])
    place = {query: row for row, query in enumerate(benchmark.queries)}
    for task in sets:
        some = benchmark.restrict(tasks=[task])
        split = split_benchmark(some, 0)
        (folder / task).mkdir()
        for side, rows in (("train", split.train), ("test", split.test)):
            ids = [some.queries[row] for row in rows if some.queries[row] in wide.index]
            wide.loc[ids].to_csv(folder / task / f"{side}.csv", index=False)
    np.save(folder / "rows.npy", X)
    (folder / "rows.json").write_text(json.dumps({wide.at[id, "prompt"]: place[id] for id in wide.index}))


def own_code(checkout: str, benchmark: Benchmark, X: Floats, sets: Sequence[str]) -> tuple[Measurement, Areas]:
    """RouterBench's own evaluation: seconds, and `auc_path` over its 32 prices by set and router."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as scratch:
        written(Path(scratch), benchmark, X, sets)
        command = [sys.executable, str(Path(__file__).with_name("routerbench_side.py")), checkout, scratch]

        def seconds() -> float:
            ran = subprocess.run(command, capture_output=True, text=True)
            if ran.returncode:
                said = (ran.stderr.strip() or "no message").splitlines()[-1]
                raise NotMeasuredError(f"{VARIABLE}={checkout}: {said}")
            found.update(json.loads(ran.stdout))
            return float(found["seconds"])

        measurement = observed(seconds)
    path_areas: Areas = {}
    for task, points in found["points"].items():
        c_ref = benchmark.restrict(tasks=[task]).c_ref
        for name in {point[0] for point in points}:
            path = sorted((pays, cost / c_ref, score) for router, pays, cost, score in points if router == name)
            pays, costs, scores = np.array(path).T
            path_areas[task, name] = areas.auc_path(
                Frontier(costs=costs[::-1], scores=scores[::-1], prices=1 / pays[::-1])
            )
    return measurement, path_areas


def figures(
    sets: Sequence[str] = SETS, runs: int = RUNS, threads: int | None = None, *, steps: bool = False
) -> list[Figure]:
    """Sweeps against one loop, whose threads may be limited."""
    X = np.load(rows_file())
    benchmark = load_benchmark("rb", path=table(), embed="question")
    found: list[Loop] = []
    with threadpool_limits(limits=threads):
        slow = measured(lambda: found.append(usual(benchmark, X, sets)))
    [loop] = found
    others = [("", "scikit-learn loop", slow, loop.areas)]
    if checkout := os.environ.get(VARIABLE):
        others.append((", its own code", "its own code, 32 prices", *own_code(checkout, benchmark, X, sets)))
    home = primed()

    def against(name: str, routers: Sequence[Mapping[str, Any]], *options: str, **wanted: float) -> list[Figure]:
        (home / "sweep.yaml").write_text(yaml.safe_dump(sweep("sweep", sets, routers)))
        taken: list[Measurement] = []
        mine: Areas = {}
        for _ in range(runs):
            with tempfile.TemporaryDirectory(prefix="rt-bench-") as scratch:
                folder = Path(scratch) / "home"
                shutil.copytree(home, folder)
                taken.append(ours(folder, *options))
                mine = areas_of(folder)
        said = " ".join(["`roadtest run`", *options])
        return [
            figure(
                f"RouterBench's evaluation{other}{name}",
                ours=(said, taken),
                against=(theirs, [seconds]),
                facts=differences(sets, mine, path_areas),
                **wanted,
            )
            for other, theirs, seconds, path_areas in others
        ]

    listed = [*against("", same_work(), wanted=20.0), *against(", no Ray", same_work(), "--executor", "local")]
    if steps:
        of = {name: epochs(benchmark, loop, sets, name) for name in NETWORKS}
        listed += against(", equal steps", same_work(of))
    return listed


def differences(sets: Sequence[str], mine: Areas, theirs: Areas) -> dict[str, Any]:
    """Areas of both sides, set against each other."""
    found = {" ".join(key): mine[key] - area for key, area in theirs.items()}
    return {
        "sets": ", ".join(sets),
        "auc_path, ours minus theirs, mean": float(np.mean(list(found.values()))),
        "auc_path, ours minus theirs": ", ".join(f"{key} {value:+.2f}" for key, value in found.items()),
    }


def main() -> None:
    """Print the figures."""
    from tests.benchmarks.run import row

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--threads", type=int, help="of the loop; default: scikit-learn's")
    parser.add_argument("--steps", action="store_true", help="also with as many steps as scikit-learn's networks took")
    asked = parser.parse_args()
    found = figures(asked.sets, asked.runs, asked.threads, steps=asked.steps)
    sys.stdout.write("".join(row(each.as_json()) for each in found))


if __name__ == "__main__":
    main()
