"""How are RouteLLM's evaluation sets read? Two models on MMLU, GSM8K and MT-Bench."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.columns import csv_header
from workers.benchmarks.identity import files_below, option_error, read_csv_rows, short_id
from workers.benchmarks.jsonfiles import read_lines
from workers.benchmarks.logs import LogFormat
from workers.errors import BenchmarkError

_RESPONSE = "_response"
_TRUTH = {"true": 1.0, "false": 0.0}


class RouteLLM(LogFormat):
    """RouteLLM's `routellm/evals` (Ong et al. 2024), without the prompts that it calls contaminated."""

    name = "routellm"
    summary = "RouteLLM's evaluation sets: mmlu/responses/*.csv, gsm8k/gsm8k_responses.csv, mt_bench/judgements.jsonl"
    verified: ClassVar[str] = (
        "lm-sys/RouteLLM@0b64fda, routellm/evals: MMLU, GSM8K and MT-Bench, 15 424 questions, mean scores equal to "
        "those of the files read by pandas"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By its folders."""
        return path.is_dir() and (
            bool(files_below(path / "mmlu" / "responses", "mmlu_*.csv"))
            or (path / "gsm8k" / "gsm8k_responses.csv").is_file()
        )

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the three sets, as far as they are here."""
        if options.score not in (None, "score") or options.variant is not None:
            raise option_error(path, options, ("score",))
        for file in files_below(path / "mmlu" / "responses", "mmlu_*.csv"):
            yield from _table(file, file.stem, _contaminated(path / "mmlu"), notes)
        gsm8k = path / "gsm8k" / "gsm8k_responses.csv"
        if gsm8k.is_file():
            yield from _table(gsm8k, "gsm8k", _contaminated(path / "gsm8k"), notes)
        if (path / "mt_bench" / "judgements.jsonl").is_file():
            yield from _judgements(path / "mt_bench", notes)


def _contaminated(folder: Path) -> frozenset[str]:
    file = folder / "contaminated_prompts.jsonl"
    return frozenset(str(row.get("eval_prompt")) for _, row in read_lines(file)) if file.is_file() else frozenset()


def _table(file: Path, task: str, contaminated: frozenset[str], notes: Notes) -> Iterator[Answer]:
    names = csv_header(file)
    models = [name for name in names if name != "prompt" and not name.endswith(_RESPONSE)]
    if len(models) < 2:
        raise BenchmarkError(f"{file}: a column prompt and one for each of two models are needed; it has {names}.")
    seen: Counter[str] = Counter()
    for at, row in read_csv_rows(file, "prompt", *models):
        prompt = row["prompt"]
        if prompt in contaminated:
            notes.left_out("a prompt that RouteLLM lists as contaminated", at)
            continue
        key = short_id(prompt)
        seen[key] += 1
        for model in models:
            value = row[model].strip().casefold()
            if value and value not in _TRUTH:
                raise BenchmarkError(f"{at}: {model!r} holds {row[model]!r}, neither True nor False.")
            response = row.get(model + _RESPONSE)
            yield Answer(
                query=key if seen[key] == 1 else f"{key}-{seen[key]}",
                task=task,
                model=model,
                prompt=prompt,
                score=_TRUTH.get(value),
                response=response,
                output_tokens=None if response else 0.0,
                estimated=True,
                at=at,
            )


def _judgements(folder: Path, notes: Notes) -> Iterator[Answer]:
    """Scores of 1 to 10, mean over the turns, as a share of 10."""
    prompts = {row.get("question_id"): row for _, row in read_lines(folder / "question.jsonl")}
    found: dict[tuple[object, str], list[float]] = defaultdict(list)
    places: dict[tuple[object, str], str] = {}
    for line, row in read_lines(folder / "judgements.jsonl"):
        at = f"{folder / 'judgements.jsonl'}, line {line}"
        score, key = row.get("score"), (row.get("question_id"), str(row.get("model")))
        if not isinstance(score, int | float) or not 1 <= score <= 10:
            notes.left_out("a judgement without a score from 1 to 10", at)
            continue
        if key[0] not in prompts:
            raise BenchmarkError(f"{at}: question {key[0]!r} is not in question.jsonl.")
        found[key].append(float(score))
        places.setdefault(key, at)
    notes.choose("score of mt_bench", "mean over the turns, divided by 10")
    for (question, model), scores in found.items():
        turns = prompts[question].get("turns")
        if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
            raise BenchmarkError(f"{folder / 'question.jsonl'}: question {question!r} has no turns.")
        yield Answer(
            query=str(question),
            task="mt_bench",
            model=model,
            prompt="\n".join(turns),
            score=sum(scores) / len(scores) / 10,
            estimated=True,
            at=places[question, model],
        )
