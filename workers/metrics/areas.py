"""How much score per cost does a path hold? Areas with and without a hull (protocol 2.2-2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.frontier import Path
from workers.routers.base import Positions

Left = Literal["null", "cheapest", "flat"]

#: A router may fall this far short of the best single model's score and still match it (`qnc`).
SCORE_MARGIN = 0.01
#: Below this many AUC points between two references nothing is relative to them.
SMALLEST_GAP = 0.1


class Areas(NamedTuple):
    """The paper's figure and its honest twin, both x 100."""

    auc: float
    auc_path: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Hull:
    """Vertices of the least non-decreasing concave majorant: costs and scores strictly ascend; flat to the right."""

    #: [V]
    costs: Floats
    #: [V]
    scores: Floats
    #: Position of each vertex in its path, -1 for a left end that is no point of it. [V]
    points: Positions


def hull(path: Path, left: Left = "null") -> Hull:
    """The least non-decreasing concave majorant of a path's points, O(K log K).

    Args:
        path: Operating points.
        left: Where it begins: `null` at the null router (0, 0); `cheapest` at the router's cheapest point, with
            nothing left of it; `flat` at cost 0 with the cheapest point's score.
    """
    costs, scores, points = path.costs, path.scores, np.arange(len(path.costs))
    if left != "cheapest":
        end = 0.0 if left == "null" else scores[np.lexsort((-scores, costs))[0]]
        costs, scores, points = np.append(costs, 0.0), np.append(scores, end), np.append(points, -1)
    order = np.lexsort((-scores, costs))
    ordered = scores[order]
    rising = np.append(True, ordered[1:] > np.maximum.accumulate(ordered)[:-1])
    order = order[rising]
    x, y = costs[order].tolist(), scores[order].tolist()
    kept: list[int] = []
    for k in range(len(order)):
        while len(kept) >= 2:
            i, j = kept[-2:]
            if (y[j] - y[i]) * (x[k] - x[i]) > (y[k] - y[i]) * (x[j] - x[i]):
                break
            kept.pop()
        kept.append(k)
    order = order[kept]
    return Hull(costs=costs[order], scores=scores[order], points=points[order])


def value_at(hull: Hull, cost: float) -> float:
    """The hull's score at a cost; 0 left of its first vertex."""
    return float(np.interp(cost, hull.costs, hull.scores, left=0.0))


def hull_area(hull: Hull, start: float, stop: float) -> float:
    """Area under the hull between two costs, start < stop."""
    start = max(start, float(hull.costs[0]))
    if start >= stop:
        return 0.0
    inner = hull.costs[(hull.costs > start) & (hull.costs < stop)]
    x = np.concatenate([[start], inner, [stop]])
    y = np.interp(x, hull.costs, hull.scores)
    return float(0.5 * (np.diff(x) * (y[1:] + y[:-1])).sum())


def auc(path: Path, left: Left = "null") -> float:
    """100 x the hull's area over cost 0 to 1 (Li 2025; protocol 2.2)."""
    return 100 * hull_area(hull(path, left), 0.0, 1.0)


def auc_path(path: Path) -> float:
    """100 x `path_area` of one path (protocol 2.3)."""
    return 100 * float(path_area(path.costs, path.scores))


def path_area(costs: Floats, scores: Floats) -> Floats:
    """Area under paths walked from the null router (0, 0) by decreasing price of cost: no hull.

    Trapezoids are signed, so a path that turns back takes area off again. What lies beyond cost 1 is cut off, both
    where a path leaves and where it comes back; from its last point the path runs flat to cost 1.

    Args:
        costs: Points by *ascending* price, as in `Path`. [..., K]
        scores: The same. [..., K]

    Returns:
        Areas over cost 0 to 1. [...]
    """
    null = np.zeros((*costs.shape[:-1], 1))
    x, y = np.concatenate([null, costs[..., ::-1]], axis=-1), np.concatenate([null, scores[..., ::-1]], axis=-1)
    y0, y1 = y[..., :-1], y[..., 1:]
    beyond = x > 1
    if beyond.any():
        leaves, returns = ~beyond[..., :-1] & beyond[..., 1:], beyond[..., :-1] & ~beyond[..., 1:]
        share = np.zeros(y0.shape)
        np.divide(1 - x[..., :-1], np.diff(x), out=share, where=leaves | returns)
        crossing = y0 + share * (y1 - y0)
        y0, y1, x = np.where(returns, crossing, y0), np.where(leaves, crossing, y1), np.minimum(x, 1.0)
    area: Floats = 0.5 * (np.diff(x) * (y0 + y1)).sum(axis=-1) + (1 - x[..., -1]) * y[..., -1]
    return area


def aiq(path: Path, single_costs: Floats) -> float | None:
    """Average improvement in quality: mean height of the hull without a null end (Hu et al. 2024, RouterBench).

    The hull is read between the mean costs of the cheapest and the dearest single model; 0 left of the router's
    cheapest point.

    Args:
        path: Operating points.
        single_costs: Mean cost of every model. [M]

    Returns:
        A score; None where all models cost the same.
    """
    low, high = float(single_costs.min()), float(single_costs.max())
    return hull_area(hull(path, "cheapest"), low, high) / (high - low) if high > low else None


def qnc(hull: Hull, best_score: float) -> float | None:
    """Least cost at which the hull reaches the best single model's score - 0.01; None = never."""
    target = best_score - SCORE_MARGIN
    if target > hull.scores[-1]:
        return None
    if target <= hull.scores[0]:
        return float(hull.costs[0])
    return float(np.interp(target, hull.scores, hull.costs))


def gain_at_cost(hull: Hull, cost: float, score: float) -> float:
    """100 x what the hull gains over a score at that score's cost."""
    return 100 * (value_at(hull, cost) - score)


def relative(value: float, zero: float, oracle: float) -> float | None:
    """Share of the way from the zero-router's area to the oracle's; None where they are less than 0.1 points apart."""
    return (value - zero) / (oracle - zero) if oracle - zero >= SMALLEST_GAP else None
