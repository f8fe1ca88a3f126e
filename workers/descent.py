"""How do the members of a batched model step together? Parameters and Adam's moments, each member's in one row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

#: Adam's, as torch sets them.
BETAS, EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What a member's optimiser may have for itself."""

    learning_rate: float
    weight_decay: float
    #: Whether weight decay is AdamW's and not Adam's.
    decoupled: bool


class Descent:
    """Parameters of like shapes of several members, and an Adam for each of them.

    Every parameter begins at a multiple of `lanes` numbers in its member's row, so that all members' begin at the same
    alignment; and no two members' are neighbours, so that torch's loops run over each member for itself.

    Args:
        parameters: Initial values of each member by name; the same names and shapes for all.
        rates: Of each member.
        lanes: Numbers that all blocks of memory are multiples of.
        device: Where to compute.
    """

    def __init__(
        self,
        parameters: Sequence[Mapping[str, npt.NDArray[np.float32]]],
        rates: Sequence[Rates],
        *,
        lanes: int,
        device: torch.device,
    ) -> None:
        self.rates = list(rates)
        #: Shape and place in the row of every parameter.
        self.places: dict[str, tuple[tuple[int, ...], slice]] = {}
        end = 0
        for name, array in parameters[0].items():
            self.places[name] = (array.shape, slice(end, end + array.size))
            end += array.size + -array.size % lanes
        rows = np.zeros((len(parameters), end), dtype=np.float32)
        for row, arrays in zip(rows, parameters, strict=True):
            for name, (_, place) in self.places.items():
                row[place] = arrays[name].ravel()
        #: Parameters and Adam's two moments. [B, length of a row]
        self.values = torch.from_numpy(rows).to(device)
        self.firsts, self.seconds = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.steps = torch.zeros((), device=device)
        self._view()

    def _view(self) -> None:
        """The same memory as losses see it, by name [B, ...], and as each member's Adam moves it, row by row."""
        self.weights = {
            name: self.values[:, place].view(-1, *shape).requires_grad_()
            for name, (shape, place) in self.places.items()
        }
        self.moved = [
            tuple([row[place] for _, place in self.places.values()] for row in rows)
            for rows in zip(self.values, self.firsts, self.seconds, strict=True)
        ]

    def step(self, gradients: Mapping[str, torch.Tensor]) -> None:
        """Move every member's parameters against its gradients. By name, [B, ...]."""
        self.steps += 1
        with torch.no_grad():
            for i, (rates, (values, firsts, seconds)) in enumerate(zip(self.rates, self.moved, strict=True)):
                # What torch.optim.Adam(fused=True) calls; its own bookkeeping takes as long as a small network's step.
                fused = torch._fused_adamw_ if rates.decoupled else torch._fused_adam_
                fused(
                    values,
                    [
                        gradients[name][i].reshape(-1).contiguous() for name in self.places
                    ],  # the kernel reads no strides
                    firsts,
                    seconds,
                    [],
                    [self.steps] * len(values),
                    amsgrad=False,
                    lr=rates.learning_rate,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    weight_decay=rates.weight_decay,
                    eps=EPSILON,
                    maximize=False,
                )

    def keep(self, members: Sequence[int]) -> None:
        """Go on with these members alone."""
        kept = list(members)
        self.values, self.firsts, self.seconds = self.values[kept], self.firsts[kept], self.seconds[kept]
        self.rates = [self.rates[member] for member in kept]
        self._view()

    def copy(self, member: int) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of one member's parameters."""
        return {name: weight[member].detach().cpu().numpy().copy() for name, weight in self.weights.items()}
