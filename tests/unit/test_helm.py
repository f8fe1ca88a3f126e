from __future__ import annotations

import gc
import json
import os
import shutil
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks.base import Benchmark
from workers.benchmarks.helm import Helm
from workers.benchmarks.logs import Notes, ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared"))
FIXTURE = SHARED / "data" / "fixtures" / "helm" / "out" / "benchmark_output"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"{FIXTURE} is not here (ROADTEST_SHARED)")

PRICES = Prices(
    source="ours", table={name: Price(input=1, output=2, image=0.5) for name in ("a", "b", "small", "big", "x")}
)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
DISPLAY = ("instances.json", "display_requests.json", "display_predictions.json")
PERTURBATION = {"name": "typos", "robustness": True}


def read(path: Path, **options: Any) -> Benchmark:
    assert find_format(path) is Helm
    return read_logs(path, Helm, name="x", options=ReadOptions(**{"prices": PRICES, **options}))


def refused(path: Path, words: str, **options: Any) -> None:
    with pytest.raises(BenchmarkError, match=words) as error:
        read_logs(path, Helm, name="x", options=ReadOptions(prices=PRICES, **options))
    assert str(path) in str(error.value)


def stat(name: str, mean: float | None, **keys: Any) -> dict[str, Any]:
    value = {"count": 0, "sum": 0} if mean is None else {"count": 1, "sum": mean, "mean": mean}
    return {"name": {"name": name, "split": "test", **keys}, **value}


def stats_of(metrics: Mapping[str, float | None]) -> list[dict[str, Any]]:
    counts = {"num_prompt_tokens": 10, "num_output_tokens": 2, "training_co2_cost": None}
    return [stat(name, mean) for name, mean in {**counts, **metrics}.items()]


def state(
    query: str,
    metrics: Mapping[str, float | None],
    *,
    text: str | None = None,
    response: str = "4",
    trial: int = 0,
    split: str = "test",
    request: Mapping[str, Any] | None = None,
    input: Mapping[str, Any] | None = None,
    perturbation: Mapping[str, Any] | None = None,
    references: Sequence[str] = ("four", "five"),
    time: float | None = None,
    **keys: Any,
) -> dict[str, Any]:
    """A request state, with its metrics under a key that is ours alone."""
    asked = text or f"What is {query}?"
    instance = {
        "input": {"text": asked} if input is None else input,
        "references": [
            {"output": {"text": r}, "tags": ["correct"] if i == 0 else []} for i, r in enumerate(references)
        ],
        "split": split,
        "id": query,
        **({"perturbation": perturbation} if perturbation else {}),
    }
    result: dict[str, Any] = {"success": True, "completions": [{"text": response, "logprob": 0, "tokens": []}]}
    if time is not None:
        result["request_datetime"] = time
    sent = {
        "model": "org/a",
        "prompt": f"Few shots.\n{asked}",
        "max_tokens": 5,
        "echo_prompt": False,
        **(request or {}),
    }
    return {
        "instance": instance,
        "train_trial_index": trial,
        "request": sent,
        "result": result,
        "ours": metrics,
        **keys,
    }


def write_run(
    root: Path,
    model: str,
    states: Sequence[dict[str, Any]],
    *,
    scenario: str = "own.MathScenario",
    args: Mapping[str, Any] | None = None,
    suite: str = "s1",
    display: bool = True,
    drop: Sequence[str] = (),
    folder: str | None = None,
    **spec: Any,
) -> Path:
    """A run as helm-run leaves it, and with `display` as helm-summarize does; first of several states is displayed."""
    name = folder or f"{scenario.rpartition('.')[2].lower()}:model={model.replace('/', '_')}"
    run = root / "benchmark_output" / "runs" / suite / name
    run.mkdir(parents=True)
    adapter = {"method": "generation", "model": model, "max_tokens": 5, "max_train_instances": 5}
    head = {
        "name": name,
        "scenario_spec": {"class_name": scenario, "args": dict(args or {})},
        "adapter_spec": {**adapter, **spec.pop("adapter", {})},
        "groups": ["own"],
        **spec,
    }
    entries: dict[Any, dict[str, Any]] = {}
    instances: dict[Any, Any] = {}
    requests, predictions = [], []
    for each in states:
        instance, trial = each["instance"], each["train_trial_index"]
        key = {"instance_id": instance["id"], "train_trial_index": trial}
        key |= {"perturbation": instance["perturbation"]} if "perturbation" in instance else {}
        same = json.dumps(key)
        instances.setdefault(json.dumps(instance), instance)
        if each.get("request_mode") == "calibration":
            continue
        index = each["ours"].get("predicted_index")
        entries.setdefault(same, {**key, "stats": stats_of(each["ours"])})
        if index is None or index == each.get("reference_index"):
            requests.append({**key, "request": each["request"]})
            told = {name: each[name] for name in ("reference_index",) if name in each}
            text = each["result"]["completions"][0]["text"]
            predictions.append({**key, **told, "predicted_text": text, "base64_images": [], "stats": {}})
    plain = [{name: value for name, value in each.items() if name != "ours"} for each in states]
    files: dict[str, Any] = {
        "run_spec.json": head,
        "per_instance_stats.json": list(entries.values()),
        "scenario_state.json": {"adapter_spec": head["adapter_spec"], "request_states": plain},
        "scenario.json": {"name": name},
    }
    if display:
        files |= dict(zip(DISPLAY, (list(instances.values()), requests, predictions), strict=True))
    for file, content in files.items():
        if file not in drop:
            (run / file).write_text(json.dumps(content, indent=2))
    return run


