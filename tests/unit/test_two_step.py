"""AutoMix and two-tier: rules by hand and by the originals' definitions, calls and their price, pairs, missing data."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from workers.errors import RouterError
from workers.routers.automix import AutoMix, _cells, ibc_lift, proposals
from workers.routers.base import resolve_params
from workers.routers.chains import mean_of_settings
from workers.routers.two_tier import TwoTier
from workers.sides import hidden

NAN = np.nan


def rng():
    return np.random.default_rng(0)


def test_ibc_lift_by_hand():
    small, large = (0.5, 1.0), (0.8, 61.0)
    # The large model gains 0.005 a unit of cost. 0.6 at 11: 0.01, twice as much; 0.55 at 11: as much; 0.5: nothing.
    assert ibc_lift(0.6, 11.0, small=small, large=large) == pytest.approx(100)
    assert ibc_lift(0.55, 11.0, small=small, large=large) == pytest.approx(0)
    assert ibc_lift(0.5, 11.0, small=small, large=large) == pytest.approx(-100)
    assert math.isnan(ibc_lift(0.6, 1.0, small=small, large=large))
    assert math.isnan(ibc_lift(0.6, 2.0, small=small, large=(0.5, 61.0)))


GRID = np.sort(np.concatenate([np.arange(17) / 16, np.linspace(0.013, 0.987, 40)]))


def decisions(method, verified, small, large, bins=8):
    """What the proposed settings do at each confidence of GRID, as a set."""
    tables = proposals(method, verified, small, large, bins)
    return {tuple(row) for row in tables[:, _cells(GRID, bins)].tolist()}


@pytest.fixture
def verified():
    """Confidences of eight verifications each, and scores of two models that depend on them."""
    random = np.random.default_rng(0)
    v = random.integers(0, 9, size=400) / 8
    small, large = ((random.random(400) < chance).astype(float) for chance in (0.2 + 0.6 * v, 0.9 - 0.3 * (v < 0.3)))
    small[:10], large[5:20] = NAN, NAN
    return v, small, large


def test_thresholds_are_the_originals(verified):
    assert decisions("threshold", *verified) == {tuple((t / 8 >= GRID).tolist()) for t in range(9)}
    double = {tuple(((i / 8 <= GRID) & (j / 8 >= GRID)).tolist()) for i in range(8) for j in range(i + 1, 8)}
    assert len(double) == 28
    assert decisions("double", *verified) == double


def nearest(value):
    return min(8, math.floor(8 * value + 0.5))


def test_pomdp_chooses_the_best_action_at_every_reward(verified):
    v, small, large = verified
    seen = ~(np.isnan(small) | np.isnan(large))
    needy, hopeless = (small == 0) & (large == 1), (small == 0) & (large == 0)
    sequences = set()
    for reward in range(5000):
        actions = []
        for b in range(9):
            members = seen & (v == b / 8)
            p = np.array([needy[members].mean(), 1 - (needy | hopeless)[members].mean(), hopeless[members].mean()])
            keep, call = p @ [-reward, 0, -reward - 1], p @ [-100, -100, -reward - 100]
            actions.append(bool(call > keep))
        sequences.add(tuple(actions))
    assert len(sequences) > 5
    assert decisions("pomdp", *verified) == {tuple(actions[nearest(x)] for x in GRID) for actions in sequences}


def test_greedy_calls_one_bin_more_at_a_time(verified):
    v, small, large = verified
    seen = ~(np.isnan(small) | np.isnan(large))
    gains = gaussian_filter([float((large - small)[seen & (v == b / 8)].mean()) for b in range(9)], sigma=2)
    order = sorted(range(9), key=lambda b: -gains[b])
    expected = {tuple(nearest(x) in order[: k + 1] for x in GRID) for k in range(9)}
    assert decisions("greedy", *verified) == expected


@pytest.mark.parametrize("method", ["pomdp", "greedy"])
def test_bins_without_a_query_and_no_query_at_all(method):
    v, nothing = np.array([0.5, 0.5]), np.array([NAN, NAN])
    for small, large in ((np.zeros(2), np.ones(2)), (nothing, nothing)):
        assert proposals(method, v, small, large, 8).shape[1] == 35


def pair(make_side, column, values, *, n=100):
    """Two models at costs 0.1 and 1; the small one is right where its confidence is above a half."""
    values = np.resize(values, n)
    small = (values > 0.5).astype(float)
    side = make_side(np.ones((n, 2)), np.column_stack([small, np.ones(n)]), np.tile([0.1, 1.0], (n, 1)))
    confidence = np.column_stack([values, np.full(n, NAN)])
    return replace(side, extras={column: confidence})


def test_automix_calls_the_large_model_where_the_verifier_doubts_and_pays_for_verification(make_side):
    side = pair(make_side, "verifier", [1.0, 0.25, 1.0, 0.75, 1.0])  # a fifth is wrong
    for method in ("threshold", "pomdp", "greedy", "double"):
        router = AutoMix(method=method).fit(side, rng())
        calls = router.predict(hidden(side))
        s, c = mean_of_settings(calls.answers, calls.called, *side.outcomes)
        # All right at 0.1 for answers, 0.1 for verification and a fifth of 1; the small model alone: 0.8 at 0.1.
        assert s == pytest.approx([1.0, 0.8])
        assert c == pytest.approx([0.4, 0.1])
        assert (calls.train_scores, calls.train_costs) == (pytest.approx(s), pytest.approx(c))
        assert calls.called[0, :5].tolist() == [[2, 0], [2, 1], [2, 0], [2, 0], [2, 0]]
        assert calls.answers[0, :5, 1].tolist() == [0, 1, 0, 0, 0]
    dear = AutoMix(method="threshold", verifier_cost=10.0).fit(side, rng()).predict(hidden(side))
    # Verification for 1 a query is worth less than the large model alone.
    assert mean_of_settings(dear.answers, dear.called, *side.outcomes)[1] == pytest.approx([1.0, 0.1])
    free = AutoMix(method="threshold", verifier_cost=0).fit(side, rng()).predict(hidden(side))
    assert mean_of_settings(free.answers, free.called, *side.outcomes)[1] == pytest.approx([0.3, 0.1])


def test_two_tier_calls_the_large_model_below_the_quantile_of_the_margin(make_side):
    margins = (np.random.default_rng(0).permutation(100) + 0.5) / 100
    side = pair(make_side, "margin", margins)
    calls = TwoTier().fit(side, rng()).predict(hidden(side))
    s, c = mean_of_settings(calls.answers, calls.called, *side.outcomes)
    # Half of the answers are wrong, those of the lowest margins, and every call of the large model mends one. What lies
    # between is on one line: no price of cost asks for it.
    assert (s[0], c[0]) == (pytest.approx(1.0), pytest.approx(0.6))
    assert (s[-1], c[-1]) == (pytest.approx(0.5), pytest.approx(0.1))
    assert (calls.called[0, :, 1] == (margins < 0.5)).all()


def test_every_share_of_calls_is_a_setting_where_gains_fall(make_side):
    margins = (np.arange(200) + 0.5) / 200
    small = 1 - (1 - margins) ** 2  # scores in [0, 1] that rise with the margin, ever more slowly
    side = make_side(np.ones((200, 2)), np.column_stack([small, np.ones(200)]), np.tile([0.01, 1.0], (200, 1)))
    side = replace(side, extras={"margin": np.column_stack([margins, margins])})
    calls = TwoTier().fit(side, rng()).predict(hidden(side))
    shares = calls.called[:, :, 1].mean(axis=1)
    assert shares == pytest.approx([1.0, *np.arange(19, -1, -1) / 20], abs=0.006)


@pytest.mark.parametrize(("cls", "column"), [(AutoMix, "verifier"), (TwoTier, "margin")])
def test_a_missing_confidence_counts_as_none(make_side, cls, column):
    side = pair(make_side, column, [1.0, 0.25, 1.0, 0.75, 1.0])
    params = {"method": "threshold"} if cls is AutoMix else {}  # of the others an empty bin keeps its queries
    router = cls(**params).fit(side, rng())
    unsure = replace(side, extras={column: np.full((100, 2), NAN)})
    assert router.predict(hidden(unsure)).called[0, :, 1].tolist() == [1.0] * 100


@pytest.mark.parametrize(("cls", "column"), [(AutoMix, "verifier"), (TwoTier, "margin")])
def test_pairs_are_neighbours_on_the_frontier_or_its_ends(make_side, cls, column):
    random = np.random.default_rng(0)
    scores = (random.random((300, 4)) < [0.4, 0.7, 0.5, 0.9]).astype(float)
    side = make_side(np.ones((300, 2)), scores, np.tile([0.1, 0.3, 0.5, 2.0], (300, 1)))
    side = replace(side, extras={column: np.clip(0.1 + 0.8 * scores, 0, 1)})
    params = {"verifier_cost": 0} if cls is AutoMix else {}

    def steps(pairs, side):
        return cls(pairs=pairs, **params).fit(side, rng()).models_.tolist()

    # m2 is dearer and worse than m1.
    assert {tuple(step) for step in steps("chain", side)} <= {(0, 1), (1, 3), (0, -1), (1, -1), (3, -1)}
    assert [1, 3] in steps("chain", side) and [0, 1] in steps("chain", side)
    assert {tuple(step) for step in steps("ends", side)} <= {(0, 3), (0, -1), (3, -1)}
    # The same whatever the order of the columns.
    order = np.array([3, 1, 0, 2])
    moved = replace(
        side, scores=side.scores[:, order], costs=side.costs[:, order], extras={column: side.extras[column][:, order]}
    )
    back = [[int(order[m]) if m >= 0 else -1 for m in step] for step in steps("chain", moved)]
    assert back == steps("chain", side)


@pytest.mark.parametrize(("cls", "column"), [(AutoMix, "verifier"), (TwoTier, "margin")])
@pytest.mark.parametrize("signal", ["column", "learned"])
def test_a_model_that_is_cheapest_and_best_answers_alone(make_side, cls, column, signal):
    side = make_side(np.eye(4), [[1, 0]] * 4, [[0.1, 0.2]] * 4)
    side = replace(side, extras={column: np.ones((4, 2)), "response": np.full((4, 2), "x", dtype=object)})
    calls = cls(signal=column if signal == "column" else signal).fit(side, rng()).predict(hidden(side))
    assert calls.called.tolist() == calls.answers.tolist() == [[[1, 0]] * 4]


@pytest.mark.parametrize("cls", [AutoMix, TwoTier])
def test_a_learned_confidence_reads_the_answers(make_side, cls):
    random = np.random.default_rng(0)

    def told():
        scores = np.column_stack([(random.random(200) < 0.6).astype(float), np.ones(200)])
        side = make_side(random.normal(size=(200, 3)), scores, np.tile([0.1, 1.0], (200, 1)))
        words = np.array(["perhaps so", "surely"], dtype=object)[scores.astype(int)]
        return replace(side, extras={"response": words})

    train, queries = told(), told()
    router = cls(signal="learned").fit(train, rng())
    assert router.requirements() == ("response",)
    calls = router.predict(hidden(queries))
    s, c = mean_of_settings(calls.answers, calls.called, *queries.outcomes)
    wrong = 1 - queries.scores[:, 0].mean()
    verification = 0.1 if cls is AutoMix else 0.0
    # Some setting calls the large model just about where the small one's answer says "perhaps".
    assert ((s > 0.95) & (c < 0.1 + verification + wrong + 0.06)).any()


def test_requirements_and_refusals():
    assert AutoMix().requirements() == ("verifier",)
    assert TwoTier().requirements() == ("margin",)
    for cls, given, message in (
        (AutoMix, {"method": "mdp"}, "method must be one of pomdp, greedy, threshold, double"),
        (AutoMix, {"signal": "margin"}, "signal must be one of verifier, learned"),
        (AutoMix, {"verifier_cost": -1}, "verifier_cost must be a number of at least 0"),
        (AutoMix, {"bins": 0}, "bins must be a whole number"),
        (AutoMix, {"pairs": "all"}, "pairs must be one of chain, ends"),
        (TwoTier, {"signal": "verifier"}, "signal must be one of margin, learned"),
        (TwoTier, {"penalty": 0.0}, "penalty must be a number above 0"),
    ):
        with pytest.raises(RouterError, match=message):
            resolve_params(cls, given)
