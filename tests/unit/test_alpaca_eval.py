from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from workers.benchmarks.alpaca_eval import AlpacaEval
from workers.benchmarks.base import Benchmark
from workers.benchmarks.length_control import (
    _GAMED,
    _GAMED_WEIGHT,
    Weights,
    fit_weights,
    instruction_key,
    length_controlled_preferences,
    length_controlled_win_rate,
)
from workers.benchmarks.logs import ReadOptions, find_format, read_logs
from workers.benchmarks.prices import Price, Prices
from workers.errors import BenchmarkError

SHARED = Path(os.environ.get("ROADTEST_SHARED", "../shared"))
FIXTURE = SHARED / "data" / "fixtures" / "alpaca_eval" / "out"
RAW = SHARED / "data" / "raw" / "alpaca_eval"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"{FIXTURE} is not here (ROADTEST_SHARED)")
needs_raw = pytest.mark.skipif(not RAW.exists(), reason=f"{RAW} is not here (ROADTEST_SHARED)")

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
#: tatsu-lab/alpaca_eval@cd543a1, leaderboards/data_AlpacaEval_2/weighted_alpaca_eval_gpt4_turbo_leaderboard.csv:
#: win_rate and length_controlled_winrate; metrics/weights/weighted_alpaca_eval_gpt4_turbo/length_controlled_v1/
#: baseline_gpt4_1106_preview.csv: weights of length, difficulty and model.
PUBLISHED = {
    "FuseChat-Qwen-2.5-7B-Instruct": (64.64069997299381, 63.58298649463735),
    "Mixtral-8x7B-Instruct-v0.1_concise": (13.744040154795034, 22.962609472758643),
    "Qwen-14B-Chat": (7.502333484720497, 12.378741790737235),
    "claude-2.1": (15.733506736409938, 25.251943886133027),
    "claude-instant-1.2": (16.12739962159006, 25.61225902543337),
    "gpt-3.5-turbo-1106": (9.177964561962735, 19.30058903498905),
    "gpt4_1106_preview": (50.0, 50.0),
}
WEIGHTS = {
    "FuseChat-Qwen-2.5-7B-Instruct": (-0.9656160039317526, 0.6283493169692116, 0.7193794241118705),
    "Mixtral-8x7B-Instruct-v0.1_concise": (-1.9899832749517885, 1.1040604840388315, -1.6424508784976986),
    "Qwen-14B-Chat": (-1.9362606327202221, 1.1516389891012428, -2.8246472505882005),
    "claude-2.1": (-1.8104339545938817, 0.8304070732099538, -1.3132371282938735),
    "claude-instant-1.2": (-1.8745125521411767, 1.0413876705302201, -1.3903580059479834),
    "gpt-3.5-turbo-1106": (-2.0421297235342082, 1.0101354535205684, -1.9018508475471767),
}
QUESTIONS = ["What is 2+3?", "Name a fruit.", "Say nothing.", "Count to three."]


class OfAll(Prices):
    """One price for every model."""

    def find(self, model: str) -> Price | None:
        return Price(input=1, output=2)


def read(path: Path, **options: Any) -> Benchmark:
    prices = OfAll(source="ours", table={})
    return read_logs(path, AlpacaEval, name="x", options=ReadOptions(**{"prices": prices, **options}))


def row(i: int, preference: Any, **keys: Any) -> dict[str, Any]:
    return {
        "dataset": "koala" if i % 2 else "vicuna",
        "instruction": QUESTIONS[i],
        "output_1": "Five.",
        "generator_1": "base",
        "output_2": "It is 5.",
        "generator_2": "m",
        "annotator": JUDGE,
        "preference": preference,
        "price_per_example": 100.0,
        **keys,
    }


def write(models: Path, model: str, rows: Sequence[Mapping[str, Any]] | str | bytes, annotator: str = JUDGE) -> Path:
    folder = models / model / annotator
    folder.mkdir(parents=True, exist_ok=True)
    content = rows if isinstance(rows, str | bytes) else json.dumps([{"generator_2": model, **r} for r in rows])
    path = folder / "annotations.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def judged(*preferences: Any, **keys: Any) -> list[dict[str, Any]]:
    """One row per preference, of the questions in order."""
    rows = [row(i, preference, **keys) for i, preference in enumerate(preferences)]
    for r in rows:
        del r["generator_2"]
    return rows


