"""How are EmbedLLM's data read? One long CSV: prompt, model, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.columns import csv_header
from workers.benchmarks.identity import files_below, option_error, read_csv_rows
from workers.benchmarks.logs import LogFormat
from workers.errors import BenchmarkError

_COLUMNS = ("prompt_id", "model_name", "category", "label", "prompt")
_LABELS = {"0": False, "1": True, "0.0": False, "1.0": True}


class EmbedLLM(LogFormat):
    """EmbedLLM's `train.csv`, `val.csv`, `test.csv` (Zhuang et al. 2025); its sides are joined, splits are cut here."""

    name = "embedllm"
    summary = "EmbedLLM's train.csv, val.csv and test.csv"
    verified: ClassVar[str] = (
        "not verified on real files; written from richardzhuang0412/EmbedLLM@9b27630 and its dataset card"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the columns of the first file."""
        for file in _files(path)[:1]:
            try:
                return set(_COLUMNS) <= set(csv_header(file))
            except BenchmarkError:
                return False
        return False

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read row by row; of repeated answers of a model the best counts, as in EmbedLLM's own code.

        Only labels are held until the end of a file's rows, 112 models times 36 000 prompts.
        """
        if options.score not in (None, "label") or options.variant is not None:
            raise option_error(path, options, ("label",))
        prompts: dict[tuple[str, str], tuple[str, str]] = {}
        labels: dict[str, dict[tuple[str, str], bool]] = {}
        for file in _files(path):
            for at, row in read_csv_rows(file, *_COLUMNS):
                if row["label"] not in _LABELS:
                    raise BenchmarkError(f"{at}: label {row['label']!r} is neither 0 nor 1.")
                key = row["category"], row["prompt_id"]
                text, first = prompts.setdefault(key, (row["prompt"], at))
                if text != row["prompt"]:
                    raise BenchmarkError(f"{at}: prompt {key[1]!r} is another text than in {first}.")
                own = labels.setdefault(row["model_name"], {})
                if key in own:
                    notes.left_out("a repeated answer of a model, of which the best counts", at)
                own[key] = own.get(key, False) or _LABELS[row["label"]]
        for model, own in labels.items():
            for (category, prompt), label in own.items():
                text, first = prompts[category, prompt]
                yield Answer(
                    query=prompt,
                    task=category,
                    model=model,
                    prompt=text,
                    score=float(label),
                    output_tokens=0.0,
                    estimated=True,
                    at=first,
                )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return files_below(path, "*.csv")
    return [path / name for name in ("train.csv", "val.csv", "test.csv") if (path / name).is_file()]
