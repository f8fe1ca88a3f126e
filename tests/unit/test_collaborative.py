from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.routers.base import mean_outcomes
from workers.routers.collaborative import CFItem, CFUser, adjusted_cosine
from workers.routers.knn import KNN

NAN = np.nan
RNG = np.random.default_rng(0)


def shuffled(side, columns):
    return replace(
        side,
        models=tuple(side.models[j] for j in columns),
        scores=side.scores[:, columns],
        costs=side.costs[:, columns],
    )


def test_adjusted_cosine_by_hand():
    # Deviations from the queries' means 0.5, 0.5 and 0.5 (over the two observed).
    scores = np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.5], [1.0, 0.0, NAN]])
    d = np.array([[0.5, 0.0, -0.5], [-0.5, 0.5, 0.0], [0.5, -0.5, 0.0]])
    similarity = adjusted_cosine(scores)
    assert similarity[0, 1] == pytest.approx((-0.25 - 0.25) / np.sqrt(0.75 * 0.5))
    # Over the first two queries alone, which observed the third model.
    assert similarity[0, 2] == pytest.approx(d[:2, 0] @ d[:2, 2] / np.sqrt((d[:2, 0] ** 2).sum() * 0.25))
    assert similarity == pytest.approx(similarity.T)
    assert np.diag(similarity).tolist() == [1, 1, 1]


def test_adjusted_cosine_agrees_with_loops(random_sides):
    scores = random_sides(n_models=6)[0].scores
    deviations = scores - np.nanmean(scores, axis=1, keepdims=True)
    similarity = adjusted_cosine(scores)
    for i in range(6):
        for j in range(6):
            both = ~np.isnan(scores[:, i]) & ~np.isnan(scores[:, j])
            a, b = deviations[both, i], deviations[both, j]
            assert similarity[i, j] == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))


def test_items_predict_by_the_weighted_deviations_of_the_most_similar(random_sides):
    train, queries = random_sides(n_models=5)
    filled_in = KNN(k=7).fit(train, RNG).predict(queries)
    means = mean_outcomes(train)[0]
    similarity = adjusted_cosine(train.scores)
    prediction = CFItem(k=3, cold=7).fit(train, RNG).predict(queries)
    for model in range(5):
        near = np.argsort(-similarity[model])[:3]
        weights = np.maximum(similarity[model][near], 0.0)
        expected = means[model] + (filled_in.scores - means)[:, near] @ weights / weights.sum()
        assert prediction.scores[:, model] == pytest.approx(expected, abs=1e-12)
    assert prediction.costs == pytest.approx(filled_in.costs, abs=1e-12)


