from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.keys import SpecFamily, canonical_json, digest, text_key, unit_key

#: Specifications, their canonical text written by hand, and keys made of it by the tool sha256sum.
GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text(encoding="utf-8"))

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=10,
)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_published_keys_stay(case: dict[str, Any]) -> None:
    assert canonical_json(case["spec"]) == case["canonical"]
    assert unit_key(case["spec"]) == case["key"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (0.0, -0.0),
        (2, 2.0),
        (np.float64(2.0), 2),
        (np.int64(7), 7),
        (np.bool_(True), True),
        ((1, 2), [1, 2]),
        ({"a", "b", "c"}, ["a", "b", "c"]),
        (frozenset({3, 1, 2}), [1, 2, 3]),
        ({"a": 1, "b": 2}, {"b": 2.0, "a": 1.0}),
    ],
)
def test_spellings_of_one_value_are_one_key(one: Any, other: Any) -> None:
    assert digest({"x": one}) == digest({"x": other})


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (0, False), (1, "1"), (None, "null"), ([1, 2], [2, 1]), (0.1, 0.1 + 2e-17 + 1e-16)]
)
def test_different_values_are_different_keys(one: Any, other: Any) -> None:
    assert digest({"x": one}) != digest({"x": other})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan"), [1, float("nan")]])
def test_nan_and_infinity_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no place in a unit's key"):
        unit_key({"x": value})


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="object has no place"):
        unit_key({"x": object()})


@given(JSON)
def test_canonical_text_is_json_of_the_same_value_and_its_own_canonical_text(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON, min_size=2))
def test_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert digest(dict(reversed(value.items()))) == digest(value)


@given(st.dictionaries(TEXT, JSON), TEXT, JSON, JSON)
def test_a_family_of_specifications_has_the_keys_of_its_members(
    shared: dict[str, Any], field: str, one: Any, other: Any
) -> None:
    shared.pop(field, None)
    family = SpecFamily(shared, field)
    for value in (one, other, 7, None):
        spec = {**shared, field: value}
        assert family.spec(value) == spec
        assert family.text(value) == canonical_json(spec)
        assert text_key(family.text(value)) == unit_key(spec)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_a_family_has_the_published_keys(case: dict[str, Any]) -> None:
    for field in case["spec"]:
        family = SpecFamily({key: value for key, value in case["spec"].items() if key != field}, field)
        assert text_key(family.text(case["spec"][field])) == case["key"]
