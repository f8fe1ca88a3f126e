"""What does the contract store of one evaluated router? Every deterministic metric by name (design 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics import areas, frontier, selection
from workers.metrics.areas import Areas, Hull
from workers.metrics.frontier import Path, Walk
from workers.routers.base import Calls, Mixture, Positions, Prediction
from workers.units import PREFERENCES, FrontierPoint, ProtocolOptions

#: Raise it when the same outcomes would give other metrics: part of every unit's key.
VERSION = "1"
#: Stored points of a frontier that are not vertices of its hull.
MAX_OTHER_POINTS = 64
#: Metrics that need a price of cost, so that a selector has none.
FRONTIER_METRICS = (
    "auc",
    "auc_path",
    "auc_rel",
    "aiq",
    "peak_score",
    "qnc",
    "gain_at_best_cost",
    "oracle_gap_closed",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Metrics, frontier and decisions of one router on one side."""

    #: By name; None where undefined, never NaN or infinite.
    metrics: Mapping[str, float | None]
    #: Hull vertices and at most 64 others by ascending price of cost.
    frontier: tuple[FrontierPoint, ...] = ()
    #: Per preference the chosen model of every query; none for expectations. [n]
    decisions: Mapping[str, Positions] = field(default_factory=dict)
    #: What a bootstrap resamples; None for a selector.
    walk: Walk | None = None


def both_areas(
    prediction: Prediction | Mixture | Calls, scores: Floats, costs: Floats, options: ProtocolOptions
) -> Areas:
    """`auc` and `auc_path` alone, for tuning and for the references that `measure` needs.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    path = frontier.walk(prediction, scores, costs, options.lambda_).path()
    return Areas(areas.auc(path, options.left), areas.auc_path(path))


def path_areas(
    predictions: Sequence[Prediction | Mixture | Calls], scores: Floats, costs: Floats, options: ProtocolOptions
) -> list[float]:
    """`auc_path` of several predictions for the same queries: what tuning compares.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    lines = [each for each in predictions if isinstance(each, Prediction)]
    if len(lines) == len(predictions) and options.lambda_ == "exact":
        walks = frontier.exact_walks(lines, scores, costs)
    else:
        walks = [frontier.walk(each, scores, costs, options.lambda_) for each in predictions]
    return [areas.auc_path(walk.path()) for walk in walks]


def measure(
    *,
    prediction: Prediction | Mixture | Calls,
    scores: Floats,
    costs: Floats,
    models: Sequence[str],
    best_single: int,
    zero: tuple[float, float],
    oracle: tuple[float, float],
    options: ProtocolOptions,
) -> Measured:
    """Measure a router of the utility formulation.

    Args:
        prediction: Of the router for these queries. [n, M]
        scores: Observed scores, complete rows. [n, M]
        costs: Observed costs in units of cost 1. [n, M]
        models: Names of the models. [M]
        best_single: Position of the best single model by training mean.
        zero: `auc` and `auc_path` of the zero-router on these queries.
        oracle: The same of the oracle.
        options: Options of the protocol.

    Raises:
        ValueError: Shapes differ or a value is not finite.
    """
    walk = frontier.walk(prediction, scores, costs, options.lambda_)
    path = walk.path()
    hull = areas.hull(path, options.left)
    auc, auc_path = 100 * areas.hull_area(hull, 0.0, 1.0), areas.auc_path(path)
    best_score, best_cost = float(scores[:, best_single].mean()), float(costs[:, best_single].mean())
    values = (
        auc,
        auc_path,
        areas.relative(auc_path, zero[1], oracle[1]),
        areas.aiq(path, costs.mean(axis=0)),
        float(path.scores.max()),
        areas.qnc(hull, best_score),
        areas.gain_at_cost(hull, best_cost, best_score),
        areas.relative(auc, zero[0], oracle[0]),
    )
    metrics: dict[str, float | None] = dict(zip(FRONTIER_METRICS, values, strict=True))
    decisions: Mapping[str, Positions] = {}
    called: Mapping[str, Floats] | None = None
    if isinstance(prediction, Calls):  # several models a query: no single one to store as the decision
        settings = {name: prediction.setting(price) for name, price in PREFERENCES.items()}
        chances = {name: prediction.answers[k] for name, k in settings.items()}
        called = {name: prediction.called[k] for name, k in settings.items()}
    elif isinstance(prediction, Mixture):
        chances = dict.fromkeys(PREFERENCES, prediction.probabilities)
        sure = selection.certain(prediction)
        decisions = {} if sure is None else dict.fromkeys(PREFERENCES, sure)
    else:
        decisions = {name: frontier.choose(prediction, price) for name, price in PREFERENCES.items()}
        chances = {name: selection.one_hot(choices, len(models)) for name, choices in decisions.items()}
    return Measured(
        metrics=metrics | _selection_metrics(chances, scores, costs, models, called),
        frontier=_stored_points(path, hull),
        decisions=decisions,
        walk=walk,
    )


