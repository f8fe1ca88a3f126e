from __future__ import annotations

import base64
import json
import os
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation_logs import (
    DEFLATED,
    SKILLS,
    STORED,
    ZSTD,
    inspect_head,
    inspect_sample,
    write_inspect,
    write_inspect_runs,
    write_zip,
)
from workers.benchmarks import inspect_archive
from workers.benchmarks.base import Benchmark
from workers.benchmarks.inspect_archive import read_head, read_samples
from workers.benchmarks.inspect_log import InspectLog
from workers.benchmarks.logs import ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared"))
FIXTURE = SHARED / "data" / "fixtures" / "inspect" / "out"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"{FIXTURE} is not here (ROADTEST_SHARED)")

PRICES = Prices(source="ours", table={name: Price(input=1, output=2) for name in (*SKILLS, "small", "big")})
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
PICTURE = "data:image/png;base64," + base64.b64encode(PNG).decode()


def read(path: Path, **options: Any) -> Benchmark:
    assert find_format(path) is InspectLog
    return read_logs(path, InspectLog, name="x", options=ReadOptions(**{"prices": PRICES, **options}))


def refused(path: Path, words: str, **options: Any) -> None:
    with pytest.raises(BenchmarkError, match=words) as error:
        read_logs(path, InspectLog, name="x", options=ReadOptions(prices=PRICES, **options))
    assert str(path) in str(error.value)


def samples(*values: Any, **keys: Any) -> list[dict[str, Any]]:
    return [inspect_sample(i + 1, f"What is {i}?", value, **keys) for i, value in enumerate(values)]


@needs_fixture
@pytest.mark.parametrize(("part", "n_checked"), [("eval", 6), ("json", 2)])
def test_mean_scores_of_real_logs_are_the_tools_own(part: str, n_checked: int) -> None:
    checked = 0
    for path in sorted((FIXTURE / part).iterdir()):
        head = read_head(path).head
        for told in head["results"]["scores"]:
            b = read(path, score=told["name"])
            [metric] = set(told["metrics"]) - {"stderr"}
            assert np.nanmean(b.S) == told["metrics"][metric]["value"]
            assert (~np.isnan(b.S)).sum() == told["scored_samples"]
            assert b.n_queries == head["eval"]["dataset"]["samples"]
            checked += 1
    assert checked == n_checked


@needs_fixture
def test_what_is_read_of_real_logs() -> None:
    b = read(FIXTURE / "eval")
    assert [m.name for m in b.models] == ["mockllm/big", "mockllm/small"]
    assert b.queries == ("colours/1", "colours/2", "sums/s0", "sums/s1", "sums/s2")
    np.testing.assert_array_equal(b.S[2:], [[1, 1], [1, 0], [1, np.nan]])
    # The logs' own USD: at 2 and 8 USD per 1M for big, 0.1 and 0.4 for small; 3 tokens in, 1 or 4 out.
    np.testing.assert_allclose(b.C[2:4] * 1e6, [[14, 0.7], [14, 1.9]])
    assert b.extras["response"][3].tolist() == ["8", "I do not know"]
    assert b.texts[0] == b.texts[1] == "Which colour is this?"
    assert b.image_digests[0] != b.image_digests[1]
    assert len(set(b.groups)) == 5
    pictures = {path.read_bytes() for path in (FIXTURE / "pics").iterdir()}
    assert set(b.images[:2]) == pictures
    join = b.meta["join"]
    assert join["flagged"]["not scored: the sample ended in an error"]["n"] == 2
    assert join["chosen"] == {
        "score of colours": "choice",
        "score of sums": "match (also there: exact)",
        "epochs of sums": "mean of 2",
    }
    assert (join["costs"], join["facts"]) == ({"log": 9}, {"inspect_ai version": ["0.3.285"]})


