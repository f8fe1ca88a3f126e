"""LLM-Blender and fusion: what they share, then each one's head against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from workers.routers.answers import GRAMS, NUMBERS, answers_of
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.ensembles import FOLDS, answer_space, embedded, group_folds, joining_order
from workers.routers.fusion import Fusion, agreement
from workers.routers.llm_blender import PAIRS, LLMBlender, _signed, better_and_worse, compare
from workers.sides import hidden, subset
from workers.training import Batch

NAN = np.nan
ENSEMBLES = [LLMBlender, Fusion]


def rng():
    return np.random.default_rng(5)


def words(generator, shape, letters=12):
    """Random words, hardly any twice."""
    drawn = generator.integers(0, 26, size=(*shape, letters))
    flat = ["".join(chr(97 + c) for c in row) for row in drawn.reshape(-1, letters)]
    return np.array(flat, dtype=object).reshape(shape)


@pytest.fixture
def answered(make_side):
    """A side whose models differ in score and cost, with answers; by default they say nothing of the scores."""

    def make(n=200, n_models=3, dim=6, say=None, seed=0, scores=None):
        generator = np.random.default_rng(seed)
        X = generator.normal(size=(n, dim))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        if scores is None:
            scores = (generator.random((n, n_models)) < np.linspace(0.45, 0.6, n_models)).astype(float)
        costs = generator.uniform(0.9, 1.1, size=(n, n_models)) * np.linspace(0.05, 0.3, n_models)
        side = make_side(X, scores, costs, tuple(f"t{i % 2}" for i in range(n)))
        response = words(generator, (n, n_models)) if say is None else say(scores, generator)
        return replace(side, extras={"response": response})

    return make


def right_or_wrong(scores, generator):
    """Answers that show whether they are right."""
    return np.where(scores > 0.5, "surely right: ", "hardly wrong? ").astype(object) + words(generator, scores.shape, 3)


def test_models_join_along_the_frontier_then_by_mean_score(make_side):
    # (cost, score): m0 (.5, .7) and m3 (.1, .4) and m1 (1, .8) are the frontier; m4 (.6, .6), m2 (.3, .4), m5 (.2, .4).
    side = make_side([[1.0]], [[0.7, 0.8, 0.4, 0.4, 0.6, 0.4]], [[0.5, 1.0, 0.3, 0.1, 0.6, 0.2]])
    assert joining_order(side, 11).tolist() == [3, 0, 1, 4, 5, 2]
    assert joining_order(side, 2).tolist() == [3, 0]


def test_a_model_that_was_never_observed_joins_last(make_side):
    side = make_side(np.eye(2), [[0.0, NAN, 1.0], [0.0, NAN, 0.0]], [[0.1, NAN, 0.2], [0.1, NAN, 0.2]])
    assert joining_order(side, 11)[-1] == 1


def test_folds_keep_groups_together(make_side):
    side = replace(make_side(np.eye(40), np.ones((40, 1)), np.ones((40, 1))), groups=np.arange(40) // 2 + 7)
    folds = group_folds(side, rng())
    assert (folds[::2] == folds[1::2]).all()
    assert np.bincount(folds).tolist() == [8] * FOLDS


def test_embedded_answers_keep_the_products_of_n_grams_as_a_truncated_svd_does(answered):
    side = answered(n=12)
    answers = answers_of(side)
    grams = answers.grams.toarray().astype(float)
    u, s, _ = np.linalg.svd(grams, full_matrices=False)
    for width in (5, 64):
        vectors = embedded(answers, answer_space(answers, width))
        assert vectors.shape == (12, 3, width + len(NUMBERS)) and vectors.dtype == np.float32
        ours = vectors[..., :width].reshape(36, -1).astype(float)
        best = (u[:, :width] * s[:width]) @ (u[:, :width] * s[:width]).T
        assert ours @ ours.T == pytest.approx(best, abs=1e-5)
        numbers = vectors[..., width:].reshape(36, -1)
        assert numbers.mean(axis=0) == pytest.approx(np.zeros(len(NUMBERS)), abs=1e-5)
        spread = answers.numbers.reshape(36, -1).std(axis=0)
        assert numbers.std(axis=0) == pytest.approx((spread > 1e-9).astype(float), abs=1e-5)


def test_answers_without_text_have_a_space_too(answered):
    side = answered(n=4)
    nothing = answers_of(replace(side, extras={"response": np.full((4, 3), None, dtype=object)}))
    space = answer_space(nothing, 8)
    assert space["directions"].shape == (GRAMS, 8)
    assert np.isfinite(embedded(nothing, space)).all()


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_without_an_epoch_the_best_candidate_by_mean_answers(answered, cls):
    # Means: m0 (.05, .2), m1 (.175, .6), m2 (.3, .5): m2 is off the frontier and joins last.
    scores = np.zeros((20, 3))
    scores[:4, 0] = scores[:12, 1] = scores[:10, 2] = 1.0
    train = answered(n=20, scores=scores)
    router = cls(epochs=0).fit(train, rng())
    assert router.order_.tolist() == [0, 1, 2]
    # All three called cost more than two and are no better: no price of cost would choose that.
    assert router.sizes_.tolist() == [2, 1]
    assert router.train_scores_ == pytest.approx([0.6, 0.2])
    costs = mean_outcomes(train)[1]
    assert router.train_costs_ == pytest.approx([costs[0] + costs[1], costs[0]])
    calls = router.predict(hidden(train))
    assert (calls.answers[0] == [0, 1, 0]).all() and (calls.called[0] == [1, 1, 0]).all()
    assert (calls.answers[1] == [1, 0, 0]).all() and (calls.called[1] == [1, 0, 0]).all()


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_it_finds_the_right_answer_where_the_text_shows_it(answered, cls):
    train, queries = answered(n=320, say=right_or_wrong), answered(n=200, say=right_or_wrong, seed=1)
    router = cls(epochs=60, learning_rate=0.003).fit(train, rng())
    calls = router.predict(hidden(queries))
    assert router.sizes_[0] == 3
    reached = (calls.answers[0] * queries.scores).sum(axis=1)
    # Any of three right: 0.9 and more; the best single model 0.6.
    assert reached.mean() > queries.scores.max(axis=1).mean() - 0.02
    assert router.train_scores_[0] > train.scores.max(axis=1).mean() - 0.02


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_training_means_come_from_heads_that_did_not_see_the_query(answered, cls):
    train = answered(n=160, scores=(np.random.default_rng(3).random((160, 2)) < 0.5).astype(float), n_models=2)
    params = {"epochs": 100, "learning_rate": 0.005, "batch_size": 32, **({"dropout": 0.0} if cls is Fusion else {})}
    router = cls(**params).fit(train, rng())
    router.sizes_ = np.array([2])
    router.train_scores_ = router.train_scores_[:1]
    learned = (router.predict(hidden(train)).answers[0] * train.scores).sum(axis=1).mean()
    # The head that is used has learned noise by heart: one of two is right in three of four queries.
    assert learned > train.scores.max(axis=1).mean() - 0.03
    assert router.train_scores_[0] < train.scores.mean(axis=0).max() + 0.08


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_answers_of_who_is_not_called_are_not_read(answered, cls):
    train, queries = answered(say=right_or_wrong), hidden(answered(n=50, say=right_or_wrong, seed=1))
    router = cls(epochs=20, learning_rate=0.005).fit(train, rng())
    router.sizes_ = np.array([2, 1])
    router.train_scores_ = router.train_costs_ = np.zeros(2)
    other = queries.extras["response"].copy()
    other[:, router.order_[2]] = "surely right: quite another answer"
    changed = router.predict(replace(queries, extras={"response": other}))
    assert (changed.answers == router.predict(queries).answers).all()
    router.sizes_ = np.array([3])
    seen = router.predict(replace(queries, extras={"response": other}))
    assert (seen.answers != router.predict(queries).answers).any()


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_the_order_of_the_models_does_not_matter(answered, cls):
    train, queries = answered(say=right_or_wrong), hidden(answered(n=100, say=right_or_wrong, seed=1))
    columns = np.array([2, 0, 1])

    def moved(side):
        extras = {"response": side.extras["response"][:, columns]}
        outcomes = {} if side.scores is None else {"scores": side.scores[:, columns], "costs": side.costs[:, columns]}
        return replace(side, models=tuple(side.models[j] for j in columns), extras=extras, **outcomes)

    plain = cls(epochs=10).fit(train, rng()).predict(queries)
    other = cls(epochs=10).fit(moved(train), rng()).predict(moved(queries))
    assert other.called.shape == plain.called.shape and (other.called == plain.called[..., columns]).all()
    # Sums in another order move last bits, so a query on the edge may go the other way.
    assert (other.answers != plain.answers[..., columns]).any(axis=2).mean() < 0.03


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_same_bits_alone_and_in_any_company(answered, cls):
    everything, queries = answered(n=330, n_models=5), hidden(answered(n=40, n_models=5, seed=1))
    queries = replace(queries, matrix=everything.matrix, embedding_rows=np.arange(40))
    sides = [subset(everything, np.sort(np.random.default_rng(i).permutation(330)[: 200 - 7 * i])) for i in range(4)]

    def bits(numbers, epochs=2):
        routers = [cls(epochs=epochs) for _ in numbers]
        jobs = [
            FitJob(router=router, train=sides[i], queries=queries, rng=np.random.default_rng(i))
            for i, router in zip(numbers, routers, strict=True)
        ]
        found = list(cls.predict_many(jobs))
        return [
            [
                *(array.tobytes() for array in router.weights_.values()),
                *(router.train_scores_.tobytes(), fitted.prediction.answers.tobytes()),
            ]
            for router, fitted in zip(routers, found, strict=True)
        ]

    alone = [bits([i])[0] for i in range(4)]
    for company in ([0, 1, 2, 3], [3, 1], [2, 0, 3]):
        assert bits(company) == [alone[i] for i in company]


def weights_of(cls, train, **params):
    """Random weights in the shapes of a fit, the batch of its first 16 queries, and the router."""
    router = cls(hidden=16, width=4, **params)
    network = router.network(train, None, rng())
    generator = np.random.default_rng(9)
    weights = {
        name: generator.normal(size=(1, *array.shape)).astype(np.float32) * 0.4
        for name, array in network.parameters.items()
    }
    tables = {name: torch.from_numpy(np.array(table))[None] for name, table in network.tables.items()}
    draws = {name: torch.from_numpy(draw)[None] for name, draw in router.draws(generator, 16).items()}
    batch = Batch(
        index=torch.arange(16)[None],
        tables=tables,
        X=torch.from_numpy(np.array(train.embeddings)),
        rows=torch.from_numpy(np.array(train.embedding_rows))[None],
        draws=draws,
    )
    return router, weights, batch


def sigmoid_loss(logit, label):
    return math.log1p(math.exp(-logit if label else logit))


def pair_logit(head, x, own, other):
    """f(x, y_i; y_j) of one head."""
    inputs = np.concatenate([x, own, other])
    return float(np.tanh(inputs @ head["weight"] + head["bias"][0]) @ head["out"][:, 0])


def unobserved(side, share=0.15):
    gone = np.random.default_rng(8).random(side.scores.shape) < share
    return replace(side, scores=np.where(gone, NAN, side.scores), costs=np.where(gone, NAN, side.costs))


def test_the_pairs_loss_agrees_with_plain_loops(answered):
    train = unobserved(answered(n=40))
    router, weights, batch = weights_of(LLMBlender, train)
    loss = router.loss({name: torch.from_numpy(array) for name, array in weights.items()}, batch)
    vectors, scores = _signed(router._vectors(train)), train.scores[:, router.order_]
    expected = 0.0
    for head in range(FOLDS + 1):
        own = {name: array[0, head].astype(float) for name, array in weights.items()}
        losses = []
        for i in range(16):
            pairs = [(a, b) for a, b in product(range(3), repeat=2) if scores[i, a] > scores[i, b]]
            if not pairs or router._folds[i] == head:
                continue
            for share in batch.draws["pairs"][0, i].tolist():
                a, b = pairs[int(share * len(pairs))]
                wins, loses = (pair_logit(own, train.X[i], vectors[i, p], vectors[i, q]) for p, q in ((a, b), (b, a)))
                losses.append((sigmoid_loss(wins, True) + sigmoid_loss(loses, False)) / 2)
        assert len(losses) % PAIRS == 0 and losses
        expected += float(np.mean(losses))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_no_head_learns_from_its_own_fold(answered, cls):
    train = answered(n=40)
    router, weights, batch = weights_of(cls, train)
    fold = int(router._folds[0])
    batch = replace(batch, index=torch.from_numpy(np.resize(np.flatnonzero(router._folds == fold), 16))[None])
    tensors = {name: torch.from_numpy(array).requires_grad_() for name, array in weights.items()}
    router.loss(tensors, batch).sum().backward()
    for tensor in tensors.values():
        moved = [bool(tensor.grad[0, head].any()) for head in range(FOLDS + 1)]
        assert moved == [head != fold for head in range(FOLDS + 1)]


def test_the_winner_has_the_largest_sum_of_comparisons(answered):
    train = answered(n=30)
    router, weights, _ = weights_of(LLMBlender, train)
    head = {name: array[0, 0] for name, array in weights.items()}
    plain, vectors = {name: array.astype(float) for name, array in head.items()}, router._vectors(train)
    signed = _signed(vectors)
    comparisons, preferences = compare(head, train.X, signed), router.preferences(head, train.X, vectors)
    for i in range(30):
        f = [[pair_logit(plain, train.X[i], signed[i, a], signed[i, b]) for b in range(3)] for a in range(3)]
        for a, b in product(range(3), repeat=2):
            assert comparisons[i, a, b] == pytest.approx(f[a][b] - f[b][a], abs=1e-6)
        for k in (1, 2, 3):
            sums = [sum(f[a][b] - f[b][a] for b in range(k)) for a in range(k)]
            assert preferences[k - 1, i, :k] == pytest.approx(sums, abs=1e-6)
            assert router._given(head, train.X, vectors)[k - 1, i] == int(np.argmax(sums))


def test_pairs_by_hand():
    pairs, counts = better_and_worse(np.array([[1.0, 0.0, 0.5], [1.0, 1.0, 1.0], [0.0, NAN, 1.0], [NAN, NAN, NAN]]))
    # Better · 3 + worse: 0 > 1, 0 > 2, 2 > 1; ties and the unobserved say nothing; 2 > 0.
    assert pairs.tolist() == [[1, 2, 7], [0, 0, 0], [6, 0, 0], [0, 0, 0]]
    assert counts.tolist() == [3, 0, 1, 0]


def fuser_logits(head, x, vectors, cosines, k, kept=1.0):
    """Logits of one fuser that is shown the first k answers."""
    size = len(vectors)
    called = (np.arange(size) < k).astype(float)
    shown, pairs = vectors * called[:, None], cosines * called[:, None] * called
    inputs = np.concatenate([x, shown.ravel(), pairs.ravel(), called])
    layer = np.maximum(inputs @ head["weight0"] + head["bias0"][0], 0)
    layer = np.maximum(layer @ head["weight1"] + head["bias1"][0], 0) * kept
    return (layer @ head["out"] + head["out_bias"][0])[:size]


def test_the_fusers_loss_agrees_with_plain_loops(answered):
    train = unobserved(answered(n=40))
    router, weights, batch = weights_of(Fusion, train)
    loss = router.loss({name: torch.from_numpy(array) for name, array in weights.items()}, batch)
    vectors, scores = router._vectors(train).astype(float), train.scores[:, router.order_]
    cosines = np.einsum("nip,njp->nij", vectors[..., :4], vectors[..., :4])
    sizes = [2 + int(share * 2) for share in batch.draws["sizes"][0].tolist()]
    assert set(sizes) == {2, 3}
    kept = batch.draws["kept"][0].double().numpy().reshape(16, FOLDS + 1, 16)
    assert set(kept.ravel()) == {0.0, 2.0}
    expected = 0.0
    for number in range(FOLDS + 1):
        head = {name: array[0, number].astype(float) for name, array in weights.items()}
        losses = []
        for i, k in enumerate(sizes):
            if np.isnan(scores[i, :k]).all() or router._folds[i] == number:
                continue
            logits = fuser_logits(head, train.X[i], vectors[i], cosines[i], k, kept[i, number])[:k]
            best = scores[i, :k] == np.nanmax(scores[i, :k])
            logs = logits - np.log(np.exp(logits).sum())
            losses.append(-logs[best].mean())
        expected += float(np.mean(losses))
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_the_fusers_preferences_agree_with_plain_loops(answered):
    train = answered(n=30)
    router, weights, _ = weights_of(Fusion, train)
    head = {name: array[0, 2] for name, array in weights.items()}
    plain, vectors = {name: array.astype(float) for name, array in head.items()}, router._vectors(train)
    preferences, cosines = router.preferences(head, train.X, vectors), agreement(vectors)
    for i, k in product(range(30), (1, 2, 3)):
        logits = fuser_logits(plain, train.X[i], vectors[i].astype(float), cosines[i], k)
        assert preferences[k - 1, i, :k] == pytest.approx(logits[:k], abs=1e-4)


def test_a_fuser_sides_with_the_majority(answered):
    # Two of three models give the right word, and no word says by itself whether it is right.
    def scores(n, seed):
        wrong = np.random.default_rng(seed).integers(0, 3, size=n)
        return (np.arange(3) != wrong[:, None]).astype(float)

    def say(scores, generator):
        right, wrong = (words(generator, (len(scores), 1)) for _ in range(2))
        return np.where(scores > 0.5, right, wrong)

    train, queries = (answered(n=n, scores=scores(n, seed), say=say, seed=seed) for n, seed in ((800, 1), (200, 2)))
    router = Fusion(epochs=40, learning_rate=0.003).fit(train, rng())
    calls = router.predict(hidden(queries))
    assert router.sizes_[0] == 3
    assert (calls.answers[0] * queries.scores).sum(axis=1).mean() > 0.95


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_bad_parameters_are_refused(cls):
    for name in ("pool", "width", "hidden"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1"):
            cls(**{name: 0})
    with pytest.raises(ValueError, match="dropout must be a number"):
        Fusion(dropout=1.0)


@pytest.mark.parametrize("cls", ENSEMBLES)
def test_larger_pools_are_cut(answered, cls):
    train = answered(n=60, n_models=6)
    router = cls(pool=4, epochs=1).fit(train, rng())
    assert router.order_.tolist() == joining_order(train, 4).tolist()
    assert router.predict(hidden(train)).answers.shape[2] == 6
