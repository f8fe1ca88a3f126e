from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsRegressor

from workers.errors import RouterError
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.knn import KNN
from workers.routers.neighbours import Search, nearest
from workers.sides import blinded

NAN = np.nan
RNG = np.random.default_rng(0)


def predict(train, queries, **params):
    return KNN(**params).fit(train, RNG).predict(queries)


def filled(train):
    """The same side with every cell observed."""
    return replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))


@pytest.mark.parametrize("k", [1, 3, 40, 80])
def test_agrees_with_scikit_learn(random_sides, k):
    train, queries = random_sides()
    train = filled(train)
    ours = predict(train, queries, k=k)
    model = KNeighborsRegressor(k, metric="cosine", algorithm="brute")
    targets = np.hstack([train.scores, train.costs])
    theirs = model.fit(train.X.astype(float), targets).predict(queries.X.astype(float))
    assert np.hstack([ours.scores, ours.costs]) == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("similarity", ["centered", "whitened"])
def test_centred_and_whitened_agree_with_scikit_learn(random_sides, similarity):
    train, queries = random_sides()
    train = filled(train)
    pca = PCA(whiten=similarity == "whitened").fit(train.X.astype(float))
    model = KNeighborsRegressor(7, metric="cosine", algorithm="brute")
    model.fit(pca.transform(train.X.astype(float)), train.scores)
    theirs = model.predict(pca.transform(queries.X.astype(float)))
    assert predict(train, queries, k=7, similarity=similarity).scores == pytest.approx(theirs, abs=1e-12)


def test_inverse_distance_agrees_with_scikit_learn(random_sides):
    train, queries = random_sides()
    train = filled(train)
    model = KNeighborsRegressor(5, metric="euclidean", weights="distance", algorithm="brute")
    theirs = model.fit(train.X.astype(float), train.scores).predict(queries.X.astype(float))
    assert predict(train, queries, k=5, weights="distance").scores == pytest.approx(theirs, abs=1e-5)


def test_softmax_weights_by_hand(make_side):
    train = make_side([[1, 0], [0.6, 0.8]], [[1, 0], [0, 1]], [[0.2, 0.4], [0.6, 0.8]])
    weight = 1 / (1 + np.exp(-0.4 / 0.5))
    prediction = predict(train, train, k=2, weights="softmax", tau=0.5)
    assert prediction.scores[0] == pytest.approx([weight, 1 - weight], abs=1e-6)
    assert prediction.costs[0, 0] == pytest.approx(0.2 * weight + 0.6 * (1 - weight), abs=1e-6)


def test_means_are_over_neighbours_that_observed_the_model(make_side):
    angles = np.array([0.0, 0.1, 0.2, 3.0])
    train = make_side(
        np.column_stack([np.cos(angles), np.sin(angles)]),
        [[1, NAN], [0, NAN], [1, 0.25], [0, 0.75]],
        [[0.1, NAN], [0.2, NAN], [0.3, 0.5], [0.4, 0.7]],
    )
    three = predict(train, train, k=3)
    assert three.scores[0] == pytest.approx([2 / 3, 0.25])
    assert three.costs[0] == pytest.approx([0.2, 0.5])
    # Neither of the two nearest observed the second model: its training mean.
    assert predict(train, train, k=2).scores[0] == pytest.approx([0.5, 0.5])


def test_equally_near_queries_come_in_canonical_order(make_side):
    X = [[0, 1], [1, 0], [1, 0], [1, 0], [0.6, 0.8]]
    train = make_side(X, np.eye(5), np.ones((5, 5)))
    for k, expected in ((1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (5, [1, 2, 3, 4, 0])):
        search = Search(similarity="cosine", train=train, queries=train, k=k)
        (found,) = nearest([search])
        assert found.index[2].tolist() == expected


def test_zero_and_minus_zero_similarity_tie(make_side):
    train = make_side([[-0.0, 1], [0.0, -1], [0, 1]], np.eye(3), np.ones((3, 3)))
    query = make_side([[1, 0], [1, -0.0], [1, 0]], np.eye(3), np.ones((3, 3)))
    both = make_side(np.vstack([train.matrix, query.matrix]), np.ones((6, 1)), np.ones((6, 1)))
    search = Search(
        similarity="cosine",
        train=replace(train, matrix=both.matrix),
        queries=replace(query, matrix=both.matrix, embedding_rows=np.arange(3, 6)),
        k=3,
    )
    (found,) = nearest([search])
    assert (found.index == [0, 1, 2]).all()


def test_all_neighbours_are_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = predict(train, queries, k=train.n)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)


