from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from workers import evaluate
from workers.benchmarks.base import Benchmark, Model
from workers.evaluate import run_evaluate
from workers.metrics.summary import FRONTIER_METRICS
from workers.routers.base import Router, resolve_params, router_class
from workers.splits import split_benchmark
from workers.units import OBSERVED_METRICS, PREFERENCES, EvaluateUnit, ProtocolOptions, UnitFailure

OPTIONS = ProtocolOptions(bootstrap=20, tuning_budget=4)


def unit(router, split=0, *, key=None, tuned=False, **settings):
    fields = {
        name: settings.pop(name) for name in ("twin", "formulation", "train_size", "protocol") if name in settings
    }
    cls = router_class(router)
    params = resolve_params(cls, settings)
    if tuned:
        params = {name: value for name, value in params.items() if name not in cls.tunables}
    fields.setdefault("protocol", OPTIONS)
    label = json.dumps([router, split, tuned, settings, {k: str(v) for k, v in fields.items()}])
    return EvaluateUnit(key=key or label, router=router, params=params, tuned=tuned, split=split, **fields)


def every_kind():
    """Every router in every formulation, tuned and fixed, with twins and a nested size."""
    units = []
    for split in (0, 1):
        for formulation in ("utility", "selection"):
            common = {"split": split, "formulation": formulation}
            units += [
                unit(name, **common)
                for name in (
                    *("zero-router", "task-zero", "best-single", "cheapest", "dearest"),
                    *("random", "oracle", "task-oracle", "zero-hindsight"),
                )
            ]
            units += [
                unit("knn", k=10, **common),
                unit("knn", k=10, twin=True, **common),
                unit("knn", k=10, train_size=0.5, **common),
                unit("knn", k=200, similarity="whitened", weights="distance", **common),
                unit("knn", tuned=True, **common),
                unit("knn", tuned=True, twin=True, **common),
                unit("linear", penalty=1.0, **common),
                unit("linear", penalty=1.0, twin=True, **common),
                unit("linear", tuned=True, **common),
                unit("mlp", epochs=2, hidden=10, **common),
            ]
    return units


def deterministic(result):
    """All that may not depend on the company, as text of exact bits."""
    assert not isinstance(result, UnitFailure), result.message + result.traceback
    return json.dumps(
        {
            "sizes": [result.n_train, result.n_validation, result.n_test],
            "metrics": {k: v for k, v in sorted(result.metrics.items()) if k not in OBSERVED_METRICS},
            "chosen": result.chosen,
            "frontier": [[p.cost, p.score, p.price_of_cost, p.on_hull] for p in result.frontier],
            "decisions": {k: v.tolist() for k, v in result.decisions.items()},
            "bootstrap": None if result.bootstrap is None else result.bootstrap.tobytes().hex(),
        }
    )


@pytest.mark.slow
def test_results_do_not_depend_on_the_shard(learnable):
    benchmark, X = learnable
    units = every_kind()
    together = dict(zip((u.key for u in units), map(deterministic, run_evaluate(units, benchmark, X)), strict=True))
    assert len(together) == len(units)
    shuffled = [units[i] for i in np.random.default_rng(1).permutation(len(units))]
    for chunk in (shuffled[:17], shuffled[17:]):
        for u, result in zip(chunk, run_evaluate(chunk, benchmark, X), strict=True):
            assert deterministic(result) == together[u.key], u.key
    for u in units:
        (alone,) = run_evaluate([u], benchmark, X)
        assert deterministic(alone) == together[u.key], u.key


