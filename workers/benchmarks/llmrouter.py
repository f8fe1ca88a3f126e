"""How are LLMRouter's routing data read? A JSON line for each question and model, and a file of candidates' prices."""

from __future__ import annotations

import filecmp
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.choices import options_of, with_options
from workers.benchmarks.identity import files_below, number, option_error, short_id
from workers.benchmarks.jsonfiles import first_characters, read_lines, read_object
from workers.benchmarks.logs import LogFormat
from workers.benchmarks.prices import Price, Prices, estimate_tokens
from workers.errors import BenchmarkError

_ROUTING = "default_routing_*_data.jsonl"
#: The given folder, those of a download, and those of a clone.
_DEPTHS = ("", "*/", "*/*/")
#: Where the candidates' prices are, as seen from the folder of the routing data.
_CANDIDATES = (
    "default_llm.json",
    "../llm_candidates/default_llm.json",
    "../example_data/llm_candidates/default_llm.json",
)
#: How the response of a call that failed begins.
_FAILED = ("ERROR: ", "API Error: ")
#: Metric of questions whose choices were shown; elsewhere they are what the answer is tested by.
_MULTIPLE_CHOICE = "em_mc"


class LLMRouter(LogFormat):
    """LLMRouter's `default_routing_{train,test}_data.jsonl`; the sides are joined, splits are cut here."""

    name = "llmrouter"
    summary = "LLMRouter's default_routing_*_data.jsonl and default_llm.json"
    verified: ClassVar[str] = (
        "not verified on real files; written from ulab-uiuc/LLMRouter@4e7a796, llmrouter/data/"
        "api_calling_evaluation.py and llmrouter/utils/data_processing.py; the authors' scores of 6108 questions, "
        "written in this layout, come back with their means"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the names of the files, and how the first begins."""
        files = _found(path)
        text = first_characters(files[0]) if files and files[0].match(_ROUTING) else ""
        return text.startswith("{") and '"task_name"' in text

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read every file, line by line; repeated questions are numbered."""
        if options.score not in (None, "performance") or options.variant is not None:
            raise option_error(path, options, ("performance",))
        files = _each_once(path, notes)
        notes.prices = _candidates(files)
        seen: Counter[tuple[str, str]] = Counter()
        for file in files:
            for line, record in read_lines(file):
                yield _answer(record, f"{file}, line {line}", seen, notes)


def _found(path: Path) -> list[Path]:
    if path.is_file():
        return files_below(path, "*.jsonl")
    return [file for depth in _DEPTHS for file in files_below(path, depth + _ROUTING)]


def _each_once(path: Path, notes: Notes) -> list[Path]:
    """The files without copies of each other, which a clone has.

    Raises:
        BenchmarkError: Two of one name differ.
    """
    kept: dict[str, Path] = {}
    for file in _found(path):
        other = kept.setdefault(file.name, file)
        if other == file:
            continue
        if not filecmp.cmp(other, file, shallow=False):
            raise BenchmarkError(f"{path}: {other} and {file} differ; give the folder of one of them.")
        notes.left_out("a copy of another file", str(file))
    return list(kept.values())


def _candidates(files: list[Path]) -> Prices | None:
    """The prices of the first file of candidates that is there, in USD per 1M tokens."""
    places = [file.parent / place for file in files for place in _CANDIDATES]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        return None
    table = {}
    for model, facts in read_object(path).items():
        given = facts if isinstance(facts, dict) else {}
        prices = [number(given.get(f"{side}_price"), f"{path}, {model!r}") for side in ("input", "output")]
        if prices[0] is None or prices[1] is None:
            continue
        if not all(0 <= price < math.inf for price in prices if price is not None):
            raise BenchmarkError(f"{path}: prices of {model!r} must be USD, at least 0.")
        table[model] = Price(input=prices[0], output=prices[1])
    return Prices(source=path.name, table=table)


def _answer(record: Mapping[str, Any], at: str, seen: Counter[tuple[str, str]], notes: Notes) -> Answer:
    task, question, model = (_text(record, key, at) for key in ("task_name", "query", "model_name"))
    response = record.get("response")
    response = response if isinstance(response, str) else None
    score = number(record.get("performance"), at)
    if response is not None and response.startswith(_FAILED):
        notes.flag("a call that failed is not observed", at)
        score = response = None
    inputs, outputs, counted = _tokens(record, response, at)
    # As LLMRouter tells questions apart, and by what makes equal texts different questions.
    key = short_id(task, question, *(str(record.get(k)) for k in ("ground_truth", "metric", "choices", "task_id")))
    seen[key, model] += 1
    shown = options_of(record.get("choices")) if record.get("metric") == _MULTIPLE_CHOICE else []
    return Answer(
        query=key if seen[key, model] == 1 else f"{key}-{seen[key, model]}",
        task=task,
        model=model,
        prompt=question,
        texts={"question": with_options(question, shown)},
        score=score,
        input_tokens=inputs,
        output_tokens=outputs,
        estimated=not counted,
        response=response,
        at=at,
    )


def _text(record: Mapping[str, Any], key: str, at: str) -> str:
    value = record.get(key)
    if not isinstance(value, str):
        raise BenchmarkError(f"{at}: no record of LLMRouter: {key} is not text.")
    return value


def _tokens(record: Mapping[str, Any], response: str | None, at: str) -> tuple[float | None, float | None, bool]:
    """Input and output tokens, and whether both were counted; of a total alone, what the response leaves is input."""
    inputs, outputs, total = (number(record.get(key), at) for key in ("input_tokens", "output_tokens", "token_num"))
    for tokens in (inputs, outputs, total):
        if tokens is not None and not 0 <= tokens < math.inf:
            raise BenchmarkError(f"{at}: {tokens:g} is no number of tokens.")
    if inputs is not None and outputs is not None:
        return inputs, outputs, True
    if total is None:
        return inputs, outputs, False
    written = min(float(estimate_tokens(response or "")), total)
    return total - written, written, False
