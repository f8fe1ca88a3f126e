from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW

from orchestrator.analysis.corrected_t import detectable_factor, nadeau_bengio
from orchestrator.errors import AnalysisError

differences = st.lists(st.floats(-20, 20).map(lambda x: round(x, 3)), min_size=3, max_size=30)


def test_hand_calculation() -> None:
    # d = 1, 2, 3: mean 2, sd 1; 20 test to 70 train; variance 1/3 + 2/7 = 13/21.
    test = nadeau_bengio([1, 2, 3], 70, 20)
    assert test.mean == 2
    assert test.sd == 1
    assert test.se == pytest.approx(math.sqrt(13 / 21))
    assert test.t == pytest.approx(2 / math.sqrt(13 / 21))
    # With 2 degrees of freedom the t distribution has a closed form: P(|T| > t) = 1 - t / sqrt(2 + t^2).
    assert test.p == pytest.approx(1 - test.t / math.sqrt(2 + test.t**2))
    # ... and its 97.5 % quantile is 0.95 * sqrt(2 / (1 - 0.95^2)).
    half = 0.95 * math.sqrt(2 / (1 - 0.95**2)) * test.se
    assert test.ci95 == pytest.approx((2 - half, 2 + half))


def test_ratio_is_the_mean_over_splits() -> None:
    assert nadeau_bengio([1, 2], [100, 50], [20, 20]).ratio == pytest.approx((0.2 + 0.4) / 2)


@given(differences)
def test_without_overlap_it_is_the_one_sample_t(d: list[float]) -> None:
    if np.std(d) < 1e-6:
        return
    test, plain = nadeau_bengio(d, 1e18, 1), stats.ttest_1samp(d, 0)
    assert test.t == pytest.approx(plain.statistic, rel=1e-9, abs=1e-12)
    assert test.p == pytest.approx(plain.pvalue, rel=1e-9)
    assert test.ci90 == pytest.approx(tuple(plain.confidence_interval(0.9)), rel=1e-9, abs=1e-9)
    p, (_, p_above, _), (_, p_below, _) = DescrStatsW(d).ttost_mean(-1, 1)
    assert test.p_equivalent(1) == pytest.approx(p, rel=1e-9)
    assert (test.p_above(-1), test.p_below(1)) == pytest.approx((p_above, p_below), rel=1e-9)


@given(differences, st.integers(1, 60))
def test_is_the_correlated_t_with_rho(d: list[float], n_test: int) -> None:
    # baycomp's form: posterior t with scale sqrt(s^2 (1/K + rho / (1 - rho))), rho = n_test / (n_train + n_test).
    k, rho = len(d), n_test / (70 + n_test)
    scale = math.sqrt(np.var(d, ddof=1) * (1 / k + rho / (1 - rho)))
    if scale < 1e-6:
        return
    below_zero = stats.t.cdf(0, k - 1, loc=np.mean(d), scale=scale)
    assert nadeau_bengio(d, 70, n_test).p == pytest.approx(2 * min(below_zero, 1 - below_zero), rel=1e-6, abs=1e-12)


@given(differences, st.floats(0.1, 5))
def test_tost_rejects_exactly_when_the_90_percent_interval_is_inside(d: list[float], margin: float) -> None:
    test = nadeau_bengio(d, 70, 20)
    distance = min(test.ci90[0] + margin, margin - test.ci90[1])
    if abs(distance) > 1e-6:
        assert (test.p_equivalent(margin) < 0.05) == (distance > 0)


def test_identical_routers_do_not_differ() -> None:
    test = nadeau_bengio([1e-12, -1e-13] * 10, 70, 20)
    assert (test.mean, test.se, test.t, test.p, test.ci95) == (0, 0, 0, 1, (0, 0))
    assert test.p_equivalent(1) == 0


def test_a_constant_difference_is_beyond_doubt() -> None:
    test = nadeau_bengio([0.5] * 10, 70, 20)
    assert (test.t, test.p, test.ci95) == (math.inf, 0, (0.5, 0.5))
    assert test.p_equivalent(1) == 0
    assert test.p_equivalent(0.4) == 1
    assert nadeau_bengio([-0.5] * 10, 70, 20).t == -math.inf


def test_detectable_difference_of_the_protocol() -> None:
    assert [round(detectable_factor(k, 2 / 7), 2) for k in (5, 10, 20)] == [2.62, 1.96, 1.71]


@pytest.mark.parametrize("k", [5, 10, 20, 100])
def test_detectable_difference_against_statsmodels(k: int) -> None:
    # Its effect size d has noncentrality d * sqrt(K); the corrected test has sqrt(1/K + ratio) for its 1/sqrt(K).
    effect = TTestPower().solve_power(nobs=k, alpha=0.05, power=0.8, alternative="two-sided")
    assert detectable_factor(k, 2 / 7) == pytest.approx(effect * math.sqrt(k) * math.sqrt(1 / k + 2 / 7), rel=1e-5)


def test_detectable_scales_with_the_spread() -> None:
    test = nadeau_bengio([1.0, 3.0] * 10, 70, 20)
    assert test.detectable() == pytest.approx(1.7113 * math.sqrt(20 / 19), rel=1e-4)


def test_equivalence_limit_is_half_the_90_percent_interval() -> None:
    test = nadeau_bengio([1.0, 3.0, 2.0, 5.0], 70, 20)
    assert test.equivalence_limit() == pytest.approx((test.ci90[1] - test.ci90[0]) / 2)
    # At a difference of 0 this margin is just where the two one-sided tests reach 5 %.
    centred = nadeau_bengio(np.array([1.0, 3.0, 2.0, 5.0]) - 2.75, 70, 20)
    assert centred.p_equivalent(test.equivalence_limit()) == pytest.approx(0.05)


@pytest.mark.parametrize(("d", "n_train"), [([1.0], 70), ([1.0, math.nan], 70), ([1.0, 2.0], [70, 0])])
def test_refuses_what_cannot_be_tested(d: list[float], n_train: int | list[int]) -> None:
    with pytest.raises(AnalysisError):
        nadeau_bengio(d, n_train, 20)