def plain_states(*scores: float | None, **keys: Any) -> list[dict[str, Any]]:
    return [state(f"id{i}", {"exact_match": score}, **keys) for i, score in enumerate(scores)]


def picture_input(*locations: str) -> dict[str, Any]:
    media = [{"content_type": "image/png", "location": location} for location in locations]
    return {"text": "", "multimedia_content": {"media_objects": [*media, {"content_type": "text/plain", "text": "Q?"}]}}


def schema(main: str, *, group: str = "own", lower: Sequence[str] = ()) -> str:
    groups = [{"name": "other"}, {"name": group, "environment": {"main_name": main, "main_split": "test"}}]
    return json.dumps({"metrics": [{"name": name, "lower_is_better": True} for name in lower], "run_groups": groups})


@needs_fixture
@pytest.mark.parametrize("summarized", [True, False])
def test_counts_and_mean_scores_of_real_runs_are_the_tools_own(tmp_path: Path, summarized: bool) -> None:
    copy = Path(shutil.copytree(FIXTURE, tmp_path / "benchmark_output", copy_function=shutil.copyfile))
    tmp_path.joinpath("benchmark_output").chmod(0o755)
    for run in (copy / "runs" / "s1").glob("own*"):
        run.chmod(0o755)
        for name in () if summarized else DISPLAY:
            (run / name).unlink()
    b = read(copy)
    places = {"own_parity": "OwnParity", "own_colours": "OwnColours"}
    checked = 0
    for run in sorted((FIXTURE / "runs" / "s1").glob("own*")):
        task, _, model = run.name.partition(":model=")
        j = [m.name for m in b.models].index(model.replace("_", "/"))
        rows = [i for i, name in enumerate(b.tasks) if name == places[task]]
        told = json.loads((run / "display_predictions.json").read_text())
        own = {f"{places[task]}/{each['instance_id']}": each for each in told}
        assert [b.queries[i] for i in rows] == sorted(own)
        for i in rows:
            each = own[b.queries[i]]
            assert b.S[i, j] == each["stats"]["exact_match"]
            assert b.extras["input_tokens"][i, j] == each["stats"]["num_prompt_tokens"]
            assert b.extras["output_tokens"][i, j] == each["stats"]["num_output_tokens"]
            assert b.extras["response"][i, j] == each["predicted_text"]
            checked += 1
        if (run / "stats.json").is_file():
            aggregates = json.loads((run / "stats.json").read_text())
            means = {
                s["name"]["name"]: s["mean"] for s in aggregates if "mean" in s and "perturbation" not in s["name"]
            }
            assert b.S[rows, j].mean() == means["exact_match"]
            assert len(rows) == means["num_instances"]
            checked += 1
    assert checked == 2 * (3 + 2) + 1
    assert b.meta["join"]["models"] == {
        model: {"answers": 5, "unscored": 0, "estimated_tokens": 0} for model in ("own/big", "own/small")
    }
    assert not b.meta["join"]["left_out"] and not b.meta["join"]["flagged"]


@needs_fixture
def test_what_is_read_of_real_runs() -> None:
    b = read(FIXTURE)
    assert b.queries[:3] == ("OwnColours/id0", "OwnColours/id1", "OwnParity/parity-11")
    assert b.texts[1:3] == ("Which colour is this?", "Is 11 even or odd?")
    folder = FIXTURE.resolve() / "scenarios" / "own_colours" / "images"
    assert b.images[:3] == (str(folder / "red.png"), str(folder / "blue.png"), None)
    # 76 or 129 tokens in at 1 USD per 1M, 1 out at 2, and one picture at 0.5.
    np.testing.assert_allclose(b.C[[0, 2], 0], [0.5 + 78e-6, 131e-6], rtol=1e-12)
    chosen = b.meta["join"]["chosen"]
    assert chosen["score of OwnParity"].startswith("exact_match (also there: quasi_exact_match, prefix_exact_match")
    assert "not counted by HELM" in chosen["tokens of pictures"]
    assert b.meta["join"]["facts"] == {"HELM suite": ["s1"]}
    assert read(FIXTURE, embed="question").texts[2] == "Is 11 even or odd?\nA. Even\nB. Odd"
    assert (
        read(FIXTURE, embed="request").texts[2].startswith("Answer with a letter.\n\nQuestion: Is 10 even or odd?\nA.")
    )
    assert read(FIXTURE, score="quasi_exact_match@5,prefix_exact_match").S.sum() == 5
    suite = FIXTURE / "runs" / "s1"
    assert read(suite).fingerprint == b.fingerprint
    one = read(suite / "own_parity:model=own_big")
    assert ([m.name for m in one.models], one.n_queries) == (["own/big"], 3)
    refused(FIXTURE, r"no metric 'f1' in task 'OwnColours'; it has exact_match, quasi_exact_match", score="f1")
    refused(FIXTURE, "no variant; leave it out", variant="x")


