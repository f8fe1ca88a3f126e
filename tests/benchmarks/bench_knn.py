"""How long does a whole kNN study take, in units of one float32 X @ X.T with the 600 largest of each row?

    ROADTEST_SHARED=... python -m tests.benchmarks.bench_knn [--rounds 5] [--one-thread]

MMLU-Pro (`mmlu_pro`, 11 861 queries x 30 models) under MiniLM (384 dimensions), 10 splits x 20 log-spaced k from 1 to
400 x 3 weightings. Ours: `workers.evaluate.run_evaluate`, which a worker calls for a shard, with one tuned unit per
split. Its router is the product's own kNN but for the grid that it is tuned over: its `candidates` are these 60 and not
random draws. So it searches, predicts all 60 on the validation side, draws each one's exact path over all prices of
cost, takes the best by `auc_path`, and computes every metric of the choice (and zero-router and oracle, which metrics
are relative to) on the test side; the bootstrap of intervals is off. The floor: the product of all rows with all rows
in blocks of 2048 (so that it need not hold 11 861 squared) and `np.argpartition`, or `torch.topk` where that is faster.

Rounds alternate the two, on one thread each, and then on two cores: ours as two workers of five splits each, the floor
on two threads. Prints medians of seconds and of the rounds' ratios. On one thread seconds are of the process's CPU,
which other work on the machine disturbs less; on two cores they are wall seconds.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import Benchmark
from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.evaluate import run_evaluate
from workers.routers.base import routers
from workers.routers.knn import KNN, Weights
from workers.routers.shortlists import Floats32
from workers.units import EvaluateResult, EvaluateUnit, ProtocolOptions

SPLITS, WORKERS = range(10), 2
LARGEST = 600
FLOOR_BLOCK = 2048


class KNNGrid(KNN):
    """The product's kNN, tuned over the benchmark's grid."""

    name = "knn-grid"

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """All points of the grid."""
        return [
            {"k": k, "similarity": "cosine", "weights": weights, "tau": 0.1}
            for k in log_spaced()
            for weights in get_args(Weights)
        ]


def log_spaced(n: int = 20, most: int = 400) -> list[int]:
    """n different whole numbers from 1 to most, as nearly log-spaced as whole numbers are."""
    ks: list[int] = []
    for k in np.geomspace(1, most, n):
        ks.append(max(round(float(k)), ks[-1] + 1 if ks else 1))
    return ks


@cache
def data(rows: Path) -> tuple[Benchmark, Floats32]:
    """MMLU-Pro and its embedding."""
    return load(), np.load(rows)


def load() -> Benchmark:
    """MMLU-Pro of the shared data."""
    path = Path(os.environ["ROADTEST_SHARED"]) / "data/tables/mmlu_pro"
    return load_benchmark("mmlu-pro", path=path, embed="question")


def embedded(path: Path) -> None:
    """Write MiniLM's rows, which both sides are given."""
    encoder, unique = make_encoder("minilm"), unique_inputs(load(), "text")
    rows = [normalized(encoder.encode(unique.inputs[i : i + 64])) for i in range(0, len(unique.inputs), 64)]
    np.save(path, np.concatenate(rows)[unique.row_of_query])


def ours(rows: Path, splits: Sequence[int]) -> list[EvaluateResult]:
    """Tune on every split's grid and measure the choices on its test side."""
    routers().setdefault(KNNGrid.name, KNNGrid)
    options = ProtocolOptions(bootstrap=0, tuning_budget=60)
    units = [
        EvaluateUnit(key=f"{split}", router=KNNGrid.name, params={}, tuned=True, split=split, protocol=options)
        for split in splits
    ]
    results = run_evaluate(units, *data(rows))
    for result in results:
        assert isinstance(result, EvaluateResult), result
        assert result.chosen is not None and len(result.chosen["scores"]) == 60
    return results  # type: ignore[return-value]


def floor(X: Floats32, *, by_torch: bool) -> None:
    """All similarities, and the positions of the 600 largest of each row."""
    for start in range(0, len(X), FLOOR_BLOCK):
        if by_torch:
            torch.topk(torch.from_numpy(X[start : start + FLOOR_BLOCK]) @ torch.from_numpy(X).T, LARGEST)
        else:
            np.argpartition(X[start : start + FLOOR_BLOCK] @ X.T, len(X) - LARGEST, axis=1)[:, -LARGEST:].copy()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one-thread", action="store_true", help="leave the two workers out")
    arguments = parser.parse_args()
    rows = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_knn_minilm.npy"
    if not rows.exists():
        embedded(rows)
    X = data(rows)[1]
    ours(rows, [0]), fastest_floor(X, process_time)  # imports, and the first memory
    taken: dict[str, list[float]] = {}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers:
        if not arguments.one_thread:
            list(workers.map(ours, [rows] * WORKERS, [[0]] * WORKERS))  # the same of workers
        for _ in range(arguments.rounds):
            with threadpool_limits(limits=1):
                torch.set_num_threads(1)
                figures = {
                    "floor": fastest_floor(X, process_time),
                    "ours": timed(partial(ours, rows, SPLITS), process_time),
                }
            if not arguments.one_thread:
                torch.set_num_threads(WORKERS)
                halves = [[split for split in SPLITS if split % WORKERS == i] for i in range(WORKERS)]
                figures["floor, 2 threads"] = fastest_floor(X, perf_counter)
                figures["ours, 2 workers"] = timed(partial(in_workers, workers, rows, halves), perf_counter)
            print(json.dumps({name: round(value, 2) for name, value in figures.items()}), flush=True)  # noqa: T201
            for name, value in figures.items():
                taken.setdefault(name, []).append(value)
    for name, values in taken.items():
        under = taken["floor, 2 threads" if "2" in name else "floor"]
        ratio = median(a / b for a, b in zip(values, under, strict=True))
        print(json.dumps({"what": name, "seconds": round(median(values), 2), "times floor": round(ratio, 2)}))  # noqa: T201


def fastest_floor(X: Floats32, clock: Callable[[], float]) -> float:
    """Seconds of the faster library."""
    return min(timed(partial(floor, X, by_torch=by), clock) for by in (True, False))


def in_workers(workers: ProcessPoolExecutor, rows: Path, halves: list[list[int]]) -> None:
    """Some of the splits in each worker."""
    list(workers.map(ours, [rows] * WORKERS, halves))


def timed(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds by this clock."""
    begin = clock()
    work()
    return clock() - begin


if __name__ == "__main__":
    main()
