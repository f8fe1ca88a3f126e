"""Kendall's W against scipy and enumeration, and the paper's other claims on constructed sweeps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import permutations, product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.analysis.claim import NOT_MEASURED, Claim, claim_frame
from orchestrator.analysis.claims import claims
from orchestrator.analysis.comparisons import compare_to_reference
from orchestrator.analysis.concordance import concordance
from orchestrator.analysis.labels import label_tables
from orchestrator.errors import AnalysisError

#: A spread of mean 0: the corrected half-interval over 10 splits is 1.48.
WAVE = np.tile([1.0, -1.0], 5)
SPEC = {
    "routers": [
        {"name": "zero-router"}, {"name": "knn"}, {"name": "knn@10", "use": "knn"}, {"name": "knn@100", "use": "knn"},
        {"name": "linear"}, {"name": "mlp"},
    ]
}  # fmt: skip
NAMES = [entry["name"] for entry in SPEC["routers"]]
BENCHMARKS, ENCODERS, LARGER_K, DIMENSION, LOCALITY, LABELS = range(6)


def rows(router: str, auc: Any, **columns: Any) -> pd.DataFrame:
    """Results of one router over 10 splits; `auc_rel` is a hundredth of the area."""
    areas = np.broadcast_to(np.asarray(auc, dtype=float), 10)
    blind = router == "zero-router"
    plain = {
        "benchmark": "a", "suite": "a", "encoder": None if blind else "e", "router": router, "train_size": 1.0,
        "n_train": 700, "n_test": 200, "formulation": "utility", "utility_mean": 40.0, "privileged": False,
        "query_blind": blind, "twin_of": None, "sweep_position": NAMES.index(router),
        "chosen": None if "@" in router or blind else "{}", "tuning_seconds": None,
        "params": f'{{"k": {router.partition("@")[2]}}}' if "@" in router else "{}",
    }  # fmt: skip
    frame = pd.DataFrame({"seed": range(10), "auc": areas, "auc_path": areas, "auc_rel": areas / 100})
    return frame.assign(**{**plain, **columns})


def sweep(levels: Mapping[str, Any], **columns: Any) -> pd.DataFrame:
    return pd.concat([rows(router, auc, **columns) for router, auc in levels.items()], ignore_index=True)


def found(*frames: pd.DataFrame, findings: pd.DataFrame | None = None) -> list[Claim]:
    results = pd.concat(frames, ignore_index=True)
    made = compare_to_reference(results, "knn", spec=SPEC) if (results["router"] == "knn").any() else []
    labels = label_tables(results, "knn", spec=SPEC)
    return claims(results, reference="knn", spec=SPEC, comparisons=made, labels=labels, findings=findings)


def locality(values: Mapping[str, tuple[float, float]]) -> pd.DataFrame:
    """Findings of the measure by benchmark: dimension and correlation."""
    plain = {"measure": "locality", "encoder": "e", "label": "", "x": None}
    return pd.DataFrame(
        [
            {**plain, "benchmark": benchmark, "quantity": quantity, "value": value}
            for benchmark, pair in values.items()
            for quantity, value in zip(("dimension", "correlation"), pair, strict=True)
        ]
    )


@pytest.mark.parametrize("seed", range(5))
def test_w_is_friedmans_chi_square_over_its_largest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 4, size=(6, 5)).astype(float)  # with ties
    w = stats.friedmanchisquare(*values.T).statistic / (6 * 4)
    assert concordance(values, rng, draws=9).w == pytest.approx(w)


def test_w_by_hand() -> None:
    rng = np.random.default_rng(0)
    # Ranks 1 2 3, 1 3 2: sums 2 5 5 against 4 4 4, S = 6; W = 12 * 6 / (4 * 24) = 0.75.
    assert concordance([[9, 8, 7], [9, 7, 8]], rng).w == pytest.approx(0.75)
    assert concordance([[3, 2, 1], [30, 20, 10]], rng).w == pytest.approx(1)
    assert concordance([[3, 2, 1], [1, 2, 3]], rng).w == pytest.approx(0)
    assert math.isnan(concordance([[1, 1, 1], [2, 2, 2]], rng).w)
    for bad in ([[1, 2, 3]], [[1], [2]], [[1, np.nan], [1, 2]]):
        with pytest.raises(AnalysisError, match="2 rankings"):
            concordance(bad, rng)


def test_the_null_is_every_arrangement_where_there_are_few() -> None:
    values = np.array([[3.0, 2, 1], [3, 1, 2], [2, 3, 1]])
    result = concordance(values, np.random.default_rng(0))

    def w(ranks: np.ndarray) -> float:
        return float(12 * ((ranks.sum(axis=0) - 6) ** 2).sum() / (9 * 24))

    # All three rows run through their orders here; the code keeps the first row still.
    null = [w(np.array(chosen)) for chosen in product(permutations((1, 2, 3)), repeat=3)]
    assert result.exact
    assert result.arrangements == 36
    assert result.p == pytest.approx(np.mean([value >= result.w - 1e-12 for value in null]))
    assert result.null_95 == pytest.approx(np.quantile(null, 0.95, method="inverted_cdf"))
    # Two rankings of three agree by chance once in six.
    assert concordance([[3, 2, 1], [3, 2, 1]], np.random.default_rng(0)).p == pytest.approx(1 / 6)


def test_a_drawn_null_comes_near_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.array([[4.0, 3, 2, 1], [4, 2, 3, 1], [3, 4, 2, 1]])
    exact = concordance(values, np.random.default_rng(0))
    monkeypatch.setattr("orchestrator.analysis.concordance.ENUMERATED", 0)
    drawn = concordance(values, np.random.default_rng(0), draws=4000)
    assert (exact.exact, drawn.exact) == (True, False)
    assert drawn.p == pytest.approx(exact.p, abs=0.015)


def test_the_same_ranking_on_every_suite() -> None:
    level = {"zero-router": 60, "knn": 80, "knn@10": 70, "linear": 75, "mlp": 72}
    suites = [sweep(level, benchmark=name, suite=name) for name in "abcd"]
    row = found(*suites)[BENCHMARKS]
    # Of the routers that read the query, four. Friedman's chi-square of 4 blocks and 4 treatments is significant from
    # 7.8 on (tables of Friedman 1937), so 7.5 / (4 * 3) = 0.625 is the largest W below.
    text = "Kendall's W = 1.00 (95 % of random rankings up to 0.62, p < 0.001) over 4 suites and 4 routers"
    assert row.found == text
    assert row.verdict == "the same here"


def test_a_router_that_turns_refutes_it() -> None:
    level = {"knn": 80, "knn@10": 70, "mlp": 60}
    up, down = ({**level, "linear": 80 + sign * 5 + WAVE} for sign in (1, -1))
    row = found(sweep(up), sweep(down, benchmark="b", suite="b"))[BENCHMARKS]
    assert row.verdict == "refuted: linear shown better than knn on one benchmark and worse on another"
    row = found(sweep(up), sweep({**level, "linear": 79 + WAVE}, benchmark="b", suite="b"))[BENCHMARKS]
    assert row.verdict == "open: no more agreement than chance may give"


def test_benchmarks_of_a_suite_are_one_ranking() -> None:
    level = {"knn": 80, "linear": 75, "mlp": 72}
    one = [sweep(level, benchmark=name) for name in "abc"]
    assert found(*one)[BENCHMARKS].found == NOT_MEASURED
    row = found(*one, sweep(level, benchmark="d", suite="d"))[BENCHMARKS]
    assert "over 2 suites and 3 routers" in row.found


def test_a_router_that_is_absent_somewhere_is_named_and_not_ranked() -> None:
    level = {"knn": 80, "knn@10": 70, "linear": 75, "mlp": 72}
    other = sweep({name: auc for name, auc in level.items() if name != "mlp"}, benchmark="b", suite="b")
    row = found(sweep(level), other)[BENCHMARKS]
    assert row.found.endswith("over 2 suites and 3 routers, without mlp, absent somewhere")
    partly = sweep(level, benchmark="b", suite="b")
    partly = partly[(partly["router"] != "mlp") | (partly["seed"] < 9)]
    assert found(sweep(level), partly)[BENCHMARKS].found.endswith("without mlp, absent somewhere")


def test_rankings_under_encoders_leave_permuted_ones_out() -> None:
    level = {"knn": 80, "knn@10": 70, "linear": 75, "mlp": 72}
    other = sweep({"knn": 60, "knn@10": 70, "linear": 65, "mlp": 72}, encoder="f")
    row = found(sweep(level), other)[ENCODERS]
    # Ranks 1 4 2 3 and 4 2 3 1: sums 5 6 5 4 against 5 each, S = 2; W = 12 * 2 / (4 * 60) = 0.1.
    assert row.found.startswith("Kendall's W = 0.10 (")
    assert row.found.endswith("over 2 encoders and 4 routers on a")
    dosed = sweep(level, encoder="e, 50% permuted")
    assert found(sweep(level), dosed)[ENCODERS].found == NOT_MEASURED
    two = [sweep(level, benchmark="b"), sweep(level, benchmark="b", encoder="f")]
    row = found(sweep(level), other, *two)[ENCODERS]
    assert row.found == "Kendall's W 0.10 to 1.00, median 0.55, on 2 benchmarks"
    assert row.verdict == "alike beyond chance (p < 0.05, not adjusted) on 1 of 2 benchmarks"


def test_a_larger_k_is_asked_up_to_all_training_queries() -> None:
    row = found(sweep({"zero-router": 60, "knn": 80, "knn@10": 70 + WAVE, "knn@100": 75, "linear": 75}))[LARGER_K]
    assert row.found == (
        "k = 10 → 100: +5.00 AUC [+3.52, +6.48]; k = 100 → n_train (zero-router): −15.00 AUC [−15.00, −15.00]"
    )
    assert row.verdict == "refuted: shown worse at k = 100 → n_train (zero-router) on a"
    row = found(sweep({"zero-router": 80, "knn": 80, "knn@10": 70, "knn@100": 75}))[LARGER_K]
    assert row.verdict == "holds here"
    row = found(sweep({"zero-router": 80, "knn": 80, "knn@10": 75 + WAVE, "knn@100": 75}))[LARGER_K]
    assert row.verdict == "open: not shown at every step"
    assert found(sweep({"knn": 80, "knn@10": 75}))[LARGER_K].found == NOT_MEASURED


def test_a_larger_k_over_benchmarks_and_in_both_areas() -> None:
    a = sweep({"knn": 80, "knn@10": 70, "knn@100": 75})
    b = sweep({"knn": 80, "knn@10": 75, "knn@100": 74}, benchmark="b")
    row = found(a, b)[LARGER_K]
    assert row.found == "k = 10 → 100: −1.00 to +5.00 AUC, shown better on 1 and worse on 1 of 2 benchmarks"
    hull = a.assign(auc_path=a["auc"].where(a["router"] != "knn@100", 60.0))
    assert found(hull)[LARGER_K].verdict == "open: not shown at every step"
    few = a[a["seed"] < 9]
    assert (found(few)[LARGER_K].found, found(few)[LARGER_K].verdict) == (NOT_MEASURED, "takes 10 splits")


def test_dimension_and_locality_stand_beside_knns_advantage() -> None:
    advantage = {"a": 5.0, "b": 3.0, "c": 0.0, "d": 1.0}
    suites = [
        sweep({"knn": 80, "linear": 80 - lead, "mlp": 80 - lead}, benchmark=name, suite=name)
        for name, lead in advantage.items()
    ]
    measured = locality({"a": (2, -0.1), "b": (5, -0.3), "c": (12, -0.4), "d": (9, -0.2)})
    everything = found(*suites, findings=measured)
    # Dimensions 2 5 9 12 go with advantages 5 3 1 0: ρ = -1. Correlations rank 4 2 1 3 against 4 3 1 2: ρ = 0.8.
    assert everything[DIMENSION].found == "Spearman's ρ = −1.00 over 4 points of 4 suites"
    assert everything[DIMENSION].verdict == "runs the claimed way; a picture, no test"
    assert everything[LOCALITY].found == "Spearman's ρ = +0.80 over 4 points of 4 suites"
    assert everything[LOCALITY].verdict == "runs not the claimed way; a picture, no test"
    scatter = everything[DIMENSION].scatter
    assert scatter is not None
    assert scatter.points.set_index("name").loc["b, e"].tolist() == pytest.approx([5, 0.03])
    two = found(*suites[:2], findings=measured)[DIMENSION]
    assert two.verdict == "open: 2 points of 2 suites show no pattern"
    assert two.found.endswith(": a, e: 2 and +0.050; b, e: 5 and +0.030")
    assert found(*suites)[DIMENSION].found == NOT_MEASURED


def test_the_advantage_is_over_the_median_learned_router() -> None:
    frame = sweep({"knn": 80, "knn@10": 10, "linear": 75, "mlp": 71})
    scatter = found(frame, findings=locality({"a": (2, -0.1)}))[DIMENSION].scatter
    assert scatter is not None
    assert scatter.points["y"].tolist() == pytest.approx([0.80 - 0.73])


def curve(name: str, middle: float, *, shares: tuple[float, float] = (0.1, 0.5)) -> list[pd.DataFrame]:
    """kNN on a suite of this name: 60 at the smaller size, `middle` at the larger one, 80 at all 700 labels."""
    plain = {"benchmark": name, "suite": name}
    smaller = zip(shares, (60.0, middle), strict=True)
    return [
        sweep({"knn": 80, "linear": 75}, **plain),
        *(rows("knn", auc, train_size=share, n_train=round(700 * share), **plain) for share, auc in smaller),
    ]


def test_labels_are_a_share_beside_the_dimension() -> None:
    measured = locality({"a": (2, -0.1), "b": (9, -0.3), "c": (3, -0.3), "d": (12, -0.2)})
    exact = [*curve("a", 79.5, shares=(0.1, 0.3)), *curve("b", 79.5), *curve("c", 79.5, shares=(0.1, 0.4))]
    row = found(*exact, findings=measured)[LABELS]
    # Dimensions 2 9 3 beside shares 0.3 0.5 0.4: the same order.
    assert (row.found, row.verdict[:20]) == ("Spearman's ρ = +1.00 over 3 points of 3 suites", "runs the claimed way")
    assert row.scatter is not None
    assert row.scatter.points["y"].tolist() == pytest.approx([0.3, 0.5, 0.4])
    row = found(*exact, *curve("d", 70.0), findings=measured)[LABELS]
    assert row.found.endswith("over 4 points of 4 suites; 1 count censored, at its bound")


def test_censored_counts_show_no_pattern() -> None:
    measured = locality({"a": (2, -0.1), "b": (9, -0.3), "c": (3, -0.3)})
    frames = [*curve("a", 79.5), *curve("b", 70.0), *curve("c", 70.0, shares=(0.1, 0.3))]
    row = found(*frames, findings=measured)[LABELS]
    assert row.found == "3 points, 2 counts censored, at their bound"
    assert row.verdict == "open: too few exact counts"


def test_what_is_not_measured_says_what_it_takes() -> None:
    frame = claim_frame(found(sweep({"knn": 80, "linear": 75})))
    assert list(frame.columns) == ["claim", "found", "verdict"]
    assert len(frame) == 6
    assert (frame["found"] == NOT_MEASURED).all()
    assert frame["verdict"].str.startswith("takes ").all()
    shifted = found(sweep({"knn": 80, "linear": 75}).assign(trained_on="x"))
    assert all(not row.measured for row in shifted)