@pytest.mark.parametrize("display", [True, False])
def test_models_join_on_instance_and_split(tmp_path: Path, display: bool) -> None:
    for model, scores in (("org/a", (1, 0)), ("org/b", (0.5, 1))):
        states = [*plain_states(*scores), state("id7", {"exact_match": 1}, split="valid")]
        write_run(tmp_path, model, states if model == "org/a" else states[::-1], display=display)
    b = read(tmp_path)
    assert b.queries == ("id0", "id1", "valid/id7")
    assert b.S.tolist() == [[1, 0.5], [0, 1], [1, 1]]
    assert b.texts[0] == "What is id0?"
    assert b.extras["response"][0].tolist() == ["4", "4"]
    np.testing.assert_allclose(b.C, 14e-6)


def test_summarized_or_not_is_the_same(tmp_path: Path) -> None:
    for display in (True, False):
        for model in ("org/a", "org/b"):
            write_run(tmp_path / str(display), model, plain_states(1, None, 0.25), display=display)
    assert read(tmp_path / "True").fingerprint == read(tmp_path / "False").fingerprint


def test_missing_means_are_not_observed(tmp_path: Path) -> None:
    states = [*plain_states(1, None), state("id2", {"exact_match": float("nan")}), state("id3", {})]
    write_run(tmp_path, "org/a", states)
    b = read(tmp_path)
    np.testing.assert_array_equal(b.S.ravel(), [1, np.nan, np.nan, np.nan])
    assert b.meta["join"]["models"]["org/a"]["unscored"] == 3


@pytest.mark.parametrize(
    ("scenario", "args", "task"),
    [
        ("helm.benchmark.scenarios.mmlu_scenario.MMLUScenario", {"subject": "anatomy"}, "MMLU:subject=anatomy"),
        ("Scenario", {"n": 2, "b": {"y": 1, "x": None}}, 'Scenario:b={"x": null, "y": 1},n=2'),
        ("a.OwnScenario", {"model": "org/a", "deployment": "org/a"}, "Own"),
        ("a.<b>&\u202eScenario", {}, "<b>&\u202e"),
    ],
)
def test_tasks_are_named_by_scenario_without_the_model(
    tmp_path: Path, scenario: str, args: dict[str, Any], task: str
) -> None:
    write_run(tmp_path, "org/a", plain_states(1), scenario=scenario, args=args, folder="x")
    assert read(tmp_path).tasks == (task,)


def test_long_names_of_tasks_are_cut_and_stay_apart(tmp_path: Path) -> None:
    for i in range(2):
        write_run(tmp_path, "org/a", plain_states(1), args={"text": "x" * 500 + str(i)}, folder=f"{i}")
    tasks = set(read(tmp_path).tasks)
    assert len(tasks) == 2
    assert max(map(len, tasks)) < 140


def test_perturbed_questions_and_calibration_are_dropped_and_counted(tmp_path: Path) -> None:
    asked = dict(references=("yes", "no"), request={"max_tokens": 0, "echo_prompt": True})
    method = {"adapter": {"method": "multiple_choice_separate_calibrated", "max_tokens": 0}}
    metrics = {"exact_match": 1.0, "predicted_index": 1.0}
    states = [
        *(state("id0", metrics, reference_index=i, request_mode="calibration", **asked) for i in range(2)),
        *(state("id0", metrics, reference_index=i, request_mode="original", **asked) for i in range(2)),
        state("id0", {"exact_match": 0}, text="Waht?", perturbation=PERTURBATION, **asked),
        state("id1", {"exact_match": 0}, text="Waht?", perturbation=PERTURBATION, **asked),
    ]
    for display in (True, False):
        folder = write_run(tmp_path / str(display), "org/a", states, display=display, **method)
        stats = json.loads((folder / "per_instance_stats.json").read_text())
        stats[0]["stats"].append(stat("exact_match", 0, perturbation=PERTURBATION))  # `worst`, of an entry that is not
        (folder / "per_instance_stats.json").write_text(json.dumps([*stats, stats[-1]]))  # by another metric's class
        b = read(tmp_path / str(display), embed="question")
        assert (b.queries, b.S.tolist(), b.texts) == (("id0",), [[1]], ("What is id0?\nA. yes\nB. no",))
        # Nothing is generated: no response, no output.
        assert (b.extras["output_tokens"].tolist(), "response" in b.extras) == ([[0]], False)
        left = b.meta["join"]["left_out"]
        assert left["a perturbed question"]["n"] == 2
        assert left.get("a request that calibrates", {"n": 0})["n"] == (0 if display else 2)
        assert not b.meta["join"]["models"]["org/a"]["estimated_tokens"]


