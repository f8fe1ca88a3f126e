"""Paths and areas against an independent implementation: every price of cost tried, in exact fractions."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.metrics import areas, bootstrap, frontier
from workers.routers.base import Prediction

Rows = list[list[Fraction]]
Point = tuple[Fraction, Fraction]


def brute_choices(s: Rows, c: Rows, price: Fraction) -> list[int]:
    """By definition: best utility, then lower predicted cost, then the earlier model."""
    return [
        min(range(len(row)), key=lambda m: (-(row[m] - price * cost[m]), cost[m], m))
        for row, cost in zip(s, c, strict=True)
    ]


def brute_path(s: Rows, c: Rows, scores: Rows, costs: Rows) -> tuple[list[Fraction], list[Point]]:
    """Prices and (cost, score) at every crossing of two lines of any query, where a choice changes."""
    crossings = {Fraction(0)}
    for row, cost in zip(s, c, strict=True):
        for i in range(len(row)):
            for j in range(i):
                if cost[i] != cost[j]:
                    crossings.add((row[i] - row[j]) / (cost[i] - cost[j]))
    found = sorted(price for price in crossings if price >= 0)
    prices: list[Fraction] = []
    chosen: list[list[int]] = []
    for price, after in pairwise([*found, found[-1] + 2]):
        choices = brute_choices(s, c, price)
        assert choices == brute_choices(s, c, (price + after) / 2), "nothing may change between two crossings"
        if not chosen or choices != chosen[-1]:
            prices.append(price)
            chosen.append(choices)
    n = len(s)
    points = [
        (sum(costs[q][m] for q, m in enumerate(ms)) / n, sum(scores[q][m] for q, m in enumerate(ms)) / n)
        for ms in chosen
    ]
    return prices, points


def brute_auc(points: list[Point]) -> Fraction:
    """Majorant at x: the best chord over x and the best point left of it. Linear between points, so knots suffice."""
    everything = [(Fraction(0), Fraction(0)), *points]

    def majorant(x: Fraction) -> Fraction:
        best = max(y for at, y in everything if at <= x)
        for ax, ay in everything:
            for bx, by in everything:
                if ax <= x <= bx and ax < bx:
                    best = max(best, ay + (by - ay) * (x - ax) / (bx - ax))
        return best

    knots = sorted({x for x, _ in everything if x < 1} | {Fraction(1)})
    return 100 * sum(((b - a) * (majorant(a) + majorant(b)) / 2 for a, b in pairwise(knots)), Fraction(0))


def brute_auc_path(points: list[Point]) -> Fraction:
    """Segment by segment from (0, 0), as protocol 2.3 says it."""
    area = Fraction(0)
    walk = [(Fraction(0), Fraction(0)), *reversed(points)]
    for (ax, ay), (bx, by) in pairwise(walk):
        if ax > 1 and bx > 1:
            continue
        if ax <= 1 < bx:
            by = ay + (by - ay) * (1 - ax) / (bx - ax)
            bx = Fraction(1)
        elif bx <= 1 < ax:
            ay = by + (ay - by) * (1 - bx) / (ax - bx)
            ax = Fraction(1)
        area += (bx - ax) * (ay + by) / 2
    last_x, last_y = walk[-1]
    if last_x < 1:
        area += (1 - last_x) * last_y
    return 100 * area


@st.composite
def cases(draw: st.DrawFn) -> tuple[Rows, Rows, Rows, Rows]:
    """Small integers over small denominators, so that ties of every kind are common; costs reach beyond 1."""
    n, m = draw(st.integers(1, 5)), draw(st.integers(1, 4))

    def table(low: int, high: int, denominator: int) -> Rows:
        row = st.lists(st.integers(low, high).map(lambda k: Fraction(k, denominator)), min_size=m, max_size=m)
        return draw(st.lists(row, min_size=n, max_size=n))

    return table(0, 4, 4), table(-2, 6, 4), table(0, 4, 4), table(0, 8, 4)


def floats(rows: Rows) -> npt.NDArray[np.float64]:
    return np.array([[float(value) for value in row] for row in rows])


def close(values: npt.NDArray[np.float64], expected: list[Fraction]) -> bool:
    return len(values) == len(expected) and bool(np.allclose(values, [float(v) for v in expected], rtol=0, atol=1e-12))


@settings(max_examples=400, deadline=None)
@given(cases())
def test_points_and_areas_are_those_of_every_price(case: tuple[Rows, Rows, Rows, Rows]) -> None:
    s, c, scores, costs = case
    prices, points = brute_path(s, c, scores, costs)
    path = frontier.exact_path(Prediction(scores=floats(s), costs=floats(c)), floats(scores), floats(costs))
    assert close(path.prices, prices)
    assert close(path.costs, [x for x, _ in points])
    assert close(path.scores, [y for _, y in points])
    assert areas.auc(path) == pytest.approx(float(brute_auc(points)), abs=1e-9)
    assert areas.auc_path(path) == pytest.approx(float(brute_auc_path(points)), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(cases(), st.data())
def test_bootstrap_areas_are_those_of_repeated_rows(case: tuple[Rows, Rows, Rows, Rows], data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(case[0]), max_size=len(case[0])).filter(any))
    s, c, scores, costs = case
    walk = frontier.exact_walk(Prediction(scores=floats(s), costs=floats(c)), floats(scores), floats(costs))
    repeated = [[row for row, k in zip(rows, counts, strict=True) for _ in range(k)] for rows in case]
    expected = brute_auc_path(brute_path(*repeated)[1])
    assert bootstrap.bootstrap_areas(walk, np.array([counts]))[0] == pytest.approx(float(expected), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(cases())
def test_areas_do_not_depend_on_the_order_of_queries(case: tuple[Rows, Rows, Rows, Rows]) -> None:
    s, c, scores, costs = map(floats, case)
    path = frontier.exact_path(Prediction(scores=s, costs=c), scores, costs)
    turned = frontier.exact_path(Prediction(scores=s[::-1], costs=c[::-1]), scores[::-1], costs[::-1])
    assert areas.auc(path) == pytest.approx(areas.auc(turned), abs=1e-9)
    assert areas.auc_path(path) == pytest.approx(areas.auc_path(turned), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(cases(), st.sampled_from(["null", "cheapest"]))
def test_no_router_has_more_area_than_the_oracle(case: tuple[Rows, Rows, Rows, Rows], left: areas.Left) -> None:
    s, c, scores, costs = map(floats, case)
    router = frontier.exact_path(Prediction(scores=s, costs=c), scores, costs)
    oracle = frontier.exact_path(Prediction(scores=scores, costs=costs), scores, costs)
    assert areas.auc(oracle, left) >= areas.auc(router, left) - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_generic_predictions_agree_too(seed: int) -> None:
    rng = np.random.default_rng(seed)
    s, c, scores = (rng.random((12, 5)) for _ in range(3))
    costs = rng.random((12, 5)) * np.array([0.1, 0.4, 1.0, 1.5, 2.5])
    exact = [[[Fraction(value) for value in row] for row in table.tolist()] for table in (s, c, scores, costs)]
    prices, points = brute_path(*exact)
    path = frontier.exact_path(Prediction(scores=s, costs=c), scores, costs)
    assert close(path.prices / np.maximum(path.prices, 1), [p / max(p, Fraction(1)) for p in prices])
    assert close(path.costs, [x for x, _ in points])
    assert areas.auc(path) == pytest.approx(float(brute_auc(points)), abs=1e-9)
    assert areas.auc_path(path) == pytest.approx(float(brute_auc_path(points)), abs=1e-9)
