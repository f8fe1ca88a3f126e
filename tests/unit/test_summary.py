"""Every metric name of the contract, worked out by hand for one benchmark of two queries and two models."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from workers.metrics import areas, frontier, summary
from workers.routers.base import Calls, Mixture, Prediction
from workers.units import PREFERENCES, ProtocolOptions

# The cheap model answers query 0 alone, the dear one both.
SCORES = np.array([[1.0, 1.0], [0.0, 1.0]])
COSTS = np.array([[0.2, 1.0], [0.2, 1.0]])
MODELS = ("cheap", "dear")
ORACLE = Prediction(scores=SCORES, costs=COSTS)
RANDOM = Mixture(probabilities=np.full((2, 2), 0.5))
#: Means over the two queries, for every query: cheap 0.5 at 0.2, dear 1 at 1; they cross at price 0.625.
ZERO = Prediction(scores=np.tile([0.5, 1.0], (2, 1)), costs=COSTS)
# Oracle: (0.6, 1) until price 1 / 0.8 = 1.25, then (0.2, 0.5). 0.05 + 0.4 * 0.75 + 0.4
ORACLE_AREA = 75.0
# Zero-router: (1, 1), then (0.2, 0.5). 0.05 + 0.8 * 0.75
ZERO_AREA = 65.0
# Random: (0.6, 0.75). 0.5 * 0.6 * 0.75 + 0.4 * 0.75
RANDOM_AREA = 52.5

EVERY_NAME = {
    *("auc", "auc_path", "auc_rel", "aiq", "peak_score", "qnc", "gain_at_best_cost", "oracle_gap_closed"),
    *("utility_low_cost", "utility_balanced", "utility_high_performance", "utility_mean"),
    *(f"{what}:{p}" for what in ("selection_entropy", "optimal_selection_rate") for p in PREFERENCES),
    *(f"share:{p}:{model}" for p in PREFERENCES for model in MODELS),
}


def measured(
    prediction: Prediction | Mixture, zero: float = ZERO_AREA, options: ProtocolOptions | None = None
) -> summary.Measured:
    return summary.measure(
        prediction=prediction,
        scores=SCORES,
        costs=COSTS,
        models=MODELS,
        best_single=1,
        zero=(zero, zero),
        oracle=(ORACLE_AREA, ORACLE_AREA),
        options=options or ProtocolOptions(),
    )


@pytest.mark.parametrize(
    ("prediction", "area"),
    [(ORACLE, ORACLE_AREA), (ZERO, ZERO_AREA), (RANDOM, RANDOM_AREA)],
    ids=["oracle", "zero", "random"],
)
def test_references_by_hand(prediction: Prediction | Mixture, area: float) -> None:
    assert summary.both_areas(prediction, SCORES, COSTS, ProtocolOptions()) == pytest.approx((area, area))


def test_oracle_by_hand() -> None:
    found = measured(ORACLE)
    assert set(found.metrics) == EVERY_NAME
    expected = {
        "auc": ORACLE_AREA,
        "auc_path": ORACLE_AREA,
        "auc_rel": 1,
        "oracle_gap_closed": 1,
        "aiq": (0.4 * 0.75 + 0.4) / 0.8,
        "peak_score": 1,
        "qnc": 0.2 + 0.4 * 0.49 / 0.5,
        "gain_at_best_cost": 0,
        # Query 0 takes cheap throughout, query 1 dear: 1 - 0.2 p and 1 - p.
        "utility_low_cost": 100 * (0.8 + 0) / 2,
        "utility_balanced": 100 * (0.9 + 0.5) / 2,
        "utility_high_performance": 100 * (0.98 + 0.9) / 2,
        "utility_mean": (40 + 70 + 94) / 3,
    }
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected)
    for preference in PREFERENCES:
        assert found.metrics[f"selection_entropy:{preference}"] == 1
        assert found.metrics[f"optimal_selection_rate:{preference}"] == 1
        assert found.metrics[f"share:{preference}:cheap"] == found.metrics[f"share:{preference}:dear"] == 0.5
        assert found.decisions[preference].tolist() == [0, 1]


def test_zero_router_by_hand() -> None:
    found = measured(ZERO)
    assert found.metrics["auc_rel"] == found.metrics["oracle_gap_closed"] == pytest.approx(0, abs=1e-12)
    assert [found.decisions[p].tolist() for p in PREFERENCES] == [[0, 0], [1, 1], [1, 1]]
    assert found.metrics["utility_low_cost"] == pytest.approx(100 * (0.8 - 0.2) / 2)
    assert found.metrics["selection_entropy:low-cost"] == 0
    assert found.metrics["optimal_selection_rate:low-cost"] == 0.5
    assert [(p.cost, p.score, p.price_of_cost, p.on_hull) for p in found.frontier] == [
        (1.0, 1.0, 0.0, True),
        (pytest.approx(0.2), 0.5, pytest.approx(0.625), True),
    ]


def test_mixture_by_hand() -> None:
    found = measured(RANDOM)
    assert set(found.metrics) == EVERY_NAME
    assert found.decisions == {}
    assert found.metrics["auc_rel"] == pytest.approx(-1.25)
    assert found.metrics["aiq"] == pytest.approx(0.4 * 0.75 / 0.8)
    assert found.metrics["qnc"] is None
    assert found.metrics["gain_at_best_cost"] == pytest.approx(-25)
    assert found.metrics["utility_balanced"] == pytest.approx(100 * (0.75 - 0.3))
    assert found.metrics["selection_entropy:balanced"] == 1
    assert found.metrics["optimal_selection_rate:balanced"] == 0.5
    (point,) = found.frontier
    assert (point.price_of_cost, point.on_hull) == (None, True)


def test_nothing_is_relative_to_a_vanishing_gap() -> None:
    found = measured(ORACLE, zero=ORACLE_AREA - 0.05)
    assert found.metrics["auc_rel"] is None
    assert found.metrics["oracle_gap_closed"] is None


def test_options_are_heeded() -> None:
    # Left of cost 0.2 nothing, or the cheapest point's 0.5 and a straight line from there to (0.6, 1).
    assert measured(ORACLE, options=ProtocolOptions(left="cheapest")).metrics["auc"] == pytest.approx(70)
    assert measured(ORACLE, options=ProtocolOptions(left="flat")).metrics["auc"] == pytest.approx(85)
    # RouterBench's grid sees the change at 1.25 only at 1 / 0.5.
    on_grid = measured(ORACLE, options=ProtocolOptions(lambda_="grid"))
    assert [p.price_of_cost for p in on_grid.frontier] == pytest.approx([1e-9, 2])


def test_selector_has_utilities_and_decisions_but_no_frontier() -> None:
    choices = {"high-performance": np.array([1, 1]), "low-cost": np.array([0, 0]), "balanced": np.array([0, 1])}
    found = summary.measure_choices(choices, scores=SCORES, costs=COSTS, models=MODELS)
    assert set(found.metrics) == EVERY_NAME
    assert [found.metrics[name] for name in summary.FRONTIER_METRICS] == [None] * 8
    assert (found.frontier, found.walk) == ((), None)
    assert list(found.decisions) == list(PREFERENCES)
    utilities = [100 * (0.8 - 0.2) / 2, 100 * (0.9 + 0.5) / 2, 100 * (0.9 + 0.9) / 2]
    names = ("utility_low_cost", "utility_balanced", "utility_high_performance")
    assert [found.metrics[name] for name in names] == pytest.approx(utilities)
    assert found.metrics["utility_mean"] == pytest.approx(sum(utilities) / 3)
    assert found.metrics["share:balanced:dear"] == 0.5


def test_selector_must_choose_at_every_preference_on_complete_rows() -> None:
    with pytest.raises(ValueError, match="preferences are"):
        summary.measure_choices({"balanced": np.array([0, 0])}, scores=SCORES, costs=COSTS, models=MODELS)
    choices = dict.fromkeys(PREFERENCES, np.array([0, 0]))
    with pytest.raises(ValueError, match="scores of query 0, model 0 is nan"):
        summary.measure_choices(choices, scores=np.full((2, 2), np.nan), costs=COSTS, models=MODELS)


def test_models_must_be_named() -> None:
    with pytest.raises(ValueError, match="2 models"):
        summary.measure_choices(
            dict.fromkeys(PREFERENCES, np.array([0, 0])), scores=SCORES, costs=COSTS, models=("one",)
        )


def test_long_frontiers_keep_the_hull_and_64_others_in_order() -> None:
    rng = np.random.default_rng(0)
    s, c, scores, costs = (rng.random((300, 6)) for _ in range(4))
    found = summary.measure(
        prediction=Prediction(scores=s, costs=c),
        scores=scores,
        costs=costs,
        models=tuple("abcdef"),
        best_single=0,
        zero=(0.0, 0.0),
        oracle=(100.0, 100.0),
        options=ProtocolOptions(),
    )
    assert found.walk is not None
    path = found.walk.path()
    assert len(path.prices) > 200
    on_hull = {float(path.prices[k]) for k in areas.hull(path).points if k >= 0}
    assert {p.price_of_cost for p in found.frontier if p.on_hull} == on_hull
    assert sum(not p.on_hull for p in found.frontier) == 64
    prices = [p.price_of_cost for p in found.frontier]
    assert prices == sorted(prices)
    assert {prices[0], prices[-1]} == {path.prices[0], path.prices[-1]}


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.data())
def test_metrics_are_finite_or_none(n: int, m: int, data: st.DataObject) -> None:
    def table(low: float, high: float) -> np.ndarray:
        return data.draw(arrays(np.float64, (n, m), elements=st.floats(low, high)))

    scores, costs = table(0, 1), table(0, 3)
    prediction = Prediction(scores=table(-2, 2), costs=table(-2, 2))
    options = ProtocolOptions()
    oracle = summary.both_areas(Prediction(scores=scores, costs=costs), scores, costs, options)
    found = summary.measure(
        prediction=prediction,
        scores=scores,
        costs=costs,
        models=tuple("abc"[:m]),
        best_single=0,
        zero=(0.0, 0.0),
        oracle=oracle,
        options=options,
    )
    assert all(value is None or (type(value) is float and math.isfinite(value)) for value in found.metrics.values())
    assert all(math.isfinite(p.cost) and math.isfinite(p.score) for p in found.frontier)
    for name, price in PREFERENCES.items():
        np.testing.assert_array_equal(found.decisions[name], frontier.choose(prediction, price))


def test_calls_have_utilities_of_all_their_calls_and_no_decisions():
    """Setting 0 calls both models and answers with the dear one, setting 1 is the cheap one alone."""
    answers = np.array([[[0, 1], [0, 1]], [[1, 0], [1, 0]]], dtype=float)
    called = np.array([[[1, 1], [1, 1]], [[1, 0], [1, 0]]], dtype=float)
    calls = Calls(answers=answers, called=called, train_scores=np.array([1.0, 0.5]), train_costs=np.array([1.2, 0.2]))
    found = measured(calls)
    # At price 1: 1 - 1.2 against 0.5 - 0.2; at 0.1: 1 - 0.12 against 0.5 - 0.02; at 0.5: 0.4 against 0.4, the cheaper.
    assert found.metrics["utility_low_cost"] == pytest.approx(30.0)
    assert found.metrics["utility_balanced"] == pytest.approx(40.0)
    assert found.metrics["utility_high_performance"] == pytest.approx(88.0)
    assert found.metrics["share:high-performance:dear"] == 1.0
    assert found.metrics["auc"] == pytest.approx(0.05 * 100 + 100 * (0.8 * (0.5 + 0.9) / 2))
    assert not found.decisions
    assert [point.price_of_cost for point in found.frontier] == [None, None]
