from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.attention import Support, _heads, _joined, _self_attention, _weights, attend_both, attend_examples
from workers.routers.attention import Attn, DoubleAttn
from workers.routers.base import mean_outcomes
from workers.routers.labels import spread_labels

ROUTERS = [Attn, DoubleAttn]


def rng():
    return np.random.default_rng(3)


def drawn(cls, *, members=2, b=3, k=5, m=4, dim=6, seed=0):
    """A support set and weights that are nowhere zero."""
    stream = np.random.default_rng(seed)
    first = cls(k=k).first_weights(dim, m, 2, stream)
    weights = {
        name: torch.from_numpy(stream.normal(scale=0.1, size=(members, *array.shape)).astype(np.float32))
        for name, array in first.items()
    }
    observed = stream.random((members, b, k, m, 1)) < 0.8
    outcomes = np.concatenate([stream.normal(size=(members, b, k, m, 2)) * observed, observed], axis=-1)
    arrays = (stream.normal(size=(members, b, dim)), stream.normal(size=(members, b, k, dim)), outcomes)
    return weights, Support(*(torch.from_numpy(array.astype(np.float32)) for array in arrays))


def states(cls, weights, support):
    if cls is Attn:
        return attend_examples(weights, support, heads=4)
    return attend_both(weights, support, heads=4, rounds=DoubleAttn.ROUNDS)


@pytest.mark.parametrize("cls", ROUTERS)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 7), m=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_support_set_is_irrelevant(cls, seed, k, m):
    weights, support = drawn(cls, k=k, m=m, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(k))
    moved = Support(support.queries, support.examples[:, :, order], support.outcomes[:, :, order])
    assert torch.allclose(states(cls, weights, support), states(cls, weights, moved), rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 10_000), m=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_double_attention_is_equivariant_to_the_order_of_models(seed, m):
    weights, support = drawn(DoubleAttn, m=m, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(m))
    per_model = weights["outcomes"].view(2, m, 3, -1)  # three rows for each model
    turned = {**weights, "models": weights["models"][:, order], "outcomes": per_model[:, order].flatten(1, 2)}
    moved = support._replace(outcomes=support.outcomes[:, :, :, order])
    straight = states(DoubleAttn, weights, support)
    assert torch.allclose(straight[:, :, order], states(DoubleAttn, turned, moved), rtol=1e-3, atol=1e-3)


@given(seed=st.integers(0, 10_000), m=st.integers(2, 6))
@settings(max_examples=15, deadline=None)
def test_attention_is_equivariant_to_the_order_of_models_and_their_weights(seed, m):
    weights, support = drawn(Attn, m=m, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(m))
    per_model = weights["outcomes"].view(2, m, 3, -1)  # three rows for each model
    columns = weights["outputs"][..., : 2 * m].view(2, -1, m, 2)  # two columns for each model
    turned = {
        **weights,
        "outcomes": per_model[:, order].flatten(1, 2),
        "outputs": columns[:, :, order].flatten(2),
    }
    moved = support._replace(outcomes=support.outcomes[:, :, :, order])
    straight = Attn().forward(weights, support, 2).view(2, 3, m, 2)
    assert torch.allclose(
        straight[:, :, order], Attn().forward(turned, moved, 2).view(2, 3, m, 2), rtol=1e-3, atol=1e-3
    )


def test_attention_is_torchs_own():
    weights, _ = drawn(Attn, b=2, k=6)
    tokens = torch.randn(2, 2, 7, 128, generator=torch.Generator().manual_seed(0))
    normed = torch.nn.functional.layer_norm(tokens, (128,))
    for member in range(2):
        q, k, v = (normed[member] @ weights["examples_qkv"][member]).chunk(3, dim=-1)
        parts = [part.view(2, 7, 4, 32).transpose(1, 2) for part in (q, k, v)]
        theirs = torch.nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(2, 7, 128)
        theirs = tokens[member] + theirs @ weights["examples_out"][member]
        ours = _self_attention(weights, "examples", tokens, heads=4)[member]
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_double_attention_by_a_plain_loop():
    """Every pair of an example and a model has a key and a value of its own: the sum of what both say."""
    weights, support = drawn(DoubleAttn, members=1, b=1, k=3, m=2)
    w = {name: value[0] for name, value in weights.items()}

    def norm(x):
        return torch.nn.functional.layer_norm(x, x.shape[-1:])

    tokens = support.examples[0, 0] @ w["example"] + support.outcomes[0, 0].reshape(3, 6) @ w["outcomes"]
    tokens = torch.cat([w["null"], tokens])
    tokens = _self_attention(weights, "examples", tokens[None, None], heads=4)[0, 0]
    state = support.queries[0] @ w["query"] + w["models"]
    own = torch.cat([torch.zeros(1, 2, 3), support.outcomes[0, 0]])  # [T, M, 3]
    for i in range(2):
        q = norm(state) @ w[f"cross_q{i}"]
        key, value = (norm(tokens) @ w[f"cross_kv{i}"]).chunk(2, dim=-1)
        found = torch.zeros(2, 128)
        for model in range(2):
            keys = key + own[:, model] @ w[f"own_k{i}"]
            values = value + own[:, model] @ w[f"own_v{i}"]
            for head in range(4):
                part = slice(32 * head, 32 * head + 32)
                chances = (keys[:, part] @ q[model, part] / 32**0.5).softmax(dim=0)
                found[model, part] = chances @ values[:, part]
        state = state + found @ w[f"cross_out{i}"]
        state = _self_attention(weights, f"models{i}", state[None, None], heads=4)[0, 0]
    assert torch.allclose(states(DoubleAttn, weights, support)[0, 0], state, atol=1e-4)


