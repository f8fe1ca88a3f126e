"""What does a graph network make of a query, its neighbours and the models? The network of the router `graph`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from workers.convolution import Statistics, normalised, spread, sum_over_neighbours
from workers.routers.forward import shifted
from workers.training import Tensors, repeat


class Ego(NamedTuple):
    """Ego-graphs of `b` queries of each of `B` members: a query, its k neighbours and the M models.

    Edges run both ways between the query and its neighbours (features zero), the neighbours and the models (what they
    scored and cost, and whether that was observed), and the query and the models (zero: nothing is observed).
    """

    #: Embeddings of the queries. [B, b, d]
    queries: torch.Tensor
    #: Embeddings of their neighbours. [B, b, k, d]
    neighbours: torch.Tensor
    #: Sum of each neighbour's edges to the models. [B, b, k, F]
    own: torch.Tensor
    #: Sum of each model's edges to the neighbours. [B, b, M, F]
    near: torch.Tensor


class Nodes(NamedTuple):
    """States of the nodes of ego-graphs."""

    #: [B, b, H]
    queries: torch.Tensor
    #: [B, b, k, H]
    neighbours: torch.Tensor
    #: [B, b, M, H]
    models: torch.Tensor


def forward(weights: Tensors, ego: Ego, running: Sequence[Statistics] | None = None, *, training: bool) -> torch.Tensor:
    """Outputs for each query and model. [B, b, M, outputs].

    Args:
        weights: Weights by name.
        ego: Ego-graphs.
        running: Statistics of BatchNorm after each layer, see `normalised`.
        training: Whether BatchNorm takes the statistics of these nodes.
    """
    first, second = running or (None, None)
    members, b, k, _ = ego.neighbours.shape
    m = ego.near.shape[2]

    nodes = start(weights, ego)
    moved = (to_queries(weights, 1, nodes), to_neighbours(weights, 1, nodes, ego), to_models(weights, 1, nodes, ego))
    joined = torch.cat([moved[0], moved[1].flatten(1, 2), moved[2].flatten(1, 2)], dim=1)
    joined = normalised(joined, weights, 1, first, training=training).relu()
    queries, neighbours, models = torch.split(joined, [b, b * k, b * m], dim=1)
    width = queries.shape[2]
    nodes = Nodes(queries, neighbours.reshape(members, b, k, width), models.reshape(members, b, m, width))

    # Nobody reads the neighbours after the second layer.
    joined = torch.cat([to_queries(weights, 2, nodes), to_models(weights, 2, nodes, ego).flatten(1, 2)], dim=1)
    joined = normalised(joined, weights, 2, second, training=training).relu()
    queries, models = torch.split(joined, [b, b * m], dim=1)

    pairs = spread(queries @ weights["pair_query"] + repeat(weights["pair_bias"], b), m).flatten(1, 2)
    hidden = (pairs + models @ weights["pair_model"]).relu()
    outputs = shifted((hidden @ weights["outputs"]).view(members, b, -1), weights["bias"])
    return outputs.view(members, b, m, -1)


def start(weights: Tensors, ego: Ego) -> Nodes:
    """Embeddings through a linear layer, and the models' learned vectors."""
    members, b, k, _ = ego.neighbours.shape
    first, models = weights["queries"], weights["models"]
    return Nodes(
        ego.queries @ first,
        (ego.neighbours.flatten(1, 2) @ first).view(members, b, k, first.shape[2]),
        spread(models.flatten(1), b).view(members, b, *models.shape[1:]),
    )


def to_queries(weights: Tensors, layer: int, nodes: Nodes) -> torch.Tensor:
    """A GeneralConv's update of the queries: from neighbours and models, over edges without features. [B, b, H]."""
    k, m = nodes.neighbours.shape[2], nodes.models.shape[2]
    received = (sum_over_neighbours(nodes.neighbours) + _sum_over_models(nodes.models)) / (k + m)
    return nodes.queries + received @ weights[f"message{layer}"]


def to_neighbours(weights: Tensors, layer: int, nodes: Nodes, ego: Ego) -> torch.Tensor:
    """A GeneralConv's update of the neighbours: from the models and their query. [B, b, k, H]."""
    k, m = nodes.neighbours.shape[2], nodes.models.shape[2]
    received = (_sum_over_models(nodes.models) + nodes.queries) / (m + 1)
    edges = (ego.own / (m + 1)).flatten(1, 2) @ weights[f"edge{layer}"]
    return nodes.neighbours + spread(received @ weights[f"message{layer}"], k) + edges.view_as(nodes.neighbours)


def to_models(weights: Tensors, layer: int, nodes: Nodes, ego: Ego) -> torch.Tensor:
    """A GeneralConv's update of the models: from the neighbours and the query. [B, b, M, H]."""
    k, m = nodes.neighbours.shape[2], nodes.models.shape[2]
    received = (sum_over_neighbours(nodes.neighbours) + nodes.queries) / (k + 1)
    edges = (ego.near / (k + 1)).flatten(1, 2) @ weights[f"edge{layer}"]
    return nodes.models + spread(received @ weights[f"message{layer}"], m) + edges.view(nodes.models.shape)


def _sum_over_models(nodes: torch.Tensor) -> torch.Tensor:
    """Sum of each ego-graph's models, as a product with ones. [B, b, M, H] to [B, b, H]."""
    flat = nodes.flatten(0, 1)
    return (nodes.new_ones(len(flat), 1, flat.shape[1]) @ flat).view(*nodes.shape[:2], nodes.shape[3])
