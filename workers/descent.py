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
        #: Parameters, Adam's two moments and gradients. [B, length of a row]
        self.values = torch.tensor(
            rows, device=device
        )  # a copy: torch's memory begins at a cache line, numpy's does not
        self.firsts, self.seconds = torch.zeros_like(self.values), torch.zeros_like(self.values)
        self.slopes = torch.zeros_like(self.values)
        self.steps = torch.zeros((), device=device)
        self._view()

    def _view(self) -> None:
        """The same memory as losses see it, by name [B, ...], and as each member's Adam moves it, row by row."""
        self.weights = {name: view.requires_grad_() for name, view in self._named(self.values).items()}
        #: Where gradients are to be written before a step. By name, [B, ...]
        self.gradients = self._named(self.slopes)
        self.moved = [
            tuple([row[place] for _, place in self.places.values()] for row in rows)
            for rows in zip(self.values, self.slopes, self.firsts, self.seconds, strict=True)
        ]

    def _named(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: rows[:, place].view(-1, *shape) for name, (shape, place) in self.places.items()}

    def step(self) -> None:
        """Move every member's parameters against its gradients."""
        self.steps += 1
        with torch.no_grad():
            for rates, (values, slopes, firsts, seconds) in zip(self.rates, self.moved, strict=True):
                # What torch.optim.Adam(fused=True) calls; its own bookkeeping takes as long as a small network's step.
                fused = torch._fused_adamw_ if rates.decoupled else torch._fused_adam_
                fused(
                    values,
                    slopes,
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
        self.slopes = torch.zeros_like(self.values)
        self.rates = [self.rates[member] for member in kept]
        self._view()

    def copy(self, member: int) -> dict[str, npt.NDArray[np.float32]]:
        """A copy of one member's parameters."""
        return {name: weight[member].detach().cpu().numpy().copy() for name, weight in self.weights.items()}
