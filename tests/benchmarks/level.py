"""How often does the mean over suites err where the true mean is 0? `python -m tests.benchmarks.level [REPETITIONS]`.

Differences are drawn as the tests assume them: splits of a suite correlate by n_test / (n_train + n_test), and suites
differ by a normal of sd tau, in median standard errors of a suite. "Unequal" spreads are log-normal (log sd 1).
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.random import Generator, default_rng

from orchestrator.analysis.corrected_t import nadeau_bengio
from orchestrator.analysis.random_effects import random_effects

SPLITS, N_TRAIN, N_TEST = 10, 700, 200
RHO = N_TEST / (N_TRAIN + N_TEST)


def draw(n: int, tau: float, unequal: bool, rng: Generator) -> tuple[bool, bool]:
    """Whether the test rejects at 5 %, and whether the prediction interval holds one more suite's true difference."""
    spreads = np.exp(rng.normal(0, float(unequal), n))
    between = tau * np.sqrt((1 - RHO) / SPLITS + RHO)
    true = rng.normal(0, between, n)
    shared, own = rng.normal(size=(n, 1)), rng.normal(size=(n, SPLITS))
    d = true[:, None] + spreads[:, None] * (np.sqrt(RHO) * shared + np.sqrt(1 - RHO) * own)
    tests = [nadeau_bengio(one, N_TRAIN, N_TEST) for one in d]
    found = random_effects([test.mean for test in tests], [test.se**2 for test in tests])
    low, high = found.prediction
    return found.p < 0.05, bool(low <= rng.normal(0, between) <= high)


def main(repetitions: int) -> None:
    """Print the rates in per cent."""
    print("| suites | spreads | tau | rejects a true null | new suite held |\n|---|---|---|---|---|")  # noqa: T201
    for n in (2, 3, 5, 10, 20):
        for unequal in (False, True):
            for tau in (0.0, 0.5, 2.0):
                rng = default_rng(1)
                rates = 100 * np.mean([draw(n, tau, unequal, rng) for _ in range(repetitions)], axis=0)
                spread = "unequal" if unequal else "equal"
                print(f"| {n} | {spread} | {tau:g} | {rates[0]:.1f} | {rates[1]:.1f} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
