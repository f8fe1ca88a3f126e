from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder, load_encoders
from orchestrator.enlist import unit_row
from orchestrator.errors import PlanError, SweepError
from orchestrator.explain import REASONS, explain
from orchestrator.keys import canonical_json, digest, unit_key
from orchestrator.plan import Plan, PlannedUnit, plan_sweep
from orchestrator.queue import State
from orchestrator.shards import context_name
from orchestrator.sweep import Sweep
from tests.tiny import tiny_benchmark
from workers.benchmarks.base import Benchmark, Model
from workers.encoders.base import make_encoder
from workers.errors import EncoderError, RouterError
from workers.routers.base import routers
from workers.routers.knn import KNN
from workers.splits import split_benchmark

N = 50
GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text(encoding="utf-8"))


def benchmark(*, name: str = "b", flip: bool = False, **facts: Any) -> Benchmark:
    """50 queries of which every fifth repeats the prompt before it: 40 groups, 28 of them train."""
    rng = np.random.default_rng(1)
    S = (rng.random((N, 3)) < 0.5).astype(float)
    if flip:
        S[7, 1] = 1 - S[7, 1]
    built: dict[str, Any] = {
        "name": name,
        "suite": "suite",
        "queries": [f"q{i:02d}" for i in range(N)],
        "prompts": [f"prompt {i - (i % 5 == 4)}" for i in range(N)],
        "tasks": ["odd" if i % 2 else "even" for i in range(N)],
        "models": [Model(name=name) for name in ("a", "b", "c")],
        "S": S,
        "C": rng.random((N, 3)),
    }
    return Benchmark.build(**{**built, **facts})


def make_plan(*, found: Benchmark | None = None, shown: str = "b", **keys: Any) -> Plan:
    sweep = Sweep.from_dict(
        {
            "name": "s",
            "benchmarks": [shown],
            "encoders": ["hash-ngrams"],
            "routers": [{"name": "knn@3", "use": "knn", "k": 3}],
            "seeds": 2,
            **keys,
        }
    )
    found = found or benchmark(name=shown)
    evaluated = EvaluatedBenchmark(name=shown, task=None, benchmark=found, source=found)
    encoders = [NamedEncoder(name=e.name, entry=e, encoder=make_encoder(e.target, e.params)) for e in sweep.encoders]
    return plan_sweep(sweep, [evaluated], encoders)


def evaluates(plan: Plan) -> list[PlannedUnit]:
    return [unit for unit in plan.units if unit.kind == "evaluate"]


def keys_of(plan: Plan) -> list[str]:
    return [unit.key for unit in plan.units]


KNN3 = {"name": "knn@3", "use": "knn", "k": 3}
UNCHANGED: dict[str, Callable[[], Plan]] = {
    "sweep's name": lambda: make_plan(name="other"),
    "benchmark's display name": lambda: make_plan(shown="other"),
    "router's display name": lambda: make_plan(routers=[{**KNN3, "name": "neighbours"}]),
    "encoder's display name": lambda: make_plan(encoders=[{"name": "ngrams", "use": "hash-ngrams"}]),
    "a default written out": lambda: make_plan(routers=[{**KNN3, "similarity": "cosine", "weights": "uniform"}]),
    "a number as float": lambda: make_plan(train_sizes=[1]),
    "margin and reference": lambda: make_plan(margin=2.5, reference="knn@3"),
    "resources": lambda: make_plan(resources={"evaluate": {"num_cpus": 2, "memory": 10**9}}),
    "the budget of a tuning that is not done": lambda: make_plan(protocol={"tuning_budget": 7}),
    "order of queries and models": lambda: make_plan(found=_shuffled()),
    "licence and prices": lambda: make_plan(
        found=benchmark(meta={"licence": "x"}, models=[Model(name=n, family="f", price_in=1.0) for n in "abc"])
    ),
}
CHANGED: dict[str, Callable[[], Plan]] = {
    "one outcome": lambda: make_plan(found=benchmark(flip=True)),
    "a model's name": lambda: make_plan(found=benchmark(models=[Model(name=n) for n in "abd"])),
    "a task": lambda: make_plan(found=benchmark(tasks=["one"] * N)),
    "groups": lambda: make_plan(found=benchmark(prompts=[f"prompt {i - (i % 5 == 3)}" for i in range(N)])),
    "suite": lambda: make_plan(found=benchmark(suite="another")),
    "a parameter": lambda: make_plan(routers=[{**KNN3, "k": 4}]),
    "another parameter": lambda: make_plan(routers=[{**KNN3, "weights": "distance"}]),
    "tuning": lambda: make_plan(routers=[{"name": "knn@3", "use": "knn"}]),
    "root seed": lambda: make_plan(root_seed=1),
    "train size": lambda: make_plan(train_sizes=[0.5]),
    "formulation": lambda: make_plan(formulation="selection"),
    "lambda": lambda: make_plan(protocol={"lambda": "grid"}),
    "cost normaliser": lambda: make_plan(protocol={"cost_normalizer": "max_observed"}),
    "left end": lambda: make_plan(protocol={"left": "flat"}),
    "bootstrap": lambda: make_plan(protocol={"bootstrap": 10}),
    "encoder's parameter": lambda: make_plan(encoders=[{"name": "hash-ngrams", "dim": 128}]),
}