def outputs(models: Path, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    (models / model).mkdir(parents=True, exist_ok=True)
    (models / model / "model_outputs.json").write_text(json.dumps(list(rows)))


def difficulties(root: Path, values: Sequence[float], *, keyed: bool = True) -> None:
    """The file of difficulties of the questions in order, as the hub has it or with hashes."""
    head = "index,instruction_difficulty" + (",instruction_sha256_16" if keyed else "")
    lines = [f"{i},{v}" + (f",{instruction_key(QUESTIONS[i])}" if keyed else "") for i, v in enumerate(values)]
    (root / "instruction_difficulty.csv").write_text("\n".join([head, *lines]) + "\n")


def weights(root: Path, values: Mapping[str, Sequence[float]], name: str = "base") -> Path:
    folder = root / "src/alpaca_eval/metrics/weights" / JUDGE / "length_controlled_v1"
    folder.mkdir(parents=True, exist_ok=True)
    head = ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)"
    lines = [f"{model},{','.join(map(repr, numbers))}" for model, numbers in values.items()]
    path = folder / f"baseline_{name}.csv"
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


def scores(b: Benchmark, model: str) -> list[float | None]:
    """A model's scores of the questions, in their order."""
    j = [m.name for m in b.models].index(model)
    at = {query.rsplit("/", 1)[-1]: i for i, query in enumerate(b.queries)}
    cells = [float(b.S[at[key], j]) for q in QUESTIONS if (key := instruction_key(q)) in at]
    return [None if np.isnan(cell) else cell for cell in cells]


def told(b: Benchmark, what: str) -> dict[str, str]:
    """What the report says of each model."""
    return dict(value.split(" ", 1) for value in b.meta["join"]["facts"].get(what, ()))


