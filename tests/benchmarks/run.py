"""How fast is the evaluation, as ratios against a named alternative in the same run? `make bench`.

Wall-clock seconds depend on the machine; the ratios are what is quoted. Medians of five runs each, one thread.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from time import perf_counter

import numpy as np
from sklearn.neighbors import KNeighborsRegressor
from threadpoolctl import threadpool_limits

from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.evaluate import run_evaluate
from workers.metrics.frontier import GRID_PRICES, exact_walk
from workers.routers.base import Prediction
from workers.splits import split_benchmark
from workers.units import EvaluateUnit, ProtocolOptions

RUNS = 5
SPLITS = range(5)
KS = (10, 100)


def seconds(work: Callable[[], object]) -> float:
    """Median wall-clock seconds of `RUNS` runs after one that is not counted."""
    work()
    taken = []
    for _ in range(RUNS):
        begin = perf_counter()
        work()
        taken.append(perf_counter() - begin)
    return statistics.median(taken)


def knn_study() -> tuple[float, float]:
    """kNN at two k on five splits: ours (every price of cost, all metrics) and scikit-learn at 32 prices.

    The alternative is the usual loop: one regressor per split and k, neighbours searched again for every price.
    """
    benchmark = load_benchmark("toolbox")
    encoder, unique = make_encoder("hash-ngrams"), unique_inputs(benchmark, "text")
    inputs = unique.inputs
    rows = np.concatenate([normalized(encoder.encode(inputs[i : i + 64])) for i in range(0, len(inputs), 64)])
    X, S, C = rows[unique.row_of_query], benchmark.S, benchmark.C / benchmark.c_ref
    units = [
        EvaluateUnit(key=f"{k}-{i}", router="knn", params={"k": k}, split=i, protocol=ProtocolOptions(bootstrap=0))
        for k in KS
        for i in SPLITS
    ]

    def loop() -> None:
        for k in KS:
            for i in SPLITS:
                split = split_benchmark(benchmark, i)
                model = KNeighborsRegressor(n_neighbors=k).fit(X[split.train], np.hstack([S, C])[split.train])
                for price in GRID_PRICES:
                    scores, costs = np.hsplit(model.predict(X[split.test]), 2)
                    chosen = (scores - price * costs).argmax(axis=1)
                    np.take_along_axis(S[split.test], chosen[:, None], axis=1).mean()

    return seconds(lambda: run_evaluate(units, benchmark, X)), seconds(loop)


def frontier() -> tuple[float, float]:
    """All operating points of 2400 queries x 30 models: the exact walk, and argmax at each of its own prices."""
    rng = np.random.default_rng(0)
    scores, costs = rng.random((2400, 30)), rng.random((2400, 30))
    prediction = Prediction(scores=scores, costs=costs)
    prices = exact_walk(prediction, scores, costs).path().prices

    def loop() -> None:
        for price in prices:
            chosen = (scores - price * costs).argmax(axis=1)[:, None]
            np.take_along_axis(scores, chosen, axis=1).mean(), np.take_along_axis(costs, chosen, axis=1).mean()

    return seconds(lambda: exact_walk(prediction, scores, costs).path()), seconds(loop)


def main() -> None:
    """Print a table of ratios."""
    write = sys.stdout.write
    write(f"{'benchmark':<44}{'roadtest s':>12}{'loop s':>10}{'ratio':>8}\n")
    with threadpool_limits(limits=1):
        for name, work in (
            ("knn study against scikit-learn per price", knn_study),
            ("exact frontier against argmax per price", frontier),
        ):
            ours, theirs = work()
            write(f"{name:<44}{ours:>12.4f}{theirs:>10.3f}{theirs / ours:>8.0f}\n")


if __name__ == "__main__":
    main()
