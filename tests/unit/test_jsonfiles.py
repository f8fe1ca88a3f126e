from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.benchmarks import jsonfiles
from workers.benchmarks.jsonfiles import read_items, read_lines, read_members, read_object, read_records
from workers.errors import BenchmarkError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def file(folder: Path, content: str | bytes, name: str = "x.json") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@settings(max_examples=50, deadline=None)
@given(items=st.lists(VALUES, max_size=5), indent=st.sampled_from([None, 2]), data=st.data())
def test_a_file_read_in_pieces_is_what_json_reads_and_a_cut_one_is_refused(
    tmp_path_factory: pytest.TempPathFactory, chunk: int, items: list[Any], indent: int | None, data: Any
) -> None:
    folder = tmp_path_factory.mktemp("json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonfiles, "_CHUNK", chunk)
        text = json.dumps(items, indent=indent, ensure_ascii=data.draw(st.booleans()))
        assert [item for _, item in read_items(file(folder, text))] == items
        whole = file(folder, json.dumps({"a": 1.5, "all": items, "z": [2]}, indent=indent))
        members = [(key, value) for key, _, value in read_members(whole, "all")]
        assert members == [("a", 1.5), *[("all", item) for item in items], ("z", [2])]
        cut = text[: data.draw(st.integers(0, len(text) - 1))]
        with pytest.raises(BenchmarkError, match="cut short"):
            list(read_items(file(folder, cut)))


def test_the_line_of_each_record_is_told(tmp_path: Path) -> None:
    assert list(read_records(file(tmp_path, '[\n {"a": 1},\n\n {"a": 2}]'))) == [(2, {"a": 1}), (4, {"a": 2})]
    assert list(read_records(file(tmp_path, '\ufeff{"a": 1}\n\n{"a": 2}\n'))) == [(1, {"a": 1}), (3, {"a": 2})]
    assert list(read_records(file(tmp_path, ""))) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"a": 1}\n{"a": ', "line 2: not usable JSON"),
        ('{"a": 1}\n3\n', "line 2: holds a number, not an object"),
        (b'{"a": "\xff"}', "line 1: not UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "not UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"a": 1}, 4]', "line 1: holds a number, not an object"),
        ('[{"a": 1}] more', "something follows"),
        ('[{"a": 1} {"a": 2}]', "',' expected"),
        ('[\n{"a": 1},\n{"a": tru', "line 3: not usable JSON"),
        (b'[{"a": "\xff"}]', "not UTF-8"),
        ('{"a": ' + "9" * 5000 + "}", "not usable JSON"),
    ],
)
def test_what_is_no_json_is_named_with_its_line(tmp_path: Path, content: str | bytes, words: str) -> None:
    with pytest.raises(BenchmarkError) as error:
        list(read_records(file(tmp_path, content)))
    assert words in str(error.value)
    assert "x.json" in str(error.value)


@pytest.mark.parametrize("begin", ['{"a": "', '[{"a": "', "[ "])
def test_a_record_of_100_mb_is_refused_before_it_is_held(tmp_path: Path, begin: str) -> None:
    path = tmp_path / "x.jsonl"
    with path.open("w") as out:
        out.write(begin)
        for _ in range(100):
            out.write("x" * (1 << 20))
    with pytest.raises(BenchmarkError, match="32 MB"):
        list(read_records(path))
    assert list(read_lines(file(tmp_path, '{"a": "' + "x" * 1000 + '"}'), most=2000))
    with pytest.raises(BenchmarkError, match="MB"):
        read_object(path, most=1 << 20)


def test_an_object_file_holds_an_object(tmp_path: Path) -> None:
    assert read_object(file(tmp_path, '{"a": NaN}')).keys() == {"a"}
    with pytest.raises(BenchmarkError, match="not a JSON object"):
        read_object(file(tmp_path, "[]"))
    with pytest.raises(BenchmarkError, match="cannot be read"):
        read_object(tmp_path)
    for content in ("{1: 2}", '{"a" 1}', "[]", '{"a": 1'):
        with pytest.raises(BenchmarkError, match="not usable JSON"):
            list(read_members(file(tmp_path, content), "samples"))


def peak(read: Callable[[Path], Iterable[Any]], path: Path) -> int:
    """Bytes that reading a file takes at most, when nothing is kept."""
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(path)) > 0
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("read", "begin", "between", "end"),
    [
        (read_lines, "", "\n", "\n"),
        (read_records, "", "\n", "\n"),
        (read_items, "[", ",\n", "]"),
        (read_records, "[", ",", "]"),
        (lambda path: read_members(path, "all"), '{"all": [', ",", "]}"),
    ],
    ids=["lines", "records of lines", "items", "records of an array", "members"],
)
def test_memory_does_not_grow_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Any, begin: str, between: str, end: str
) -> None:
    """The peak for 25 times as many records is the same but for a fifth; of what is kept it would be 25 times."""
    monkeypatch.setattr(jsonfiles, "_CHUNK", 4096)
    record = json.dumps({"text": "x" * 1000, "score": 1.5})

    def write(n: int) -> Path:
        return file(tmp_path, begin + between.join([record] * n) + end, f"{n}.json")

    small, large = write(40), write(1000)
    peak(read, small)  # what Python sets up once
    assert peak(read, large) < 1.2 * peak(read, small)
    assert peak(lambda path: list(read(path)), large) > 5 * peak(read, small), "so that the measure can tell"
