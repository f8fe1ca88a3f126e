from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from orchestrator.analysis import (
    Comparison,
    Kind,
    Learned,
    compare,
    compare_to_reference,
    comparison_frame,
    comparison_sentence,
    leaderboard_table,
    nadeau_bengio,
    verdict_sentence,
)
from orchestrator.analysis.comparisons import holm, learned
from orchestrator.analysis.panels import panels
from orchestrator.errors import AnalysisError

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
REFERENCE = SHARED / "reference" / "routerbench_part.csv"

#: A spread whose mean is 0 and whose sd (ddof 1) over 20 splits is sqrt(20/19).
WAVE = np.tile([1.0, -1.0], 10)


def rows(router: str, auc: Sequence[float], *, path: Sequence[float] | None = None, **columns: Any) -> pd.DataFrame:
    """Results of one router: `auc` per split; anything else overrides the defaults."""
    defaults = {
        "benchmark": "toolbox", "encoder": "minilm", "router": router, "train_size": 1.0, "n_train": 700, "n_test": 200,
        "formulation": "utility", "auc_rel": 0.5, "utility_mean": 40.0, "privileged": False, "query_blind": False,
        "twin_of": None, "sweep_position": 0, "chosen": None, "tuning_seconds": None,
    }  # fmt: skip
    areas = {"seed": range(len(auc)), "auc": auc, "auc_path": auc if path is None else path}
    return pd.DataFrame(areas | {name: [value] * len(auc) for name, value in (defaults | columns).items()})


def results(differences: Mapping[str, Sequence[float]], **columns: Any) -> pd.DataFrame:
    """A reference at 80 and candidates at 80 + difference."""
    k = len(next(iter(differences.values())))
    frames = [rows("reference", [80.0] * k, **columns)]
    frames += [
        rows(name, 80.0 + np.asarray(d), sweep_position=i, **columns)
        for i, (name, d) in enumerate(differences.items(), 1)
    ]
    return pd.concat(frames, ignore_index=True)


def verdicts(frame: pd.DataFrame, metric: str = "auc", **options: Any) -> dict[str, str]:
    return {
        row.candidate: row.verdict
        for row in compare_to_reference(frame, "reference", **options)
        if row.metric == metric
    }


def only(frame: pd.DataFrame, **options: Any) -> Comparison:
    [row] = [row for row in compare_to_reference(frame, "reference", **options) if row.metric == "auc"]
    return row


def twin(router: str, auc: Sequence[float], **columns: Any) -> pd.DataFrame:
    return rows(f"{router} blind twin", auc, twin_of=router, **columns)


def test_the_verdicts_in_order() -> None:
    # se = sqrt(20/19) * sqrt(1/20 + 2/7) = 0.5945 of WAVE; t quantiles with 19 degrees: 1.729, 2.093.
    frame = results(
        {
            "better": 5 + WAVE,
            "worse": -5 + WAVE,
            "slightly better": 0.5 + 0.1 * WAVE,
            "equivalent": 0.1 * WAVE,
            "not worse": 0.5 + 0.5 * WAVE,
            "inconclusive": 2 * WAVE,
        }
    )
    assert verdicts(frame) == {
        "better": "better",
        "worse": "worse",
        "slightly better": "better within margin",
        "equivalent": "equivalent (twin not run)",
        "not worse": "not worse",
        "inconclusive": "inconclusive",
    }


def test_holm_by_hand() -> None:
    d = {"a": 2 + WAVE, "b": 1.5 + WAVE, "c": 1.4 + WAVE}
    raw = [nadeau_bengio(x, 700, 200).p for x in d.values()]
    assert raw == sorted(raw)
    step = [3 * raw[0], max(3 * raw[0], 2 * raw[1]), max(3 * raw[0], 2 * raw[1], raw[2])]
    found = [row.p_holm for row in compare_to_reference(results(d), "reference") if row.metric == "auc"]
    assert found == pytest.approx(step)
    # Alone each is significant at 5 %, together none of the last two is adjusted below its own p.
    assert all(row.family_size == 3 for row in compare_to_reference(results(d), "reference"))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.01, 0.02, 1.0])), min_size=1, max_size=12))
def test_holm_against_statsmodels(p: list[float]) -> None:
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