@pytest.mark.parametrize("display", [True, False])
def test_options_that_are_asked_apart_are_read_by_the_chosen_one(tmp_path: Path, display: bool) -> None:
    metrics = {"exact_match": 0.0, "predicted_index": 1.0, "num_output_tokens": 0}
    states = [
        state("id0", metrics, reference_index=i, response=f"option {i}", request={"prompt": f"P{i}"}) for i in range(3)
    ]
    method = {"adapter": {"method": "multiple_choice_separate_original"}}
    write_run(tmp_path, "org/a", states, display=display, **method)
    b = read(tmp_path, embed="request")
    assert (b.texts, b.extras["response"].tolist()) == (("P1",), [["option 1"]])


@pytest.mark.parametrize("display", [True, False])
def test_trials_are_averaged(tmp_path: Path, display: bool) -> None:
    scores = {0: (1.0, 0.0), 1: (0.0, 0.0), 2: (1.0, None)}
    states = [
        state(
            f"id{i}", {"exact_match": score, "num_prompt_tokens": 10 * (trial + 1)}, trial=trial, response=f"r{trial}"
        )
        for trial, pair in scores.items()
        for i, score in enumerate(pair)
    ]
    write_run(tmp_path, "org/a", states, display=display)
    b = read(tmp_path)
    assert b.meta["join"]["chosen"]["trials of Math"] == "mean of 3"
    # Two of three trials are scored: the third is not observed, as is their mean.
    np.testing.assert_array_equal(b.S.ravel(), [2 / 3, 0])
    assert b.extras["input_tokens"].ravel().tolist() == [20, 20]
    assert b.extras["response"].ravel().tolist() == ["r0", "r0"]


def test_several_entries_of_one_question_become_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, "org/a", plain_states(1, 0))
    path = run / "per_instance_stats.json"
    entries = json.loads(path.read_text())
    path.write_text(
        json.dumps(
            [*entries, *({**each, "stats": [stat("f1_score", 0.25), stat("exact_match", None)]} for each in entries)]
        )
    )
    assert read(tmp_path, score="f1_score").S.ravel().tolist() == [0.25, 0.25]
    assert read(tmp_path).S.ravel().tolist() == [1, 0]


