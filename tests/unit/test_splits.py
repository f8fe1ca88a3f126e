"""Splits: hash order, sizes of the published reference, nothing straddles."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.load import load_benchmark
from workers.splits import split_benchmark

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}; set ROADTEST_SHARED")


def make(
    rows: list[tuple[str, str]], *, models: tuple[str, ...] = ("m1", "m2"), missing: tuple[str, ...] = ()
) -> Benchmark:
    """A benchmark of (query, prompt) rows; the queries in `missing` lack the last model."""
    S = np.ones((len(rows), len(models)))
    for i, (query, _) in enumerate(rows):
        if query in missing:
            S[i, -1] = np.nan
    return Benchmark.build(
        name="made",
        queries=[query for query, _ in rows],
        prompts=[prompt for _, prompt in rows],
        tasks=["even" if int(query[1:]) % 2 == 0 else "odd" for query, _ in rows],
        models=[Model(name=name) for name in models],
        S=S,
        C=np.ones_like(S),
    )


ROWS = [(f"q{i:03}", f"prompt {i}") for i in range(50)]


def test_sides_follow_the_hash_order_of_the_groups() -> None:
    b = make(ROWS)
    order = sorted(b.queries, key=lambda q: hashlib.sha256(f"s1|7|3|{q}".encode()).hexdigest())
    split = split_benchmark(b, 3, root_seed=7)
    assert [b.queries[i] for i in split.train] == sorted(order[:35])
    assert [b.queries[i] for i in split.validation] == sorted(order[35:40])
    assert [b.queries[i] for i in split.test] == sorted(order[40:])
    assert split.n_dropped == 0


@pytest.mark.parametrize(("n", "sizes"), [(13, (9, 1, 3)), (19, (13, 2, 4)), (10, (7, 1, 2)), (1, (0, 0, 1))])
def test_sizes_are_integer_arithmetic(n: int, sizes: tuple[int, int, int]) -> None:
    split = split_benchmark(make(ROWS[:n]), 0)
    assert (len(split.train), len(split.validation), len(split.test)) == sizes


def test_training_sizes_are_nested_and_rounded_up() -> None:
    b = make(ROWS)
    sides = [set(split_benchmark(b, 0, train_size=f).train.tolist()) for f in (0.1, 0.2, 0.5, 1.0)]
    assert [len(side) for side in sides] == [4, 7, 18, 35]  # ceil(f * 35); 0.2 * 35 is 7, not 8
    assert sides[0] < sides[1] < sides[2] < sides[3]


def test_a_whole_number_of_groups_is_not_rounded_up() -> None:
    b = make([(f"q{i:03}", f"prompt {i}") for i in range(143)])  # 100 groups train, and 0.07 * 100 > 7 in floats
    assert len(split_benchmark(b, 0, train_size=0.07).train) == 7


def test_incomplete_rows_train_but_neither_validate_nor_test() -> None:
    whole = split_benchmark(make(ROWS), 0)
    b = make(ROWS, missing=tuple(query for query, _ in ROWS[::2]))
    split = split_benchmark(b, 0)
    np.testing.assert_array_equal(split.train, whole.train)
    assert all(i % 2 == 1 for i in [*split.validation, *split.test])
    assert split.n_dropped == len(whole.validation) + len(whole.test) - len(split.validation) - len(split.test)


@given(
    rows=st.permutations(range(30)),
    models=st.permutations(["m1", "m2", "m3"]),
    index=st.integers(0, 5),
    train_size=st.sampled_from([0.1, 0.33, 1.0]),
)
@settings(max_examples=50, deadline=None)
def test_permuting_queries_and_models_changes_no_split(
    rows: list[int], models: list[str], index: int, train_size: float
) -> None:
    source = [(f"q{i:03}", f"prompt {i % 23}") for i in range(30)]
    before, after = make(source), make([source[i] for i in rows], models=tuple(models))
    assert split_sides(before, index, train_size) == split_sides(make(source, models=("z",)), index, train_size)
    assert split_sides(before, index, train_size) == split_sides(after, index, train_size)


def split_sides(b: Benchmark, index: int, train_size: float) -> list[list[str]]:
    split = split_benchmark(b, index, train_size=train_size)
    return [[b.queries[i] for i in side] for side in (split.train, split.validation, split.test)]


def test_a_task_restricts_the_split_of_its_source() -> None:
    b = make(ROWS)
    whole = split_sides(b, 2, 1.0)
    part = split_sides(b.restrict(tasks=["odd"]), 2, 1.0)
    assert part == [[query for query in side if int(query[1:]) % 2] for side in whole]


@given(prompts=st.lists(st.integers(0, 12), min_size=2, max_size=40), index=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_equal_prompts_never_straddle(prompts: list[int], index: int) -> None:
    b = make([(f"q{i:03}", f"prompt {p}") for i, p in enumerate(prompts)])
    split = split_benchmark(b, index)
    sides = [{b.texts[i] for i in side} for side in (split.train, split.validation, split.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert sum(map(len, (split.train, split.validation, split.test))) == len(prompts)


@needs_shared
def test_sizes_equal_those_of_the_reference() -> None:
    import pandas as pd

    reference = pd.read_csv(SHARED / "reference" / "routerbench_part.csv")
    source = load_benchmark("routerbench-part", path=SHARED / "data" / "tables" / "routerbench_part", embed="question")
    benchmarks = {f"routerbench-part/{task}": source.restrict(tasks=[task]) for task in set(source.tasks)}
    benchmarks["routerbench-part"] = source
    keys = ["benchmark", "split"]
    sizes = reference[[*keys, "n_train", "n_validation", "n_test"]].drop_duplicates()
    assert len(sizes) == 4 * 20
    for row in sizes.itertuples():
        split = split_benchmark(benchmarks[row.benchmark], row.split)
        found = (len(split.train), len(split.validation), len(split.test))
        assert found == (row.n_train, row.n_validation, row.n_test), (row.benchmark, row.split)


@needs_shared
def test_duplicated_prompts_of_llmrouter_never_straddle_a_split() -> None:
    import pandas as pd

    folder = SHARED / "data" / "tables" / "llmrouter"
    b = load_benchmark("llmrouter", path=folder)
    queries = pd.read_parquet(folder / "queries.parquet")
    assert queries.prompt.duplicated().sum() == 119
    prompts = queries.set_index("query_id").prompt.loc[list(b.queries)].to_numpy()
    for index in range(20):
        split = split_benchmark(b, index)
        sides = [set(prompts[side]) for side in (split.train, split.validation, split.test)]
        assert sum(map(len, sides)) == queries.prompt.nunique()
        assert sum(map(len, (split.train, split.validation, split.test))) == len(queries)


# shifts


def two_tasks(n: int = 400) -> Benchmark:
    """Models a and b; task v costs ten times as much as task u, of which there are fewer."""
    tasks = ["u" if i % 4 == 0 else "v" for i in range(n)]
    price = np.array([[1.0, 2.0] if task == "u" else [10.0, 20.0] for task in tasks])
    S = np.tile([0.0, 1.0], (n, 1))
    S[5, 0] = price[5, 0] = np.nan
    return Benchmark.build(
        name="two",
        queries=[f"q{i:03}" for i in range(n)],
        prompts=[f"p{i}" for i in range(n)],
        models=[Model(name="a"), Model(name="b")],
        S=S,
        C=price,
        tasks=tasks,
    )


@pytest.mark.parametrize(("trained_on", "tested_on"), [("u", "v"), ("v", "u"), ("u", "u")])
def test_a_shift_trains_on_one_task_and_tests_on_the_other(trained_on: str, tested_on: str) -> None:
    source = two_tasks()
    plain = split_benchmark(source, 3)
    shifted = source.shifted("s", trained_on=trained_on, tested_on=tested_on, n_train=50)
    split = split_benchmark(shifted, 3)

    def ids(benchmark: Benchmark, rows: np.ndarray) -> set[str]:
        return {benchmark.queries[i] for i in rows}

    def of(rows: np.ndarray, task: str) -> set[str]:
        return {source.queries[i] for i in rows if source.tasks[i] == task}

    assert len(split.train) == 50
    assert ids(shifted, split.train) < of(plain.train, trained_on)
    assert ids(shifted, split.validation) == of(plain.validation, trained_on)
    assert ids(shifted, split.test) == of(plain.test, tested_on)
    half = split_benchmark(shifted, 3, train_size=0.5)
    assert len(half.train) == 25
    assert ids(shifted, half.train) < ids(shifted, split.train)
    assert ids(shifted, half.test) == ids(shifted, split.test)


def test_the_tested_task_says_what_cost_1_is_and_pairs_are_told_apart() -> None:
    source = two_tasks()
    pairs = [source.shifted("s", trained_on=a, tested_on=b, n_train=50) for a in "uv" for b in "uv"]
    assert [pair.c_ref for pair in pairs] == [2.0, 20.0, 2.0, 20.0]
    assert len({pair.fingerprint for pair in [*pairs, source]}) == 5
    assert pairs[0].fingerprint != source.shifted("s", trained_on="u", tested_on="u", n_train=51).fingerprint


def test_every_cell_of_a_column_is_tested_on_the_same_queries() -> None:
    source = two_tasks()
    for tested_on in "uv":
        found = []
        for trained_on in "uv":
            pair = source.shifted("s", trained_on=trained_on, tested_on=tested_on, n_train=40)
            found.append({pair.queries[i] for i in split_benchmark(pair, 0).test})
        assert found[0] == found[1]
