from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.neighbors import NearestNeighbors

from workers.metrics.frontier import choose
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.shnitzer import Shnitzer, left_out, smoothed
from workers.sides import subset

NAN = np.nan
RNG = np.random.default_rng(0)


def predict(train, queries, **params):
    return Shnitzer(**params).fit(train, RNG).predict(queries)


def written_out(train, queries, *, k, sigma, kappa, eta, unit="query"):
    """S3 with scikit-learn's neighbours and plain loops; every cell observed."""
    tasks, held = np.array(train.tasks), np.array(queries.tasks)
    X, Q = train.X.astype(float), queries.X.astype(float)
    S, means = train.scores, train.scores.mean(axis=0)

    def neighbours(fitted, asked, n):
        search = NearestNeighbors(n_neighbors=n, metric="cosine", algorithm="brute").fit(fitted)
        return search.kneighbors(asked)

    u, p = [], []
    for task in np.unique(tasks):
        others, own = tasks != task, tasks == task
        g = S[others][neighbours(X[others], X[own], k)[1]].mean(axis=1)
        p.append(((g > 0.5) == (S[own] > 0.5)).mean(axis=0))
        u.append(neighbours(X[others], X[own], kappa)[0].mean())
    g = S[neighbours(X, Q, k)[1]].mean(axis=1)
    distance = neighbours(X, Q, kappa)[0].mean(axis=1)
    units = (
        [[i] for i in range(len(Q))] if unit == "query" else [np.flatnonzero(held == task) for task in np.unique(held)]
    )
    average = means.argmax()
    scores = np.empty_like(g)
    for rows in units:
        weights = np.exp(-((distance[rows].mean() - np.array(u)) ** 2) / (2 * sigma**2))
        trust = weights @ np.array(p) / weights.sum()
        second = (g[rows] > 0.5).mean(axis=0)
        third = second * trust + (1 - second) * (1 - trust)
        best = third.argmax()
        spread = np.sqrt((trust[best] * (1 - trust[best]) + trust[average] * (1 - trust[average])) / len(rows))
        confident = best != average and norm.cdf((third[best] - third[average]) / spread) > eta
        scores[rows] = third if confident else means
    return scores


@pytest.mark.parametrize("unit", ["query", "task"])
@pytest.mark.parametrize("eta", [0.5, 0.6, 0.75])
def test_agrees_with_loops_over_scikit_learns_neighbours(random_sides, unit, eta):
    train, queries = random_sides(n_train=120)
    train = replace(train, scores=np.nan_to_num(train.scores), costs=np.nan_to_num(train.costs))
    settings = {"k": 5, "sigma": 0.05, "kappa": 7, "eta": eta, "unit": unit}
    expected = written_out(train, queries, **settings)
    assert predict(train, queries, **settings).scores == pytest.approx(expected, abs=1e-6)
    if unit == "query" and eta < 0.7:
        assert 0 < (expected == train.scores.mean(axis=0)).all(axis=1).mean() < 1


def test_s1_is_the_mean_of_the_neighbours_and_s2_their_majority(make_side):
    angles = np.array([0.0, 0.1, 0.2, 1.5])
    train = make_side(
        np.column_stack([np.cos(angles), np.sin(angles)]),
        [[1, 0.4], [0, 0.4], [1, 1.0], [0, NAN]],
        np.ones((4, 2)) * [0.2, 0.6],
        ("a", "a", "b", "b"),
    )
    first = predict(train, train, variant="S1", k=3)
    assert first.scores[0] == pytest.approx([2 / 3, 0.6])
    assert first.costs[0] == pytest.approx([0.2, 0.6])
    second = predict(train, train, variant="S2", k=3)
    assert second.scores[0].tolist() == [1, 1]
    assert predict(train, train, variant="S2", k=2).scores[0].tolist() == [0, 0]
    pooled = predict(train, train, variant="S1", k=1, unit="task")
    assert pooled.scores[0] == pytest.approx([0.5, 0.4])
    # On the last query nobody observed the second model: its training mean 0.6.
    assert pooled.scores[2] == pytest.approx([0.5, (1.0 + 0.6) / 2])


def test_s3_by_hand(make_side):
    # Task a lies at 0, task b at a distance of 1 (right angle). Leaving b out: the first model is predicted right
    # (1 = 1), the second wrong; leaving a out: both the same.
    X = [[1, 0], [1, 0], [0, 1], [0, 1]]
    train = make_side(X, [[1, 0], [1, 0], [1, 1], [1, 1]], np.ones((4, 2)), ("a", "a", "b", "b"))
    router = Shnitzer(k=1, kappa=1).fit(train, RNG)
    assert router.distances_ == pytest.approx([1, 1])
    assert router.accuracies_.tolist() == [[1, 0], [1, 0]]
    # At b both are judged right: S3 = 1 · 1 + 0 and 1 · 0 + 0 · 1: the best average, first by score, stays first.
    assert choose(router.predict(train), 0.0).tolist() == [0, 0, 0, 0]
    # At a the second is judged wrong but the judgement is never right: S3 = 1 as well; ties do not beat the average.
    assert router.predict(train).scores == pytest.approx(np.tile([1.0, 0.5], (4, 1)))