def test_incomplete_runs_are_left_out(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", plain_states(1))
    write_run(tmp_path, "org/b", plain_states(1), drop=["per_instance_stats.json"])
    write_run(tmp_path, "org/x", plain_states(1), drop=["scenario_state.json", "instances.json"])
    b = read(tmp_path)
    assert [m.name for m in b.models] == ["org/a"]
    left = b.meta["join"]["left_out"]
    assert set(left) == {
        "an incomplete run (no per_instance_stats.json)",
        "an incomplete run (no scenario_state.json or instances.json)",
    }
    shutil.rmtree(tmp_path / "benchmark_output" / "runs" / "s1" / "mathscenario:model=org_a")
    refused(tmp_path, r"holds no answer \(an incomplete run \(no per_instance_stats\.json\): .*model=org_b")


def test_the_smallest_part_of_a_run_will_do(tmp_path: Path) -> None:
    drop = ["scenario_state.json", "display_predictions.json"]
    states = [*plain_states(1), state("id1", {"exact_match": 1, "num_output_tokens": 0})]
    write_run(tmp_path, "org/a", states, drop=drop)
    b = read(tmp_path)
    assert (b.S.ravel().tolist(), "response" in b.extras) == ([1, 1], False)
    [(reason, told)] = b.meta["join"]["flagged"].items()
    assert (reason, told["n"]) == (
        "a run without display_predictions.json and scenario_state.json; run helm-summarize where it was made",
        1,
    )
    assert b.meta["join"]["without_output_tokens"] == {"org/a": 1}
    assert b.meta["join"]["models"]["org/a"]["estimated_tokens"] == 1


def test_of_two_suites_the_newest_requests_count(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", plain_states(1, time=2000.0), suite="s1")
    write_run(tmp_path, "org/a", plain_states(0, time=1000.0), suite="s2")
    write_run(tmp_path, "org/a", plain_states(0, time=1500.0), suite="s3")
    b = read(tmp_path)
    assert b.S.tolist() == [[1]]
    [(reason, told)] = b.meta["join"]["left_out"].items()
    assert (reason, told["n"]) == ("an older run of the same model and task", 2)
    assert b.meta["join"]["facts"] == {"HELM suite": ["s1"]}


def test_without_times_of_requests_the_newest_file_counts(tmp_path: Path) -> None:
    for suite, score, time in (("s1", 1, 5e8), ("s2", 0, 4e8)):
        run = write_run(tmp_path, "org/a", plain_states(score), suite=suite, drop=["scenario_state.json"])
        os.utime(run / "per_instance_stats.json", (time, time))
    assert read(tmp_path).S.tolist() == [[1]]


def test_one_scenario_run_in_two_ways_by_one_model_is_two_tasks(tmp_path: Path) -> None:
    for model in ("org/a", "org/b"):
        write_run(tmp_path, model, plain_states(1), folder=f"0{model[-1]}")
        other = {"adapter": {"method": "multiple_choice_joint", "max_train_instances": 0, "model": model}}
        write_run(tmp_path, model, plain_states(0), folder=f"1{model[-1]}", **other)
    b = read(tmp_path)
    assert dict(zip(b.tasks, b.S.tolist(), strict=True)) == {
        "Math (generation, 5-shot)": [1, 1],
        "Math (multiple_choice_joint, 0-shot)": [0, 0],
    }
    assert not b.meta["join"]["left_out"]


def test_a_run_of_perturbed_questions_alone_does_not_hide_the_plain_one(tmp_path: Path) -> None:
    # As VHELM's translated scenarios: the same scenario, all of its instances perturbed.
    write_run(tmp_path, "org/a", plain_states(1, time=1.0), folder="base")
    perturbed = plain_states(0, time=2.0, perturbation={"name": "translate"})
    write_run(
        tmp_path, "org/a", perturbed, folder="zh", data_augmenter_spec={"perturbation_specs": [{"class_name": "T"}]}
    )
    b = read(tmp_path)
    assert (b.tasks, b.S.tolist()) == (("Math (not perturbed)",), [[1]])
    assert set(b.meta["join"]["left_out"]) == {
        "a perturbed question",
        "a run without questions that are not perturbed",
    }


def test_models_run_in_different_ways_are_joined_and_flagged(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", plain_states(1))
    write_run(tmp_path, "org/b", plain_states(1), adapter={"max_train_instances": 0, "model": "org/b"})
    b = read(tmp_path)
    assert (b.tasks, b.complete.all()) == (("Math",), True)
    [(reason, told)] = b.meta["join"]["flagged"].items()
    assert (reason, told["such_as"]) == ("models of one task were run in different ways", ["Math: 0-shot / 5-shot"])


@pytest.mark.parametrize(
    ("metrics", "main", "chosen"),
    [
        ({"exact_match": 0, "f1_score": 1}, "f1_score", "f1_score, the schema's main metric (also there: exact_match)"),
        ({"f1_score": 0, "quasi_exact_match": 1}, None, "quasi_exact_match (also there: f1_score)"),
        ({"exact_match": 1}, "bleu_4", "exact_match, as bleu_4 is not here"),
        ({"exact_match": 0, "final_number_exact_match": 1}, None, "final_number_exact_match (also there: exact_match)"),
        ({"exact_match": None, "quasi_prefix_exact_match": 1}, None, "quasi_prefix_exact_match"),
    ],
)
@pytest.mark.parametrize("place", ["runs/s1", "releases/v1"])
def test_scores(tmp_path: Path, metrics: Mapping[str, Any], main: str | None, chosen: str, place: str) -> None:
    write_run(tmp_path, "org/a", [state("id0", metrics)])
    if main:
        (tmp_path / "benchmark_output" / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / "benchmark_output" / place / "schema.json").write_text(schema(main))
    b = read(tmp_path)
    assert b.S.tolist() == [[1]]
    assert b.meta["join"]["chosen"]["score of Math"] == chosen


def test_scores_that_are_named_or_none(tmp_path: Path) -> None:
    run = write_run(tmp_path, "org/a", [state("id0", {"wildbench_score": 7, "toxic_frac": 0.25})])
    with pytest.raises(BenchmarkError, match=r"no usual metric; name one with --score \(wildbench_score, toxic_frac\)"):
        read(tmp_path)
    (run.parent / "schema.json").write_text(schema("wildbench_score", lower=["toxic_frac"]))
    with pytest.raises(BenchmarkError, match=r"score 7 is outside \[0, 1\].*--scale"):
        read(tmp_path)
    assert read(tmp_path, scale=10).S.tolist() == [[0.7]]
    refused(tmp_path, "lower is better of 'toxic_frac'; give --score 1-toxic_frac", score="toxic_frac")
    assert read(tmp_path, score="1-toxic_frac").S.tolist() == [[0.75]]
    assert read(tmp_path, score="1-toxic_frac", scale=2).S.tolist() == [[0.875]]
    refused(tmp_path, r"no metric 'toxic' in task 'Math'; it has wildbench_score, toxic_frac \(several", score="toxic")
    (run.parent / "schema.json").write_text(schema("toxic_frac", lower=["toxic_frac"]))
    refused(tmp_path, "lower is better of its main metric; --score 1-toxic_frac reads it")
    write_run(tmp_path, "org/b", plain_states(1))
    with pytest.raises(
        BenchmarkError, match=r"org_b: no metric 'wildbench_score', which is the score of 'Math' in other"
    ):
        read(tmp_path, score="wildbench_score", scale=10)


@pytest.mark.parametrize(
    ("counts", "response", "output", "estimated"),
    [
        ({}, "four", 2, False),
        ({"num_output_tokens": 0}, "four words of it", 4, True),  # clients that leave tokens empty
        ({"num_output_tokens": 0}, "", 0, False),
        ({"num_output_tokens": None, "num_completion_tokens": 3}, "four", 3, False),
        ({"num_output_tokens": None}, "four", 1, True),
        ({"num_output_tokens": float("inf")}, "four", 1, True),
        ({"num_output_tokens": -1}, "four", 1, True),
        ({"num_output_tokens": 10**400}, "four", 1, True),
    ],
)
def test_output_tokens(
    tmp_path: Path, counts: Mapping[str, Any], response: str, output: float, estimated: bool
) -> None:
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1, **counts}, response=response)])
    b = read(tmp_path)
    assert b.extras["output_tokens"].tolist() == [[output]]
    assert b.meta["join"]["models"]["org/a"]["estimated_tokens"] == estimated
    assert ("no output tokens are counted beside a response; estimated by its length" in b.meta["join"]["flagged"]) == (
        estimated
    )


