"""LLMRouter's routing data, on small files of its layout and, where they are there, on its authors' scores."""

from __future__ import annotations

import functools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from workers.benchmarks import llmrouter
from workers.benchmarks.base import Benchmark
from workers.benchmarks.jsonfiles import read_lines
from workers.benchmarks.llmrouter import LLMRouter
from workers.benchmarks.logs import ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared")) / "data" / "tables" / "llmrouter"
needs_table = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not here (ROADTEST_SHARED)")

HOSTILE = "<script>alert(1)</script>[bold]\x1b[2J\0\ud800"


def record(query: str = "q", model: str = "a", performance: Any = 1.0, **keys: Any) -> dict[str, Any]:
    return {
        "task_name": "gsm8k",
        "query": query,
        "ground_truth": "2",
        "metric": "GSM8K",
        "choices": None,
        "task_id": None,
        "model_name": model,
        "response": "so 2",
        "performance": performance,
        "embedding_id": 0,
        "token_num": 130,
        "input_tokens": 100,
        "output_tokens": 30,
        "user_id": None,
        "fig_id": None,
        **keys,
    }


def write(folder: Path, side: str, *records: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"default_routing_{side}_data.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return path


def write_candidates(path: Path, **prices: tuple[float, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {name: {"size": "8B", "input_price": i, "output_price": o} for name, (i, o) in prices.items()}
    path.write_text(json.dumps(rows))


def read(path: Path, **options: Any) -> Benchmark:
    return read_logs(path, LLMRouter, name="x", options=ReadOptions(**options))


def test_sides_are_joined_at_the_candidates_prices(tmp_path: Path) -> None:
    """The layout of a download; a question whose models are on both sides is one question."""
    write(tmp_path / "data/default_data", "train", record("p"), record("p", "b", 0.25), record("q", "b", None))
    write(tmp_path / "data/default_data", "test", record("q", "a", 0))
    write_candidates(tmp_path / "data/example_data/llm_candidates/default_llm.json", a=(0.2, 0.4), b=(0.9, 0.9))
    assert find_format(tmp_path) is LLMRouter
    b = read(tmp_path)
    rows = {text: row for text, row in zip(b.texts, b.S.tolist(), strict=True)}
    np.testing.assert_array_equal([rows["p"], rows["q"]], [[1, 0.25], [0, np.nan]])
    # 100 tokens in and 30 out at 0.2 and 0.4 USD per 1M.
    assert np.nanmax(b.C[:, 0]) == pytest.approx((100 * 0.2 + 30 * 0.4) / 1e6)
    assert [(m.name, m.price_in, m.price_out) for m in b.models] == [("a", 0.2, 0.4), ("b", 0.9, 0.9)]
    join = b.meta["join"]
    assert join["costs"] == {"prices": 3} and join["prices"].startswith("default_llm.json, else prices.csv")
    assert join["models"]["a"]["estimated_tokens"] == 0
    again = read(tmp_path / "data/default_data")
    assert again.fingerprint == b.fingerprint
    dear = read(tmp_path, prices=Prices(source="mine", table={"a": Price(input=2, output=4)}))
    assert np.nanmax(dear.C[:, 0]) == pytest.approx(10 * np.nanmax(b.C[:, 0]))
    assert dear.C[:, 1] == pytest.approx(b.C[:, 1], nan_ok=True)
    assert dear.meta["join"]["prices"].startswith("mine, else default_llm.json, else ")


def test_questions_are_told_apart_as_llmrouter_does_and_repeated_ones_are_kept(tmp_path: Path) -> None:
    options = [("em_mc", "{'text': ['one', 'two'], 'label': ['A', 'B']}"), ("em_mc", "['1', '2']")]
    rows = [
        record("which?", model, metric=metric, choices=choices) for metric, choices in options for model in ("a", "b")
    ]
    rows += [record("same", model) for model in ("a", "a", "b", "b")]
    rows += [record("code", model, metric="code_eval", choices="['assert f(1)']") for model in ("a", "b")]
    write(tmp_path, "train", *rows)
    write_candidates(tmp_path / "default_llm.json", a=(1, 1), b=(1, 1))
    b = read(tmp_path, embed="question")
    assert b.n_queries == 5 and b.complete.all()
    assert sorted(b.texts) == ["code", "same", "same", "which?\nA. 1\nB. 2", "which?\nA. one\nB. two"]
    groups = dict.fromkeys(zip(b.texts, b.groups, strict=True))
    assert len({group for text, group in groups if text == "same"}) == 1


@pytest.mark.parametrize(
    "choices",
    ["[" * 100_000, "[" + "-" * 900_000 + "1]", "[__import__('os').abort()]", "{[]: 1}", "[\0]", "[1, 2]", {"text": 3}],
    ids=["brackets", "signs", "code", "unhashable", "NUL", "numbers", "no list"],
)
def test_choices_that_are_none_are_not_shown(tmp_path: Path, choices: Any) -> None:
    write(tmp_path, "train", *(record("which?", model, metric="em_mc", choices=choices) for model in ("a", "b")))
    write_candidates(tmp_path / "default_llm.json", a=(1, 1), b=(1, 1))
    assert read(tmp_path, embed="question").texts == ("which?",)


def test_failed_calls_are_not_observed_and_totals_of_tokens_are_split(tmp_path: Path) -> None:
    total = {"input_tokens": None, "output_tokens": None, "token_num": 12}
    write(
        tmp_path,
        "train",
        record("p", "a", 0.0, response="API Error: Request timed out for model a"),
        record("p", "b", 1.0, response="12345678", **total),  # 8 bytes count as 2 tokens
        record("q", "a", 0.0, response="ERROR: no router", token_num=0, input_tokens=0, output_tokens=0),
        record("q", "b", 1.0, response="x" * 1000, **total),  # no more than all of them
    )
    write_candidates(tmp_path / "default_llm.json", a=(1, 1), b=(1, 10))
    b = read(tmp_path)
    assert np.isnan(b.S[:, 0]).all()
    told = b.meta["join"]["flagged"]["a call that failed is not observed"]
    assert told["n"] == 2 and told["such_as"][0].endswith("default_routing_train_data.jsonl, line 1")
    assert sorted(b.C[:, 1] * 1e6) == pytest.approx([10 + 2 * 10, 12 * 10])
    assert b.meta["join"]["models"]["b"]["estimated_tokens"] == 2


def test_a_copy_is_left_out_and_another_version_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data/default_data", "test", record(), record(model="b"))
    copy = tmp_path / "data/routing_data" / path.name
    copy.parent.mkdir()
    shutil.copy(path, copy)
    write_candidates(tmp_path / "data/llm_candidates/default_llm.json", a=(1, 1), b=(1, 1))
    b = read(tmp_path)
    assert b.n_queries == 1
    assert b.meta["join"]["left_out"]["a copy of another file"] == {"n": 1, "such_as": [str(copy)]}
    copy.write_text(copy.read_text() * 2)
    with pytest.raises(BenchmarkError, match=r"test_data\.jsonl and .* differ; give the folder of one of them"):
        read(tmp_path)


def test_without_prices_they_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, "train", record(), record(model="b"))
    (tmp_path / "default_llm.json").write_text('{"a": {"input_price": 1, "output_price": 1}, "b": "?", "c": {}}')
    with pytest.raises(BenchmarkError, match="no price for b; give a table of prices with --prices"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"task_name": "t", "query": "q", "model_na', "line 1: not usable JSON"),
        ('{"task_name": "t"}\n', "line 1: no record of LLMRouter: query is not text"),
        ('["task_name"]\n', "line 1: holds an array, not an object"),
        (json.dumps(record()).encode("utf-16"), "not UTF-8"),
        (json.dumps(record(query="é"), ensure_ascii=False).encode("latin-1"), "line 1: not UTF-8"),
        (json.dumps(record(performance="good")), "line 1: 'good' stands where a number belongs"),
        (json.dumps(record(performance=["x" * 10_000])), "stands where a number belongs"),
        (json.dumps(record(performance=10**400)), "line 1: a number of 401 digits is no score"),
        (json.dumps(record(performance=1.5)), r"line 1: score 1\.5 is outside \[0, 1\]"),
        (json.dumps(record(input_tokens=-5)), "line 1: -5 is no number of tokens"),
        (json.dumps(record(token_num=float("inf"))), "line 1: inf is no number of tokens"),
        (json.dumps(record(model_name=3)), "line 1: no record of LLMRouter: model_name is not text"),
        ("[" * 100_000, "nested too deeply"),
        ("", "holds no answer"),
    ],
)
def test_broken_files_end_in_one_line_that_names_the_place(tmp_path: Path, content: str | bytes, words: str) -> None:
    path = tmp_path / "default_routing_train_data.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    LLMRouter.recognises(tmp_path)
    with pytest.raises(BenchmarkError, match=words) as error:
        read(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("content", ['{"a": {"input_price": -1, "output_price": 1}}', "[1]", '{"a": {"input', "\xff"])
def test_broken_prices_are_refused(tmp_path: Path, content: str) -> None:
    write(tmp_path, "train", record())
    (tmp_path / "default_llm.json").write_text(content, encoding="latin-1")
    with pytest.raises(BenchmarkError, match=r"default_llm\.json: (prices of 'a' must be|not )"):
        read(tmp_path)


def test_a_line_without_end_is_refused_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llmrouter, "read_lines", functools.partial(read_lines, most=2000))
    write(tmp_path, "train", record(), record(query="x" * 3000))
    with pytest.raises(BenchmarkError, match=r"line 2: over .* MB; no record is so long"):
        read(tmp_path)


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "train", record())
    with pytest.raises(BenchmarkError, match=r"no score 'performanc'; did you mean 'performance'\?"):
        read(tmp_path, score="performanc")
    with pytest.raises(BenchmarkError, match="variant 'x' means nothing here"):
        read(tmp_path, variant="x")


