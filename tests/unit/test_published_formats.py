"""Adapters of published routing data, on small files of their layouts."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks.base import Benchmark
from workers.benchmarks.embedllm import EmbedLLM
from workers.benchmarks.llmrouterbench import LLMRouterBench
from workers.benchmarks.logs import LogFormat, ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.benchmarks.routellm import RouteLLM
from workers.benchmarks.routerdc import RouterDC
from workers.errors import BenchmarkError

PRICES = Prices(source="ours", table={name: Price(input=1, output=2) for name in ("a", "b", "weak", "strong")})


def read(path: Path, cls: type[LogFormat], **options: Any) -> Benchmark:
    assert find_format(path) is cls
    return read_logs(path, cls, name="x", options=ReadOptions(**{"prices": PRICES, **options}))


def scores(benchmark: Benchmark) -> dict[tuple[str, str], list[float | None]]:
    """(task, prompt) -> scores in the order of models."""
    rows = [[None if np.isnan(x) else float(x) for x in row] for row in benchmark.S]
    return dict(zip(zip(benchmark.tasks, benchmark.texts, strict=True), rows, strict=True))


def write_csv(path: Path, *rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


# RouterDC


def routerdc(folder: Path) -> Path:
    train = [{"question": "q1", "scores": {"a": 0.7, "b": 0}}, {"question": "q1", "scores": {"a": 0, "b": 0.4}}]
    test = [{"question": "<b>q2</b>", "scores": {"a": 1, "b": None}}]
    (folder / "mbpp_train.json").write_text(json.dumps(train))
    (folder / "mbpp-test.json").write_text(json.dumps(test))
    (folder / "ceval.json").write_text(json.dumps([{"question": "问题", "scores": {"a": 0, "b": 0.2}}]))
    return folder


def test_routerdc_joins_the_sides_of_a_task_and_keeps_repeated_questions(tmp_path: Path) -> None:
    found = read(routerdc(tmp_path), RouterDC)
    assert found.n_queries == 4
    assert sorted(set(found.tasks)) == ["ceval", "mbpp"]
    assert found.S[~np.isnan(found.S)].sum() == pytest.approx(0.7 + 0.4 + 1 + 0.2)
    assert scores(found)["mbpp", "<b>q2</b>"] == [1.0, None]
    assert len({group for group, text in zip(found.groups, found.texts, strict=True) if text == "q1"}) == 1
    right = read(tmp_path, RouterDC, score="correct")
    assert np.nansum(right.S) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"question": "q", "scores": {"a": "x"}}]', r"line 1: the score of 'a' is 'x', not a number"),
        ('[{"question": 3, "scores": {}}]', "no question with scores"),
        ('[{"question": "q", "scores": {"a": 1}}', "may be cut short"),
    ],
)
def test_broken_files_of_routerdc_are_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mbpp.json").write_text(content)
    with pytest.raises(BenchmarkError, match=message):
        read_logs(tmp_path, RouterDC, name="x", options=ReadOptions(prices=PRICES))


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"no score 'scor'; did you mean 'score'"):
        read(routerdc(tmp_path), RouterDC, score="scor")
    with pytest.raises(BenchmarkError, match="variant 'x' means nothing here"):
        read(tmp_path, RouterDC, variant="x")


# RouteLLM


def routellm(folder: Path) -> Path:
    head = ["prompt", "org/weak", "org/strong"]
    write_csv(folder / "mmlu/responses/mmlu_law.csv", head, ["p1", "True", "False"], ["spoilt", "True", "True"])
    (folder / "mmlu/contaminated_prompts.jsonl").write_text('{"eval_prompt": "spoilt", "train_prompt": "x"}\n')
    write_csv(
        folder / "gsm8k/gsm8k_responses.csv",
        [*head, "org/weak_response", "org/strong_response"],
        ["p2", "False", "True", "no", "yes, because"],
    )
    (folder / "mt_bench").mkdir()
    (folder / "mt_bench/question.jsonl").write_text('{"question_id": 7, "category": "c", "turns": ["one", "two"]}\n')
    rows = [("org/weak", 4, 1), ("org/weak", 6, 2), ("org/strong", 9, 1), ("org/strong", -1, 2)]
    lines = [json.dumps({"question_id": 7, "model": m, "score": s, "turn": t}) for m, s, t in rows]
    (folder / "mt_bench/judgements.jsonl").write_text("\n".join(lines))
    return folder


def test_routellm_reads_its_three_sets_without_contaminated_prompts(tmp_path: Path) -> None:
    found = read(routellm(tmp_path), RouteLLM)
    assert [model.name for model in found.models] == ["org/strong", "org/weak"]
    assert scores(found) == {
        ("mmlu_law", "p1"): [0.0, 1.0],
        ("gsm8k", "p2"): [1.0, 0.0],
        ("mt_bench", "one\ntwo"): [0.9, 0.5],
    }
    left_out = found.meta["join"]["left_out"]
    assert {reason: told["n"] for reason, told in left_out.items()} == {
        "a prompt that RouteLLM lists as contaminated": 1,
        "a judgement without a score from 1 to 10": 1,
    }
    row = found.tasks.index("gsm8k")
    assert found.extras["response"][row].tolist() == ["yes, because", "no"]


def test_broken_files_of_routellm_are_named(tmp_path: Path) -> None:
    routellm(tmp_path)
    file = tmp_path / "mmlu/responses/mmlu_law.csv"
    write_csv(file, ["prompt", "org/weak", "org/strong"], ["p", "maybe", "True"])
    with pytest.raises(BenchmarkError, match=r"line 2: 'org/weak' holds 'maybe', neither True nor False"):
        read(tmp_path, RouteLLM)
    file.write_text("prompt,org/weak,org/strong\np,True\n")
    with pytest.raises(BenchmarkError, match="line 2: another number of fields"):
        read(tmp_path, RouteLLM)
    file.write_bytes(b"prompt,org/weak,org/strong\n\xff,True,True\n")
    with pytest.raises(BenchmarkError, match=r"not a (usable|readable)"):
        read(tmp_path, RouteLLM)


# LLMRouterBench


def llmrouterbench(folder: Path) -> Path:
    def write(model: str, name: str, values: list[float | None], **head: Any) -> None:
        place = folder / "aime" / "test" / model
        place.mkdir(parents=True, exist_ok=True)
        records = [
            {
                "index": i,
                "origin_query": f"q{i}",
                "prompt": [{"role": "user", "content": f"solve q{i}"}],
                "prompt_tokens": 10,
                "completion_tokens": 20,
                "cost": 0.5,
                "score": value,
                "raw_output": "out",
            }
            for i, value in enumerate(values, 1)
        ]
        (place / name).write_text(json.dumps({"performance": 0.5, "demo": False, **head, "records": records}))

    write("a", "aime-test-a-20250101_000000.json", [0.0, 0.0])
    write("a", "aime-test-a-20250601_000000.json", [1.0, None])
    write("b", "aime-test-b-20250101_000000.json", [0.25, 0.5])
    write("c", "result.json", [1.0, 1.0], demo=True)
    return folder


def test_llmrouterbench_takes_the_newest_run_its_costs_and_no_demonstration(tmp_path: Path) -> None:
    found = read(llmrouterbench(tmp_path), LLMRouterBench)
    assert [model.name for model in found.models] == ["a", "b"]
    assert scores(found) == {("aime/test", "q1"): [1.0, 0.25], ("aime/test", "q2"): [None, 0.5]}
    assert found.C[0].tolist() == [0.5, 0.5]
    assert found.extras["output_tokens"][0].tolist() == [20.0, 20.0]
    told = found.meta["join"]["left_out"]
    assert {reason: each["n"] for reason, each in told.items()} == {
        "an older run of the same model and data set": 1,
        "a demonstration run": 1,
    }


def test_broken_records_of_llmrouterbench_are_named(tmp_path: Path) -> None:
    place = tmp_path / "aime/test/a"
    place.mkdir(parents=True)
    (place / "result.json").write_text('{"performance": 1, "records": [{"index": 1, "score": "good"}]}')
    with pytest.raises(BenchmarkError, match="'good' stands where a number belongs"):
        read(tmp_path, LLMRouterBench)


# EmbedLLM


def test_embedllm_joins_its_sides_and_of_repeated_answers_the_best_counts(tmp_path: Path) -> None:
    head = ["prompt_id", "model_id", "category_id", "label", "prompt", "model_name", "category"]
    write_csv(
        tmp_path / "train.csv",
        head,
        [1, 0, 0, 0, "p1", "a", "mmlu"],
        [1, 0, 0, 1, "p1", "a", "mmlu"],
        [1, 1, 0, 0, "p1", "b", "mmlu"],
    )
    write_csv(tmp_path / "test.csv", head, [2, 0, 1, 1, "p2", "a", "gsm"])
    found = read(tmp_path, EmbedLLM)
    assert scores(found) == {("gsm", "p2"): [1.0, None], ("mmlu", "p1"): [1.0, 0.0]}
    assert found.meta["join"]["left_out"]["a repeated answer of a model, of which the best counts"]["n"] == 1
    write_csv(tmp_path / "val.csv", head, [1, 1, 0, 1, "another", "b", "mmlu"])
    with pytest.raises(BenchmarkError, match="prompt '1' is another text than in"):
        read(tmp_path, EmbedLLM)
    write_csv(tmp_path / "val.csv", head, [3, 1, 0, 2, "p3", "b", "mmlu"])
    with pytest.raises(BenchmarkError, match="label '2' is neither 0 nor 1"):
        read(tmp_path, EmbedLLM)
