"""What does one small network say of all models at once? A hidden layer that they share, an output for each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from workers.benchmarks.base import Floats
from workers.training import Floats32, Tensors, affine, padded, uniform

if TYPE_CHECKING:
    import torch


def initial(dim: int, hidden: int, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
    """Weights of a ReLU layer and of linear outputs that start as their bias; both layers as wide as a multiple of 16.

    Args:
        dim: Width of the inputs.
        hidden: Width of the hidden layer.
        bias: First value of every output. [M]
        rng: The job's stream.
    """
    bound, more, empty = 1.0 / math.sqrt(dim), padded(hidden) - hidden, padded(len(bias)) - len(bias)
    weight, shift = uniform(rng, bound, dim, hidden), uniform(rng, bound, 1, hidden)
    return {
        "hidden_weight": np.pad(weight, ((0, 0), (0, more))),
        "hidden_bias": np.pad(shift, ((0, 0), (0, more))),
        "weight": np.zeros((hidden + more, len(bias) + empty), dtype=np.float32),
        "bias": np.pad(bias, (0, empty))[None].astype(np.float32),
    }


def forward(weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
    """Outputs of inputs [B, b, d]; those beyond the models mean nothing. [B, b, padded(M)]."""
    hidden = affine(inputs, weights["hidden_weight"], weights["hidden_bias"]).relu()
    return affine(hidden, weights["weight"], weights["bias"])
