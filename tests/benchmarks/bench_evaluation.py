"""How fast are a kNN study and a frontier, against the loops that people write? One thread."""

from __future__ import annotations

import numpy as np
from sklearn.neighbors import KNeighborsRegressor
from threadpoolctl import threadpool_limits

from tests.benchmarks.measuring import Figure, compared
from workers.benchmarks.load import load_benchmark
from workers.embed import normalized, unique_inputs
from workers.encoders.base import make_encoder
from workers.evaluate import run_evaluate
from workers.metrics.frontier import GRID_PRICES, exact_walk
from workers.routers.base import Prediction
from workers.splits import split_benchmark
from workers.units import EvaluateUnit, ProtocolOptions

SPLITS = range(5)
KS = (10, 100)


def knn_study() -> list[Figure]:
    """A kNN study against scikit-learn, whose neighbours are searched again for every price of cost."""
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

    with threadpool_limits(limits=1):
        return [
            compared(
                "knn study",
                ours=(
                    "toolbox, k = 10 and 100, 5 splits, every price of cost",
                    lambda: run_evaluate(units, benchmark, X),
                ),
                against=("KNeighborsRegressor, predicts again at each of 32 prices", loop),
                cpu=True,
            )
        ]


def frontier() -> list[Figure]:
    """All operating points of 2400 queries x 30 models: the exact walk, and argmax at each of its own prices."""
    rng = np.random.default_rng(0)
    scores, costs = rng.random((2400, 30)), rng.random((2400, 30))
    prediction = Prediction(scores=scores, costs=costs)
    prices = exact_walk(prediction, scores, costs).path().prices

    def loop() -> None:
        for price in prices:
            chosen = (scores - price * costs).argmax(axis=1)[:, None]
            np.take_along_axis(scores, chosen, axis=1).mean(), np.take_along_axis(costs, chosen, axis=1).mean()

    with threadpool_limits(limits=1):
        return [
            compared(
                "exact frontier",
                ours=(
                    "2400 queries x 30 models, every operating point",
                    lambda: exact_walk(prediction, scores, costs).path(),
                ),
                against=("argmax at each of the same prices", loop),
                cpu=True,
            )
        ]