def test_votes_of_ties_are_shared_by_the_cheapest_best(make_side):
    # m0 and m1 tie on two neighbours at equal cost (half a vote each); m2 alone is best on the third.
    train = make_side(
        [[1, 0], [0.99, np.sqrt(1 - 0.99**2)], [0.9, np.sqrt(1 - 0.81)]],
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]],
        [[0.1, 0.1, 0.3], [0.1, 0.1, 0.3], [0.3, 0.1, 0.3]],
    )
    choice = KNN(k=3).fit_selector(train, 0.5, RNG).select(train)
    # 1, 1 and 1 vote: the tie goes to the model of the lowest mean training cost.
    assert choice[0] == 1
    assert KNN(k=1).fit_selector(train, 0.5, RNG).select(train)[2] == 2


def test_k_above_the_training_side_is_refused():
    KNN(k=10).check(n_train=10)
    with pytest.raises(RouterError, match="k = 11 is above the 10 queries"):
        KNN(k=11).check(n_train=10)


def test_k_must_come_from_somewhere(random_sides):
    train, queries = random_sides()
    with pytest.raises(RouterError, match="give k"):
        predict(train, queries)


def test_same_bits_alone_and_in_any_company(random_sides):
    train, queries = random_sides(n_train=300, n_queries=500, dim=40)
    other_train, other_queries = random_sides(n_train=200, n_queries=600, dim=40)
    other_train, other_queries = (replace(s, matrix=train.matrix) for s in (other_train, other_queries))
    configs = [
        {"k": 1},
        {"k": 10, "weights": "softmax"},
        {"k": 150, "weights": "distance"},
        {"k": 20, "similarity": "centered"},
        {"k": 20, "similarity": "whitened"},
        {"k": 30, "price": 0.5},
    ]
    jobs = [
        FitJob(
            router=KNN(**{key: value for key, value in config.items() if key != "price"}),
            train=t,
            queries=q,
            rng=RNG,
            price=config.get("price"),
        )
        for config in configs
        for t, q in ((train, queries), (other_train, other_queries))
    ]
    alone = [bits(next(KNN.predict_many([job]))) for job in jobs]
    order = np.random.default_rng(3).permutation(len(jobs))
    together = list(KNN.predict_many([jobs[i] for i in order]))
    assert [bits(together[list(order).index(i)]) for i in range(len(jobs))] == alone


def bits(fitted):
    answer = fitted.prediction
    return answer.tobytes() if isinstance(answer, np.ndarray) else answer.scores.tobytes() + answer.costs.tobytes()


def test_a_blind_twin_keeps_equal_embeddings_equal(make_side):
    X = np.eye(6)[[0, 1, 0, 2, 3, 1, 4, 5]]
    side = make_side(X, np.ones((8, 2)), np.ones((8, 2)))
    twin = blinded(side, np.random.default_rng(5))
    assert (twin.X[0] == twin.X[2]).all()
    assert (twin.X[1] == twin.X[5]).all()
    assert sorted(map(tuple, np.unique(twin.X, axis=0))) == sorted(map(tuple, np.unique(X, axis=0)))
    assert (twin.X != side.X).any()
    assert twin.scores is side.scores


def test_a_blind_twin_finds_what_its_permuted_rows_say(random_sides):
    train, queries = random_sides()
    twin = blinded(train, np.random.default_rng(5))
    written_out = replace(train, matrix=np.array(train.matrix))
    written_out.matrix[train.embedding_rows] = twin.X
    ours, expected = predict(twin, queries, k=5), predict(written_out, queries, k=5)
    assert ours.scores.tolist() == expected.scores.tolist()


def test_bytes_are_those_of_the_training_side(random_sides):
    train, queries = random_sides()
    (fitted,) = KNN.predict_many([FitJob(router=KNN(k=3), train=train, queries=queries, rng=RNG)])
    # 80 queries: 6 float32, and score and cost of 4 models as float64.
    assert fitted.n_bytes == KNN(k=3).fit(train, RNG).n_bytes == 80 * (6 * 4 + 2 * 4 * 8)


def test_candidates_hold_the_papers_settings_and_the_blind_limit():
    drawn = KNN.candidates(n_train=700, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == 20
    assert [config["k"] for config in drawn[:3]] == [100, 700, 10]
    assert all(config["similarity"] == "cosine" and config["weights"] == "uniform" for config in drawn[:3])
    assert all(1 <= KNN(**config).k <= 700 for config in drawn)
    assert {config["similarity"] for config in drawn} == {"cosine", "centered", "whitened"}
    assert {config["weights"] for config in drawn} == {"uniform", "distance", "softmax"}
    assert len(KNN.candidates(n_train=700, budget=2, fixed={}, rng=np.random.default_rng(1))) == 2
