from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from workers.encoders.fitted import fitted_rows
from workers.metrics.locality import centred, correlation, curve, differences, dimension, merged, undefined_share


def unit(n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    X = rng.normal(size=(n, d))
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def local_scores(X: np.ndarray, rng: np.random.Generator, m: int = 4) -> np.ndarray:
    return (X @ rng.normal(size=(X.shape[1], m)) + 0.3 * rng.normal(size=(len(X), m)) > 0).astype(float)


NO_TASKS = np.zeros(1000, dtype=np.int64)


def test_the_correlation_is_that_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    X, Z = unit(40, 5, rng), centred(rng.random((40, 3)))
    i, j = np.triu_indices(40, 1)
    found = correlation(X, Z, NO_TASKS[:40], np.random.default_rng(1), permutations=50)
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


def test_p_is_uniform_where_there_is_no_locality() -> None:
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = correlation(
            unit(60, 6, rng), centred((rng.random((60, 4)) < 0.5).astype(float)), NO_TASKS[:60], rng, permutations=99
        )
        assert found is not None
        values.append((found.p, found.p_within_task))
    for p in zip(*values, strict=True):
        assert stats.kstest(np.array(p) - 0.005, "uniform").pvalue > 0.01


def test_locality_is_found_and_locality_between_tasks_alone_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    X = unit(300, 6, rng)
    found = correlation(X, centred(local_scores(X, rng)), NO_TASKS[:300], rng, permutations=199)
    assert found is not None
    assert found.value < -0.1
    assert found.p == found.p_within_task == 1 / 200
    tasks = np.repeat([0, 1], 150)
    apart = X + 3 * np.eye(6)[tasks]
    apart /= np.linalg.norm(apart, axis=1, keepdims=True)
    scores = (rng.random((300, 2)) < np.array([[0.9, 0.1], [0.1, 0.9]])[tasks]).astype(float)
    between = correlation(apart, centred(scores), tasks, rng, permutations=199)
    assert between is not None
    assert between.p == 1 / 200
    assert between.p_within_task > 0.02


def test_curves_lie_above_their_null_where_queries_are_near() -> None:
    rng = np.random.default_rng(0)
    X = unit(300, 4, rng)
    found = curve(X, centred(local_scores(X, rng)), rng, bins=10, permutations=99)
    assert found is not None
    assert found.agreement[0] > found.high[0]
    assert found.agreement[-1] < found.low[-1]
    assert (np.diff(found.distance) > 0).all()
    blind = curve(X, centred(local_scores(unit(300, 4, rng), rng)), rng, bins=10, permutations=99)
    assert blind is not None
    assert ((blind.agreement >= blind.low) & (blind.agreement <= blind.high)).mean() >= 0.6


def test_differences_are_those_of_the_pairs() -> None:
    rng = np.random.default_rng(0)
    X, values = unit(12, 3, rng), rng.random((12, 2))
    found = differences(X, values, bins=1)
    assert found is not None
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
    assert undefined_share(np.array([[1.0, 0], [0, 0], [0, 1], [1, 1]])) == pytest.approx(1 - 2 / 12)
    nan = np.nan
    assert undefined_share(np.array([[1.0, 0], [nan, nan], [0, 1], [nan, 1]])) == pytest.approx(1 - 2 / 12)
    rng = np.random.default_rng(0)
    assert correlation(unit(5, 3, rng), np.zeros((5, 2)), NO_TASKS[:5], rng, permutations=19) is None


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
