"""What has equal bits alone and in company where sums have not? Gradients of biases as products of matrices.

A broadcast sum's order depends on the number of members, and so does that of a product with one row or one column:
BLAS computes a lone one as matrix times vector. So such sums are products with several equal rows of ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

#: Rows of ones, of whose equal sums one is kept: enough that BLAS multiplies matrices.
ROWS = 16


class Affine(torch.autograd.Function):
    """inputs @ weight + bias, with equal leading dimensions: [..., b, in], [..., in, out] and [..., 1, out]."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Outputs [..., b, out]; one kernel adds the bias on the way."""
        ctx.save_for_backward(inputs, weight)
        out = torch.baddbmm(_matrices(bias), _matrices(inputs), _matrices(weight))
        return out.view(*inputs.shape[:-1], weight.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of inputs, weight and bias, where somebody asks."""
        inputs, weight = ctx.saved_tensors
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        grad, leading = _matrices(grads[0]), inputs.shape[:-2]
        return (
            (grad @ _matrices(weight).mT).view(inputs.shape) if of_inputs else None,
            (_matrices(inputs).mT @ grad).view(weight.shape) if of_weight else None,
            sum_of_rows(grad).view(*leading, 1, grad.shape[-1]) if of_bias else None,
        )


class Repeat(torch.autograd.Function):
    """One row of each matrix, `n` times: [..., 1, w] to [..., n, w]."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, n: int) -> torch.Tensor:
        """Equal rows."""
        return rows.expand(*rows.shape[:-2], n, rows.shape[-1]).contiguous()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        """The sum of the rows."""
        (grad,) = grads
        return sum_of_rows(_matrices(grad)).view(*grad.shape[:-2], 1, grad.shape[-1]), None


def sum_of_rows(matrices: torch.Tensor) -> torch.Tensor:
    """Sum over the rows of each matrix, [m, n, w] to [m, 1, w]."""
    return torch.bmm(_ones(*matrices.shape[:2], matrices.dtype, matrices.device), matrices)[:, :1]


@lru_cache(maxsize=16)
def _ones(members: int, n: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    return torch.ones(members, ROWS, n, dtype=dtype, device=device)


def _matrices(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(tensor.shape[:-2].numel(), *tensor.shape[-2:])  # -1 means nothing where there are no rows
