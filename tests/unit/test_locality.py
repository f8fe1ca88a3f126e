from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workers.benchmarks.base import Benchmark, Model
from workers.encoders.fitted import fitted_rows
from workers.measures.locality import Locality
from workers.metrics.locality import centred, centred_by_task, correlation, dimension, merged
from workers.metrics.pair_bins import (
    PairBins,
    binned_correlation,
    curve,
    differences,
    row_correlations,
    undefined_share,
)
from workers.units import MeasureUnit


def unit(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    X = rng.normal(size=(n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def local_scores(X: np.ndarray, rng: np.random.Generator, m: int = 4) -> np.ndarray:
    return (X @ rng.normal(size=(X.shape[1], m)) + 0.3 * rng.normal(size=(len(X), m)) > 0).astype(float)


def test_the_correlation_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    X, Z = unit(40, 5, rng), centred(rng.random((40, 3)))
    i, j = np.triu_indices(40, 1)
    found = correlation(X, Z, np.random.default_rng(1), permutations=50)
    assert found is not None
    wanted, _ = stats.pearsonr((Z @ Z.T)[i, j], 1 - (X @ X.T)[i, j])
    assert found.value == pytest.approx(wanted, abs=1e-10)
    # The same permutations, every pair formed.
    stream = np.random.default_rng(1)
    null = []
    for _ in range(50):
        rows = Z[stream.permutation(40)]
        null.append(stats.pearsonr((rows @ rows.T)[i, j], 1 - (X @ X.T)[i, j])[0])
    assert found.p == (1 + sum(value <= wanted for value in null)) / 51
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(null, [0.025, 0.975])), abs=1e-10)


def test_pairs_of_one_task_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    tasks = np.array([0] * 9 + [1] * 12 + [2] * 2 + [3])  # one task has a single pair, one has none
    X, scores = unit(24, 5, rng), rng.random((24, 3))
    scores[4, 1] = np.nan
    Z = centred_by_task(scores, tasks)
    found = correlation(X, Z, np.random.default_rng(1), permutations=30, among=tasks)
    assert found is not None

    def pooled(rows: np.ndarray) -> float:
        apart, agree = [], []
        for task in range(4):
            own = np.flatnonzero(tasks == task)
            pairs = [(a, b) for a in own for b in own if a < b]
            distances = np.array([1 - X[a] @ X[b] for a, b in pairs])
            agreements = np.array([rows[a] @ rows[b] for a, b in pairs])
            if pairs:
                apart += list(distances - distances.mean())
                agree += list(agreements - agreements.mean())
        return float(np.dot(apart, agree) / np.sqrt(np.dot(apart, apart) * np.dot(agree, agree)))

    assert found.value == pytest.approx(pooled(Z), abs=1e-10)
    stream, null = np.random.default_rng(1), []
    for _ in range(30):
        order = np.concatenate([stream.permutation(np.flatnonzero(tasks == task)) for task in range(4)])
        null.append(pooled(Z[order]))
    assert found.p == (1 + sum(value <= found.value for value in null)) / 31


def test_binned_correlation_is_that_of_a_loop() -> None:
    rng = np.random.default_rng(2)
    X, scores = unit(20, 4, rng), (rng.random((20, 5)) < 0.5).astype(float)
    scores[rng.random((20, 5)) < 0.2] = np.nan
    scores[3] = np.nan
    agreement = np.full((20, 20), np.nan)
    for a in range(20):
        for b in range(20):
            both = ~np.isnan(scores[a]) & ~np.isnan(scores[b])
            if both.sum() > 1 and np.ptp(scores[a, both]) > 0 and np.ptp(scores[b, both]) > 0:
                agreement[a, b] = np.corrcoef(scores[a, both], scores[b, both])[0, 1]
    np.testing.assert_allclose(row_correlations(scores), agreement, atol=1e-12)
    pairs = sorted((np.linalg.norm(X[a] - X[b]), a, b) for a in range(20) for b in range(a + 1, 20))

    def value(order: np.ndarray) -> float:
        means = []
        for k in range(5):
            part = pairs[k * 38 : (k + 1) * 38]
            means.append(
                (np.mean([d for d, *_ in part]), np.nanmean([agreement[order[a], order[b]] for _, a, b in part]))
            )
        return float(np.corrcoef(np.array(means).T)[0, 1])

    bins = PairBins.of(X, bins=5)
    assert bins is not None
    found = binned_correlation(bins, row_correlations(scores), np.random.default_rng(1), permutations=25)
    assert found is not None
    assert found.value == pytest.approx(value(np.arange(20)), abs=1e-9)
    stream = np.random.default_rng(1)
    null = np.array([value(stream.permutation(20)) for _ in range(25)])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(null, [0.025, 0.975])), abs=1e-9)
    assert found.p == (1 + (np.abs(null) >= abs(found.value)).sum()) / 26
    assert undefined_share(bins, row_correlations(scores)) == np.mean([np.isnan(agreement[a, b]) for _, a, b in pairs])