def logistic(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


@needs_raw
def test_win_rates_of_real_models_are_the_published_ones() -> None:
    assert find_format(RAW) is AlpacaEval
    b = read(RAW)
    assert [m.name for m in b.models] == sorted(PUBLISHED)
    assert (b.n_queries, b.complete.all()) == (805, True)
    for j, model in enumerate(b.models):
        assert 100 * b.S[:, j].mean() == pytest.approx(PUBLISHED[model.name][0], abs=1e-9)
        assert told(b, "win rate")[model.name] == f"{PUBLISHED[model.name][0]:.2f}"
    # No weights are there, so these are fitted: two decimals of what is within 0.11 points.
    controlled = told(b, "length-controlled win rate")
    assert controlled.pop("gpt4_1106_preview") == "50.00"
    for name, rate in controlled.items():
        assert rate.endswith(" (approximation)")
        assert float(rate.split(" ")[0]) == pytest.approx(PUBLISHED[name][1], abs=0.115)
    assert b.meta["join"]["tasks"] == {
        "helpful_base": 129,
        "koala": 156,
        "oasst": 188,
        "selfinstruct": 252,
        "vicuna": 80,
    }
    assert b.meta["join"]["left_out"] == {}
    response = b.extras["response"][0, 3]
    tokens = -(-len(response.encode()) // 4), -(-len(b.texts[0].encode()) // 4)
    assert (b.extras["output_tokens"][0, 3], b.extras["input_tokens"][0, 3]) == tokens
    assert b.C[0, 3] == pytest.approx((tokens[1] + 2 * tokens[0]) / 1e6)


@needs_raw
def test_length_controlled_win_rates_of_real_models_are_the_published_ones_with_published_weights(
    tmp_path: Path,
) -> None:
    lines = (RAW / "instruction_difficulty.csv").read_text().splitlines()[1:]
    difficulty = {line.split(",")[2]: float(line.split(",")[1]) for line in lines}
    d = np.array(list(difficulty.values()))
    for model, (length, of_difficulty, own) in WEIGHTS.items():
        fitted = Weights(length=length, difficulty=of_difficulty, model=own)
        rate = length_controlled_win_rate(np.empty(0), np.empty(0), d, weights=fitted)
        assert 100 * rate == pytest.approx(PUBLISHED[model][1], abs=2e-8)
    (tmp_path / "results").mkdir()
    for model in ("claude-2.1", "FuseChat-Qwen-2.5-7B-Instruct"):
        (tmp_path / "results" / model).symlink_to((RAW / "results" / model).resolve())
    (tmp_path / "instruction_difficulty.csv").symlink_to((RAW / "instruction_difficulty.csv").resolve())
    weights(tmp_path, WEIGHTS, "gpt4_1106_preview")
    b = read(tmp_path, score="length_controlled")
    for j, model in enumerate(b.models):
        assert 100 * b.S[:, j].mean() == pytest.approx(PUBLISHED[model.name][1], abs=2e-8)
        _, slope, own = WEIGHTS[model.name]
        wanted = [logistic(own + slope * difficulty[query.split("/")[1]]) for query in b.queries]
        np.testing.assert_allclose(b.S[:, j], wanted, atol=1e-12)
        assert told(b, "length-controlled win rate")[model.name] == f"{PUBLISHED[model.name][1]:.2f}"
    assert b.meta["join"]["flagged"] == {}


@needs_fixture
def test_win_rates_of_produced_files_are_the_tools_own() -> None:
    b = read(FIXTURE)
    assert [m.name for m in b.models] == ["own_base", "own_big", "own_small"]
    for j, name in ((1, "own_big"), (2, "own_small")):
        board = (FIXTURE / "results" / name / JUDGE / "leaderboard.csv").read_text().splitlines()[1].split(",")
        assert 100 * b.S[:, j].mean() == pytest.approx(float(board[1]), abs=1e-8)  # ten digits of each
    assert b.S[:, 0].tolist() == [0.5] * 3  # it has model_outputs.json alone
    assert sorted(b.extras["response"][:, 0]) == [".", "5", "It is 8."]
    assert sorted(b.tasks) == ["koala", "koala", "selfinstruct"]
    assert b.meta["join"]["chosen"] == {
        "annotator": JUDGE,
        "score": "win_rate against own_base",
        "baseline": "own_base, answers of its model_outputs.json, 0.5 each as against itself",
    }
    with pytest.raises(BenchmarkError, match=r"own_big.*glm_preference.*Put instruction_difficulty\.csv.*win_rate"):
        read(FIXTURE, score="length_controlled")


def test_what_a_preference_means(tmp_path: Path) -> None:
    write(tmp_path, "a", judged(1, 2, 0, None))
    write(tmp_path, "b", judged(1.25, 1.5, float("nan"), 2.0))
    b = read(tmp_path)
    assert (scores(b, "a"), scores(b, "b")) == ([0, 1, 0.5, None], [0.25, 0.5, None, 1])
    assert told(b, "win rate") == {"a": "50.00", "b": "58.33"}
    assert told(b, "length-controlled win rate") == {}
    assert (b.C[b.complete] < 1e-3).all()  # the judge's price is not the model's


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (judged(1, 3), r"annotations\.json, line 1: preference 3 is none of alpaca_eval's"),
        (judged(0.4), r"line 1: preference 0\.4 is none"),
        (judged(float("inf")), r"line 1: preference inf is none"),
        (judged(True), r"line 1: preference 'True' is not a number"),
        (judged("1.5"), r"line 1: preference '1\.5' is not a number"),
        ([{k: v for k, v in judged(1)[0].items() if k != "preference"}], r"line 1: no 'preference'"),
        (judged(1, output_2=None), r"line 1: no text 'output_2'"),
        (judged(1, instruction=7), r"line 1: no text 'instruction'"),
        (json.dumps(judged(1, 1), indent=0)[:-40], r"line \d+: not usable JSON"),
        ("[" * 100_000, r"line 1: not usable JSON \(nested too deeply\)"),
        ("[1]", r"line 1: holds a number, not an object"),
        (json.dumps(judged(1)).encode("utf-16"), r"not UTF-8"),
        ('[\n{"instruction": "' + "x" * (1 << 26), r"line 2: not usable JSON \(no whole record within 32 MB\)"),
    ],
)
def test_broken_files_are_refused_with_their_line(tmp_path: Path, rows: Any, words: str) -> None:
    write(tmp_path, "a", rows)
    with pytest.raises(BenchmarkError, match=words):
        read(tmp_path)


@pytest.mark.parametrize("given", [".", "results", "plain"])
def test_a_root_its_results_or_a_folder_of_models_and_no_other_depth(tmp_path: Path, given: str) -> None:
    models = tmp_path / ("plain" if given == "plain" else "results")
    for model in ("a", "b"):
        write(models, model, judged(1, 2))
    write(models / "a" / JUDGE, JUDGE, judged(2, 2), annotator="")  # a doubled folder
    write(models / "deep", "c", judged(2, 2))
    path = tmp_path / given
    assert find_format(path) is AlpacaEval
    b = read(path)
    assert ([m.name for m in b.models], scores(b, "a")) == (["a", "b"], [0, 1])


