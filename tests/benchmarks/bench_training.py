"""What does training eight fits as one batched model bring, against the same fits one after the other?

    python -m tests.benchmarks.bench_training [ROUTER ...]

Both sides run in one process on one thread, the members first alone, then together, on generated data of the size of
RouterBench's rows (2215 training queries, 11 models, 384 dimensions). Prints CPU seconds per fit and their ratio.
"""

from __future__ import annotations

import json
import sys
from time import process_time

import numpy as np

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


def seconds_per_fit(cls: type[TrainedRouter], train: Side, *, together: bool) -> float:
    """CPU seconds of each of eight fits with seeds of their own."""
    params = {"k": 10} if "k" in cls().params() else {}
    jobs = [
        FitJob(router=cls(**params), train=train, queries=train, rng=np.random.default_rng(i)) for i in range(TOGETHER)
    ]
    begin = process_time()
    for group in [jobs] if together else [[job] for job in jobs]:
        train_members(group, lambda i, router, seconds: None)
    return (process_time() - begin) / len(jobs)


def main() -> None:
    """Measure the named routers, or all that train and need no more than tasks."""
    train = side()
    known = {name: cls for name, cls in routers().items() if issubclass(cls, TrainedRouter)}
    names = sys.argv[1:] or [name for name, cls in known.items() if not set(cls().requirements()) - {"task"}]
    for name in names:
        seconds_per_fit(known[name], train, together=False)  # warm
        alone, together = (seconds_per_fit(known[name], train, together=way) for way in (False, True))
        figures = {"router": name, "alone_s": round(alone, 3), "together_s": round(together, 3)}
        print(json.dumps({**figures, "ratio": round(alone / together, 2)}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