def test_families_are_one_per_benchmark_and_encoder() -> None:
    frame = pd.concat(
        [
            results({"a": 2 + WAVE, "b": 1 + WAVE}),
            results({"a": 2 + WAVE}, benchmark="digits"),
            results({"a": 2 + WAVE}, encoder="hash"),
        ]
    )
    sizes = {(row.benchmark, row.encoder): row.family_size for row in compare_to_reference(frame, "reference")}
    assert sizes == {("digits", "minilm"): 1, ("toolbox", "hash"): 1, ("toolbox", "minilm"): 2}


def test_baselines_without_embedding_compare_under_every_encoder() -> None:
    frame = pd.concat(
        [results({"a": WAVE}), results({"a": WAVE}, encoder="hash"), rows("zero-router", 70 + WAVE, encoder=None)]
    )
    found = [(row.encoder, row.candidate) for row in compare_to_reference(frame, "reference") if row.metric == "auc"]
    assert sorted(found) == [("hash", "a"), ("hash", "zero-router"), ("minilm", "a"), ("minilm", "zero-router")]


def test_pairs_by_split_whatever_the_order() -> None:
    base = np.linspace(60, 90, 20)
    frame = pd.concat([rows("reference", base), rows("a", base + 3 + 0.1 * WAVE)]).sample(frac=1, random_state=1)
    row = only(frame)
    assert row.test is not None
    assert (row.difference, row.test.sd) == pytest.approx((3, 0.1 * math.sqrt(20 / 19)))
    assert (row.candidate_mean, row.reference_mean) == pytest.approx((78, 75))


def test_splits_that_one_lacks_do_not_count() -> None:
    frame = results({"a": 3 + WAVE})
    frame.loc[(frame["router"] == "a") & (frame["seed"] == 0), "auc"] = None
    frame = frame[~((frame["router"] == "reference") & (frame["seed"] == 1))]
    assert only(frame).n_splits == 18


@pytest.mark.parametrize(
    ("k", "interval", "verdict"),
    [(1, False, False), (4, False, False), (5, True, False), (9, True, False), (10, True, True)],
)
def test_too_few_splits(k: int, interval: bool, verdict: bool) -> None:
    row = only(results({"a": (5 + 0.1 * WAVE)[:k]}))
    assert (row.test is not None) == interval
    assert row.verdict == ("better" if verdict else "no verdict: K < 10 splits")
    assert row.difference == pytest.approx(5 + 0.1 * WAVE[:k].mean())


def test_the_hull_rule() -> None:
    path = 80 - 0.2 + 0.1 * WAVE
    frame = pd.concat([rows("reference", [80.0] * 20), rows("a", 81 + 0.1 * WAVE, path=path)])
    row = only(frame)
    assert row.verdict == "inconclusive (hull)"
    assert row.other_difference == pytest.approx(-0.2)
    assert "disagree about the sign" in comparison_sentence(row)
    # The rule asks the same of the other area.
    assert verdicts(frame, "auc_path")["a"] == "inconclusive (hull)"
    # A difference of exactly 0 has no sign.
    frame = pd.concat([rows("reference", [80.0] * 20), rows("a", 81 + 0.1 * WAVE, path=[80.0] * 20)])
    assert only(frame).verdict == "inconclusive (hull)"


def test_identical_and_constant_differences() -> None:
    frame = results({"same": [0.0] * 20, "constant": [0.5] * 20, "rounding": 1e-12 * WAVE})
    assert verdicts(frame) == {
        "same": "equivalent (twin not run)",
        "constant": "better within margin",
        "rounding": "equivalent (twin not run)",
    }


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [(5, 5, "equivalent"), (5, 0, "equivalent"), (0, 5, "equivalent"), (0, 0, "equivalent (vacuous)")],
)
def test_vacuous_when_neither_beats_its_twin(own: float, other: float, verdict: str) -> None:
    frame = pd.concat(
        [results({"a": 0.1 * WAVE}), twin("a", 80 - own + 0.3 * WAVE), twin("reference", 80 - other + 0.2 * WAVE)],
        ignore_index=True,
    )
    assert only(frame).verdict == verdict


def test_query_blind_routers_are_their_own_twins() -> None:
    blind = rows("zero-router", 80 + 0.1 * WAVE, encoder=None, query_blind=True)
    frame = pd.concat([rows("reference", [80.0] * 20), blind, twin("reference", 80 + 0.2 * WAVE)])
    assert only(frame).verdict == "equivalent (vacuous)"
    assert learned(panels(frame)[0], "zero-router") is Learned.NOT_SHOWN


