"""RouterBench's wide CSV: layout, merged rows, prompts, and the real files."""

from __future__ import annotations

import ast
import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks.load import load_benchmark
from workers.benchmarks.routerbench import plain_prompt
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}; set ROADTEST_SHARED")
RAW = SHARED / "data" / "raw" / "routerbench"

A, B = "org/model-1.5", "b"


def row(sample: str, a: Any = "", a_cost: Any = "", b: Any = "", b_cost: Any = "", **others: Any) -> dict[str, Any]:
    return {
        "": "17",
        "sample_id": sample,
        "prompt": f"['{sample}?']",
        "eval_name": "arc-challenge",
        A: a,
        B: b,
        f"{A}|model_response": "['a\nb, \"c\"']",
        f"{A}|total_cost": a_cost,
        f"{B}|total_cost": b_cost,
        "oracle_model_to_route_to": "no_model_correct",
        **others,
    }


def write(path: Path, rows: list[dict[str, Any]], *, without: tuple[str, ...] = ()) -> Path:
    columns = [name for name in rows[0] if name not in without]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_wide_file_is_read(tmp_path: Path) -> None:
    rows = [row("s2", 1.0, 0.5, 0.25, 2), row("s1", 0.0, 0.1, "", 3.0, eval_name="mbpp")]
    b = load_benchmark("rb", path=write(tmp_path / "rb.csv", rows))
    assert (b.name, b.suite, b.queries, b.tasks) == ("rb", "rb", ("s1", "s2"), ("mbpp", "arc-challenge"))
    assert b.texts == ("s1?", "s2?")
    assert [model.name for model in b.models] == [B, A]
    np.testing.assert_array_equal(b.S, [[np.nan, 0.0], [0.25, 1.0]])
    np.testing.assert_array_equal(b.C, [[np.nan, 0.1], [2.0, 0.5]])


def test_half_filled_rows_are_merged_in_any_order_of_rows_and_files(tmp_path: Path) -> None:
    # The costs of the cells without a score belong to no score.
    halves = [row("s", "", 9.0, 1.0, 0.5), row("s", 0.5, 2.0, "", 8.0, prompt="['s?', 's?']")]
    other = row("t", 1, 1, 1, 1)
    fingerprints = set()
    for i, files in enumerate(([[*halves, other]], [[other, *halves[::-1]]], [[halves[1]], [other, halves[0]]])):
        folder = tmp_path / str(i)
        folder.mkdir()
        for j, rows in enumerate(files):
            write(folder / f"{j}.csv", rows)
        b = load_benchmark("rb", path=folder)
        np.testing.assert_array_equal(b.S, [[1.0, 0.5], [1.0, 1.0]])
        np.testing.assert_array_equal(b.C, [[0.5, 2.0], [1.0, 1.0]])
        fingerprints.add(b.fingerprint)
    assert len(fingerprints) == 1


def test_rows_that_agree_are_one_and_files_may_lack_models(tmp_path: Path) -> None:
    write(tmp_path / "1.csv", [row("s", 1, 2, 0, 1), row("s", 1, 2)])
    write(tmp_path / "2.csv", [row("u", 0.5, 4)], without=(B, f"{B}|total_cost"))
    b = load_benchmark("rb", path=tmp_path)
    np.testing.assert_array_equal(b.S, [[0.0, 1.0], [np.nan, 0.5]])
    np.testing.assert_array_equal(b.C, [[1.0, 2.0], [np.nan, 4.0]])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [row("t", 1, 1), row("s", 1, 2), row("s", 0, 2)],
            r"rb\.csv, row 2 and .*rb\.csv, row 3: sample_id 's' has two scores for model 'org/model-1\.5', 0\.0 and 1",
        ),
        ([row("s", 1, ""), row("s", 0, 2)], r"sample_id 's' has two scores"),
        ([row("s", 1, 2), row("s", 1, 3)], r"sample_id 's' has two costs for model 'org/model-1\.5', 2\.0 and 3\.0"),
        ([row("s", 1, 2), row("s", b=1, b_cost=1, prompt="['other']")], r"sample_id 's' has two texts in 'prompt'"),
        ([row("s", 1, 2), row("s", b=1, b_cost=1, eval_name="x")], r"sample_id 's' has two texts in 'eval_name'"),
        ([row("s", 1, 2), row("t", 1, -2)], r"rb\.csv, row 2: 'org/model-1\.5\|total_cost' is -2\.0; costs are USD"),
        ([row("s", 1, 2), row("t", 7, 2)], r"rb\.csv, row 2: 'org/model-1\.5' is 7\.0; scores are within \[0, 1\]"),
        ([row("s", 1, 2), row("t", "good", 2)], r"rb\.csv, row 2: org/model-1\.5 'good' is not a number"),
        ([row("s", 1, 2), row("", 1, 2)], r"rb\.csv, row 2: no sample_id"),
        ([row("s", "", 2)], r"nothing is observed"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("rb", path=write(tmp_path / "rb.csv", rows))


@pytest.mark.parametrize(
    ("without", "message"),
    [
        (("sample_id",), r"rb\.csv: no column 'sample_id' \(columns: "),
        (("eval_name",), r"no column 'eval_name'"),
        ((A,), r"no column 'org/model-1\.5'"),
        ((f"{A}|total_cost", f"{B}|total_cost"), r"not in RouterBench's wide layout: no column ends in '\|total_cost'"),
    ],
)
def test_missing_columns_are_named(tmp_path: Path, without: tuple[str, ...], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_benchmark("rb", path=write(tmp_path / "rb.csv", [row("s", 1, 1)], without=without))


def test_a_file_without_rows_is_an_empty_pool(tmp_path: Path) -> None:
    path = write(tmp_path / "rb.csv", [row("s")])
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"the pool is empty \(0 queries, 2 models\)"):
        load_benchmark("rb", path=path)


def test_another_column_may_be_embedded(tmp_path: Path) -> None:
    path = write(tmp_path / "rb.csv", [row("s", 1, 1, question="[short]"), row("t", 1, 1, question="[short]")])
    b = load_benchmark("rb", path=path, embed="question")
    assert (b.embedded, b.texts, b.groups) == ("question", ("[short]", "[short]"), ("s", "s"))
    with pytest.raises(BenchmarkError, match=r"no column 'title' \(columns: "):
        load_benchmark("rb", path=path, embed="title")
    with pytest.raises(BenchmarkError, match=r"no score 'score_lc'; RouterBench's wide layout has one score per model"):
        load_benchmark("rb", path=path, score="score_lc")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ("['one']", "one"),
        ("['it''s', \"a\\nb\"]", "its\na\nb"),
        ("['p', 'p']", "p"),
        ("plain", "plain"),
        ("[1] a footnote", "[1] a footnote"),
        ("[1, 2]", "[1, 2]"),
        ("[__import__('os').getcwd()]", "[__import__('os').getcwd()]"),
        ("[" * 5000, "[" * 5000),
        ("['a\0b']", "['a\0b']"),
        ("[]", ""),
        ("", ""),
    ],
)
def test_prompts_are_lists_in_a_string_or_plain_text(cell: str, text: str) -> None:
    assert plain_prompt(cell) == text