def test_input_tokens_without_counts_are_of_what_was_sent(tmp_path: Path) -> None:
    metrics = {"exact_match": 1, "num_prompt_tokens": None}
    write_run(tmp_path, "org/a", [state("id0", metrics, request={"prompt": "x" * 400})])
    b = read(tmp_path)
    assert b.extras["input_tokens"].tolist() == [[100]]
    assert b.meta["join"]["models"]["org/a"]["estimated_tokens"] == 1


@pytest.mark.parametrize("display", [True, False])
def test_what_was_thought_and_echoed(tmp_path: Path, display: bool) -> None:
    none = {"exact_match": 1, "num_output_tokens": 0}
    thought, echoed = state("id0", none, response="four"), state("id1", none, response="P: four")
    thought["result"]["completions"][0]["thinking"] = {"text": "x" * 36}
    echoed["request"] |= {"prompt": "P: ", "echo_prompt": True}
    run = write_run(tmp_path, "org/a", [thought, echoed], display=display)
    if display:
        path = run / "display_predictions.json"
        told = json.loads(path.read_text())
        told[0]["thinking_text"], told[1]["truncated_predicted_text"] = "x" * 36, "four"
        path.write_text(json.dumps(told))
    b = read(tmp_path)
    assert b.extras["output_tokens"].ravel().tolist() == [10, 1]
    assert b.extras["response"].ravel().tolist() == ["four", "four"]


def test_messages_and_texts_in_order(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]}
    parts = [{"content_type": "text/plain", "text": "one"}, {"content_type": "audio/mpeg", "location": "a.mp3"}]
    media = {
        "text": "",
        "multimedia_content": {"media_objects": [*parts, {"content_type": "text/plain", "text": "two"}]},
    }
    states = [
        state("id0", {"exact_match": 1}, input=chat, request={"prompt": "", "messages": chat["messages"]}),
        state(
            "id1",
            {"exact_match": 1},
            input=media,
            request={"prompt": "", "multimodal_prompt": media["multimedia_content"]},
        ),
    ]
    write_run(tmp_path, "org/a", states)
    b = read(tmp_path)
    assert b.texts == ("Be brief.\nWho?", "one\ntwo")
    assert list(b.meta["join"]["flagged"]) == ["input of type audio/mpeg is not read"]
    assert read(tmp_path, embed="request").texts == ("Be brief.\n\nWho?", "onetwo")
    refused(tmp_path, "no field 'requests' to embed; did you mean 'request'", embed="requests")


def test_references_are_no_part_of_a_question_without_options(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", plain_states(1))
    assert read(tmp_path, embed="question").texts == ("What is id0?",)


@pytest.mark.parametrize(
    "location",
    [
        "benchmark_output/scenarios/own/images/red.png",
        "/home/other/work/benchmark_output/scenarios/own/images/red.png",
        "C:\\work\\benchmark_output\\scenarios\\own\\images\\red.png",
        "/data/out/scenarios/own/images/red.png",
        "benchmark_output/scenarios/own/other/../images/red.png",
    ],
)
def test_pictures_are_found_below_the_output_folder(tmp_path: Path, location: str) -> None:
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}, input=picture_input(location))])
    other = "/elsewhere/benchmark_output/scenarios/own/images/red.png"
    if "other/.." not in location:
        write_run(tmp_path, "org/b", [state("id0", {"exact_match": 1}, input=picture_input(other))])
    picture = tmp_path / "benchmark_output" / "scenarios" / "own" / "images" / "red.png"
    picture.parent.mkdir(parents=True)
    (picture.parents[1] / "other").mkdir()
    picture.write_bytes(PNG)
    for path in (tmp_path, tmp_path / "benchmark_output" / "runs" / "s1"):
        b = read(path)
        assert (b.images, b.texts, b.complete.all()) == ((str(picture),), ("Q?",), True)
    assert not b.meta["join"]["flagged"]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("https://example.org/a.png", "a picture that is given by an address is not fetched"),
        ("data:image/png;base64,AAAA", "a picture that is given by an address is not fetched"),
        ("file:///etc/passwd", "a picture that is given by an address is not fetched"),
        ("/etc/passwd", "a picture lies outside of the run's folders; the question is without it"),
        ("benchmark_output/scenarios/none.png", "a picture is not here; the question is without it"),
        ("benchmark_output/scenarios/a\0b.png", "a picture is not here; the question is without it"),
        ("benchmark_output/" + "x" * 5000, "a picture is not here; the question is without it"),
        ("", "a picture is not here; the question is without it"),
    ],
)
def test_pictures_that_are_not_read(tmp_path: Path, location: str, reason: str) -> None:
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}, input=picture_input(location))])
    b = read(tmp_path)
    assert b.images == (None,)
    assert b.meta["join"]["flagged"][reason]["n"] == 1


