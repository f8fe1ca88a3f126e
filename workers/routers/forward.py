"""What does a trained network say of many queries? Its forward pass, block by block and on one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.training import Floats32, Tensors, one_thread, padded, repeat

if TYPE_CHECKING:
    import torch

#: Rows of one forward pass: bounds the memory of what lies between the layers.
BLOCK = 1024


def network_outputs(
    forward: Callable[[Tensors, torch.Tensor], torch.Tensor],
    weights: Mapping[str, Floats32],
    X: npt.NDArray[np.float32],
) -> Floats:
    """Outputs of one fitted network. [n, ...].

    Args:
        forward: Outputs [B, b, ...] of weights [B, ...] and embeddings [B, b, d], as training uses it.
        weights: Fitted weights by name.
        X: Embeddings. [n, d]
    """
    import torch

    with one_thread(), torch.no_grad():
        tensors = {name: torch.tensor(array[None]) for name, array in weights.items()}
        blocks = [torch.from_numpy(X[None, start : start + BLOCK]) for start in range(0, max(len(X), 1), BLOCK)]
        return np.concatenate([forward(tensors, block)[0].double().numpy() for block in blocks])


def shifted(outputs: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Outputs plus a bias for each, whatever their number. [B, b, m].

    The bias is as wide as a multiple of 16: the sum that is its gradient has other bits where its columns are not
    aligned.

    Args:
        outputs: [B, b, m]
        bias: As `wide` makes it. [B, 1, padded(m)]
    """
    return outputs + repeat(bias, outputs.shape[1])[..., : outputs.shape[2]]


def wide(bias: Floats) -> Floats32:
    """A bias [m] as `shifted` takes it: filled up with zeros, which stay. [1, padded(m)]."""
    return np.pad(bias, (0, padded(len(bias)) - len(bias)))[None].astype(np.float32)