def test_results_come_in_the_order_of_the_units_with_every_metric(learnable):
    benchmark, X = learnable
    units = [unit("knn", k=5), unit("oracle"), unit("knn", 1, k=5), unit("zero-router", formulation="selection")]
    results = run_evaluate(units, benchmark, X)
    assert [result.key for result in results] == [u.key for u in units]
    names = {
        *FRONTIER_METRICS,
        *("utility_low_cost", "utility_balanced", "utility_high_performance", "utility_mean"),
        *("fit_seconds", "route_us_per_query", "router_bytes"),
        *(f"{m}:{p}" for m in ("selection_entropy", "optimal_selection_rate") for p in PREFERENCES),
        *(f"share:{p}:m{j}" for p in PREFERENCES for j in range(4)),
    }
    for result in results:
        assert set(result.metrics) == names
        assert result.chosen is None
        assert result.tuning_seconds is None
    assert [results[3].metrics[name] for name in FRONTIER_METRICS] == [None] * len(FRONTIER_METRICS)
    assert results[3].bootstrap is None
    assert results[0].bootstrap.shape == (20,)


def test_sizes_and_references_are_those_of_the_split(learnable):
    benchmark, _ = learnable
    split = split_benchmark(benchmark, 3)
    oracle, zero = run_evaluate([unit("oracle", 3), unit("zero-router", 3)], benchmark)
    assert (oracle.n_train, oracle.n_validation, oracle.n_test) == (
        len(split.train),
        len(split.validation),
        len(split.test),
    )
    assert oracle.metrics["auc_rel"] == 1.0
    assert zero.metrics["auc_rel"] == 0.0
    assert zero.metrics["oracle_gap_closed"] == 0.0
    # At its price the oracle's choice has the best true utility of each query.
    utility = benchmark.S[split.test] - 0.5 * benchmark.C[split.test] / benchmark.c_ref
    assert oracle.metrics["utility_balanced"] == pytest.approx(100 * utility.max(axis=1).mean())
    random = run_evaluate([unit("random", 3, formulation="selection")], benchmark)[0]
    assert random.metrics["utility_balanced"] == pytest.approx(100 * utility.mean())
    assert random.decisions == {}


def test_ridge_decisions_agree_with_scikit_learn(learnable):
    benchmark, X = learnable
    split = split_benchmark(benchmark, 0)
    (result,) = run_evaluate([unit("linear", penalty=1)], benchmark, X)
    utility = np.empty((len(split.test), 4))
    for model in range(4):
        rows = split.train[~np.isnan(benchmark.S[split.train, model])]
        u = benchmark.S[rows, model] - 0.5 * benchmark.C[rows, model] / benchmark.c_ref
        utility[:, model] = Ridge(alpha=1).fit(X[rows].astype(float), u).predict(X[split.test].astype(float))
    assert result.decisions["balanced"].tolist() == utility.argmax(axis=1).tolist()


def test_max_observed_costs_are_ratios_of_the_dearest_cell(learnable):
    benchmark, _ = learnable
    options = replace(OPTIONS, cost_normalizer="max_observed")
    dearest, cheaper = run_evaluate([unit("dearest"), unit("dearest", protocol=options)], benchmark)
    factor = benchmark.c_ref / np.nanmax(benchmark.C)
    assert cheaper.frontier[0].cost == pytest.approx(dearest.frontier[0].cost * factor)


def test_costless_benchmarks_have_cost_ratio_zero():
    rng = np.random.default_rng(0)
    benchmark = Benchmark.build(
        name="free",
        queries=[f"q{i}" for i in range(50)],
        prompts=[f"p{i}" for i in range(50)],
        models=[Model(name="a"), Model(name="b")],
        S=rng.random((50, 2)),
        C=np.zeros((50, 2)),
    )
    (oracle,) = run_evaluate([unit("oracle")], benchmark)
    test = split_benchmark(benchmark, 0).test
    assert oracle.metrics["auc"] == pytest.approx(100 * benchmark.S[test].max(axis=1).mean())


