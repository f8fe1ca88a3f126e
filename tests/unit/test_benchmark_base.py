"""Benchmark.build, groups, restrict and fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.benchmarks.base import Benchmark, Model, connected_groups
from workers.errors import BenchmarkError

NAN = float("nan")


def build(**changes: Any) -> Benchmark:
    given: dict[str, Any] = {
        "name": "small",
        "queries": ["b", "a", "c"],
        "prompts": ["two", "one", "three"],
        "models": [Model(name="x", family="Ex"), Model(name="A", family="Ay")],
        "S": [[0.5, 1.0], [0.0, 0.25], [NAN, 1.0]],
        "C": [[2.0, 1.0], [4.0, 3.0], [9.0, NAN]],
        "tasks": ["t2", "t1", "t1"],
    }
    return Benchmark.build(**{**given, **changes})


def test_queries_and_models_are_sorted_by_code_point() -> None:
    b = build()
    assert b.queries == ("a", "b", "c")
    assert [model.name for model in b.models] == ["A", "x"]
    assert b.tasks == ("t1", "t2", "t1")
    assert b.texts == ("one", "two", "three")
    np.testing.assert_array_equal(b.S, [[0.25, 0.0], [1.0, 0.5], [NAN, NAN]])
    np.testing.assert_array_equal(b.C, [[3.0, 4.0], [1.0, 2.0], [NAN, NAN]])


def test_a_score_or_a_cost_alone_is_not_observed() -> None:
    b = build()
    assert np.isnan(b.S[2]).all() and np.isnan(b.C[2]).all()
    np.testing.assert_array_equal(b.complete, [True, True, False])


def test_cost_one_is_the_largest_mean_observed_cost() -> None:
    assert build().c_ref == 3.0  # x: (4 + 2) / 2; A: (3 + 1) / 2
    assert build(C=[[0.0, 0.0]] * 3).c_ref == 0.0


def test_arrays_are_read_only_and_the_input_is_left_alone() -> None:
    S = np.array([[0.5, 1.0], [0.0, 0.25], [NAN, 1.0]])
    b = build(S=S)
    with pytest.raises(ValueError, match="read-only"):
        b.S[0, 0] = 1.0
    S[0, 0] = 0.75
    assert S[2, 1] == 1.0, "the unobserved cell of the caller's array is kept"
    assert b.S[1, 1] == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": ["a", "b", "a"]}, r"query_id 'a' occurs twice"),
        ({"models": [Model(name="A"), Model(name="A")]}, r"model 'A' occurs twice"),
        ({"S": [[0.5, 1.0], [0.0, 1.5], [NAN, 1.0]]}, r"query 'a', model 'A': score 1.5 outside \[0, 1\]"),
        ({"S": [[0.5, -0.1], [0.0, 0.5], [NAN, 1.0]]}, r"query 'b', model 'A': score -0.1 outside"),
        ({"S": [[0.5, np.inf], [0.0, 0.5], [NAN, 1.0]]}, r"score inf outside"),
        ({"C": [[2.0, 1.0], [-4.0, 3.0], [9.0, 1.0]]}, r"query 'a', model 'x': cost -4.0 is negative"),
        ({"C": [[2.0, 1.0], [np.inf, 3.0], [9.0, 1.0]]}, r"cost inf is negative or infinite"),
        ({"S": [[0.5], [0.5], [0.5]]}, r"scores \(3, 1\).*must both be \(3, 2\)"),
        ({"S": np.full((3, 2), NAN)}, r"nothing is observed"),
        ({"queries": [], "prompts": [], "tasks": [], "S": np.empty((0, 2)), "C": np.empty((0, 2))}, r"pool is empty"),
        ({"models": [], "S": np.empty((3, 0)), "C": np.empty((3, 0))}, r"pool is empty \(3 queries, 0 models\)"),
        ({"images": ["nowhere.png", None, None]}, r"query 'b': its image nowhere.png cannot be read"),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        build(**changes)


def test_messages_name_the_file_when_there_is_one() -> None:
    with pytest.raises(BenchmarkError, match=r"^data/outcomes\.csv: query_id 'a'"):
        build(queries=["a", "a", "c"], where="data/outcomes.csv")


def test_groups_join_equal_prompts_equal_texts_and_chains_of_both() -> None:
    groups = connected_groups(
        ["q1", "q2", "q3", "q4", "q5"],
        ["p", "other", "p", "third", "u"],
        ["t", "t", "u", "v", "w"],
        [None] * 5,
    )
    # q1-q3 share a prompt, q1-q2 a text; q5's prompt equals q3's text, which is no link.
    assert groups == ("q1", "q1", "q1", "q4", "q5")


def test_queries_with_images_group_by_the_image_alone() -> None:
    assert connected_groups(
        ["a", "b", "c", "d"], ["p", "p", "p", "q"], ["p", "p", "p", "q"], ["i", "j", None, "j"]
    ) == (
        "a",
        "b",
        "c",
        "b",
    )


def test_images_are_compared_by_content(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"same")
    b = build(images=[str(tmp_path / "one.png"), b"same", b"different"])
    assert b.groups == ("a", "a", "c")
    assert b.image_digests[0] == hashlib.sha256(b"same").hexdigest()


def brute_force_groups(prompts: Sequence[str], texts: Sequence[str], images: Sequence[str | None]) -> list[int]:
    """Spread the smallest index along every link until nothing moves."""
    n = len(prompts)
    label = list(range(n))
    linked = [
        (i, j)
        for i in range(n)
        for j in range(n)
        if (images[i] is not None and images[i] == images[j])
        or (images[i] is None and images[j] is None and (prompts[i] == prompts[j] or texts[i] == texts[j]))
    ]
    while True:
        new = list(label)
        for i, j in linked:
            new[i] = min(new[i], new[j])
        if new == label:
            return label
        label = new


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([None, None, "i", "j"])),
        min_size=1,
        max_size=12,
    )
)
def test_groups_are_the_connected_components(rows: list[tuple[str, str, str | None]]) -> None:
    prompts, texts, images = zip(*rows, strict=True)
    ids = [f"q{i:02}" for i in range(len(rows))]
    expected = tuple(ids[label] for label in brute_force_groups(prompts, texts, images))
    assert connected_groups(ids, prompts, texts, images) == expected


def test_restrict_keeps_the_groups_of_the_source() -> None:
    b = build(prompts=["same", "same", "three"])
    part = b.restrict(name="part", tasks=["t2"], models=["x"])
    assert (part.name, part.suite) == ("part", "small")
    assert part.queries == ("b",)
    assert part.groups == ("a",), "named by a query that the part lacks"
    assert part.source_groups == ("a", "c")
    np.testing.assert_array_equal(part.S, [[0.5]])
    assert part.c_ref == 2.0


def test_restrict_selects_families_whatever_their_case() -> None:
    assert [model.name for model in build().restrict(family="ay").models] == ["A"]


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"tasks": ["t3"]}, r"benchmark 'small': no task 't3'; did you mean 't[12]'\?"),
        ({"models": ["y"]}, r"no model 'y'; known: A, x"),
        ({"family": "Exx"}, r"no model of family 'Exx'; did you mean 'Ex'\?"),
        ({"models": ["x"], "family": "Ay"}, r"the filters leave 3 queries and 0 models; the pool is empty"),
        ({"tasks": []}, r"0 queries and 2 models; the pool is empty"),
        ({"n_queries": 4}, r"queries: 4 asked for, 3 there"),
    ],
)
def test_restrict_names_what_is_missing(filters: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        build().restrict(**filters)


def test_a_filter_that_leaves_nothing_observed_is_refused() -> None:
    with pytest.raises(BenchmarkError, match="no observed cell"):
        build(tasks=["t", "t", "empty"]).restrict(tasks=["empty"])


def test_subsamples_are_nested() -> None:
    n = 40
    b = build(
        queries=[f"q{i}" for i in range(n)],
        prompts=[f"p{i}" for i in range(n)],
        tasks=None,
        S=np.ones((n, 2)),
        C=np.ones((n, 2)),
    )
    sizes = [set(b.restrict(n_queries=k).queries) for k in (5, 17, 40)]
    assert [len(size) for size in sizes] == [5, 17, 40]
    assert sizes[0] < sizes[1] < sizes[2]


@given(st.permutations(range(3)), st.permutations(range(2)))
def test_the_order_of_queries_and_models_changes_nothing(rows: list[int], columns: list[int]) -> None:
    b = build()
    S, C = np.array([[0.5, 1.0], [0.0, 0.25], [NAN, 1.0]]), np.array([[2.0, 1.0], [4.0, 3.0], [9.0, NAN]])
    models = [Model(name="x", family="Ex"), Model(name="A", family="Ay")]
    other = build(
        queries=[["b", "a", "c"][i] for i in rows],
        prompts=[["two", "one", "three"][i] for i in rows],
        tasks=[["t2", "t1", "t1"][i] for i in rows],
        models=[models[j] for j in columns],
        S=S[np.ix_(rows, columns)],
        C=C[np.ix_(rows, columns)],
    )
    assert other.fingerprint == b.fingerprint
    assert (other.queries, other.models, other.groups, other.tasks) == (b.queries, b.models, b.groups, b.tasks)


@pytest.mark.parametrize(
    "changes",
    [
        {"queries": ["b", "a", "d"]},
        {"prompts": ["two", "one", "four"]},
        {"prompts": ["two", "two", "three"], "texts": ["two", "one", "three"]},  # groups alone
        {"tasks": ["t2", "t1", "t2"]},
        {"images": [b"i", None, None]},
        {"models": [Model(name="x"), Model(name="B")]},
        {"S": [[0.5, 1.0], [0.0, 0.25], [NAN, NAN]], "C": [[2.0, 1.0], [4.0, 3.5], [NAN, NAN]]},
        {"S": [[0.5, 1.0], [0.0, 0.5], [NAN, 1.0]]},
    ],
)
def test_every_part_of_the_content_is_in_the_fingerprint(changes: dict[str, Any]) -> None:
    assert build(**changes).fingerprint != build().fingerprint


def test_names_prices_and_notes_are_not_in_the_fingerprint() -> None:
    other = build(name="other", suite="s", meta={"k": 1}, models=[Model(name="x", price_in=1.0), Model(name="A")])
    assert other.fingerprint == build().fingerprint


def test_negative_zero_is_zero_in_the_fingerprint() -> None:
    S = [[0.5, 1.0], [-0.0, 0.25], [NAN, 1.0]]
    assert build(S=S).fingerprint == build().fingerprint


def test_the_groups_of_the_source_are_in_the_fingerprint() -> None:
    part = build().restrict(tasks=["t1"])
    alone = build(
        queries=["a", "c"],
        prompts=["one", "three"],
        tasks=["t1", "t1"],
        S=[[0.0, 0.25], [NAN, 1.0]],
        C=[[4.0, 3.0], [9.0, NAN]],
    )
    assert part.queries == alone.queries
    assert part.fingerprint != alone.fingerprint
