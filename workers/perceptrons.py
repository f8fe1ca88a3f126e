"""What do many ReLU networks on the same inputs say, and where do they want their weights moved? Without autograd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Layer(NamedTuple):
    """One layer of M networks of each of B members."""

    #: Of the first layer [B, in, M, out], so that one wide product serves all networks; of others [B, M, in, out].
    weight: torch.Tensor
    #: [B, M, 1, out]
    bias: torch.Tensor


class Perceptrons:
    """Networks whose weights stay where they are from call to call, and so does all that lies between the layers.

    Views and memory are made once: in every step they would take a tenth of its time. What a call returns is
    overwritten by the next.

    Args:
        layers: One or more.
        n: Inputs of a call.
    """

    def __init__(self, layers: Sequence[Layer], n: int) -> None:
        self.layers = [_flat(layer) for layer in layers]
        #: Flat layers that are copies, and what they are copies of.
        self._copies = _copies(self.layers, layers)
        (members, dim, networks, width), empty = layers[0].weight.shape, layers[0].weight.new_empty
        self._shape = (members, networks, n)
        self._first = layers[0].weight.view(members, dim, -1), layers[0].bias.view(members, 1, -1)
        self._wide = empty(members, n, networks * width)
        self._narrow = self._wide.view(members, n, networks, width).transpose(1, 2)
        #: Hidden states after ReLU, and outputs. [B * M, b, units]
        self.states = [empty(members * networks, n, layer.weight.shape[-1]) for layer in layers]

    def outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs [B, M, b, out] of inputs [B, b, d], which are the same for all networks of a member."""
        import torch

        for copy, original in self._copies:
            copy.copy_(original)
        weight, bias = self._first
        torch.baddbmm(bias, inputs, weight, out=self._wide)
        before = self.states[0]
        before.view(self._narrow.shape).copy_(self._narrow)
        for layer, state in zip(self.layers[1:], self.states[1:], strict=True):
            torch.baddbmm(layer.bias, before.relu_(), layer.weight, out=state)
            before = state
        return before.view(*self._shape, -1)


class Descending(Perceptrons):
    """The same networks, and the gradients of their layers.

    Args:
        layers: One or more.
        gradients: Where to write them; like the layers.
        n: Inputs of a call.
    """

    def __init__(self, layers: Sequence[Layer], gradients: Sequence[Layer], n: int) -> None:
        super().__init__(layers, n)
        self._gradients = [_flat(layer) for layer in gradients]
        self._results = _copies(self._gradients, gradients)
        members = self._shape[0]
        self._of_first = gradients[0].weight.view(*self._first[0].shape), gradients[0].bias.view(members, 1, -1)
        #: Of hidden states, before ReLU.
        self._slopes = [state.new_empty(state.shape) for state in self.states[:-1]]
        self._of_wide = self._wide.new_empty(self._wide.shape)
        self._of_narrow = self._of_wide.view(members, *self._narrow.transpose(1, 2).shape[1:]).transpose(1, 2)

    def backward(self, inputs: torch.Tensor, of_outputs: torch.Tensor) -> None:
        """Write the gradients of the layers, from the inputs of the last call and the gradients of its outputs."""
        import torch

        from workers.products import sum_of_rows

        slopes = of_outputs.flatten(0, 1)
        for i in range(len(self.layers) - 1, 0, -1):
            state, before = self.states[i - 1], self._slopes[i - 1]
            torch.bmm(state.mT, slopes, out=self._gradients[i].weight)
            self._gradients[i].bias.copy_(sum_of_rows(slopes))
            torch.bmm(slopes, self.layers[i].weight.mT, out=before)
            # ReLU's backward; a product with a mask takes ten times as long.
            slopes = torch.ops.aten.threshold_backward.grad_input(before, state, 0, grad_input=before)
        weight, bias = self._of_first
        self._of_narrow.copy_(slopes.view(self._narrow.shape))
        torch.bmm(inputs.mT, self._of_wide, out=weight)
        bias.copy_(sum_of_rows(self._of_wide))
        for result, place in self._results:
            place.copy_(result)


def _flat(layer: Layer) -> Layer:
    """[B * M, in, out] and [B * M, 1, out]; copies where members' memory lies apart."""
    return Layer(layer.weight.flatten(0, 1), layer.bias.flatten(0, 1))


def _copies(flat: Sequence[Layer], layers: Sequence[Layer]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Tensors of layers but the first that share no memory with their originals, shaped like these."""
    return [
        (copy.view(original.shape), original)
        for mine, layer in zip(flat[1:], layers[1:], strict=True)
        for copy, original in zip(mine, layer, strict=True)
        if copy.data_ptr() != original.data_ptr()
    ]
