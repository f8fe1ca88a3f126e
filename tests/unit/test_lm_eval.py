from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation_logs import SKILLS, STAMP, lm_eval_row, lm_eval_tasks, write_lm_eval
from workers.benchmarks.base import Benchmark
from workers.benchmarks.lm_eval import LmEval
from workers.benchmarks.logs import ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared"))
FIXTURE = SHARED / "data" / "fixtures" / "lm_eval" / "out"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"{FIXTURE} is not here (ROADTEST_SHARED)")

PRICES = Prices(
    source="ours",
    table={
        name.split("/")[-1]: Price(input=1, output=2) for name in [*SKILLS, "a", "b", "small-model", "big-model", "odd"]
    },
)


def read(path: Path, **options: Any) -> Benchmark:
    assert find_format(path) is LmEval
    return read_logs(path, LmEval, name="x", options=ReadOptions(**{"prices": PRICES, **options}))


def docs(n: int = 3) -> list[dict[str, Any]]:
    return [{"question": f"What is {i}?", "answer": str(i), "meta": {"level": f"l{i}"}} for i in range(n)]


def rows(*scores: float, **keys: Any) -> list[dict[str, Any]]:
    """One row per score, of the documents in order."""
    return [
        lm_eval_row(i, doc, f"Q: {doc['question']}", {"acc": score}, **keys)
        for i, (doc, score) in enumerate(zip(docs(len(scores)), scores, strict=True))
    ]


def results_of(folder: Path) -> dict[tuple[str, str], dict[str, float]]:
    """(model, task) -> what the tool's own results file says, by `<metric>,<filter>`."""
    found = {}
    for path in folder.glob("*/results_*.json"):
        head = json.loads(path.read_text())
        for task, values in head["results"].items():
            found[head["model_name"], task] = values
    return found


@needs_fixture
@pytest.mark.parametrize("variant", [None, "digits"])
@pytest.mark.parametrize("score", [None, "acc_norm,exact_match"])
def test_mean_scores_of_real_runs_are_the_tools_own(tmp_path: Path, variant: str | None, score: str | None) -> None:
    copy = Path(shutil.copytree(FIXTURE, tmp_path / "out"))
    for path in copy.glob("*/samples_own_ppl_*") if score else ():  # it has no score of this name
        path.unlink()
    b = read(copy, variant=variant, score=score)
    own = results_of(FIXTURE)
    checked = 0
    for j, model in enumerate(b.models):
        for task in set(b.tasks):
            cells = b.S[[t == task for t in b.tasks], j]
            if np.isnan(cells).all():
                assert (model.name, task) not in own
                continue
            metric = {"own_mc": "acc" if score is None else "acc_norm"}.get(task, "exact_match")
            name = {"own_gen": variant or "strict"}.get(task, "none")
            assert cells.mean() == own[model.name, task][f"{metric},{name}"]
            assert len(cells) == 4
            checked += 1
    assert checked == 5
    assert b.meta["join"]["facts"] == {"lm_eval version": ["0.4.13"]}


@needs_fixture
def test_what_is_read_of_real_runs() -> None:
    b = read(FIXTURE)
    assert [m.name for m in b.models] == ["org/big-model", "org/odd", "org/small-model"]
    assert (b.n_queries, sorted(set(b.tasks))) == (12, ["own_gen", "own_mc", "own_odd"])
    [left] = b.meta["join"]["left_out"]
    assert left == "task own_ppl: no metric is a score of each sample (word_perplexity, bits_per_byte)"
    row = b.queries.index("own_gen/e0935fee78a8d25d")  # begins the doc_hash that lm_eval wrote
    assert b.texts[row] == "Q: What is 2+3?\nA:"
    assert b.extras["response"][row].tolist() == ["It is 5", None, "lol"]
    # ceil(18 bytes / 4) in, ceil(7 / 4) and ceil(3 / 4) out.
    np.testing.assert_array_equal(b.extras["input_tokens"][row], [5, np.nan, 5])
    np.testing.assert_array_equal(b.extras["output_tokens"][row], [2, np.nan, 1])
    choice = b.queries.index("own_mc/fde33bb73f0b4638")
    assert b.extras["output_tokens"][choice, 0] == 0
    assert b.extras["response"][choice].tolist() == [None] * 3
    bare = read(FIXTURE, embed="question")
    assert bare.texts[choice] == "Which is a fruit?\nA. apple\nB. hammer\nC. cloud"


