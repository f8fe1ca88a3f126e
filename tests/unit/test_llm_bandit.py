from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.routers.base import Calls, mean_outcomes
from workers.routers.baselines import ZeroRouter
from workers.routers.llm_bandit import PRICES, LLMBandit
from workers.routers.preference_policy import Pool, identity_of, item_parameters, log_chances, new_policy
from workers.sides import subset

NAN = np.nan
QUICK = {"identity": 4, "hidden": 16, "epochs": 2, "ppo_epochs": 1, "batch_size": 32}


def rng():
    return np.random.default_rng(4)


@pytest.fixture
def learnable(make_side):
    """The cheap model is right where the first coordinate is positive, the dear one always, a third one rarely."""
    draw = np.random.default_rng(0)
    X = draw.normal(size=(400, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.column_stack([X[:, 0] > 0, np.ones(400), draw.random(400) < 0.2]).astype(float)
    return make_side(X, scores, np.tile([0.05, 1.0, 0.3], (400, 1)))


def test_untrained_it_is_the_zero_router_at_every_price(random_sides):
    train, queries = random_sides()
    calls = LLMBandit(epochs=0, ppo_epochs=0).fit(train, rng()).predict(queries)
    assert isinstance(calls, Calls)
    zero = ZeroRouter().fit(train, rng())
    for answers, price in zip(calls.answers, PRICES, strict=True):
        assert (answers.argmax(axis=1) == choose(zero.predict(queries), price)).all()
        assert (answers.sum(axis=1) == 1).all()
    assert PRICES[0] == 0 and (np.diff(PRICES) > 0).all()
    # The dearest setting comes first, and what the settings are judged by are means of training outcomes.
    assert (np.diff(calls.train_costs) <= 1e-9).all()
    scores, costs = mean_outcomes(train)
    chosen = calls.answers[0, 0].argmax()
    assert calls.train_scores[0] == pytest.approx(scores[chosen], abs=0.02)
    assert calls.train_costs[0] == pytest.approx(costs[chosen], abs=0.02)


def test_one_policy_serves_all_preferences(learnable):
    router = LLMBandit(identity=4, epochs=30, ppo_epochs=10, learning_rate=5e-3, batch_size=32)
    calls = router.fit(learnable, rng()).predict(learnable)
    cheap_is_right = learnable.X[:, 0] > 0
    at = [int(np.abs(PRICES - price).argmin()) for price in (0.1, 100.0)]
    needed, cheapest = (calls.answers[k].argmax(axis=1) for k in at)
    # 0.95 more for a right answer is worth it at 0.1 where the cheap model is wrong, and never at 100.
    clear = np.abs(learnable.X[:, 0]) > 0.2
    assert (needed == np.where(cheap_is_right, 0, 1))[clear].mean() > 0.95
    assert (cheapest == 0).all()


def test_supervision_and_reinforcement_each_learn_alone(learnable):
    right = np.where(learnable.X[:, 0] > 0, 0, 1)
    untrained = LLMBandit(identity=4, epochs=0, ppo_epochs=0).fit_selector(learnable, 0.1, rng()).select(learnable)
    assert len(set(untrained.tolist())) == 1
    settings = {"identity": 4, "learning_rate": 5e-3, "batch_size": 32}
    for given in ({"epochs": 30, "ppo_epochs": 0}, {"epochs": 5, "ppo_epochs": 40}):
        chosen = LLMBandit(**settings, **given).fit_selector(learnable, 0.1, rng()).select(learnable)
        assert (chosen == right).mean() > 0.85, given


def test_the_same_stream_gives_the_same_policy_and_torchs_own_goes_on(random_sides):
    train, queries = random_sides()
    state = torch.get_rng_state()
    one, two = (LLMBandit(**QUICK).fit(train, rng()).predict(queries) for _ in range(2))
    assert (one.answers == two.answers).all() and (one.train_scores == two.train_scores).all()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_policy_does_not_depend_on_the_order_of_the_models():
    draw = np.random.default_rng(1)
    pool = Pool(
        scores=draw.random((20, 5)),
        queries=draw.normal(size=(20, 4)),
        identities=draw.normal(size=(5, 4)),
        costs=draw.random(5),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = new_policy(4, 16)
        for name in ("advantage", "value"):
            torch.nn.init.normal_(net[name].weight)
    order = np.array([3, 1, 4, 0, 2])
    moved = Pool(
        scores=pool.scores[:, order], queries=pool.queries, identities=pool.identities[order], costs=pool.costs[order]
    )
    prices = np.array([0.0, 0.5, 10.0])
    ours, theirs = log_chances(net, pool, prices), log_chances(net, moved, prices)
    assert np.abs(ours[:, :, order] - theirs).max() < 1e-4
    assert np.exp(ours).sum(axis=2) == pytest.approx(1.0, abs=1e-5)


def test_untrained_chances_are_a_softmax_of_utilities():
    pool = Pool(
        scores=np.array([[0.5, 0.7]]),
        queries=np.zeros((1, 3)),
        identities=np.zeros((2, 3)),
        costs=np.array([0.1, 0.4]),
    )
    (chances,) = np.exp(log_chances(new_policy(3, 16), pool, np.array([1.0])))
    odds = np.exp([0.4 / 0.1, 0.3 / 0.1])
    assert chances[0] == pytest.approx(odds / odds.sum(), abs=1e-5)


def test_an_identity_vector_is_the_maximum_a_posteriori():
    draw = np.random.default_rng(2)
    a, b, s = draw.normal(size=(30, 4)), draw.normal(size=30), draw.random(30)

    def negative(vector):
        logits = a @ vector - b
        return (np.logaddexp(0, logits) - s * logits).sum() + vector @ vector / 2

    expected = minimize(negative, np.zeros(4), options={"gtol": 1e-9}).x
    assert identity_of(a, b, s) == pytest.approx(expected, abs=1e-5)
    assert identity_of(a[:0], b[:0], s[:0]).tolist() == [0, 0, 0, 0]


def test_a_new_model_enters_by_its_scores_on_a_few_queries(learnable):
    # The policy has met the third model and the cheap one; the dear one, always right, comes with 30 queries.
    old = replace(
        learnable,
        models=(learnable.models[0], learnable.models[2]),
        scores=learnable.scores[:, [0, 2]],
        costs=learnable.costs[:, [0, 2]],
    )
    router = LLMBandit(identity=4, epochs=30, ppo_epochs=5, learning_rate=5e-3, batch_size=32).fit(old, rng())
    weights = {name: value.copy() for name, value in router.policy_.items()}
    router.add_model(subset(learnable, np.arange(0, 400, 13)[:30]), rng())
    assert router.models_ == ["m0", "m1", "m2"]
    assert router.mean_costs_ == pytest.approx([0.05, 1.0, 0.3])
    assert all((router.policy_[name] == value).all() for name, value in weights.items())
    pool = router._pool(learnable)
    a, b = item_parameters(router.weights_, learnable.X)
    assert pool.scores == pytest.approx(1 / (1 + np.exp(b[:, None] - a @ router.weights_["identities"].T)))
    assert pool.scores[:, 1].mean() > 0.8
    calls = router.predict(learnable)
    assert calls.answers.shape == (len(PRICES), 400, 3)
    wrong = learnable.X[:, 0] < -0.2
    assert (calls.answers[0, wrong].argmax(axis=1) == 1).mean() > 0.9
    with pytest.raises(RouterError, match="one more"):
        router.add_model(learnable, rng())


def test_unobserved_cells_rows_and_models_are_no_obstacle(random_sides):
    train, queries = random_sides()
    scores = train.scores.copy()
    scores[:3], scores[:, 2] = NAN, NAN
    side = replace(train, scores=scores, costs=np.where(np.isnan(scores), NAN, train.costs))
    calls = LLMBandit(**QUICK).fit(side, rng()).predict(queries)
    assert np.isfinite(calls.answers).all() and np.isfinite(calls.train_scores).all()
    assert not calls.answers[:, :, 2].any()


def test_tied_models_go_to_the_cheaper(make_side):
    side = make_side(np.eye(3), np.ones((3, 2)), np.tile([0.4, 0.2], (3, 1)))
    assert (LLMBandit(epochs=0, ppo_epochs=0).fit_selector(side, 0.0, rng()).select(side) == 1).all()


def test_candidates_hold_the_defaults_and_the_untrained_policy():
    drawn = LLMBandit.candidates(n_train=100, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[0] == {"learning_rate": 1e-3, "epochs": 20, "ppo_epochs": 10}
    assert (drawn[1]["epochs"], drawn[1]["ppo_epochs"]) == (0, 0)
    assert min(drawn, key=LLMBandit.simplicity) == drawn[1]
    assert LLMBandit.online and not LLMBandit.tuned_by_default


@pytest.mark.parametrize("bad", [{"hidden": 30}, {"identity": 0}, {"learning_rate": 0}, {"ppo_epochs": -1}])
def test_bad_values_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        LLMBandit(**bad)