def test_one_item_is_knn_and_all_queries_are_the_zero_router(random_sides):
    train, queries = random_sides()
    knn = KNN(k=9).fit(train, RNG).predict(queries)
    assert CFItem(k=1, cold=9).fit(train, RNG).predict(queries).scores == pytest.approx(knn.scores, abs=1e-12)
    blind = CFItem(cold=80).fit(train, RNG).predict(queries)
    for found, mean in zip((blind.scores, blind.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-12)


def test_items_that_tie_with_the_kth_all_count(make_side):
    # The second and third model are alike: whichever comes first, both help to predict the first, and each other.
    scores = [[1, 1, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 1]]
    side = make_side(np.eye(4), scores, np.ones((4, 4)))
    weights = CFItem(k=2).fit(side, RNG).weights_
    assert weights[1] == pytest.approx([0, 0.5, 0.5, 0])
    assert weights[0, 1] == weights[0, 2]


def test_users_predict_by_deviations_from_their_means(make_side):
    train = make_side(
        [[1, 0], [0.8, 0.6], [0.6, 0.8], [0, 1]],
        [[1, 0.5], [0.2, NAN], [0.4, 0.8], [0, 0]],
        [[0.1, 0.3], [0.2, NAN], [0.3, 0.5], [0.9, 0.9]],
    )
    means, w = np.array([0.75, 0.2, 0.6]), np.array([1.0, 0.8, 0.6])
    prediction = CFUser(k=3).fit(train, RNG).predict(train)
    level = w @ means / w.sum()
    assert prediction.scores[0] == pytest.approx(
        [level + w @ [0.25, 0, -0.2] / w.sum(), level + (-0.25 + 0.6 * 0.2) / 1.6], abs=1e-6
    )
    assert prediction.costs[0] == pytest.approx([w @ [0.1, 0.2, 0.3] / w.sum(), (0.3 + 0.3) / 1.6], abs=1e-6)


def test_a_model_that_no_neighbour_observed_has_its_usual_deviation(make_side):
    train = make_side(np.eye(3), [[0.4, NAN], [0.5, 1.0], [0.0, 0.5]], [[0.1, NAN], [0.1, 0.3], [0.1, 0.7]])
    prediction = CFUser(k=1).fit(train, RNG).predict(train)
    # Queries' means 0.4, 0.75, 0.25; the second model's mean is 0.75, the mean of the queries' means 1.4 / 3.
    assert prediction.scores[0] == pytest.approx([0.4, 0.4 + 0.75 - 1.4 / 3])
    assert prediction.costs[0] == pytest.approx([0.1, 0.5])


def test_on_complete_data_users_are_similarity_weighted_neighbours(random_sides):
    train, queries = random_sides()
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    similarity = queries.X.astype(float) @ train.X.astype(float).T
    prediction = CFUser(k=6).fit(train, RNG).predict(queries)
    for i in range(queries.n):
        near = np.argsort(-similarity[i])[:6]
        weights = np.maximum(similarity[i][near], 0)
        assert prediction.scores[i] == pytest.approx(weights @ train.scores[near] / weights.sum(), abs=1e-6)


def test_uniform_users_over_all_queries_are_blind(random_sides):
    train, queries = random_sides()
    scores = CFUser(k=80, weights="uniform").fit(train, RNG).predict(queries).scores
    assert scores == pytest.approx(np.tile(scores[0], (queries.n, 1)), abs=1e-12)


def test_opposite_queries_say_nothing(make_side):
    train = make_side([[1, 0], [-1, 0]], [[1, 0], [0, 0]], np.ones((2, 2)))
    query = replace(train, rows=np.array([1]), embedding_rows=np.array([1]), tasks=("",), groups=np.array([1]))
    alone = replace(query, scores=train.scores[:1], costs=train.costs[:1], embedding_rows=np.array([0]))
    prediction = CFUser(k=1).fit(alone, RNG).predict(query)
    # Nobody with a positive similarity: the training means.
    assert prediction.scores[0] == pytest.approx([1, 0])


@pytest.mark.parametrize("cls", [CFItem, CFUser])
def test_the_order_of_models_does_not_matter(random_sides, cls):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    plain, other = (cls(k=3).fit(side, RNG).predict(queries).scores for side in (train, shuffled(train, columns)))
    assert other == pytest.approx(plain[:, columns], abs=1e-12)


@pytest.mark.parametrize("cls", [CFItem, CFUser])
def test_a_single_model_and_queries_without_any_outcome(make_side, cls):
    side = make_side(np.eye(3), [[1.0], [NAN], [0.0]], np.ones((3, 1)))
    prediction = cls(k=2).fit(side, RNG).predict(side)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()


def test_candidates_hold_the_blind_limits():
    rng = np.random.default_rng(1)
    items = CFItem.candidates(n_train=500, budget=20, fixed={}, rng=rng)
    assert items[:2] == [{"k": 30, "cold": 100}, {"k": 30, "cold": 500}]
    users = CFUser.candidates(n_train=500, budget=20, fixed={}, rng=rng)
    assert users[:2] == [{"k": 30, "weights": "similarity"}, {"k": 500, "weights": "uniform"}]
    assert len(items) == len(users) == 20
    assert min(users, key=CFUser.simplicity) == users[1]
    with pytest.raises(ValueError, match="must be one of similarity, uniform"):
        CFUser(weights="pearson")
