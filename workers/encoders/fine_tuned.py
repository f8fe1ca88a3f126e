"""Which encoder is bent towards performance: a projection in which queries that the same models answer lie together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from workers.encoders.fitted import FittedEncoder
from workers.metrics.locality import centred
from workers.routers.base import Side


class FineTuned(FittedEncoder):
    """Linear projection of another encoder's rows, trained with a soft contrastive loss on the training outcomes.

    For a query i of a batch the target is a distribution over the others, softmax of the agreement of their scores
    (double-centred: without the models' and the queries' means) at temperature `target`; the model's own is the
    softmax of their cosines at `temperature`; the loss is the cross-entropy (soft targets in InfoNCE, van den Oord et
    al. 2018; the supervised form is Khosla et al. 2020). The projection starts as the training side's principal
    axes, so 0 epochs are PCA. Reads scores of the training side, never costs. A choice of our own: the encoders of
    the literature that are trained for routing (RouterDC, Zooter) are routers here.
    """

    name = "fine-tuned"
    summary = "contrastive projection of another encoder's rows, trained on each training side's outcomes"

    def __init__(
        self,
        *,
        of: str | Mapping[str, Any] = "minilm",
        dim: int = 64,
        epochs: int = 20,
        batch: int = 256,
        learning_rate: float = 1e-3,
        temperature: float = 0.1,
        target: float = 0.3,
    ) -> None:
        super().__init__(of=of)
        for key, count, least in (("dim", dim, 1), ("epochs", epochs, 0), ("batch", batch, 2)):
            if type(count) is not int or count < least:
                raise ValueError(f"{key} is {count!r}; give a whole number, at least {least}.")
        for key, value in (("learning_rate", learning_rate), ("temperature", temperature), ("target", target)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"{key} is {value!r}; give a number above 0.")
        self.dim = dim
        self.epochs = epochs
        self.batch = batch
        self.learning_rate = learning_rate
        self.temperature = temperature
        self.target = target

    def settings(self) -> Mapping[str, Any]:
        """Dimensions and how it is trained."""
        return {
            "dim": self.dim,
            "epochs": self.epochs,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "temperature": self.temperature,
            "target": self.target,
        }

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Train the projection on one thread."""
        import torch

        scores, _ = train.outcomes
        X = torch.from_numpy(np.ascontiguousarray(train.X))
        Z = torch.from_numpy(centred(scores).astype(np.float32))
        Z = torch.nn.functional.normalize(Z, dim=1)
        W = torch.from_numpy(_principal_axes(train.X, self.dim)).requires_grad_()
        optimizer = torch.optim.AdamW([W], lr=self.learning_rate, weight_decay=0.0)
        for _ in range(self.epochs):
            for chosen in np.array_split(rng.permutation(train.n), max(1, round(train.n / self.batch))):
                if len(chosen) < 2:
                    continue
                rows = torch.from_numpy(chosen)
                own = torch.eye(len(chosen), dtype=torch.bool)
                wanted = ((Z[rows] @ Z[rows].T) / self.target).masked_fill(own, -torch.inf).softmax(dim=1)
                placed = torch.nn.functional.normalize(X[rows] @ W, dim=1)
                cosines = (placed @ placed.T) / self.temperature
                # A finite mask: 0 times infinity is NaN.
                loss = -(wanted * cosines.masked_fill(own, -1e9).log_softmax(dim=1)).sum(dim=1).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        self.projection_: npt.NDArray[np.float32] = W.detach().numpy().copy()
        return self

    def transform(self, queries: Side) -> npt.NDArray[np.float32]:
        """Project. [n, dim]."""
        return queries.X @ self.projection_


def _principal_axes(X: npt.NDArray[np.float32], dim: int) -> npt.NDArray[np.float32]:
    """Leading eigenvectors of the second moments, signs fixed. [d, min(dim, d)]."""
    wide = X.astype(np.float64)
    _, vectors = np.linalg.eigh(wide.T @ wide)
    axes = vectors[:, ::-1][:, :dim]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.ascontiguousarray((axes * signs).astype(np.float32))
