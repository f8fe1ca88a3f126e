"""Areas worked out by hand, and hulls against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import ConvexHull

from workers.metrics import areas
from workers.metrics.frontier import Path


def path_of(*points: tuple[float, float]) -> Path:
    """A path from (cost, score) by ascending price of cost, the dear end first."""
    costs, scores = np.array(points, dtype=np.float64).T
    return Path(costs=costs, scores=scores, prices=np.arange(len(points), dtype=np.float64))


@pytest.mark.parametrize(
    ("points", "auc", "auc_path"),
    [
        # One point: triangle to it, flat from it. 0.5 * 0.5 * 0.8 + 0.5 * 0.8
        ([(0.5, 0.8)], 60, 60),
        ([(1.0, 0.8)], 40, 40),
        # A dip that the hull skips: 0.01 + 0.1 + 0.32 + 0.14 against 0.5 * 0.4 * 0.9 + 0.6 * 0.9
        ([(0.8, 0.7), (0.4, 0.9), (0.2, 0.1)], 72, 57),
        # Beyond cost 1 at the end; score 2/3 at cost 1: 0.125 + 0.25 * (0.5 + 2/3)
        ([(2.0, 1.0), (0.5, 0.5)], 125 / 3, 125 / 3),
        # Nothing but a point beyond cost 1: half of the triangle's slope.
        ([(2.0, 1.0)], 25, 25),
        # Leaves at (1, 0.75), comes back at (1, 0.95): 0.125 + 0.3125 - 0.4625 + 0.45; hull 0.225 + 0.4625
        ([(0.5, 0.9), (1.5, 1.0), (0.5, 0.5)], 68.75, 42.5),
        # Leaves twice: to (1.5, 0.9) at 0.7, back at 0.75, and out again from (0.5, 0.6) to (2, 0.9) at 0.7.
        # 0.125 + 0.5 * 0.6 - 0.5 * 0.675 + 0.5 * 0.65; the hull runs (0.5, 0.6) to (1.5, 0.9), 0.75 at cost 1.
        ([(2.0, 0.9), (0.5, 0.6), (1.5, 0.9), (0.5, 0.5)], 100 * (0.15 + 0.3375), 41.25),
        # Moves beyond cost 1 count for nothing.
        ([(2.0, 1.0), (3.0, 0.2), (2.0, 1.0), (0.5, 0.5)], 125 / 3, 125 / 3),
        # Exactly at cost 1 and on.
        ([(1.5, 1.0), (1.0, 0.5)], 100 / 3, 25),
        # Free of cost.
        ([(0.0, 0.7)], 70, 70),
        ([(0.0, 0.4), (0.0, 0.7)], 70, 40),
        # Worth nothing.
        ([(0.3, 0.0), (0.1, 0.0)], 0, 0),
        # A step straight up.
        ([(0.5, 0.8), (0.5, 0.2)], 60, 45),
        # Coinciding points.
        ([(0.5, 0.8), (0.5, 0.8)], 60, 60),
    ],
)
def test_areas_by_hand(points: list[tuple[float, float]], auc: float, auc_path: float) -> None:
    assert areas.auc(path_of(*points)) == pytest.approx(auc, abs=1e-12)
    assert areas.auc_path(path_of(*points)) == pytest.approx(auc_path, abs=1e-12)


@pytest.mark.parametrize(("left", "auc"), [("null", 60), ("cheapest", 55), ("flat", 70)])
def test_left_ends(left: areas.Left, auc: float) -> None:
    # null: (0, 0), (0.25, 0.4), (0.5, 0.8) lie on one line. cheapest: nothing left of 0.25. flat: from (0, 0.4).
    assert areas.auc(path_of((0.5, 0.8), (0.25, 0.4)), left) == pytest.approx(auc)


def test_left_end_flat_takes_the_best_of_equally_cheap_points() -> None:
    assert areas.auc(path_of((0.5, 0.2), (0.5, 0.6)), "flat") == pytest.approx(60)


def test_left_end_cheapest_beyond_cost_1_has_no_area() -> None:
    assert areas.auc(path_of((1.5, 0.8)), "cheapest") == 0


def test_points_on_one_line_are_one_edge() -> None:
    hull = areas.hull(path_of((0.5, 0.75), (0.25, 0.375)))
    assert (hull.costs.tolist(), hull.scores.tolist(), hull.points.tolist()) == ([0, 0.5], [0, 0.75], [-1, 0])


def test_hull_is_flat_right_of_its_top_and_zero_left_of_its_start() -> None:
    hull = areas.hull(path_of((0.9, 0.3), (0.6, 0.8), (0.2, 0.4)), "cheapest")
    assert hull.points.tolist() == [2, 1]
    assert [areas.value_at(hull, cost) for cost in (0.1, 0.2, 0.4, 0.6, 5.0)] == pytest.approx([0, 0.4, 0.6, 0.8, 0.8])


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60))
def test_hull_vertices_are_scipys(seed: int, n_points: int) -> None:
    rng = np.random.default_rng(seed)
    costs, scores = rng.uniform(0.05, 1.5, n_points), rng.uniform(0.05, 1, n_points)
    ours = areas.hull(path_of(*zip(costs, scores, strict=True)))
    # Up to the top and closed along the axis, the majorant is an ordinary convex hull.
    top = scores.argmax()
    near = np.flatnonzero(costs <= costs[top])
    corners = [[0.0, 0.0], [costs[top], 0.0]]
    vertices = ConvexHull(np.vstack([np.column_stack([costs, scores])[near], corners])).vertices
    expected = {int(near[v]) if v < len(near) else -1 for v in vertices if v != len(near) + 1}
    assert set(ours.points.tolist()) == expected
    assert (np.diff(ours.costs) > 0).all()
    assert (np.diff(ours.scores) > 0).all()


def test_many_paths_at_once_are_each_their_own_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    costs, scores = rng.uniform(0, 1, (7, 300)), rng.random((7, 300))
    costs[3] *= 2  # one of them crosses cost 1
    together = areas.path_area(costs, scores)
    alone = [areas.path_area(c, s) for c, s in zip(costs, scores, strict=True)]
    assert together.tolist() == [float(area) for area in alone]


def test_aiq_is_the_mean_height_between_the_single_models() -> None:
    singles = np.array([1.0, 0.2, 0.5])
    assert areas.aiq(path_of((1.0, 0.9), (0.2, 0.5)), singles) == pytest.approx(0.7)
    # 0 left of the router's cheapest point, flat right of its dearest: 0.4 * 0.8 / 0.8
    assert areas.aiq(path_of((0.6, 0.8)), singles) == pytest.approx(0.4)
    # A point cheaper than every single model: height 0.5 + 0.4 * 0.1 / 0.9 at cost 0.2.
    assert areas.aiq(path_of((1.0, 0.9), (0.1, 0.5)), singles) == pytest.approx((0.5 + 0.4 / 9 + 0.9) / 2)
    assert areas.aiq(path_of((2.0, 0.9)), singles) == 0


def test_aiq_needs_models_of_different_cost() -> None:
    assert areas.aiq(path_of((0.5, 0.5)), np.array([0.5, 0.5])) is None


def test_qnc_is_the_least_cost_within_a_hundredth_of_the_best_single() -> None:
    hull = areas.hull(path_of((1.0, 0.9), (0.2, 0.5)))
    assert areas.qnc(hull, 0.9) == pytest.approx(0.2 + 0.8 * 0.39 / 0.4)
    assert areas.qnc(hull, 0.26) == pytest.approx(0.1)
    assert areas.qnc(hull, 0.005) == 0
    assert areas.qnc(hull, 0.92) is None


def test_gain_is_read_off_the_hull_at_that_cost() -> None:
    hull = areas.hull(path_of((1.0, 0.9), (0.2, 0.5)))
    assert areas.gain_at_cost(hull, 0.6, 0.65) == pytest.approx(5)


def test_relative_needs_a_tenth_of_a_point() -> None:
    assert areas.relative(85, 80, 90) == pytest.approx(0.5)
    assert areas.relative(70, 80, 90) == pytest.approx(-1)
    assert areas.relative(80, 80, 80.0625) is None
    assert areas.relative(80, 80, 79) is None
