"""Mirror twins have no true difference, and rates are what hand, closed form and other packages say."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats

from orchestrator.analysis.calibration import (
    LIMITS,
    Rate,
    calibration_frame,
    calibration_table,
    calibrations,
)
from orchestrator.analysis.corrected_t import nadeau_bengio
from orchestrator.catalog import EvaluatedBenchmark, load_encoders
from orchestrator.errors import AnalysisError, SweepError
from orchestrator.plan import plan_sweep
from orchestrator.sweep import Sweep
from workers.benchmarks.base import Benchmark, Model
from workers.evaluate import run_evaluate
from workers.measures.base import measures, run_measures
from workers.measures.calibration import Calibration, _differences, mirror_twins
from workers.units import EvaluateResult, Finding, MeasureResult, MeasureUnit, UnitFailure

UNIT = MeasureUnit(key="u", measure="calibration", params={}, root_seed=3)
N_TRAIN, N_TEST, K = 140, 40, 10


def measured(*, seed: int = 3, **params: Any) -> list[Finding]:
    asked = {"router": "knn", "params": {"k": 5}, "tuned": False, "n": 60, "batch": 0, "splits": 3, "bootstrap": 5}
    unit = MeasureUnit(key="u", measure="calibration", params={}, root_seed=seed)
    # The benchmark and the embedding of a sweep are not read.
    return Calibration(**{**asked, **params}).findings(None, None, unit)  # type: ignore[arg-type]


def frame(found: list[Finding], *, router: str = "r", n: int = 200, splits: int = K) -> pd.DataFrame:
    """Findings as the view has them."""
    params = json.dumps({"n": n, "splits": splits, "batch": 0})
    rows = [
        {"measure": "calibration", "router": router, "params": params, "unit_key": "k", **vars(one)} for one in found
    ]
    return pd.DataFrame(rows)


def made_up(
    mean: Any, sd: Any, *, wilcoxon_p: Any = 1.0, bootstrap_sd: Any = None, label: str = "auc_path", sizes: Any = None
) -> list[Finding]:
    """Findings of one design from numbers per repetition."""
    n_train, n_test = sizes or (N_TRAIN, N_TEST)
    found = [Finding(quantity="n_train", value=n_train), Finding(quantity="n_test", value=n_test)]
    columns = {"difference": mean, "sd": sd, "wilcoxon_p": np.broadcast_to(wilcoxon_p, len(mean))}
    if bootstrap_sd is not None:
        columns["bootstrap_sd"] = np.broadcast_to(bootstrap_sd, len(mean))
    return found + [
        Finding(quantity=name, label=label, x=float(i), value=float(value))
        for name, values in columns.items()
        for i, value in enumerate(values)
    ]


def test_views_are_alike_and_scores_depend_on_both_as_declared() -> None:
    n = 40_000
    data, (a, b) = mirror_twins(n, np.random.default_rng(0))
    assert np.linalg.norm(a, axis=1) == pytest.approx(np.ones(n), abs=1e-6)
    # E[score_m] = level_m, and E[score_m A_m] = 0.2 E[A_m^2] = 0.2 / 3 on the sphere, the same for B.
    error = 4 / math.sqrt(n)
    assert data.S.mean(axis=0) == pytest.approx([0.4, 0.5, 0.6], abs=0.5 * error)
    for view in (a, b):
        assert (data.S * view).mean(axis=0) == pytest.approx(np.full(3, 0.2 / 3), abs=0.58 * error)
    assert (a * b).sum(axis=1).mean() == pytest.approx(0.0, abs=0.58 * error)
    assert data.C.mean(axis=0) / 1e-4 == pytest.approx([0.1, 0.3, 1.0], rel=0.41 * error)
    assert len(data.source_groups) == n


def test_every_repetition_has_data_of_its_own_and_batches_join() -> None:
    together = measured(batch=0, repetitions=4)
    apart = measured(batch=0, repetitions=2) + measured(batch=1, repetitions=2)
    assert [one for one in apart if one.x is not None] == [one for one in together if one.x is not None]
    differences = [one.value for one in together if one.quantity == "difference" and one.label == "auc"]
    assert len(set(differences)) == 4
    assert [one.value for one in measured(batch=0, repetitions=4, seed=4)] != [one.value for one in together]
    assert {one.quantity: one.value for one in together if one.x is None} == {"n_train": 42.0, "n_test": 12.0}


def test_differences_by_hand_and_their_mirror_image() -> None:
    def result(auc: float, path: float, draws: list[float]) -> EvaluateResult:
        return EvaluateResult(
            key="",
            n_train=1,
            n_validation=1,
            n_test=1,
            metrics={"auc": auc, "auc_path": path},
            bootstrap=np.array(draws),
        )

    first = [result(51, 50, [1, 2, 6]), result(55, 50, [3, 2, 4]), result(53, 50, [0, 0, 0])]
    second = [result(50, 50, [0, 0, 0]), result(52, 50, [0, 0, 0]), result(51, 50, [1, 1, 1])]

    def numbers(*twins: list[EvaluateResult]) -> dict[tuple[str, str], float]:
        return {(one.quantity, one.label): one.value or 0.0 for one in _differences(*twins, repetition=7)}

    found = numbers(first, second)
    # Differences 1, 3, 2 and 0, 0, 0; the signed-rank test of three of one sign has p = 2 / 2^3.
    assert found["difference", "auc"] == 2.0
    assert found["sd", "auc"] == 1.0
    assert found["wilcoxon_p", "auc"] == 0.25
    assert (found["difference", "auc_path"], found["sd", "auc_path"], found["wilcoxon_p", "auc_path"]) == (0, 0, 1)
    # Mean draws (1 + 3 - 1) / 3, (2 + 2 - 1) / 3, (6 + 4 - 1) / 3 = 1, 1, 3.
    assert found["bootstrap_sd", "auc_path"] == pytest.approx(math.sqrt(4 / 3))
    signs = {key: -1.0 if key[0] == "difference" else 1.0 for key in found}
    assert numbers(second, first) == pytest.approx({key: signs[key] * value for key, value in found.items()})


@pytest.fixture(scope="module")
def small_study() -> pd.DataFrame:
    return frame(measured(n=200, splits=K, repetitions=50, bootstrap=20))


def test_a_small_study_is_calibrated_where_it_should_be_and_plain_tests_are_not(small_study: pd.DataFrame) -> None:
    for one in calibrations(small_study):
        assert (one.n, one.k, one.repetitions) == (200, K, 50)
        assert one.ratio == pytest.approx(2 / 7)
        assert abs(one.mean) < 3 * one.spread / math.sqrt(one.repetitions)
        corrected, plain = one.rates["nadeau_bengio"], one.rates["plain_t"]
        # The seed is fixed. A test of 7.5 % rejects more than 9 of 50 in one study of 280, one of 5 % 8 or more in one
        # of 314: the first may not happen to the corrected test, the second has to happen to the plain ones.
        assert corrected.hits <= 9
        assert plain.hits >= 8
        assert one.rates["wilcoxon"].hits >= 8
        assert one.rates["coverage_95"].hits == 50 - corrected.hits
        assert one.rates["tost_power"].hits >= 25
        assert one.rates["tost_at_margin"].hits <= 9
        assert one.rates["power_at_detectable"].hits >= 30
    assert [one.metric for one in calibrations(small_study)] == ["auc", "auc_path"]


def test_nothing_is_rejected_where_every_difference_is_exactly_nil() -> None:
    # A query-blind router is its own mirror twin: every difference is exactly 0, and nothing may be rejected.
    found = measured(router="zero-router", params={}, repetitions=3)
    one = calibrations(frame(found, splits=3))[0]
    hits = {name: rate.hits for name, rate in one.rates.items()}
    assert (one.mean, one.spread, one.se) == (0, 0, 0)
    assert (hits["nadeau_bengio"], hits["plain_t"], hits["wilcoxon"], hits["coverage_95"]) == (0, 0, 0, 3)


def test_rates_by_hand() -> None:
    # K = 4, ratio 1/4: se = sd / sqrt(2) = 1, 1, 2, 2; t(3) quantiles 3.182 and 2.353; plain se = sd / 2.
    sd = math.sqrt(2) * np.array([1.0, 1.0, 2.0, 2.0])
    found = made_up([3.0, -3.5, 2.9, 0.2], sd, wilcoxon_p=[0.125, 0.04, 0.05, 0.9], bootstrap_sd=1.5, sizes=(40, 10))
    (one,) = calibrations(frame(found, splits=4))
    hits = {name: rate.hits for name, rate in one.rates.items()}
    assert one.se == pytest.approx(math.sqrt((1 + 1 + 4 + 4) / 4))
    assert one.margin == pytest.approx(3 * math.sqrt(2.5))  # 4.743
    assert one.mean == pytest.approx(0.65)
    assert hits["nadeau_bengio"] == 1  # |t| = 3, 3.5, 1.45, 0.1
    assert hits["plain_t"] == 2  # |t| = 4.24, 4.95, 2.05, 0.14
    assert hits["wilcoxon"] == 1
    assert hits["coverage_95"] == 3
    assert hits["coverage_bootstrap"] == 2  # 1.96 * 1.5 = 2.94
    # |mean| + 2.353 se = 5.35, 5.85, 7.61, 4.91.
    assert hits["tost_power"] == 0
    # |mean - 4.743| + 2.353 se = 4.10 in the first; 10.6, 6.55, 9.25 in the others.
    assert hits["tost_at_margin"] == 1
    (wider,) = calibrations(frame(found, splits=4), margin=3.2)  # 5.06
    assert wider.rates["tost_power"].hits == 1


def test_many_at_once_are_the_tests_of_the_product_and_of_scipy() -> None:
    rng = np.random.default_rng(1)
    d = rng.normal(0.4, 1.0, size=(300, K)) + rng.normal(0, 0.5, size=(300, 1))
    wilcoxon_p = [stats.wilcoxon(row).pvalue for row in d]
    found = made_up(d.mean(axis=1), d.std(axis=1, ddof=1), wilcoxon_p=wilcoxon_p)
    (one,) = calibrations(frame(found), margin=2.0)

    def tests(shift: float) -> Any:
        return [nadeau_bengio(row - shift, N_TRAIN, N_TEST) for row in d]

    plain = tests(0.0)
    assert one.rates["nadeau_bengio"].hits == sum(test.p < 0.05 for test in plain)
    assert one.rates["coverage_95"].hits == sum(test.ci95[0] <= 0 <= test.ci95[1] for test in plain)
    assert one.rates["tost_power"].hits == sum(test.p_equivalent(one.margin) < 0.05 for test in plain)
    assert one.rates["tost_at_margin"].hits == sum(test.p_equivalent(one.margin) < 0.05 for test in tests(one.margin))
    assert one.rates["power_at_detectable"].hits == sum(test.p < 0.05 for test in tests(one.detectable))
    assert one.rates["plain_t"].hits == sum(stats.ttest_1samp(row, 0.0).pvalue < 0.05 for row in d)
    assert one.detectable**2 == pytest.approx(np.mean([test.detectable() ** 2 for test in plain]))


def test_rates_are_exact_where_splits_correlate_as_the_correction_assumes() -> None:
    # Normal differences of correlation rho = n_test / (n_test + n_train) make the corrected t exactly t(K - 1):
    # s^2 estimates sigma^2 (1 - rho), and 1/K + n_test/n_train = (1/K + (1 - 1/K) rho) / (1 - rho) of the mean.
    n, rho, rng = 6000, N_TEST / (N_TEST + N_TRAIN), np.random.default_rng(2)
    d = math.sqrt(rho) * rng.standard_normal((n, 1)) + math.sqrt(1 - rho) * rng.standard_normal((n, K))
    spread = math.sqrt(rho + (1 - rho) / K)
    mean, sd = d.mean(axis=1), d.std(axis=1, ddof=1)
    (one,) = calibrations(frame(made_up(mean, sd, bootstrap_sd=spread)))
    assert one.spread == pytest.approx(spread, rel=4 / math.sqrt(2 * n))
    assert one.se == pytest.approx(spread, rel=0.02)
    t95, t975 = stats.t.ppf([0.95, 0.975], K - 1)

    def power_of_equivalence(variance: float) -> float:
        room = 3 - t95 * math.sqrt(variance / (K - 1))
        return float(stats.chi2.pdf(variance, K - 1) * max(0.0, 2 * stats.norm.cdf(room) - 1))

    expected = {
        "nadeau_bengio": 0.05,
        "coverage_95": 0.95,
        "coverage_bootstrap": 0.95,
        "tost_at_margin": 0.05,
        "power_at_detectable": 0.8,
        "tost_power": integrate.quad(power_of_equivalence, 0, 60, limit=200)[0],
        # Without the correction t is sqrt(1 + K ratio) too long: 28 % instead of 5 %.
        "plain_t": 2 * stats.t.sf(t975 / math.sqrt(1 + K * N_TEST / N_TRAIN), K - 1),
    }
    assert expected["plain_t"] == pytest.approx(0.28, abs=0.005)
    for name, rate in expected.items():
        assert one.rates[name].value == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / n)), name
    assert one.outside == ()


def test_wilson_intervals_and_limits() -> None:
    z2 = stats.norm.ppf(0.975) ** 2
    assert Rate(hits=0, repetitions=100).interval == pytest.approx((0.0, z2 / (100 + z2)))
    assert Rate(hits=50, repetitions=100).interval == pytest.approx(
        (0.5 - 0.5 * math.sqrt(z2 / (100 + z2)), 0.5 + 0.5 * math.sqrt(z2 / (100 + z2)))
    )
    # Of 40 repetitions 3 are 7.5 %, which is on the limit; one more is outside of it.
    mean = np.zeros(40)
    mean[:3] = 9.0
    (on_it,) = calibrations(frame(made_up(mean, np.ones(40))))
    assert on_it.rates["nadeau_bengio"].value == LIMITS["nadeau_bengio"][1]
    assert not {"nadeau_bengio", "coverage_95"} & set(on_it.outside)
    mean[3] = 9.0
    (beyond,) = calibrations(frame(made_up(mean, np.ones(40))))
    assert {"nadeau_bengio", "coverage_95"} <= set(beyond.outside)


def test_tables_have_a_row_for_each_rate_and_each_design() -> None:
    mean, ones = np.zeros(20), np.ones(20)
    both = made_up(mean, ones, bootstrap_sd=1.0) + made_up(mean, ones, label="auc")
    rows = pd.concat([frame(both, router="a"), frame(both, router="b", n=400)])
    found = calibrations(pd.concat([rows, rows]))  # two encoders or benchmarks name the same drawn data
    assert [(one.router, one.n, one.metric, one.repetitions) for one in found] == [
        (router, n, metric, 20) for router, n in (("a", 200), ("b", 400)) for metric in ("auc_path", "auc")
    ]
    table = calibration_frame(found)
    assert len(table) == 2 * (8 + 7)
    inside = table.set_index(["router", "metric", "rate"])["inside"]
    assert inside["a", "auc", "nadeau_bengio"] is False  # 0 of 20 is below 2.5 %
    assert inside["a", "auc", "plain_t"] is None
    lines = calibration_table(found).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| a | 200 | auc_path | 20 | 0.0 ! |")
    assert lines[3].endswith("| – |")  # no bootstrap of `auc`
    with pytest.raises(AnalysisError, match="study: calibration"):
        calibrations(rows.assign(measure="scaling"))


def plan_of(**study: Any) -> Any:
    routers = [{"name": "knn@5", "use": "knn", "k": 5}, {"name": "knn tuned", "use": "knn"}, "oracle", "zero-router"]
    sweep = Sweep.from_dict(
        {
            "name": "s",
            "benchmarks": ["b"],
            "encoders": ["hash-ngrams"],
            "routers": routers,
            "seeds": 4,
            "protocol": {"bootstrap": 7, "tuning_budget": 3},
            "study": {"kind": "calibration", **study},
        }
    )
    names = [f"q{i}" for i in range(30)]
    found = Benchmark.build(
        name="b", queries=names, prompts=names, models=[Model(name="m")], S=np.ones((30, 1)), C=np.ones((30, 1))
    )
    evaluated = EvaluatedBenchmark(name="b", task=None, benchmark=found, source=found)
    return plan_sweep(sweep, [evaluated], load_encoders(sweep.encoders))


def test_a_sweep_plans_batches_of_each_router_that_reads_embeddings() -> None:
    planned = [one for one in plan_of(repetitions=50, drawn=[200, 400]).units if one.kind == "measure"]
    assert [(one.router, one.unit.params["n"], one.unit.params["batch"]) for one in planned] == [
        (router, n, batch) for router in ("knn@5", "knn tuned") for n in (200, 400) for batch in range(3)
    ]
    assert {one.unit.params["tuned"] for one in planned if one.router == "knn tuned"} == {True}
    assert len({one.key for one in planned}) == len(planned)
    first = planned[0].unit.params
    assert (first["splits"], first["bootstrap"], first["tuning_budget"], first["repetitions"]) == (4, 7, 3, 20)
    assert first["params"] == {"k": 5, "similarity": "cosine", "weights": "uniform", "tau": 0.1}
    Calibration(**first)
    assert all(one.kind != "evaluate" for one in plan_of(repetitions=50).units)
    with pytest.raises(SweepError, match=r"study\.drawn"):
        plan_of(drawn=[10])


def test_what_goes_wrong_comes_back_as_data() -> None:
    assert measures()["calibration"] is Calibration
    asked = {"router": "knn", "params": {"k": 5}, "tuned": False, "n": 40, "batch": 0, "splits": 2, "repetitions": 1}

    def run(**changes: Any) -> MeasureResult | UnitFailure:
        unit = MeasureUnit(key="u", measure="calibration", params={**asked, **changes}, root_seed=0)
        return run_measures([unit], None, None)[0]  # type: ignore[arg-type]

    good = run()
    assert isinstance(good, MeasureResult)
    assert len(good.findings) == 2 + 7
    for changes, message in (
        ({"params": {"k": 500}}, "calibration of router 'knn'.*k = 500"),
        ({"bootstrap": 0}, "bootstrap = 0"),
        ({"m": 1}, "no parameter 'm'"),
    ):
        bad = run(**changes)
        assert isinstance(bad, UnitFailure)
        assert bad.kind == "user_error"
        assert pd.Series([bad.message]).str.contains(message).all()


def test_twins_share_all_but_the_view_and_repetitions_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Benchmark, Any]] = []

    def spy(units: Any, benchmark: Benchmark, embedding: Any) -> Any:
        seen.append((units, benchmark, embedding))
        return run_evaluate(units, benchmark, embedding)

    monkeypatch.setattr("workers.measures.calibration.run_evaluate", spy)
    measured(repetitions=2)
    (first, data, a), (second, same, b), (other, fresh, c), _ = seen
    assert first == second
    assert data is same
    assert not (a == b).any()
    assert {unit.root_seed for unit in first}.isdisjoint(unit.root_seed for unit in other)
    assert not np.array_equal(data.S, fresh.S)
    assert not (a == c).any()