def _shuffled() -> Benchmark:
    plain, order = benchmark(), np.random.default_rng(2).permutation(N)
    return benchmark(
        queries=[plain.queries[i] for i in order],
        prompts=[f"prompt {i - (i % 5 == 4)}" for i in order],
        tasks=[plain.tasks[i] for i in order],
        models=[plain.models[j] for j in (2, 0, 1)],
        S=plain.S[order][:, [2, 0, 1]],
        C=plain.C[order][:, [2, 0, 1]],
    )


@pytest.mark.parametrize("change", UNCHANGED)
def test_keys_stay(change: str) -> None:
    assert keys_of(UNCHANGED[change]()) == keys_of(make_plan())


@pytest.mark.parametrize("change", CHANGED)
def test_keys_change(change: str) -> None:
    before = {unit.key for unit in evaluates(make_plan())}
    assert before.isdisjoint(unit.key for unit in evaluates(CHANGED[change]()))


def test_a_router_of_another_version_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {unit.key for unit in evaluates(make_plan())}
    monkeypatch.setattr(KNN, "version", "next")
    assert before.isdisjoint(unit.key for unit in evaluates(make_plan()))


def test_more_splits_add_keys_and_keep_the_old_ones() -> None:
    assert set(keys_of(make_plan())) < set(keys_of(make_plan(seeds=3)))


def test_specs_have_the_fields_of_the_published_ones() -> None:
    published = {case["name"]: case["spec"] for case in GOLDEN}
    plan = make_plan()
    for unit in plan.units:
        assert unit.spec.keys() == published[unit.kind].keys()
        for part in ("router", "protocol", "versions", "embedding"):
            if unit.kind == "evaluate":
                assert unit.spec[part].keys() == published["evaluate"][part].keys()
    measured = [
        unit for unit in make_plan(study={"kind": "locality", "doses": [0.5, 1.0]}).units if unit.kind == "measure"
    ]
    assert [unit.spec.keys() for unit in measured] == [published["measure"].keys()]
    assert measured[0].spec["measure"] == published["measure"]["measure"]  # the version too: raise both


def test_config_is_what_splits_share() -> None:
    plan = make_plan(routers=[KNN3, {**KNN3, "name": "other", "k": 4}])
    configs = [unit.config for unit in evaluates(plan)]
    assert configs[0] == configs[1] != configs[2] == configs[3]


def everything(**keys: Any) -> Plan:
    """A plan with every kind of group, the first of two slices, and splits that are skipped."""
    routers = ["zero-router", {**KNN3, "twin": True}, {"name": "knn@9", "use": "knn", "k": 9}, "linear"]
    found = benchmark(queries=[f"q{i:03d}" for i in range(600)], **_many(600))
    sizes = {"train_sizes": [0.01, 1.0], "formulation": ["utility", "selection"], "seeds": 3}
    return make_plan(found=found, routers=routers, **{**sizes, **keys})


def _many(n: int) -> dict[str, Any]:
    rng = np.random.default_rng(4)
    facts = {"prompts": [f"prompt {i}" for i in range(n)], "tasks": ["one"] * n}
    return {**facts, "S": rng.random((n, 3)), "C": rng.random((n, 3))}


