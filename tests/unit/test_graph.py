from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.errors import RouterError
from workers.routers import neighbours, surroundings
from workers.routers.base import FitJob, mean_outcomes
from workers.routers.graph import Graph
from workers.routers.labels import spread_labels
from workers.routers.surroundings import around, around_each_other
from workers.sides import hidden, subset

SETTINGS = {"k": 4, "hidden": 16, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.001, "alpha": 2.0}
EPOCHS = 3


def general_conv(width, weights, layer):
    """torch_geometric's layer with one member's weights."""
    from torch_geometric.nn import GeneralConv

    conv = GeneralConv(width, width, in_edge_channels=3, aggr="mean", bias=False)
    conv.lin_msg.weight.data = weights[f"message{layer}"].T.clone()
    conv.lin_edge.weight.data = weights[f"edge{layer}"].T.clone()
    return conv


def ego_edges(k, m, edges):
    """Edges of one ego-graph, both ways: query 0, neighbours 1 to k, then models.

    Args:
        k: Neighbours.
        m: Models.
        edges: Of the neighbours to the models. [k, m, 3]
    """
    pairs, features = [], []
    for j in range(k):
        pairs.append((0, 1 + j))
        features.append([0.0, 0.0, 0.0])
    for model in range(m):
        pairs.append((0, 1 + k + model))
        features.append([0.0, 0.0, 0.0])
    for j, model in itertools.product(range(k), range(m)):
        pairs.append((1 + j, 1 + k + model))
        features.append(list(edges[j, model]))
    index = torch.tensor(pairs).T
    features = torch.tensor(np.array(features), dtype=torch.float32)
    return torch.cat([index, index.flip(0)], dim=1), torch.cat([features, features])


class Reference(torch.nn.Module):
    """The router's network, on torch_geometric's graphs and layers."""

    def __init__(self, weights, m):
        super().__init__()
        one = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        width = one["models"].shape[1]
        self.queries = torch.nn.Parameter(one["queries"])
        self.models = torch.nn.Parameter(one["models"])
        self.convs = torch.nn.ModuleList(general_conv(width, one, layer) for layer in (1, 2))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(width, momentum=1.0) for _ in range(2))
        self.first = torch.nn.Linear(2 * width, width)
        self.first.weight.data = torch.cat([one["pair_query"], one["pair_model"]]).T.clone()
        self.first.bias.data = one["pair_bias"][0]
        self.last = torch.nn.Parameter(one["outputs"])
        self.bias = torch.nn.Parameter(one["bias"][0, : m * self.last.shape[1]].view(m, -1).clone())
        self.m = m

    def forward(self, X, neighbours, edges):
        """Outputs [b, M, outputs] of embeddings [b, d], neighbours' embeddings [b, k, d] and edges [b, k, M, 3]."""
        from torch_geometric.data import Batch, Data

        k = neighbours.shape[1]
        graphs = []
        for x, near, of_near in zip(X, neighbours, edges, strict=True):
            nodes = torch.cat([torch.from_numpy(np.vstack([x[None], near])) @ self.queries, self.models])
            index, features = ego_edges(k, self.m, of_near)
            graphs.append(Data(x=nodes, edge_index=index, edge_attr=features))
        batch = Batch.from_data_list(graphs)
        states = self.convs[0](batch.x, batch.edge_index, batch.edge_attr)
        states = self.norms[0](states).relu()
        states = self.convs[1](states, batch.edge_index, batch.edge_attr)
        states = states.view(len(X), 1 + k + self.m, -1)
        read = torch.cat([states[:, :1], states[:, 1 + k :]], dim=1)
        read = self.norms[1](read.flatten(0, 1)).relu().view(len(X), 1 + self.m, -1)
        pairs = torch.cat([read[:, :1].expand(-1, self.m, -1), read[:, 1:]], dim=2)
        return self.first(pairs).relu() @ self.last + self.bias


def standardised(side):
    """Targets [n, M, 2] and edge features [n, M, 3]."""
    both = np.stack([side.scores, side.costs], axis=2)
    mean, sd = np.nanmean(both, axis=0), np.nanstd(both, axis=0)
    targets = (both - mean) / sd
    edges = np.concatenate([np.nan_to_num(targets), ~np.isnan(side.scores)[..., None]], axis=2)
    return targets.astype(np.float32), edges.astype(np.float32), mean, sd


def nearest_foreign(train, k):
    """Brute force: the k most similar queries of other groups."""
    found = []
    for i in range(train.n):
        similarity = train.X @ train.X[i]
        similarity[train.groups == train.groups[i]] = -np.inf
        found.append(np.argsort(-similarity, kind="stable")[:k])
    return np.array(found)


