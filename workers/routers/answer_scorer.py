"""How good is an answer, judged by the query and the answer's text? A logistic scorer g(query, answer) (FrugalGPT's g).

The scorer's state is a dict of arrays, so that a router keeps it as fitted state.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.answers import GRAMS, NUMBERS, Answers
from workers.routers.base import Side

#: Folds of the scores that a training side may be judged by.
FOLDS = 5
#: L-BFGS stops when a step changes the loss by less than this share.
TOLERANCE = 1e-6
MOST_STEPS = 500
#: Added to right and wrong answers alike, where intercepts start: their log-odds are finite.
LEAST = 0.01

Scorer = dict[str, Floats]


def fit_scorer(X: npt.NDArray[np.float32], answers: Answers, targets: Floats, penalty: float = 10.0) -> Scorer:
    """Fit P(answer is good | x, answer, model) by penalised cross-entropy with soft targets.

    The logit of model m is linear in [x ; n-grams ; numbers], with weights w + w_m and an intercept b_m: a scorer per
    model, as FrugalGPT trains one for each service, that borrows strength from the others' answers (as in Daumé 2007,
    Frustratingly easy domain adaptation).

    Args:
        X: Embeddings. [n, d]
        answers: Features of the answers. [n, M]
        targets: Scores in [0, 1], NaN = not observed. [n, M]
        penalty: Of the squared weights, intercepts left out. 10 was best by held-out cross-entropy among 1, 3, 10 and
            30 at split 0 of RouterBench's rows under MiniLM and hash-ngrams.
    """
    from scipy.optimize import minimize
    from threadpoolctl import threadpool_limits

    flat = answers.numbers.reshape(-1, len(NUMBERS))
    shift, spread = flat.mean(axis=0), flat.std(axis=0)
    scale = np.where(spread > 1e-12, spread, 1.0)
    features = _Features(X, answers, shift, scale)
    observed = ~np.isnan(targets)
    labels = np.where(observed, targets, 0.0)
    counts = observed.sum(axis=0)
    odds = np.log((labels.sum(axis=0) + LEAST) / (counts - labels.sum(axis=0) + LEAST))

    def loss(weights: Floats) -> tuple[float, Floats]:
        shared, own, intercepts = features.split(weights)
        logits = features.logits(shared, own, intercepts)
        penalised = weights[: -len(counts)]
        error = np.logaddexp(0.0, logits) - labels * logits
        slope = np.where(observed, _sigmoid(logits) - labels, 0.0)
        gradient = features.gradient(slope)
        gradient[: -len(counts)] += penalty * penalised
        return float(error[observed].sum() + 0.5 * penalty * penalised @ penalised), gradient

    start = np.concatenate([np.zeros(features.width * (1 + len(counts))), odds])
    options = {"ftol": TOLERANCE, "gtol": 1e-6, "maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS}
    # Its BLAS is another than numpy's, and loaded only now: threads that wait for each other cost 40 times the work.
    with threadpool_limits(limits=1):
        found = minimize(loss, start, jac=True, method="L-BFGS-B", options=options)
    shared, own, intercepts = features.split(found.x)
    return {"weights": shared[:, None] + own, "intercepts": intercepts, "shift": shift, "scale": scale}


def judge(scorer: Scorer, X: npt.NDArray[np.float32], answers: Answers) -> Floats:
    """The scorer's probability that each answer is good. [n, M].

    Args:
        scorer: Of the same models.
        X: Embeddings. [n, d]
        answers: Features of the answers. [n, M]
    """
    features = _Features(X, answers, scorer["shift"], scorer["scale"])
    return _sigmoid(features.logits(np.zeros(features.width), scorer["weights"], scorer["intercepts"]))


def judged_out_of_fold(
    side: Side, answers: Answers, targets: Floats, rng: np.random.Generator, penalty: float = 10.0
) -> Floats:
    """A training side's answers, each judged by a scorer that saw no query of its group. [n, M].

    What a scorer says of its own training rows is far too good, so thresholds and means are had from these.

    Args:
        side: Training side.
        answers: Its answers, all models' or some. [n, M]
        targets: Scores of these answers, NaN = not observed. [n, M]
        rng: Stream that draws the folds.
        penalty: As in `fit_scorer`.
    """
    names, group = np.unique(side.groups, return_inverse=True)
    fold = (rng.permutation(len(names)) % FOLDS)[group]
    X, judged = side.X, np.full(targets.shape, 0.5)
    for i in range(FOLDS):
        held, kept = np.flatnonzero(fold == i), np.flatnonzero(fold != i)
        if len(held) and len(kept):
            scorer = fit_scorer(X[kept], answers.rows(kept), targets[kept], penalty)
            judged[held] = judge(scorer, X[held], answers.rows(held))
    return judged


def targets_of(side: Side) -> Floats:
    """The scores of the very answers that `response` holds: of the first sample where there are several. [n, M]."""
    scores, _ = side.outcomes
    samples = side.extras.get("samples")
    if samples is None:
        return scores
    first = samples[:, :, 0]
    return np.where(np.isnan(scores) | np.isnan(first), scores, first)


def _sigmoid(logits: Floats) -> Floats:
    return 0.5 * (1.0 + np.tanh(0.5 * logits))


class _Features:
    """[x ; n-grams ; numbers] of every answer, with products that never write them out."""

    def __init__(self, X: npt.NDArray[np.float32], answers: Answers, shift: Floats, scale: Floats) -> None:
        from scipy.sparse import csr_array

        n, n_models = answers.shape
        self.n_models = n_models
        self.X = X.astype(np.float64)
        self.numbers = (answers.numbers - shift) / scale
        # Two weights for every n-gram, the shared one and the model's own: the columns of a wide matrix.
        grams = answers.grams.astype(np.float64)
        model = np.repeat(np.tile(np.arange(n_models), n), np.diff(grams.indptr))
        self.grams = csr_array(
            (grams.data, grams.indices + GRAMS * model, grams.indptr), shape=(n * n_models, GRAMS * n_models)
        )
        self.grams_t = self.grams.T.tocsr()

    @property
    def width(self) -> int:
        """Features of an answer."""
        return int(self.X.shape[1]) + GRAMS + len(NUMBERS)

    def split(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        """Shared weights [width], the models' own [width, M] and intercepts [M]."""
        shared, own, intercepts = np.split(weights, [self.width, self.width * (1 + self.n_models)])
        return shared, own.reshape(self.width, self.n_models), intercepts

    def logits(self, shared: Floats, own: Floats, intercepts: Floats) -> Floats:
        """Logits. [n, M]."""
        of_x, of_grams, of_numbers = self._parts(shared[:, None] + own)
        logits: Floats = self.X @ of_x + (self.grams @ of_grams.T.ravel()).reshape(-1, self.n_models)
        logits += np.einsum("nmk,km->nm", self.numbers, of_numbers) + intercepts
        return logits

    def gradient(self, slope: Floats) -> Floats:
        """Of the sum of logits weighted by `slope` [n, M], by all weights in order."""
        own = np.concatenate(
            [
                self.X.T @ slope,
                (self.grams_t @ slope.ravel()).reshape(self.n_models, GRAMS).T,
                np.einsum("nmk,nm->km", self.numbers, slope),
            ]
        )
        return np.concatenate([own.sum(axis=1), own.ravel(), slope.sum(axis=0)])

    def _parts(self, weights: Floats) -> tuple[Floats, Floats, Floats]:
        dim = self.X.shape[1]
        return weights[:dim], weights[dim : dim + GRAMS], weights[dim + GRAMS :]