@needs_fixture
@pytest.mark.parametrize(
    ("score", "words"),
    [
        (
            "bleu,acc,exact_match,word_perplexity",
            r"own_odd.*line 1: 'bleu' holds \[\"5\", \"lol\"\], the input of an aggregation.*exact_match",
        ),
        ("word_perplexity,acc,exact_match", r"own_ppl.*line 1: 'word_perplexity' holds \[-0\.7"),
        ("f1", r"no metric 'f1' in task 'own_gen'; it has exact_match"),
    ],
)
def test_metrics_of_real_runs_that_are_no_scores_are_refused_by_name(score: str, words: str) -> None:
    with pytest.raises(BenchmarkError, match=words):
        read(FIXTURE, score=score)


def test_three_models_two_tasks(tmp_path: Path) -> None:
    for model in SKILLS:
        write_lm_eval(tmp_path, model, lm_eval_tasks(model))
    b = read(tmp_path)
    own = results_of(tmp_path)
    for j, model in enumerate(b.models):
        for task, metric in (("sums", "exact_match"), ("kinds", "acc")):
            mine = b.S[[t == task for t in b.tasks], j]
            assert mine.mean() == pytest.approx(own[model.name, task][f"{metric},none"], abs=1e-12)
    assert b.n_queries == 300
    assert b.complete.all()


@pytest.mark.parametrize("lines", [True, False])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_arrays_and_lines_are_told_apart_by_content(tmp_path: Path, lines: bool, suffix: str) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": rows(1, 0, 1)}, lines=lines, suffix=suffix)
    b = read(tmp_path)
    assert sorted(b.S.ravel()) == [0, 1, 1]
    assert b.models[0].name == "org/a"


def test_files_of_up_to_0_4_2(tmp_path: Path) -> None:
    written = []
    for row in rows(1, 0):
        request = row["arguments"]["gen_args_0"]
        new = ("filter", "metrics", "doc_hash", "prompt_hash", "target_hash")
        old = {key: value for key, value in row.items() if key not in new}
        written.append({**old, "arguments": [[request["arg_0"], request["arg_1"]]]})
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "pretrained__org__a,dtype__float_my_task.jsonl").write_text(json.dumps(written, indent=2))
    head = {"results": {"my_task": {"acc,none": 0.5}}, "config": {"model_args": "pretrained=org/a,dtype=float"}}
    (folder / "results.json").write_text(json.dumps(head))
    write_lm_eval(tmp_path, "org/b", {"my_task": rows(0, 1)})
    b = read(tmp_path)
    # The ids are those of newer files, which hold lm_eval's own doc_hash.
    assert set(b.queries) == {row["doc_hash"][:16] for row in rows(1, 0)}
    assert ([m.name for m in b.models], b.S.sum(axis=0).tolist(), b.complete.all()) == (
        ["org/a", "org/b"],
        [1, 1],
        True,
    )


def test_the_newest_run_of_a_model_and_task_counts(tmp_path: Path) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": rows(0, 0), "u": rows(1, 1)}, stamp="2026-11-23T17-00-03.842048")
    write_lm_eval(tmp_path, "org/a", {"t": rows(1, 1)}, stamp="2026-11-24T01-00-03.842048")
    write_lm_eval(tmp_path / "deep", "org/a", {"t": rows(0, 1)}, stamp="2025-12-31T23-59-59.000001")
    b = read(tmp_path)
    assert b.S[[t == "t" for t in b.tasks]].ravel().tolist() == [1, 1]
    assert b.S[[t == "u" for t in b.tasks]].ravel().tolist() == [1, 1]
    [(reason, told)] = b.meta["join"]["left_out"].items()
    assert (reason, told["n"]) == ("an older run of the same model and task", 2)


def filtered(*, first: Sequence[float], second: Sequence[float], blocks: bool) -> list[dict[str, Any]]:
    one, two = rows(*first, filter="strict"), rows(*second, filter="flexible")
    return [*one, *two] if blocks else [row for pair in zip(one, two, strict=True) for row in pair]


