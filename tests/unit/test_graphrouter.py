from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from workers.errors import RouterError
from workers.routers.base import mean_outcomes
from workers.routers.graphrouter import GraphRouter
from workers.routers.labels import spread_labels
from workers.sides import hidden, subset

SETTINGS = {"hidden": 16, "mask": 0.4, "batch_size": 16, "learning_rate": 0.01, "weight_decay": 0.1, "alpha": 2.0}
EPOCHS = 3


def rng():
    return np.random.default_rng(4)


def fit(train, price, **params):
    router = GraphRouter(**{**SETTINGS, **params})
    return router.fit(train, rng()) if price is None else router.fit_selector(train, price, rng())


def general_conv(weights, layer):
    """torch_geometric's layer with one member's weights."""
    from torch_geometric.nn import GeneralConv

    message, edge = weights[f"message{layer}"], weights[f"edge{layer}"]
    conv = GeneralConv(len(message), len(message), in_edge_channels=len(edge), aggr="mean", bias=False)
    conv.lin_msg.weight.data = message.T.clone()
    conv.lin_edge.weight.data = edge.T.clone()
    return conv


def task_graph(b, m, edges, visible, tasks):
    """Edges, one by one: tasks to queries (features 1), then queries to models. Nodes: queries, models, tasks."""
    pairs = [(b + m + int(task), query) for query, task in enumerate(tasks)]
    features = [[1.0, 1.0, 1.0]] * len(pairs)
    for query in range(b):
        for model in range(m):
            if visible[query, model]:
                pairs.append((query, b + model))
                features.append(list(edges[query, model]))
    return torch.tensor(pairs).T, torch.tensor(np.array(features), dtype=torch.float32)


class Reference(torch.nn.Module):
    """The router's network, on torch_geometric's layers and one graph."""

    def __init__(self, weights):
        super().__init__()
        one = {name: torch.from_numpy(array.copy()) for name, array in weights.items()}
        self.queries, self.models, self.tasks, self.features, self.features_bias, self.last = (
            torch.nn.Parameter(one[name])
            for name in ("queries", "models", "tasks", "features", "features_bias", "outputs")
        )
        self.convs = torch.nn.ModuleList(general_conv(one, layer) for layer in (1, 2))
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm1d(16, momentum=1.0) for _ in range(2))
        m = len(self.models)
        self.bias = torch.nn.Parameter(one["bias"][0, : m * len(self.last)].view(m, -1).clone())

    def forward(self, X, edges, visible, tasks):
        """Outputs [b, M, outputs] of embeddings [b, d], edges [b, M, 3], which of them are visible, and tasks [b]."""
        b, m = visible.shape
        index, features = task_graph(b, m, edges, visible, tasks)
        features = (features @ self.features + self.features_bias).relu()
        nodes = torch.cat([torch.from_numpy(X) @ self.queries, self.models, self.tasks])
        nodes = self.norms[0](self.convs[0](nodes, index, features)).relu()
        nodes = self.norms[1](self.convs[1](nodes, index, features))
        ends = nodes[:b, None] * nodes[None, b : b + m]
        return ends @ self.last.T + self.bias


def standardised(side):
    """Targets [n, M, 2] and edge features [n, M, 3]."""
    both = np.stack([side.scores, side.costs], axis=2)
    targets = (both - np.nanmean(both, axis=0)) / np.nanstd(both, axis=0)
    edges = np.concatenate([np.nan_to_num(targets), ~np.isnan(side.scores)[..., None]], axis=2)
    return targets.astype(np.float32), edges.astype(np.float32)