def trained_reference(train, start, price):
    """Torch's own training of the reference from a job's first weights and stream, and BatchNorm set by all queries."""
    targets, edges, *_ = standardised(train)
    index = nearest_foreign(train, SETTINGS["k"])
    labels = None if price is None else torch.from_numpy(spread_labels(train.scores, train.costs, price)).float()
    net = Reference(start.weights_, len(train.models))
    adam = torch.optim.Adam(net.parameters(), lr=0.01, weight_decay=0.001)
    stream = np.random.default_rng(4)
    Graph(**SETTINGS, epochs=0).network(train, price, stream)
    for _ in range(EPOCHS):
        order = stream.permutation(train.n)
        for begin in range(0, train.n - 15, 16):
            some = order[begin : begin + 16]
            adam.zero_grad()
            outputs = net(train.X[some], train.X[index[some]], edges[index[some]])
            if labels is not None:
                loss = torch.nn.functional.cross_entropy(outputs[..., 0], labels[some])
            else:
                target = torch.from_numpy(targets[some])
                # Models one by one, over the queries of the batch that tried them.
                tried = [~target[:, model, 0].isnan() for model in range(target.shape[1])]
                by_output = sum(
                    ((outputs[rows, model] - target[rows, model]) ** 2).mean(dim=0)
                    for model, rows in enumerate(tried)
                    if rows.any()
                )
                loss = by_output[0] + SETTINGS["alpha"] * by_output[1]
            loss.backward()
            adam.step()
    with torch.no_grad():
        net(train.X, train.X[index], edges[index])
    return net.eval(), edges


def fit(train, price, **params):
    router = Graph(**{**SETTINGS, **params})
    rng = np.random.default_rng(4)
    return router.fit(train, rng) if price is None else router.fit_selector(train, price, rng)


@pytest.mark.parametrize("price", [None, 0.5])
def test_agrees_with_torch_geometrics_layers_trained_by_torch(random_sides, price):
    train, queries = random_sides(n_train=50)
    ours = fit(train, price, epochs=EPOCHS)
    net, edges = trained_reference(train, fit(train, price, epochs=0), price)
    index = np.argsort(-(queries.X @ train.X.T), axis=1, kind="stable")[:, : SETTINGS["k"]]
    with torch.no_grad():
        theirs = net(queries.X, train.X[index], edges[index]).numpy()
    assert ours.outputs(queries) == pytest.approx(theirs, abs=2e-4)
    assert np.abs(theirs - theirs.mean(axis=0)).max() > 0.05
    if price is None:
        _, _, mean, sd = standardised(train)
        predicted = ours.predict(queries)
        assert predicted.scores == pytest.approx(theirs[..., 0] * sd[:, 0] + mean[:, 0], abs=2e-4)
        assert predicted.costs == pytest.approx(theirs[..., 1] * sd[:, 1] + mean[:, 1], abs=2e-4)


@pytest.mark.parametrize(("k", "m"), [(3, 2), (1, 1), (5, 4), (0, 3)])
def test_layer_by_layer_it_is_general_conv_for_every_member(k, m):
    from workers.ego_graphs import Ego, Nodes, to_models, to_neighbours, to_queries

    members, b, width = 3, 2, 16
    torch.manual_seed(0)
    weights = {
        f"{name}{layer}": torch.randn(members, rows, width)
        for name, rows in (("message", width), ("edge", 3))
        for layer in (1, 2)
    }
    edges = torch.randn(members, b, k, m, 3)
    ego = Ego(torch.zeros(members, b, 1), torch.zeros(members, b, k, 1), edges.sum(dim=3), edges.sum(dim=2))
    nodes = Nodes(*(torch.randn(members, b, *count, width) for count in ((), (k,), (m,))))
    for layer in (1, 2):
        found = (
            to_queries(weights, layer, nodes),
            to_neighbours(weights, layer, nodes, ego),
            to_models(weights, layer, nodes, ego),
        )
        for member, i in itertools.product(range(members), range(b)):
            conv = general_conv(width, {name: array[member] for name, array in weights.items()}, layer)
            index, features = ego_edges(k, m, edges[member, i].numpy())
            x = torch.cat([nodes.queries[member, i][None], nodes.neighbours[member, i], nodes.models[member, i]])
            theirs = conv(x, index, features).detach().numpy()
            ours = np.vstack([part[member, i].reshape(-1, width).numpy() for part in found])
            assert ours == pytest.approx(theirs, abs=1e-4)


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = fit(train, None, epochs=0).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)


def test_without_an_epoch_the_selector_names_the_most_frequent_label(random_sides):
    train, queries = random_sides()
    shares = spread_labels(train.scores, train.costs, 0.5).sum(axis=0)
    assert (fit(train, 0.5, epochs=0).select(queries) == shares.argmax()).all()


@pytest.mark.parametrize("price", [None, 0.5])
def test_models_in_another_order_get_the_same_predictions(random_sides, price):
    train, queries = random_sides()
    order = np.array([2, 0, 3, 1])
    turned = replace(train, scores=train.scores[:, order], costs=train.costs[:, order])
    one, other = (fit(side, price, epochs=2).outputs(queries) for side in (train, turned))
    assert other == pytest.approx(one[:, order], abs=1e-4)


