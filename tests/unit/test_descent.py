from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.descent import Descent, Rates

SHAPES = {"weight": (5, 7), "bias": (1, 7), "scale": (3,)}
RATES = [
    Rates(learning_rate=0.01, weight_decay=0.1, decoupled=False),
    Rates(learning_rate=0.003, weight_decay=0.0, decoupled=False),
    Rates(learning_rate=0.02, weight_decay=0.05, decoupled=True),
]


def numbers(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def torchs(start, rates):
    """A public optimiser and its parameters."""
    parameters = {name: torch.nn.Parameter(torch.from_numpy(array.copy())) for name, array in start.items()}
    optimiser = torch.optim.AdamW if rates.decoupled else torch.optim.Adam
    settings = {"lr": rates.learning_rate, "weight_decay": rates.weight_decay, "fused": True}
    return parameters, optimiser(parameters.values(), **settings)


def test_every_member_moves_as_torchs_own_optimiser_would_move_it():
    starts = [numbers(seed) for seed in range(3)]
    descent = Descent(starts, RATES, lanes=16, device=torch.device("cpu"))
    alone = [torchs(start, rates) for start, rates in zip(starts, RATES, strict=True)]
    members = [0, 1, 2]
    for step in range(6):
        if step == 3:
            descent.keep([0, 2])
            members = [0, 2]
        for place, member in enumerate(members):
            parameters, optimiser = alone[member]
            for name, array in numbers(100 * step + member).items():
                descent.gradients[name][place].copy_(torch.from_numpy(array))
                parameters[name].grad = torch.from_numpy(array)
            optimiser.step()
        descent.step()
        for place, member in enumerate(members):
            for name, found in descent.copy(place).items():
                assert found == pytest.approx(alone[member][0][name].detach().numpy(), rel=1e-6, abs=1e-8)


def test_parameters_begin_at_a_cache_line():
    descent = Descent([numbers(0), numbers(1)], RATES[:2], lanes=16, device=torch.device("cpu"))
    assert {weight[member].data_ptr() % 64 for weight in descent.weights.values() for member in (0, 1)} == {0}