def trained_reference(train, start, price):
    """Torch's training of the reference from a job's first weights and stream, then the whole training side's pass."""
    targets, edges = standardised(train)
    observed = ~np.isnan(train.scores)
    names = sorted(set(train.tasks))
    tasks = np.array([names.index(task) for task in train.tasks])
    net, stream = Reference(start.weights_), rng()
    GraphRouter(**SETTINGS).network(train, price, stream)
    adam = torch.optim.AdamW(net.parameters(), lr=0.01, weight_decay=0.1)
    m = observed.shape[1]
    for _ in range(EPOCHS):
        order = stream.permutation(train.n)
        for begin in range(0, train.n - 15, 16):
            some = order[begin : begin + 16]
            masked = stream.random((16, m)) < SETTINGS["mask"]
            asked = masked & observed[some]
            adam.zero_grad()
            outputs = net(train.X[some], edges[some], observed[some] & ~masked, tasks[some])
            if price is None:
                loss = 0.0
                for model in range(m):
                    rows = asked[:, model]
                    if rows.any():
                        errors = (outputs[rows, model] - torch.from_numpy(targets[some][rows, model])) ** 2
                        loss = loss + errors[:, 0].mean() + SETTINGS["alpha"] * errors[:, 1].mean()
            else:
                labels = torch.from_numpy(spread_labels(train.scores, train.costs, price)[some]).float()
                loss = torch.nn.functional.binary_cross_entropy_with_logits(outputs[..., 0][asked], labels[asked])
            loss.backward()
            adam.step()
    with torch.no_grad():
        net(train.X, edges, observed, tasks)
    return net.eval(), edges, observed, tasks


@pytest.mark.parametrize("price", [None, 0.5])
def test_agrees_with_torch_geometrics_layers_trained_by_torch(random_sides, price):
    train, queries = random_sides(n_train=50)
    ours = fit(train, price, epochs=EPOCHS)
    net, edges, observed, tasks = trained_reference(train, fit(train, price, epochs=0), price)
    # Routed queries join the whole training side's graph by their task alone.
    more = np.array([sorted(set(train.tasks)).index(task) for task in queries.tasks])
    with torch.no_grad():
        theirs = net(
            np.vstack([train.X, queries.X]),
            np.concatenate([edges, np.zeros((queries.n, 4, 3), dtype=np.float32)]),
            np.vstack([observed, np.zeros((queries.n, 4), dtype=bool)]),
            np.concatenate([tasks, more]),
        )[train.n :].numpy()
    assert ours.outputs(queries) == pytest.approx(theirs, abs=2e-4)
    assert np.abs(theirs - theirs.mean(axis=0)).max() > 0.05


@pytest.mark.parametrize(("b", "m", "n_tasks"), [(6, 3, 2), (4, 1, 1)])
def test_a_layer_is_general_conv_for_every_member(b, m, n_tasks):
    from workers.task_graphs import receiving, updated

    members, n = 3, b + m + n_tasks
    torch.manual_seed(0)
    weights = {
        "features": torch.randn(members, 3, 16),
        "features_bias": torch.randn(members, 1, 16),
        **{f"{name}{layer}": torch.randn(members, 16, 16) for name in ("message", "edge") for layer in (1, 2)},
    }
    edges, visible = torch.randn(members, b, m, 3), torch.rand(members, b, m) < 0.6
    tasks, nodes = torch.randint(n_tasks, (members, b)), torch.randn(members, n, 16)
    receive = receiving(weights, n, edges, visible, tasks)
    for layer in (1, 2):
        ours = updated(weights, layer, nodes, receive)
        for member in range(members):
            own = {name: array[member] for name, array in weights.items()}
            index, features = task_graph(b, m, edges[member].numpy(), visible[member], tasks[member])
            features = (features @ own["features"] + own["features_bias"]).relu()
            theirs = general_conv(own, layer)(nodes[member], index, features).detach().numpy()
            assert ours[member].numpy() == pytest.approx(theirs, abs=1e-4)


def test_without_an_epoch_it_is_the_zero_router(random_sides):
    train, queries = random_sides()
    prediction = fit(train, None, epochs=0).predict(queries)
    scores, costs = mean_outcomes(train)
    assert prediction.scores == pytest.approx(np.tile(scores, (queries.n, 1)), abs=1e-12)
    assert prediction.costs == pytest.approx(np.tile(costs, (queries.n, 1)), abs=1e-12)


