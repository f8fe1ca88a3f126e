from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from orchestrator.cli import output

#: Separators of lines that JSON leaves as they are, and those that it escapes.
ROWS: list[dict[str, Any]] = [
    {"unit": "a\u2028b\x85c", "seed": 1, "why": None},
    {"unit": 'line\nbreak\ttab "quoted"', "seed": 2.5, "why": {"deep": [1, "ä"]}},
    {"unit": "x", "seed": None, "why": []},
]


@pytest.mark.parametrize("rows", [[], ROWS[:1], ROWS])
def test_a_stream_of_rows_is_the_json_of_their_list(
    rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    output.print_rows((row for row in rows), as_json=True)
    assert capsys.readouterr().out == json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def test_nan_becomes_null_in_a_stream(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_rows([{"a": float("nan")}], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"a": None}]


def test_rows_are_written_before_the_next_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "TABLE_ROWS", 2)
    written = []

    def rows() -> Iterator[dict[str, Any]]:
        for row in ROWS * 3:
            written.append(capsys.readouterr().out)
            yield row

    for as_json in (True, False):
        written.clear()
        output.print_rows(rows(), as_json=as_json)
        assert all(written[4:]), "every row after those that a table could hold follows one that is out"


def test_more_rows_than_a_table_shows_are_lines_of_cells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "TABLE_ROWS", 2)
    output.print_rows(iter(ROWS), as_json=False)
    lines = capsys.readouterr().out.splitlines()
    cells = [line.split("\t") for line in lines]
    assert cells[0] == ["unit", "seed", "why"]
    assert cells[1] == ["a b c", "1", "–"]
    assert cells[2] == ['line break tab "quoted"', "2.5", "{'deep': [1, 'ä']}"]
    assert len(cells) == 4
    output.print_rows(iter(ROWS[:2]), as_json=False)
    assert "\t" not in capsys.readouterr().out