@pytest.mark.parametrize("blocks", [True, False])
def test_one_filter_is_read_the_first_unless_another_is_named(tmp_path: Path, blocks: bool) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": filtered(first=[1, 0, 0], second=[1, 1, 0], blocks=blocks), "u": rows(1)})
    b = read(tmp_path)
    assert b.meta["join"]["chosen"]["filter of t"] == "strict"
    assert b.S.sum() == 1 + 1
    assert read(tmp_path, variant="flexible").S.sum() == 2 + 1
    with pytest.raises(BenchmarkError, match=r"no filter 'flexable' in task 't'; did you mean 'flexible'\?"):
        read(tmp_path, variant="flexable")
    for path in tmp_path.glob("*/results*"):
        path.unlink()
    assert read(tmp_path, variant="flexible").S.sum() == 3


def test_models_must_share_filter_and_metric(tmp_path: Path) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": rows(1, 0, filter="strict")})
    write_lm_eval(tmp_path, "org/b", {"t": rows(1, 0, filter="other")})
    with pytest.raises(BenchmarkError, match=r"org__b.*no row of filter 'strict', only of other"):
        read(tmp_path)
    write_lm_eval(
        tmp_path, "org/b", {"t": [{**row, "filter": "strict", "metrics": ["f1"], "f1": 1.0} for row in rows(1)]}
    )
    for path in tmp_path.glob("org__b/samples*"):
        path.write_text(re.sub(r', "acc": 1', "", path.read_text()))
    with pytest.raises(BenchmarkError, match=r"org__b.*line 1: no metric 'acc'.*it has f1"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("task", "metrics", "chosen"),
    [
        ("leaderboard_bbh_boolean", {"acc": 0, "acc_norm": 1}, "acc_norm"),
        ("leaderboard_gpqa_main", {"acc": 0, "acc_norm": 1}, "acc_norm"),
        ("leaderboard_musr_murder", {"acc": 0, "acc_norm": 1}, "acc_norm"),
        ("leaderboard_mmlu_pro", {"acc": 1}, "acc"),
        ("leaderboard_math_algebra_hard", {"x": 0, "exact_match": 1}, "exact_match"),
        (
            "leaderboard_ifeval",
            {"inst_level_strict_acc": [True, False], "prompt_level_loose_acc": False, "prompt_level_strict_acc": True},
            "prompt_level_strict_acc",
        ),
        ("mine", {"bleu": ["a", "b"], "acc": 1, "acc_norm": 0}, "acc"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_score_columns(tmp_path: Path, task: str, metrics: Mapping[str, Any], chosen: str, listed: bool) -> None:
    row = lm_eval_row(0, docs()[0], "Q", metrics)
    if not listed:  # before 0.4.7
        del row["metrics"], row["filter"]
    path = write_lm_eval(
        tmp_path, "org__a-details/org/a", {task: [row]}, suffix=".json", stamp="2024-06-16T22-11-25.600579"
    )
    b = read(path)
    assert b.S.tolist() == [[1]]
    assert b.meta["join"]["chosen"][f"score of {task}"].split()[0] == chosen


@pytest.mark.parametrize(
    ("metrics", "score", "words"),
    [
        ({"bypass": None}, "bypass", "--predict_only"),
        ({"inst_level_strict_acc": [True]}, "inst_level_strict_acc", r"holds \[true\], the input of an aggregation"),
        ({"acc": "high"}, "acc", 'holds "high"'),
        ({"acc": 1}, "accuracy", "no metric 'accuracy' in task 't'; it has acc"),
        ({"acc": 40}, "acc", "score 40 is outside"),
        ({"acc": -1}, "1-acc", "score 2 is outside"),
    ],
)
def test_scores_that_are_none(tmp_path: Path, metrics: Mapping[str, Any], score: str, words: str) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": [lm_eval_row(0, docs()[0], "Q", metrics)]})
    with pytest.raises(BenchmarkError, match=words) as error:
        read(tmp_path, score=score)
    assert f"samples_t_{STAMP}.jsonl, line 1" in str(error.value)


def test_a_metric_that_is_better_when_lower_needs_a_declared_flip(tmp_path: Path) -> None:
    row = lm_eval_row(0, docs()[0], "Q", {"wer": 0.25, "brier": 0.5, "acc": 1})
    better = {"t": {"wer": False, "brier": True, "acc": True}}
    write_lm_eval(tmp_path, "org/a", {"t": [row]}, higher_is_better=better)
    assert read(tmp_path).S.tolist() == [[0.5]], "the first that is better when higher"
    with pytest.raises(BenchmarkError, match="lower is better of 'wer'; give --score 1-wer"):
        read(tmp_path, score="wer")
    assert read(tmp_path, score="1-wer").S.tolist() == [[0.75]]
    assert read(tmp_path, score="1-wer", scale=2).S.tolist() == [[0.875]]


def test_missing_scores_are_not_observed(tmp_path: Path) -> None:
    scored = rows(1, 0, 1)
    scored[1]["acc"], scored[2]["acc"] = None, float("nan")
    write_lm_eval(tmp_path, "org/a", {"t": scored})
    b = read(tmp_path)
    assert np.isnan(b.S).sum() == 2
    assert b.meta["join"]["models"]["org/a"]["unscored"] == 2


def test_equal_documents_are_queries_of_one_group(tmp_path: Path) -> None:
    same = [lm_eval_row(i, docs()[0], "Q", {"acc": i}) for i in range(2)]
    write_lm_eval(tmp_path, "org/a", {"t": same})
    write_lm_eval(tmp_path, "org/b", {"t": same})
    b = read(tmp_path)
    assert (b.n_queries, len(set(b.groups)), b.complete.all()) == (2, 1, True)


def test_other_documents_under_one_id_are_refused(tmp_path: Path) -> None:
    pictured = [
        {**docs()[0], "image": "<PIL.PngImagePlugin.PngImageFile image mode=RGB size=2x2 at 0x7FF3AB>"},
        docs()[1],
    ]
    for model, address, question in (
        ("org/a", "0x7FF3AB", "What?"),
        ("org/b", "0x123", "What?"),
        ("org/c", "0x9", "Who?"),
    ):
        image = pictured[0]["image"].replace("0x7FF3AB", address)
        row = lm_eval_row(0, {**pictured[0], "question": question, "image": image}, "Q", {"acc": 1})
        write_lm_eval(tmp_path / model[-1], model, {"t": [row]})
    shutil.move(tmp_path / "b", tmp_path / "a" / "b")
    b = read(tmp_path / "a")
    assert (b.queries, b.complete.all(), b.n_models) == (("doc 0",), True, 2), "the memory address is no identity"
    shutil.move(tmp_path / "c", tmp_path / "a" / "c")
    with pytest.raises(BenchmarkError, match="is another question"):
        read(tmp_path / "a", prices=Prices(source="", table={n: Price(input=0, output=0) for n in "abc"}))


def test_prompts_without_chat_template_come_first(tmp_path: Path) -> None:
    templated = [lm_eval_row(0, docs()[0], "<s>[INST] What is 0? [/INST]", {"acc": 1})]
    write_lm_eval(tmp_path, "org/a", {"t": templated}, chat_template="{{ messages }}")
    write_lm_eval(tmp_path, "org/b", {"t": rows(1)})
    b = read(tmp_path)
    assert b.texts == ("Q: What is 0?",)
    assert "as sent to org/b" in b.meta["join"]["chosen"]["prompt"]
    # Each model pays for what it was sent.
    np.testing.assert_array_equal(b.extras["input_tokens"], [[7, 4]])


@pytest.mark.parametrize(
    ("doc", "embed", "text"),
    [
        ({"input": "True and False is"}, "question", "True and False is"),
        ({"question": "Which?", "options": ["a", "b"]}, "question", "Which?\nA. a\nB. b"),
        ({"prompt": "Write."}, "question", "Write."),
        ({"problem": "x = 1", "level": "Level 5"}, "question", "x = 1"),
        (
            {"narrative": "Once.", "question": "Who?", "choices": "['he', 'she']"},
            "question",
            "Once.\nWho?\nA. he\nB. she",
        ),
        ({"question": "Who?", "choices": "[open('x')"}, "question", "Who?"),
        ({"question": "Who?", "choices": {"text": ["he"], "label": ["A"]}}, "question", "Who?\nA. he"),
        ({"a": {"b": "deep"}}, "doc.a.b", "deep"),
    ],
)
def test_bare_questions(tmp_path: Path, doc: dict[str, Any], embed: str, text: str) -> None:
    write_lm_eval(tmp_path, "org/a", {"t": [lm_eval_row(0, doc, "few shots and the question", {"acc": 1})]})
    assert read(tmp_path, embed=embed).texts == (text,)
    with pytest.raises(BenchmarkError, match=r"no field 'doc\.nothing' to embed"):
        read(tmp_path, embed="doc.nothing")


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ({"model_name": "exact/name"}, "exact/name"),
        ({"model_name": None, "config": {"model_args": "peft=p/q,pretrained=org/m"}}, "p/q"),
        ({"model_name": None, "config": {"model_args": '{"engine": "e"}'}}, "e"),
        ({"model_name": None, "config": {"model_args": {"dtype": "float"}}}, "a/b__c"),
        ({"model_name": "qdpv68r5", "config": {"model_args": {}}}, "qdpv68r5"),
    ],
)
def test_names_of_models(tmp_path: Path, head: dict[str, Any], name: str) -> None:
    folder = write_lm_eval(tmp_path, "a/b/c", {"t": rows(1)}, **head)
    b = read(folder, prices=Prices(source="", table={name: Price(input=0, output=0)}))
    assert b.models[0].name == name
    made_up = [reason for reason in b.meta["join"]["flagged"] if "made up" in reason]
    assert bool(made_up) == (name == "qdpv68r5")


def test_results_may_lie_beside_under_another_name(tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path, "org/a", {"t_1_x": rows(1)})  # `--output_path mine.json`
    (folder / f"results_{STAMP}.json").rename(folder / f"mine_{STAMP}.json")
    folder.rename(tmp_path / "here")
    b = read(tmp_path)
    assert (b.models[0].name, b.tasks) == ("org/a", ("t_1_x",))
    (tmp_path / "here" / f"mine_{STAMP}.json").unlink()
    (tmp_path / "here").rename(tmp_path / "org__a")
    b = read(tmp_path)
    assert b.models[0].name == "org/a"
    assert list(b.meta["join"]["flagged"]) == ["no results file of the same time; the model is named by its folder"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"doc_id": 0, "do', "line 1: not usable JSON"),
        (b"[{", "line 1: not usable JSON"),
        (b'{"doc_id": 0, "arguments": {}}', "line 1: its arguments hold no prompt"),
        (b'{"doc_id": 0}', "line 1: no sample of lm_eval"),
        (b'{"doc_id": 0, "arguments": "x"}', "line 1: no sample of lm_eval"),
        (b"4", "line 1: holds a number"),
        ("é".encode("latin-1"), "not UTF-8"),
        ('{"doc_id": 0}'.encode("utf-16"), "not UTF-8"),
        (b"\x80\x04\x95pickle", "not UTF-8"),
        (b"", "it holds no answer .an empty file"),
        (b'{"a": "' + b"x" * (33 << 20) + b'"}', "line 1: over 32 MB"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    folder = write_lm_eval(tmp_path, "org/a", {"t": rows(1)})
    path = folder / f"samples_t_{STAMP}.jsonl"
    if b'arguments": {}' in content:
        content = json.dumps({**rows(1)[0], "arguments": {}}).encode()
    path.write_bytes(content)
    with pytest.raises(BenchmarkError, match=words) as error:
        read(tmp_path)
    assert path.name in str(error.value)


def test_a_broken_results_file_is_named(tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path, "org/a", {"t": rows(1)})
    (folder / f"results_{STAMP}.json").write_text('{"model_name": ')
    with pytest.raises(BenchmarkError, match=f"results_{re.escape(STAMP)}.json: not usable JSON"):
        read(tmp_path)


def test_html_and_paths_in_names_are_text(tmp_path: Path) -> None:
    folder = write_lm_eval(tmp_path, "a", {"t": rows(1)}, model_name="<img src=x onerror=alert(1)>/../../etc")
    (folder / f"samples_t_{STAMP}.jsonl").rename(folder / f"samples_<b>_{STAMP}.jsonl")
    b = read(tmp_path, prices=Prices(source="", table={"etc": Price(input=0, output=0)}))
    assert (b.models[0].name, b.tasks) == ("<img src=x onerror=alert(1)>/../../etc", ("<b>",))


def test_other_folders_are_not_taken_for_runs(tmp_path: Path) -> None:
    (tmp_path / "samples_1.jsonl").write_text("{}")
    (tmp_path / "results.json").write_text('{"results": 1}')
    (tmp_path / "x.jsonl").write_text("{}")
    assert not LmEval.recognises(tmp_path)
    with pytest.raises(BenchmarkError, match="run lm_eval with --log_samples"):
        read_logs(tmp_path, LmEval, name="x", options=ReadOptions())
