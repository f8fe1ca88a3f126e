"""The rule that settles the claim, on every combination of verdicts and on small sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis.across import across_reference
from orchestrator.analysis.comparisons import PREFERENCES
from orchestrator.analysis.roles import LOOKUPS, SEE_ANSWERS, fixed_neighbours, learned_routers, tuned_knn
from orchestrator.analysis.settle import (
    Judged,
    Outcome,
    Settlement,
    _settlement,
    decide_claim,
    kind_of,
    settle,
    settlement_frame,
)
from orchestrator.analysis.verdicts import Kind
from workers.routers.base import routers

SPEC = {
    "routers": [
        {"name": "zero-router"}, {"name": "near", "use": "knn"}, {"name": "near 10", "use": "knn", "k": 10},
        {"name": "linear"}, {"name": "mlp"}, {"name": "elo", "use": "eagle"}, {"name": "chain", "use": "frugalgpt"},
    ]
}  # fmt: skip
#: A spread of mean 0: the corrected standard error over 10 splits is 0.65.
WAVE = np.tile([1.0, -1.0], 5)
#: Wide enough that a difference of 0 shows nothing at a margin of 1.
WIDE = 3 * WAVE
PRINTED = (
    "better", "better within margin", "worse", "worse within margin", "equivalent", "equivalent (vacuous)",
    "equivalent (twin not run)", "not worse", "inconclusive", "inconclusive (hull)", "no verdict: K < 10 splits",
)  # fmt: skip


def sweep(
    levels: Mapping[str, Any],
    *,
    selection: Mapping[str, Mapping[str, Any]] | None = None,
    splits: int = 10,
    twins: bool = True,
    benchmark: str = "b",
    suite: str = "s",
) -> pd.DataFrame:
    """Results of tuned kNN at 80 and others at 80 + level; twins are 10 points below their routers.

    Args:
        levels: Difference to kNN by router, a number or one for each split.
        selection: The same by preference, for selection utility.
        splits: Number of splits.
        twins: Whether kNN and the others have blind twins.
        benchmark: Its name.
        suite: Its suite.
    """
    names = [entry["name"] for entry in SPEC["routers"]]

    def rows(router: str, formulation: str, values: Mapping[str, Any], twin_of: str | None = None) -> pd.DataFrame:
        base = twin_of or router
        columns = {
            "auc": np.nan,
            "auc_path": np.nan,
            "auc_rel": np.nan,
            **dict.fromkeys(PREFERENCES.values(), np.nan),
            **values,
        }
        frame = {name: np.broadcast_to(np.asarray(value, float), 10)[:splits] for name, value in columns.items()}
        return pd.DataFrame({"seed": range(splits), **frame}).assign(
            benchmark=benchmark, suite=suite, encoder=None if base == "zero-router" else "e", router=router,
            train_size=1.0, n_train=700, n_test=200, formulation=formulation, utility_mean=40.0,
            privileged=False, query_blind=base == "zero-router", twin_of=twin_of, sweep_position=names.index(base),
            chosen=None if base in ("zero-router", "near 10") else "{}", tuning_seconds=None, params="{}",
        )  # fmt: skip

    frames = []
    for router, level in {"near": 0.0, **levels}.items():
        area = 80 + np.asarray(level)
        areas = {"auc": area, "auc_path": area, "auc_rel": area / 100}
        frames.append(rows(router, "utility", areas))
        if twins and router != "zero-router":
            lower = {name: value - 10 for name, value in areas.items()}
            frames.append(rows(f"{router} blind twin", "utility", lower, twin_of=router))
    for router in ("near", *levels) if selection else ():
        by_column = {PREFERENCES[name]: 40 + np.asarray(own.get(router, 0.0)) for name, own in selection.items()}
        frames.append(rows(router, "selection", by_column))
    return pd.concat(frames, ignore_index=True)


def settled(frame: pd.DataFrame, **options: Any) -> list[Settlement]:
    return settle(frame, reference="near", spec=SPEC, **options)


def only(frame: pd.DataFrame, **options: Any) -> Settlement:
    [one] = settled(frame, **options)
    return one


def test_kinds_are_read_off_what_comparisons_print() -> None:
    assert [kind_of(text) for text in PRINTED] == [
        Kind.BETTER, Kind.BETTER, Kind.WORSE, Kind.WORSE, Kind.EQUIVALENT, Kind.EQUIVALENT, Kind.EQUIVALENT,
        Kind.NOT_WORSE, Kind.INCONCLUSIVE, Kind.INCONCLUSIVE, Kind.NONE,
    ]  # fmt: skip
    assert kind_of(None) is Kind.NONE
    with pytest.raises(ValueError, match="superb"):
        kind_of("superb")


def test_the_rule_on_every_pair_of_verdicts() -> None:
    """The protocol's sentence, word by word, over all pairs of routers and numbers of preferences."""
    for first, second, n in product(PRINTED, PRINTED, range(4)):
        selection = {name: "better" if i < n else "not worse" for i, name in enumerate(PREFERENCES)}
        found = decide_claim(
            [Judged(router="a", verdict=first, selection=selection), Judged(router="b", verdict=second)]
        )
        refuted = first in ("better", "better within margin") and n >= 2
        supported = all(text in ("worse", "worse within margin", "equivalent") for text in (first, second))
        assert found is (Outcome.REFUTED if refuted else Outcome.SUPPORTED if supported else Outcome.OPEN)
    assert decide_claim([]) is Outcome.OPEN


