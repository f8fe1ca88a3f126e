"""Which of two answers is the better one? LLM-Blender's PairRanker, on features of the answers' texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.answer_scorer import targets_of
from workers.routers.base import Side
from workers.routers.ensembles import FOLDS, Ensemble, unseen
from workers.routers.labels import TIE
from workers.training import (
    Batch,
    Floats32,
    Network,
    Tensors,
    affine,
    check_optimiser,
    check_whole,
    padded,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Pairs that are compared of every query in each epoch; the paper's code has 5 pairs of the best and the worst.
PAIRS = 4


class LLMBlender(Ensemble):
    """PairRanker: every two candidates are compared, and the answer that wins by the sum of all comparisons is given.

    f(x, y_i; y_j) is the logit of y_i's being better than y_j. The loss of a pair is the mean cross-entropy of
    σ(f(x, y_i; y_j)) and σ(f(x, y_j; y_i)) with 1 for the better answer and 0 for the worse. The comparison of i with j
    is f(x, y_i; y_j) - f(x, y_j; y_i), and the candidate with the largest sum over all others wins (MaxLogits). Checked
    in the released code (`pair_ranker/ranker.py` of github.com/yuchenlin/LLM-Blender): this loss, this comparison, and
    a head with one hidden layer and tanh. GenFuser, which writes a new answer, has no observed score and is left out.

    Readings of this project: the original reads x, y_i and y_j with a fine-tuned DeBERTa, here one hidden layer reads
    the frozen x and `embedded` y_i and y_j; it also knows who wrote them, as all routers do. Of every query pairs are
    drawn whose scores differ (the original takes the best against the worst, and a tie as two losers). Candidates are
    11 at most, as many as the original has. Settings are those of `Ensemble`. Rate and epochs were chosen by validation
    `auc_path` on RouterBench's rows at split indices 100 to 102, under hash-ngrams / MiniLM: 5, 10, 20, 40 epochs gave
    77.4, 79.5, 79.8, 80.4 / 76.6, 79.9, 80.0, 80.2 at 0.001, and 79.6, 79.5, 80.4, 80.6 / 79.9, 79.9, 80.4, 80.1 at
    0.003; the zero-router has 80.4.

    Args:
        pool: Largest candidate set.
        width: Directions of the answers' embedding.
        hidden: Width of the hidden layer.
        learning_rate: Of Adam.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side.
        batch_size: Queries of a minibatch.
    """

    name = "llm-blender"
    summary = "all candidates answer, a pairwise ranker of answers chooses"
    source = "Jiang et al. 2023, LLM-Blender, arXiv 2306.02561, section 3 (PairRanker)"

    def __init__(
        self,
        *,
        pool: int = 11,
        width: int = 64,
        hidden: int = 64,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-4,
        epochs: int = 20,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        for key, value in (("pool", pool), ("width", width), ("hidden", hidden)):
            check_whole(key, value, 1)
        self.pool = pool
        self.width = width
        self.hidden = hidden
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Heads of all folds; the output layer starts at zero, so that without an epoch nobody is preferred."""
        vectors = _signed(self.keep_candidates(train, self.pool, self.width, rng))
        pairs, counts = better_and_worse(targets_of(train)[:, self.order_])
        fan_in, hidden = train.embeddings.shape[1] + 2 * vectors.shape[2], padded(self.hidden)
        weight, bias = (uniform(rng, 1.0 / math.sqrt(fan_in), FOLDS + 1, rows, self.hidden) for rows in (fan_in, 1))
        more = ((0, 0), (0, 0), (0, hidden - self.hidden))
        return Network(
            parameters={
                "weight": np.pad(weight, more),
                "bias": np.pad(bias, more),
                "out": np.zeros((FOLDS + 1, hidden, 1), dtype=np.float32),
            },
            tables={"vectors": vectors, "pairs": pairs, "counts": counts, "folds": self._folds},
        )

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """Which pairs of every query are compared, as shares of their number."""
        return {"pairs": rng.random((size, PAIRS))}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Cross-entropy of both orders of the drawn pairs, summed over the heads. [B]."""
        import torch

        vectors, pairs, counts = (batch.take(name) for name in ("vectors", "pairs", "counts"))
        size = vectors.shape[2]
        drawn = (batch.draws["pairs"] * counts[..., None]).long().clamp(max=pairs.shape[2] - 1)
        code = pairs.gather(2, drawn)
        places = torch.stack([code // size, code % size], dim=2).flatten(2)
        answers = vectors.gather(2, places[..., None].expand(-1, -1, -1, vectors.shape[3]))
        wins, losses = self._logits(weights, batch.x(), answers)
        errors = torch.nn.functional.softplus(-wins) + torch.nn.functional.softplus(losses)
        counted = (unseen(batch.take("folds")) & (counts > 0)[:, None]).repeat_interleave(PAIRS, dim=2).float()
        return (0.5 * (errors * counted).sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)).sum(dim=-1)

    def _logits(self, weights: Tensors, x: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the better answer against the worse and the other way round. Both [B, heads, b · PAIRS].

        Args:
            weights: [B, heads, ...]
            x: [B, b, d]
            answers: Of every query the better ones of its pairs, then the worse ones. [B, b, 2 · PAIRS, p]
        """
        members, b = x.shape[:2]
        heads, hidden = weights["out"].shape[1:3]
        # The inputs are every head's: one wide product.
        first = weights["weight"].transpose(1, 2).reshape(members, -1, heads * hidden)
        of_x = affine(x, first[:, : x.shape[2]], weights["bias"].view(members, 1, heads * hidden))[:, :, None]
        own, other = first[:, x.shape[2] :].chunk(2, dim=1)
        as_own, as_other = ((answers.flatten(1, 2) @ part).view(members, b, 2, PAIRS, -1) for part in (own, other))

        def logits(mine: int) -> torch.Tensor:
            layer = (of_x + as_own[:, :, mine] + as_other[:, :, 1 - mine]).tanh()
            by_head = layer.view(members, b * PAIRS, heads, hidden).transpose(1, 2).contiguous()
            return (by_head @ weights["out"])[..., 0]

        return logits(0), logits(1)

    def preferences(self, weights: Mapping[str, Floats32], X: Floats32, vectors: Floats32) -> Floats:
        """Sums of the comparisons with the other candidates. [L, n, L]."""
        comparisons = compare(weights, X, _signed(vectors))
        sums: Floats = np.cumsum(comparisons, axis=2).transpose(2, 0, 1)
        return sums


