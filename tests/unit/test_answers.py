"""Features of answers, the scorer on them, and the agreement of two answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from workers.encoders.base import Input
from workers.encoders.hash_ngrams import HashNgrams
from workers.errors import RouterError
from workers.routers import answers as module
from workers.routers.agreement import agreements, fit_agreement, judge_again
from workers.routers.answer_scorer import fit_scorer, judge, judged_out_of_fold, targets_of
from workers.routers.answers import GRAMS, NUMBERS, answers_of

WORDS = ["A", "B\n", "the answer is 4.", "I do not know", "x = 1\n```\ny", "No!", ""]


def with_answers(side, texts):
    return replace(side, extras={**side.extras, "response": np.array(texts, dtype=object)})


@pytest.fixture
def answered(make_side):
    """40 queries, two models whose answers hint at their scores, some unobserved."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    scores = (rng.random((40, 2)) < 0.5).astype(float)
    scores[rng.random((40, 2)) < 0.1] = np.nan
    texts = np.array(WORDS, dtype=object)[rng.integers(0, 3, size=(40, 2)) + 3 * (scores == 1)]
    return with_answers(make_side(X, scores, np.ones((40, 2))), texts)


def test_numbers_of_an_answer_by_hand(make_side):
    side = with_answers(make_side(np.eye(2), np.ones((2, 2)), np.ones((2, 2))), [[" Ab 1:\n2. ", "x"], ["", None]])
    numbers = answers_of(side).numbers
    # "Ab 1:\n2.": 8 characters, 3 words, 1 line break, 2 digits, 1 capital, 2 marks, finished.
    by_name = dict(zip(NUMBERS, numbers[0, 0], strict=True))
    assert by_name == pytest.approx(
        {
            "missing": 0,
            "empty": 0,
            "log_characters": np.log(9),
            "log_words": np.log(4),
            "log_lines": np.log(2),
            "digits": 2 / 8,
            "capitals": 1 / 8,
            "punctuation": 2 / 8,
            "fenced_code": 0,
            "finished": 1,
        }
    )
    assert numbers[0, 1][NUMBERS.index("finished")] == 0
    assert numbers[1, 0][:2].tolist() == [0, 1]
    assert numbers[1, 1].tolist() == [1, *[0] * (len(NUMBERS) - 1)]


def test_grams_are_the_encoders_between_two_spaces(answered):
    texts = answered.extras["response"].ravel()
    expected = HashNgrams(dim=GRAMS).encode([Input(text=f" {text.strip()} ") for text in texts])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert answers_of(answered).grams.toarray() == pytest.approx(expected, abs=1e-6)


def test_features_depend_on_the_text_alone_and_not_on_what_was_asked_before(answered, monkeypatch):
    first = answers_of(answered).dense()
    order = np.random.default_rng(1).permutation(40)
    shuffled = replace(answered, extras={"response": answered.extras["response"][order]})
    assert (answers_of(shuffled).dense() == first[order]).all()
    monkeypatch.setattr(module, "KEPT", 0)
    assert (answers_of(shuffled).dense() == first[order]).all()


def test_parts_of_the_answers_are_those_of_their_queries_and_models(answered):
    everything = answers_of(answered)
    part = everything.of([1]).rows(np.array([5, 2]))
    assert part.shape == (2, 1)
    assert (part.dense() == everything.dense()[[5, 2]][:, [1]]).all()


def test_scaled_numbers(answered):
    everything = answers_of(answered)
    shift, unit = np.arange(len(NUMBERS)) * 1.0, np.full(len(NUMBERS), 2.0)
    assert everything.dense((shift, unit))[..., GRAMS:] == pytest.approx((everything.numbers - shift) / 2, abs=1e-6)


def test_agreement_is_the_cosine(make_side):
    side = make_side(np.eye(3), np.ones((3, 3)), np.ones((3, 3)))
    side = with_answers(side, [["A", " a\n", "B"], ["A", None, ""], ["same", "same", "sane"]])
    everything = answers_of(side)
    found = agreements(everything)
    assert found[0, 0, 1] == found[2, 0, 1] == pytest.approx(1)
    assert found[1, 0, 1] == found[1, 1, 1] == 0
    assert 0 < found[2, 0, 2] < 1
    dense = everything.dense()[..., :GRAMS].astype(float)
    assert found == pytest.approx(dense @ dense.transpose(0, 2, 1), abs=1e-6)


def test_answers_must_be_declared(make_side):
    with pytest.raises(RouterError, match=r"reads 'response' of a side that lacks it"):
        answers_of(make_side(np.eye(2), np.ones((2, 2)), np.ones((2, 2))))


def standardised(answers):
    flat = answers.numbers.reshape(-1, len(NUMBERS))
    spread = flat.std(axis=0)
    return answers.dense((flat.mean(axis=0), np.where(spread > 0, spread, 1.0))).astype(float)