def test_refuted_takes_selection_at_two_preferences() -> None:
    two = {"low-cost": {"linear": 5 + WAVE}, "balanced": {"linear": 5 + WAVE}, "high-performance": {}}
    found = only(sweep({"linear": 5 + WAVE, "mlp": -5 + WAVE}, selection=two))
    assert found.outcome is Outcome.REFUTED
    assert found.missing == ()
    assert found.sentence == (
        "The claim that simple kNN does as well as learned routers is refuted for this pool on b with e: linear is "
        "better than tuned kNN (near), and on selection utility at 2 of 3 preferences (low-cost and balanced)."
    )
    one = {**two, "balanced": {}}
    found = only(sweep({"linear": 5 + WAVE, "mlp": -5 + WAVE}, selection=one))
    assert found.outcome is Outcome.OPEN
    assert found.missing == (
        "linear, better in AUC, is better on selection utility at 1 of 3 preferences, 2 are asked",
    )


def test_without_selection_runs_nothing_is_refuted() -> None:
    found = only(sweep({"linear": 5 + WAVE}))
    assert found.outcome is Outcome.OPEN
    assert found.missing == ("no selection runs in the sweep (formulation: [utility, selection])",)
    assert found.sentence.endswith(
        "is open on b with e: against tuned kNN (near) linear is better. "
        "To decide: no selection runs in the sweep (formulation: [utility, selection])."
    )


def test_supported_takes_every_learned_router() -> None:
    found = only(sweep({"linear": -5 + WAVE, "mlp": 0.1 * WAVE}))
    assert found.outcome is Outcome.SUPPORTED
    assert found.sentence.endswith("against tuned kNN (near) linear is worse; mlp is equivalent.")
    found = only(sweep({"linear": -5 + WAVE, "mlp": WIDE}))
    assert found.outcome is Outcome.OPEN
    assert found.missing[1].startswith("more queries for mlp (as it is, a true difference has to reach 6.2 points")


def test_equivalence_counts_only_if_somebody_has_learned_something() -> None:
    found = only(sweep({"linear": 0.1 * WAVE}, twins=False))
    assert (found.outcome, found.missing[1]) == (Outcome.OPEN, "blind twins (twin: true) of near and linear")
    frame = sweep({"linear": 0.1 * WAVE})
    twins = frame["twin_of"].notna()
    frame.loc[twins, ["auc", "auc_path"]] += 10.0
    found = only(frame)
    assert found.routers[0].verdict == "equivalent (vacuous)"
    assert (found.outcome, found.missing[1]) == (
        Outcome.OPEN,
        "queries on which near or linear beats its blind twin",
    )


