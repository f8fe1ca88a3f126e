"""What do networks with attention over a support set compute? The networks of the routers `attn` and `double-attn`."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from workers.training import Tensors, affine, repeat


class Support(NamedTuple):
    """`b` queries of each of `B` members with support sets of k labelled queries; T = k + 1 with the null token."""

    #: Embeddings of the queries. [B, b, d]
    queries: torch.Tensor
    #: Embeddings of the labelled queries. [B, b, k, d]
    examples: torch.Tensor
    #: Standardised score and cost of every example and model, and whether they were observed. [B, b, k, M, 3]
    outcomes: torch.Tensor


def attend_examples(weights: Tensors, support: Support, *, heads: int) -> torch.Tensor:
    """Self-attention over the examples, then attention from the query to them. [B, b, width].

    An example's token is a linear map of its embedding plus one of all its outcomes.
    """
    tokens = _tokens(weights, support)
    tokens = _self_attention(weights, "examples", tokens, heads=heads)
    query = (support.queries @ weights["query"]).unsqueeze(2)
    q = _heads(_linear(_normed(query), weights["cross_q"]), heads)
    k, v = (_heads(part, heads) for part in _linear(_normed(tokens), weights["cross_kv"]).chunk(2, dim=-1))
    found = _joined(_weights(q, k) @ v)
    return (query + _linear(found, weights["cross_out"])).squeeze(2)


def attend_both(weights: Tensors, support: Support, *, heads: int, rounds: int) -> torch.Tensor:
    """Attention that alternates over the examples and over the models. [B, b, M, width].

    Every model has a state, which begins as a linear map of the query plus a learned vector. In each round it attends
    to the examples, whose keys and values are those of the example's token plus linear maps of the model's own outcome
    there; then the models attend to each other.
    """
    tokens = _self_attention(weights, "examples", _tokens(weights, support), heads=heads)
    members, b, _, n_models, _ = support.outcomes.shape
    query = support.queries @ weights["query"]
    vectors = repeat(weights["models"].flatten(1).unsqueeze(1), b).view(members, b, n_models, -1)
    states = repeat(query.unsqueeze(2), n_models) + vectors
    # The null token has no outcome: [B, b, M, T, 3].
    own = torch.cat([support.outcomes.new_zeros(members, b, 1, n_models, 3), support.outcomes], dim=2).transpose(2, 3)
    own = own.contiguous()
    for i in range(rounds):
        q = _heads(_linear(_normed(states), weights[f"cross_q{i}"]), heads)
        k, v = (_heads(part, heads) for part in _linear(_normed(tokens), weights[f"cross_kv{i}"]).chunk(2, dim=-1))
        chances = _weights(q, k, _own_logits(weights[f"own_k{i}"], q, own))
        found = chances @ v + _own_values(weights[f"own_v{i}"], chances, own)
        states = states + _linear(_joined(found), weights[f"cross_out{i}"])
        states = _self_attention(weights, f"models{i}", states, heads=heads)
    return states


def read_out(weights: Tensors, states: torch.Tensor, name: str) -> torch.Tensor:
    """One hidden layer and an output layer that is zero at first. [B, n, outputs].

    Args:
        weights: Weights by name.
        states: [B, n, width]
        name: Of the output layer.
    """
    hidden = affine(_normed(states), weights["hidden"], weights["hidden_bias"]).relu()
    return hidden @ weights[name]


def _tokens(weights: Tensors, support: Support) -> torch.Tensor:
    """The null token, which every query may attend to, then the examples. [B, b, T, width]."""
    members, b, k, _ = support.examples.shape
    # No size is left to be inferred: a support set may be empty.
    outcomes = support.outcomes.flatten(3).flatten(1, 2)
    tokens = support.examples.flatten(1, 2) @ weights["example"] + outcomes @ weights["outcomes"]
    null = repeat(weights["null"], b)
    return torch.cat([null.unsqueeze(2), tokens.view(members, b, k, tokens.shape[-1])], dim=2)


def _self_attention(weights: Tensors, name: str, tokens: torch.Tensor, *, heads: int) -> torch.Tensor:
    """Multi-head attention of tokens to each other, added to them. [B, b, n, width]."""
    q, k, v = (_heads(part, heads) for part in _linear(_normed(tokens), weights[f"{name}_qkv"]).chunk(3, dim=-1))
    return tokens + _linear(_joined(_weights(q, k) @ v), weights[f"{name}_out"])


def _weights(q: torch.Tensor, k: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
    """Softmax of scaled products, with more logits added where there are. [B, b, H, n, T]."""
    logits = q @ k.transpose(-1, -2)
    if more is not None:
        logits = logits + more
    return (logits / math.sqrt(q.shape[-1])).softmax(dim=-1)


def _own_logits(weight: torch.Tensor, q: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """Products of states with what each model's own outcome adds to the keys. [B, b, H, M, T].

    Args:
        weight: [B, 3, width]
        q: [B, b, H, M, hd]
        own: [B, b, M, T, 3]
    """
    members, b, heads, m, hd = q.shape
    # Contiguous whatever the number of members: of one alone the same strides would be taken as they are.
    keys = weight.view(members, 3, heads, hd).permute(0, 2, 3, 1).contiguous()  # [B, H, hd, 3]
    asked = q.transpose(1, 2).reshape(members, heads, b * m, hd) @ keys  # [B, H, b·M, 3]
    asked = asked.view(members, heads, b, m, 3).permute(0, 2, 3, 4, 1)  # [B, b, M, 3, H]
    return (own @ asked).permute(0, 1, 4, 2, 3)


def _own_values(weight: torch.Tensor, chances: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """What each model's own outcomes add to the values, weighted. [B, b, H, M, hd].

    Args:
        weight: [B, 3, width]
        chances: [B, b, H, M, T]
        own: [B, b, M, T, 3]
    """
    members, b, heads, m, _ = chances.shape
    means = (chances.permute(0, 1, 3, 2, 4) @ own).permute(0, 3, 1, 2, 4)  # [B, H, b, M, 3]
    values = weight.view(members, 3, heads, -1).transpose(1, 2).contiguous()  # [B, H, 3, hd]
    return (means.reshape(members, heads, b * m, 3) @ values).view(members, heads, b, m, -1).transpose(1, 2)


def _linear(tokens: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A linear map of every token. [B, b, n, out]."""
    return (tokens.flatten(1, 2) @ weight).view(*tokens.shape[:3], -1)


def _heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    """[B, b, n, width] as [B, b, heads, n, width / heads]."""
    return tokens.view(*tokens.shape[:3], heads, -1).transpose(2, 3)


def _joined(parts: torch.Tensor) -> torch.Tensor:
    """[B, b, heads, n, hd] as [B, b, n, heads * hd]."""
    return parts.transpose(2, 3).flatten(3)


def _normed(tokens: torch.Tensor) -> torch.Tensor:
    """Tokens of mean 0 and variance 1 over their width; nothing is learned."""
    return torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