def test_hostile_text_stays_what_it_is(tmp_path: Path) -> None:
    """Escaping belongs to whoever shows it: here nothing is lost but what no file or database takes."""
    clean = HOSTILE.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
    write(tmp_path, "train", *(record(HOSTILE, m, task_name=HOSTILE, response=HOSTILE) for m in (HOSTILE, "b")))
    b = read(tmp_path, prices=Prices(source="p", table=dict.fromkeys([clean, "b"], Price(input=1, output=1))))
    assert (b.models[0].name, b.texts, b.tasks) == (clean, (clean,), (clean,))
    assert b.extras["response"][0, 0] == clean


@needs_table
def test_counts_and_means_of_the_authors_scores_come_back(tmp_path: Path) -> None:
    """Their scores of 6108 questions, as published in another layout, every 21st question, written in this one."""
    queries = pd.read_parquet(SHARED / "queries.parquet").iloc[::21]
    outcomes = pd.read_parquet(SHARED / "outcomes.parquet").merge(queries, on="query_id")
    rows = [
        record(row.prompt, row.model, row.score, task_name=row.task, metric=row.metric, response=None)
        for row in outcomes.itertuples()
    ]
    half = len(rows) // 2
    write(tmp_path, "train", *rows[:half])
    write(tmp_path, "test", *rows[half:])
    facts = json.loads((SHARED / "meta.json").read_text())["models"]
    write_candidates(
        tmp_path / "default_llm.json", **{name: (m["price_in"], m["price_out"]) for name, m in facts.items()}
    )
    b = read(tmp_path)
    assert (b.n_queries, b.n_models) == (len(queries), 9) == (291, 9) and b.complete.all()
    means = outcomes.groupby("model")["score"].mean()
    assert b.S.mean(axis=0) == pytest.approx(means[[model.name for model in b.models]].to_numpy())
    assert pd.Series(b.tasks).value_counts().to_dict() == queries["task"].value_counts().to_dict()