@needs_fixture
def test_a_real_log_packed_anew_by_other_means_is_the_same(tmp_path: Path) -> None:
    for path in (FIXTURE / "eval").iterdir():
        with inspect_archive._Archive(path) as archive:
            members = [(name, json.dumps(archive.json(name)).encode()) for name in archive.names]
        for method in (DEFLATED, STORED):
            write_zip(tmp_path / str(method) / path.name, members, method=method)
    fingerprints = {read(folder).fingerprint for folder in (FIXTURE / "eval", tmp_path / "8", tmp_path / "0")}
    assert len(fingerprints) == 1


@pytest.mark.parametrize("method", [ZSTD, DEFLATED, STORED])
def test_archives_by_every_method_and_json_say_the_same(tmp_path: Path, method: int) -> None:
    content = samples("C", "I", "P")
    archive = write_inspect(tmp_path / "a.eval", inspect_head(), content, method=method)
    plain = write_inspect(tmp_path / "a.json", inspect_head(), content)
    assert read(archive).fingerprint == read(plain).fingerprint
    assert read(archive).S.ravel().tolist() == [1, 0, 0.5]


def test_three_models(tmp_path: Path) -> None:
    write_inspect_runs(tmp_path)
    b = read(tmp_path)
    assert (b.n_queries, b.n_models, b.complete.all()) == (160, 3, True)
    assert b.meta["join"]["models"][next(iter(SKILLS))] == {"answers": 160, "unscored": 0, "estimated_tokens": 0}


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("C", 1), ("I", 0), ("P", 0.5), ("N", 0), (True, 1), (0.25, 0.25), ("yes", 1), ("False", 0), ("0.75", 0.75),
        (float("nan"), None), ("maybe", None), (None, None), ("NaN", None),
    ],
)  # fmt: skip
def test_values(tmp_path: Path, value: Any, score: float | None) -> None:
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(), samples(value, "C")))
    assert b.S[0].tolist() == [score] or (score is None and np.isnan(b.S[0, 0]))
    assert b.meta["join"]["models"]["acme/small"]["unscored"] == (score is None)


def test_the_reason_of_a_grader_that_failed_is_told(tmp_path: Path) -> None:
    failed = {"match": {"value": float("nan"), "reason": "grader_failed"}}
    b = read(
        write_inspect(tmp_path / "a.json", inspect_head(), samples("C", "C", scores=failed)[:1] + samples("C", "C")[1:])
    )
    assert list(b.meta["join"]["flagged"]) == ["not scored: grader_failed"]


@pytest.mark.parametrize(
    ("value", "score", "result"),
    [
        ({"a": 1, "b": 0.5}, "match.b", 0.5),
        ({"a": 1, "b": 0.5}, None, r"scorer 'match' gives several values; choose one of match\.a, match\.b"),
        ({"a": 1}, "match.c", r"choose one of match\.a"),
        ([1, 0], None, "no single value of scorer 'match'"),
        (1, "match.a", "no single value"),
        (1, "f1", "no scorer 'f1'; give one of match"),
        (1, "f1,match", 1),
        (40, None, r"score 40 is outside \[0, 1\]"),
    ],
)
def test_scorers(tmp_path: Path, value: Any, score: str | None, result: Any) -> None:
    path = write_inspect(tmp_path / "a.eval", inspect_head(), samples(value))
    if isinstance(result, str):
        refused(path, result, score=score)
    else:
        assert read(path, score=score).S.tolist() == [[result]]


def test_epochs_are_averaged(tmp_path: Path) -> None:
    epochs = []
    for epoch, (value, tokens) in enumerate([("C", 10), ("I", 20), ("C", 60)], start=1):
        used = {"acme/small": {"input_tokens": 1, "output_tokens": tokens, "total_cost": tokens / 1e6}}
        epochs.append(inspect_sample("q", "What?", value, epoch=epoch, model_usage=used))
    failed = inspect_sample("q", "What?", "C", epoch=4, scores={}, model_usage={}, error={"message": "down"})
    path = write_inspect(tmp_path / "a.eval", inspect_head(config={"epochs_reducer": ["mode"]}), [*epochs, failed])
    b = read(path)
    assert b.S.tolist() == [[pytest.approx(2 / 3)]]
    assert (b.C * 1e6).tolist() == [[pytest.approx(30)]]
    assert b.extras["output_tokens"].tolist() == [[30]]
    assert b.meta["join"]["chosen"]["epochs of sums"] == "mean of 4 (the log's own reducer: mode)"


