"""Which expert is right, judged by what all of them say? A fuser of experts' outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.answer_scorer import targets_of
from workers.routers.answers import NUMBERS
from workers.routers.base import Side
from workers.routers.ensembles import FOLDS, Ensemble, unseen
from workers.routers.labels import TIE
from workers.training import Batch, Floats32, Network, Tensors, affine, check_optimiser, check_whole, padded, uniform

if TYPE_CHECKING:
    import torch

#: Subtracted from the logits of candidates that are not called.
FAR = 1e4


class Fusion(Ensemble):
    """A fuser reads the candidates' embedded answers side by side and names the expert whose answer is given.

    In the original (checked in `lm_experiments` of github.com/hwang595/FoE-ICLR2024) the outputs are the experts' mean
    token embeddings, concatenated; the fuser is a perceptron with two hidden layers, ReLU and dropout 0.5 before the
    output, trained by cross-entropy on the expert that is right with AdamW at 1e-3 and weight decay 1e-4.

    Readings of this project: an output is the `embedded` text of the answer; as the experts' states hold the query
    too, the fuser reads x as well, and the cosines of every two answers, which show who agrees with whom; the label is
    shared by all candidates with the highest score; one fuser serves all candidate sets, with zeros for who is not
    called: in training every query shows the answers of the first k candidates, k drawn anew in each epoch. Hidden
    layers are 64 wide (the original's 1024 to 8192). Settings are those of `Ensemble`. Epochs were chosen by validation
    `auc_path` on RouterBench's rows at split indices 100 to 102, under hash-ngrams / MiniLM: 5, 10, 20, 40 epochs gave
    80.6, 80.6, 78.9, 79.7 / 80.6, 80.4, 79.5, 79.4; the zero-router has 80.4.

    Args:
        pool: Largest candidate set.
        width: Directions of the answers' embedding.
        hidden: Width of both hidden layers.
        dropout: Share of the second layer's units that are left out in each step.
        learning_rate: Of AdamW.
        weight_decay: AdamW's.
        epochs: Passes over the training side.
        batch_size: Queries of a minibatch.
    """

    name = "fusion"
    summary = "all candidates answer, a fuser of their answers names the expert"
    source = "Wang et al. 2023, Fusing models with complementary expertise, arXiv 2310.01542, section 3"
    decoupled_decay = True

    def __init__(
        self,
        *,
        pool: int = 11,
        width: int = 64,
        hidden: int = 64,
        dropout: float = 0.5,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        for key, value in (("pool", pool), ("width", width), ("hidden", hidden)):
            check_whole(key, value, 1)
        if isinstance(dropout, bool) or not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout must be a number, at least 0 and below 1, not {dropout!r}.")
        self.pool = pool
        self.width = width
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Fusers of all folds; the output layer starts at zero, so that without an epoch nobody is preferred."""
        vectors = self.keep_candidates(train, self.pool, self.width, rng)
        n, size, p = vectors.shape
        fan_in, hidden = train.embeddings.shape[1] + size * (p + 1) + size * size, padded(self.hidden)
        parameters = {}
        for layer, rows in enumerate((fan_in, self.hidden)):
            bound = 1.0 / math.sqrt(rows)
            weight, bias = (uniform(rng, bound, FOLDS + 1, r, self.hidden) for r in (rows, 1))
            more = hidden - self.hidden
            parameters[f"weight{layer}"] = np.pad(weight, ((0, 0), (0, more if layer else 0), (0, more)))
            parameters[f"bias{layer}"] = np.pad(bias, ((0, 0), (0, 0), (0, more)))
        for name, rows in (("out", hidden), ("out_bias", 1)):
            parameters[name] = np.zeros((FOLDS + 1, rows, padded(size)), dtype=np.float32)
        tables: dict[str, npt.NDArray[Any]] = {
            "vectors": vectors.reshape(n, size * p),
            "cosines": agreement(vectors).reshape(n, size * size),
            "scores": targets_of(train)[:, self.order_].astype(np.float32),
            "folds": self._folds,
        }
        return Network(parameters=parameters, tables=tables)

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """How many candidates each query shows, as a share of what is possible, and which hidden units are left in."""
        kept = rng.random((size, (FOLDS + 1) * padded(self.hidden))) >= self.dropout
        return {"sizes": rng.random(size), "kept": kept.astype(np.float32) / np.float32(1.0 - self.dropout)}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Cross-entropy with the best of the candidates that are shown, summed over the fusers. [B]."""
        import torch

        vectors, cosines, scores = (batch.take(name) for name in ("vectors", "cosines", "scores"))
        size = scores.shape[2]
        drawn = (2 + (batch.draws["sizes"] * (size - 1)).long()).clamp(max=size)
        called = (torch.arange(size, device=drawn.device) < drawn[..., None]).float()
        logits = self._logits(weights, batch.x(), vectors, cosines, called, batch.draws["kept"])
        known = (called > 0) & ~scores.isnan()
        reached = scores.nan_to_num().masked_fill(~known, -math.inf)
        best = known & (reached >= reached.amax(dim=-1, keepdim=True) - TIE)
        labels = best.float() / best.sum(dim=-1, keepdim=True).clamp(min=1)
        errors = -((logits + FAR * (called - 1.0)[:, None]).log_softmax(dim=-1) * labels[:, None]).sum(dim=-1)
        counted = (unseen(batch.take("folds")) & known.any(dim=-1)[:, None]).float()
        return ((errors * counted).sum(dim=-1) / counted.sum(dim=-1).clamp(min=1)).sum(dim=-1)

    def _logits(
        self,
        weights: Tensors,
        x: torch.Tensor,
        vectors: torch.Tensor,
        cosines: torch.Tensor,
        called: torch.Tensor,
        kept: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of all fusers. [B, fusers, b, L]."""
        import torch

        members, b, size = called.shape
        fusers, fan_in, hidden = weights["weight0"].shape[1:]
        pairs = called[..., :, None] * called[..., None, :]
        shown = vectors.view(members, b, size, -1) * called[..., None]
        inputs = torch.cat([x, shown.flatten(2), (cosines * pairs.flatten(2)), called], dim=-1)
        # The inputs are every fuser's: one wide product.
        first = weights["weight0"].transpose(1, 2).reshape(members, fan_in, fusers * hidden)
        wide = affine(inputs, first, weights["bias0"].view(members, 1, fusers * hidden)).relu()
        layer = wide.view(members, b, fusers, hidden).transpose(1, 2).contiguous()
        layer = affine(layer, weights["weight1"], weights["bias1"]).relu()
        layer = layer * kept.view(members, b, fusers, hidden).transpose(1, 2)
        return affine(layer.contiguous(), weights["out"], weights["out_bias"])[..., :size]

    def preferences(self, weights: Mapping[str, Floats32], X: Floats32, vectors: Floats32) -> Floats:
        """Logits of the fuser for every candidate set. [L, n, L]."""
        n, size, p = vectors.shape
        layers = {name: array.astype(np.float64) for name, array in weights.items()}
        of_x, of_vectors, of_cosines, of_called = np.split(
            layers["weight0"], np.cumsum([X.shape[1], size * p, size * size])
        )
        shared, cosines = X @ of_x + layers["bias0"], agreement(vectors)
        logits = np.empty((size, n, size))
        for k in range(1, size + 1):
            inner = shared + vectors[:, :k].reshape(n, -1) @ of_vectors[: k * p] + of_called[:k].sum(axis=0)
            among = of_cosines.reshape(size, size, -1)[:k, :k].reshape(k * k, -1)
            inner = np.maximum(inner + cosines[:, :k, :k].reshape(n, -1) @ among, 0.0)
            inner = np.maximum(inner @ layers["weight1"] + layers["bias1"], 0.0)
            logits[k - 1] = (inner @ layers["out"] + layers["out_bias"])[:, :size]
        return logits


def agreement(vectors: Floats32) -> Floats32:
    """Cosines of every two answers' n-grams, as far as the directions of their embedding show. [n, L, L].

    Args:
        vectors: As `embedded` gives them: along the directions, then `NUMBERS`. [n, L, p]
    """
    grams = vectors[..., : -len(NUMBERS)]
    return grams @ grams.transpose(0, 2, 1)