def test_without_an_epoch_the_selector_names_the_most_frequent_label(random_sides):
    train, queries = random_sides()
    labels = spread_labels(train.scores, train.costs, 0.5)
    router = fit(train, 0.5, epochs=0)
    assert (router.select(queries) == labels.sum(axis=0).argmax()).all()
    chances = 1 / (1 + np.exp(-router.outputs(queries)[0, :, 0]))
    assert chances == pytest.approx(labels.mean(axis=0), abs=1e-6)


def test_a_task_that_training_lacks_is_the_mean_training_querys(random_sides):
    train, queries = random_sides(n_train=50)
    router = fit(train, None, epochs=3)
    counts = np.array([train.tasks.count(task) for task in sorted(set(train.tasks))])
    for states in router.tasks_:
        assert states[-1] == pytest.approx(counts @ states[:-1] / 50, abs=1e-5)
    elsewhere = router.predict(replace(queries, tasks=("elsewhere",) * queries.n))
    assert np.isfinite(elsewhere.scores).all()
    alone = fit(replace(train, tasks=("one",) * 50), None, epochs=3)
    seen, unseen = (alone.predict(replace(queries, tasks=(task,) * queries.n)) for task in ("one", "other"))
    assert unseen.scores == pytest.approx(seen.scores, abs=1e-5)


def test_it_learns_which_model_suits_a_task(make_side):
    stream = np.random.default_rng(0)
    X = stream.normal(size=(400, 8))
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    task = stream.integers(0, 2, size=400)
    scores = np.column_stack([task == 0, task == 1]) * (stream.random((400, 2)) < 0.9)
    side = make_side(X, scores, np.ones((400, 2)), tuple(f"t{t}" for t in task))
    train, test = subset(side, np.arange(300)), subset(side, np.arange(300, 400))
    predicted = GraphRouter(epochs=60, learning_rate=3e-3, weight_decay=0.1).fit(train, stream).predict(hidden(test))
    assert (predicted.scores.argmax(axis=1) == task[300:]).mean() > 0.95


def test_the_share_of_hidden_edges_is_as_asked(random_sides):
    train, _ = random_sides()
    router = fit(train, None, epochs=0, mask=0.3)
    drawn = router.draws(np.random.default_rng(0), 4000)["hidden"]
    assert drawn.shape == (4000, 4) and drawn.mean() == pytest.approx(0.3, abs=0.015)


def test_units_beyond_the_width_stay_at_zero(random_sides):
    train, _ = random_sides()
    weights = fit(train, None, hidden=9, epochs=3).weights_
    for name in ("queries", "models", "tasks", "message1", "message2", "edge1", "outputs", "shift1", "shift2"):
        assert weights[name].shape[1] == 16 and not weights[name][:, 9:].any() and weights[name][:, :9].any(), name
    for name in ("features", "features_bias"):
        assert not weights[name][:, 3:].any() and weights[name][:, :3].any(), name


def test_without_torch_geometric_it_says_what_to_install(random_sides, monkeypatch):
    train, queries = random_sides()
    router = fit(train, None, epochs=0)
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    for ask in (
        lambda: GraphRouter().check(n_train=80),
        lambda: fit(train, None, epochs=0),
        lambda: router.predict(queries),
    ):
        with pytest.raises(RouterError, match=r"roadtest\[graph\]"):
            ask()


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"mask": 0}, {"mask": 1.5}, {"alpha": 0}, {"batch_size": 20}])
def test_bad_parameters_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        GraphRouter(**bad)


def test_candidates_hold_the_default_and_the_blind_limit():
    drawn = GraphRouter.candidates(n_train=100, budget=20, fixed={}, rng=np.random.default_rng(0))
    default = {key: GraphRouter().params()[key] for key in GraphRouter.tunables}
    assert len(drawn) == 20 and drawn[0] == {**default, "epochs": GraphRouter.most_epochs}
    assert GraphRouter.stages(drawn[0])[0] == 0
    assert all(1e-2 <= config["weight_decay"] <= 10 for config in drawn)