def test_few_splits_are_said() -> None:
    found = only(sweep({"linear": -5 + WAVE}, splits=5))
    assert found.outcome is Outcome.OPEN
    assert "only 5 splits, a verdict takes 10" in found.missing
    two = {name: {"linear": 5 + WAVE} for name in PREFERENCES}
    frame = sweep({"linear": 5 + WAVE}, selection=two)
    few = only(frame[(frame["formulation"] == "utility") | (frame["seed"] < 5)])
    assert "fewer than 10 splits of selection" in few.missing


def test_baselines_lookups_and_those_who_see_answers_do_not_count() -> None:
    levels = {"zero-router": 9 + WAVE, "near 10": 9 + WAVE, "elo": 9 + WAVE, "chain": 9 + WAVE, "linear": -5 + WAVE}
    found = only(sweep(levels))
    assert found.outcome is Outcome.SUPPORTED
    assert [one.router for one in found.routers] == ["linear"]


def test_it_takes_a_tuned_knn_and_a_learned_router() -> None:
    frame = sweep({"linear": -5 + WAVE})
    fixed = frame.assign(chosen=frame["chosen"].where(frame["router"] != "near"))
    assert only(fixed).missing == ("no tuned kNN in the sweep (name: knn, tune: true)",)
    assert only(sweep({"elo": 1.0})).missing == ("no learned router in the sweep",)
    assert settled(frame.assign(trained_on="a")) == []


def test_another_reference_does_not_change_the_claim() -> None:
    frame = sweep({"zero-router": -9 + WAVE, "linear": -5 + WAVE})
    [found] = settle(frame, reference="zero-router", spec=SPEC)
    assert (found.knn, found.outcome) == ("near", Outcome.SUPPORTED)


def test_benchmarks_of_one_suite_have_to_agree() -> None:
    worse, open_ = sweep({"linear": -5 + WAVE}, benchmark="s/a"), sweep({"linear": WIDE}, benchmark="s/b")
    first, *each = settled(pd.concat([worse, worse.assign(benchmark="s/b")]))
    assert (first.outcome, len(each)) == (Outcome.SUPPORTED, 2)
    assert first.basis.endswith("as there is one suite only")
    first, *each = settled(pd.concat([worse, open_]))
    assert first.outcome is Outcome.OPEN
    assert first.missing == ("supported on s/a with e", "open on s/b with e")
    assert [one.outcome for one in each] == [Outcome.SUPPORTED, Outcome.OPEN]


