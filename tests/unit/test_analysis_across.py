from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.analysis import nadeau_bengio
from orchestrator.analysis.across import AcrossSuites, across_frame, across_pair, across_reference, suite_frame
from orchestrator.analysis.across_sentences import across_sentence
from orchestrator.analysis.comparisons import PREFERENCES
from orchestrator.analysis.primary_family import primary_at_preferences, primary_family
from orchestrator.analysis.random_effects import random_effects
from orchestrator.analysis.suite_ranks import suite_ranking
from orchestrator.analysis.suites import slices
from orchestrator.errors import AnalysisError
from tests.suites import FIVE, WAVE, rows, study


def judged(frame: pd.DataFrame, **options: Any) -> dict[str, AcrossSuites]:
    found = across_reference(frame, "reference", **options)
    return {row.candidate: row for row in found if row.primary}


def test_the_mean_over_suites_is_that_of_its_tests() -> None:
    d = {suite: i + (i + 1) * WAVE for i, suite in enumerate(FIVE)}
    row = judged(study({suite: {"a": d[suite]} for suite in FIVE}))["a"]
    tests = [nadeau_bengio(d[suite], 700, 200) for suite in FIVE]
    assert row.effect == random_effects([test.mean for test in tests], [test.se**2 for test in tests])
    assert row.difference == row.effect.mean
    assert (row.n_suites, row.n_splits, row.family_size, row.incomplete) == (5, 20, 1, ())
    assert suite_frame([row])["difference"].tolist() == pytest.approx([0, 1, 2, 3, 4])


def test_members_of_a_suite_are_averaged_split_by_split() -> None:
    # Opposite spreads cancel: two tests averaged afterwards would not know it.
    one, other = rows("a", 82 + WAVE, "x", benchmark="x/1"), rows("a", 84 - WAVE, "x", benchmark="x/2", n_test=100)
    references = [
        rows("reference", [80.0] * 20, "x", benchmark=name, n_test=n) for name, n in (("x/1", 200), ("x/2", 100))
    ]
    frame = pd.concat([one, other, *references, study({"y": {"a": 1 + 0.5 * WAVE}})])
    row = judged(frame)["a"]
    x = next(own for own in row.suites if own.suite == "x")
    assert (x.members, x.test.mean, x.test.sd) == (("x/1", "x/2"), pytest.approx(3), 0.0)
    assert x.test.ratio == pytest.approx((200 / 700 + 100 / 700) / 2)


def test_one_suite_is_no_sample() -> None:
    two_of_one = pd.concat([study({"x": {"a": WAVE}}), study({"x": {"a": WAVE}}, benchmark="x/1")])
    assert across_reference(two_of_one, "reference") == []
    assert slices(two_of_one) == []


def test_verdicts_and_holm() -> None:
    frame = study(
        {
            suite: {"better": 5 + WAVE + 0.1 * i, "same": 0.1 * WAVE, "open": (-1) ** i * 3 + WAVE, "worse": -4 + WAVE}
            for i, suite in enumerate(FIVE)
        }
    )
    found = judged(frame)
    assert {name: row.verdict for name, row in found.items()} == {
        "better": "better",
        "same": "equivalent (twin not run)",
        "open": "inconclusive",
        "worse": "worse",
    }
    raw = sorted(row.effect.p for row in found.values() if row.effect)
    assert found["worse"].family_size == 4
    assert min(row.p_holm for row in found.values() if row.p_holm is not None) == pytest.approx(4 * raw[0])


def test_incomplete_suites_are_named_and_left_out() -> None:
    frame = study({suite: {"a": 2 + WAVE, "b": 1 + WAVE} for suite in FIVE})
    frame = frame[~((frame["router"] == "b") & (frame["suite"] == "w"))]
    frame = frame[~((frame["router"] == "a") & (frame["suite"] == "x") & (frame["seed"] > 3))]
    found = judged(frame)
    assert (found["a"].n_suites, found["b"].n_suites) == (4, 4)
    assert [(own.suite, own.reason) for own in found["b"].incomplete] == [("w", "no result of b on w")]
    [gap] = found["a"].incomplete
    assert (gap.suite, "4 splits of a and reference on x" in gap.reason) == ("x", True)
    assert across_frame(list(found.values()))["incomplete"].iloc[1] == "w: no result of b on w"
    # A member that lacks the router leaves the suite incomplete.
    more = pd.concat([frame, rows("reference", [80.0] * 20, "y", benchmark="y/2")])
    assert [own.suite for own in judged(more)["b"].incomplete] == ["w", "y"]
    # One complete suite is no mean.
    alone = judged(frame[(frame["router"] == "reference") | (frame["suite"] == "v")])["a"]
    assert (alone.effect, alone.verdict) == (None, "no verdict: N < 2 suites")