def test_a_router_no_better_than_its_twin_is_vacuously_equivalent_to_it() -> None:
    frame = pd.concat([rows("a", [80.0] * 20), twin("a", 80 + 0.1 * WAVE)])
    assert compare(frame, "a", "a blind twin")[0].verdict == "equivalent (vacuous)"


def test_learning_needs_both_areas() -> None:
    ahead_on_hull_only = twin("a", 75 + 0.1 * WAVE, path=85 + 0.1 * WAVE)
    frame = pd.concat([results({"a": 0.1 * WAVE}), ahead_on_hull_only])
    assert learned(panels(frame)[0], "a") is Learned.NOT_SHOWN
    assert learned(panels(frame)[0], "reference") is Learned.NOT_TESTED


def test_references_are_not_compared() -> None:
    frame = pd.concat(
        [results({"a": WAVE}), rows("oracle", 95 + WAVE, privileged=True, encoder=None), twin("a", 80 + WAVE)]
    )
    assert set(verdicts(frame)) == {"a"}


def test_equivalence_that_cannot_be_shown() -> None:
    wide, narrow = (only(results({"a": scale * WAVE})) for scale in (2, 1))
    # 1.729 * 0.5945 = 1.028 per unit of WAVE.
    assert narrow.equivalence_limit == pytest.approx(1.7291 * math.sqrt(20 / 19 * (1 / 20 + 2 / 7)), rel=1e-4)
    assert wide.cannot_show_equivalence
    assert not only(results({"a": WAVE}), margin=1.1).cannot_show_equivalence


def test_selection_compares_utilities() -> None:
    selection = {"formulation": "selection", "auc": None, "auc_path": None}
    frame = pd.concat(
        [
            rows("reference", [80.0] * 20).assign(**selection, utility_mean=40.0),
            rows("a", [80.0] * 20).assign(**selection, utility_mean=45 + WAVE),
        ]
    )
    [row] = compare_to_reference(frame, "reference")
    assert (row.metric, row.verdict, row.difference) == ("utility_mean", "better", pytest.approx(5))


def test_only_the_full_training_size_is_judged() -> None:
    frame = pd.concat([results({"a": WAVE}), results({"a": 9 + WAVE}, train_size=0.5)])
    assert {row.train_size for row in compare_to_reference(frame, "reference")} == {1.0}


def test_panels_follow_the_sweep_file() -> None:
    frame = pd.concat(
        [results({"a": WAVE}, benchmark=b, encoder=e) for b in ("z", "a/x", "a") for e in ("hash", "minilm")]
    )
    spec = {"benchmarks": [{"name": "z"}, "a"], "encoders": ["minilm", {"name": "hash", "use": "hash-ngrams"}]}
    assert [(panel.benchmark, panel.encoder) for panel in panels(frame, spec)] == [
        ("z", "minilm"), ("z", "hash"), ("a", "minilm"), ("a", "hash"), ("a/x", "minilm"), ("a/x", "hash"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "frame", "words"),
    [
        ("nobody", results({"a": WAVE}), "no result"),
        ("reference", results({"a": WAVE}).iloc[:0], "no finished result"),
        ("reference", results({"a": WAVE}).drop(columns="twin_of"), "twin_of"),
        ("reference", pd.concat([results({"a": WAVE})] * 2), "two results"),
        ("reference", results({"a": WAVE}, privileged=True), "looks at test outcomes"),
        ("a blind twin", pd.concat([results({"a": WAVE}), twin("a", WAVE)]), "is a blind twin"),
    ],
)
def test_unusable_input(reference: str, frame: pd.DataFrame, words: str) -> None:
    with pytest.raises(AnalysisError, match=words):
        compare_to_reference(frame, reference)