def test_what_is_not_its_own_is_not_recognised(tmp_path: Path) -> None:
    assert not AlpacaEval.recognises(tmp_path)
    path = write(tmp_path, "images", '{"images": [], "annotations": []}')
    assert not AlpacaEval.recognises(tmp_path)
    assert not AlpacaEval.recognises(path)
    assert not AlpacaEval.recognises(tmp_path / "nothing")
    with pytest.raises(BenchmarkError, match=r"no <model>/<annotator>/annotations\.json in it nor in its results"):
        read(path)
    write(tmp_path, "images", "[]")
    with pytest.raises(BenchmarkError, match=r"it holds no answer .no annotations"):
        read(tmp_path)


def test_one_annotator_is_read(tmp_path: Path) -> None:
    write(tmp_path, "a", judged(1), annotator="other")
    write(tmp_path, "b", judged(2), annotator="other")
    assert scores(read(tmp_path), "b") == [1]
    write(tmp_path, "b", judged(1), annotator="third")
    with pytest.raises(BenchmarkError, match=r"judged by other, third; say which with --variant"):
        read(tmp_path)
    assert scores(read(tmp_path, variant="other"), "b") == [1]
    write(tmp_path, "b", judged(1.5))
    b = read(tmp_path)
    assert scores(b, "b") == [0.5]
    assert b.meta["join"]["chosen"]["annotator"] == f"{JUDGE} (also there: other, third)"
    assert b.meta["join"]["left_out"]["a model that this annotator has not judged"] == {"n": 1, "such_as": ["a"]}
    with pytest.raises(BenchmarkError, match=r"no annotator 'othre'.*other"):
        read(tmp_path, variant="othre")


def test_answers_are_joined_by_instruction(tmp_path: Path) -> None:
    write(tmp_path, "a", judged(1, 2, 1.5))
    write(tmp_path, "b", judged(1, 2, 1.5)[::-1])
    write(tmp_path, "c", [*judged(1, 2), *judged(1.5)])
    b = read(tmp_path)
    assert scores(b, "a") == scores(b, "b") == [0, 1, 0.5]
    assert scores(b, "c") == [0, 1, None]
    assert b.meta["join"]["left_out"]["a further row of the same instruction"]["n"] == 1
    assert (b.n_queries, b.meta["join"]["answered_by_all"]) == (3, 2)
    write(tmp_path, "d", judged(1, generator_1="another"))
    with pytest.raises(BenchmarkError, match=r"d/.*line 1: judged against 'another', others against 'base'"):
        read(tmp_path)


def test_a_data_set_that_a_row_does_not_name_is_looked_up(tmp_path: Path) -> None:
    bare = [{k: v for k, v in r.items() if k != "dataset"} for r in judged(1, 1, 1, 1)]
    write(tmp_path, "a", bare)
    outputs(tmp_path, "a", [{"instruction": QUESTIONS[0], "output": "x", "dataset": "of outputs"}])
    write(tmp_path, "b", judged(1, 1, 1))
    b = read(tmp_path)
    tasks = {query.rsplit("/", 1)[1]: task for query, task in zip(b.queries, b.tasks, strict=True)}
    assert [tasks[instruction_key(q)] for q in QUESTIONS] == ["of outputs", "koala", "vicuna", "unknown"]
    flagged = {reason: told["n"] for reason, told in b.meta["join"]["flagged"].items()}
    assert flagged == {
        "no data set is named for the instruction; its task is 'unknown'": 1,
        "another data set than in an earlier model, whose counts": 1,
    }
    assert b.n_queries == 4


