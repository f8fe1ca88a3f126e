"""What does a small neural network per model learn? All models of one fit train as one batch of networks.

Fits of several splits are not batched further: on one thread a step is bound by arithmetic (measured per fit and step,
alone / 8 fits together / 20: 6.3 / 5.5 / 5.8 ms at d = 384 with 11 models, 1.3 / 1.2 / 1.3 ms at d = 64 with 6), and a
fit alone cannot depend on its company.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import Positions, Prediction, Router, Side, mean_outcomes
from workers.routers.labels import most_voted, spread_labels

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

Floats32 = npt.NDArray[np.float32]

#: Rows of one forward pass when predicting.
BLOCK = 1024


class MLP(Router):
    """A network per model, with outputs for score and cost; as a selector, one logit per model and cross-entropy.

    The loss is MSE(ŝ, s) + MSE(ĉ, c) over observed cells, on targets standardised per model on the training side.
    The output layer starts at zero, so that without an epoch it predicts the training means. Epochs and batch size were
    chosen by validation `auc_path` under wordllama at split indices 100 to 102, which no sweep file reports, among
    5, 10, 20, 40 epochs at 128 and 10 at 64: RouterBench's rows 84.3, 85.2, 83.6, 77.0, 83.7; LLMRouter's data 57.7,
    57.9, 55.3, 53.1, 57.0; toolbox 77.0, 80.7, 81.3, 81.5, 81.0.

    Args:
        hidden: Width of the hidden layers.
        depth: Fully connected layers, the output layer included.
        learning_rate: Of Adam; the paper prints no optimiser, rate, decay or epochs: these are this project's.
        weight_decay: Adam's L2 penalty.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "mlp"
    summary = "a 3-layer perceptron per model"
    source = "Li 2025, arXiv 2505.12601, section 4 (3 layers, ReLU, hidden width 100)"
    formulations = ("utility", "selection")
    tunables = ("learning_rate", "weight_decay", "epochs")
    tuned_by_default = False

    def __init__(
        self,
        *,
        hidden: int = 100,
        depth: int = 3,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-4,
        epochs: int = 10,
        batch_size: int = 128,
    ) -> None:
        for key, value, least in (
            ("hidden", hidden, 1),
            ("depth", depth, 1),
            ("epochs", epochs, 0),
            ("batch_size", batch_size, 1),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{key} must be a whole number, at least {least}, not {value!r}.")
        if not (isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf):
            raise ValueError(f"learning_rate must be a number above 0, not {learning_rate!r}.")
        if not (isinstance(weight_decay, int | float) and 0 <= weight_decay < math.inf):
            raise ValueError(f"weight_decay must be a number, at least 0, not {weight_decay!r}.")
        self.hidden = hidden
        self.depth = depth
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {
            "learning_rate": {"log": [1e-4, 1e-2]},
            "weight_decay": {"log": [1e-6, 1e-2]},
            "epochs": [2, 5, 10, 20],
            "first": [{"learning_rate": 1e-3, "weight_decay": 1e-4, "epochs": 10}, {"epochs": 0}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The default setting, the query-blind one without an epoch, then draws from the space."""
        default = {"learning_rate": 1e-3, "weight_decay": 1e-4, "epochs": 10}
        drawn = [
            {
                "learning_rate": float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-2)))),
                "weight_decay": float(np.exp(rng.uniform(np.log(1e-6), np.log(1e-2)))),
                "epochs": int(rng.choice([2, 5, 10, 20])),
            }
            for _ in range(budget - 2)
        ]
        return [default, {**default, "epochs": 0}, *drawn]

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fewer epochs, then smaller steps, then more decay."""
        return (params["epochs"], params["learning_rate"], -params["weight_decay"])

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Train on standardised scores and costs."""
        means = np.stack(mean_outcomes(train))
        outcomes = np.stack(train.outcomes)
        observed = ~np.isnan(outcomes)
        deviations = np.where(observed, outcomes - means[:, None], 0.0)
        variances = (deviations**2).sum(axis=1) / np.maximum(observed.sum(axis=1), 1)
        self.means_, self.scales_ = means, np.where(variances > 0, np.sqrt(variances), 1.0)
        # Queries first: [n, M, (score, cost)]; an unobserved cell is NaN and adds nothing to the loss.
        targets = np.where(observed, deviations / self.scales_[:, None], np.nan).transpose(1, 2, 0)
        self.layers_ = self._train(train.X, targets, np.zeros((len(train.models), 2)), _squared_error, rng)
        return self

    def predict(self, queries: Side) -> Prediction:
        """Network outputs in the units of the targets. [n, M]."""
        scores, costs = self.means_[:, None] + self.scales_[:, None] * self._outputs(queries).transpose(2, 0, 1)
        return Prediction(scores=scores, costs=costs)

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Train logits by cross-entropy with labels spread over ties."""
        labels = spread_labels(*train.outcomes, price)
        self.mean_costs_ = mean_outcomes(train)[1]
        log_shares = np.log(np.maximum(labels.mean(axis=0), 1e-6))[:, None]
        self.layers_ = self._train(train.X, labels[:, :, None], log_shares, _cross_entropy, rng)
        return self

    def select(self, queries: Side) -> Positions:
        """The most probable model. [n]."""
        logits = self._outputs(queries)[:, :, 0]
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return most_voted(odds / odds.sum(axis=1, keepdims=True), self.mean_costs_)

    @property
    def n_bytes(self) -> int:
        """Bytes of the networks and of their scales."""
        return super().n_bytes + sum(layer.nbytes for layer in self.layers_)

    def _train(
        self, X: Floats32, targets: Floats, bias: Floats, loss: Loss, rng: np.random.Generator
    ) -> list[Floats32]:
        """Train the networks; every random number comes from `rng`.

        Args:
            X: Inputs. [n, d]
            targets: [n, M, outputs]
            bias: Where the output layer's biases start. [M, outputs]
            loss: Of outputs and targets, both [M, batch, outputs].
            rng: The job's stream.

        Returns:
            Weights [M, in, out] and biases [M, 1, out], layer by layer.
        """
        import torch

        n, n_models, n_outputs = targets.shape
        widths = [X.shape[1], *[self.hidden] * (self.depth - 1), n_outputs]
        arrays: list[Floats32] = []
        for fan_in, fan_out in pairwise(widths):
            bound = 1.0 / math.sqrt(fan_in)
            for shape in ((n_models, fan_in, fan_out), (n_models, 1, fan_out)):
                arrays.append(rng.uniform(-bound, bound, size=shape).astype(np.float32))
        arrays[-2], arrays[-1] = np.zeros_like(arrays[-2]), bias[:, None].astype(np.float32)
        size = min(self.batch_size, n)
        with _one_thread():
            layers = [torch.from_numpy(array).requires_grad_() for array in arrays]
            inputs, wanted = torch.from_numpy(X), torch.from_numpy(targets.astype(np.float32))
            optimiser = torch.optim.Adam(layers, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)
            for _ in range(self.epochs):
                order = torch.from_numpy(rng.permutation(n))
                for start in range(0, n - size + 1, size):
                    batch = order[start : start + size]
                    optimiser.zero_grad()
                    loss(_forward(layers, inputs[batch]), wanted[batch].transpose(0, 1)).backward()  # type: ignore[no-untyped-call]
                    optimiser.step()
            return [layer.detach().numpy() for layer in layers]

    def _outputs(self, queries: Side) -> Floats:
        """Raw outputs. [n, M, outputs]."""
        import torch

        X = queries.X
        with _one_thread(), torch.no_grad():
            layers = [torch.from_numpy(layer) for layer in self.layers_]
            parts = [
                _forward(layers, torch.from_numpy(X[start : start + BLOCK])).transpose(0, 1).double().numpy()
                for start in range(0, len(X), BLOCK)
            ]
        return np.concatenate(parts)


def _forward(layers: list[torch.Tensor], inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of all networks. [M, batch, outputs]."""
    weights, biases = layers[::2], layers[1::2]
    # The inputs are everybody's: one wide product instead of one for each network.
    n_models, fan_in, fan_out = weights[0].shape
    wide = inputs @ weights[0].transpose(0, 1).reshape(fan_in, n_models * fan_out)
    hidden = wide.view(-1, n_models, fan_out).transpose(0, 1) + biases[0]
    for weight, bias in zip(weights[1:], biases[1:], strict=True):
        hidden = bias.baddbmm(hidden.relu(), weight)
    return hidden


def _squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the observed cells, summed over models, scores and costs."""
    observed = ~targets.isnan()
    errors = (outputs - targets.nan_to_num()).square() * observed
    return (errors.sum(dim=1) / observed.sum(dim=1).clamp(min=1)).sum()


def _cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the softmax over models with soft labels, mean over the batch."""
    return -(outputs.log_softmax(dim=0) * targets).sum(dim=0).mean()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in another number of threads have other bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