def test_compare_one_pair() -> None:
    frame = pd.concat(
        [results({"a": 2 + WAVE, "b": 1 + WAVE}), results({"a": WAVE, "b": WAVE}, encoder="hash"), twin("a", 75 + WAVE)]
    )
    found = compare(frame, "a", "b", encoder="minilm")
    assert [(row.metric, row.difference, row.family_size) for row in found] == [("auc", 1, 1), ("auc_path", 1, 1)]
    assert found[0].p_holm == nadeau_bengio([1.0] * 20, 700, 200).p
    assert len(compare(frame, "a", "b")) == 4
    assert compare(frame, "a", "a blind twin", encoder="minilm")[0].difference == pytest.approx(7)
    for bad in (("a", "nobody"), ("a", "a")):
        with pytest.raises(AnalysisError):
            compare(frame, *bad)
    with pytest.raises(AnalysisError, match="no split in common on benchmark 'digits'"):
        compare(frame, "a", "b", benchmark="digits")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-3, 3).map(lambda x: round(x, 2)), min_size=10, max_size=20), st.floats(0.1, 3))
def test_swapping_the_pair_mirrors_the_verdict(d: list[float], margin: float) -> None:
    frame = results({"a": d})
    forth, back = compare(frame, "a", "reference", margin=margin)[0], compare(frame, "reference", "a", margin=margin)[0]
    mirror = {Kind.BETTER: Kind.WORSE, Kind.WORSE: Kind.BETTER}
    assert forth.difference == pytest.approx(-back.difference)
    for one, other in ((forth, back), (back, forth)):
        if one.kind in mirror or one.kind is Kind.EQUIVALENT:
            assert other.kind is mirror.get(one.kind, one.kind)
    assert forth.within_margin == back.within_margin


def test_frame_and_json() -> None:
    found = compare_to_reference(results({"a": 5 + WAVE, "b": WAVE}), "reference")
    frame = comparison_frame(found)
    assert frame["verdict"].tolist()[:2] == ["better", "inconclusive"]
    assert json.loads(json.dumps(found[0].as_dict(), allow_nan=False))["ci95"] == pytest.approx(
        list(found[0].test.ci95)
    )  # type: ignore[union-attr]
    few = compare_to_reference(results({"a": [5.0, 4.0]}), "reference")[0].as_dict()
    assert few["ci95"] is None
    assert few["p_holm"] is None


def test_leaderboard_by_hand() -> None:
    frame = pd.concat(
        [
            rows("a", [80.0, 82.0], path=[79.0, 80.0], auc_rel=0.25),
            rows("b", [90.0, 92.0]),
            rows("oracle", [99.0, 99.0], encoder=None, privileged=True),
            twin("a", [85.0, 85.0]),
            rows("tied", [90.0, 92.0]),
        ]
    )
    table = leaderboard_table(frame).set_index("router")
    assert table.index.tolist() == ["oracle", "b", "tied", "a blind twin", "a"]
    assert table["rank"].dropna().to_dict() == {"b": 1, "tied": 1, "a": 3}
    a = table.loc["a"]
    assert (
        a["auc_mean"],
        a["auc_sd"],
        a["auc_path_mean"],
        a["auc_path_sd"],
        a["auc_rel_mean"],
        a["n_seeds"],
    ) == pytest.approx((81, math.sqrt(2), 79.5, math.sqrt(0.5), 0.25, 2))
    assert math.isnan(leaderboard_table(rows("a", [80.0]))["auc_sd"].iloc[0])


def test_incomplete_rows_have_no_rank() -> None:
    frame = pd.concat(
        [
            rows("full", [80.0, 82.0, 81.0]),
            rows("lucky", [90.0, 91.0]),
            rows("undefined once", [95.0, math.nan, 95.0]),
            rows("also full", [70.0, 70.0, 70.0]),
        ]
    )
    table = leaderboard_table(frame).set_index("router")
    assert table["rank"].dropna().to_dict() == {"full": 1, "also full": 2}
    assert table["n_seeds"].to_dict() == {"undefined once": 2, "lucky": 2, "full": 3, "also full": 3}


def test_as_many_but_other_splits_are_incomplete_too() -> None:
    other = rows("b", [90.0, 90.0]).assign(seed=[1, 2])
    assert leaderboard_table(pd.concat([rows("a", [80.0, 80.0]), other]))["rank"].isna().all()


def test_leaderboard_of_a_selection_ranks_by_utility() -> None:
    selection = {"formulation": "selection", "auc": None, "auc_path": None, "auc_rel": None}
    frame = pd.concat([rows(name, [0.0]).assign(**selection, utility_mean=u) for name, u in (("a", 40.0), ("b", 41.0))])
    assert leaderboard_table(frame)["router"].tolist() == ["b", "a"]