def test_neighbours_are_of_other_groups(random_sides):
    train, _ = random_sides(n_train=40)
    train = replace(train, groups=np.arange(40) // 3)
    assert (around_each_other(train, 7) == nearest_foreign(train, 7)).all()
    # The largest group has 3 of the 40.
    assert around_each_other(train, 100).shape == (40, 37)
    assert (around_each_other(train, 37) == nearest_foreign(train, 37)).all()
    assert around_each_other(replace(train, groups=np.zeros(40, dtype=np.int64)), 5).shape == (40, 0)


def test_a_training_side_of_one_group_trains_without_neighbours(random_sides):
    train, queries = random_sides(n_train=40)
    router = fit(replace(train, groups=np.zeros(40, dtype=np.int64)), None, epochs=2)
    predicted = router.predict(queries).scores
    assert router.k_ == 0 and np.isfinite(predicted).all() and np.ptp(predicted, axis=0).max() > 0


def test_more_neighbours_than_training_queries_are_cut(random_sides):
    train, queries = random_sides(n_train=30)
    one, other = (fit(train, None, k=k, epochs=2).predict(queries).scores for k in (29, 5000))
    assert (one == other).all()


def test_one_search_serves_all_jobs_of_a_pair_of_sides(random_sides, monkeypatch):
    searched = []

    def watched(searches):
        searched.extend((id(search.train), id(search.queries), search.k) for search in searches)
        return neighbours.nearest(searches)

    monkeypatch.setattr(surroundings, "nearest", watched)
    train, queries = random_sides()
    jobs = [
        FitJob(router=Graph(**{**SETTINGS, **params}), train=train, queries=queries, rng=np.random.default_rng(0))
        for params in ({"epochs": 0}, {"epochs": 2}, {"k": 9, "epochs": 1}, {"learning_rate": 0.1, "epochs": 1})
    ]
    found = list(Graph.predict_many(jobs))
    assert searched == [(id(train), id(train), 10), (id(train), id(queries), 9)]
    assert all(each.fit_seconds > 0 and each.route_seconds > 0 for each in found)


def test_a_wider_search_holds_the_narrower(random_sides):
    train, queries = random_sides()
    wide = around(train, queries, 20)
    assert (around(train, queries, 5) == wide[:, :5]).all()
    assert (around(train, queries, 30)[:, :20] == wide).all()


@pytest.mark.parametrize("n_models", [1, 11])
def test_many_neighbours_and_other_widths_change_no_bit_in_company(make_side, n_models):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 10))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    side = make_side(X, rng.integers(0, 2, size=(160, n_models)), rng.random((160, n_models)))
    jobs = []
    for split in range(6):
        order = np.random.default_rng(split).permutation(160)
        train, queries = subset(side, np.sort(order[: 120 - split])), hidden(subset(side, np.sort(order[130:])))
        jobs.append((train, queries, split))

    def predicted(some):
        router = {"k": 33, "hidden": 20, "epochs": 2, "batch_size": 32}
        asked = [
            FitJob(router=Graph(**router), train=train, queries=queries, rng=np.random.default_rng(split))
            for train, queries, split in some
        ]
        return [fitted.prediction.scores.tobytes() for fitted in Graph.predict_many(asked)]

    assert predicted(jobs) == [predicted([job])[0] for job in jobs]


def test_units_beyond_the_width_stay_at_zero(random_sides):
    train, _ = random_sides()
    weights = fit(train, None, hidden=9, epochs=3).weights_
    for name in ("queries", "models", "message1", "message2", "edge1", "pair_query", "pair_bias", "shift1", "shift2"):
        assert weights[name].shape[1] == 16 and not weights[name][:, 9:].any() and weights[name][:, :9].any(), name
    for name in ("message1", "message2", "pair_query", "pair_model", "outputs"):
        assert not weights[name][9:].any(), name


def test_it_learns_what_neighbours_show(make_side):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    scores = np.column_stack([X[:, 0] * X[:, 1] > 0, X[:, 0] * X[:, 1] < 0]).astype(float)
    side = make_side(X, scores, np.ones((300, 2)))
    train, test = subset(side, np.arange(200)), subset(side, np.arange(200, 300))
    predicted = Graph(k=10, epochs=20).fit(train, rng).predict(hidden(test)).scores
    assert (predicted.argmax(axis=1) == test.scores.argmax(axis=1)).mean() > 0.9


def test_without_torch_geometric_it_says_what_to_install(random_sides, monkeypatch):
    train, queries = random_sides()
    router = fit(train, None, epochs=0)
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    for ask in (
        lambda: Graph().check(n_train=80),
        lambda: fit(train, None, epochs=0),
        lambda: router.predict(queries),
    ):
        with pytest.raises(RouterError, match=r"roadtest\[graph\]"):
            ask()


@pytest.mark.parametrize("bad", [{"k": 0}, {"hidden": 0}, {"alpha": 0}, {"batch_size": 20}, {"epochs": -1}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        Graph(**bad)


def test_candidates_hold_the_default_and_the_blind_limit():
    drawn = Graph.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(0))
    assert len(drawn) == 20 and len({repr(config) for config in drawn}) == 20
    assert drawn[0] == {**{key: Graph().params()[key] for key in Graph.tunables}, "epochs": Graph.most_epochs}
    assert Graph.stages(drawn[0])[0] == 0 and {config["alpha"] for config in drawn} == {0.1, 1.0, 10.0}
