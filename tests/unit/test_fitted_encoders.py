from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from workers.benchmarks.base import Benchmark
from workers.encoders.base import Input, make_encoder
from workers.encoders.fitted import FittedEncoder, SplitEncoder, fitted_rows
from workers.errors import EncoderError
from workers.evaluate import run_evaluate
from workers.metrics.locality import centred
from workers.routers.base import Side
from workers.sides import cost_ratios, hidden, subset, whole
from workers.splits import split_benchmark
from workers.units import EvaluateResult, EvaluateUnit, ProtocolOptions

Sides = Callable[..., tuple[Side, Side]]
WORDS = ["red", "green", "blue", "one", "two", "three", "up", "down", "left", "right"]


def fitted(name: str, **params: Any) -> FittedEncoder:
    encoder = make_encoder(name, params)
    assert isinstance(encoder, FittedEncoder)
    return encoder


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def texts(n: int, seed: int = 0) -> tuple[str, ...]:
    stream = rng(seed)
    return tuple(" ".join(stream.choice(WORDS, size=6)) + f" {i % 7}" for i in range(n))


# Side of what each learns from


def test_tfidf_svd_is_scikit_learns_up_to_signs(random_sides: Sides) -> None:
    train, queries = random_sides()
    train, queries = replace(train, texts=texts(train.n)), replace(queries, texts=texts(queries.n, 1))
    encoder = fitted("tfidf-svd", dim=5).fit(train, rng())
    counts = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    X = counts.fit_transform(sorted(set(train.texts or ())))
    svd = TruncatedSVD(5, algorithm="arpack", random_state=0).fit(X)
    wanted = svd.transform(counts.transform(queries.texts))
    found = encoder.transform(queries)
    # The randomised solver is approximate: products of rows, which signs and rotations do not change.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=0.03)


def test_tfidf_svd_knows_the_words_of_the_training_side_alone(random_sides: Sides) -> None:
    train, queries = random_sides()
    train = replace(train, texts=("red one",) * (train.n - 1) + ("blue two",))
    encoder = fitted("tfidf-svd").fit(train, rng())
    assert encoder.vocabulary_ == ["blue", "blue two", "one", "red", "red one", "two"]  # type: ignore[attr-defined]
    rows = fitted_rows(encoder, replace(queries, texts=("green",) * (queries.n - 1) + ("red",)))
    assert not rows[:-1].any()
    assert np.linalg.norm(rows[-1]) == pytest.approx(1)


def test_tfidf_svd_refuses_texts_without_terms(random_sides: Sides) -> None:
    train, _ = random_sides()
    with pytest.raises(EncoderError, match="hold no term"):
        fitted("tfidf-svd").fit(replace(train, texts=("!",) * train.n), rng())


def test_random_projection_keeps_cosines(random_sides: Sides) -> None:
    train, queries = random_sides(dim=200, n_queries=50)
    encoder = fitted("random-projection", dim=2000).fit(train, rng())
    rows = fitted_rows(encoder, queries)
    assert rows.shape == (queries.n, 2000)
    # Standard deviation of a cosine under a Gaussian projection: at most 1 / sqrt(dim).
    assert np.abs(rows @ rows.T - queries.X @ queries.X.T).max() < 6 / np.sqrt(2000)
    again = fitted("random-projection", dim=2000).fit(subset(train, np.arange(5)), rng(9))
    np.testing.assert_array_equal(fitted_rows(again, queries), rows)


def test_fine_tuned_with_no_epoch_is_pca(random_sides: Sides) -> None:
    train, queries = random_sides(dim=6)
    encoder = fitted("fine-tuned", dim=3, epochs=0).fit(train, rng())
    _, _, axes = np.linalg.svd(train.X.astype(float), full_matrices=False)
    wanted, found = queries.X @ axes[:3].T, encoder.transform(queries)
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-5)


def test_fine_tuned_brings_queries_together_that_the_same_models_answer(make_side: Callable[..., Side]) -> None:
    """Performance depends on two of twenty directions, which are not the widest."""
    stream = rng()
    X = stream.normal(size=(600, 20)) * np.r_[0.5, 0.5, np.ones(18)]
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    S = np.c_[X[:, 0] > 0, X[:, 0] < 0, X[:, 1] > 0, X[:, 1] < 0].astype(float)
    everything = make_side(X, S, np.ones_like(S))
    train, test = subset(everything, np.arange(400)), hidden(subset(everything, np.arange(400, 600)))

    def agreement(rows: np.ndarray) -> float:
        """How often the nearest other test query has the same outcomes."""
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, -1)
        return float((S[400:][cosines.argmax(axis=1)] == S[400:]).all(axis=1).mean())

    before = agreement(fitted_rows(fitted("fine-tuned", dim=4, epochs=0).fit(train, rng()), test))
    after = agreement(fitted_rows(fitted("fine-tuned", dim=4, epochs=40, learning_rate=0.01).fit(train, rng()), test))
    assert before < 0.5
    assert after > 0.75


def test_outcomes_are_centred_twice_and_unobserved_cells_say_nothing() -> None:
    Z = centred(np.array([[1.0, 0.0], [0.0, 0.0], [np.nan, 1.0]]))
    # By hand: column means 1/2 and 1/3; then row means of what is left.
    np.testing.assert_allclose(Z, [[5 / 12, -5 / 12], [-1 / 12, 1 / 12], [0, 0]], atol=1e-12)