def better_and_worse(scores: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """All pairs of candidates whose scores differ, as better · L + worse.

    Args:
        scores: NaN = not observed. [n, L]

    Returns:
        Codes of each query's pairs, filled up with zeros [n, pairs], and their number [n].
    """
    n = len(scores)
    better = (scores[:, :, None] > scores[:, None, :] + TIE).reshape(n, -1)
    counts = better.sum(axis=1)
    order = np.argsort(~better, axis=1, kind="stable")[:, : max(1, int(counts.max(initial=0)))]
    codes = np.where(np.arange(order.shape[1]) < counts[:, None], order, 0)
    return codes.astype(np.int64), counts.astype(np.int64)


def compare(weights: Mapping[str, Floats32], X: Floats32, vectors: Floats32) -> Floats:
    """f(x, y_i; y_j) - f(x, y_j; y_i) of one head. [n, L, L].

    Args:
        weights: `weight` [d + 2p, h], `bias` [1, h], `out` [h, 1].
        X: [n, d]
        vectors: Of the answers and who wrote them. [n, L, p]
    """
    d, p = X.shape[1], vectors.shape[2]
    weight = weights["weight"].astype(np.float64)
    own, other = vectors @ weight[d : d + p], vectors @ weight[d + p :]
    own += (X @ weight[:d] + weights["bias"])[:, None]
    logits = (np.tanh(own[:, :, None] + other[:, None]) @ weights["out"].astype(np.float64))[..., 0]
    comparisons: Floats = logits - logits.transpose(0, 2, 1)
    return comparisons


def _signed(vectors: Floats32) -> Floats32:
    """Answers' vectors with one more entry for each candidate, 1 for the one who wrote it. [n, L, p + L]."""
    n, size, _ = vectors.shape
    authors = np.broadcast_to(np.eye(size, dtype=np.float32), (n, size, size))
    return np.concatenate([vectors, authors], axis=2)
