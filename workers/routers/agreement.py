"""How much more may an answer be trusted when the model asked before it said the same, or did not?"""

from __future__ import annotations

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.answers import GRAMS, Answers

#: Queries whose answers are compared at a time: bounds the memory of their n-grams.
BLOCK = 1024
#: Probabilities are kept this far from 0 and 1.
LEAST = 1e-3
#: Weight of the prior that the answer before says nothing.
PENALTY = 1.0
#: Newton steps; the loss is convex and has seven unknowns a pair.
STEPS = 12

#: Of [1, z_j, z_i, a_ij, a_ij·z_i, a_ij·z_j]: the prior, under which the earlier judgement stands.
_PRIOR = np.array([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])


def agreements(answers: Answers) -> Floats:
    """Cosine of every two answers to a query, 1 for equal texts, 0 where there is none. [n, M, M]."""
    n, n_models = answers.shape
    found = np.zeros((n, n_models, n_models))
    for start in range(0, n, BLOCK):
        rows = slice(start * n_models, min(start + BLOCK, n) * n_models)
        grams = answers.grams[rows].toarray().reshape(-1, n_models, GRAMS)
        found[start : start + BLOCK] = grams @ grams.transpose(0, 2, 1)
    return found


def fit_agreement(judged: Floats, agreement: Floats, targets: Floats) -> Floats:
    """Weights of P(answer of j is good | judgement of j, of i, their agreement), of all ordered pairs (i, j).

    A logistic regression for each pair, on the logits z_i and z_j of the judgements, the agreement a_ij and their
    products, with a ridge towards "the judgement of j stands".

    Args:
        judged: Probability that each answer is good, by itself. [n, P]
        agreement: As `agreements` gives it. [n, P, P]
        targets: Scores in [0, 1], NaN = not observed. [n, P]

    Returns:
        Weights. [P, P, 6]
    """
    features = _features(judged, agreement)
    observed = ~np.isnan(targets)
    labels = np.where(observed, targets, 0.0)[:, None, :]
    weights = np.broadcast_to(_PRIOR, features.shape[1:]).copy()
    ridge = PENALTY * np.eye(len(_PRIOR))
    for _ in range(STEPS):
        chance = _sigmoid(np.einsum("nijf,ijf->nij", features, weights))
        slope = np.where(observed[:, None, :], chance - labels, 0.0)
        curvature = np.where(observed[:, None, :], chance * (1.0 - chance), 0.0)
        gradient = np.einsum("nijf,nij->ijf", features, slope) + PENALTY * (weights - _PRIOR)
        hessian = np.einsum("nijf,nijg,nij->ijfg", features, features, curvature, optimize=True) + ridge
        weights -= np.linalg.solve(hessian, gradient[..., None])[..., 0]
    return weights


def judge_again(weights: Floats, judged: Floats, agreement: Floats) -> Floats:
    """Probability that the answer of j is good, once i has answered too. [n, P (i), P (j)]."""
    return _sigmoid(np.einsum("nijf,ijf->nij", _features(judged, agreement), weights))


def _features(judged: Floats, agreement: Floats) -> Floats:
    """[n, P (i), P (j), 6]."""
    kept = np.clip(judged, LEAST, 1.0 - LEAST)
    logits = np.log(kept / (1.0 - kept))
    second, first = np.broadcast_arrays(logits[:, None, :], logits[:, :, None])
    return np.stack([np.ones_like(agreement), second, first, agreement, agreement * first, agreement * second], axis=-1)


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))
