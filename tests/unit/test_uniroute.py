from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from workers.errors import RouterError
from workers.routers.base import mean_outcomes
from workers.routers.clusters import find_centres, nearest_centre
from workers.routers.uniroute import UniRoute
from workers.sides import subset

NAN = np.nan


def rng():
    return np.random.default_rng(2)


@pytest.fixture
def blobs(make_side):
    """Three tight groups of queries on which the models differ, in the proportions 3 : 2 : 1."""
    points = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    X = np.repeat(points, [3, 2, 1], axis=0) + 0.01 * np.random.default_rng(0).normal(size=(6, 3))
    scores = [[1, 0], [1, 0.5], [0, 1], [0, 1], [0, NAN], [0.25, 0.75]]
    costs = [[0.1, 0.4], [0.1, 0.6], [0.1, 0.4], [0.3, 0.4], [0.3, NAN], [0.1, 0.2]]
    return make_side(X / np.linalg.norm(X, axis=1, keepdims=True), scores, costs)


def test_a_model_is_its_vector_of_mean_errors(blobs):
    router = UniRoute(clusters=3).fit(blobs, rng())
    of = nearest_centre(blobs.X, router.centres_)
    assert [len(set(of[:3])), len(set(of[3:5])), len(set(of))] == [1, 1, 3]
    errors = router.errors()[[of[0], of[3], of[5]]]
    assert errors == pytest.approx(np.array([[1 / 3, 0.5], [1, 0], [0.75, 0.25]]))
    prediction = router.predict(blobs)
    assert prediction.scores[4] == pytest.approx([0, 1])
    # The cost of a model is its mean, whatever the query.
    assert prediction.costs == pytest.approx(np.tile([1.0 / 6, 2.0 / 5], (6, 1)))


def test_centres_are_scikit_learns(random_sides):
    from sklearn.cluster import KMeans

    train, queries = random_sides()
    seed = int(rng().integers(2**31))
    theirs = KMeans(7, n_init=3, random_state=seed).fit(train.X.astype(float))
    ours = find_centres(train.X, 7, rng())
    assert ours == pytest.approx(theirs.cluster_centers_)
    assert (nearest_centre(queries.X, ours) == theirs.predict(queries.X.astype(float))).all()


def test_one_cluster_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = UniRoute(clusters=1).fit(train, rng()).predict(queries)
    for found, mean in zip((prediction.scores, prediction.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-12)


def test_duplicates_leave_fewer_clusters(make_side):
    side = make_side(np.eye(2)[[0, 0, 0, 1, 1]], [[1.0], [0.0], [1.0], [0.0], [0.0]], np.ones((5, 1)))
    router = UniRoute(clusters=4).fit(side, rng())
    assert len(router.centres_) == 2
    assert router.predict(side).scores[:, 0] == pytest.approx([2 / 3] * 3 + [0, 0])


def test_a_cluster_without_the_model_has_its_overall_mean(make_side):
    side = make_side(np.eye(2)[[0, 0, 1, 1]], [[1, 0], [1, 1], [0, NAN], [1, NAN]], np.ones((4, 2)))
    assert UniRoute(clusters=2).fit(side, rng()).predict(side).scores[2] == pytest.approx([0.5, 0.5])


def test_the_order_of_models_does_not_matter(random_sides):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    moved = replace(
        train,
        models=tuple(train.models[j] for j in columns),
        scores=train.scores[:, columns],
        costs=train.costs[:, columns],
    )
    plain, other = (UniRoute(clusters=8).fit(side, rng()).predict(queries) for side in (train, moved))
    assert (other.scores == plain.scores[:, columns]).all()
    assert (other.costs == plain.costs[:, columns]).all()


def test_more_queries_change_the_errors_and_not_the_clusters(random_sides):
    train, queries = random_sides()
    old, new = subset(train, np.arange(0, 80, 2)), subset(train, np.arange(1, 80, 2))
    router = UniRoute(clusters=6).fit(old, rng())
    centres = router.centres_.copy()
    router.partial_fit(new, rng())
    assert (router.centres_ == centres).all()
    assert router.predict(queries).scores == pytest.approx(UniRoute().fill(train, centres).predict(queries).scores)


def test_a_new_model_is_known_by_its_errors_on_the_labelled_queries(random_sides):
    train, queries = random_sides(n_models=4)
    column = 1
    old = replace(
        train,
        models=tuple(m for j, m in enumerate(train.models) if j != column),
        scores=np.delete(train.scores, column, axis=1),
        costs=np.delete(train.costs, column, axis=1),
    )
    router = UniRoute(clusters=5).fit(old, rng())
    before = router.predict(queries)
    labelled = subset(train, np.arange(20))
    router.add_model(labelled, rng())
    after = router.predict(queries)
    assert (np.delete(after.scores, column, axis=1) == before.scores).all()
    alone = UniRoute().fill(labelled, router.centres_).predict(queries)
    assert (after.scores[:, column] == alone.scores[:, column]).all()
    assert (after.costs[:, column] == alone.costs[:, column]).all()
    with pytest.raises(RouterError, match="label with the router's 4 models and the new one"):
        router.add_model(labelled, rng())


def test_the_selector_maximises_predicted_utility(blobs):
    router = UniRoute(clusters=3).fit_selector(blobs, 1.0, rng())
    # Costs 1/6 and 2/5: 2/3 - 1/6 > 1/2 - 2/5; then 0 - 1/6 < 1 - 2/5; then 1/4 - 1/6 < 3/4 - 2/5.
    assert router.select(blobs).tolist() == [0, 0, 0, 1, 1, 1]


def test_the_number_of_clusters_must_come_from_somewhere(blobs):
    with pytest.raises(RouterError, match="give clusters"):
        UniRoute().fit(blobs, rng())
    with pytest.raises(ValueError, match="at least 1"):
        UniRoute(clusters=0)


def test_candidates_hold_the_blind_limit():
    drawn = UniRoute.candidates(n_train=700, budget=20, fixed={}, rng=rng())
    assert len(drawn) == 20
    assert drawn[:2] == [{"clusters": 20}, {"clusters": 1}]
    assert all(2 <= config["clusters"] <= 256 for config in drawn[2:])
    assert min(drawn, key=UniRoute.simplicity) == {"clusters": 1}
    assert len(UniRoute.candidates(n_train=3, budget=20, fixed={}, rng=rng())) == 3