@pytest.mark.parametrize(
    "location",
    [
        "../secret.png",
        "benchmark_output/../../secret.png",
        "/x/benchmark_output/../../secret.png",
        "a\\..\\..\\secret.png",
        "benchmark_output/scenarios/link.png",
        "benchmark_output/scenarios/linked/secret.png",
    ],
)
def test_pictures_outside_of_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    root = tmp_path / "work"
    write_run(root, "org/a", [state("id0", {"exact_match": 1}, input=picture_input(location))])
    scenarios = root / "benchmark_output" / "scenarios"
    scenarios.mkdir()
    (scenarios / "link.png").symlink_to(tmp_path / "secret.png")
    (scenarios / "linked").symlink_to(tmp_path)
    refused(
        root, r"instances\.json, line \d+: its picture '.*(secret|link)\.png' leads out of .*work; put pictures inside"
    )


def test_a_folder_without_output_folder_bounds_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(PNG)
    run = write_run(tmp_path / "w", "org/a", [state("id0", {"exact_match": 1}, input=picture_input("in/a.png"))])
    shutil.move(run, tmp_path / "alone" / "deep" / "run")
    (tmp_path / "alone" / "in").mkdir()
    (tmp_path / "alone" / "in" / "a.png").write_bytes(PNG)
    assert read(tmp_path / "alone").images == (str(tmp_path / "alone" / "in" / "a.png"),)
    assert read(tmp_path / "alone" / "deep").images == (None,)


def test_a_huge_picture_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}, input=picture_input("big.png"))])
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate((64 << 20) + 1)
    refused(tmp_path, "big.png is over 64 MB")


def test_several_pictures_cost_and_the_first_is_seen(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(PNG + name.encode())
    given = picture_input("a.png", "b.png")
    shots = {"prompt": "", "multimodal_prompt": picture_input("c.png", "a.png", "b.png")["multimedia_content"]}
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}, input=given, request=shots)])
    b = read(tmp_path)
    assert b.images == (str(tmp_path / "a.png"),)
    np.testing.assert_allclose(b.C, 3 * 0.5 + 14e-6)  # as many as were sent
    assert list(b.meta["join"]["flagged"]) == ["several pictures, of which encoders see the first"]


@pytest.mark.parametrize(
    "other",
    [
        {"text": "What else?"},
        {"references": ("five", "four")},
        {"input": picture_input("benchmark_output/scenarios/own/blue.png")},
    ],
)
def test_other_questions_under_one_id_are_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    same = {"input": picture_input("benchmark_output/scenarios/own/red.png")} if "input" in other else {}
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}, **same)])
    write_run(tmp_path, "org/b", [state("id0", {"exact_match": 1}, **other)])
    with pytest.raises(BenchmarkError, match=r"instances\.json, line 2: query 'id0' of 'Math' is another question"):
        read(tmp_path)


def test_one_id_twice_in_a_run_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1}), state("id0", {"exact_match": 1}, split="valid")])
    refused(tmp_path, "instance 'id0' is another question than in")


def test_instances_and_metrics_that_do_not_match_are_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path, "org/a", plain_states(1, 1, 1))
    for name in ("instances.json", "display_requests.json", "display_predictions.json", "per_instance_stats.json"):
        entries = json.loads((run / name).read_text())
        kept = entries[1:] if name == "instances.json" else entries[:2]
        (run / name).write_text(json.dumps(kept))
    b = read(tmp_path)
    assert b.queries == ("id1",)
    assert {reason: told["n"] for reason, told in b.meta["join"]["left_out"].items()} == {
        "metrics of an instance that is not here": 1,
        "an instance without a request": 1,
    }


