"""How many labels: constructed curves by hand, and all of it against a brute-force reading of the protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.analysis.labels import AREAS, Count, LabelTable, from_which_on, label_frame, label_tables

SIZES = {0.1: 70, 0.2: 140, 0.5: 350, 1.0: 700}
#: A spread of mean 0 whose sd (ddof 1) over 10 splits is sqrt(10/9). At n_test/n_train = 2/7 its standard error is
#: sqrt(10/9 * (1/10 + 2/7)) = 0.6547; with t(9) = 1.833 one-sided at 5 % and 2.262 two-sided: 1.200 and 1.481.
WAVE = np.tile([1.0, -1.0], 5)
ONE_SIDED, TWO_SIDED = 1.1999, 1.4808


def rows(
    router: str,
    curve: Mapping[float, Any],
    *,
    path: Mapping[float, Any] | None = None,
    seeds: Sequence[int] = range(10),
    **columns: Any,
) -> pd.DataFrame:
    """Results of one router: a mean or a value for each split, by training size."""
    blind, k = router == "zero-router", len(seeds)

    def laid(values: Mapping[float, Any]) -> np.ndarray:
        return np.concatenate([np.broadcast_to(np.asarray(values[size], dtype=float), k) for size in curve])

    plain = {
        "benchmark": "b", "encoder": None if blind else "e", "router": router, "n_test": 200, "formulation": "utility",
        "auc_rel": 0.5, "utility_mean": 40.0, "privileged": False, "query_blind": blind, "twin_of": None,
        "sweep_position": 0, "chosen": None, "tuning_seconds": None, **columns,
    }  # fmt: skip
    return pd.DataFrame(
        {
            "seed": list(seeds) * len(curve),
            "train_size": np.repeat(list(curve), k),
            "n_train": np.repeat([SIZES[size] for size in curve], k),
            "auc": laid(curve),
            "auc_path": laid(path or curve),
            **{name: [value] * (k * len(curve)) for name, value in plain.items()},
        }
    )


def table(*frames: pd.DataFrame, reference: str | None = "knn", delta: float = 1.0) -> LabelTable:
    [found] = label_tables(pd.concat(frames, ignore_index=True), reference, delta=delta)
    return found


def counts(found: LabelTable, router: str, area: str = "auc") -> tuple[str, str, str]:
    [row] = [row for row in found.rows if row.router == router]
    return str(row.within[area]), str(row.target[area]), str(row.overtaking)


ZERO = rows("zero-router", dict.fromkeys(SIZES, 60.0))


def test_from_which_on() -> None:
    assert from_which_on([]) is None
    assert from_which_on([True, False]) is None
    assert from_which_on([True, False, True, True]) == 2
    assert from_which_on([True, True]) == 0


def test_n_delta_is_the_first_size_that_stays_within_delta() -> None:
    # Differences to the full size without spread: bounds are the differences.
    assert counts(table(rows("knn", {0.1: 70, 0.2: 78.9, 0.5: 79.1, 1.0: 80})), "knn")[0] == "350"
    assert counts(table(rows("knn", {0.1: 70, 0.2: 79.1, 0.5: 79.1, 1.0: 80})), "knn")[0] == "140"
    # A size that dips later takes back what an earlier one showed.
    assert counts(table(rows("knn", {0.1: 79.5, 0.2: 78.0, 0.5: 79.5, 1.0: 80})), "knn")[0] == "350"
    # Below delta, not at it.
    assert counts(table(rows("knn", {0.1: 70, 0.2: 79.0, 0.5: 79.5, 1.0: 80})), "knn")[0] == "350"


def test_n_delta_is_censored_at_both_ends() -> None:
    assert counts(table(rows("knn", dict.fromkeys(SIZES, 80.0))), "knn")[0] == "≤ 70"
    # The largest size is no evidence about itself: not by the largest below it.
    assert counts(table(rows("knn", {0.1: 60, 0.2: 70, 0.5: 75, 1.0: 80})), "knn")[0] == "> 350"
    # A curve that falls as labels come is above its full value, so within.
    assert counts(table(rows("knn", {0.1: 95, 0.2: 90, 0.5: 85, 1.0: 80})), "knn")[0] == "≤ 70"


def test_n_delta_asks_for_the_upper_bound_and_not_the_mean() -> None:
    curve = {0.1: 70, 0.2: 80 - WAVE, 0.5: 80 - 0.1 * WAVE, 1.0: 80}
    # At 140 the mean difference is 0 and its upper bound 1.1999.
    assert counts(table(rows("knn", curve), delta=ONE_SIDED - 0.001), "knn")[0] == "350"
    assert counts(table(rows("knn", curve), delta=ONE_SIDED + 0.001), "knn")[0] == "140"


def test_differences_are_paired_by_split() -> None:
    # Splits differ by 40 points; what labels bring on each is the same.
    level = 20.0 * WAVE
    curve = {0.1: 50 + level, 0.2: 59.5 + level, 0.5: 60 + level, 1.0: 60 + level}
    assert counts(table(rows("knn", curve)), "knn")[0] == "140"


def test_sizes_that_were_skipped_leave_the_count_open_below() -> None:
    # k above the training side at 70: what would be there is not known.
    assert counts(table(rows("knn", {0.2: 80, 0.5: 80, 1.0: 80})), "knn")[0] == "≤ 140"
    few = rows("knn", {0.1: 50.0}, seeds=range(4))
    assert counts(table(few, rows("knn", {0.2: 80, 0.5: 80, 1.0: 80})), "knn")[0] == "≤ 140"
    # Four splits say as little in the middle: the count starts after them.
    few = rows("knn", {0.2: 80.0}, seeds=range(4))
    assert counts(table(few, rows("knn", {0.1: 80, 0.5: 80, 1.0: 80})), "knn")[0] == "≤ 350"


def test_nothing_is_counted_below_five_splits_or_without_sizes() -> None:
    found = table(rows("knn", {0.5: 80, 1.0: 80}, seeds=range(4)), ZERO)
    assert counts(found, "knn") == ("takes 5 splits", "takes 5 splits", "None")
    assert label_tables(rows("knn", {1.0: 80}), "knn") == []
    alone = table(rows("knn", dict.fromkeys(SIZES, 80.0)), rows("mlp", {1.0: 80}))
    assert counts(alone, "mlp")[0] == "one size only"
    assert label_tables(rows("knn", {0.5: 80, 1.0: 80}, formulation="selection"), "knn") == []


def test_the_common_target_is_the_same_for_all() -> None:
    knn = rows("knn", {0.1: 64, 0.2: 75.9, 0.5: 76.1, 1.0: 80})
    mlp = rows("mlp", {0.1: 60, 0.2: 70, 0.5: 75, 1.0: 75.9})
    better = rows("linear", {0.1: 76.0, 0.2: 77, 0.5: 90, 1.0: 95})
    found = table(ZERO, knn, mlp, better)
    assert found.level["auc"] == pytest.approx(60 + 0.8 * 20)
    assert counts(found, "knn")[1] == "350"
    assert counts(found, "mlp")[1] == "> 700"
    assert counts(found, "linear")[1] == "≤ 70"
    assert counts(found, "zero-router")[1] == "> 700"


def test_the_target_has_an_interval_of_sizes() -> None:
    # To the target of 76: at 140 the mean is 0.5 short, at 350 it is 0.5 over, both within 1.1999; at 700 it is shown.
    knn = rows("knn", {0.1: 70, 0.2: 75.5 + WAVE, 0.5: 76.5 + WAVE, 1.0: 80})
    assert counts(table(ZERO, knn), "knn")[1] == "350 (140 to 700)"
    # Never shown: the far end is censored.
    slow = rows("mlp", {0.1: 70, 0.2: 75.5 + WAVE, 0.5: 76.5 + WAVE, 1.0: 76.5 + WAVE})
    assert counts(table(ZERO, knn, slow), "mlp")[1] == "350 (140 to > 700)"


def test_there_is_no_target_unless_the_reference_gains() -> None:
    def of(gain: float) -> LabelTable:
        knn = rows("knn", {0.5: 60 + gain + WAVE, 1.0: 60 + gain + WAVE})
        return table(ZERO, knn, rows("mlp", {0.5: 99, 1.0: 99}))

    assert counts(of(ONE_SIDED - 0.001), "mlp")[1] == "no gain of knn over zero-router shown"
    assert of(ONE_SIDED - 0.001).level["auc"] == "no gain of knn over zero-router shown"
    assert counts(of(ONE_SIDED + 0.001), "mlp")[1] == "≤ 350"
    assert counts(table(rows("knn", {0.5: 70, 1.0: 80})), "knn")[1] == "no zero-router"
    assert counts(table(ZERO, rows("knn", {0.5: 70, 1.0: 80}), reference=None), "knn")[1:] == ("no reference", "None")


def test_the_zero_router_goes_by_what_it_is() -> None:
    frames = [rows("marginal", {0.5: 60, 1.0: 60}, query_blind=True, encoder=None), rows("knn", {0.5: 79, 1.0: 80})]
    spec = {"routers": [{"name": "marginal", "use": "zero-router"}, {"name": "knn"}]}
    [found] = label_tables(pd.concat(frames), "knn", spec=spec)
    assert found.level["auc"] == pytest.approx(76)


def test_overtaking_is_an_interval_between_what_is_shown() -> None:
    knn = rows("knn", dict.fromkeys(SIZES, 80.0))
    gap = TWO_SIDED + 0.01

    def of(*gaps: float) -> str:
        mlp = rows("mlp", {size: 80 + gap + WAVE for size, gap in zip(SIZES, gaps, strict=True)})
        return counts(table(ZERO, knn, mlp), "mlp")[2]

    assert of(-5, -5, 5, 5) == "overtakes between 140 and 350"
    assert of(-5, 0, 0, 5) == "overtakes between 70 and 700"
    assert of(5, 5, 0, -5) == "is overtaken between 140 and 700"
    assert of(-5, -5, -5, -5) == of(5, 5, 5, 5) == of(-5, -5, -5, 0) == of(0, 0, 0, 5) == "none shown"
    # What is taken back was not overtaken for good.
    assert of(-5, 5, -5, 5) == "overtakes between 350 and 700"
    assert of(-5, 5, 5, 0) == "none shown"
    # By the two-sided 95 % interval.
    assert of(-gap, -gap, gap, gap) == "overtakes between 140 and 350"
    assert of(-gap, -gap, gap, gap - 0.02) == "none shown"


def test_overtaking_needs_the_same_sign_in_both_areas() -> None:
    curve = {0.1: 75.0, 0.2: 75.0, 0.5: 85.0, 1.0: 85.0}
    knn = rows("knn", dict.fromkeys(SIZES, 80.0))
    assert counts(table(ZERO, knn, rows("mlp", curve)), "mlp")[2] == "overtakes between 140 and 350"
    hull = rows("mlp", curve, path={0.1: 75, 0.2: 75, 0.5: 79, 1.0: 85})
    assert counts(table(ZERO, knn, hull), "mlp")[2] == "overtakes between 140 and 700"


def test_only_those_who_compete_are_counted() -> None:
    frames = [
        rows("knn", {0.5: 79, 1.0: 80}),
        rows("oracle", {0.5: 99, 1.0: 99}, privileged=True),
        rows("knn blind twin", {0.5: 60, 1.0: 60}, twin_of="knn"),
    ]
    assert [row.router for row in table(*frames).rows] == ["knn"]


def test_every_encoder_has_its_table_with_the_shared_baselines() -> None:
    frames = [ZERO, rows("knn", dict.fromkeys(SIZES, 80.0)), rows("knn", dict.fromkeys(SIZES, 70.0), encoder="f")]
    found = label_tables(pd.concat(frames), "knn")
    assert [(one.encoder, [row.router for row in one.rows]) for one in found] == [
        ("e", ["knn", "zero-router"]),
        ("f", ["knn", "zero-router"]),
    ]
    assert [one.level["auc"] for one in found] == pytest.approx([76, 68])
    assert found[0].sizes == (70, 140, 350, 700)


def test_the_frame_has_numbers_and_bounds() -> None:
    mlp = rows("mlp", {0.1: 60, 0.2: 70, 0.5: 85, 1.0: 90})
    frame = label_frame([table(ZERO, rows("knn", dict.fromkeys(SIZES, 80.0)), mlp)])
    assert len(frame) == 3 * len(AREAS)
    row = frame[(frame["router"] == "mlp") & (frame["area"] == "auc_path")].iloc[0]
    assert (row["n_within_delta"], row["n_within_delta_bound"]) == (350, ">")
    assert (row["n_target"], row["n_target_bound"], row["target"]) == (350, "", pytest.approx(76))
    assert (row["overtaken_by"], row["overtaken_after"], row["overtaken_until"]) == ("mlp", 140, 350)


# The protocol's sentences once more, number by number, with nothing of the code above.


def bounds(d: Sequence[float], ratio: float, quantile: float) -> tuple[float, float]:
    k = len(d)
    mean = sum(d) / k
    variance = sum((x - mean) ** 2 for x in d) / (k - 1)
    half = float(stats.t.ppf(quantile, k - 1)) * math.sqrt(variance * (1 / k + ratio))
    return mean - half, mean + half


def brute_n_delta(values: Mapping[int, Sequence[float]], delta: float, ratio: float) -> str:
    *smaller, full = sorted(values)
    for n in smaller:
        later = [m for m in smaller if m >= n]
        if all(
            bounds([a - b for a, b in zip(values[full], values[m], strict=True)], ratio, 0.95)[1] < delta for m in later
        ):
            return f"≤ {n}" if n == smaller[0] else str(n)
    return f"> {smaller[-1]}"


def brute_target(values: Mapping[int, Sequence[float]], level: Sequence[float], ratio: float) -> list[str]:
    answers = []
    for side in ("mean", "upper", "lower"):
        answer = f"> {max(values)}"
        for n in sorted(values, reverse=True):
            d = [a - b for a, b in zip(values[n], level, strict=True)]
            low, high = bounds(d, ratio, 0.95)
            if {"mean": sum(d) / len(d), "upper": high, "lower": low}[side] < 0:
                break
            answer = f"≤ {n}" if n == min(values) else str(n)
        answers.append(answer)
    return answers


def brute_overtaking(
    router: Mapping[int, Sequence[float]], reference: Mapping[int, Sequence[float]], ratio: float
) -> str:
    shown = {}
    for n in router:
        low, high = bounds([a - b for a, b in zip(router[n], reference[n], strict=True)], ratio, 0.975)
        shown[n] = "ahead" if low > 0 else "behind" if high < 0 else "open"
    sizes = sorted(shown)
    for word, before, after in (("overtakes", "behind", "ahead"), ("is overtaken", "ahead", "behind")):
        pairs = [
            (a, b)
            for a in sizes
            for b in sizes
            if a < b
            and shown[a] == before
            and all(shown[n] == after for n in sizes if n >= b)
            and all(shown[n] != before for n in sizes if a < n)
            and not all(shown[n] == after for n in sizes if n >= max(m for m in sizes if m < b))
        ]
        if pairs:
            [(a, b)] = pairs
            return f"{word} between {a} and {b}"
    return "none shown"


def drawn(seed: int) -> dict[str, dict[float, Any]]:
    """Rising curves of three routers with noise on 5 to 11 splits."""
    rng = np.random.default_rng(seed)
    k, noise = int(rng.integers(5, 12)), float(rng.choice([0.3, 1.0]))
    starts = {"zero-router": 60.0, "knn": 61 + rng.normal(), "mlp": 61 + 4 * rng.normal()}
    curves = {}
    for name, start in starts.items():
        steps = np.cumsum(np.r_[start, rng.exponential(1.5, len(SIZES) - 1)])
        curves[name] = {size: mean + noise * rng.normal(size=k) for size, mean in zip(SIZES, steps, strict=True)}
    return curves


def test_against_brute_force() -> None:
    cases = {f"b{seed:02}": drawn(seed) for seed in range(30)}
    frames = [
        rows(name, own, seeds=range(len(own[1.0])), benchmark=benchmark)
        for benchmark, curves in cases.items()
        for name, own in curves.items()
    ]
    found = label_tables(pd.concat(frames, ignore_index=True), "knn", delta=1.5)
    seen = set()
    for one in found:
        by_n = {
            name: {SIZES[size]: list(map(float, values)) for size, values in own.items()}
            for name, own in cases[one.benchmark].items()
        }
        zero, knn = by_n["zero-router"][700], by_n["knn"][700]
        gains = bounds([b - a for a, b in zip(zero, knn, strict=True)], 2 / 7, 0.95)[0] > 0
        level = [a + 0.8 * (b - a) for a, b in zip(zero, knn, strict=True)]
        for row in one.rows:
            own, target = by_n[row.router], row.target["auc"]
            within = brute_n_delta(own, 1.5, 2 / 7)
            reached = brute_target(own, level, 2 / 7) if gains else ["no gain of knn over zero-router shown"] * 3
            crossing = "None" if row.router == "knn" else brute_overtaking(own, by_n["knn"], 2 / 7)
            assert str(row.within["auc"]) == within
            assert [str(target.estimate), str(target.earliest), str(target.latest)] == reached
            assert str(row.overtaking) == crossing
            seen |= {f"within {within[0]}", f"target {reached[0][0]}", crossing.split(" between")[0]}
    # Drawn curves are no use if they all say the same.
    wanted = {"within ≤", "within >", "within 1", "within 3", "target ≤", "target >", "target n", "target 3"}
    assert wanted | {"none shown", "overtakes", "is overtaken"} <= seen


def test_counts_grow_with_what_is_asked() -> None:
    rng = np.random.default_rng(7)
    own = rows("knn", {size: 80 - 10 / math.sqrt(n) + 0.2 * rng.normal(size=10) for size, n in SIZES.items()})
    found = [table(own, delta=delta).rows[0].within["auc"] for delta in (0.1, 0.3, 0.6, 1.0, 2.0)]

    def order(count: Count) -> tuple[int, bool]:
        assert count.n is not None
        return count.n, count.bound == ">"

    assert all(order(looser) <= order(stricter) for stricter, looser in pairwise(found))
    assert len({str(count) for count in found}) > 2
