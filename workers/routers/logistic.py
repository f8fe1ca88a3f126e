"""How likely does a model answer well? A logistic head per model, fitted to scores anywhere in [0, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.quiet import ignoring
from workers.routers.base import NEVER_OBSERVED


def fit_heads(X: npt.NDArray[np.floating], scores: Floats, C: float) -> tuple[Floats, Floats]:
    """Minimise C · Σ cross-entropy(s, σ(x·w + b)) + ½‖w‖² for every model on its observed rows.

    A score s counts as a positive row of weight s and a negative one of weight 1 - s: scikit-learn's
    `LogisticRegression` with `sample_weight`. Where the optimum is at infinity without the penalty (one class alone)
    the head is the constant mean, as it is for C = 0.

    Args:
        X: Embeddings. [n, d]
        scores: In [0, 1], NaN = not observed. [n, M]
        C: Weight of the errors, at least 0.

    Returns:
        Coefficients [d, M] and intercepts [M]; the intercept of a constant 0 or 1 is infinite.
    """
    observed = ~np.isnan(scores)
    counts = observed.sum(axis=0)
    means = np.where(counts > 0, np.nansum(scores, axis=0) / np.maximum(counts, 1), NEVER_OBSERVED[0])
    coefficients, intercepts = np.zeros((X.shape[1], scores.shape[1])), _logit(means)
    mixed = np.flatnonzero((means > 0) & (means < 1))
    if C == 0 or not len(mixed):
        return coefficients, intercepts
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    inputs = X.astype(np.float64)
    for model in mixed:
        s = np.where(observed[:, model], scores[:, model], 0.0)
        positive, negative = np.flatnonzero(s > 0), np.flatnonzero(observed[:, model] & (s < 1))
        rows = np.concatenate([positive, negative])
        labels = np.repeat([1, 0], [len(positive), len(negative)])
        # Nearly separable scores under a weak penalty: stopping early is the regularisation.
        with ignoring(ConvergenceWarning):
            head = LogisticRegression(C=C, tol=1e-6, max_iter=200).fit(
                inputs[rows], labels, sample_weight=np.concatenate([s[positive], 1.0 - s[negative]])
            )
        coefficients[:, model], intercepts[model] = head.coef_[0], head.intercept_[0]
    return coefficients, intercepts


def chances(X: npt.NDArray[np.floating], coefficients: Floats, intercepts: Floats) -> Floats:
    """σ(x·w + b) of every model. [n, M]."""
    from scipy.special import expit

    answer: Floats = expit(X.astype(np.float64) @ coefficients + intercepts)
    return answer


def _logit(means: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        answer: Floats = np.log(means) - np.log1p(-means)
    return answer
