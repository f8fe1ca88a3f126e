"""Is performance local in the embedding: correlation, curves, dimension, and a picture."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark
from workers.errors import MeasureError
from workers.measures.base import Measure
from workers.metrics.locality import (
    Floats,
    centred,
    correlation,
    curve,
    differences,
    dimension,
    merged,
    undefined_share,
)
from workers.seeding import generator
from workers.sides import cost_ratios
from workers.units import PREFERENCES, Finding, MeasureUnit, ProtocolOptions

#: Queries, drawn by seed, whose pairs the curves and the picture are made of.
DRAWN = 1000


class Locality(Measure):
    """Protocol 6, over all queries of the benchmark; queries with equal embeddings count once.

    Findings: `correlation`, `p`, `p_within_task` of agreement with distance; `dimension`; `undefined_share`;
    `agreement` (x = distance, low and high = middle 95 % of permutations); `apart` labelled `score` or a preference
    (x = distance, value = mean, high = 0.9 quantile of the difference); `map` (x, value = plane of the two widest
    directions, label = best model, the cheapest of several).
    """

    name: ClassVar[str] = "locality"
    summary = "whether performance is local in the embedding, beside its permutation null"

    def __init__(self, *, permutations: int = 999) -> None:
        if type(permutations) is not int or permutations < 19:
            raise ValueError(f"permutations is {permutations!r}; give a whole number, at least 19.")
        self.permutations = permutations

    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Compute."""
        if embedding is None:
            raise MeasureError("locality is of an embedding; name an encoder.")
        names, numbers = np.unique(np.array(benchmark.tasks), return_inverse=True)
        X, scores, tasks = merged(embedding, benchmark.S, numbers.astype(np.int64))
        Z = centred(scores)
        rng = generator(unit.root_seed, "locality")
        found = [
            Finding(quantity="queries", value=float(len(X))),
            Finding(quantity="tasks", value=float(len(names))),
            Finding(quantity="dimension", value=dimension(X)),
            Finding(quantity="undefined_share", value=undefined_share(scores)),
        ]
        related = correlation(X, Z, tasks, rng, permutations=self.permutations)
        if related is not None:
            found += [
                Finding(quantity="correlation", value=related.value),
                Finding(quantity="p", value=related.p),
                Finding(quantity="p_within_task", value=related.p_within_task),
            ]
        drawn = np.sort(rng.permutation(len(X))[:DRAWN])
        shape = curve(X[drawn], Z[drawn], rng, permutations=min(self.permutations, 199))
        if shape is not None:
            found += [
                Finding(quantity="agreement", x=float(x), value=float(y), low=float(low), high=float(high))
                for x, y, low, high in zip(shape.distance, shape.agreement, shape.low, shape.high, strict=True)
            ]
        some = np.sort(rng.permutation(benchmark.n_queries)[:DRAWN])
        return found + _apart(benchmark, embedding, some) + _map(benchmark, embedding, some)


def _apart(benchmark: Benchmark, embedding: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> list[Finding]:
    costs = cost_ratios(benchmark, ProtocolOptions())
    values: dict[str, Floats] = {"score": benchmark.S}
    values |= {name: benchmark.S - price * costs for name, price in PREFERENCES.items()}
    X = embedding[rows].astype(np.float64)
    found = []
    for label, each in values.items():
        shape = differences(X, each[rows])
        for x, mean, upper in zip(*shape, strict=True) if shape is not None else ():
            found.append(Finding(quantity="apart", label=label, x=float(x), value=float(mean), high=float(upper)))
    return found


def _map(benchmark: Benchmark, embedding: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> list[Finding]:
    complete = rows[benchmark.complete[rows]]
    if len(complete) < 3 or embedding.shape[1] < 2:
        return []
    X = embedding[complete].astype(np.float64)
    X = X - X.mean(axis=0)
    _, vectors = np.linalg.eigh(X.T @ X)
    axes = vectors[:, -2:][:, ::-1]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    best = np.lexsort((benchmark.C[complete], -benchmark.S[complete]), axis=1)[:, 0]
    names = [model.name for model in benchmark.models]
    return [
        Finding(quantity="map", x=float(x), value=float(y), label=names[model])
        for (x, y), model in zip(X @ axes, best, strict=True)
    ]