@pytest.mark.parametrize("name", ["tfidf-svd", "random-projection", "fine-tuned"])
def test_fits_are_deterministic_and_leave_the_side_alone(name: str, random_sides: Sides) -> None:
    train, queries = random_sides(n_queries=10)
    train, queries = replace(train, texts=texts(train.n)), replace(queries, texts=texts(queries.n, 1))
    for array in (*train.outcomes, train.groups):
        array.flags.writeable = False
    first = fitted_rows(fitted(name, dim=4).fit(train, rng(3)), queries)
    np.testing.assert_array_equal(fitted_rows(fitted(name, dim=4).fit(train, rng(3)), queries), first)
    assert first.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


# what is refused


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("random-projection", {"dim": 0}, "dim is 0"),
        ("random-projection", {"of": "tfidf-svd"}, "which is fitted itself"),
        ("random-projection", {"of": "minilmm"}, "did you mean 'minilm'"),
        ("fine-tuned", {"epochs": -1}, "epochs is -1"),
        ("fine-tuned", {"temperature": True}, "temperature is True"),
        ("fine-tuned", {"of": {"dtype": "float32"}}, "give an encoder's name"),
        ("tfidf-svd", {"analyzer": "letters"}, "known: word, char_wb"),
        ("tfidf-svd", {"n_min": 3}, "n_min 3 is above n_max 2"),
        ("tfidf-svd", {"of": "minilm"}, "has no parameter 'of'"),
    ],
)
def test_bad_parameters_are_named(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        make_encoder(name, params).recipe()


def test_a_fitted_encoder_has_no_rows_outside_of_a_split() -> None:
    with pytest.raises(EncoderError, match="fitted on each split's training side"):
        make_encoder("tfidf-svd").encode([Input(text="red")])


def test_recipes_hold_the_recipe_of_what_is_read() -> None:
    of = {"name": "hash-ngrams", "dim": 64}
    recipe = make_encoder("fine-tuned", {"of": of}).recipe()
    assert recipe["of"] == make_encoder("hash-ngrams", {"dim": 64}).recipe()
    assert make_encoder("fine-tuned", {"of": {"name": "x", "use": "hash-ngrams", "dim": 64}}).recipe() == recipe
    assert make_encoder("fine-tuned", {"of": of, "dim": 8}).recipe() != recipe


# within an evaluation


def unit(split: int = 0, router: str = "knn", train_size: float = 1.0, **keys: Any) -> EvaluateUnit:
    return EvaluateUnit(
        key=f"{router} {split} {train_size} {keys}",
        router=router,
        params={"k": 10} if not keys.get("tuned") else {},
        split=split,
        train_size=train_size,
        protocol=ProtocolOptions(bootstrap=0, tuning_budget=3),
        **keys,
    )


def evaluate(benchmark: Benchmark, X: Any, encoder: SplitEncoder, *units: EvaluateUnit) -> list[EvaluateResult]:
    results = run_evaluate(list(units), benchmark, X, encoder)
    assert all(isinstance(result, EvaluateResult) for result in results), results
    return [result for result in results if isinstance(result, EvaluateResult)]


def deterministic(result: EvaluateResult) -> Any:
    observed = ("fit_seconds", "route_us_per_query")
    return {name: value for name, value in result.metrics.items() if name not in observed}, result.chosen


def split_encoder(name: str, where: str, **keys: Any) -> SplitEncoder:
    return SplitEncoder(where=where, name=name, params=keys.pop("params", {}), **keys)


def test_the_texts_of_test_queries_decide_nothing_about_the_others(learnable: tuple[Benchmark, np.ndarray]) -> None:
    """With other words in the validation and test texts, training rows stay what they were."""
    benchmark, _ = learnable
    own = texts(benchmark.n_queries)
    split = split_benchmark(benchmark, 0)
    held = set(split.validation) | set(split.test)
    poisoned = tuple("left right poison" if i in held else text for i, text in enumerate(own))
    seen: list[np.ndarray] = []
    everything = whole(benchmark, cost_ratios(benchmark, ProtocolOptions()), None)
    for number, given in enumerate((own, poisoned)):
        encoder = split_encoder("tfidf-svd", f"poison {number}", texts=given)
        seen.append(encoder.encoded(everything, unit(), split.train).embeddings[split.train])
    np.testing.assert_array_equal(*seen)


@pytest.mark.parametrize("name", ["tfidf-svd", "fine-tuned"])
def test_results_do_not_depend_on_company_or_on_what_is_kept(
    name: str, learnable: tuple[Benchmark, np.ndarray]
) -> None:
    benchmark, X = learnable
    given = texts(benchmark.n_queries) if name == "tfidf-svd" else None
    rows = None if name == "tfidf-svd" else X
    params = {"dim": 6}
    units = [unit(0), unit(1), unit(0, train_size=0.5), unit(0, tuned=True)]
    together = evaluate(benchmark, rows, split_encoder(name, f"{name} a", texts=given, params=params), *units)
    alone = [
        evaluate(benchmark, rows, split_encoder(name, f"{name} b{i}", texts=given, params=params), one)[0]
        for i, one in reversed(list(enumerate(units)))
    ][::-1]
    assert list(map(deterministic, together)) == list(map(deterministic, alone))


def test_an_encoder_that_learns_from_outcomes_sees_those_of_the_training_side_alone(
    learnable: tuple[Benchmark, np.ndarray],
) -> None:
    benchmark, X = learnable
    split = split_benchmark(benchmark, 0)
    S = benchmark.S.copy()
    S[split.test] = 1 - S[split.test]
    side = whole(benchmark, cost_ratios(benchmark, ProtocolOptions()), X)
    rows = [
        split_encoder("fine-tuned", where).encoded(replace(side, scores=scores), unit(), split.train).embeddings
        for where, scores in (("as observed", benchmark.S), ("poisoned", S))
    ]
    np.testing.assert_array_equal(*rows)