def test_heads_are_split_and_joined():
    tokens = torch.randn(2, 3, 5, 8)
    assert torch.equal(_joined(_heads(tokens, 4)), tokens)
    assert _weights(_heads(tokens, 2), _heads(tokens, 2)).sum(dim=-1) == pytest.approx(torch.ones(2, 3, 2, 5))


@pytest.mark.parametrize("cls", ROUTERS)
def test_without_an_epoch_it_is_the_zero_router(cls, random_sides):
    train, queries = random_sides()
    prediction = cls(k=10, epochs=0).fit(train, rng()).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-6)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-6)


@pytest.mark.parametrize("cls", ROUTERS)
def test_no_training_query_supports_itself_or_its_copies(cls, random_sides):
    train, _ = random_sides()
    copies = replace(train, groups=np.arange(train.n) // 2)
    router = cls(k=7)
    neighbours = router.network(copies, None, rng()).tables["neighbours"]
    assert neighbours.shape == (train.n, 7)
    assert (copies.groups[neighbours] != copies.groups[:, None]).all()


@pytest.mark.parametrize("cls", ROUTERS)
def test_k_is_cut_to_the_training_side(cls, random_sides):
    train, queries = random_sides(n_train=20)
    router = cls(k=500, epochs=1).fit(train, rng())
    assert router.k_ == 19
    assert np.isfinite(router.predict(queries).scores).all()


@pytest.mark.parametrize("cls", ROUTERS)
@pytest.mark.parametrize("n", [1, 40])
def test_without_a_foreign_neighbour_the_support_set_is_empty(cls, n, random_sides):
    train, queries = random_sides(n_train=n)
    train = replace(train, groups=np.zeros(n, dtype=np.int64))
    router = cls(k=10, epochs=2).fit(train, rng())
    assert router.k_ == 0
    prediction = router.predict(queries)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()
    chosen = cls(k=10, epochs=2).fit_selector(train, 0.5, rng()).select(queries)
    assert chosen.shape == (queries.n,)


@pytest.mark.parametrize("cls", ROUTERS)
def test_a_model_that_was_never_observed_leaves_predictions_finite(cls, random_sides):
    train, queries = random_sides(n_models=3)
    scores, costs = train.scores.copy(), train.costs.copy()
    scores[:, 1] = costs[:, 1] = np.nan
    prediction = cls(k=10, epochs=2).fit(replace(train, scores=scores, costs=costs), rng()).predict(queries)
    assert np.isfinite(prediction.scores).all() and np.isfinite(prediction.costs).all()


@pytest.mark.parametrize("cls", ROUTERS)
def test_one_model_is_predicted_and_chosen(cls, random_sides):
    train, queries = random_sides(n_models=1)
    assert cls(k=10, epochs=2).fit(train, rng()).predict(queries).scores.shape == (queries.n, 1)
    assert not cls(k=10, epochs=2).fit_selector(train, 0.5, rng()).select(queries).any()


@pytest.mark.parametrize("cls", ROUTERS)
def test_without_an_epoch_the_selector_names_the_most_frequent_label(cls, random_sides):
    train, queries = random_sides()
    shares = spread_labels(train.scores, train.costs, 0.5).sum(axis=0)
    chosen = cls(k=10, epochs=0).fit_selector(train, 0.5, rng()).select(queries)
    assert (chosen == shares.argmax()).all()


@pytest.mark.parametrize("cls", ROUTERS)
def test_it_learns_what_the_neighbours_show(cls, make_side):
    stream = rng()
    X = stream.normal(size=(500, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.stack([X[:, 0] > 0, X[:, 0] < 0], axis=1).astype(float)
    side = make_side(X, scores, np.ones((500, 2)))
    predicted = cls(k=10, epochs=12, learning_rate=3e-3).fit(side, rng()).predict(side).scores
    assert ((predicted[:, 0] > predicted[:, 1]) == (scores[:, 0] > 0)).mean() > 0.95


@pytest.mark.parametrize("cls", ROUTERS)
def test_the_selector_learns_too(cls, make_side):
    stream = rng()
    X = stream.normal(size=(500, 4))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.stack([X[:, 0] > 0, X[:, 0] < 0], axis=1).astype(float)
    side = make_side(X, scores, np.ones((500, 2)))
    chosen = cls(k=10, epochs=12, learning_rate=3e-3).fit_selector(side, 0.1, rng()).select(side)
    assert (chosen == scores.argmax(axis=1)).mean() > 0.95
