"""Operating points worked out by hand, and what must not change them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from workers.metrics import frontier
from workers.metrics.frontier import walk
from workers.routers.base import Calls, Mixture, Prediction


def predicted(scores: npt.ArrayLike, costs: npt.ArrayLike) -> Prediction:
    s, c = np.array(scores, dtype=np.float64), np.array(costs, dtype=np.float64)
    s.flags.writeable = c.flags.writeable = False
    return Prediction(scores=s, costs=c)


def perfect(scores: npt.ArrayLike, costs: npt.ArrayLike) -> frontier.Path:
    """The path of predictions that are the outcomes."""
    prediction = predicted(scores, costs)
    return frontier.exact_path(prediction, prediction.scores, prediction.costs)


def test_each_query_changes_at_its_own_price() -> None:
    # Breaks: query 0 at (0.9 - 0.5) / (0.9 - 0.1) = 0.5, query 1 at (0.8 - 0.6) / (1 - 0.2) = 0.25.
    path = perfect([[0.5, 0.9], [0.6, 0.8]], [[0.1, 0.9], [0.2, 1.0]])
    np.testing.assert_allclose(path.prices, [0, 0.25, 0.5])
    np.testing.assert_allclose(path.costs, [0.95, 0.55, 0.15])
    np.testing.assert_allclose(path.scores, [0.85, 0.75, 0.55])


def test_points_are_observed_outcomes_of_predicted_choices() -> None:
    prediction = predicted([[0.2, 0.7]], [[0.0, 1.0]])
    path = frontier.exact_path(prediction, np.array([[1.0, 0.0]]), np.array([[0.3, 0.4]]))
    np.testing.assert_allclose(path.prices, [0, 0.5])
    np.testing.assert_allclose(path.costs, [0.4, 0.3])
    np.testing.assert_allclose(path.scores, [0, 1])


@pytest.mark.parametrize(
    ("scores", "costs", "price", "choice"),
    [
        ([0.5, 0.5], [0.9, 0.1], 0.0, 1),  # equal scores: the cheaper
        ([0.5, 0.5], [0.4, 0.4], 0.0, 0),  # all equal: the earlier
        ([0.5, 0.5], [0.4, 0.4], 3.0, 0),
        ([0.5, 0.75], [0.4, 0.4], 3.0, 1),  # equal costs: the better
        ([0.75, 0.5, 0.5], [0.5, 0.0, 0.0], 0.5, 1),  # three tie at this price: the cheaper, and of those the earlier
        ([0.25, 0.0], [1.0, -1.0], 0.25, 1),  # predictions are never clipped
        ([0.3], [0.7], 1.0, 0),
    ],
)
def test_ties_go_to_the_lower_cost_then_the_earlier_model(
    scores: list[float], costs: list[float], price: float, choice: int
) -> None:
    assert frontier.choose(predicted([scores], [costs]), price).tolist() == [choice]


def test_lines_through_one_point_are_one_step_to_the_cheapest() -> None:
    path = perfect([[0.0, 0.5, 1.0]], [[0.0, 0.5, 1.0]])
    assert path.prices.tolist() == [0, 1]
    assert path.costs.tolist() == [1, 0]


def test_lines_through_one_point_do_not_turn_back_under_rounding() -> None:
    # s = 0.1 + 0.3 c: all meet at price 0.3, but no two quotients need be equal in floating point.
    costs = np.arange(8) / 7
    path = perfect([0.1 + 0.3 * costs], [costs])
    np.testing.assert_allclose(path.prices, [0, 0.3], rtol=1e-14)
    np.testing.assert_allclose(path.costs, [1, 0], atol=1e-15)


@pytest.mark.parametrize(("apart", "n_points"), [(1e-13, 2), (1e-11, 3)])
def test_prices_within_1e_12_are_one_point(apart: float, n_points: int) -> None:
    path = perfect([[0, 0.5], [0, 0.5 * (1 + apart)]], [[0, 1], [0, 1]])
    assert len(path.prices) == n_points


def test_dominated_models_and_equal_costs_add_no_points() -> None:
    # Only models 0 and 3 are on the envelope: 1 costs as much as 0 for less, 2 is worse and dearer than 3.
    path = perfect([[0.4, 0.3, 0.6, 0.8]], [[0.0, 0.0, 0.9, 0.8]])
    np.testing.assert_allclose(path.prices, [0, 0.5])
    np.testing.assert_allclose(path.scores, [0.8, 0.4])


@pytest.mark.parametrize("costs", [[0.0, -0.0], [-0.0, 0.0]])
def test_zeros_of_either_sign_cost_the_same(costs: list[float]) -> None:
    assert perfect([[0.5, 0.4]], [costs]).prices.tolist() == [0]


@pytest.mark.parametrize("n", [0, 1, 2000])
def test_prices_are_ordered_as_by_a_stable_sort(n: int) -> None:
    prices = np.random.default_rng(n).integers(0, 300, n) / 7
    assert (frontier._stable_order(prices) == np.argsort(prices, kind="stable")).all()


def test_one_model_is_one_point() -> None:
    path = perfect([[0.5], [1.0]], [[0.25], [0.75]])
    assert (path.prices.tolist(), path.costs.tolist(), path.scores.tolist()) == ([0], [0.5], [0.75])


def test_all_equal_is_one_point() -> None:
    path = perfect(np.full((3, 4), 0.5), np.full((3, 4), 0.25))
    assert (path.prices.tolist(), path.costs.tolist(), path.scores.tolist()) == ([0], [0.25], [0.5])


def test_all_costs_zero_is_the_best_score_at_no_cost() -> None:
    path = perfect([[0.0, 1.0], [0.5, 0.25]], np.zeros((2, 2)))
    assert (path.costs.tolist(), path.scores.tolist()) == ([0], [0.75])


def test_negative_predicted_costs_are_walked_too() -> None:
    prediction = predicted([[1.0, 0.5, 0.0]], [[0.5, 0.0, -1.0]])
    path = frontier.exact_path(prediction, np.array([[1.0, 0.5, 0.0]]), np.array([[0.5, 0.25, 0.0]]))
    # From model 0: price 1 to model 1, 2/3 to model 2, which is met first.
    np.testing.assert_allclose(path.prices, [0, 2 / 3])
    np.testing.assert_allclose(path.costs, [0.5, 0])


def test_costs_never_fall_below_zero_by_rounding() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        costs = np.column_stack([np.zeros(40), rng.random(40)])
        path = perfect(np.tile([0.0, 1.0], (40, 1)), costs)
        assert 0 <= path.costs.min() < 1e-15


def test_choose_agrees_with_the_path_between_its_prices() -> None:
    rng = np.random.default_rng(0)
    prediction = predicted(rng.random((50, 6)), rng.random((50, 6)))
    scores, costs = rng.random((50, 6)), rng.random((50, 6))
    path = frontier.exact_path(prediction, scores, costs)
    between = np.append((path.prices[:-1] + path.prices[1:]) / 2, path.prices[-1] + 1)
    for k, price in enumerate(between):
        choices = frontier.choose(prediction, price)
        assert path.costs[k] == pytest.approx(costs[np.arange(50), choices].mean(), abs=1e-12)
        assert path.scores[k] == pytest.approx(scores[np.arange(50), choices].mean(), abs=1e-12)


def test_order_of_queries_and_models_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    s, c, scores, costs = (rng.random((30, 5)) for _ in range(4))
    path = frontier.exact_path(predicted(s, c), scores, costs)
    cells = np.ix_(rng.permutation(30), rng.permutation(5))
    shuffled = frontier.exact_path(predicted(s[cells], c[cells]), scores[cells], costs[cells])
    np.testing.assert_array_equal(path.prices, shuffled.prices)
    np.testing.assert_allclose(path.costs, shuffled.costs, atol=1e-13)
    np.testing.assert_allclose(path.scores, shuffled.scores, atol=1e-13)


def test_choices_follow_a_permutation_of_models_without_ties() -> None:
    rng = np.random.default_rng(2)
    s, c = rng.random((30, 5)), rng.random((30, 5))
    order = rng.permutation(5)
    for price in (0.0, 0.1, 1.0):
        moved = frontier.choose(predicted(s[:, order], c[:, order]), price)
        np.testing.assert_array_equal(order[moved], frontier.choose(predicted(s, c), price))


def test_grid_is_routerbenchs_32_values_as_prices() -> None:
    assert len(frontier.WILLINGNESS_TO_PAY) == len(frontier.GRID_PRICES) == 32
    assert list(frontier.WILLINGNESS_TO_PAY) == sorted(frontier.WILLINGNESS_TO_PAY)
    np.testing.assert_allclose(frontier.GRID_PRICES[[0, 19, -1]], [1e-9, 1.0, 1e10])


def test_grid_walk_has_the_points_of_its_prices_alone() -> None:
    # The envelope breaks at 0.25 and 0.5; the grid 0.3, 0.4, 2 sees one change, at 2.
    prediction = predicted([[0.5, 0.9], [0.6, 0.8]], [[0.1, 0.9], [0.2, 1.0]])
    walk = frontier.grid_walk(prediction, prediction.scores, prediction.costs, np.array([0.3, 0.4, 2.0]))
    path = walk.path()
    np.testing.assert_allclose(path.prices, [0.3, 2])
    np.testing.assert_allclose(path.costs, [0.55, 0.15])
    np.testing.assert_allclose(path.scores, [0.75, 0.55])


def test_grid_walk_agrees_with_choosing_at_every_price() -> None:
    rng = np.random.default_rng(3)
    prediction = predicted(rng.random((40, 5)), rng.random((40, 5)))
    scores, costs = rng.random((40, 5)), rng.random((40, 5))
    path = frontier.walk(prediction, scores, costs, "grid").path()
    for price in frontier.GRID_PRICES:
        choices = frontier.choose(prediction, price)
        k = np.searchsorted(path.prices, price, side="right") - 1
        assert path.costs[k] == pytest.approx(costs[np.arange(40), choices].mean(), abs=1e-12)
        assert path.scores[k] == pytest.approx(scores[np.arange(40), choices].mean(), abs=1e-12)


def test_mixture_is_one_point_without_a_price() -> None:
    mixture = Mixture(probabilities=np.array([[0.5, 0.5], [0.25, 0.75]]))
    path = frontier.walk(mixture, np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.2, 0.6], [0.4, 0.8]])).path()
    np.testing.assert_allclose(path.costs, [(0.4 + 0.7) / 2])
    np.testing.assert_allclose(path.scores, [(0.5 + 0.75) / 2])
    assert np.isnan(path.prices).all()


@pytest.mark.parametrize("broken", ["scores", "costs", "predicted_scores", "predicted_costs"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("lambda_", ["exact", "grid"])
def test_what_is_not_finite_is_named(broken: str, value: float, lambda_: frontier.Lambda) -> None:
    arrays = {name: np.full((3, 2), 0.5) for name in ("scores", "costs", "predicted_scores", "predicted_costs")}
    arrays[broken][2, 1] = value
    prediction = Prediction(scores=arrays["predicted_scores"], costs=arrays["predicted_costs"])
    with pytest.raises(ValueError, match=f"^{broken} of query 2, model 1 is {value}"):
        frontier.walk(prediction, arrays["scores"], arrays["costs"], lambda_)


def test_shapes_must_agree() -> None:
    two, three = np.ones((4, 2)), np.ones((4, 3))
    with pytest.raises(ValueError, match=r"predicted_scores is \(4, 3\), scores are \(4, 2\)"):
        frontier.exact_path(Prediction(scores=three, costs=three), two, two)
    with pytest.raises(ValueError, match="at least 1"):
        frontier.mixture_walk(Mixture(probabilities=np.ones((0, 2))), np.ones((0, 2)), np.ones((0, 2)))
    with pytest.raises(ValueError, match="probabilities of query 0, model 0 is nan"):
        frontier.mixture_walk(Mixture(probabilities=np.full((4, 2), np.nan)), two, two)


def test_calls_pay_for_every_call_and_walk_along_their_own_settings() -> None:
    """Two models; setting 0 always calls both, setting 1 calls the second for the second query alone, 2 never."""
    scores, costs = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.1, 0.5], [0.2, 1.0]])
    answers = np.array([[[0, 1], [0, 1]], [[1, 0], [0, 1]], [[1, 0], [1, 0]]], dtype=float)
    called = np.array([[[1, 1], [1, 1]], [[1, 0], [1, 1]], [[1, 0], [1, 0]]], dtype=float)
    calls = Calls(
        answers=answers, called=called, train_scores=np.array([0.5, 0.9, 0.4]), train_costs=np.arange(3.0)[::-1]
    )
    path = walk(calls, scores, costs).path()
    assert path.costs == pytest.approx([(0.6 + 1.2) / 2, (0.1 + 1.2) / 2, (0.1 + 0.2) / 2])
    assert path.scores == pytest.approx([0.5, 1.0, 0.5])
    assert np.isnan(path.prices).all()
    assert [calls.setting(price) for price in (0.0, 0.1, 1.0)] == [1, 1, 2]


def test_a_bootstrap_of_calls_is_the_path_of_the_resampled_queries() -> None:
    rng = np.random.default_rng(3)
    answers = rng.dirichlet(np.ones(3), size=(5, 20))
    called = answers + rng.random((5, 20, 3))
    scores, costs = rng.random((20, 3)), rng.random((20, 3))
    calls = Calls(answers=answers, called=called, train_scores=np.zeros(5), train_costs=np.arange(5.0))
    draw = rng.integers(0, 3, size=20)
    found = walk(calls, scores, costs).resampled(draw[None])
    rows = np.repeat(np.arange(20), draw)
    again = replace(calls, answers=answers[:, rows], called=called[:, rows])
    path = walk(again, scores[rows], costs[rows]).path()
    assert found[0][0] == pytest.approx(path.costs) and found[1][0] == pytest.approx(path.scores)


def test_calls_that_are_not_finite_are_refused() -> None:
    calls = Calls(
        answers=np.full((2, 1, 1), np.nan), called=np.ones((2, 1, 1)), train_scores=np.ones(2), train_costs=np.ones(2)
    )
    with pytest.raises(ValueError, match="answers"):
        walk(calls, np.ones((1, 1)), np.ones((1, 1)))


@pytest.mark.parametrize("cells", [7, 200, 40_000])
def test_walks_of_many_predictions_have_the_bits_that_each_has_alone(monkeypatch, cells):
    monkeypatch.setattr("workers.metrics.envelope.CELLS", cells)
    rng = np.random.default_rng(2)
    scores, costs = rng.random((2, 30, 5))
    # Of few different values, so that lines tie, coincide and meet in one point.
    many = [Prediction(scores=rng.integers(0, 4, (30, 5)) / 4, costs=rng.integers(0, 4, (30, 5)) / 4) for _ in range(7)]
    many.append(Prediction(scores=rng.random((30, 5)), costs=rng.random((30, 5))))
    for together, prediction in zip(frontier.exact_walks(many, scores, costs), many, strict=True):
        expected = one_by_one(prediction, scores, costs)
        path = together.path()
        for price, cost, score in zip(path.prices, path.costs, path.scores, strict=True):
            assert expected(price) == pytest.approx((cost, score), abs=1e-12)
        assert path.prices.tobytes() == frontier.exact_walk(prediction, scores, costs).path().prices.tobytes()


def one_by_one(prediction, scores, costs):
    """Mean cost and score just above a price, by trying every model of every query."""

    def at(price):
        rows, above = np.arange(len(scores)), price * (1 + 1e-9) + 1e-9
        chosen = frontier.choose(prediction, above)
        return costs[rows, chosen].mean(), scores[rows, chosen].mean()

    return at
