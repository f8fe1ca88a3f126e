"""How long does a whole kNN study take, in units of one float32 X @ X.T with the 600 largest of each row?

    ROADTEST_SHARED=... python -m tests.benchmarks.bench_knn [--rounds 5] [--one-thread]

MMLU-Pro (`mmlu_pro`, 11 861 queries x 30 models) under MiniLM (384 dimensions), 10 splits x 20 log-spaced k from 1 to
400 x 3 weightings. Ours: `workers.evaluate.run_evaluate`, which a worker calls for a shard, with one tuned unit per
split. Its router is the product's own kNN but for the grid that it is tuned over: its `candidates` are these 60 and not
random draws. So it searches, predicts all 60 on the validation side, draws each one's exact path over all prices of
cost, takes the best by `auc_path`, and computes every metric of the choice (and zero-router and oracle, which metrics
are relative to) on the test side; the bootstrap of intervals is off. The floor: the product of all rows with all rows
in blocks of 2048 (so that it need not hold 11 861 squared) and `np.argpartition`, or `torch.topk` where that is faster.

Rounds alternate the two, on one thread each, and after that on two cores: ours as two workers of five splits each, the
floor on two threads. On one thread seconds are of the process's CPU, which other work on the machine disturbs less; on
two cores they are wall seconds. Ratios are the floor's seconds over ours: 1/3 is three times the floor.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, get_args

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from tests.benchmarks.measuring import RUNS, Clock, Figure, Measurement, NotMeasuredError, figure, measured
from workers.benchmarks.base import Benchmark
from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.evaluate import run_evaluate
from workers.routers.base import routers
from workers.routers.knn import KNN
from workers.routers.neighbour_answers import Weights
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
    return load_benchmark("mmlu-pro", path=table(), embed="question")


def table() -> Path:
    """MMLU-Pro in the shared data."""
    return Path(os.environ["ROADTEST_SHARED"]) / "data/tables/mmlu_pro"


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


def fastest_floor(X: Floats32, clock: Clock) -> Measurement:
    """The floor by the faster library."""
    return min((measured(partial(floor, X, by_torch=by), clock) for by in (True, False)), key=lambda found: found.value)


def one_thread(rows: Path, runs: int) -> Figure:
    """CPU seconds of one thread."""
    X = data(rows)[1]
    mine, floors = [], []
    with threadpool_limits(limits=1), torch_threads(1):
        ours(rows, [0]), fastest_floor(X, process_time)  # imports, and the first memory
        for _ in range(runs):
            floors.append(fastest_floor(X, process_time))
            mine.append(measured(partial(ours, rows, SPLITS), process_time))
    return compared_with_floor("grid of knn", "10 splits x 60 configurations", mine, floors, "CPU s")


def two_workers(rows: Path, runs: int) -> Figure:
    """Wall seconds of as many workers as the floor has threads."""
    X = data(rows)[1]
    mine, floors = [], []
    halves = [[split for split in SPLITS if split % WORKERS == i] for i in range(WORKERS)]
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as workers, torch_threads(WORKERS):
        in_workers(workers, rows, [[0]] * WORKERS)
        fastest_floor(X, perf_counter)
        for _ in range(runs):
            floors.append(fastest_floor(X, perf_counter))
            mine.append(measured(partial(in_workers, workers, rows, halves)))
    return compared_with_floor("grid of knn, two workers", "5 splits x 60 configurations each", mine, floors, "s")


def compared_with_floor(name: str, work: str, mine: list[Measurement], floors: list[Measurement], unit: str) -> Figure:
    """The figure of alternating runs."""
    against = (f"X @ X.T and its {LARGEST} largest, the faster of numpy and torch", floors)
    return figure(name, ours=(work, mine), against=against, unit=unit, wanted=1 / 3)


def in_workers(workers: ProcessPoolExecutor, rows: Path, splits: list[list[int]]) -> None:
    """Some of the splits in each worker."""
    list(workers.map(ours, [rows] * WORKERS, splits))


@contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """So many threads of torch's."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def rows_file() -> Path:
    """MiniLM's rows, made at the first call."""
    if "ROADTEST_SHARED" not in os.environ or not table().exists():
        raise NotMeasuredError("no data/tables/mmlu_pro under ROADTEST_SHARED")
    rows = Path(os.environ.get("TMPDIR", "/tmp")) / "bench_knn_minilm.npy"
    if not rows.exists():
        embedded(rows)
    return rows


def figures(runs: int = RUNS, *, workers: bool = True) -> list[Figure]:
    """On one thread, and by two workers unless they are left out."""
    rows = rows_file()
    return [one_thread(rows, runs)] + ([two_workers(rows, runs)] if workers else [])


def main() -> None:
    """Print the figures."""
    from tests.benchmarks.run import row

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=RUNS)
    parser.add_argument("--one-thread", action="store_true", help="leave the two workers out")
    asked = parser.parse_args()
    found = figures(asked.rounds, workers=not asked.one_thread)
    sys.stdout.write("".join(row(each.as_json()) for each in found))


if __name__ == "__main__":
    main()