@needs_shared
def test_the_real_files() -> None:
    import pandas as pd

    b = load_benchmark("routerbench", path=RAW)
    raw = pd.concat([pd.read_csv(path) for path in sorted(RAW.glob("*.csv"))], ignore_index=True)
    assert int(raw.sample_id.duplicated().sum()) == 14
    assert (b.n_queries, b.n_models) == (3164, 11)
    assert b.complete.all(), "each pair of half-filled rows makes a whole one"
    models = [model.name for model in b.models]
    costs = raw[[f"{model}|total_cost" for model in models]].set_axis(models, axis=1).where(raw[models].notna())
    for array, frame in ((b.S, raw[models]), (b.C, costs)):
        merged = frame.groupby(raw.sample_id).first()  # the first value that is there
        np.testing.assert_array_equal(array, merged.loc[list(b.queries), models].to_numpy())
    prompts = dict(zip(raw.sample_id, raw.prompt.map(lambda cell: ast.literal_eval(cell)[0]), strict=True))
    assert b.texts == tuple(prompts[query] for query in b.queries)
    assert len(b.source_groups) == len(set(prompts.values()))


def response(model: str) -> str:
    return f"{model}|model_response"


def test_answers_belong_to_the_observed_score_of_their_row(tmp_path: Path) -> None:
    rows = [
        row("s", "", 9.0, 1.0, 0.5, **{response(A): "['not this']", response(B): "['b of s\\n']"}),
        row("s", 0.5, 2.0, "", 8.0, **{response(A): "['a of s', 'second turn']", response(B): "['nor this']"}),
        row("t", 1, 1, 0, 1, **{response(A): "plain", response(B): "['']"}),
        row("u", 1, 1, "", 1, **{response(A): "", response(B): "['unscored']"}),
    ]
    for i, order in enumerate((rows, rows[::-1])):
        b = load_benchmark("rb", path=write(tmp_path / f"{i}.csv", order))
        assert [model.name for model in b.models] == [B, A]
        expected = [["b of s\n", "a of s\nsecond turn"], ["", "plain"], [None, None]]
        assert b.extras["response"].tolist() == expected


def test_of_two_answers_with_one_score_the_first_by_code_points_is_kept(tmp_path: Path) -> None:
    rows = [row("s", 1, 2, **{response(A): "['z']"}), row("s", 1, 2, **{response(A): "['a']"})]
    for i, order in enumerate((rows, rows[::-1])):
        assert load_benchmark("rb", path=write(tmp_path / f"{i}.csv", order)).extras["response"][0, 1] == "a"


def test_without_answers_there_are_no_extras(tmp_path: Path) -> None:
    path = write(tmp_path / "rb.csv", [row("s", 1, 1, 1, 1)], without=(response(A),))
    assert load_benchmark("rb", path=path).extras == {}


@needs_shared
def test_the_real_answers() -> None:
    import pandas as pd

    b = load_benchmark("routerbench", path=RAW)
    raw = pd.concat([pd.read_csv(path) for path in sorted(RAW.glob("*.csv"))], ignore_index=True)
    models = [model.name for model in b.models]
    cells = raw[[response(model) for model in models]].set_axis(models, axis=1).where(raw[models].notna())
    merged = cells.groupby(raw.sample_id).first().loc[list(b.queries), models]
    assert b.extras["response"].tolist() == merged.map(lambda cell: ast.literal_eval(cell)[0]).to_numpy().tolist()