def test_the_kernel_smooths_accuracies_over_distances():
    distances, accuracies = np.array([0.1, 0.3]), np.array([[0.9, NAN], [0.5, 0.7]])
    at = np.array([0.1, 0.2, 5.0])
    found = smoothed(at, distances, accuracies, 0.1)
    near = np.exp(-(0.2**2) / 0.02)
    assert found[0] == pytest.approx([(0.9 + 0.5 * near) / (1 + near), 0.7])
    assert found[1] == pytest.approx([0.7, 0.7])
    # Far from both the nearer one decides, though both weights vanish.
    assert found[2] == pytest.approx([0.5, 0.7])
    assert (smoothed(at, np.zeros(0), np.zeros((0, 2)), 0.1) == 0.5).all()
    assert smoothed(at, distances, np.array([[0.9, NAN], [0.8, NAN]]), 0.1)[:, 1].tolist() == [0.5] * 3


@pytest.mark.parametrize("given", [{"eta": 1.0}, {"variant": "S1", "k": 80}])
def test_the_blind_limits_are_the_zero_router(random_sides, given):
    train, queries = random_sides()
    prediction = predict(train, queries, **given)
    for found, mean in zip((prediction.scores, prediction.costs), mean_outcomes(train), strict=True):
        assert found == pytest.approx(np.tile(mean, (queries.n, 1)), abs=1e-12)


def test_one_task_is_left_out_by_parts_of_its_groups(random_sides):
    train, queries = random_sides()
    alone = replace(train, tasks=("t",) * train.n)
    parts = left_out(alone)
    assert len(parts) == 5
    assert sorted(np.concatenate([held.rows for _, held in parts])) == sorted(train.rows)
    for out, held in parts:
        assert not set(out.groups) & set(held.groups)
    assert (predict(alone, queries).scores != mean_outcomes(train)[0]).any()
    single = replace(alone, groups=np.zeros(train.n, dtype=np.int64))
    assert left_out(single) == []
    assert (predict(single, queries).scores == mean_outcomes(train)[0]).all()


def test_a_query_is_answered_alike_alone_and_with_others(random_sides):
    train, queries = random_sides()
    router = Shnitzer().fit(train, RNG)
    together = router.predict(queries).scores
    for i in (0, 7):
        alone = replace(
            queries,
            rows=queries.rows[i : i + 1],
            embedding_rows=queries.embedding_rows[i : i + 1],
            tasks=("elsewhere",),
            groups=queries.groups[i : i + 1],
        )
        assert router.predict(alone).scores[0] == pytest.approx(together[i], abs=1e-12)


@pytest.mark.parametrize("variant", ["S1", "S2", "S3"])
def test_the_order_of_models_does_not_matter(random_sides, variant):
    train, queries = random_sides(n_models=5)
    columns = np.array([3, 0, 4, 1, 2])
    moved = replace(
        train,
        models=tuple(train.models[j] for j in columns),
        scores=train.scores[:, columns],
        costs=train.costs[:, columns],
    )
    plain, other = (Shnitzer(variant=variant).fit_selector(side, 0.0, RNG).select(queries) for side in (train, moved))
    assert (columns[other] == plain).all()


def test_shared_searches_give_the_bits_of_each_alone(random_sides):
    train, queries = random_sides(n_train=200, n_queries=60)
    configs = [{}, {"k": 9, "eta": 0.5}, {"kappa": 3}, {"variant": "S1", "k": 30}, {"unit": "task", "sigma": 0.3}]

    def job(config):
        return FitJob(router=Shnitzer(**config), train=train, queries=queries, rng=RNG)

    alone = [next(Shnitzer.predict_many([job(config)])).prediction.scores.tobytes() for config in configs]
    together = [fitted.prediction.scores.tobytes() for fitted in Shnitzer.predict_many([job(c) for c in configs])]
    assert together == alone
    assert alone[0] == predict(train, queries).scores.tobytes()


def test_more_queries_are_calibrated_anew(random_sides):
    train, queries = random_sides()
    router = Shnitzer().fit(subset(train, np.arange(0, 80, 2)), RNG)
    grown = router.partial_fit(subset(train, np.arange(1, 80, 2)), RNG).predict(queries)
    assert grown.scores.tobytes() == predict(train, queries).scores.tobytes()


def test_candidates_hold_the_papers_setting_and_the_blind_limit():
    drawn = Shnitzer.candidates(n_train=500, budget=20, fixed={}, rng=np.random.default_rng(1))
    assert len(drawn) == 20
    assert drawn[0] == {"k": 5, "sigma": 0.09, "kappa": 19, "eta": 0.6}
    assert min(drawn, key=Shnitzer.simplicity) == drawn[1] == {"k": 500, "sigma": 0.09, "kappa": 19, "eta": 1.0}
    plain = Shnitzer.candidates(n_train=500, budget=20, fixed={"variant": "S1"}, rng=np.random.default_rng(1))
    assert len(plain) == len({config["k"] for config in plain}) == 20


@pytest.mark.parametrize("given", [{"variant": "S4"}, {"unit": "side"}, {"sigma": 0}, {"eta": 1.1}, {"kappa": 0}])
def test_impossible_parameters_are_refused(given):
    with pytest.raises(ValueError, match="must be"):
        Shnitzer(**given)
