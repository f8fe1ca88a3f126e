"""What is common to routers that call several models and read all their answers before they give one?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import Floats
from workers.routers.answers import GRAMS, NUMBERS, Answers, answers_of
from workers.routers.base import Calls, Positions, Side, mean_outcomes
from workers.routers.chains import DECIMALS, filled_outcomes, mean_of_settings, priced
from workers.routers.pairs import frontier_chain
from workers.training import Floats32, TrainedRouter

if TYPE_CHECKING:
    import torch

#: Heads that see all but one fold of the training side's groups, besides the one that sees all.
FOLDS = 5
#: Queries whose answers are compared at once.
BLOCK = 1024
#: Preferences are compared after rounding to so many decimals: the order of adding moves their last bits.
PLACES = 6


def joining_order(train: Side, most: int) -> Positions:
    """The order in which models join a growing candidate set. [min(M, most)].

    First the frontier of the training means, from its cheapest model on, then the others by their mean score; of equals
    the cheaper.

    Args:
        train: Training side.
        most: Largest set.
    """
    frontier = frontier_chain(train)
    scores, costs = (np.round(means, DECIMALS) for means in mean_outcomes(train))
    others = [model for model in np.lexsort((costs, -scores)) if model not in frontier]
    return np.array([*frontier, *others][:most], dtype=np.int64)


def group_folds(train: Side, rng: np.random.Generator) -> Positions:
    """Fold of every training query, from 0 to `FOLDS` - 1; queries of one group are in one fold. [n]."""
    names, group = np.unique(train.groups, return_inverse=True)
    folds: Positions = (rng.permutation(len(names)) % FOLDS)[group]
    return folds


#: Fitted state of an answer's embedding: `directions` [GRAMS, p], `shift` and `scale` [len(NUMBERS)].
Space = Mapping[str, Floats]


def answer_space(answers: Answers, width: int) -> dict[str, Floats]:
    """Principal directions of answers' n-grams, as in latent semantic analysis (Deerwester et al. 1990), and scales.

    Args:
        answers: Of the training side.
        width: Directions at most.
    """
    grams = answers.grams.astype(np.float64)
    with threadpool_limits(limits=1):  # so small a matrix is slower on many threads, above all beside other processes
        values, vectors = np.linalg.eigh((grams.T @ grams).toarray())
    kept = np.flatnonzero(values > 1e-9 * max(values[-1], 1e-300))[::-1][:width]
    directions = vectors[:, kept]
    if directions.shape[1]:
        # The sign of an eigenvector is an accident.
        largest = np.take_along_axis(directions, np.abs(directions).argmax(axis=0)[None], axis=0)
        directions = directions * np.sign(largest)
    padded = np.zeros((GRAMS, width))
    padded[:, : len(kept)] = directions
    flat = answers.numbers.reshape(-1, len(NUMBERS))
    spread = flat.std(axis=0)
    return {"directions": padded, "shift": flat.mean(axis=0), "scale": np.where(spread > 1e-9, spread, 1.0)}


def embedded(answers: Answers, space: Space) -> Floats32:
    """Answers as vectors: their n-grams along the directions, and their standardised numbers. [n, L, p]."""
    grams = np.asarray(answers.grams @ space["directions"]).reshape(*answers.shape, -1)
    numbers = (answers.numbers - space["shift"]) / space["scale"]
    return np.concatenate([grams, numbers], axis=2).astype(np.float32)


class Ensemble(TrainedRouter, ABC):
    """Calls every model of a candidate set, pays for all, and gives the answer that a trained head prefers.

    Readings of this project: a setting is the size of the candidate set, which models join by `joining_order`; of the
    settings those remain that some price of cost would choose by their training means. These means come from heads that
    saw no query of the judged one's group: one head for each of five folds trains along with the head that is used.
    Where a head prefers nobody, the candidate of the highest mean training score answers.
    """

    needs = ("response",)
    uses = ("samples",)

    #: Models in the order in which they join. [L]
    order_: Positions
    #: Embedding of answers.
    space_: dict[str, Floats]
    #: Rank of each candidate by mean training score, 0 is the best. [L]
    ranks_: Positions
    #: Sizes of the candidate set, the largest first. [K]
    sizes_: Positions
    train_scores_: Floats
    train_costs_: Floats
    #: Of every training query, until the heads are trained. [n]
    _folds: Positions

    @abstractmethod
    def preferences(self, weights: Mapping[str, Floats32], X: Floats32, vectors: Floats32) -> Floats:
        """How much a head likes each candidate's answer when the first k are called, for every k. [L, n, L].

        Entries of candidates that are not called are ignored, and no other entry depends on their answers.

        Args:
            weights: Of one head.
            X: Embeddings of queries. [n, d]
            vectors: The candidates' answers to them, as `embedded` gives them. [n, L, p]
        """

    def keep_candidates(self, train: Side, most: int, width: int, rng: np.random.Generator) -> Floats32:
        """Choose the candidates, the embedding of answers, and the folds; gives the answers' vectors. [n, L, p]."""
        self.order_ = joining_order(train, most)
        means, costs = (np.round(values[self.order_], DECIMALS) for values in mean_outcomes(train))
        self.ranks_ = np.argsort(np.lexsort((costs, -means)))
        self._folds = group_folds(train, rng)
        answers = answers_of(train).of(self.order_)
        self.space_ = answer_space(answers, width)
        return embedded(answers, self.space_)

    def finish(self, train: Side) -> None:
        """Judge the settings by the heads of the folds, and keep the head that saw all."""
        folds, vectors, X = vars(self).pop("_folds"), self._vectors(train), train.X
        given = np.zeros((len(self.order_), train.n), dtype=np.int64)
        for fold in range(FOLDS):
            rows = np.flatnonzero(folds == fold)
            given[:, rows] = self._given(_head(self.weights_, fold), X[rows], vectors[rows])
        sizes = np.arange(1, len(self.order_) + 1)
        means = mean_of_settings(*self._calls(given, sizes, len(train.models)), *filled_outcomes(train))
        kept = priced(*means)
        self.sizes_, self.train_scores_, self.train_costs_ = sizes[kept], means[0][kept], means[1][kept]
        self.weights_ = _head(self.weights_, FOLDS)

    def predict(self, queries: Side) -> Calls:
        """The preferred answer of each candidate set."""
        given = self._given(self.weights_, queries.X, self._vectors(queries))[self.sizes_ - 1]
        answers, called = self._calls(given, self.sizes_, len(queries.models))
        return Calls(answers=answers, called=called, train_scores=self.train_scores_, train_costs=self.train_costs_)

    def _vectors(self, side: Side) -> Floats32:
        return embedded(answers_of(side).of(self.order_), self.space_)

    def _given(self, weights: Mapping[str, Floats32], X: Floats32, vectors: Floats32) -> Positions:
        """Candidate whose answer is given when the first k are called. [L, n]."""
        size = len(self.order_)
        blocks = [
            np.round(self.preferences(weights, X[start : start + BLOCK], vectors[start : start + BLOCK]), PLACES)
            for start in range(0, max(len(X), 1), BLOCK)
        ]
        liked = np.where(np.tri(size, dtype=bool)[:, None], np.concatenate(blocks, axis=1), -np.inf)
        best = liked == liked.max(axis=2, keepdims=True)
        given: Positions = np.where(best, self.ranks_, size).argmin(axis=2)
        return given

    def _calls(self, given: Positions, sizes: Positions, n_models: int) -> tuple[Floats, Floats]:
        """Answers and called of settings, as in `Calls`. Both [K, n, M]."""
        answers, called = (np.zeros((*given.shape, n_models)) for _ in range(2))
        np.put_along_axis(answers, self.order_[given][..., None], 1.0, axis=2)
        for k, size in enumerate(sizes):
            called[k, :, self.order_[:size]] = 1.0
        return answers, called


def _head(weights: Mapping[str, Floats32], number: int) -> dict[str, Floats32]:
    return {name: array[number].copy() for name, array in weights.items()}


def unseen(folds: torch.Tensor) -> torch.Tensor:
    """Whether each head may learn from each query of a batch: all but those of its own fold. [B, FOLDS + 1, b]."""
    import torch

    return folds[:, None] != torch.arange(FOLDS + 1, device=folds.device)[:, None]