def test_five_splits_make_an_interval_and_no_verdict() -> None:
    row = judged(study({suite: {"a": 5 + 0.1 * WAVE} for suite in FIVE}).query("seed < 9"))["a"]
    assert row.effect is not None
    assert row.verdict == "no verdict: K < 10 splits"


def test_the_primary_family() -> None:
    frame = pd.concat(
        [study({suite: {"a": 2 + WAVE} for suite in FIVE}, encoder=encoder) for encoder in ("hash", "minilm")]
    )
    spec = {"encoders": ["minilm", "hash"]}
    found = across_reference(frame, "reference", spec=spec)
    assert [(row.encoder, row.metric) for row in found if row.primary] == [("minilm", "auc")]
    assert (found[0].encoder, found[0].metric) == ("minilm", "auc")
    assert {row.encoder for row in found} == {"minilm", "hash"}
    # A suite without the primary encoder is incomplete; another encoder does not stand in for it.
    part = frame[~((frame["encoder"] == "minilm") & (frame["suite"] == "z"))]
    assert [own.reason for own in judged(part, spec=spec)["a"].incomplete] == ["no result on z with minilm"]


def test_the_hull_rule_across_suites() -> None:
    frame = study({suite: {"a": 5 + 0.1 * WAVE} for suite in FIVE})
    frame.loc[frame["router"] == "a", "auc_path"] = 79 + 0.1 * np.tile(WAVE, 5)
    row = judged(frame)["a"]
    assert row.verdict.startswith("inconclusive (hull)")
    assert row.other_difference == pytest.approx(-1)


def test_a_conclusion_that_flips_is_said_to_flip() -> None:
    frame = study({suite: {"a": 5 + 0.1 * WAVE, "b": 5 + 0.1 * WAVE} for suite in FIVE})
    own = frame["router"] == "a"
    frame.loc[own, "auc_rel"] = 0.7 + 0.001 * np.tile(WAVE, 5)
    assert judged(frame)["a"].verdict == "better (flips: worse in AUC rel)"
    assert judged(frame)["b"].verdict == "better"
    frame.loc[own, "auc_rel"] = 0.8 + 0.1 * np.tile(WAVE, 5)
    assert judged(frame)["a"].verdict == "better (flips: nothing shown in AUC rel)"
    # Where AUC rel is undefined on all suites but one, nothing is said.
    frame.loc[own & (frame["suite"] != "v"), "auc_rel"] = np.nan
    assert judged(frame)["a"].verdict == "better"


@pytest.mark.parametrize(("ahead", "verdict"), [(5.0, "equivalent"), (0.0, "equivalent (vacuous)")])
def test_vacuous_across_suites(ahead: float, verdict: str) -> None:
    frame = study({suite: {"a": 0.1 * WAVE} for suite in FIVE})
    twins = [
        rows(f"{name} blind twin", 80 - ahead + 0.2 * WAVE, suite, twin_of=name)
        for suite in FIVE
        for name in ("a", "reference")
    ]
    assert judged(pd.concat([frame, *twins]))["a"].verdict == verdict


def test_signed_ranks_in_the_family() -> None:
    eight = [f"s{i}" for i in range(8)]
    frame = study({suite: {"a": 1 + i + WAVE} for i, suite in enumerate(eight)})
    ranks = judged(frame)["a"].signed_rank
    assert (ranks.n, ranks.rank_sum, ranks.p_holm, ranks.refused) == (8, 36.0, 2 / 2**8, "")
    many = study({suite: {name: 1 + i + WAVE for name in "abcdefg"} for i, suite in enumerate(eight)})
    assert all("it takes 9" in row.signed_rank.refused for row in judged(many).values())
    assert all(row.signed_rank.p_holm is None for row in judged(many).values())


def test_references_and_twins_are_not_compared_and_one_pair_is() -> None:
    frame = study({suite: {"a": 2 + WAVE, "b": 1 + WAVE} for suite in FIVE})
    frame = pd.concat([frame, *(rows("oracle", [99.0] * 20, suite, privileged=True, encoder=None) for suite in FIVE)])
    frame = pd.concat([frame, *(rows("a blind twin", 77 - WAVE, suite, twin_of="a") for suite in FIVE)])
    assert list(judged(frame)) == ["a", "b"]
    pair = across_pair(frame, "a", "a blind twin")
    assert (pair[0].metric, pair[0].primary, pair[0].difference) == ("auc", False, pytest.approx(5))
    assert across_pair(frame, "a", "b", encoder="hash") == []
    with pytest.raises(AnalysisError, match="looks at test outcomes"):
        across_pair(frame, "a", "oracle")
    with pytest.raises(AnalysisError, match="lack the column suite"):
        across_reference(frame.drop(columns="suite"), "reference")