def test_tokens_are_the_models_own_with_its_cache_and_without_a_grader(tmp_path: Path) -> None:
    used = {
        "acme/small": {
            "input_tokens": 100, "input_tokens_cache_read": 30, "input_tokens_cache_write": 5, "output_tokens": 7
        },
        "acme/big": {"input_tokens": 1000, "output_tokens": 1000},
    }  # fmt: skip
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(), samples("C", model_usage=used)))
    assert (b.extras["input_tokens"].tolist(), b.extras["output_tokens"].tolist()) == ([[135]], [[7]])
    assert (b.C * 1e6).tolist() == [[pytest.approx(135 + 14)]]


@pytest.mark.parametrize(
    "facts",
    [
        {"scorers": [{"name": "model_graded_qa", "options": {}}]},
        {"scorers": [{"name": "mine", "options": {"model": "acme/small"}}]},
        {"scorers": [{"name": "model_graded_fact"}], "model_roles": {"grader": {"model": "acme/small"}}},
    ],
)
def test_a_model_that_grades_itself_counts_by_its_last_generation(tmp_path: Path, facts: dict[str, Any]) -> None:
    output = {"completion": "an answer", "usage": {"input_tokens": 3, "output_tokens": 2}}
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(**facts), samples("C", output=output)), score="match")
    assert (b.extras["input_tokens"].tolist(), b.extras["output_tokens"].tolist()) == ([[3]], [[2]])
    assert list(b.meta["join"]["flagged"]) == ["tokens are the last generation's, as the model grades itself"]
    assert b.meta["join"]["models"]["acme/small"]["estimated_tokens"] == 1
    other = {**facts, "model_roles": {"grader": {"model": "acme/big"}}, "scorers": [{"name": "model_graded_qa"}]}
    b = read(
        write_inspect(tmp_path / "b" / "b.eval", inspect_head(**other), samples("C", output=output)), score="match"
    )
    assert b.extras["input_tokens"].tolist() == [[10]]


def test_logs_without_usage_have_estimated_tokens(tmp_path: Path) -> None:
    content = [inspect_sample("q", "x" * 40, "C", model_usage={}, output={"completion": "y" * 8})]
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(), content))
    assert (b.extras["input_tokens"].tolist(), b.extras["output_tokens"].tolist()) == ([[10]], [[2]])
    assert b.meta["join"]["models"]["acme/small"]["estimated_tokens"] == 1


def test_of_several_logs_the_successful_and_newest_counts(tmp_path: Path) -> None:
    for name, status, created, value in (
        ("1", "success", "2026-01-02T00:00:00+00:00", "I"),
        ("2", "success", "2026-01-03T00:00:00+00:00", "C"),
        ("3", "error", "2026-01-04T00:00:00+00:00", "I"),
    ):
        head = {**inspect_head(created=created), "status": status}
        write_inspect(tmp_path / f"{name}.eval", head, samples(value))
    b = read(tmp_path)
    assert b.S.tolist() == [[1]]
    assert b.meta["join"]["left_out"]["an older or unfinished log of the same task and model"]["n"] == 2


def test_a_log_that_has_not_ended_is_read_and_flagged(tmp_path: Path) -> None:
    start = {key: value for key, value in inspect_head().items() if key in ("version", "eval")}
    start["eval"]["scorers"] = [{"name": "match"}]
    members = [("_journal/start.json", json.dumps(start).encode())]
    members += [("samples/1_epoch_1.json", json.dumps(sample).encode()) for sample in samples("C")]
    b = read(write_zip(tmp_path / "a.eval", members))
    assert b.S.tolist() == [[1]]
    assert list(b.meta["join"]["flagged"]) == ["the log's status is started"]


