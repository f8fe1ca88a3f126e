"""What holds for every log format: answers joined by question, scores, costs, reports, options."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from orchestrator.catalog import load_source
from orchestrator.sweep import BenchmarkEntry
from tests.evaluation_logs import SKILLS, write_runs
from workers.benchmarks import logs
from workers.benchmarks.base import Benchmark
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.logs import Answer, LogFormat, Notes, ReadOptions, find_format, log_formats, read_logs
from workers.benchmarks.pools import Pool
from workers.benchmarks.prices import Price, Prices
from workers.benchmarks.tables import load_tables, save_tables
from workers.errors import BenchmarkError

PRICES = Prices(source="ours", table={"a": Price(input=1, output=2), "b": Price(input=10, output=20, image=0.5)})


def answer(query: str = "q", model: str = "a", score: float | None = 1.0, **keys: Any) -> Answer:
    given = {
        "task": "t",
        "prompt": f"what is {query}?",
        "input_tokens": 10.0,
        "output_tokens": 5.0,
        "at": "log, line 1",
    }
    return Answer(query=query, model=model, score=score, **{**given, **keys})


def joined(*answers: Answer, **options: Any) -> Benchmark:
    class Fake(LogFormat):
        name, summary, verified = "fake", "", ""

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return True

        def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
            yield from answers

    return read_logs(Path("log"), Fake, name="x", options=ReadOptions(**{"prices": PRICES, **options}))


def test_answers_are_joined_by_question_whatever_their_order() -> None:
    cells = [answer("p", "a", 1), answer("q", "a", 0), answer("q", "b", 0.5), answer("p", "b", None)]
    b = joined(*cells)
    assert b.queries == ("p", "q")
    np.testing.assert_array_equal(b.S, [[1, np.nan], [0, 0.5]])
    # 10 tokens in and 5 out: (10 * 1 + 5 * 2) and (10 * 10 + 5 * 20) USD per 1M.
    np.testing.assert_allclose(b.C * 1e6, [[20, np.nan], [20, 200]])
    assert joined(*cells[::-1]).fingerprint == b.fingerprint
    assert [(m.name, m.price_in, m.price_out) for m in b.models] == [("a", 1, 2), ("b", 10, 20)]
    join = b.meta["join"]
    assert join["models"]["b"] == {"answers": 2, "unscored": 1, "estimated_tokens": 0}
    assert (join["questions"], join["answered_by_all"], join["scored_by_all"]) == (2, 2, 1)
    assert join["costs"] == {"prices": 3}
    assert join["prices"] == "ours, else prices.csv (as of 2025-05)"


def test_what_not_all_models_answered_is_told() -> None:
    b = joined(answer("p", "a"), answer("q", "a"), answer("q", "b"), answer("r", "b", task="u"))
    assert b.queries == ("t/p", "t/q", "u/r")
    assert b.tasks == ("t", "t", "u")
    assert b.meta["join"]["not_by_all"] == ["t/p", "u/r"]
    assert b.meta["join"]["answered_by_all"] == 1


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (answer("q", "b", prompt="other"), r"log, line 1: query 'q' of 't' is another question than in log, line 1"),
        (answer("q", "b", proof="x"), r"another question"),
        (answer("q", "a"), r"model 'a' answered query 'q' of 't' twice; keep one run"),
        (answer("q", "b", 40), r"score 40 is outside \[0, 1\].*--scale 100"),
        (answer("q", "b", -0.1), r"score -0.1 is outside"),
        (answer("q", "nobody"), r"log: no price for nobody; give a table of prices with --prices"),
        (answer("q", "b", cost=-1.0), r"cost -1.0 is negative"),
        (answer("q", "b", cost=float("inf")), r"cost inf is negative or infinite"),
    ],
)
def test_answers_that_cannot_be_joined_are_refused(second: Answer, words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        joined(answer("q", "a"), second)


def test_an_id_may_come_in_two_tasks_and_models_may_be_templated_differently() -> None:
    b = joined(answer("q", "a", task="t"), answer("q", "a", task="u", prompt="another"))
    assert b.n_queries == 2
    assert joined(answer("q", "a", proof="doc"), answer("q", "b", proof="doc", prompt="<s>what")).texts == (
        "what is q?",
    )


def test_scores_are_divided_by_their_scale() -> None:
    assert joined(answer("q", "a", 40), answer("p", "a", float("nan")), scale=100).S.ravel().tolist()[1] == 0.4
    for scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(BenchmarkError, match="scale"):
            joined(answer(), scale=scale)


def test_costs_are_the_logs_else_tokens_and_images_times_price() -> None:
    b = joined(answer("p", "b", cost=0.25), answer("q", "b", n_images=2), answer("r", "b", None, cost=7.0))
    np.testing.assert_allclose(b.C.ravel(), [0.25, 200e-6 + 1.0, np.nan])
    assert b.meta["join"]["costs"] == {"log": 1, "prices": 1}


def test_token_counts_that_are_not_there_are_estimated_and_counted() -> None:
    nothing: dict[str, Any] = {"input_tokens": None, "output_tokens": None}
    b = joined(
        answer("p", prompt="x" * 40, response="y" * 20, **nothing),
        answer("q", prompt="x" * 40, **nothing),
        answer("r", estimated=True),
        answer("s"),
    )
    np.testing.assert_allclose(b.C.ravel() * 1e6, [20, 10, 20, 20])
    assert b.extras["output_tokens"].ravel().tolist() == [5, 0, 5, 5]
    assert b.meta["join"]["models"]["a"]["estimated_tokens"] == 3
    assert b.meta["join"]["without_output_tokens"] == {"a": 1}


def test_a_model_whose_costs_the_log_has_needs_no_price() -> None:
    assert joined(answer("q", "nobody", cost=0.5)).C.tolist() == [[0.5]]
    assert np.isnan(joined(answer("q", "nobody", None), answer("p", "a")).C[1]).all()


def test_a_pool_keeps_its_models_which_need_no_other_price() -> None:
    pool = Pool(
        name="p", prices={"B": Price(input=100, output=0), "c-1": Price(input=0, output=1000), "z": PRICES.table["a"]}
    )
    b = joined(
        answer("q", "a"), answer("q", "org/b"), answer("q", "c.1"), answer("q", "d"), answer("p", "d"), pool=pool
    )
    assert [m.name for m in b.models] == ["c.1", "org/b"]
    assert b.n_queries == 2
    assert b.meta["pool"]["missing"] == ["z"]
    # The user's own price of b stands above the pool's; that of c is the pool's.
    np.testing.assert_allclose(b.C[1] * 1e6, [5000, 200])


def test_embedded_fields() -> None:
    texts = {"doc.q": "bare", "doc.b": "other"}
    b = joined(answer(texts=texts), embed="doc.q")
    assert (b.texts, b.embedded) == (("bare",), "doc.q")
    with pytest.raises(BenchmarkError, match=r"log, line 1: no field 'doc.qq' to embed; did you mean 'doc.q'\?"):
        joined(answer(texts=texts), embed="doc.qq")


def test_hostile_text_is_kept_and_can_be_written(tmp_path: Path) -> None:
    name = "<script>alert(1)</script>\x1b[2J\0\ud800"
    b = joined(answer(name, name, task=name, prompt=name, response=name, cost=0.1))
    assert b.models[0].name == "<script>alert(1)</script>\x1b[2J\ufffd\ufffd"
    save_tables(b, tmp_path / "saved")
    again = load_tables(tmp_path / "saved", name="x")
    assert again.fingerprint == b.fingerprint
    assert again.extras["response"][0, 0] == b.models[0].name
    json.dumps(b.meta)


def test_hostile_text_in_the_report_of_the_join_can_be_written(tmp_path: Path) -> None:
    """NUL and lone surrogates, which no file or database takes, go from every text; others are kept as they are."""
    hostile, clean = "<b>\x1b[2J\x07\0\ud800", "<b>\x1b[2J\x07\ufffd\ufffd"

    class Telling(LogFormat):
        name, summary, verified = "telling", "", ""

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return True

        def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
            notes.left_out(hostile, hostile)
            notes.flag(hostile + "!", hostile)
            notes.choose(hostile, hostile)
            notes.fact(hostile, hostile)
            notes.prices = Prices(source=hostile, table={"a": Price(input=1, output=1)})
            yield answer("q", hostile, task=hostile, cost=0.1)
            yield answer("q", "a", task=hostile)
            yield answer("p", "a", task=hostile)

    b = read_logs(tmp_path, Telling, name="x", options=ReadOptions())
    join = b.meta["join"]
    assert join["left_out"] == {clean: {"n": 1, "such_as": [clean]}}
    assert join["flagged"] == {clean + "!": {"n": 1, "such_as": [clean]}}
    assert join["chosen"] == {clean: clean}
    assert join["facts"] == {clean: [clean]}
    assert join["not_by_all"] == [f"{clean}/p"]
    assert join["prices"].startswith(f"{clean}, else ")
    json.dumps(join, ensure_ascii=False).encode()
    save_tables(b, tmp_path / "saved")
    assert load_tables(tmp_path / "saved", name="x").meta["join"] == join


def test_prices_that_a_log_brings_are_below_the_users_and_the_pools() -> None:
    own = Prices(source="own", table={name: Price(input=3, output=3) for name in ("a", "b", "gpt-4")})

    class Priced(LogFormat):
        name, summary, verified = "priced", "", ""

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return True

        def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
            notes.prices = own
            yield from (answer("q", model) for model in own.table)

    def prices(**options: Any) -> dict[str, float | None]:
        found = read_logs(Path("log"), Priced, name="x", options=ReadOptions(**options))
        return {model.name: model.price_in for model in found.models}

    assert prices() == {"a": 3, "b": 3, "gpt-4": 3}
    assert prices(prices=Prices(source="mine", table={"b": Price(input=5, output=5)})) == {"a": 3, "b": 5, "gpt-4": 3}
    pool = Pool(name="p", prices={"a": Price(input=7, output=7), "b": Price(input=8, output=8)})
    assert prices(pool=pool) == {"a": 7, "b": 8}


def test_an_import_keeps_responses_tokens_and_the_report(tmp_path: Path) -> None:
    b = joined(answer("p", response="one"), answer("q", "b", response=None))
    save_tables(b, tmp_path / "saved")
    again = load_tables(tmp_path / "saved", name="x")
    assert again.meta["join"] == b.meta["join"]
    for extra in ("input_tokens", "output_tokens"):
        np.testing.assert_array_equal(again.extras[extra], b.extras[extra])
    assert again.extras["response"].tolist() == [["one", None], [None, None]]


def test_a_log_without_answers_says_why() -> None:
    with pytest.raises(BenchmarkError, match="read as fake, it holds no answer"):
        joined()


def test_formats_are_found_by_name_or_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_runs(tmp_path)
    assert [find_format(tmp_path / part) for part in ("runs", "logs", "prices.csv")] == [
        log_formats()["lm-eval"], log_formats()["inspect"], None,
    ]  # fmt: skip
    with pytest.raises(BenchmarkError, match=r"unknown format 'lmeval'; did you mean 'lm-eval'\?"):
        find_format(tmp_path, "lmeval")

    class Any1(LogFormat):
        name: ClassVar[str] = "any"

        @classmethod
        def recognises(cls, path: Path) -> bool:
            return True

        def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
            yield from ()

    known = {**log_formats(), "any": Any1}
    monkeypatch.setattr(logs, "log_formats", lambda: known)
    with pytest.raises(BenchmarkError, match="looks like inspect and any; say which with --format"):
        find_format(tmp_path / "logs")


def test_every_format_says_what_it_was_verified_on() -> None:
    for cls in log_formats().values():
        assert cls.summary and cls.verified


def test_keys_of_an_entry_reach_the_logs(tmp_path: Path) -> None:
    write_runs(tmp_path)

    def load(**keys: Any) -> Benchmark:
        entry = {"name": "x", "path": "runs", "prices": "prices.csv", **keys}
        return load_source(BenchmarkEntry(**entry), home=tmp_path, beside=tmp_path)

    plain = load()
    assert [m.name for m in plain.models] == sorted(SKILLS)
    assert (plain.n_queries, plain.suite) == (300, "runs")
    assert load(format="lm-eval").fingerprint == plain.fingerprint
    assert load(scale=2).S.max() == 0.5
    assert load(embed="question").texts[0] != plain.texts[0]
    assert load(score="acc_norm,exact_match").meta["join"]["chosen"] != plain.meta["join"]["chosen"]
    (tmp_path / "dear.csv").write_text("model,input,output\nsmall-1b,1,1\nmedium-8b,2,2\nlarge-70b,9,9\n")
    np.testing.assert_allclose(load(prices="dear.csv").C, plain.C * 10)
    assert load(variant="strict").fingerprint == plain.fingerprint, "tasks of one filter are read by that one"
    for keys, words in (
        ({"format": "inspect"}, "no Inspect log"),
        ({"format": "nothing"}, "unknown format 'nothing'"),
        ({"pool": "alpacaeval/claude"}, "a pool needs two"),
        ({"pool": "nothing"}, "no pool 'nothing'"),
        ({"prices": None}, "no price for acme/large-70b"),
    ):
        with pytest.raises(BenchmarkError, match=words):
            load(**keys)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"variant": "strict"}, "variant 'strict' is of logs"),
        ({"scale": 100}, "scale 100 is of logs"),
        ({"format": "lm-eval"}, r"no samples_<task>"),
        ({"pool": "alpacaeval/openai"}, "a pool needs two"),
        ({"prices": "p.csv"}, "p.csv changes no cost"),
    ],
)
def test_options_that_mean_nothing_to_tables_are_refused(tiny: Path, keys: dict[str, Any], words: str) -> None:
    (tiny.parent / "p.csv").write_text("model,input,output\nlarge,1,1\n")
    with pytest.raises(BenchmarkError, match=words):
        load_source(BenchmarkEntry(name="t", path="tiny", **keys), home=tiny.parent, beside=tiny.parent)
    for keys in ({"format": "tables"}, {"variant": "x"}, {"scale": 2}, {"pool": "alpacaeval/openai"}):
        with pytest.raises(BenchmarkError):
            load_benchmark("toolbox", **keys)


def test_tables_with_token_counts_take_other_prices(tmp_path: Path) -> None:
    save_tables(joined(answer("p"), answer("p", "b"), answer("q"), answer("q", "b")), tmp_path / "saved")
    (tmp_path / "p.csv").write_text("model,input,output\na,0,100\n")
    b = load_benchmark("x", path=tmp_path / "saved", prices=tmp_path / "p.csv", format="tables")
    np.testing.assert_allclose(b.C * 1e6, [[500, 200]] * 2)
    assert b.meta["repriced"] == {"source": "p.csv", "models": ["a"]}