def test_a_single_models_scorer_agrees_with_scikit_learn(answered):
    answers, targets = answers_of(answered).of([0]), answered.scores[:, [0]] * 0.8
    seen = ~np.isnan(targets[:, 0])
    features = np.hstack([answered.X, standardised(answers)[:, 0]])
    # Two equal weights that share a penalty of 10 are one with a penalty of 5; soft targets are weighted rows.
    theirs = LogisticRegression(C=1 / 5, tol=1e-10, max_iter=10_000)
    y = targets[seen, 0]
    theirs.fit(np.vstack([features[seen]] * 2), np.repeat([1, 0], seen.sum()), sample_weight=np.concatenate([y, 1 - y]))
    ours = judge(fit_scorer(answered.X, answers, targets, 10.0), answered.X, answers)
    assert ours[:, 0] == pytest.approx(theirs.predict_proba(features)[:, 1], abs=5e-3)


def test_the_scorer_of_several_models_minimises_its_loss(answered):
    answers, targets = answers_of(answered), answered.scores
    features = np.concatenate([np.repeat(answered.X[:, None], 2, axis=1), standardised(answers)], axis=2)
    width = features.shape[2]

    def logits(w):
        shared, own, b = w[:width], w[width : 3 * width].reshape(2, width), w[3 * width :]
        return np.einsum("nmk,mk->nm", features, shared + own) + b

    def loss(w):
        z = logits(w)
        each = np.logaddexp(0, z) - np.nan_to_num(targets) * z
        return each[~np.isnan(targets)].sum() + 3.0 / 2 * (w[: 3 * width] ** 2).sum()

    def slope(w):
        z = np.where(np.isnan(targets), 0.0, 1 / (1 + np.exp(-logits(w))) - np.nan_to_num(targets))
        own = np.einsum("nmk,nm->mk", features, z)
        return np.concatenate([own.sum(axis=0), own.ravel(), z.sum(axis=0)]) + 3.0 * np.append(w[: 3 * width], [0, 0])

    best = minimize(
        loss, np.zeros(3 * width + 2), jac=slope, method="L-BFGS-B", options={"ftol": 1e-13, "maxfun": 10_000}
    ).x
    ours = judge(fit_scorer(answered.X, answers, targets, 3.0), answered.X, answers)
    assert ours == pytest.approx(1 / (1 + np.exp(-logits(best))), abs=5e-3)


def test_a_large_penalty_leaves_every_models_mean(answered):
    answers = answers_of(answered)
    judged = judge(fit_scorer(answered.X, answers, answered.scores, 1e9), answered.X, answers)
    assert judged == pytest.approx(np.tile(np.nanmean(answered.scores, axis=0), (40, 1)), abs=1e-3)


def test_out_of_fold_a_group_does_not_see_its_own_scores(answered):
    side = replace(answered, groups=np.arange(40) // 2)
    answers = answers_of(side)

    def judged(scores):
        return judged_out_of_fold(side, answers, scores, np.random.default_rng(3))

    changed = side.scores.copy()
    changed[:2] = 1 - changed[:2]
    before, after = judged(side.scores), judged(changed)
    assert (before[:2] == after[:2]).all()
    assert (before[2:] != after[2:]).any()


def test_targets_are_those_of_the_first_sample(answered):
    assert targets_of(answered) is answered.scores
    samples = np.stack([np.full((40, 2), 0.25), np.ones((40, 2))], axis=2)
    samples[7, 0, 0] = np.nan
    targets = targets_of(replace(answered, extras={"samples": samples}))
    assert (np.isnan(targets) == np.isnan(answered.scores)).all()
    assert np.nan_to_num(targets[7, 0]) == np.nan_to_num(answered.scores[7, 0])
    there = ~np.isnan(answered.scores)
    there[7, 0] = False
    assert (targets[there] == 0.25).all()


def test_agreement_weights_minimise_their_loss():
    rng = np.random.default_rng(0)
    judged, targets = rng.uniform(0.1, 0.9, size=(60, 2)), (rng.random((60, 2)) < 0.6).astype(float)
    targets[:5, 1] = np.nan
    alike = rng.random((60, 2, 2))
    weights = fit_agreement(judged, alike, targets)
    z, a = np.log(judged / (1 - judged)), alike[:, 0, 1]
    features = np.column_stack([np.ones(60), z[:, 1], z[:, 0], a, a * z[:, 0], a * z[:, 1]])[5:]
    prior = np.array([0, 1, 0, 0, 0, 0])

    def loss(w):
        logits = features @ w
        return (np.logaddexp(0, logits) - targets[5:, 1] * logits).sum() + 0.5 * ((w - prior) ** 2).sum()

    assert weights[0, 1] == pytest.approx(minimize(loss, prior).x, abs=1e-4)
    again = judge_again(weights, judged, alike)[5:, 0, 1]
    assert again == pytest.approx(1 / (1 + np.exp(-features @ weights[0, 1])))


def test_without_observations_an_earlier_answer_changes_nothing():
    judged = np.random.default_rng(0).uniform(0.1, 0.9, size=(5, 3))
    alike = np.ones((5, 3, 3))
    weights = fit_agreement(judged, alike, np.full((5, 3), np.nan))
    assert judge_again(weights, judged, alike) == pytest.approx(np.repeat(judged[:, None], 3, axis=1))