def test_sentence_of_one_benchmark() -> None:
    frame = results({"mlp": 6.2 + WAVE, "linear": 0.1 * WAVE, "random": -9 + WAVE, "odd": 2 * WAVE})
    sentence = verdict_sentence(compare_to_reference(frame, "reference"), "reference")
    # 6.2 -+ 2.0930 * 0.5945
    assert sentence.startswith(
        "On toolbox with minilm, mlp is better than reference by 6.2 AUC points "
        "(95 % interval +5.0 to +7.4, Holm p < 0.001, 20 splits); "
    )
    assert "random is worse by 9.0 AUC points; " in sentence
    assert "linear is equivalent within ±1 AUC point (no blind twin was run for linear)" in sentence
    # 2 * sqrt(20/19) * 1.7113 = 3.5
    assert "for odd the data are inconclusive (a true difference has to reach 3.5 AUC points" in sentence
    assert "more queries could" in sentence


def test_inconclusive_says_whether_more_splits_would_do() -> None:
    # The least detectable difference of endless splits at sd 1 is 2.8016 * sqrt(2/7) = 1.4975; at 10 splits 1.55 has
    # p = 0.034, so three of them are not significant together.
    noise = WAVE[:10] / WAVE[:10].std(ddof=1)
    near, *_ = compare_to_reference(results({name: -1.55 + noise for name in "abc"}), "reference")
    far, *_ = compare_to_reference(results({name: -1.45 + noise for name in "abc"}), "reference")
    assert near.kind is far.kind is Kind.INCONCLUSIVE
    assert "more splits of these queries could settle it" in comparison_sentence(near)
    assert "more splits of these queries would not settle it, more queries could" in comparison_sentence(far)


def test_sentence_of_several_benchmarks() -> None:
    frame = pd.concat(
        [
            results({"a": 5 + WAVE, "b": -5 + WAVE}, benchmark="x"),
            results({"a": 5 + WAVE, "b": 2 * WAVE}, benchmark="y"),
            results({"a": -5 + WAVE}, benchmark="x", encoder="other"),
        ]
    )
    sentence = verdict_sentence(
        compare_to_reference(frame, "reference", spec={"encoders": ["minilm", "other"]}), "reference"
    )
    assert sentence == (
        "Against reference, on 2 benchmarks with minilm (20 splits each): a is better on all 2, by 5.0 AUC points; "
        "b is worse on 1 and inconclusive on 1. These count benchmark by benchmark and are no test across them."
    )


def test_sentence_without_comparisons() -> None:
    assert "can serve as a reference" in verdict_sentence([], None)
    assert "Nothing was compared with reference" in verdict_sentence([], "reference")


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no reference areas at {REFERENCE}")
def test_what_the_protocol_says_of_the_reference_areas() -> None:
    areas = pd.read_csv(REFERENCE)
    blind = areas["router"].isin(["oracle", "zero-hindsight", "random", "zero-router", "task-zero"])
    position = {router: i for i, router in enumerate(areas["router"].unique())}
    frame = areas.assign(
        seed=areas["split"], train_size=1.0, formulation="utility", auc_rel=None, utility_mean=None, query_blind=False,
        chosen=None, tuning_seconds=None,
        encoder=["minilm" if not b else None for b in blind], sweep_position=areas["router"].map(position),
        privileged=areas["router"].isin(["oracle", "zero-hindsight"]),
        twin_of=["knn@100" if router == "knn@100 blind twin" else None for router in areas["router"]],
    )  # fmt: skip
    rows = {
        (row.benchmark, row.candidate): row for row in compare_to_reference(frame, "zero-router") if row.metric == "auc"
    }
    # Protocol 3: pooled, knn@100 has learned something; on ARC-challenge it has not (knn 91.33, its twin 91.51).
    pooled, arc = rows["routerbench-part", "knn@100"], rows["routerbench-part/arc_challenge", "knn@100"]
    assert (pooled.verdict, pooled.learned) == ("better", Learned.YES)
    assert (arc.verdict, arc.learned) == ("equivalent (vacuous)", Learned.NOT_SHOWN)
    assert pooled.difference == pytest.approx(83.95 - 81.10, abs=0.02)
