from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from workers.benchmarks.base import Benchmark, Model
from workers.routers.base import Side


@pytest.fixture
def make_side() -> Callable[..., Side]:
    """Sides from plain arrays; models are named m0, m1, ... and every query is its own group."""

    def make(X: object, scores: object, costs: object, tasks: tuple[str, ...] | None = None) -> Side:
        matrix = np.asarray(X, dtype=np.float32)
        matrix.flags.writeable = False
        n = len(matrix)
        S, C = np.asarray(scores, dtype=np.float64), np.asarray(costs, dtype=np.float64)
        return Side(
            rows=np.arange(n),
            matrix=matrix,
            embedding_rows=np.arange(n),
            tasks=tasks or ("",) * n,
            groups=np.arange(n),
            models=tuple(Model(name=f"m{j}") for j in range(S.shape[1])),
            scores=S,
            costs=np.where(np.isnan(S), np.nan, C),
        )

    return make


@pytest.fixture
def random_sides(make_side: Callable[..., Side]) -> Callable[..., tuple[Side, Side]]:
    """A training side with unobserved cells, and queries whose outcomes are hidden, in one embedding matrix."""

    def make(
        *, n_train: int = 80, n_queries: int = 30, dim: int = 6, n_models: int = 4, seed: int = 0
    ) -> tuple[Side, Side]:
        rng = np.random.default_rng(seed)
        n = n_train + n_queries
        X = rng.normal(size=(n, dim))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        scores = (rng.random((n, n_models)) < 0.6).astype(float)
        scores[rng.random((n, n_models)) < 0.1] = np.nan
        costs = rng.random((n, n_models)) * np.linspace(0.2, 1.0, n_models)
        everything = make_side(X, scores, costs, tuple(f"t{i % 3}" for i in range(n)))
        order = rng.permutation(n)
        train, queries = np.sort(order[:n_train]), np.sort(order[n_train:])
        return _part(everything, train), replace(_part(everything, queries), scores=None, costs=None)

    return make


def _part(side: Side, rows: np.ndarray) -> Side:
    assert side.scores is not None and side.costs is not None
    return replace(
        side,
        rows=rows,
        embedding_rows=rows,
        tasks=tuple(side.tasks[i] for i in rows),
        groups=side.groups[rows],
        scores=side.scores[rows],
        costs=side.costs[rows],
    )


@pytest.fixture
def learnable() -> tuple[Benchmark, np.ndarray]:
    """A benchmark whose best model can be read off the embedding, with repeated prompts and a few unobserved cells."""
    rng = np.random.default_rng(7)
    n, n_models, dim = 420, 4, 8
    prompt = rng.integers(0, 400, size=n)
    points = rng.normal(size=(400, dim))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    X = points[prompt].astype(np.float32)
    chance = 1 / (1 + np.exp(-4 * X[:, :n_models]))
    S = (rng.random((n, n_models)) < chance).astype(float)
    C = np.linspace(0.001, 0.01, n_models) * rng.uniform(0.5, 1.5, size=(n, n_models))
    S[rng.random((n, n_models)) < 0.02] = np.nan
    benchmark = Benchmark.build(
        name="learnable",
        queries=[f"q{i:04d}" for i in range(n)],
        prompts=[f"prompt {p}" for p in prompt],
        models=[Model(name=f"m{j}") for j in range(n_models)],
        S=S,
        C=C,
        tasks=[f"t{i % 2}" for i in range(n)],
    )
    X.flags.writeable = False
    return benchmark, X
