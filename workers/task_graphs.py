"""What does a graph network make of tasks, queries and models? The network of the router `graphrouter`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from workers.convolution import MeanOverEdges, Statistics, normalised, spread
from workers.routers.forward import shifted
from workers.training import Tensors, affine, over_batch

#: From states of nodes [B, n, H] and the layer's number to what the nodes receive: the means of the sending nodes
#: [B, n, H] and of the features [B, n, E] over their incoming edges.
Receive = Callable[[torch.Tensor, int], Sequence[torch.Tensor]]


def start(weights: Tensors, x: torch.Tensor) -> torch.Tensor:
    """First states of a graph's nodes: queries, then models, then tasks. [B, b + M + T, H].

    Args:
        weights: Weights by name.
        x: Embeddings of the queries. [B, b, d]
    """
    return torch.cat([x @ weights["queries"], weights["models"], weights["tasks"]], dim=1)


def features_of(weights: Tensors, edges: torch.Tensor) -> torch.Tensor:
    """Features of edges through a small layer. [B, e, F] to [B, e, E]."""
    return affine(edges, weights["features"], weights["features_bias"]).relu()


def task_features(weights: Tensors, b: int) -> torch.Tensor:
    """Features of the edges from tasks to `b` queries: all are 1. [B, b, E]."""
    first = weights["features"]
    return features_of(weights, first.new_ones(len(first), b, first.shape[1]))


def receiving(weights: Tensors, n: int, edges: torch.Tensor, visible: torch.Tensor, tasks: torch.Tensor) -> Receive:
    """Message passing in one graph of each member: from tasks to their queries, from queries to models.

    Args:
        weights: Weights by name.
        n: Nodes of a graph.
        edges: Features of the edges from queries to models. [B, b, M, F]
        visible: Which of them messages take. [B, b, M]
        tasks: Each query's task. [B, b]
    """
    members, b, m = visible.shape
    features = features_of(weights, edges.flatten(1, 2)).view(members, b, m, -1)
    member, query, model = visible.nonzero(as_tuple=True)
    # The members' graphs beside each other: node i of member j is number n·j + i.
    first = n * torch.arange(members, device=tasks.device)[:, None]
    queries = first + torch.arange(b, device=tasks.device)
    sender = torch.cat([(first + b + m + tasks).flatten(), n * member + query])
    receiver = torch.cat([queries.flatten(), n * member + b + model])
    edge_index = torch.stack([sender, receiver])
    of_edges = torch.cat([task_features(weights, b).flatten(0, 1), features[visible]])
    mean_over_edges = MeanOverEdges()

    def receive(states: torch.Tensor, layer: int) -> Sequence[torch.Tensor]:
        means = mean_over_edges(states.flatten(0, 1), edge_index, of_edges).view(members, n, -1)
        return torch.split(means, [states.shape[2], of_edges.shape[1]], dim=2)

    return receive


def convolved(
    weights: Tensors,
    nodes: torch.Tensor,
    receive: Receive,
    running: Sequence[Statistics] | None = None,
    *,
    training: bool,
) -> torch.Tensor:
    """States of the nodes after two GeneralConv layers, each with BatchNorm, a ReLU between them. [B, n, H].

    Args:
        weights: Weights by name.
        nodes: First states. [B, n, H]
        receive: What nodes receive.
        running: Statistics of BatchNorm after each layer, see `normalised`.
        training: Whether BatchNorm takes the statistics of these nodes.
    """
    first, second = running or (None, None)
    nodes = normalised(updated(weights, 1, nodes, receive), weights, 1, first, training=training).relu()
    return normalised(updated(weights, 2, nodes, receive), weights, 2, second, training=training)


def updated(weights: Tensors, layer: int, nodes: torch.Tensor, receive: Receive) -> torch.Tensor:
    """A GeneralConv's update of all nodes. [B, n, H]."""
    senders, edges = receive(nodes, layer)
    return nodes + senders @ weights[f"message{layer}"] + edges @ weights[f"edge{layer}"]


def predicted(weights: Tensors, queries: torch.Tensor, models: torch.Tensor) -> torch.Tensor:
    """Edges by weighted products of the states at their ends. [B, b, M, outputs].

    Args:
        weights: Weights by name.
        queries: [B, b, H]
        models: [B, M, H]
    """
    members, m, width = models.shape
    by_output = spread(weights["outputs"].flatten(1), m).view(members, m, -1, width)
    read = (by_output * models[:, :, None]).flatten(1, 2)
    outputs = shifted(queries @ read.transpose(1, 2), weights["bias"])
    return outputs.view(members, queries.shape[1], m, -1)


def binary_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the edges asked for. [B].

    Args:
        logits: [B, b, M]
        labels: Shares of labels. [B, b, M]
        asked: 1 for the edges that count, else 0. [B, b, M]
    """
    losses = binary_cross_entropy_with_logits(logits, labels, weight=asked, reduction="none")
    return over_batch(losses).sum(dim=-1) / over_batch(asked).sum(dim=-1).clamp(min=1)
