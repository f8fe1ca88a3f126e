"""The tests across suites, the Bayesian reading and the bootstrap, against other implementations and by hand."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from baycomp import CorrelatedTTest
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from orchestrator.analysis.corrected_t import nadeau_bengio
from orchestrator.analysis.correlated_t import posterior
from orchestrator.analysis.random_effects import random_effects
from orchestrator.analysis.ranking import critical_difference, range_quantile, rank_routers
from orchestrator.analysis.resamples import paired_bootstrap
from orchestrator.analysis.signed_rank import refusal, signed_rank_p
from orchestrator.errors import AnalysisError

TIGHT = {"rel": 1e-10, "abs": 1e-10}


def suites(n: int, between: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    variances = rng.uniform(0.05, 1.0, n)
    return rng.normal(0.3, between, n) + rng.normal(0, np.sqrt(variances)), variances


@pytest.mark.parametrize("n", [2, 3, 7, 20])
@pytest.mark.parametrize("between", [0.0, 3.0])
def test_random_effects_against_statsmodels(n: int, between: float) -> None:
    effects, variances = suites(n, between)
    own = random_effects(effects, variances)
    other = combine_effects(effects, variances, method_re="iterated", use_t=True, atol=1e-11, maxiter=500)
    assert own.tau**2 == pytest.approx(other.tau2, **TIGHT)
    assert own.mean == pytest.approx(other.mean_effect_re, **TIGHT)
    assert own.q == pytest.approx(other.scale_hksj_re, **TIGHT)
    # Theirs is not held at 1: the modification makes it the larger of the two standard errors.
    modified = max(other.sd_eff_w_re_hksj, other.sd_eff_w_re)
    assert own.se == pytest.approx(modified, **TIGHT)
    half = stats.t.ppf(0.975, n - 1) * modified
    assert own.ci95 == pytest.approx((other.mean_effect_re - half, other.mean_effect_re + half), **TIGHT)
    if between:
        assert other.tau2 > 0
        # Where suites differ, q is 1 at Paule and Mandel's value, and the interval is theirs as it stands.
        assert own.ci95 == pytest.approx(other.conf_int(use_t=True)[3], **TIGHT)


def test_random_effects_by_hand() -> None:
    # Equal variances v: tau^2 = s^2 - v, the mean is plain, its standard error s / sqrt(N).
    own = random_effects([1.0, 3.0, 5.0], [1.0, 1.0, 1.0])
    t = stats.t.ppf(0.975, 2)
    assert (own.tau**2, own.mean, own.se, own.q) == pytest.approx((3.0, 3.0, 2 / math.sqrt(3), 1.0))
    assert own.p == pytest.approx(2 * stats.t.sf(3 / (2 / math.sqrt(3)), 2))
    assert own.prediction == pytest.approx((3 - t * math.sqrt(3 + 4 / 3), 3 + t * math.sqrt(3 + 4 / 3)))
    # Suites nearer to each other than their variances allow: tau is 0, and q < 1 does not narrow the interval.
    close = random_effects([1.0, 1.1, 0.9], [1.0, 1.0, 1.0])
    assert (close.tau, close.se) == pytest.approx((0.0, 1 / math.sqrt(3)))
    assert close.q < 1
    # Detectable at 80 %: the noncentral t at that mean rejects four times in five.
    assert stats.nct.sf(t, 2, own.detectable() / own.se) == pytest.approx(0.8)


def test_no_suite_is_known_exactly() -> None:
    floored = random_effects([0.0, 1.0, 0.5], [0.0, 0.2, 0.4])
    assert floored == random_effects([0.0, 1.0, 0.5], [0.2, 0.2, 0.4])
    same = random_effects([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])
    assert (same.mean, same.se, same.p, same.ci95) == (0.0, 0.0, 1.0, (0.0, 0.0))
    spread = random_effects([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert (spread.mean, spread.se) == pytest.approx((2.0, 1 / math.sqrt(3)))
    for bad in (([1.0], [1.0]), ([1.0, math.nan], [1.0, 1.0]), ([1.0, 2.0], [1.0, math.inf])):
        with pytest.raises(AnalysisError, match="at least 2"):
            random_effects(*bad)


@pytest.mark.parametrize("n", [1, 4, 9, 20, 40])
def test_signed_rank_against_scipy(n: int) -> None:
    d = np.random.default_rng(n).normal(0.4, 1, n)
    other = stats.wilcoxon(d, method="exact")
    count, rank_sum, p = signed_rank_p(d)
    assert (count, p) == (n, pytest.approx(other.pvalue, **TIGHT))
    assert min(rank_sum, n * (n + 1) / 2 - rank_sum) == other.statistic


def test_signed_rank_with_ties_and_zeros_is_exact() -> None:
    d = np.array([1.0, -1.0, 2.0, 2.0, 0.0, 3.0, -0.5, 1e-12])
    kept = d[np.abs(d) > 1e-9]
    ranks = stats.rankdata(np.abs(kept))
    observed = ranks[kept > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=len(kept))]
    by_hand = 2 * min(np.mean(np.array(sums) >= observed), np.mean(np.array(sums) <= observed))
    assert signed_rank_p(d) == (6, observed, pytest.approx(by_hand, **TIGHT))
    assert signed_rank_p([0.0, 0.0]) == (0, 0.0, 1.0)


def test_signed_rank_is_refused_when_it_can_find_nothing() -> None:
    # 2 / 2^6 = 0.031 <= 0.05, but not <= 0.05 / 2; nine comparisons take 2 / 2^N <= 0.0055: N = 9.
    assert refusal(6, 1, 0.05) == ""
    assert "with 6 suites that differ the smallest p is 0.0312" in refusal(6, 2, 0.05)
    assert refusal(6, 2, 0.05).endswith("it takes 7")
    assert refusal(8, 9, 0.05).endswith("it takes 9")
    assert refusal(9, 9, 0.05) == ""


def ranked(n: int, k: int, *, ties: bool) -> np.ndarray:
    table = np.random.default_rng(n * k).normal(0, 1, (n, k)) + np.linspace(0, 0.8, k)
    return table.round(0) if ties else table


@pytest.mark.parametrize(("n", "k"), [(4, 3), (12, 5), (30, 9)])
@pytest.mark.parametrize("ties", [False, True])
def test_friedman_against_scipy(n: int, k: int, ties: bool) -> None:
    table = ranked(n, k, ties=ties)
    own = rank_routers(table, [f"r{i}" for i in range(k)], [f"s{i}" for i in range(n)])
    other = stats.friedmanchisquare(*table.T).statistic
    f = (n - 1) * other / (n * (k - 1) - other)
    assert (own.chi_square, own.f) == pytest.approx((other, f), **TIGHT)
    assert own.p == pytest.approx(stats.f.sf(f, k - 1, (k - 1) * (n - 1)), **TIGHT)
    assert own.ranks == pytest.approx(stats.rankdata(-table, axis=1).mean(axis=0), **TIGHT)


def test_nemenyi_against_scikit_posthocs() -> None:
    import scikit_posthocs as posthocs

    table = ranked(12, 5, ties=False)
    own = rank_routers(table, list("abcde"), [str(i) for i in range(12)])
    p = posthocs.posthoc_nemenyi_friedman(table).to_numpy()
    for i, j in itertools.combinations(range(5), 2):
        distance = abs(own.ranks[i] - own.ranks[j])
        at = stats.studentized_range.sf(distance / math.sqrt(5 * 6 / (6 * 12)) * math.sqrt(2), 5, np.inf)
        assert p[i, j] == pytest.approx(at, **TIGHT)
        assert (distance > own.critical_difference) == (p[i, j] < 0.05)
    # Demsar 2006, table 5: q of two to five routers at 5 %.
    for k, q in {2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728}.items():
        assert critical_difference(k, 10) == pytest.approx(q * math.sqrt(k * (k + 1) / 60), rel=5e-4)


@pytest.mark.parametrize("k", [2, 7, 60])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_range_of_normals_against_scipy(k: int, level: float) -> None:
    assert range_quantile(level, k) == pytest.approx(stats.studentized_range.ppf(level, k, np.inf), rel=1e-8)


def test_nemenyi_p_is_level_at_the_critical_difference() -> None:
    import scikit_posthocs as posthocs

    table = ranked(12, 5, ties=False)
    ranks = stats.rankdata(-table, axis=1).mean(axis=0)
    widest = abs(np.subtract.outer(ranks, ranks)).max()
    p = posthocs.posthoc_nemenyi_friedman(table).to_numpy().min()
    assert critical_difference(5, 12, alpha=float(p)) == pytest.approx(widest, **TIGHT)


def test_suites_that_all_agree() -> None:
    own = rank_routers([[3.0, 2.0, 1.0]] * 3, ["a", "b", "c"], ["x", "y", "z"])
    # All three orders alike: (1 / 3!)^2, where F is infinite and says 0.
    assert (own.f, own.p, own.ranks) == (math.inf, pytest.approx(1 / 36), (1.0, 2.0, 3.0))
    tied = rank_routers([[3.0, 1.0, 1.0]] * 3, ["a", "b", "c"], ["x", "y", "z"])
    assert tied.p == pytest.approx(1 / 9)
    assert rank_routers([[1.0, 1.0], [2.0, 2.0]], ["a", "b"], ["x", "y"]).p == 1.0
    with pytest.raises(AnalysisError, match="without a gap"):
        rank_routers([[1.0, math.nan], [2.0, 2.0]], ["a", "b"], ["x", "y"])


def test_cliques_are_the_widest_groups_within_the_difference() -> None:
    own = rank_routers(ranked(30, 4, ties=False) + np.array([6, 3, 3, 0]), list("abcd"), [str(i) for i in range(30)])
    groups = {frozenset(group) for group in own.cliques}
    near = [
        frozenset(pair)
        for pair in itertools.combinations(range(4), 2)
        if abs(own.ranks[pair[0]] - own.ranks[pair[1]]) <= own.critical_difference
    ]
    assert near
    assert all(any({own.routers[i] for i in pair} <= group for group in groups) for pair in near)
    assert not any("a" in group for group in groups)


@pytest.mark.parametrize("k", [10, 20])
@pytest.mark.parametrize(("shift", "rope"), [(0.0, 1.0), (0.7, 0.5), (-3.0, 1.0)])
def test_correlated_t_against_baycomp(k: int, shift: float, rope: float) -> None:
    reference = np.random.default_rng(k).normal(80, 1, k)
    candidate = reference + np.random.default_rng(k + 1).normal(shift, 1, k)
    # baycomp takes its rho from the number of runs, K / 5 of five folds each: 0.2, a test side a quarter of the other.
    worse, practically, better = CorrelatedTTest(reference, candidate, rope, runs=k // 5).probs()
    own = posterior(nadeau_bengio(candidate - reference, 400, 100), rope)
    assert (own.worse, own.rope, own.better) == pytest.approx((worse, practically, better), **TIGHT)


def test_correlated_t_without_spread() -> None:
    for d, expected in ((0.5, (0.0, 1.0, 0.0)), (2.0, (1.0, 0.0, 0.0)), (-2.0, (0.0, 0.0, 1.0))):
        own = posterior(nadeau_bengio([d] * 10, 700, 200), 1.0)
        assert (own.better, own.rope, own.worse) == expected


def test_paired_bootstrap_by_hand() -> None:
    candidate = [np.array([1.0, 2.0, 6.0, math.nan]), np.array([3.0, 4.0, 2.0, math.nan])]
    reference = [np.array([0.0, 1.0, 1.0, math.nan, 9.0]), np.array([1.0, math.nan, 1.0, math.nan, 9.0])]
    own = paired_bootstrap([0.5, 1.5], candidate, reference)
    # Draw by draw: (1 + 2) / 2; 1, as the other split has no query there; (5 + 1) / 2. The last pairs with nothing.
    sd = float(np.std([1.5, 1.0, 3.0], ddof=1))
    assert (own.estimate, own.sd, own.draws, own.n_splits) == pytest.approx((1.0, sd, 3, 2))
    assert own.ci95 == pytest.approx((1 - 1.959963984540054 * sd, 1 + 1.959963984540054 * sd))
    for none in ([], [np.array([1.0])]):
        with pytest.raises(AnalysisError, match="resamples"):
            paired_bootstrap([0.0] * len(none), none, none)


def test_pairing_removes_what_two_routers_share() -> None:
    shared = np.random.default_rng(11).normal(0, 5, 100)
    own = paired_bootstrap([1.0], [70 + shared + 1], [70 + shared])
    assert own.sd == pytest.approx(0.0, abs=1e-9)


def test_tests_of_ours_are_a_package_of_their_own() -> None:
    """baycomp leaves a top-level package `tests` in site-packages."""
    import tests

    assert Path(tests.__file__ or "").parent == Path(__file__).parents[1]