def test_selection_has_one_metric() -> None:
    frame = study({suite: {"a": WAVE} for suite in FIVE}, formulation="selection")
    frame = frame.assign(auc=None, auc_path=None, auc_rel=None)
    frame.loc[frame["router"] == "a", "utility_mean"] = 45 + np.tile(WAVE, 5)
    [row] = across_reference(frame, "reference")
    assert (row.metric, row.primary, row.verdict, row.other_difference) == ("utility_mean", True, "better", None)


def test_shifted_benchmarks_are_no_members() -> None:
    frame = pd.concat(
        [
            study({"v": {"a": WAVE}, "w": {"a": WAVE}}).assign(trained_on=None),
            study({"x": {"a": WAVE}}).assign(trained_on="dates"),
        ]
    )
    assert [own.suite for own in judged(frame)["a"].suites] == ["v", "w"]


def test_plain_values() -> None:
    row = judged(study({suite: {"a": 2 + WAVE} for suite in FIVE}))["a"].as_dict()
    assert json.loads(json.dumps(row, allow_nan=False))["suites"] == list(FIVE)
    assert row["scope"] == "across suites"


def test_rankings_leave_out_what_is_incomplete() -> None:
    frame = study({suite: {"a": 2 + WAVE, "b": -1 + WAVE, "rare": 9 + WAVE} for suite in FIVE})
    frame = frame[~((frame["router"] == "rare") & frame["suite"].isin(["v", "w", "x"]))]
    frame = frame[~((frame["router"] == "b") & (frame["suite"] == "y") & (frame["seed"] == 3))]
    [part] = slices(frame)
    found = suite_ranking(part)
    assert found.unranked == ("rare",)
    assert [(gap.suite, gap.reason) for gap in found.incomplete] == [("y", "not every split of b")]
    assert found.ranking is not None
    assert dict(zip(found.ranking.routers, found.ranking.ranks, strict=True)) == {"reference": 2, "a": 1, "b": 3}
    assert found.ranking.suites == ("v", "w", "x", "z")
    assert not found.ranking.carries_verdict
    assert found.ranking.p == pytest.approx(1 / 6**3)
    nobody = suite_ranking(slices(frame[frame["router"].isin(["reference"])])[0])
    assert nobody.ranking is None


def test_sentences_say_what_verdicts_say() -> None:
    frame = study(
        {suite: {"a": 5 + 0.1 * WAVE, "b": 0.3 * WAVE, "c": (-1) ** i * 3 + WAVE} for i, suite in enumerate(FIVE)}
    )
    frame.loc[frame["router"] == "a", "auc_rel"] = 0.7 + 0.001 * np.tile(WAVE, 5)
    said = across_sentence(across_reference(frame, "reference"))
    assert said.startswith(
        "Across 5 suites with minilm, the primary family: a is better than reference by 5.0 AUC points"
    )
    assert "yet worse in AUC rel; b (blind twins not run) is equivalent within ±1 AUC point" in said
    assert said.endswith("for c it is inconclusive.")
    frame.loc[frame["router"] == "a", "auc_path"] = 79 + 0.1 * np.tile(WAVE, 5)
    hull = across_sentence(across_reference(frame, "reference"))
    assert "a and reference is inconclusive, as AUC and AUC path disagree about the sign" in hull
    few = across_sentence(across_reference(frame.query("seed < 9"), "reference"))
    assert "no verdict, as that takes 10 splits" in few
    assert across_sentence([]) == ""


def test_the_primary_family_in_plain_form() -> None:
    utility = study({suite: {"a": 5 + 0.1 * WAVE} for suite in FIVE})
    selection = study({suite: {"a": 0 * WAVE} for suite in FIVE}, formulation="selection")
    selection = selection.assign(auc=None, auc_path=None, auc_rel=None)
    above = np.where(selection["router"] == "a", 3.0, 0.0) + selection["seed"] % 2 * 0.1
    selection = selection.assign(
        utility_low_cost=40 + above, utility_balanced=40 - above, utility_high_performance=40 + above * 0.01
    )
    both = pd.concat([utility, selection], ignore_index=True)
    family = primary_family(both, "reference")
    assert family[["router", "verdict"]].to_numpy().tolist() == [["a", "better"]]
    chosen = primary_at_preferences(both, "reference")
    assert {name: frame["verdict"].item() for name, frame in chosen.items()} == {
        "low-cost": "better",
        "balanced": "worse",
        "high-performance": "better within margin",
    }
    assert primary_at_preferences(utility.assign(**dict.fromkeys(PREFERENCES.values())), "reference") == {}
    assert primary_family(both[both["suite"] == "v"], "reference").empty
