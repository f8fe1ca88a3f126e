"""What do many ReLU networks on the same inputs say, and where do they want their weights moved? Without autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from workers.products import sum_of_rows


class Layer(NamedTuple):
    """One layer of M networks of each of B members."""

    #: Of the first layer [B, in, M, out], so that one wide product serves all networks; of others [B, M, in, out].
    weight: torch.Tensor
    #: [B, M, 1, out]
    bias: torch.Tensor


def forward(inputs: torch.Tensor, layers: Sequence[Layer]) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Hidden states after ReLU, and outputs; all [B, M, b, units].

    Args:
        inputs: The same for all networks of a member. [B, b, d]
        layers: One or more.
    """
    (members, dim, networks, width), states = layers[0].weight.shape, []
    wide = torch.baddbmm(
        layers[0].bias.view(members, 1, networks * width),
        inputs,
        layers[0].weight.view(members, dim, networks * width),
    )
    layer = wide.view(members, -1, networks, width).transpose(1, 2).contiguous()
    for weight, bias in layers[1:]:
        states.append(layer.relu_())
        layer = torch.baddbmm(bias.flatten(0, 1), layer.flatten(0, 1), weight.flatten(0, 1))
        layer = layer.view(members, networks, -1, weight.shape[-1])
    return states, layer


def backward(
    inputs: torch.Tensor, layers: Sequence[Layer], states: Sequence[torch.Tensor], of_outputs: torch.Tensor
) -> list[Layer]:
    """Gradients of the layers from those of the outputs, [B, M, b, out]; shaped like the layers."""
    members, networks, n, _ = of_outputs.shape
    grad, found = of_outputs.flatten(0, 1), []
    for (weight, bias), state in zip(layers[:0:-1], reversed(states), strict=True):
        state = state.flatten(0, 1)
        found.append(Layer((state.mT @ grad).view(weight.shape), sum_of_rows(grad).view(bias.shape)))
        # ReLU's backward; a product with a mask takes ten times as long.
        grad = torch.ops.aten.threshold_backward(grad @ weight.flatten(0, 1).mT, state, 0)
    weight, bias = layers[0]
    wide = grad.view(members, networks, n, -1).transpose(1, 2).reshape(members, n, -1)
    found.append(Layer((inputs.mT @ wide).view(weight.shape), sum_of_rows(wide).view(bias.shape)))
    return found[::-1]
