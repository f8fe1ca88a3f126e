"""Is performance local in the embedding: correlation, curves, dimension, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark
from workers.encoders.permuted import dealt_out
from workers.errors import MeasureError
from workers.measures.base import Measure
from workers.metrics.locality import (
    Correlation,
    agreement_statistic,
    centred,
    centred_by_task,
    correlation,
    dimension,
    merged,
)
from workers.metrics.pair_bins import (
    Curve,
    Floats,
    PairBins,
    Positions,
    binned_correlation,
    curve,
    differences,
    row_correlations,
    undefined_share,
)
from workers.seeding import generator
from workers.sides import cost_ratios
from workers.units import PREFERENCES, Finding, MeasureUnit, ProtocolOptions

#: Queries, drawn by seed, whose pairs the curves, the binned correlation and the picture are made of.
DRAWN = 1000
#: Permutations for what forms every pair, at most.
BAND = 199


class Locality(Measure):
    """Protocol 6, over all queries of the benchmark; queries with equal embeddings count once.

    Findings: `queries`, `tasks`, `dimension`;
    `correlation` of agreement with distance (low and high = middle 95 % of permutations) and its one-sided `p`,
    labelled "" (without the models' and the queries' means), `model-centred` (without the models' alone) and, of
    several tasks, `same task` (pairs of one task, permuted within tasks); `p_within_task`, of the first under
    permutations within tasks; `dosed_correlation`, the first when x % of the embeddings are permuted;
    `agreement` labelled "" or `model-centred` (x = distance, low and high = middle 95 % of permutations);
    `binned_correlation`, as Li 2025 prints it, with low, high and the two-sided `binned_p`; `row_correlation`, the
    means that it is of (x = distance); `undefined_share`, of its pairs;
    `apart` labelled `score` or a preference (x = distance, value = mean, high = 0.9 quantile of the difference);
    `map` (x, value = plane of the two widest directions, label = best model, the cheapest of several).
    """

    name: ClassVar[str] = "locality"
    version: ClassVar[str] = "2"
    summary = "whether performance is local in the embedding, beside its permutation null"

    def __init__(self, *, permutations: int = 999, doses: Sequence[float] = ()) -> None:
        if type(permutations) is not int or permutations < 19:
            raise ValueError(f"permutations is {permutations!r}; give a whole number, at least 19.")
        if not all(0 <= dose <= 1 for dose in doses):
            raise ValueError(f"doses are {list(doses)}; give fractions from 0 to 1.")
        self.permutations = permutations
        self.doses = tuple(doses)

    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Compute."""
        if embedding is None:
            raise MeasureError("locality is of an embedding; name an encoder.")
        names, numbers = np.unique(np.array(benchmark.tasks), return_inverse=True)
        X, scores, tasks = merged(embedding, benchmark.S, numbers.astype(np.int64))
        rng = generator(unit.root_seed, "locality")
        drawn = np.sort(rng.permutation(len(X))[:DRAWN])
        some = np.sort(rng.permutation(benchmark.n_queries)[:DRAWN])
        return [
            Finding(quantity="queries", value=float(len(X))),
            Finding(quantity="tasks", value=float(len(names))),
            Finding(quantity="dimension", value=dimension(X)),
            *_correlations(X, scores, tasks, rng, self.permutations),
            *_dosed(embedding, benchmark.S, self.doses),
            *_curves(X[drawn], scores[drawn], rng, min(self.permutations, BAND)),
            *_apart(benchmark, embedding, some),
            *_map(benchmark, embedding, some),
        ]


def _correlations(
    X: Floats, scores: Floats, tasks: Positions, rng: np.random.Generator, permutations: int
) -> list[Finding]:
    Z = centred(scores)
    several = len(np.unique(tasks)) > 1
    found = _related("", correlation(X, Z, rng, permutations=permutations))
    if several and (within := correlation(X, Z, rng, permutations=permutations, within=tasks)):
        found.append(Finding(quantity="p_within_task", value=within.p))
    found += _related("model-centred", correlation(X, centred(scores, rows=False), rng, permutations=permutations))
    if several:
        own = centred_by_task(scores, tasks)
        found += _related("same task", correlation(X, own, rng, permutations=permutations, among=tasks))
    return found


def _dosed(embedding: npt.NDArray[np.float32], scores: Floats, doses: Sequence[float]) -> list[Finding]:
    """The correlation of the embeddings that the study's dosed encoders give."""
    found = []
    for dose in doses:
        X, own, _ = merged(dealt_out(embedding, dose), scores, np.zeros(len(scores), dtype=np.int64))
        value = agreement_statistic(X, centred(own))
        if value is not None:
            found.append(Finding(quantity="dosed_correlation", x=100 * dose, value=value(np.arange(len(X)))))
    return found


def _related(label: str, found: Correlation | None) -> list[Finding]:
    if found is None:
        return []
    return [
        Finding(quantity="correlation", label=label, value=found.value, low=found.low, high=found.high),
        Finding(quantity="p", label=label, value=found.p),
    ]


def _curves(X: Floats, scores: Floats, rng: np.random.Generator, permutations: int) -> list[Finding]:
    bins = PairBins.of(X)
    if bins is None:
        return []
    found = []
    for label, Z in (("", centred(scores)), ("model-centred", centred(scores, rows=False))):
        found += _points("agreement", label, curve(bins, Z, rng, permutations=permutations))
    agreement = row_correlations(scores)
    binned = binned_correlation(bins, agreement, rng, permutations=permutations)
    if binned is not None:
        found += [
            Finding(quantity="binned_correlation", value=binned.value, low=binned.low, high=binned.high),
            Finding(quantity="binned_p", value=binned.p),
            *_points("row_correlation", "", binned.curve),
        ]
    return [*found, Finding(quantity="undefined_share", value=undefined_share(bins, agreement))]


def _points(quantity: str, label: str, shape: Curve | None) -> list[Finding]:
    if shape is None:
        return []
    rows = np.column_stack([shape.distance, shape.agreement, shape.low, shape.high])
    return [
        Finding(quantity=quantity, label=label, x=x, value=_or_none(value), low=_or_none(low), high=_or_none(high))
        for x, value, low, high in rows.tolist()
    ]


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _apart(benchmark: Benchmark, embedding: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> list[Finding]:
    costs = cost_ratios(benchmark, ProtocolOptions())
    values: dict[str, Floats] = {"score": benchmark.S}
    values |= {name: benchmark.S - price * costs for name, price in PREFERENCES.items()}
    bins = PairBins.of(embedding[rows].astype(np.float64))
    if bins is None:
        return []
    return [
        Finding(quantity="apart", label=label, x=x, value=_or_none(mean), high=_or_none(upper))
        for label, each in values.items()
        for x, mean, upper in np.column_stack(differences(bins, each[rows])).tolist()
    ]


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
