"""What does training eight fits as one batched model bring, against the same fits one after the other?

    python -m tests.benchmarks.bench_training [ROUTER ...]

Both sides run in one process on one thread, the members first alone, then together, on generated data of the size of
RouterBench's rows (2215 training queries, 11 models, 384 dimensions). Prints CPU seconds per fit and their ratio.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from time import process_time

import numpy as np

from tests.benchmarks.measuring import Figure, Measurement, figure, measured
from workers.benchmarks.base import Model
from workers.routers.base import FitJob, Side, routers
from workers.training import TOGETHER, TrainedRouter, train_members

N, N_MODELS, DIM = 2215, 11, 384


def side() -> Side:
    """Random unit rows, and scores that depend on them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(N, DIM)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = (rng.random((N, N_MODELS)) < 0.5 + 2 * X[:, :N_MODELS]).astype(float)
    rows = np.arange(N)
    return Side(
        rows=rows,
        matrix=X,
        embedding_rows=rows,
        tasks=tuple(f"task {i % 3}" for i in rows),
        groups=rows,
        models=tuple(Model(name=f"m{j:02d}") for j in range(N_MODELS)),
        scores=scores,
        costs=rng.random((N, N_MODELS)) * np.linspace(0.05, 1, N_MODELS),
    )


def fits(cls: type[TrainedRouter], train: Side, *, together: bool) -> None:
    """Eight fits with seeds of their own."""
    params = {"k": 10} if "k" in cls().params() else {}
    jobs = [
        FitJob(router=cls(**params), train=train, queries=train, rng=np.random.default_rng(i)) for i in range(TOGETHER)
    ]
    for group in [jobs] if together else [[job] for job in jobs]:
        train_members(group, lambda i, router, seconds: None)


def figures(names: Sequence[str] = (), *, runs: int = 1) -> list[Figure]:
    """The named routers, or all that train and need no more than tasks."""
    train = side()
    known = {name: cls for name, cls in routers().items() if issubclass(cls, TrainedRouter)}
    found = []
    for name in names or [name for name, cls in known.items() if not set(cls().requirements()) - {"task"}]:
        both: dict[bool, list[Measurement]] = {True: [], False: []}
        for _ in range(runs):
            for together in both:
                both[together].append(measured(partial(fits, known[name], train, together=together), process_time))
        found.append(
            figure(
                f"training, {name}",
                ours=(f"{TOGETHER} fits as one batched model", both[True]),
                against=("one after another", both[False]),
                unit="CPU s",
            )
        )
    return found


def main() -> None:
    """Print CPU seconds per fit and their ratio."""
    for found in figures(sys.argv[1:]):
        own, alone = (value / TOGETHER for value in (found.ours_value, found.against_value))
        print(json.dumps({"router": found.name, "alone_s": alone, "together_s": own, "ratio": found.ratio}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
