"""Which exponent does a curve of costs have? Made-up costs, nothing is timed."""

from __future__ import annotations

import pytest

from tests.benchmarks.growth import BASE, SIZES, curve, exponent


def test_a_power_law_has_its_exponent() -> None:
    assert exponent({n: 3e-6 * n**1.5 for n in (10, 100, 1000, 10_000)}) == pytest.approx(1.5)


def test_the_upper_half_counts() -> None:
    assert exponent({1: 7.0, 2: 1.0, 4: 4.0, 8: 16.0}) == pytest.approx(2)


def test_a_curve_varies_one_quantity() -> None:
    found = curve("knn", "n", lambda router, n, d, M, seeds: n * (d == BASE["d"]) * (BASE["M"] == M) * seeds)
    assert found["exponent"] == pytest.approx(1)
    assert found["seconds"] == {n: n * BASE["seeds"] for n in SIZES["n"]}
