"""An index of inverted lists: exact where it looks into all of them, and honest about what it misses elsewhere."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from workers.check import check_router
from workers.errors import RouterError
from workers.evaluate import run_evaluate
from workers.routers.base import FitJob, resolve_params
from workers.routers.inverted_lists import InvertedLists, lists_for, recall
from workers.routers.knn import KNN
from workers.routers.neighbours import Search, nearest
from workers.saving import load_router, save_router
from workers.units import EvaluateUnit, ProtocolOptions

pytest.importorskip("faiss", reason="the extra `faiss` is not installed")

#: Lists of an index that looks into all of them.
ALL = 10_000
SIMILARITIES = ["cosine", "centered", "whitened"]


def job(sides, price=None, **params):
    train, queries = sides
    router = KNN(**{"k": 7, "index": "ivf", "index_from": 1, **params})
    return FitJob(router=router, train=train, queries=queries, rng=np.random.default_rng(0), price=price)


def answers(*jobs):
    return list(KNN.predict_many(jobs))


def bits(fitted):
    found = fitted.prediction
    arrays = (found,) if isinstance(found, np.ndarray) else (found.scores, found.costs)
    return [array.tobytes() for array in arrays]


def found_by(lists, queries, k, nprobe):
    index = np.full((queries.n, k), -1)
    for part in lists.search(queries, k, nprobe):
        index[part.rows] = part.index
    return index


def nearest_by_sorting(train, queries, k):
    return np.argsort(-(queries.X.astype(float) @ train.X.astype(float).T), axis=1, kind="stable")[:, :k]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("price", [None, 0.5])
def test_all_lists_give_the_exact_answer(random_sides, similarity, price):
    sides = random_sides(n_train=600, n_queries=300, dim=12)
    ours = answers(job(sides, price, similarity=similarity, nprobe=ALL))[0]
    exact = answers(job(sides, price, similarity=similarity, index="exact", index_from=100_000))[0]
    if price is None:
        assert ours.prediction.scores == pytest.approx(exact.prediction.scores, abs=1e-12)
        assert ours.prediction.costs == pytest.approx(exact.prediction.costs, abs=1e-12)
    else:
        assert (ours.prediction == exact.prediction).all()
    assert ours.more_metrics() == {"neighbour_recall": 1.0}
    assert exact.more_metrics is None
    assert ours.n_bytes > exact.n_bytes


def test_the_recall_is_the_share_of_true_neighbours_that_were_found(random_sides):
    train, queries = random_sides(n_train=3000, n_queries=400, dim=24)
    lists = InvertedLists(train, "cosine")
    true = nearest_by_sorting(train, queries, 7)
    seen = []
    for nprobe in (1, 5, 40):
        found = found_by(lists, queries, 7, nprobe)
        share = np.mean([len(set(a) & set(b)) / 7 for a, b in zip(found, true, strict=True)])
        (ours,) = answers(job((train, queries), nprobe=nprobe))
        assert ours.more_metrics()["neighbour_recall"] == pytest.approx(share, abs=1e-12)
        seen.append(share)
    assert seen[0] < seen[1] < seen[2] < 1.0


def test_an_equally_near_neighbour_is_a_right_one(make_side):
    side = make_side([[1, 0], [1, 0], [0, 1]], np.eye(3), np.ones((3, 3)))
    search = Search(similarity="cosine", train=side, queries=side, k=1)
    assert recall(search, np.array([[1.0], [1.0], [1.0]], dtype=np.float32)) == 1.0
    assert recall(search, np.array([[1.0], [0.0], [0.0]], dtype=np.float32)) == pytest.approx(1 / 3)


def test_equally_near_queries_come_in_canonical_order(make_side):
    X = np.array([[0, 1], [1, 0], [1, 0], [1, 0], [0.6, 0.8]])
    side = make_side(X, np.eye(5), np.ones((5, 5)))
    assert found_by(InvertedLists(side, "cosine"), side, 5, ALL)[2].tolist() == [1, 2, 3, 4, 0]


def test_same_bits_again_alone_and_in_any_company(random_sides):
    sides = random_sides(n_train=900, n_queries=500, dim=16)
    other = random_sides(n_train=700, n_queries=300, dim=16, seed=1)
    jobs = [
        job(sides, nprobe=3),
        job(sides, nprobe=3, k=20, weights="softmax"),
        job(sides, nprobe=9, weights="distance"),
        job(sides, nprobe=3, price=0.5),
        job(sides, nprobe=3, similarity="whitened"),
        job(sides, nprobe=3, k=400),
        job(other, nprobe=3),
        job(sides, index="exact", index_from=100_000),
    ]
    together = answers(*jobs)
    for each, fitted in zip(jobs, together, strict=True):
        (alone,) = answers(each)
        assert bits(alone) == bits(fitted)
        assert (alone.more_metrics and alone.more_metrics()) == (fitted.more_metrics and fitted.more_metrics())
        router = KNN(**each.router.params())
        if each.price is None:
            predicted = router.fit(each.train, np.random.default_rng(1)).predict(each.queries)
            assert [predicted.scores.tobytes(), predicted.costs.tobytes()] == bits(fitted)


def test_few_training_queries_and_many_neighbours_are_searched_exactly(random_sides):
    sides = random_sides(n_train=900, n_queries=50)
    router = KNN(k=7, index="ivf", nprobe=12, index_from=900)
    assert lists_for(900) == 120
    assert router.approximates(k=90, n_train=900)  # 12 of 120 lists hold 90 of 900 on average
    assert not router.approximates(k=91, n_train=900)
    assert not router.approximates(k=7, n_train=899)
    (exact,) = answers(job(sides, k=91, index="exact", index_from=100_000))
    for fitted in answers(job(sides, k=91, nprobe=12), job(sides, k=91, nprobe=120, index_from=901)):
        assert bits(fitted) == bits(exact)
        assert fitted.more_metrics() == {"neighbour_recall": 1.0}


def test_a_query_whose_lists_hold_too_few_is_searched_exactly(make_side):
    rng = np.random.default_rng(0)
    crowd, alone = rng.normal(size=(297, 3)) * 0.05 + [1, 0, 0], np.array([[0, 1, 0.0], [0, 0.9, 0.1], [0, 0.8, 0.3]])
    X = np.vstack([crowd, alone, [[0, 1, 0.05]]])
    everything = make_side(X / np.linalg.norm(X, axis=1, keepdims=True), rng.random((301, 2)), rng.random((301, 2)))
    train, query = (replace(everything, rows=rows, embedding_rows=rows) for rows in (np.arange(300), np.array([300])))
    lists = InvertedLists(train, "cosine")
    (expected,) = nearest([Search(similarity="cosine", train=train, queries=query, k=8)])
    assert lists.index.search(query.X, 8)[0].min() < -1e30  # faiss's mark of nothing found
    assert (found_by(lists, query, 8, 1) == expected.index).all()


def test_a_loaded_router_builds_its_index_once_and_answers_alike(random_sides, tmp_path, monkeypatch):
    train, queries = random_sides(n_train=600, n_queries=40, dim=12)
    router = KNN(k=5, index="ivf", nprobe=2, index_from=1).fit(train, np.random.default_rng(0))
    save_router(router, tmp_path / "router")
    built = []
    for module in ("knn", "neighbour_answers"):
        monkeypatch.setattr(
            f"workers.routers.{module}.InvertedLists", lambda *given: built.append(given) or InvertedLists(*given)
        )
    loaded = load_router(tmp_path / "router")
    first, second = loaded.predict(queries), loaded.predict(queries)
    assert len(built) == 1
    assert first.scores.tobytes() == second.scores.tobytes() == router.predict(queries).scores.tobytes()
    assert loaded.n_bytes == router.n_bytes


def test_without_faiss_it_says_what_to_install(random_sides, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    KNN(k=5).check(n_train=80)
    for ask in (
        lambda: KNN(k=5, index="ivf").check(n_train=80),
        lambda: KNN(k=5, index="ivf", index_from=1).fit(random_sides()[0], np.random.default_rng(0)),
    ):
        with pytest.raises(RouterError, match=r"pip install 'roadtest\[faiss\]'"):
            ask()


def test_units_without_an_index_have_the_parameters_that_they_were_keyed_by():
    assert resolve_params(KNN, {"k": 10}) == {"k": 10, "similarity": "cosine", "weights": "uniform", "tau": 0.1}
    assert resolve_params(KNN, {"k": 10, "index": "exact"}) == resolve_params(KNN, {"k": 10})
    assert resolve_params(KNN, {"index": "ivf"})["nprobe"] == 32


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"index": "hnsw"}, "index must be one of exact, ivf"),
        ({"index": "ivf", "nprobe": 0}, "nprobe must be a whole number"),
        ({"index": "ivf", "index_from": 1.5}, "index_from must be a whole number"),
        ({"nprobe": 8}, "with `index: ivf` only"),
    ],
)
def test_bad_parameters_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        KNN(k=5, **bad)


def test_a_unit_stores_its_recall(learnable):
    benchmark, X = learnable
    options = ProtocolOptions(bootstrap=0, tuning_budget=3)
    units = [
        EvaluateUnit(key=key, router="knn", params=params, tuned=tuned, split=0, formulation=form, protocol=options)
        for key, params, tuned, form in (
            ("exact", {"k": 5}, False, "utility"),
            ("few", {"k": 5, "index": "ivf"}, False, "utility"),
            ("poor", {"k": 2, "index": "ivf", "nprobe": 1, "index_from": 1}, False, "utility"),
            ("poor selector", {"k": 2, "index": "ivf", "nprobe": 1, "index_from": 1}, False, "selection"),
            ("tuned", {"index": "ivf", "nprobe": 1, "index_from": 1}, True, "utility"),
        )
    ]
    found = {result.key: result.metrics.get("neighbour_recall") for result in run_evaluate(units, benchmark, X)}
    assert (found["exact"], found["few"]) == (None, 1.0)
    assert 0.0 < found["poor"] < 1.0
    assert found["poor selector"] == pytest.approx(found["poor"])
    assert found["tuned"] is not None


def test_it_keeps_the_contract_of_routers():
    findings = check_router(KNN, {"k": 5, "index": "ivf", "index_from": 1, "nprobe": 4})
    assert [finding.message for finding in findings if finding.passed is False] == []