@pytest.mark.parametrize("name", ["per_instance_stats.json", "instances.json", "display_requests.json"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[{", "line 1: not usable JSON"),
        (b"", "line 1: not usable JSON"),
        (b'{"a": 1}', "line 1: not usable JSON"),
        (b"[\n4\n]", "line 2: not an object"),
        (b'[\n{"id": [1]}]', "line 2: names no instance"),
        ("[é]".encode("latin-1"), "not UTF-8"),
        ("[]".encode("utf-16"), "not UTF-8"),
        (b"[" * 100_000, "not usable JSON .nested too deeply"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    run = write_run(tmp_path, "org/a", plain_states(1))
    (run / name).write_bytes(content)
    refused(tmp_path, f"{name}.*{words}")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"scenario_spec": {', "run_spec.json: not usable JSON"),
        ('{"scenario_spec": {"class_name": "a"}}', r"run_spec.json: names no adapter_spec.model"),
        ('{"scenario_spec": 1, "adapter_spec": {"model": ["x"]}}', r"run_spec.json: names no adapter_spec.model"),
    ],
)
def test_broken_specifications_are_named(tmp_path: Path, content: str, words: str) -> None:
    run = write_run(tmp_path, "org/a", plain_states(1))
    (run / "run_spec.json").write_text(content)
    refused(tmp_path, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"request_states": [{"instance"', "line 1: not usable JSON"),
        ('{"request_states": [\n7]}', "line 2: not an object"),
        ('{"request_states": [\n{"instance": {"input": 5}}]}', "line 2: names no instance"),
        ('{"request_states": [{"a": "' + "x" * (33 << 20), "line 1: not usable JSON .no whole record within 32 MB"),
    ],
)
def test_broken_states_are_named(tmp_path: Path, content: str, words: str) -> None:
    run = write_run(tmp_path, "org/a", plain_states(1), display=False)
    (run / "scenario_state.json").write_text(content)
    refused(tmp_path, f"scenario_state.json, {words}")


def test_fields_of_other_types_are_no_tracebacks(tmp_path: Path) -> None:
    odd = state("id0", {"exact_match": 1})
    odd["instance"] |= {"references": [5, {"output": 3, "tags": "x"}], "split": 7}
    odd["instance"]["input"] = {"text": 4, "multimedia_content": [1], "messages": [None, {"content": 2}]}
    odd |= {"request": 9, "result": {"completions": [None]}}
    run = write_run(tmp_path, "org/a", [state("id0", {"exact_match": 1})], display=False)
    (run / "scenario_state.json").write_text(json.dumps({"request_states": [{**odd, "ours": 0}]}))
    entries = [{"instance_id": "id0", "stats": [3, {"name": "x", "mean": 1}, stat("exact_match", 1)]}]
    (run / "per_instance_stats.json").write_text(json.dumps(entries))
    b = read(tmp_path)
    assert (b.queries, b.S.tolist(), b.texts) == (("7/id0",), [[1]], ("",))


def test_of_large_states_little_is_kept(tmp_path: Path) -> None:
    run = write_run(tmp_path, "org/a", plain_states(*[1] * 20), display=False)
    path = run / "scenario_state.json"
    states = json.loads(path.read_text())["request_states"]
    tokens = json.dumps([{"text": f" {i}", "logprob": -0.5} for i in range(2000)])
    lines = (json.dumps(each).replace('"tokens": []', f'"tokens": {tokens}') for each in states)
    path.write_text(f'{{"request_states": [{",".join(lines)}]}}')
    del states, tokens, lines
    tracemalloc.start()
    answers = Helm().answers(tmp_path, ReadOptions(), Notes())
    assert next(answers).query == "id0"  # all states are read before the first answer
    gc.collect()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(list(answers)) == 19
    assert kept < path.stat().st_size / 5


def test_html_and_control_characters_in_names_are_text(tmp_path: Path) -> None:
    html = "<img src=x onerror=alert(1)>/../x"
    metrics = {"exact_match": 1, "odd\0\ud800": 1}
    states = [state("id/../0\0", metrics, text="<script>1</script>\ud800", input=None)]
    write_run(tmp_path, html, states, scenario="a.<b>\0\ud800", folder="x", display=False)
    b = read(tmp_path)
    assert (b.models[0].name, b.texts, b.queries) == (html, ("<script>1</script>\ufffd",), ("id/../0\ufffd",))
    assert b.tasks == ("<b>\ufffd\ufffd",)
    join = json.dumps(b.meta["join"], ensure_ascii=False)
    assert "\\u0000" not in join
    assert join.encode()


def test_other_folders_are_not_taken_for_runs(tmp_path: Path) -> None:
    (tmp_path / "run_spec.json").write_text('{"spec": 1}')
    assert not Helm.recognises(tmp_path)
    assert not Helm.recognises(tmp_path / "run_spec.json")
    (tmp_path / "run_spec.json").unlink()
    refused(tmp_path, "no run_spec.json here; give HELM's benchmark_output")
    (tmp_path / "a.json").write_text("{}")
    refused(tmp_path / "a.json", "a run of HELM is a folder")