def test_a_tuned_units_final_fit_is_the_fixed_router_with_the_chosen_parameters(learnable):
    benchmark, X = learnable
    for name in ("knn", "linear"):
        tuned, twin = run_evaluate([unit(name, tuned=True), unit(name, tuned=True, twin=True)], benchmark, X)
        assert tuned.chosen == twin.chosen
        assert tuned.tuning_seconds is not None
        fixed, fixed_twin = run_evaluate(
            [unit(name, **tuned.chosen["params"]), unit(name, twin=True, **tuned.chosen["params"])], benchmark, X
        )
        for one, other in ((tuned, fixed), (twin, fixed_twin)):
            assert deterministic(replace(one, chosen=None)) == deterministic(other)


def test_a_twin_learns_nothing_about_queries(learnable):
    benchmark, X = learnable
    units = [unit("knn", split, k=25, twin=twin) for twin in (False, True) for split in range(8)]
    paths = [result.metrics["auc_path"] for result in run_evaluate(units, benchmark, X)]
    assert np.mean(paths[:8]) > np.mean(paths[8:]) + 3


def test_what_cannot_be_evaluated_fails_alone_as_a_user_error(learnable):
    benchmark, X = learnable
    units = [
        unit("knn", k=5),
        unit("knn", k=10_000),
        unit("oracle", twin=True),
        EvaluateUnit(key="unknown", router="kmn", params={}, split=0, protocol=OPTIONS),
        unit("zero-router", tuned=True),
        unit("linear", penalty=1.0),
    ]
    good, big, twin, unknown, untunable, last = run_evaluate(units, benchmark, X)
    assert good.metrics["auc"] > 0 and last.metrics["auc"] > 0
    for failure, message in (
        (big, "k = 10000 is above"),
        (twin, "no blind twin"),
        (unknown, "did you mean 'knn'"),
        (untunable, "nothing to tune"),
    ):
        assert isinstance(failure, UnitFailure)
        assert failure.kind == "user_error"
        assert message in failure.message
    (missing,) = run_evaluate([unit("knn", k=5)], benchmark)
    assert "needs an embedding" in missing.message


@pytest.mark.parametrize(("error", "kind"), [(ZeroDivisionError("why"), "exception"), (MemoryError(), "out_of_memory")])
def test_a_router_that_breaks_on_one_split_fails_only_there(learnable, monkeypatch, error, kind):
    class Fragile(Router):
        name = "fragile"
        needs_embedding = False

        def __init__(self, *, broken: bool = False) -> None:
            self.broken = broken

        def fit(self, train, rng):
            if self.broken:
                raise error
            return self

        def predict(self, queries):
            return router_class("random")().predict(queries)

    monkeypatch.setattr(evaluate, "router_class", lambda name: Fragile)
    units = [
        EvaluateUnit(key=str(i), router="fragile", params={"broken": i == 1}, split=i, protocol=OPTIONS)
        for i in range(3)
    ]
    first, broken, last = run_evaluate(units, learnable[0])
    assert first.metrics["auc"] > 0 and last.metrics["auc"] > 0
    assert isinstance(broken, UnitFailure)
    assert broken.kind == kind
    assert type(error).__name__ in broken.traceback
    assert broken.message


def test_few_complete_rows_are_refused_and_a_smaller_pool_advised():
    rng = np.random.default_rng(0)
    S = rng.random((100, 3))
    S[:51, 0] = np.nan
    benchmark = Benchmark.build(
        name="holes",
        queries=[f"q{i:03d}" for i in range(100)],
        prompts=[f"p{i}" for i in range(100)],
        models=[Model(name=name) for name in "abc"],
        S=S,
        C=rng.random((100, 3)),
    )
    (failure,) = run_evaluate([unit("zero-router")], benchmark)
    assert failure.kind == "user_error"
    assert "49%" in failure.message and "smaller pool" in failure.message
    (result,) = run_evaluate([unit("zero-router")], benchmark.restrict(models=["b", "c"]))
    assert result.metrics["auc"] > 0


def test_no_resample_when_none_is_asked_for(learnable):
    (result,) = run_evaluate([unit("zero-router", protocol=ProtocolOptions(bootstrap=0))], learnable[0])
    assert result.bootstrap is None
