"""What does it take to keep a router up to date: more labelled queries, or one more model, against fitting anew?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import Benchmark
from workers.errors import RouterError
from workers.metrics.summary import both_areas
from workers.plugins import nearest
from workers.routers.base import Mixture, Positions, Prediction, Router, Side, untuned_params
from workers.seeding import generator
from workers.sides import cost_ratios, hidden, subset, whole
from workers.splits import split_benchmark
from workers.units import ProtocolOptions


@dataclass(frozen=True, kw_only=True)
class Grown:
    """One way of keeping up, on one split."""

    #: `stale`: as it was; `updated`: took the news in; `refit`: fitted anew on the same labels.
    way: str
    split: int
    #: Of the whole pool's test side.
    auc_path: float
    #: Of taking the news in, or of the whole fit; 0 for what was left as it was.
    seconds: float
    #: Labelled queries that this way learned from, and how many of them tried the new model.
    n_queries: int
    n_labelled: int


def more_queries(
    cls: type[Router],
    params: Mapping[str, Any],
    benchmark: Benchmark,
    embedding: npt.NDArray[np.float32] | None,
    *,
    split: int,
    start: float = 0.5,
) -> list[Grown]:
    """Fit on the first part of a training side, then take the rest in.

    Args:
        cls: A router with `partial_fit`.
        params: Its parameters.
        benchmark: What to learn from.
        embedding: Unit rows of its queries, None for a router without. [n, d]
        split: Split index.
        start: Fraction of the training side that is there at first.

    Raises:
        RouterError: The router cannot take queries in, or the fraction leaves nothing.
    """
    _require_method(cls, "partial_fit")
    if not 0 < start < 1:
        raise RouterError(f"the fraction of queries at first is {start}; give one between 0 and 1.")
    everything, train, test = _sides(benchmark, embedding, split)
    first = split_benchmark(benchmark, split, train_size=start).train
    later = np.setdiff1d(train, first)
    if not len(first) or not len(later):
        raise RouterError(f"a fraction of {start} leaves {len(first)} queries at first and {len(later)} later.")
    params = untuned_params(cls, params, n_train=len(first))
    old, new, full = (subset(everything, rows) for rows in (first, later, train))
    with threadpool_limits(limits=1):
        router, _ = _fit(cls, params, old, split)
        stale = _area(router.predict(hidden(test)), test)
        begin = perf_counter()
        router.partial_fit(new, generator(0, "fit", cls.name, split, "more"))
        took = perf_counter() - begin
        updated = _area(router.predict(hidden(test)), test)
        again, seconds = _fit(cls, params, full, split)
        refit = _area(again.predict(hidden(test)), test)
    rows = (("stale", stale, 0.0, old.n), ("updated", updated, took, full.n), ("refit", refit, seconds, full.n))
    return [
        Grown(way=way, split=split, auc_path=area, seconds=spent, n_queries=n, n_labelled=n)
        for way, area, spent, n in rows
    ]


def one_more_model(
    cls: type[Router],
    params: Mapping[str, Any],
    benchmark: Benchmark,
    embedding: npt.NDArray[np.float32] | None,
    *,
    split: int,
    model: str,
    labelled: int,
) -> list[Grown]:
    """Fit without a model, then add it after trying it on some training queries.

    The labelled queries are the first of the training side in the order of the nested training sizes. What is stale
    never chooses the new model; cost 1 is that of the whole pool for all ways.

    Args:
        cls: A router with `add_model`.
        params: Its parameters.
        benchmark: The whole pool.
        embedding: Unit rows of its queries, None for a router without. [n, d]
        split: Split index.
        model: The model that comes later.
        labelled: Queries that it is tried on.

    Raises:
        RouterError: The router cannot take a model in, no such model, or too many labelled queries.
    """
    _require_method(cls, "add_model")
    names = [candidate.name for candidate in benchmark.models]
    if model not in names:
        raise RouterError(f"benchmark {benchmark.name!r} has no model {model!r}; {nearest(model, names)}")
    if len(names) < 2:
        raise RouterError(f"benchmark {benchmark.name!r} has {model!r} alone; a pool of two models is the least.")
    everything, train, test = _sides(benchmark, embedding, split)
    if not 0 < labelled <= len(train):
        raise RouterError(f"{labelled} labelled queries of {len(train)} on the training side; give 1 to {len(train)}.")
    column = names.index(model)
    tried = _first_queries(benchmark, split, train, labelled)
    full = subset(everything, train)
    some = _unobserve(full, column, ~np.isin(train, tried))
    params = untuned_params(cls, params, n_train=len(train))
    with threadpool_limits(limits=1):
        router, _ = _fit(cls, params, _without(full, column), split)
        stale = _area(_with_idle(router.predict(hidden(_without(test, column))), column), test)
        begin = perf_counter()
        router.add_model(subset(everything, tried), generator(0, "fit", cls.name, split, "model"))
        took = perf_counter() - begin
        updated = _area(router.predict(hidden(test)), test)
        few, seconds_few = _fit(cls, params, some, split)
        refit = _area(few.predict(hidden(test)), test)
        all_labels, seconds = _fit(cls, params, full, split)
        best = _area(all_labels.predict(hidden(test)), test)
    rows = (
        ("stale", stale, 0.0, 0),
        ("updated", updated, took, labelled),
        ("refit", refit, seconds_few, labelled),
        ("refit, all labelled", best, seconds, full.n),
    )
    return [
        Grown(way=way, split=split, auc_path=area, seconds=spent, n_queries=full.n, n_labelled=n)
        for way, area, spent, n in rows
    ]


def _require_method(cls: type[Router], method: str) -> None:
    if getattr(cls, method) is getattr(Router, method):
        what = "more labelled queries" if method == "partial_fit" else "one more model"
        raise RouterError(f"router {cls.name!r} cannot take {what} in; it has to be fitted anew.")


def _sides(benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, split: int) -> tuple[Side, Positions, Side]:
    everything = whole(benchmark, cost_ratios(benchmark, ProtocolOptions()), embedding)
    parts = split_benchmark(benchmark, split)
    return everything, parts.train, subset(everything, parts.test)


def _first_queries(benchmark: Benchmark, split: int, train: Positions, labelled: int) -> Positions:
    """At least so many training queries, whole groups of the nested sizes, cut to the number."""
    for size in np.linspace(labelled / len(train), 1.0, 20):
        rows = split_benchmark(benchmark, split, train_size=float(size)).train
        if len(rows) >= labelled:
            return np.asarray(rows[:labelled])
    return train[:labelled]


def _fit(cls: type[Router], params: Mapping[str, Any], side: Side, split: int) -> tuple[Router, float]:
    begin = perf_counter()
    router = cls(**params).fit(side, generator(0, "fit", cls.name, split, "utility"))
    return router, perf_counter() - begin


def _area(prediction: object, test: Side) -> float:
    assert isinstance(prediction, Prediction | Mixture)
    return both_areas(prediction, *test.outcomes, ProtocolOptions()).auc_path


def _unobserve(side: Side, column: int, rows: npt.NDArray[np.bool_]) -> Side:
    scores, costs = (values.copy() for values in side.outcomes)
    scores[rows, column] = costs[rows, column] = np.nan
    return replace(side, scores=scores, costs=costs)


def _without(side: Side, column: int) -> Side:
    scores, costs = (np.delete(values, column, axis=1) for values in side.outcomes)
    return replace(
        side,
        models=tuple(model for i, model in enumerate(side.models) if i != column),
        scores=scores,
        costs=costs,
        extras={name: np.delete(values, column, axis=1) for name, values in side.extras.items()},
    )


def _with_idle(prediction: object, column: int) -> Prediction:
    """The old pool's prediction with a model that nobody chooses."""
    assert isinstance(prediction, Prediction)
    scores = np.insert(prediction.scores, column, prediction.scores.min(axis=1) - 1.0, axis=1)
    costs = np.insert(prediction.costs, column, prediction.costs.max(axis=1), axis=1)
    return Prediction(scores=scores, costs=costs)
