from __future__ import annotations

import numpy as np
import pytest
import torch

from workers.descent import Descent, Rates
from workers.perceptrons import Descending, Layer

#: Queries of a call, their width, networks of a member, hidden units, outputs.
N, DIM, NETWORKS, HIDDEN, OUTPUTS = 16, 5, 3, 16, 2
SHAPES = {
    "weight0": (DIM, NETWORKS, HIDDEN),
    "bias0": (NETWORKS, 1, HIDDEN),
    "weight1": (NETWORKS, HIDDEN, HIDDEN),
    "bias1": (NETWORKS, 1, HIDDEN),
    "weight2": (NETWORKS, HIDDEN, OUTPUTS),
    "bias2": (NETWORKS, 1, OUTPUTS),
}


def descent_of(members):
    rng = np.random.default_rng(0)
    starts = [{name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()} for _ in members]
    rates = [Rates(learning_rate=0.05, weight_decay=0.0, decoupled=False) for _ in members]
    return Descent(starts, rates, lanes=16, device=torch.device("cpu"))


def layers(tensors):
    return [Layer(tensors[f"weight{i}"], tensors[f"bias{i}"]) for i in range(3)]


def plain(weights, inputs):
    """Outputs [B, M, b, out], by autograd's own operations."""
    hidden = torch.einsum("bnd,bdmh->bmnh", inputs, weights["weight0"]) + weights["bias0"]
    hidden = hidden.relu() @ weights["weight1"] + weights["bias1"]
    return hidden.relu() @ weights["weight2"] + weights["bias2"]


@pytest.mark.parametrize("members", [[0], [0, 1, 2]])
def test_outputs_and_gradients_agree_with_autograd_while_weights_move(members):
    descent, rng = descent_of(members), torch.Generator().manual_seed(0)
    networks = Descending(layers(descent.weights), layers(descent.gradients), N)
    for _ in range(3):
        inputs = torch.randn(len(members), N, DIM, generator=rng)
        slopes = torch.randn(len(members), NETWORKS, N, OUTPUTS, generator=rng)
        weights = {name: weight.detach().clone().requires_grad_() for name, weight in descent.weights.items()}
        wanted = plain(weights, inputs)
        wanted.backward(slopes)
        with torch.no_grad():
            assert networks.outputs(inputs).numpy() == pytest.approx(wanted.detach().numpy(), rel=1e-4, abs=1e-4)
            networks.backward(inputs, slopes)
        for name, weight in weights.items():
            assert descent.gradients[name].numpy() == pytest.approx(weight.grad.numpy(), rel=1e-3, abs=1e-3), name
        descent.step()