def measure_choices(
    choices: Mapping[str, Positions | Mixture], *, scores: Floats, costs: Floats, models: Sequence[str]
) -> Measured:
    """Measure a router of the selection formulation, trained once per preference; it has no frontier.

    Args:
        choices: Per preference the chosen model of every query [n], or the probabilities of choosing each.
        scores: Observed scores, complete rows. [n, M]
        costs: Observed costs in units of cost 1. [n, M]
        models: Names of the models. [M]

    Raises:
        ValueError: Shapes differ, a value is not finite, or a preference is missing.
    """
    if set(choices) != set(PREFERENCES):
        raise ValueError(f"choices are for {sorted(choices)}, the preferences are {sorted(PREFERENCES)}")
    frontier.check_finite(scores, costs)
    decisions = {name: choice for name in PREFERENCES if not isinstance(choice := choices[name], Mixture)}
    chances = {name: selection.probabilities(choices[name], len(models)) for name in PREFERENCES}
    undefined: dict[str, float | None] = dict.fromkeys(FRONTIER_METRICS)
    return Measured(metrics=undefined | _selection_metrics(chances, scores, costs, models), decisions=decisions)


def _selection_metrics(
    chances: Mapping[str, Floats],
    scores: Floats,
    costs: Floats,
    models: Sequence[str],
    called: Mapping[str, Floats] | None = None,
) -> dict[str, float | None]:
    """Utility, entropy, optimal rate and shares at every preference.

    Args:
        chances: Probability that each model answers. [n, M] each
        scores: [n, M]
        costs: [n, M]
        models: Names. [M]
        called: Expected calls, where they are not the answers. [n, M] each
    """
    if len(models) != scores.shape[1]:
        raise ValueError(f"{len(models)} names for {scores.shape[1]} models")
    metrics: dict[str, float | None] = {
        f"utility_{name.replace('-', '_')}": selection.utility(
            chances[name], scores, costs, price, called[name] if called else None
        )
        for name, price in PREFERENCES.items()
    }
    metrics["utility_mean"] = float(np.mean(list(metrics.values())))
    for name in PREFERENCES:
        shares = selection.shares(chances[name])
        metrics[f"selection_entropy:{name}"] = selection.entropy(shares)
        metrics[f"optimal_selection_rate:{name}"] = selection.optimal_rate(chances[name], scores, costs)
        metrics |= {f"share:{name}:{model}": float(share) for model, share in zip(models, shares, strict=True)}
    return metrics


def _stored_points(path: Path, hull: Hull) -> tuple[FrontierPoint, ...]:
    on_hull = np.isin(np.arange(len(path.costs)), hull.points)
    others = np.flatnonzero(~on_hull)
    if len(others) > MAX_OTHER_POINTS:
        others = others[np.linspace(0, len(others) - 1, MAX_OTHER_POINTS).round().astype(np.int64)]
    return tuple(
        FrontierPoint(
            cost=float(path.costs[k]),
            score=float(path.scores[k]),
            price_of_cost=None if np.isnan(path.prices[k]) else float(path.prices[k]),
            on_hull=bool(on_hull[k]),
        )
        for k in np.union1d(np.flatnonzero(on_hull), others)
    )
