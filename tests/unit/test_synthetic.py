"""The synthetic benchmark: samples agree with the closed form, and no router beats the optimal one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.neighbors import KNeighborsClassifier

from workers.benchmarks.base import embedded_sources
from workers.benchmarks.synthetic import SyntheticSource, expected_by_topic, optimal_point, synthetic_benchmark
from workers.errors import BenchmarkError

LOCALITIES = [0.0, 0.3, 1.0]


def topics(drawn):
    """The visible topic of each query: the axis that its embedding is nearest to."""
    return drawn.embeddings.argmax(axis=1)


def test_it_is_found():
    assert embedded_sources()["synthetic"] is SyntheticSource
    assert SyntheticSource().load().fingerprint == synthetic_benchmark().benchmark.fingerprint


def test_rows_and_parameters():
    drawn = synthetic_benchmark(n=50, n_models=3, dim=7, seed=1)
    assert drawn.benchmark.S.shape == drawn.expected_scores.shape == drawn.expected_costs.shape == (50, 3)
    assert drawn.embeddings.shape == (50, 7)
    assert drawn.embeddings.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(drawn.embeddings, axis=1), 1, rtol=1e-6)
    assert synthetic_benchmark(n=50, n_models=3, dim=7, seed=2).benchmark.fingerprint != drawn.benchmark.fingerprint


def test_locality_changes_nothing_but_scores():
    low, high = (synthetic_benchmark(n=300, locality=locality) for locality in (0, 1))
    assert low.benchmark.texts == high.benchmark.texts
    np.testing.assert_array_equal(low.embeddings, high.embeddings)
    np.testing.assert_array_equal(low.benchmark.C, high.benchmark.C)
    assert not np.array_equal(low.benchmark.S, high.benchmark.S)


@pytest.mark.parametrize(
    "wrong", [{"n": 0}, {"n_models": 1}, {"dim": 4}, {"locality": -0.1}, {"locality": 1.1}, {"locality": float("nan")}]
)
def test_refusals(wrong):
    with pytest.raises(BenchmarkError, match=next(iter(wrong))):
        synthetic_benchmark(**wrong)


@pytest.mark.parametrize("locality", LOCALITIES)
def test_outcomes_have_the_expected_means_on_every_topic(locality):
    drawn = synthetic_benchmark(n=40_000, n_models=4, locality=locality, seed=3)
    topic = topics(drawn)
    for t in range(4):
        on = topic == t
        np.testing.assert_array_equal(drawn.expected_scores[on], np.tile(drawn.expected_scores[on][0], (on.sum(), 1)))
        for observed, expected in (
            (drawn.benchmark.S[on], drawn.expected_scores[on][0]),
            (drawn.benchmark.C[on], drawn.expected_costs[on][0]),
        ):
            error = observed.std(axis=0, ddof=1) / np.sqrt(on.sum())
            assert (np.abs(observed.mean(axis=0) - expected) < 4.5 * error).all()


def test_expected_scores_by_hand():
    """Three models have levels 0.4, 0.5, 0.3; half of 0.4 is local, the other half is spread over three topics."""
    expected = np.array([0.4, 0.5, 0.3]) + 0.2 / 3 + 0.2 * np.eye(3)
    np.testing.assert_allclose(expected_by_topic(n_models=3, locality=0.5), expected)


def test_optimal_point_by_hand():
    """At price 0 and locality 1 each of three specialists scores 0.8, 0.9, 0.7, better than any model off its topic."""
    point = optimal_point(n_models=3, locality=1.0, price=0.0)
    assert point.score == pytest.approx(0.8)
    assert point.cost == pytest.approx((0.25 + 0.5 + 1) / 3)
    blind = optimal_point(n_models=3, locality=0.0, price=0.0)
    assert blind.score == pytest.approx(0.5 + 0.4 / 3)
    assert blind.cost == pytest.approx(0.5)


@pytest.mark.parametrize("locality", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("price", [0.0, 0.1, 0.37, 0.5, 1.0, 3.0])
def test_no_map_from_topics_to_models_beats_the_optimal_point(locality, price):
    scores = expected_by_topic(n_models=4, locality=locality)
    costs = np.array([1 / 8, 1 / 4, 1 / 2, 1])
    rows = np.arange(4)
    best = max(
        np.mean(scores[rows, list(choice)] - price * costs[list(choice)]) for choice in product(range(4), repeat=4)
    )
    point = optimal_point(n_models=4, locality=locality, price=price)
    assert point.utility(price) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("price", [0.0, 0.3])
def test_choosing_by_the_expectations_attains_the_optimal_point(price):
    drawn = synthetic_benchmark(n=60_000, n_models=5, locality=0.7, seed=5)
    costs = drawn.expected_costs / drawn.expected_costs.max()
    choice = (drawn.expected_scores - price * costs).argmax(axis=1)
    rows = np.arange(len(choice))
    attained = drawn.benchmark.S[rows, choice] - price * drawn.benchmark.C[rows, choice] / drawn.expected_costs.max()
    error = attained.std(ddof=1) / np.sqrt(len(attained))
    expected = optimal_point(n_models=5, locality=0.7, price=price).utility(price)
    assert abs(attained.mean() - expected) < 4.5 * error


def test_without_locality_embedding_and_text_tell_nothing():
    expected = expected_by_topic(n_models=5, locality=0.0)
    np.testing.assert_allclose(expected, np.tile(expected[0], (5, 1)))


def test_character_ngrams_of_the_texts_tell_the_topic():
    drawn = synthetic_benchmark(n=600, seed=7)
    X = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 3), n_features=512).transform(drawn.benchmark.texts)
    topic = topics(drawn)
    knn = KNeighborsClassifier(n_neighbors=5, metric="cosine").fit(X[:400], topic[:400])
    assert knn.score(X[400:], topic[400:]) > 0.95
