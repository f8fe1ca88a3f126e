"""How are LLMRouterBench's records read? One JSON object for each data set, split and model."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.identity import number, option_error
from workers.benchmarks.jsonfiles import first_characters, read_members
from workers.benchmarks.logs import LogFormat
from workers.errors import BenchmarkError

_STAMP = re.compile(r"-(\d{8}_\d{6})\.json$")


class LLMRouterBench(LogFormat):
    """LLMRouterBench's `<data set>/<split>/<model>/<data set>-<split>-<model>-<stamp>.json`."""

    name = "llmrouterbench"
    summary = "LLMRouterBench's result files, costs in USD included"
    verified: ClassVar[str] = (
        "not verified on real files; written from ynulihao/LLMRouterBench@0e267fb, data_collector/storage.py and "
        "baselines/data_loader.py"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the place of a file three folders down, and how it begins."""
        files = _files(path)
        return bool(files) and '"performance"' in first_characters(files[0])

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the newest file of each data set, split and model."""
        if options.score not in (None, "score") or options.variant is not None:
            raise option_error(path, options, ("score",))
        newest: dict[Path, Path] = {}
        for file in _files(path):  # in the order of stamps; a legacy result.json comes before every stamp
            if file.parent in newest:
                notes.left_out("an older run of the same model and data set", str(newest[file.parent]))
            newest[file.parent] = file
        for folder, file in newest.items():
            yield from _records(file, f"{folder.parent.parent.name}/{folder.parent.name}", folder.name, notes)


def _files(path: Path) -> list[Path]:
    found = [file for file in path.glob("*/*/*/*.json") if file.is_file()] if path.is_dir() else []
    stamped = [file for file in found if _STAMP.search(file.name) or file.name == "result.json"]
    return sorted(stamped, key=lambda file: (str(file.parent), _stamp(file)))


def _stamp(file: Path) -> str:
    match = _STAMP.search(file.name)
    return match[1] if match else ""


def _records(file: Path, task: str, model: str, notes: Notes) -> Iterator[Answer]:
    head: dict[str, Any] = {}
    answers: list[Answer] = []
    for key, line, value in read_members(file, "records"):
        at = f"{file}, line {line}"
        if key != "records":
            head[key] = value
            continue
        if not isinstance(value, dict) or "index" not in value:
            raise BenchmarkError(f"{at}: no record of LLMRouterBench: index is missing.")
        question = _text(value.get("origin_query")) or _text(value.get("prompt"))
        score = number(value.get("score"), at)
        answers.append(
            Answer(
                query=str(value["index"]),
                task=task,
                model=model,
                prompt=question,
                score=score,
                cost=number(value.get("cost"), at),
                input_tokens=number(value.get("prompt_tokens"), at),
                output_tokens=number(value.get("completion_tokens"), at),
                response=value["raw_output"] if isinstance(value.get("raw_output"), str) else None,
                at=at,
            )
        )
    if head.get("demo") is True:
        notes.left_out("a demonstration run", str(file))
        return
    yield from answers


def _text(value: Any) -> str:
    if isinstance(value, list):
        parts = [part.get("content") if isinstance(part, dict) else part for part in value]
        return "\n".join(part for part in parts if isinstance(part, str))
    return value if isinstance(value, str) else ""
