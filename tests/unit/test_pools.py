from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.pools import Pool, find_pool, keep_pool, match, pools, reprice
from workers.benchmarks.prices import Price, Prices, estimate_tokens
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared"))
PUBLISHED = SHARED / "published" / "li2025_model_pools.csv"
POOL = Pool(name="p", prices={name: Price(input=1, output=2) for name in ("GPT-4.1", "claude-2", "org/m_b", "z")})


def benchmark(*models: str, extras: bool = True, priced: bool = True) -> Benchmark:
    """Two queries; costs are tokens times 10 and 20 USD per 1M; the first model is unobserved once."""
    shape = (2, len(models))
    inputs, outputs = np.full(shape, 100.0), np.arange(1.0, 2 * len(models) + 1).reshape(shape)
    S = np.ones(shape)
    S[0, 0] = np.nan
    return Benchmark.build(
        name="b",
        queries=["q0", "q1"],
        prompts=["one", "two"],
        models=[Model(name=m, price_in=10.0 if priced else None, price_out=20.0 if priced else None) for m in models],
        S=S,
        C=(10 * inputs + 20 * outputs) / 1e6,
        extras={"input_tokens": inputs, "output_tokens": outputs} if extras else {},
    )


def test_names_are_matched_exactly_then_without_provider_then_loosely() -> None:
    found = match(POOL, ["openai/gpt-4-1", "claude-2", "anthropic/claude-2", "m_b", "other"], "b")
    assert found.found == {"claude-2": "claude-2", "m_b": "org/m_b", "openai/gpt-4-1": "GPT-4.1"}
    assert found.missing == ["z"]


def test_a_name_that_could_be_two_models_is_no_match() -> None:
    found = match(POOL, ["a/claude-2", "b/claude-2", "gpt-4.1", "GPT_4_1", "x/M-B", "z"], "b")
    assert found.found == {"x/M-B": "org/m_b", "z": "z"}
    assert found.missing == ["GPT-4.1 (could be gpt-4.1 or GPT_4_1)", "claude-2 (could be a/claude-2 or b/claude-2)"]


def test_fewer_than_two_models_of_a_pool_are_refused() -> None:
    with pytest.raises(BenchmarkError, match=r"of pool 'p' z is there; a pool needs two.*GPT-4\.1, claude-2.*has z, y"):
        match(POOL, ["z", "y"], "b")


def test_a_pool_keeps_its_models_at_its_prices_where_costs_are_tokens_times_price() -> None:
    whole = benchmark("claude-2", "other", "z")
    kept = keep_pool(whole, match(POOL, ["claude-2", "other", "z"], "b"))
    assert [(m.name, m.price_in, m.price_out) for m in kept.models] == [("claude-2", 1, 2), ("z", 1, 2)]
    # Row by row: 100 input tokens at 1, outputs 1, 3, 4 and 6 at 2 USD per 1M.
    np.testing.assert_allclose(kept.C * 1e6, [[np.nan, 106], [108, 112]])
    assert kept.meta["pool"] == {
        "name": "p",
        "models": {"claude-2": "claude-2", "z": "z"},
        "missing": ["GPT-4.1", "org/m_b"],
        "at_pool_prices": ["claude-2", "z"],
    }
    assert kept.source_groups == whole.source_groups


@pytest.mark.parametrize("lacking", ["tokens", "prices", "equality"])
def test_costs_that_are_not_tokens_times_price_stay(lacking: str) -> None:
    whole = benchmark("claude-2", "z", extras=lacking != "tokens", priced=lacking != "prices")
    if lacking == "equality":
        whole = Benchmark.build(
            name="b", queries=whole.queries, prompts=whole.texts, models=whole.models, S=whole.S, C=whole.C * 1.01,
            extras=whole.extras,
        )  # fmt: skip
    kept = keep_pool(whole, match(POOL, ["claude-2", "z"], "b"))
    np.testing.assert_array_equal(kept.C, whole.C)
    assert kept.meta["pool"]["at_pool_prices"] == []


