"""How is RouterBench's wide table read? One row per sample; per model a score and a `<model>|total_cost` column.

The layout is that of Hu et al., "RouterBench" (arXiv 2403.12031, 2024): a pickled data frame upstream, elsewhere CSV or
Parquet. Some samples come as several rows, each with the outcomes of some models.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Floats, Model
from workers.benchmarks.columns import Columns, column_names, read_columns
from workers.benchmarks.pickles import read_frame
from workers.errors import BenchmarkError

_COST = "|total_cost"
_RESPONSE = "|model_response"

#: Kinds of files, by the end of their names.
KINDS = (".csv", ".parquet", ".pkl")


def load_routerbench(path: Path, *, name: str, embed: str = "prompt") -> Benchmark:
    """Read one file, CSV, Parquet or pickle, or a folder of one of these kinds, in RouterBench's wide layout.

    Rows of one sample_id are merged cell by cell. A cost and an answer (`<model>|model_response`, where a file has it)
    belong to the score of their own row: where that is missing the model is not observed there.

    Args:
        path: A file, or a folder whose files are all read.
        name: Name of the source.
        embed: Column that encoders see.

    Raises:
        BenchmarkError: With the file, row and column at fault, or with the rows that contradict each other.
    """
    files = wide_files(path)
    if not files:
        raise BenchmarkError(f"{path}: no file of {', '.join(KINDS)} here; RouterBench's wide layout is looked for.")
    tables = [_read(file, embed) for file in files]
    models = sorted({model for table in tables for model in models_of(table.names)})
    ids = [sample for table in tables for sample in table.ids("sample_id").to_pylist()]
    samples, sample_of = np.unique(np.array(ids, dtype=object), return_inverse=True)
    rows = _Rows(tables, samples, sample_of)
    S = np.concatenate([_numbers(table, models, "", 1.0) for table in tables])
    C = np.concatenate([_numbers(table, models, _COST, np.inf) for table in tables])
    scores = rows.merged_numbers(S, models, "scores")
    costs = rows.merged_numbers(np.where(np.isnan(S), np.nan, C), models, "costs")
    prompts = rows.merged_text("prompt")
    extras: dict[str, npt.NDArray[Any]] = {}
    if any(model + _RESPONSE in table.names for table in tables for model in models):
        answers = np.concatenate([_responses(table, models) for table in tables])
        answers[np.isnan(S)] = None
        extras["response"] = rows.merged_responses(answers)
    return Benchmark.build(
        name=name,
        queries=samples.tolist(),
        prompts=prompts,
        texts=prompts if embed == "prompt" else rows.merged_text(embed),
        tasks=rows.merged_text("eval_name"),
        models=[Model(name=model) for model in models],
        S=scores,
        C=costs,
        embedded=embed,
        extras=extras,
        where=str(path),
    )


def wide_files(path: Path) -> list[Path]:
    """The file, or all of a folder's files of the first of `KINDS` that it has any of."""
    if not path.is_dir():
        return [path] if path.suffix in KINDS else []
    return next((files for kind in KINDS if (files := sorted(path.glob(f"*{kind}")))), [])


def models_of(names: Sequence[str]) -> list[str]:
    """The models of a wide header: what stands before `|total_cost`."""
    return [name.removesuffix(_COST) for name in names if name.endswith(_COST)]


def plain_prompt(cell: str) -> str:
    """The text of a prompt or of an answer, which upstream is the string of a Python list of turns.

    A list that repeats one prompt is that prompt; several turns stand on lines of their own. Any other cell is taken
    as it is.
    """
    if not cell.startswith("["):
        return cell
    try:
        turns = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    if not isinstance(turns, list) or not all(isinstance(turn, str) for turn in turns):
        return cell
    return "\n".join(dict.fromkeys(turns))