def test_every_unit_has_the_key_and_text_of_its_specification() -> None:
    kinds = set()
    for unit in everything().units:
        free = "slice" if unit.kind == "embed" else "split"
        assert unit.key == unit_key(unit.spec)
        assert unit.spec_json == canonical_json(unit.spec)
        assert unit.config == digest({**unit.spec, free: None})
        kinds.add((unit.kind, unit.twin_of is not None, unit.skipped is not None))
    assert len(kinds) == 4, "the case needs slices, routers, twins and skipped units"


def test_units_are_a_sequence() -> None:
    units = everything().units
    inorder = list(units)
    assert [unit.spec.get("slice") for unit in inorder[:2]] == [[0, 512], [512, 600]]
    shown = [(unit.key, unit.router, unit.skipped) for unit in inorder]
    assert len(units) == len(inorder) == 2 + 2 * 2 * 3 * 5
    for order in (range(len(units)), np.random.default_rng(0).permutation(len(units)).tolist()):
        assert [(units[i].key, units[i].router, units[i].skipped) for i in order] == [shown[i] for i in order]
    assert units[-1].key == shown[-1][0]
    assert [unit.key for unit in units[1:9:2]] == [key for key, *_ in shown[1:9:2]]
    for outside in (len(units), -len(units) - 1):
        with pytest.raises(IndexError, match="62 units"):
            units[outside]


def test_twins_follow_their_router() -> None:
    units = evaluates(make_plan(routers=[{**KNN3, "twin": True}]))
    shown = [(u.router, u.twin_of, u.unit.twin, u.unit.split) for u in units]  # type: ignore[union-attr]
    assert shown == [
        ("knn@3", None, False, 0),
        ("knn@3", None, False, 1),
        ("knn@3 blind twin", "knn@3", True, 0),
        ("knn@3 blind twin", "knn@3", True, 1),
    ]
    assert len({unit.key for unit in units}) == 4


@pytest.mark.parametrize("router", ["zero-router", "oracle"])
def test_a_twin_of_what_reads_no_embedding_is_refused(router: str) -> None:
    with pytest.raises(RouterError, match="twin"):
        make_plan(routers=[{"name": router, "twin": True}])


def test_baselines_stand_once_whatever_the_encoders() -> None:
    encoders = ["hash-ngrams", {"name": "narrow", "use": "hash-ngrams", "dim": 64}]
    plan = make_plan(encoders=encoders, routers=["zero-router", KNN3])
    shown = [(unit.router, unit.encoder) for unit in evaluates(plan)]
    assert shown == [
        ("zero-router", None), ("zero-router", None),
        ("knn@3", "hash-ngrams"), ("knn@3", "hash-ngrams"), ("knn@3", "narrow"), ("knn@3", "narrow"),
    ]  # fmt: skip
    assert [unit.embedding is None for unit in evaluates(plan)] == [True, True, False, False, False, False]


def test_without_a_router_that_reads_them_nothing_is_embedded() -> None:
    assert [unit.kind for unit in make_plan(routers=["zero-router"]).units] == ["evaluate", "evaluate"]


def test_two_names_of_one_encoder_share_slices() -> None:
    plan = make_plan(encoders=["hash-ngrams", {"name": "again", "use": "hash-ngrams"}])
    assert [unit.kind for unit in plan.units].count("embed") == 1


def test_formulations() -> None:
    plan = make_plan(formulation=["utility", "selection"], routers=[KNN3, "zero-hindsight"])
    shown = {(unit.router, unit.spec["formulation"]) for unit in evaluates(plan)}
    known = routers()["zero-hindsight"].formulations
    assert shown == {("knn@3", "utility"), ("knn@3", "selection"), *(("zero-hindsight", form) for form in known)}


def test_a_router_without_the_sweeps_formulation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KNN, "formulations", ("utility",))
    with pytest.raises(PlanError, match="'knn@3' has no selection formulation"):
        make_plan(formulation="selection")


