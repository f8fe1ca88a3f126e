from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.routers.avengers import Avengers, rank_votes
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.clusters import find_centres
from workers.sides import subset

NAN = np.nan


def rng():
    return np.random.default_rng(2)


def test_votes_are_reciprocal_ranks_and_ties_share_their_places():
    total = 1 + 1 / 2 + 1 / 3
    utilities = np.array([[0.9, 0.1, 0.5], [0.5, 0.5, 0.1], [0.5, 0.5, 0.5], [0.2, 0.7, 0.7]])
    costs = np.array([[0.1, 0.1, 0.1], [0.2, 0.1, 0.1], [0.3, 0.3, 0.3], [0.1, 0.4, 0.4]])
    votes = rank_votes(utilities, costs) * total
    assert votes[0] == pytest.approx([1, 1 / 3, 1 / 2])
    assert votes[1] == pytest.approx([1 / 2, 1, 1 / 3])  # equal utility: the cheaper is first
    assert votes[2] == pytest.approx([total / 3] * 3)
    assert votes[3] == pytest.approx([1 / 3, 3 / 4, 3 / 4])


def test_predictions_are_weighted_means_of_the_nearest_clusters(random_sides):
    train, queries = random_sides()
    router = Avengers(clusters=6, beta=5.0, nearest=2).fit(train, rng())
    scores, costs = router.cluster_means()
    prediction = router.predict(queries)
    for i in range(5):
        distances = [1 - float(np.dot(queries.X[i].astype(float), centre)) for centre in router.centres_]
        near = sorted(range(len(distances)), key=distances.__getitem__)[:2]
        odds = np.exp([-5.0 * distances[j] for j in near])
        weights = odds / odds.sum()
        assert prediction.scores[i] == pytest.approx(weights @ scores[near])
        assert prediction.costs[i] == pytest.approx(weights @ costs[near])


def test_the_selector_adds_weighted_reciprocal_ranks(random_sides):
    train, queries = random_sides()
    router = Avengers(clusters=5, nearest=3).fit_selector(train, 0.5, rng())
    scores, costs = router.cluster_means()
    utilities = scores - 0.5 * costs
    votes = np.zeros_like(utilities)
    for row, cluster in zip(votes, utilities, strict=True):
        for rank, model in enumerate(sorted(range(4), key=lambda m: -cluster[m])):
            row[model] = 1 / (rank + 1)
    assert (router.select(queries) == (router.weights(queries) @ votes).argmax(axis=1)).all()


def test_one_cluster_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = Avengers(clusters=1).fit(train, rng()).predict(queries)
    for found, mean in zip((prediction.scores, prediction.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-12)


@pytest.mark.parametrize("price", [0.0, 0.1, 1.0])
def test_the_order_of_models_does_not_matter(random_sides, price):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    # Binary scores on few queries: many clusters where models tie.
    moved = replace(
        train,
        models=tuple(train.models[j] for j in columns),
        scores=train.scores[:, columns],
        costs=train.costs[:, columns],
    )
    plain, other = (Avengers(clusters=30).fit_selector(side, price, rng()).select(queries) for side in (train, moved))
    assert (columns[other] == plain).all()


def test_clusters_beyond_the_training_side_are_cut(random_sides):
    train, queries = random_sides(n_train=5)
    router = Avengers().fit(train, rng())
    assert len(router.centres_) == 5
    assert np.isfinite(router.predict(queries).scores).all()


def test_shared_clusters_give_the_bits_of_each_alone(random_sides):
    train, queries = random_sides()
    other, others = random_sides(seed=1)
    configs = [{"clusters": 8}, {"clusters": 8, "beta": 2.0}, {"clusters": 5, "nearest": 1}]
    jobs = [
        (config, t, q, price)
        for config in configs
        for t, q in ((train, queries), (other, others))
        for price in (None, 0.5)
    ]

    def job(config, t, q, price):
        return FitJob(router=Avengers(**config), train=t, queries=q, rng=rng(), price=price)

    alone = [bits(next(Avengers.predict_many([job(*given)]))) for given in jobs]
    assert [bits(fitted) for fitted in Avengers.predict_many([job(*given) for given in jobs])] == alone
    direct = Avengers(clusters=8).fit(train, rng()).predict(queries)
    assert alone[0] == direct.scores.tobytes() + direct.costs.tobytes()


def bits(fitted):
    answer = fitted.prediction
    return answer.tobytes() if isinstance(answer, np.ndarray) else answer.scores.tobytes() + answer.costs.tobytes()


def test_more_queries_and_one_more_model(random_sides):
    train, queries = random_sides(n_models=3)
    centres = find_centres(train.X, 6, rng())
    whole = Avengers().fill(train, centres).predict(queries)
    half = Avengers().fill(subset(train, np.arange(40)), centres)
    grown = half.partial_fit(subset(train, np.arange(40, 80)), rng()).predict(queries)
    assert grown.scores == pytest.approx(whole.scores, abs=1e-12)
    fewer = replace(train, models=train.models[:2], scores=train.scores[:, :2], costs=train.costs[:, :2])
    wider = Avengers().fill(fewer, centres).add_model(train, rng()).predict(queries)
    assert wider.costs == pytest.approx(whole.costs, abs=1e-12)


def test_candidates_hold_the_papers_setting_and_the_blind_limit():
    drawn = Avengers.candidates(n_train=700, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[0] == {"clusters": 60, "beta": 9.0, "nearest": 4} == Avengers().params()
    assert min(drawn, key=Avengers.simplicity) == drawn[1] == {"clusters": 1, "beta": 9.0, "nearest": 4}
    assert all(16 <= config["clusters"] <= 64 for config in drawn[2:])