def suites(levels: Mapping[str, Any], selection: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """Three suites of one benchmark each."""
    return pd.concat([sweep(levels, selection=selection, benchmark=name, suite=name) for name in "abc"])


def test_several_suites_take_the_verdicts_across_them() -> None:
    worse = suites({"linear": -5 + WAVE, "mlp": 0.1 * WAVE})
    first, *each = settled(worse)
    assert (first.outcome, first.where) == (Outcome.SUPPORTED, "across 3 suites with e")
    assert first.basis == "the verdicts across suites"
    assert [one.verdict for one in first.routers] == ["worse", "equivalent"]
    assert [one.outcome for one in each] == [Outcome.SUPPORTED] * 3
    first, *_ = settled(suites({"linear": 5 + WAVE}))
    assert first.missing == ("no selection runs in the sweep (formulation: [utility, selection])",)


def test_selection_is_judged_across_suites_by_preference() -> None:
    two = {"low-cost": {"linear": 5 + WAVE}, "balanced": {"linear": 5 + WAVE}, "high-performance": {}}
    first, *_ = settled(suites({"linear": 5 + WAVE}, two))
    assert first.outcome is Outcome.REFUTED
    assert first.routers[0].better_at == ["low-cost", "balanced"]
    one = {**two, "balanced": {"linear": WIDE}}
    first, *_ = settled(suites({"linear": 5 + WAVE}, one))
    assert first.outcome is Outcome.OPEN
    assert first.routers[0].better_at == ["low-cost"]


def test_comparisons_that_were_made_are_read_and_others_are_not() -> None:
    frame = suites({"zero-router": -9 + WAVE, "linear": -5 + WAVE})
    for reference in ("near", "zero-router"):
        across = across_reference(frame, reference, spec=SPEC)
        first, *_ = settle(frame, reference=reference, spec=SPEC, across=across)
        assert (first.knn, first.outcome) == ("near", Outcome.SUPPORTED)
    doctored = [replace(row, kind=Kind.INCONCLUSIVE) for row in across_reference(frame, "near", spec=SPEC)]
    first, *_ = settle(frame, reference="near", spec=SPEC, across=doctored)
    assert first.outcome is Outcome.OPEN


def test_a_router_on_one_suite_of_several_has_no_verdict() -> None:
    frame = suites({"linear": -5 + WAVE, "mlp": -5 + WAVE})
    first, *_ = settled(frame[(frame["router"] != "mlp") | (frame["suite"] == "a")])
    assert first.outcome is Outcome.OPEN
    assert first.missing[1] == "two suites or more with mlp and near"


def test_a_sweep_of_selection_alone_is_open() -> None:
    two = {name: {"linear": 5 + WAVE} for name in PREFERENCES}
    frame = sweep({"linear": 5 + WAVE}, selection=two)
    found = only(frame[frame["formulation"] == "selection"])
    assert found.outcome is Outcome.OPEN
    assert found.missing == ("utility prediction by linear and near on the same splits",)


def test_an_open_answer_always_says_what_is_missing() -> None:
    for text, n, ran in product((*PRINTED, None), range(4), (True, False)):
        selection = {name: "better" if i < n else "not worse" for i, name in enumerate(PREFERENCES)}
        one = Judged(router="a", verdict=text, selection=selection if ran else {}, detectable=2.0, n_splits=10)
        other = Judged(router="b", verdict="worse", selection={"balanced": "worse"})
        for judged in ((one,), (one, other)):
            found = _settlement("on b", "a basis", "near", judged)
            assert (found.outcome is Outcome.OPEN) == bool(found.missing), (text, n, ran)
            assert found.sentence.endswith(".")


def test_the_frame_has_the_verdicts_that_the_rule_read() -> None:
    two = {name: {"linear": 5 + WAVE} for name in ("low-cost", "balanced", "high-performance")}
    frame = settlement_frame(settled(sweep({"linear": 5 + WAVE, "mlp": -5 + WAVE}, selection=two)))
    row = frame.set_index("router").loc["linear"]
    assert (row["outcome"], row["verdict"], row["selection balanced"]) == ("refuted for this pool", "better", "better")
    assert frame.set_index("router").loc["mlp", "selection balanced"].startswith("equivalent")
    assert settlement_frame(settled(sweep({"elo": 0.0})))["router"].isna().all()


def test_every_registered_router_has_its_role() -> None:
    """Names that the roles speak of exist, and what is left over is learned."""
    known = routers()
    assert set(known) >= LOOKUPS | SEE_ANSWERS
    read = {
        name
        for name, cls in known.items()
        if cls.needs_embedding and not cls.privileged and not cls.query_blind and name not in LOOKUPS | SEE_ANSWERS
    }
    assert read >= {"linear", "linear-mf", "mlp", "mlp-mf", "graph", "attn", "double-attn"}


def test_fixed_neighbours_differ_in_k_alone() -> None:
    frame = sweep({"linear": 0.0, "near 10": 0.0, "mlp": 0.0})
    spec = {"routers": [{"name": name, "use": "knn"} for name in ("near", "linear", "near 10", "mlp")]}
    params = {"linear": '{"k": 100}', "near 10": '{"k": 10}', "mlp": '{"k": 5, "similarity": "whitened"}'}
    frame["params"] = frame["router"].map(params).fillna("{}")
    frame["chosen"] = frame["chosen"].where(frame["router"] == "near")
    assert fixed_neighbours(frame, spec) == {10: "near 10", 100: "linear"}
    assert tuned_knn(frame, spec, "linear") == "near"
    assert learned_routers(frame, spec) == []