def test_tasks_of_one_name_with_other_arguments_or_data_are_other_tasks(tmp_path: Path) -> None:
    write_inspect(tmp_path / "1.eval", inspect_head(task_args={"level": 1}), samples("C"))
    write_inspect(tmp_path / "2.eval", inspect_head(task_args={"level": 2}), samples("I"))
    assert read(tmp_path).tasks == ('sums ({"level": 1})', 'sums ({"level": 2})')
    write_inspect(tmp_path / "2.eval", inspect_head(dataset={"name": "b"}, task_args={"level": 1}), samples("I"))
    assert read(tmp_path).tasks == ("sums (b)", "sums (own)")


def test_numbers_of_a_shuffled_data_set_are_no_identity(tmp_path: Path) -> None:
    shuffled = {"name": "own", "shuffled": True}
    write_inspect(tmp_path / "1.eval", inspect_head(dataset=shuffled), samples("C", "I"))
    other = [inspect_sample(2 - i, f"What is {i}?", value) for i, value in enumerate("CI")]
    write_inspect(tmp_path / "2.eval", inspect_head("acme/big", dataset=shuffled), other)
    b = read(tmp_path)
    assert b.S.tolist() == [[1, 1], [0, 0]] or b.S.tolist() == [[0, 0], [1, 1]]
    write_inspect(tmp_path / "1.eval", inspect_head(), samples("C", "I"))
    write_inspect(tmp_path / "2.eval", inspect_head("acme/big"), other)
    with pytest.raises(BenchmarkError, match=r"query '2' of 'sums' is another question than in|query '1' of"):
        read(tmp_path)


def message(*parts: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "system", "content": "Be brief."}, {"role": "user", "content": list(parts)}]


def test_attachments_and_pictures(tmp_path: Path) -> None:
    asked = message({"type": "text", "text": "attachment://t"}, {"type": "image", "image": "attachment://p"})
    content = [inspect_sample("q", asked, "C", attachments={"t": "Long text?", "p": PICTURE}, choices=["a", "b"])]
    path = write_inspect(tmp_path / "a.eval", inspect_head(), content)
    b = read(path)
    assert (b.texts, b.images) == (("Be brief.\n\nLong text?",), (PNG,))
    assert read(path, embed="question").texts == ("Be brief.\n\nLong text?\nA) a\nB) b",)


@pytest.mark.parametrize(
    "image",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "http://a/b.png",
        "<base64-data-removed>",
        "data:x",
        "data:image/png;base64,%%",
        "attachment://gone",
    ],
)
def test_pictures_that_are_not_in_the_log_are_never_looked_for(tmp_path: Path, image: str) -> None:
    asked = message({"type": "text", "text": "What?"}, {"type": "image", "image": image})
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(), [inspect_sample("q", asked, "C")]))
    assert b.images == (None,)
    assert list(b.meta["join"]["flagged"]) == ["a picture is not in the log"]


def test_what_else_is_worth_knowing_is_flagged(tmp_path: Path) -> None:
    asked = message(
        {"type": "image", "image": PICTURE}, {"type": "image", "image": PICTURE}, {"type": "audio", "audio": "x"}
    )
    content = [inspect_sample("q", asked, "C", limit={"type": "token", "limit": 5})]
    b = read(write_inspect(tmp_path / "a.eval", inspect_head(), content))
    assert set(b.meta["join"]["flagged"]) == {
        "several pictures, of which encoders see the first",
        "input of type audio is not read",
        "ended by a limit (token)",
    }


def test_ids_enter_names_unescaped_and_nothing_is_written(tmp_path: Path) -> None:
    ids = ["x/y z", "../../../evil", "/abs", "a\nb", "<b>"]
    content = [inspect_sample(name, f"What is {name!r}?", "C") for name in ids]
    path = write_inspect(tmp_path / "in" / "a.eval", inspect_head(), content)
    assert set(read(path).queries) == set(ids)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.eval", "in"]


def test_the_last_entry_of_a_name_wins(tmp_path: Path) -> None:
    members = [("header.json", json.dumps(inspect_head()).encode())]
    members += [("samples/1_epoch_1.json", json.dumps(samples(value)[0]).encode()) for value in ("I", "C")]
    assert read(write_zip(tmp_path / "a.eval", members)).S.tolist() == [[1]]