def test_p_is_uniform_where_there_is_no_locality() -> None:
    values = []
    tasks = np.repeat([0, 1], 20)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        X, scores = unit(40, 6, rng), (rng.random((40, 5)) < 0.5).astype(float)
        bins = PairBins.of(X)
        assert bins is not None
        found = (
            correlation(X, centred(scores), rng, permutations=39),
            correlation(X, centred(scores), rng, permutations=39, within=tasks),
            correlation(X, centred(scores, rows=False), rng, permutations=39),
            correlation(X, centred_by_task(scores, tasks), rng, permutations=39, among=tasks),
            binned_correlation(bins, row_correlations(scores), rng, permutations=39),
        )
        values.append([one.p for one in found if one is not None])
    for p in zip(*values, strict=True):
        # Uniform on 1/40 ... 40/40: made continuous by a draw within each step.
        spread = np.array(p) - np.random.default_rng(0).random(len(p)) / 40
        assert stats.kstest(spread, "uniform").pvalue > 0.01


def test_locality_is_found_and_locality_between_tasks_alone_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    X = unit(300, 6, rng)
    found = correlation(X, centred(local_scores(X, rng)), rng, permutations=199)
    assert found is not None
    assert found.value < -0.1
    assert found.p == 1 / 200
    tasks = np.repeat([0, 1], 150)
    apart = X + 3 * np.eye(6)[tasks]
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    scores = (rng.random((300, 2)) < np.array([[0.9, 0.1], [0.1, 0.9]])[tasks]).astype(float)
    Z = centred(scores)
    anywhere = correlation(apart, Z, rng, permutations=199)
    inside = correlation(apart, Z, rng, permutations=199, within=tasks)
    same = correlation(apart, centred_by_task(scores, tasks), rng, permutations=199, among=tasks)
    assert anywhere is not None and inside is not None and same is not None
    assert anywhere.p == 1 / 200
    assert inside.p > 0.02
    assert same.p > 0.02
    assert same.low < same.value < same.high


def test_locality_within_tasks_is_found_beside_differences_between_them() -> None:
    """Where tasks differ most, the pairs between them drown what is local within: pairs of one task show it."""
    rng = np.random.default_rng(0)
    X, tasks = unit(300, 4, rng), np.repeat([0, 1, 2], 100)
    scores = np.where(tasks[:, None] == np.arange(3), 1.0, 0.0) * 3 + local_scores(X, rng, 3)
    same = correlation(X, centred_by_task(scores, tasks), rng, permutations=99, among=tasks)
    assert same is not None
    assert same.value < -0.1
    assert same.p == 0.01


def test_curves_lie_above_their_null_where_queries_are_near() -> None:
    rng = np.random.default_rng(0)
    X = unit(300, 4, rng)
    bins = PairBins.of(X, bins=10)
    assert bins is not None
    found = curve(bins, centred(local_scores(X, rng)), rng, permutations=99)
    assert found is not None
    assert found.agreement[0] > found.high[0]
    assert found.agreement[-1] < found.low[-1]
    assert (np.diff(found.distance) > 0).all()
    blind = curve(bins, centred(local_scores(unit(300, 4, rng), rng)), rng, permutations=99)
    assert blind is not None
    assert ((blind.agreement >= blind.low) & (blind.agreement <= blind.high)).mean() >= 0.6


def test_differences_are_those_of_the_pairs() -> None:
    rng = np.random.default_rng(0)
    X, values = unit(12, 3, rng), rng.random((12, 2))
    bins = PairBins.of(X, bins=1)
    assert bins is not None
    found = differences(bins, values)
    i, j = np.triu_indices(12, 1)
    apart = np.abs(values[i] - values[j])
    assert found[1][0] == pytest.approx(apart.mean())
    assert found[2][0] == pytest.approx(np.quantile(apart, 0.9))
    assert found[0][0] == pytest.approx(np.linalg.norm(X[i] - X[j], axis=1).mean())


@pytest.mark.parametrize(("d", "within"), [(2, 0.1), (5, 0.1), (10, 0.1), (20, 0.2)])
def test_the_dimension_of_gaussians_is_recovered(d: int, within: float) -> None:
    X = np.random.default_rng(0).normal(size=(3000, d))
    wide = X @ np.linalg.qr(np.random.default_rng(1).normal(size=(40, d)))[0].T
    assert dimension(wide) == pytest.approx(d, rel=within)


def test_the_dimension_of_a_cube_is_biased_low() -> None:
    found = dimension(np.random.default_rng(0).random((3000, 20)))
    assert found is not None
    assert found < 18