def _read(file: Path, embed: str) -> Columns:
    table = read_frame(file) if file.suffix == ".pkl" else None
    names = table.names if table is not None else column_names(file)
    models = models_of(names)
    if not models:
        raise BenchmarkError(
            f"{file}: not in RouterBench's wide layout: no column ends in {_COST!r}. A file has sample_id, prompt, "
            f"eval_name and per model <model> and <model>{_COST}; a folder may instead hold queries.* and outcomes.*."
        )
    if table is None:
        of_models = {model + suffix for model in models for suffix in ("", _COST, _RESPONSE)}
        table = read_columns(file, {"sample_id", "prompt", "eval_name", embed, *of_models})
    table.require("sample_id", "prompt", "eval_name", embed, *models)
    return table


def _numbers(table: Columns, models: Sequence[str], suffix: str, most: float) -> Floats:
    """One number per row and model, NaN for models that the file lacks; [n_rows, n_models]."""
    values = np.full((table.n_rows, len(models)), np.nan)
    for j, model in enumerate(models):
        if model + suffix in table.names:
            column = table.numbers(model + suffix)
            bad = (column < 0) | (column > most) | np.isinf(column)
            if bad.any():
                row = int(bad.argmax())
                what = "costs are USD, at least 0" if suffix else "scores are within [0, 1]; rescale them"
                raise BenchmarkError(f"{table.at(row)}: {model + suffix!r} is {column[row]}; {what}.")
            values[:, j] = column
    return values


def _responses(table: Columns, models: Sequence[str]) -> npt.NDArray[np.object_]:
    """One answer per row and model, None where there is none; [n_rows, n_models]."""
    answers = np.full((table.n_rows, len(models)), None, dtype=object)
    for j, model in enumerate(models):
        if model + _RESPONSE in table.names:
            cells = table.objects(model + _RESPONSE)
            # Many answers are equal, and each is parsed once.
            texts = {cell: None if cell is None else plain_prompt(cell) for cell in set(cells.tolist())}
            answers[:, j] = [texts[cell] for cell in cells]
    return answers


class _Rows:
    """All rows of all files, and which sample each belongs to."""

    def __init__(
        self, tables: list[Columns], samples: npt.NDArray[np.object_], sample_of: npt.NDArray[np.intp]
    ) -> None:
        self.tables = tables
        self.samples = samples
        self.sample_of = sample_of
        self.order = np.argsort(sample_of, kind="stable")
        self.starts = np.searchsorted(sample_of[self.order], np.arange(len(samples)))

    def where(self, sample: int) -> str:
        """The sample and its rows, for a message."""
        places = [table.at(row) for table in self.tables for row in range(table.n_rows)]
        rows = " and ".join(places[i] for i in np.flatnonzero(self.sample_of == sample))
        return f"{rows}: sample_id {str(self.samples[sample])!r}"

    def merged_numbers(self, values: Floats, models: Sequence[str], what: str) -> Floats:
        """The one observed value of each sample and model, [n_samples, n_models]."""
        if not len(values):
            return values
        least = np.fmin.reduceat(values[self.order], self.starts)
        most = np.fmax.reduceat(values[self.order], self.starts)
        if (least < most).any():
            sample, model = np.argwhere(least < most)[0]
            raise BenchmarkError(
                f"{self.where(sample)} has two {what} for model {models[model]!r}, {least[sample, model]} and "
                f"{most[sample, model]}; remove one of the rows."
            )
        return least

    def merged_responses(self, answers: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
        """The one answer of each sample and model; of several the first in code points; [n_samples, n_models]."""
        merged = answers[self.order[self.starts]]
        n_rows = np.diff(self.starts, append=len(answers))
        for sample in np.flatnonzero(n_rows > 1):
            rows = self.order[self.starts[sample] : self.starts[sample] + n_rows[sample]]
            for j, texts in enumerate(answers[rows].T):
                merged[sample, j] = min((text for text in texts if text is not None), default=None)
        return merged

    def merged_text(self, column: str) -> list[str]:
        """The one text of each sample, [n_samples]."""
        texts = [plain_prompt(cell or "") for table in self.tables for cell in table.strings(column)]
        merged = [texts[i] for i in self.order[self.starts]]
        for text, sample in zip(texts, self.sample_of, strict=True):
            if text != merged[sample]:
                raise BenchmarkError(f"{self.where(sample)} has two texts in {column!r}; give each its own id.")
        return merged
