"""The tables layout in its three formats, what it refuses, what it writes; and which source reads a path."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks import load, tables
from workers.benchmarks.base import Benchmark, Model, Source
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.tables import load_tables, save_tables
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}; set ROADTEST_SHARED")
TABLES = SHARED / "data" / "tables"

Row = dict[str, Any]

QUERIES: list[Row] = [
    {"query_id": "q2", "prompt": "Say, 'two'\nplease", "task": "b", "question": "same"},
    {"query_id": "q1", "prompt": "one", "task": "a", "question": "same"},
    {"query_id": "q10", "prompt": "ünï", "task": "a", "question": "other"},
]
OUTCOMES: list[Row] = [
    {"query_id": "q1", "model": "m", "score": 0.1, "cost": 0.25, "strict": 0.0},
    {"query_id": "q2", "model": "m", "score": 1.0, "cost": 0.5, "strict": 1.0},
    {"query_id": "q2", "model": "L", "score": None, "cost": 2.0, "strict": 1.0},
    {"query_id": "q10", "model": "L", "score": 0.75, "cost": 3.0, "strict": 0.5},
]


def write_csv(path: Path, rows: list[Row]) -> None:
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: list[Row]) -> None:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))


Writer = Callable[[Path, list[Row]], None]
WRITERS = pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])


def folder(
    path: Path,
    *,
    write: Writer = write_csv,
    queries: list[Row] = QUERIES,
    outcomes: list[Row] = OUTCOMES,
    meta: Any = None,
) -> Path:
    path.mkdir(exist_ok=True)
    write(path / "queries", queries)
    write(path / "outcomes", outcomes)
    if meta is not None:
        (path / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
    return path


def changed(rows: list[Row], position: int, **values: Any) -> list[Row]:
    return [{**row, **values} if i == position else row for i, row in enumerate(rows)]


@WRITERS
def test_the_three_formats_hold_the_same_benchmark(tmp_path: Path, write: Writer) -> None:
    b = load_tables(folder(tmp_path, write=write), name="mine")
    assert (b.name, b.suite, b.embedded) == ("mine", "mine", "prompt")
    assert b.queries == ("q1", "q10", "q2")
    assert b.texts == ("one", "ünï", "Say, 'two'\nplease")
    assert b.tasks == ("a", "a", "b")
    assert [model.name for model in b.models] == ["L", "m"]
    nan = np.nan
    np.testing.assert_array_equal(b.S, [[nan, 0.1], [0.75, nan], [nan, 1.0]])
    np.testing.assert_array_equal(b.C, [[nan, 0.25], [3.0, nan], [nan, 0.5]])


@WRITERS
def test_the_embedded_column_and_the_score_column_are_chosen(tmp_path: Path, write: Writer) -> None:
    b = load_benchmark("mine", path=folder(tmp_path, write=write), embed="question", score="strict")
    assert (b.embedded, b.texts) == ("question", ("same", "other", "same"))
    assert b.groups == ("q1", "q10", "q1")
    np.testing.assert_array_equal(b.S, [[np.nan, 0.0], [0.5, np.nan], [1.0, 1.0]])


def test_formats_may_differ_between_the_two_tables(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "queries", QUERIES)
    write_parquet(tmp_path / "outcomes", OUTCOMES)
    assert load_tables(tmp_path, name="x").fingerprint == load_tables(folder(tmp_path / "csv"), name="x").fingerprint


@WRITERS
def test_true_and_false_are_scores(tmp_path: Path, write: Writer) -> None:
    outcomes = [{**row, "score": i % 2 == 0} for i, row in enumerate(OUTCOMES)]
    b = load_tables(folder(tmp_path, write=write, outcomes=outcomes), name="x")
    np.testing.assert_array_equal(b.S, [[np.nan, 1.0], [0.0, np.nan], [1.0, 0.0]])


@WRITERS
def test_numeric_ids_are_text(tmp_path: Path, write: Writer) -> None:
    queries = [{"query_id": i, "prompt": f"p{i}"} for i in (2, 10, 1)]
    outcomes = [{"query_id": i, "model": 7, "score": 1, "cost": 1} for i in (1, 2, 10)]
    b = load_tables(folder(tmp_path, write=write, queries=queries, outcomes=outcomes), name="x")
    assert b.queries == ("1", "10", "2")
    assert b.models[0].name == "7"
    assert b.tasks == ("", "", "")


def test_words_that_csv_readers_take_for_gaps_stay_text(tmp_path: Path) -> None:
    queries = [{"query_id": "NA", "prompt": "null", "task": "None"}, {"query_id": "nan", "prompt": "", "task": ""}]
    outcomes = [{"query_id": "NA", "model": "n/a", "score": "1", "cost": " 2.5 "}]
    outcomes.append({"query_id": "nan", "model": "n/a", "score": "NaN", "cost": ""})
    b = load_tables(folder(tmp_path, queries=queries, outcomes=outcomes), name="x")
    assert (b.queries, b.texts, b.tasks) == (("NA", "nan"), ("null", ""), ("None", ""))
    assert (b.S[0, 0], b.C[0, 0], b.models[0].name) == (1.0, 2.5, "n/a")
    assert np.isnan(b.S[1, 0])


def test_numbers_of_text_files_are_exact(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random(200)
    queries = [{"query_id": f"{i:03}", "prompt": str(i)} for i in range(200)]
    outcomes = [
        {"query_id": f"{i:03}", "model": "m", "score": float(v), "cost": float(v) / 1e7} for i, v in enumerate(values)
    ]
    for write in (write_csv, write_jsonl):
        b = load_tables(folder(tmp_path / write.__name__, write=write, queries=queries, outcomes=outcomes), name="x")
        np.testing.assert_array_equal(b.S[:, 0], values)
        np.testing.assert_array_equal(b.C[:, 0], values / 1e7)


def test_families_and_prices_come_from_meta(tmp_path: Path) -> None:
    meta = {
        "suite": "shared",
        "licence": "MIT",
        "models": {"m": {"family": "Em", "price_in": 0.5, "price_out": 2}, "unused": {}},
        "pools": {"El": ["L", "unused"], "All": ["m", "unused"]},
    }
    b = load_tables(folder(tmp_path, meta=meta), name="x")
    assert b.models == (
        Model(name="L", family="El"),
        Model(name="m", family="Em", price_in=0.5, price_out=2),
    )
    assert (b.suite, b.meta["licence"]) == ("shared", "MIT")


def test_a_byte_order_mark_and_blank_lines_are_no_rows(tmp_path: Path) -> None:
    folder(tmp_path, write=write_jsonl)
    for name in ("queries.jsonl", "outcomes.jsonl"):
        text = (tmp_path / name).read_text(encoding="utf-8").replace("\n", "\n\n")
        (tmp_path / name).write_text("\ufeff" + text, encoding="utf-8")
    other = folder(tmp_path / "csv")
    (other / "queries.csv").write_text("\ufeff" + (other / "queries.csv").read_text("utf-8"), encoding="utf-8")
    assert load_tables(tmp_path, name="x").fingerprint == load_tables(other, name="x").fingerprint


DROP_COST = [{key: value for key, value in row.items() if key != "cost"} for row in OUTCOMES]
DROP_PROMPT = [{key: value for key, value in row.items() if key != "prompt"} for row in QUERIES]


@WRITERS
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outcomes": DROP_COST}, r"outcomes\.\w+: no column 'cost' \(columns: query_id, model, score, strict\)"),
        ({"queries": DROP_PROMPT}, r"queries\.\w+: no column 'prompt' \(columns: query_id, task, question\)"),
        ({"outcomes": changed(OUTCOMES, 1, cost=-0.5)}, r"row 2 \(query 'q2', model 'm'\): cost -0\.5 is negative"),
        ({"outcomes": changed(OUTCOMES, 1, cost=float("inf"))}, r"row 2 .*cost inf is negative or infinite"),
        ({"outcomes": changed(OUTCOMES, 3, score=1.5)}, r"row 4 \(query 'q10', model 'L'\): score 1\.5 is outside"),
        ({"outcomes": changed(OUTCOMES, 0, score=-0.1)}, r"row 1 .*score -0\.1 is outside \[0, 1\]; rescale"),
        ({"outcomes": [*OUTCOMES, OUTCOMES[1]]}, r"row 2 and row 5: query 'q2', model 'm' occurs twice"),
        ({"outcomes": changed(OUTCOMES, 2, query_id="q3")}, r"row 3: query_id 'q3' is not in queries\.\w+; add"),
        ({"queries": [*QUERIES, QUERIES[1]]}, r"row 2 and row 4: query_id 'q1' occurs twice"),
        ({"queries": changed(QUERIES, 1, query_id=None)}, r"row 2: no query_id; every row needs one"),
        ({"outcomes": changed(OUTCOMES, 1, model=None)}, r"row 2: no model; every row needs one"),
        ({"outcomes": [{**row, "score": None} for row in OUTCOMES]}, r"nothing is observed"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, write: Writer, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BenchmarkError, match=message):
        load_tables(folder(tmp_path, write=write, **changes), name="x")


@WRITERS
def test_a_score_that_is_no_number_is_named(tmp_path: Path, write: Writer) -> None:
    outcomes = [{**row, "score": word} for row, word in zip(OUTCOMES, ("0.5", "good", "1", "0"), strict=True)]
    with pytest.raises(BenchmarkError, match=r"outcomes\.\w+, row 2: score 'good' is not a number"):
        load_tables(folder(tmp_path, write=write, outcomes=outcomes), name="x")


def test_a_column_to_embed_that_is_not_there_is_named_with_the_others(tmp_path: Path) -> None:
    with pytest.raises(
        BenchmarkError, match=r"no column 'questoin' \(columns: .*question\); did you mean 'question'\?"
    ):
        load_tables(folder(tmp_path), name="x", embed="questoin")
    with pytest.raises(BenchmarkError, match=r"outcomes\.csv: no column 'score_lc' \(columns: query_id, model, score"):
        load_tables(folder(tmp_path), name="x", score="score_lc")


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "outcomes.csv").write_text("query_id,model,score,cost\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match=r"the pool is empty \(3 queries, 0 models\)"):
        load_tables(tmp_path, name="x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "outcomes.csv",
            b"query_id,model,score,cost\nq1,m,1,1\nq2,m,1,1,9\n",
            r"outcomes\.csv, row 2: malformed: Expected 4 columns, got 5",
        ),
        (
            "outcomes.csv",
            b"query_id,model,score,cost\nq1,m,1\n",
            r"outcomes\.csv, row 1: malformed: Expected 4 columns, got 3",
        ),
        ("outcomes.csv", b"", r"outcomes\.csv: the file is empty"),
        ("outcomes.csv", b"query_id,model,score,cost,cost\n", r"the column 'cost' is there twice"),
        ("outcomes.csv", b"query_id,model,score,cost\nq1,\xff,1,1\n", r"not a readable csv file \(.*utf-8"),
        ("outcomes.parquet", b"PAR1 but not really", r"outcomes\.parquet: not a readable parquet file"),
        ("outcomes.jsonl", b'{"query_id": "q1"}\n{"query_id": \n', r"outcomes\.jsonl, line 2: not usable JSON"),
        ("outcomes.jsonl", b'\n{"query_id": "\xff"}\n', r"outcomes\.jsonl, line 2: not usable JSON"),
        ("outcomes.jsonl", b"[1, 2]\n", r"line 1: not usable JSON \(not an object\)"),
        ("outcomes.jsonl", b'{"query_id": ["q1"]}\n', r"line 1: not usable JSON \(query_id holds a list\)"),
        ("outcomes.jsonl", b'{"query_id": "\\ud800"}\n', r"outcomes\.jsonl: not a readable jsonl file"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write_csv(tmp_path / "queries", QUERIES)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BenchmarkError, match=message):
        load_tables(tmp_path, name="x")


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ("{", r"meta\.json: not JSON"),
        ("[]", r"meta\.json: not a JSON object"),
        ('{"suite": 3}', r"'suite' holds int, not str"),
        ('{"models": {"m": 3}}', r"models\.m holds int, not an object"),
        ('{"models": {"m": {"price_in": "cheap"}}}', r"models\.m\.price_in 'cheap' is not a price"),
        ('{"models": {"m": {"price_out": -1}}}', r"models\.m\.price_out -1 is not a price"),
        ('{"pools": {"A": ["m"], "B": ["m"]}}', r"model 'm' is in the pools A and B; name its family"),
    ],
)
def test_a_bad_meta_is_named(tmp_path: Path, meta: str, message: str) -> None:
    (folder(tmp_path) / "meta.json").write_text(meta, encoding="utf-8")
    with pytest.raises(BenchmarkError, match=message):
        load_tables(tmp_path, name="x")


def test_a_missing_table_and_a_doubled_one_are_named(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "outcomes.csv").rename(tmp_path / "elsewhere.csv")
    with pytest.raises(BenchmarkError, match=r"no outcomes table; looked for outcomes\.parquet, outcomes\.csv"):
        load_benchmark("x", path=tmp_path)
    write_jsonl(tmp_path / "queries", QUERIES)
    with pytest.raises(BenchmarkError, match=r"both queries\.csv and queries\.jsonl are there; remove one"):
        load_benchmark("x", path=tmp_path)


def test_images_lie_beside_the_tables(tmp_path: Path) -> None:
    queries = [
        {**row, "image_path": path} for row, path in zip(QUERIES, ("images/i.png", "", "images/j.png"), strict=True)
    ]
    folder(tmp_path, queries=queries)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/i.png").write_bytes(b"picture")
    with pytest.raises(BenchmarkError, match=r"queries\.csv, row 3: its image .*images/j\.png is missing"):
        load_tables(tmp_path, name="x")
    (tmp_path / "images/j.png").write_bytes(b"picture")
    b = load_tables(tmp_path, name="x")
    assert b.images == (None, str(tmp_path / "images/j.png"), str(tmp_path / "images/i.png"))
    assert b.groups == ("q1", "q10", "q10")


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "images/../../secret.png"])
def test_an_image_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    with pytest.raises(BenchmarkError, match=r"row 1: image_path .* leaves the folder"):
        load_tables(folder(tmp_path / "in", queries=[{**QUERIES[0], "image_path": path}, *QUERIES[1:]]), name="x")


def rich(**changes: Any) -> Benchmark:
    """Everything that a folder must keep: images as bytes, a model and a query without outcomes, families, prices."""
    given: dict[str, Any] = {
        "name": "rich",
        "suite": "suite",
        "queries": ["a", "b", "c", "d"],
        "prompts": ["same", "same", "x", "y"],
        "texts": ["t1", "t2", 'quote " and\nline', ""],
        "images": [None, None, b"picture", None],
        "tasks": ["t", "u", "u", None],
        "models": [Model(name="m", family="F", price_in=1.0, price_out=2.5), Model(name="k"), Model(name="none")],
        "S": [[1 / 3, 0.1, np.nan], [0.0, np.nan, np.nan], [1.0, 1.0, np.nan], [np.nan, np.nan, np.nan]],
        "C": [[1e-7, 2.0, np.nan], [0.3, np.nan, np.nan], [1.0, 1.0, np.nan], [np.nan, np.nan, np.nan]],
        "embedded": "question",
        "meta": {"licence": "MIT", "models": {"m": {"size": "7B"}, "gone": {"family": "G"}}},
    }
    return Benchmark.build(**{**given, **changes})


def assert_same(found: Benchmark, expected: Benchmark) -> None:
    assert found.fingerprint == expected.fingerprint
    for field in (
        "suite",
        "embedded",
        "queries",
        "texts",
        "tasks",
        "groups",
        "source_groups",
        "models",
        "image_digests",
    ):
        assert getattr(found, field) == getattr(expected, field), field
    np.testing.assert_array_equal(found.S, expected.S)
    np.testing.assert_array_equal(found.C, expected.C)


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    b = rich()
    save_tables(b, tmp_path / "deep" / "saved")
    again = load_benchmark("other name", path=tmp_path / "deep" / "saved")
    assert again.name == "other name"
    assert_same(again, b)
    assert again.meta["licence"] == "MIT"
    assert again.meta["models"]["m"] == {"size": "7B", "family": "F", "price_in": 1.0, "price_out": 2.5}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["saved"], "no temporary folder is left"
    save_tables(again, tmp_path / "twice")
    assert_same(load_tables(tmp_path / "twice", name="x"), b)


def test_a_filtered_import_keeps_the_groups_of_its_source(tmp_path: Path) -> None:
    part = rich().restrict(tasks=["u"], models=["m", "k"])
    assert part.groups == ("a", "c")  # b's group is named by a query that is filtered away
    save_tables(part, tmp_path / "part")
    again = load_tables(tmp_path / "part", name="part")
    assert_same(again, part)
    assert again.source_groups == ("a", "c", "d")


def test_an_import_embeds_the_column_that_it_kept(tmp_path: Path) -> None:
    save_tables(rich(), tmp_path / "saved")
    assert load_tables(tmp_path / "saved", name="x", embed="question").fingerprint == rich().fingerprint
    with pytest.raises(
        BenchmarkError, match=r"keeps the column 'question' alone.*import its source again with --embed title"
    ):
        load_tables(tmp_path / "saved", name="x", embed="title")


def test_a_group_that_its_source_lacks_is_refused(tmp_path: Path) -> None:
    save_tables(rich(), tmp_path / "saved")
    meta = json.loads((tmp_path / "saved/meta.json").read_text())
    (tmp_path / "saved/meta.json").write_text(json.dumps({**meta, "source_groups": ["a", "c"]}))
    with pytest.raises(
        BenchmarkError, match=r"queries\.parquet, row 4: group 'd' is not in meta\.json's source_groups"
    ):
        load_tables(tmp_path / "saved", name="x")


def test_a_column_named_group_means_nothing_in_a_table_of_ones_own(tmp_path: Path) -> None:
    b = load_tables(folder(tmp_path, queries=[{**row, "group": "all"} for row in QUERIES]), name="x")
    assert b.groups == ("q1", "q10", "q2")


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(BenchmarkError, match=r"kept: exists already; remove it or choose another name"):
        save_tables(rich(), tmp_path / "kept")


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill_disk(benchmark: Benchmark, directory: Path) -> None:
        (directory / "queries.parquet").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tables, "_write", fill_disk)
    with pytest.raises(BenchmarkError, match=r"saved: cannot be written \(No space left on device\)"):
        save_tables(rich(), tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BenchmarkError, match=r"cannot be written \(Not a directory\)"):
        save_tables(rich(), tmp_path / "file" / "saved")


@needs_shared
@pytest.mark.parametrize(
    ("name", "embed", "n_queries", "n_models", "n_missing", "n_groups"),
    [
        # Sizes and missing cells as in data/README.md and each meta.json; groups counted below with pandas.
        ("routerbench_part", "question", 3164, 11, 3164 * 11 - 34736, None),
        ("alpacaeval2", "prompt", 805, 56, 0, None),
        ("mmlu_pro", "question", 11861, 30, 11861 * 30 - 354552, None),
        ("routerdc", "prompt", 20600, 7, 0, 20600 - 35),
        ("llmrouter", "prompt", 6108, 9, 0, 6108 - 119),
        ("visonlyqa", "prompt", 1200, 20, 0, None),
    ],
)
def test_the_shared_sets_load(
    name: str, embed: str, n_queries: int, n_models: int, n_missing: int, n_groups: int | None
) -> None:
    import pandas as pd

    b = load_benchmark(name, path=TABLES / name, embed=embed)
    assert (b.n_queries, b.n_models, int(np.isnan(b.S).sum())) == (n_queries, n_models, n_missing)
    outcomes = pd.read_parquet(TABLES / name / "outcomes.parquet")
    for array, column in ((b.S, "score"), (b.C, "cost")):
        expected = outcomes.pivot(index="query_id", columns="model", values=column)
        expected = expected.loc[list(b.queries), [model.name for model in b.models]]
        np.testing.assert_array_equal(array, expected.to_numpy())
    assert all(model.family for model in b.models)
    if n_groups is not None:
        assert len(b.source_groups) == n_groups
    if name == "visonlyqa":
        queries = pd.read_parquet(TABLES / name / "queries.parquet")
        contents = queries.image_path.map(lambda path: (TABLES / name / path).read_bytes())
        assert len(b.source_groups) == contents.nunique()


@needs_shared
def test_a_filtered_mmlu_pro_survives_the_round_trip(tmp_path: Path) -> None:
    part = load_benchmark("mmlu-pro", path=TABLES / "mmlu_pro", embed="question").restrict(
        tasks=["law"], family="Llama"
    )
    assert 0 < part.n_models < 30 and len(set(part.groups)) < len(part.source_groups)
    save_tables(part, tmp_path / "saved")
    assert_same(load_benchmark("mmlu-pro", path=tmp_path / "saved"), part)


class Embedded(Source):
    def load(self) -> Benchmark:
        return rich(name="rich")


def test_without_a_path_the_name_is_an_embedded_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "embedded_sources", lambda: {"rich": Embedded})
    assert load_benchmark("rich").fingerprint == rich().fingerprint
    assert load_benchmark("rich", embed="question").embedded == "question"
    with pytest.raises(BenchmarkError, match=r"no embedded benchmark 'ritch'; did you mean 'rich'\?.*needs a path"):
        load_benchmark("ritch")
    with pytest.raises(BenchmarkError, match=r"no column 'title' to embed \(columns: question\)"):
        load_benchmark("rich", embed="title")
    with pytest.raises(BenchmarkError, match=r"no score 'lc'"):
        load_benchmark("rich", score="lc")


def test_a_path_that_holds_no_benchmark_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match="no such file or folder"):
        load_benchmark("x", path=tmp_path / "nowhere")
    (tmp_path / "data.bin").write_bytes(b"")
    for path in (tmp_path, tmp_path / "data.bin"):
        with pytest.raises(BenchmarkError, match=r"no benchmark here\. Looked for .*queries.*RouterBench"):
            load_benchmark("x", path=path)


FURTHER: list[Row] = [
    {**OUTCOMES[0], "response": "yes", "confidence": 0.5, "verifier": 1.0, "margin": None, "input_tokens": 7},
    {**OUTCOMES[1], "response": 'no,\n"no"', "confidence": 0.0, "verifier": None, "margin": 0.25, "input_tokens": 9},
    {**OUTCOMES[2], "response": None, "confidence": None, "verifier": None, "margin": None, "input_tokens": 3},
    {**OUTCOMES[3], "response": "yes", "confidence": 1.0, "verifier": 0.0, "margin": 1.0, "input_tokens": None},
]


@WRITERS
def test_optional_columns_are_extras(tmp_path: Path, write: Writer) -> None:
    b = load_tables(folder(tmp_path, write=write, outcomes=FURTHER), name="x")
    nan = np.nan
    assert b.extras["response"].tolist() == [[None, "yes"], ["yes", None], [None, 'no,\n"no"']]
    np.testing.assert_array_equal(b.extras["confidence"], [[nan, 0.5], [1.0, nan], [nan, 0.0]])
    np.testing.assert_array_equal(b.extras["verifier"], [[nan, 1.0], [0.0, nan], [nan, nan]])
    np.testing.assert_array_equal(b.extras["margin"], [[nan, nan], [1.0, nan], [nan, 0.25]])
    np.testing.assert_array_equal(b.extras["input_tokens"], [[nan, 7.0], [nan, nan], [3.0, 9.0]])
    assert set(b.extras) == {"response", "confidence", "verifier", "margin", "input_tokens"}
    assert b.fingerprint == load_tables(folder(tmp_path / "plain", write=write), name="x").fingerprint


@pytest.mark.parametrize(("write", "there"), [(write_csv, None), (write_jsonl, ""), (write_parquet, "")])
def test_an_empty_answer_is_none_in_csv_alone(tmp_path: Path, write: Writer, there: str | None) -> None:
    outcomes = changed(FURTHER, 0, response="")
    assert load_tables(folder(tmp_path, write=write, outcomes=outcomes), name="x").extras["response"][0, 1] == there


@WRITERS
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("confidence", 1.5, r"row 2 \(query 'q2', model 'm'\): confidence 1\.5 is outside \[0, 1\]"),
        ("verifier", -0.1, r"row 2 .*: verifier -0\.1 is outside \[0, 1\]"),
        ("margin", 2.0, r"row 2 .*: margin 2\.0 is outside \[0, 1\]"),
        ("input_tokens", -1, r"row 2 .*: input_tokens -1\.0 is negative or infinite"),
    ],
)
def test_bad_optional_values_are_named(tmp_path: Path, write: Writer, name: str, value: float, message: str) -> None:
    with pytest.raises(BenchmarkError, match=r"outcomes\.\w+, " + message):
        load_tables(folder(tmp_path, write=write, outcomes=changed(FURTHER, 1, **{name: value})), name="x")


def test_a_column_without_any_value_offers_nothing(tmp_path: Path) -> None:
    outcomes = [{**row, "margin": None, "response": None} for row in FURTHER]
    b = load_tables(folder(tmp_path, write=write_parquet, outcomes=outcomes), name="x")
    assert not b.offers("margin") and not b.offers("response")
    assert b.offers("confidence") and not b.offers("samples")


SAMPLES: list[Row] = [
    {"query_id": "q1", "model": "m", "sample": 10, "score": 0.5, "cost": 4.0, "response": "ten", "confidence": 0.1},
    {"query_id": "q1", "model": "m", "sample": 9, "score": 1.0, "cost": 1.0, "response": "nine", "confidence": 0.9},
    {"query_id": "q2", "model": "m", "sample": 9, "score": None, "cost": 1.0, "response": "gone", "confidence": 0.2},
    {"query_id": "q2", "model": "m", "sample": 10, "score": 0.25, "cost": 1.0, "response": "two", "confidence": None},
    {"query_id": "q2", "model": "m", "sample": 11, "score": 0.5, "cost": 3.0, "response": "more", "confidence": 0.3},
    {"query_id": "q10", "model": "m", "sample": 1, "score": 0.5, "cost": None, "response": "lost", "confidence": 0.4},
]


@WRITERS
def test_samples_are_averaged_and_kept_in_order(tmp_path: Path, write: Writer) -> None:
    b = load_tables(folder(tmp_path, write=write, outcomes=SAMPLES), name="x")
    nan = np.nan
    np.testing.assert_array_equal(b.S, [[0.75], [nan], [0.375]])
    np.testing.assert_array_equal(b.C, [[2.5], [nan], [2.0]])
    # Sample 9 comes before 10; the first sample of q2 has no score, so its second is the first that counts.
    np.testing.assert_array_equal(b.extras["samples"], [[[1.0, 0.5]], [[nan, nan]], [[0.25, 0.5]]])
    assert b.extras["response"].tolist() == [["nine"], ["lost"], ["two"]]
    np.testing.assert_array_equal(b.extras["confidence"], [[0.9], [0.4], [nan]])


@WRITERS
def test_sample_ids_that_are_text_sort_by_code_points(tmp_path: Path, write: Writer) -> None:
    outcomes = [{**row, "sample": f"s{row['sample']}"} for row in SAMPLES]
    b = load_tables(folder(tmp_path, write=write, outcomes=outcomes), name="x")
    np.testing.assert_array_equal(b.extras["samples"][0, 0], [0.5, 1.0])
    assert b.extras["response"][0, 0] == "ten"


@WRITERS
def test_a_sample_that_occurs_twice_is_named(tmp_path: Path, write: Writer) -> None:
    with pytest.raises(BenchmarkError, match=r"row 1 and row 2: query 'q1', model 'm', sample '10' occurs twice"):
        load_tables(folder(tmp_path, write=write, outcomes=changed(SAMPLES, 1, sample=10)), name="x")
    with pytest.raises(BenchmarkError, match=r"row 4: no sample; every row needs one"):
        load_tables(folder(tmp_path, write=write, outcomes=changed(SAMPLES, 3, sample=None)), name="x")


def test_a_mean_of_equal_samples_is_that_value(tmp_path: Path) -> None:
    # 0.1 + 0.1 + 0.1 is not 3 * 0.1.
    outcomes = [{"query_id": "q1", "model": "m", "sample": i, "score": 0.1, "cost": 0.1} for i in range(3)]
    b = load_tables(folder(tmp_path, outcomes=outcomes), name="x")
    assert (b.S[0, 0], b.C[0, 0]) == (0.1, 0.1)


def test_optional_columns_survive_the_round_trip(tmp_path: Path) -> None:
    nan, shape = np.nan, (4, 3)
    rng = np.random.default_rng(0)
    response = np.array([None, "", "a\nb", "ünï"], dtype=object)[rng.integers(0, 4, size=shape)]
    extras = {
        "response": response,
        "margin": np.where(rng.random(shape) < 0.3, nan, rng.random(shape)),
        "input_tokens": rng.integers(0, 9, size=shape).astype(float),
        "samples": np.where(rng.random((*shape, 5)) < 0.3, nan, rng.random((*shape, 5))),
    }
    b = rich(extras=extras)
    for benchmark in (b, b.restrict(tasks=["u"], models=["m", "k"])):
        path = tmp_path / str(benchmark.n_queries)
        save_tables(benchmark, path)
        again = load_tables(path, name="x")
        assert_same(again, benchmark)
        assert again.extra_digests == benchmark.extra_digests
        assert set(again.extras) == set(extras)


def test_a_column_named_samples_means_nothing_in_a_table_of_ones_own(tmp_path: Path) -> None:
    for write in (write_csv, write_jsonl, write_parquet):
        outcomes = [{**row, "samples": 3 if write is write_csv else [1, 2]} for row in OUTCOMES]
        assert load_tables(folder(tmp_path / write.__name__, write=write, outcomes=outcomes), name="x").extras == {}