def test_unobserved_cells_and_equal_embeddings() -> None:
    X = np.array([[1, 0], [1, 0], [0, 1]], dtype=np.float32)
    rows, scores, tasks = merged(X, np.array([[1.0, np.nan], [0.0, 1.0], [1.0, np.nan]]), np.array([3, 4, 5]))
    order = np.argsort(rows[:, 0])
    np.testing.assert_array_equal(rows[order], [[0, 1], [1, 0]])
    np.testing.assert_array_equal(scores[order], [[1, np.nan], [0.5, 1]])
    assert tasks[order].tolist() == [5, 3]
    assert (centred(scores)[np.isnan(scores)] == 0).all()


def test_pairs_without_a_correlation_are_counted() -> None:
    nan = np.nan
    bins = PairBins.of(unit(4, 3, np.random.default_rng(0)), bins=1)
    assert bins is not None
    for scores in (
        [[1.0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 1, 1]],
        [[1.0, 0, 1], [nan, nan, nan], [0, 1, 1], [nan, 1, nan]],  # no cell and one cell are no variation
        [[1.0, 0, nan], [nan, 1, 0], [0, 1, nan], [0, nan, nan]],  # one cell in common
    ):
        assert undefined_share(bins, row_correlations(np.array(scores))) == pytest.approx(5 / 6)
    rng = np.random.default_rng(0)
    assert correlation(unit(5, 3, rng), np.zeros((5, 2)), rng, permutations=19) is None
    constant = row_correlations(np.ones((4, 3)))
    assert binned_correlation(bins, constant, rng, permutations=19) is None


def located(tasks: list[str], scores: np.ndarray, X: np.ndarray) -> dict[tuple[str, str], float | None]:
    """Findings of the measure that are one number, by quantity and label."""
    n, m = scores.shape
    benchmark = Benchmark.build(
        name="b",
        queries=[f"q{i:03d}" for i in range(n)],
        prompts=[f"p{i}" for i in range(n)],
        models=[Model(name=f"m{k}") for k in range(m)],
        S=scores,
        C=np.where(np.isnan(scores), np.nan, 0.5),
        tasks=tasks,
    )
    unit_ = MeasureUnit(key="", measure="locality", params={})
    found = Locality(permutations=19, doses=[1.0, 0.0]).findings(benchmark, X.astype(np.float32), unit_)
    for finding in found:
        assert all(v is None or np.isfinite(v) for v in (finding.x, finding.value, finding.low, finding.high))
    return {(f.quantity, f.label): f.value for f in found if f.x is None or f.quantity == "dosed_correlation"}


def test_the_measure_finds_every_correlation_beside_its_null() -> None:
    rng = np.random.default_rng(0)
    X = unit(120, 4, rng)
    scores = local_scores(X, rng)
    several = located(["a", "b"] * 60, scores, X)
    assert {label for quantity, label in several if quantity == "correlation"} == {"", "model-centred", "same task"}
    assert all(several["p", label] == 0.05 for label in ("", "model-centred", "same task"))
    assert several["binned_correlation", ""] < -0.5  # type: ignore[operator]
    assert several["binned_p", ""] == 0.05
    assert several["undefined_share", ""] == pytest.approx(
        1 - np.mean([np.ptp(scores[a]) > 0 and np.ptp(scores[b]) > 0 for a in range(120) for b in range(a + 1, 120)])
    )
    assert several["correlation", ""] == pytest.approx(several["dosed_correlation", ""], abs=1e-6)
    # Of one task there is nothing to tell apart.
    one = located(["a"] * 120, scores, X)
    assert ("p_within_task", "") not in one
    assert ("correlation", "same task") not in one
    assert one["correlation", ""] == several["correlation", ""]


def test_a_query_without_outcomes_and_a_pool_without_differences_are_measured_too() -> None:
    rng = np.random.default_rng(0)
    X, scores = unit(60, 4, rng), (rng.random((60, 3)) < 0.5).astype(float)
    scores[::7] = np.nan
    assert located(["a"] * 60, scores, X)["undefined_share", ""] < 1  # type: ignore[operator]
    same = located(["a"] * 60, np.ones((60, 3)), X)
    assert same["undefined_share", ""] == 1
    assert ("binned_correlation", "") not in same
    assert ("correlation", "") not in same


def test_a_dose_permutes_that_share_of_the_queries(random_sides) -> None:  # type: ignore[no-untyped-def]
    from workers.encoders.base import make_encoder

    _, queries = random_sides(n_train=10, n_queries=40, dim=5)
    rows = {}
    for fraction in (0.0, 0.5, 1.0):
        encoder = make_encoder("permuted", {"fraction": fraction})
        rows[fraction] = fitted_rows(encoder, queries)  # type: ignore[arg-type]
        assert sorted(map(tuple, rows[fraction].tolist())) == sorted(map(tuple, rows[0.0].tolist()))
    moved = {fraction: (found != rows[0.0]).any(axis=1).mean() for fraction, found in rows.items()}
    assert moved[0.0] == 0
    assert 0.4 <= moved[0.5] <= 0.5
    assert moved[1.0] > 0.85
