"""How often do upper bounds of AUC(full) - AUC(n) fail, by the n_test/n_train they take? Run as a module.

`python -m tests.benchmarks.curve_bounds [DATA SETS]`. Queries are normal in 4 dimensions, scores of 4 models logistic
in them; a router's utility (mean over the three preferences, x 100) at n nested labels is compared with that at all of
them, over 10 splits of 400 queries. A bound fails where it lies below the mean of all data sets. `effective` is the
ratio at which the corrected variance would be right: that of the means over data sets, over s^2, minus 1/K.
"""

from __future__ import annotations

import sys

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

QUERIES, SPLITS = 400, 10
TRAIN, TEST = 280, 80
FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.7)
COSTS = np.array([0.05, 0.2, 0.5, 1.0])
EASE = np.array([-0.5, 0.0, 0.3, 0.6])

Floats = npt.NDArray[np.float64]


def utility(router: str, train: tuple[Floats, Floats], test: tuple[Floats, Floats]) -> float:
    """Mean utility x 100 over the preferences of a router fitted on labelled queries."""
    model = KNeighborsRegressor(min(10, len(train[0]))) if router == "knn" else Ridge(1.0)
    predicted = model.fit(*train).predict(test[0])
    found = 0.0
    for price in (0.1, 0.5, 1.0):
        chosen = (predicted - price * COSTS).argmax(axis=1)
        found += float((test[1][np.arange(len(chosen)), chosen] - price * COSTS[chosen]).mean())
    return 100 * found / 3


def differences(router: str, weights: Floats, rng: np.random.Generator) -> Floats:
    """Full minus smaller size on each split of one drawn data set. [SPLITS, sizes]"""
    X = rng.normal(size=(QUERIES, len(weights)))
    scores = (rng.random((QUERIES, len(EASE))) < 1 / (1 + np.exp(-(X @ weights + EASE)))).astype(float)
    rows = []
    for _ in range(SPLITS):
        order = rng.permutation(QUERIES)
        train, test = order[:TRAIN], order[-TEST:]
        held = (X[test], scores[test])
        full = utility(router, (X[train], scores[train]), held)
        nested = [train[: int(np.ceil(fraction * TRAIN))] for fraction in FRACTIONS]
        rows.append([full - utility(router, (X[own], scores[own]), held) for own in nested])
    return np.array(rows)


def main(n_sets: int) -> None:
    """Print failures in per cent."""
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(4, 4))
    quantile = float(stats.t.ppf(0.95, SPLITS - 1))
    print("| router | part of the labels | effective | fails: n_test/N | n_test/n | 0 |\n|---|---|---|---|---|---|")  # noqa: T201
    for router in ("knn", "ridge"):
        drawn = np.array([differences(router, weights, rng) for _ in range(n_sets)])
        means, sds = drawn.mean(axis=1), drawn.std(axis=1, ddof=1)
        for i, fraction in enumerate(FRACTIONS):
            true = means[:, i].mean()
            effective = means[:, i].var(ddof=1) / np.mean(sds[:, i] ** 2) - 1 / SPLITS
            rates = [
                100 * np.mean(means[:, i] + quantile * sds[:, i] * np.sqrt(1 / SPLITS + ratio) < true)
                for ratio in (TEST / TRAIN, TEST / (TRAIN * fraction), 0.0)
            ]
            said = " | ".join(f"{rate:.1f}" for rate in rates)
            print(f"| {router} | {fraction:g} | {effective:.3f} | {said} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