def test_names_and_prompts_stay_text(tmp_path: Path) -> None:
    name, question = "<b>m\x1b[31m", "<script>alert(1)</script>\x00"
    write(tmp_path, name, judged(1, 2, instruction=question)[:1])
    write(tmp_path, "b", judged(2, instruction=question, generator_1="base"))
    b = read(tmp_path)
    assert "<script>alert(1)</script>" in b.texts[0]
    assert {m.name for m in b.models} == {name, "b"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score": "lenght_controlled"}, "no score 'lenght_controlled'.*length_controlled"),
        ({"scale": 100.0}, "leave --scale out"),
        ({"embed": "dataset"}, "no field 'dataset' to embed"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    write(tmp_path, "a", judged(1))
    with pytest.raises(BenchmarkError, match=words):
        read(tmp_path, **options)


@pytest.mark.parametrize("keyed", [True, False])
def test_published_weights_and_difficulties_give_the_length_controlled_preferences(tmp_path: Path, keyed: bool) -> None:
    models = tmp_path / "results"
    write(models, "a", judged(1, 2, None, 1.5)[::-1])
    write(models, "base", judged(1.5, 1.5, 1.5, 1.5))
    difficulties(tmp_path, [-1, 0, 1, 3], keyed=keyed)
    outputs(models, "base", [{"instruction": q, "output": "Five."} for q in QUESTIONS])
    weights(tmp_path, {"a": (-1.5, 0.5, -1.0)})
    b = read(tmp_path, score="length_controlled")
    wanted = [logistic(-1 + 0.5 * d) for d in (-1, 0, 1, 3)]
    assert scores(b, "a") == [*(pytest.approx(w, abs=1e-12) for w in wanted[:2]), None, pytest.approx(wanted[3])]
    assert scores(b, "base") == [0.5] * 4
    # alpaca_eval predicts what the judge did not say, too.
    assert told(b, "length-controlled win rate") == {
        "a": "{0} ({0} in alpaca_eval, which takes difficulties by row number)".format(f"{100 * np.mean(wanted):.2f}"),
        "base": "50.00",
    }
    assert b.meta["join"]["flagged"] == {}
    (models / "instruction_difficulty.csv").write_bytes((tmp_path / "instruction_difficulty.csv").read_bytes())
    (tmp_path / "instruction_difficulty.csv").unlink()
    assert scores(read(models, score="length_controlled"), "a") == scores(b, "a")


def test_without_weights_the_preferences_are_named_an_approximation(tmp_path: Path) -> None:
    write(tmp_path, "a", judged(1.2, 1.4, 1.3, output_1="x" * 9, output_2="x" * 30))
    write(tmp_path, "b", judged(1.2, 1.4, 1.3, 1.3))
    write(tmp_path, "c", judged(None, None))
    difficulties(tmp_path, [-1, 0, 1])
    b = read(tmp_path, score="length_controlled")
    fitted = fit_weights(np.array([0.2, 0.4, 0.3]), np.full(3, -21.0), np.array([-1.0, 0, 1]))
    assert scores(b, "a")[:3] == pytest.approx(length_controlled_preferences(fitted, np.array([-1.0, 0, 1])).tolist())
    assert scores(b, "b")[3] is None
    rates = told(b, "length-controlled win rate")
    assert rates["b"].endswith("(approximation of 3 of 4 instructions)")
    assert (rates["a"].split(" ", 1)[1], "c" in rates) == ("(approximation)", False)
    flagged = {reason: told["such_as"] for reason, told in b.meta["join"]["flagged"].items()}
    assert flagged == {
        "length-controlled preferences that are an approximation: no fitted weights of the model are here": ["a", "b"],
        "a model with instructions of unknown difficulty, not observed there": ["b"],
    }


def test_preferences_that_alpaca_eval_left_in_the_rows_come_first(tmp_path: Path) -> None:
    rows = [{**r, "glm_preference": g} for r, g in zip(judged(1, 2), (0.25, 0.75), strict=True)]
    write(tmp_path, "a", rows)
    b = read(tmp_path, score="length_controlled")
    assert scores(b, "a") == [0.25, 0.75]
    assert told(b, "length-controlled win rate") == {"a": "50.00"}
    del rows[1]["glm_preference"]
    write(tmp_path, "a", rows)
    with pytest.raises(BenchmarkError, match="no length-controlled preferences"):
        read(tmp_path, score="length_controlled")


def test_difficulties_are_recovered_from_a_doubled_folder(tmp_path: Path) -> None:
    models = tmp_path / "results"
    truth = [-1.25, 0.5, 2.0]
    preferences = [logistic(-0.5 + 0.8 * d) for d in truth]
    rows = [{**r, "glm_preference": g} for r, g in zip(judged(1, 1, 1), preferences, strict=True)]
    write(models, "a", judged(1, 1, 1))
    write(models / "a" / JUDGE, JUDGE, rows, annotator="")
    write(models, "b", judged(2, 2, 2))
    weights(tmp_path, {"a": (-1.0, 0.8, -0.5), "b": (-1.0, 1.5, 0.25)})
    b = read(tmp_path, score="length_controlled")
    assert scores(b, "a") == pytest.approx(preferences, abs=1e-12)
    assert scores(b, "b") == pytest.approx([logistic(0.25 + 1.5 * d) for d in truth], abs=1e-12)


def test_files_beside_the_results_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "results", "a", judged(1, 2))
    difficulties(tmp_path, [0, 1], keyed=False)
    with pytest.raises(BenchmarkError, match=r"2 difficulties, but the baseline answers 0 instructions"):
        read(tmp_path, score="length_controlled")
    difficulties(tmp_path, [0, 1e9])
    with pytest.raises(BenchmarkError, match=r"instruction_difficulty\.csv, row 2: the difficulty is not within"):
        read(tmp_path, score="length_controlled")
    difficulties(tmp_path, [0, 1])
    path = weights(tmp_path, {"a": (-1.0, float("nan"), 0.0)})
    with pytest.raises(BenchmarkError, match=r"baseline_base\.csv, row 1: a weight of 'a' is not within"):
        read(tmp_path, score="length_controlled")
    path.write_text("model,weight\na,1\n")
    with pytest.raises(BenchmarkError, match=r"baseline_base\.csv: no column"):
        read(tmp_path, score="length_controlled")


def test_a_baselines_name_is_no_path(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("../../outside", str(tmp_path / "outside")):
        outputs(tmp_path, "outside", [{"instruction": QUESTIONS[0], "output": "secret"}])
        write(root / "results", "a", judged(1, 2, generator_1=name))
        difficulties(root, [0, 1])
        weights(root, {"a": (0.0, 1.0, 0.0)}, "inside")
        b = read(root, score="length_controlled")
        assert [m.name for m in b.models] == ["a"]
        assert len(b.meta["join"]["flagged"]) == 1  # fitted: no file of weights has this name


def objective(w: Weights, preferences: Any, lengths: Any, d: Any) -> float:
    """What is minimised, written out."""
    spread = lengths.std(ddof=1)
    total = 0.0
    for p, length, difficulty in zip(preferences, lengths, d, strict=True):
        q = logistic(w.length * np.tanh(length / spread) + w.difficulty * difficulty + w.model)
        total -= p * np.log(q) + (1 - p) * np.log(1 - q)
    for length, difficulty, p, n in _GAMED.tolist():
        q = logistic(w.length * length + w.difficulty * difficulty)
        total -= _GAMED_WEIGHT * n * (p * np.log(q) + (1 - p) * np.log(1 - q))
    return total + (abs(w.length) + abs(w.difficulty) + abs(w.model)) / 21.5443469


def test_fitted_weights_are_the_minimum_and_take_out_length() -> None:
    rng = np.random.default_rng(0)
    n = 805
    d, lengths = rng.normal(size=n), rng.normal(-400, 500, size=n)  # its answers are longer
    truth = Weights(length=-1.8, difficulty=0.75, model=-0.4)
    logits = truth.length * np.tanh(lengths / lengths.std(ddof=1)) + truth.difficulty * d + truth.model
    preferences = 1 / (1 + np.exp(-logits))
    fitted = fit_weights(preferences, lengths, d)
    assert fitted.length == pytest.approx(truth.length, abs=0.01)
    assert fitted.model == pytest.approx(truth.model, abs=0.01)
    own = length_controlled_preferences(truth, d).mean()
    assert length_controlled_win_rate(preferences, lengths, d) == pytest.approx(own, abs=0.002)
    assert preferences.mean() > own + 0.1
    best = objective(fitted, preferences, lengths, d)
    for step in np.concatenate([np.eye(3), -np.eye(3), rng.normal(size=(6, 3))]) * 0.005:
        moved = Weights(
            length=fitted.length + step[0], difficulty=fitted.difficulty + step[1], model=fitted.model + step[2]
        )
        assert objective(moved, preferences, lengths, d) > best
    with_gaps = np.concatenate([preferences, [np.nan]])
    again = fit_weights(with_gaps, np.append(lengths, lengths.mean()), np.append(d, 0.0))
    assert again.model == pytest.approx(fitted.model, abs=0.01)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_model_that_always_wins_or_loses_has_finite_weights(value: float) -> None:
    fitted = fit_weights(np.full(50, value), np.zeros(50), np.linspace(-3, 3, 50))
    assert 4 < abs(fitted.model) < 12
    assert (fitted.model > 0) == (value == 1)
    assert fitted.length == pytest.approx(-1.84, abs=0.05)  # where the gamed baselines pull it