def test_train_sizes_are_nested_and_k_above_a_smaller_one_is_skipped() -> None:
    found = benchmark()
    plan = make_plan(found=found, seeds=6, train_sizes=[0.25, 1.0], routers=[{**KNN3, "k": 9}])
    sizes = [len(split_benchmark(found, seed, train_size=0.25).train) for seed in range(6)]
    assert min(sizes) < 9 <= max(sizes), "the case needs splits on both sides of k"
    small = [unit for unit in evaluates(plan) if unit.spec["train_size"] == 0.25]
    assert [unit.skipped is not None for unit in small] == [size < 9 for size in sizes]
    assert all(
        "9" in unit.skipped and str(size) in unit.skipped
        for unit, size in zip(small, sizes, strict=True)
        if unit.skipped
    )
    assert all(unit.skipped is None for unit in evaluates(plan) if unit.spec["train_size"] == 1.0)


def test_what_is_skipped_does_not_depend_on_how_many_splits_are_asked_for() -> None:
    many = make_plan(seeds=6, train_sizes=[0.25, 1.0], routers=[{**KNN3, "k": 9}])
    few = make_plan(seeds=1, train_sizes=[0.25, 1.0], routers=[{**KNN3, "k": 9}])
    skipped = {unit.key: unit.skipped for unit in many.units}
    assert {unit.key: unit.skipped for unit in few.units}.items() <= skipped.items()


def test_k_above_the_training_side_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"benchmark 'b', router 'knn@3'.*200"):
        make_plan(routers=[{**KNN3, "k": 200}])


def test_task_zero_is_skipped_without_tasks() -> None:
    plan = make_plan(found=benchmark(tasks=None), routers=["task-zero"])
    assert [unit.skipped for unit in plan.units] == ["needs task", "needs task"]


