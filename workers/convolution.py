"""How do the graphs of many members convolve at once? What torch_geometric's layers do, with weights of each member.

The only module that imports torch_geometric: routers import it when they train or route. Its `GeneralConv` (one head,
directed messages, mean aggregation, the identity as self-connection where widths are equal, no bias since a BatchNorm
follows) gives a node x + mean(W x_j + U e_j) over its incoming edges. Messages are linear, so that is
x + mean(x_j) W + mean(e_j) U: a product for every node and member instead of one for every edge.
"""

from __future__ import annotations

import warnings

import torch
from torch.nn.functional import batch_norm

from workers.training import Tensors, repeat

with warnings.catch_warnings():
    # On import it scripts parts of itself by what torch has deprecated.
    warnings.filterwarnings("ignore", message="`torch.jit", category=DeprecationWarning)
    from torch_geometric.nn import MessagePassing
    from torch_geometric.nn.aggr import SumAggregation

#: Mean and variance of a BatchNorm, [H] each.
Statistics = tuple[torch.Tensor, torch.Tensor]


class MeanOverEdges(MessagePassing):  # type: ignore[misc]
    """Mean of the sending nodes, and of the edges' features, over every node's incoming edges."""

    def __init__(self) -> None:
        super().__init__(aggr="mean", node_dim=0)

    def forward(self, nodes: torch.Tensor, edge_index: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Both means beside each other, zero where nothing arrives. [n, H + F].

        Args:
            nodes: [n, H]
            edge_index: Sending and receiving node of every edge. [2, e]
            edges: [e, F]
        """
        means: torch.Tensor = self.propagate(edge_index, x=nodes, edges=edges)
        return means

    def message(self, x_j: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """The sending node beside the edge. [e, H + F]."""
        return torch.cat([x_j, edges], dim=-1)


def sum_over_neighbours(nodes: torch.Tensor) -> torch.Tensor:
    """Sum of every query's neighbours, along the edges between them. [B, b, k, H] to [B, b, H]."""
    members, b, k, width = nodes.shape
    receiver = torch.arange(members * b, device=nodes.device).repeat_interleave(k)
    sums: torch.Tensor = SumAggregation()(nodes.reshape(members * b * k, width), receiver, dim_size=members * b)
    return sums.view(members, b, width)


def spread(rows: torch.Tensor, count: int) -> torch.Tensor:
    """Each row `count` times, with a gradient that has equal bits in any company. [..., H] to [..., count, H]."""
    return repeat(rows.unsqueeze(-2), count)


def normalised(
    nodes: torch.Tensor, weights: Tensors, layer: int, running: Statistics | None = None, *, training: bool
) -> torch.Tensor:
    """BatchNorm over each member's nodes. [B, n, H].

    Args:
        nodes: [B, n, H]
        weights: `scale{layer}` and `shift{layer}`, [B, 1, H].
        layer: Which.
        running: Statistics to use; training uses those of the nodes and, if these are given, writes them here.
        training: Whether to use the statistics of the nodes.
    """
    mean, variance = running or (None, None)
    scales, shifts = weights[f"scale{layer}"], weights[f"shift{layer}"]
    return torch.stack(
        [
            batch_norm(x, mean, variance, scale[0], shift[0], training=training, momentum=1.0)
            for x, scale, shift in zip(nodes, scales, shifts, strict=True)
        ]
    )


def blank_statistics(width: int) -> list[Statistics]:
    """Statistics of two layers for `normalised` to write to."""
    return [(torch.zeros(width), torch.ones(width)) for _ in range(2)]