HEAD = json.dumps(inspect_head()).encode()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("header.json", b'{"version": 2, ')], "'header.json': not usable JSON"),
        ([("header.json", b"[]")], "names no eval.model"),
        ([("header.json", b'{"eval": {"model": 3}}')], "names no eval.model"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b"{")], "'samples/1_epoch_1.json': not usable JSON"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b"[]")], "no sample: an object with id and input"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b'{"id": 1, "input": 3}')], "its input is neither"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b'{"id": 1, "input": [3]}')], "its input is neither"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b'{"a": "\xff"}')], "not UTF-8"),
        ([("header.json", HEAD), ("samples/1_epoch_1.json", b"[" * 100_000)], "nested too deeply"),
        ([("header.json", HEAD), ("samples/1_epoch_1/sample.json", b"{}")], "is a sample in chunks"),
        ([("header.json", HEAD)], "it holds no answer .a log without samples"),
    ],
)
def test_broken_archives_are_named(tmp_path: Path, members: list[tuple[str, bytes]], words: str) -> None:
    refused(write_zip(tmp_path / "a.eval", members), words)


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = write_inspect(tmp_path / "a.eval", inspect_head(), samples("C", "I"))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert find_format(path) is None
    refused(path, "no readable archive")
    for method in (ZSTD, DEFLATED):
        refused(write_zip(path, [("header.json", HEAD)], method=method, wrong_crc=True), "checksum|CRC")
        path = write_inspect(path, inspect_head(), samples("C"), method=method)
        raw = bytearray(path.read_bytes())
        raw[60:120] = bytes(60)
        path.write_bytes(raw)
        refused(path, "cannot be unpacked|checksum|not usable")
    refused(write_zip(path, [("header.json", HEAD)], method=14), "cannot be unpacked|compression method 14")
    path.write_bytes(b"PK\x03\x04 nothing")
    refused(path, "no readable archive")


@pytest.mark.parametrize("method", [ZSTD, DEFLATED])
def test_a_zip_bomb_is_refused_within_little_memory(tmp_path: Path, method: int) -> None:
    bomb = b'{"id": 1, "input": "' + b"a" * (300 << 20) + b'"}'
    path = write_zip(tmp_path / "a.eval", [("header.json", HEAD), ("samples/1_epoch_1.json", bomb)], method=method)
    del bomb
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    refused(path, "'samples/1_epoch_1.json': unpacks to over 64 MB")
    assert tracemalloc.get_traced_memory()[1] < 100 << 20
    tracemalloc.stop()


def test_many_members_that_each_unpack_to_little_are_refused_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspect_archive, "ARCHIVE_BYTES", 1 << 20)
    monkeypatch.setattr(inspect_archive, "ARCHIVE_RATIO", 2)
    content = [inspect_sample(i, "a" * 50_000, "C") for i in range(50)]
    with pytest.raises(BenchmarkError, match="unpacks to over"):
        list(read_samples(read_head(write_inspect(tmp_path / "a.eval", inspect_head(), content))))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version": 2, "status": "success", "eval": {"model": "m", "task": "t"}, "samples": [{"id": 1,', "cut short"),
        (
            '{"version": 2, "status": "success", "eval": {"model": "m", "task": "t"}, "samples": [4]}',
            "line 1: no sample",
        ),
        ('{"version": 2, "status": "success", "eval": {}', "cut short"),
        ('{"version": 2, "status": "success", "eval": {}}', "names no eval.model"),
    ],
)
def test_broken_json_logs_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    assert find_format(path) is InspectLog
    refused(path, words)


def test_other_files_are_not_taken_for_logs(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"version": 2, "models": []}')
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with zipfile.ZipFile(tmp_path / "c.eval", "w") as archive:
        archive.writestr("a.txt", "x")
    assert not InspectLog.recognises(tmp_path)
    refused(tmp_path, "no Inspect log")
    refused(write_inspect(tmp_path / "a.eval", inspect_head(), samples("C")), "have no variant", variant="x")