@pytest.mark.parametrize(
    ("keys", "error", "words"),
    [
        ({"routers": ["knnn"]}, RouterError, "did you mean 'knn'?"),
        ({"routers": [{"name": "knn", "kk": 3}]}, RouterError, "no parameter 'kk'; did you mean 'k'?"),
        ({"routers": [{"name": "knn", "k": 0}]}, RouterError, "k must be"),
        ({"encoders": []}, PlanError, "'knn@3' needs an embedding"),
        ({"encoders": ["hash-ngram"]}, EncoderError, "did you mean 'hash-ngrams'?"),
        ({"encoders": [{"name": "hash-ngrams", "dims": 3}]}, EncoderError, "did you mean 'dim'?"),
        ({"routers": [{"name": "oracle", "tune": True}]}, RouterError, "nothing is left to tune"),
        ({"routers": ["oracle", "zero-router"], "reference": "oracle"}, PlanError, "reads test outcomes"),
    ],
)
def test_what_cannot_be_planned_is_named(keys: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as found:
        make_plan(**keys)
    assert words in str(found.value)


def test_tune_decides_whether_a_router_is_tuned() -> None:
    plan = make_plan(
        routers=[
            "linear",
            {"name": "fixed", "use": "linear", "penalty": 2, "tune": False},
            {"name": "ridge", "use": "linear", "penalty": 2},
            {"name": "near", "use": "knn", "k": 3, "tune": True},
        ]
    )
    tuned = {unit.router: (unit.unit.tuned, unit.spec["router"]["tuning"] is not None) for unit in evaluates(plan)}  # type: ignore[union-attr]
    assert tuned == {
        "linear": (True, True),
        "fixed": (False, False),
        "ridge": (False, False),
        "near": (True, True),
    }
    with pytest.raises(RouterError, match="k is not given"):
        make_plan(routers=[{"name": "knn", "tune": False}])
    with pytest.raises(RouterError, match="nothing is left to tune"):
        make_plan(routers=[{"name": "ridge", "use": "linear", "penalty": 2, "tune": True}])


def test_a_tuned_selector_says_what_it_is_tuned_by_and_ignores_what_cannot_move_it() -> None:
    criteria = {
        unit.spec["formulation"]: unit.spec["router"]["tuning"]["criterion"]
        for unit in evaluates(make_plan(routers=["linear"], formulation=["utility", "selection"]))
    }
    assert criteria == {"utility": "auc_path", "selection": "utility_mean"}
    one, other = (
        [unit.key for unit in evaluates(make_plan(formulation=[formulation], protocol={"bootstrap": n}))]
        for formulation, n in (("selection", 0), ("selection", 10))
    )
    assert one == other
    one, other = ([unit.key for unit in evaluates(make_plan(protocol={"bootstrap": n}))] for n in (0, 10))
    assert not set(one) & set(other)


def test_too_many_unobserved_cells_are_refused_where_an_area_is_asked_for() -> None:
    found = benchmark()
    S, C = found.S.copy(), found.C.copy()
    S[: found.n_queries * 3 // 4, 0] = C[: found.n_queries * 3 // 4, 0] = np.nan
    sparse = replace(found, S=S, C=C)
    with pytest.raises(PlanError, match=r"every model observed.*smaller pool"):
        make_plan(found=sparse)
    assert make_plan(found=sparse, formulation=["selection"]).units


def test_too_few_queries_to_split() -> None:
    found = benchmark().restrict(n_queries=1)
    with pytest.raises(PlanError, match="too small to be split"):
        make_plan(found=found, seeds=20)


def test_two_benchmarks_of_one_name_are_refused() -> None:
    found = benchmark()
    sweep = Sweep.from_dict({"name": "s", "benchmarks": ["b"], "routers": ["zero-router"], "seeds": 1})
    both = [EvaluatedBenchmark(name="b/x", task=task, benchmark=found, source=found) for task in ("x", None)]
    with pytest.raises(PlanError, match="two are named 'b/x'"):
        plan_sweep(sweep, both, [])


def planned(skipped: str | None = None) -> PlannedUnit:
    return replace(evaluates(make_plan())[0], skipped=skipped)


@pytest.mark.parametrize("state", State)
def test_every_state_is_explained(state: State) -> None:
    row = {"state": state.value, "reason": None, "stale": False}
    assert explain(planned(), row) == (state.value, REASONS[state.value])
    assert explain(planned(), {**row, "reason": "because"}) == (state.value, "because")


def test_what_no_row_says_is_explained() -> None:
    stale = {"state": "running", "reason": None, "stale": True}
    assert explain(planned(), None) == ("new", REASONS["new"])
    assert explain(planned(), stale) == ("stale lease", REASONS["stale lease"])
    assert explain(planned("k > n"), None) == ("skipped", "k > n")


def test_row_of_a_unit() -> None:
    plan = make_plan(routers=[{**KNN3, "twin": True}, "oracle", "zero-router"])
    rows = {unit.router: unit_row(unit, {"benchmark_id": 1, "encoder_id": 2, "split_id": 3}) for unit in plan.units}
    assert rows["knn@3"]["params"] == '{"k":3,"similarity":"cosine","tau":0.1,"weights":"uniform"}'
    assert (rows["knn@3 blind twin"]["twin"], rows["knn@3"]["twin"]) == (True, False)
    assert (rows["oracle"]["privileged"], rows["zero-router"]["query_blind"]) == (True, True)
    assert {row["state"] for row in rows.values()} == {"ready"}
    assert rows[None]["kind"] == "embed"


def test_reference_is_one_of_the_sweeps_routers() -> None:
    with pytest.raises(SweepError, match="reference"):
        make_plan(reference="nobody")


def test_data_that_a_router_reads_are_part_of_its_key_and_of_no_others():
    benchmark = tiny_benchmark()
    responses = np.array([[f"{i} {j}" for j in range(2)] for i in range(12)], dtype=object)
    offered = replace(benchmark, extras={"response": responses})
    other = replace(benchmark, extras={"response": responses[::-1].copy()})

    def planned(found):
        sweep = Sweep.from_dict(
            {"name": "s", "benchmarks": ["null"], "encoders": ["hash-ngrams"], "routers": ["zero-router", "fusion"]}
        )
        evaluated = EvaluatedBenchmark(name="null", task=None, benchmark=found, source=found)
        units = plan_sweep(sweep, [evaluated], load_encoders(sweep.encoders)).units
        return {unit.router: unit for unit in units if unit.router}

    without, with_, with_other = planned(benchmark), planned(offered), planned(other)
    assert without["fusion"].skipped == "needs response" and not without["fusion"].data
    assert with_["fusion"].skipped is None and with_["fusion"].data == ("response",)
    assert len({plan["fusion"].key for plan in (without, with_, with_other)}) == 3
    assert len({plan["zero-router"].key for plan in (without, with_, with_other)}) == 1
    assert context_name(with_["fusion"]) != context_name(with_["zero-router"])
