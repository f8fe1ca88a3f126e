"""How are RouterDC's data read? One JSON array for each task and side: question and every model's score."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.identity import files_below, option_error, short_id
from workers.benchmarks.jsonfiles import first_characters, read_records
from workers.benchmarks.logs import LogFormat
from workers.errors import BenchmarkError

#: Sides of its own; both are read, because splits are cut here.
_SIDE = re.compile(r"[_-](train|test)$")
_SCORES = ("score", "correct")


class RouterDC(LogFormat):
    """RouterDC's `datasets/split2_model7/*.json` (Chen et al. 2024)."""

    name = "routerdc"
    summary = "RouterDC's arrays of question and scores, one file for each task and side"
    verified: ClassVar[str] = (
        "shuhao02/RouterDC@0e63989, datasets/split2_model7: 16 files, 20 600 queries, 7 models; mean scores equal to "
        "those of the files read otherwise"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By how the first file begins."""
        files = files_below(path, "*.json")
        text = first_characters(files[0]) if files else ""
        return text.lstrip().startswith("[") and '"question"' in text and '"scores"' in text

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read every task's files; repeated questions are numbered."""
        kind = options.score or "score"
        if kind not in _SCORES or options.variant is not None:
            raise option_error(path, options, _SCORES)
        notes.choose("score", "1 where a model's score is above 0" if kind == "correct" else "as the files have it")
        for file in files_below(path, "*.json"):
            task = _SIDE.sub("", file.stem)
            seen: Counter[str] = Counter()
            for line, record in read_records(file):
                at = f"{file}, line {line}"
                question, scores = record.get("question"), record.get("scores")
                if not isinstance(question, str) or not isinstance(scores, dict):
                    raise BenchmarkError(f"{at}: no question with scores, as RouterDC has them.")
                key = short_id(file.stem, question)
                seen[key] += 1
                for model, score in scores.items():
                    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
                        raise BenchmarkError(f"{at}: the score of {model!r} is {score!r}, not a number.")
                    value = None if score is None else float(score > 0) if kind == "correct" else float(score)
                    yield Answer(
                        query=key if seen[key] == 1 else f"{key}-{seen[key]}",
                        task=task,
                        model=str(model),
                        prompt=question,
                        score=value,
                        output_tokens=0.0,
                        estimated=True,
                        at=at,
                    )