def test_repricing_names_what_it_changed() -> None:
    repriced, models = reprice(benchmark("a", "b"), {"b": Price(input=0, output=1)}.get)
    assert models == ["b"]
    assert (repriced.C[:, 1] * 1e6).tolist() == pytest.approx([2, 4])
    assert repriced.fingerprint != benchmark("a", "b").fingerprint


def test_an_unknown_pool_names_the_nearest() -> None:
    with pytest.raises(BenchmarkError, match=r"no pool 'alpacaeval/opnai'; did you mean 'alpacaeval/openai'\?"):
        find_pool("alpacaeval/opnai")


def test_every_pool_model_has_a_dated_price_the_dearer_where_pools_differ() -> None:
    table = Prices.default().table
    assert "2025-05" in Prices.default().source
    members = [(pool, name, price) for pool in pools().values() for name, price in pool.prices.items()]
    assert len(members) == 85
    assert len(table) == len({name for _, name, _ in members}) == 66
    for name in table:
        assert table[name] == max((p for _, n, p in members if n == name), key=lambda p: (p.input, p.output))
    assert table["gpt-4"] == Price(input=30, output=60)
    assert find_pool("routerbench/all").prices["gpt-4"] == Price(input=10, output=30)


@pytest.mark.skipif(not PUBLISHED.exists(), reason=f"{PUBLISHED} is not here (ROADTEST_SHARED)")
def test_pools_are_those_that_were_published() -> None:
    with PUBLISHED.open() as file:
        rows = list(csv.DictReader(file))
    published: dict[str, dict[str, Price]] = {}
    for row in rows:
        price = Price(input=float(row["input_usd_per_1m_tokens"]), output=float(row["output_usd_per_1m_tokens"]))
        published.setdefault(f"{row['benchmark']}/{row['family']}", {})[row["model"]] = price
    assert {name: dict(pool.prices) for name, pool in pools().items()} == published


@pytest.mark.skipif(not (SHARED / "data/tables/alpacaeval2").exists(), reason="alpacaeval2 is not here")
def test_alpacaeval_at_the_papers_prices() -> None:
    path = SHARED / "data/tables/alpacaeval2"
    b = load_benchmark("alpacaeval2", path=path, pool="alpacaeval/claude")
    assert [m.name for m in b.models] == ["claude-2", "claude-2.1", "claude-instant-1.2"]
    assert b.meta["pool"]["at_pool_prices"] == [m.name for m in b.models]
    expected = 8 * b.extras["input_tokens"][:, 0] + 24 * b.extras["output_tokens"][:, 0]
    np.testing.assert_allclose(b.C[:, 0], expected / 1e6)
    assert b.n_queries == 805


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model,input\na,1\n", "no column 'output'"),
        ("model,input,output\na,1,2\na,1,3\n", "row 2: model 'a' stands twice"),
        ("model,input,output\na,-1,2\n", "row 1: prices of 'a'"),
        ("model,input,output\na,,2\n", "row 1: prices of 'a'"),
        ("model,input,output\na,inf,2\n", "row 1: prices of 'a'"),
        ("model,input,output\na,cheap,2\n", "'cheap' is not a number"),
    ],
)
def test_a_price_table_at_fault_is_named(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "p.csv"
    path.write_text(content)
    with pytest.raises(BenchmarkError) as error:
        Prices.read(path)
    assert words in str(error.value)


def test_prices_are_found_without_provider_and_organisation(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("model,input,output,image\norg/m,1,2,0.5\nm,3,4,\n")
    prices = Prices.read(path)
    assert prices.find("hf/org/m") == prices.find("org/m") == Price(input=1, output=2, image=0.5)
    assert prices.find("other/m") == prices.find("m") == Price(input=3, output=4)
    assert prices.find("n") is None
    assert prices.cost("org/m", input_tokens=10, output_tokens=5, n_images=2) == pytest.approx(20e-6 + 1)
    assert prices.cost("n", input_tokens=1, output_tokens=1) is None
    with pytest.raises(BenchmarkError, match="one of"):
        Prices.read(path.rename(tmp_path / "p.txt"))


def test_tokens_are_estimated_by_bytes() -> None:
    assert [estimate_tokens(text) for text in ("", "a", "abcd", "abcde", "中文字符", "\ud800")] == [0, 1, 1, 2, 3, 1]
