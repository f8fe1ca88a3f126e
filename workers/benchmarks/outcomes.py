"""How does a long table of outcomes become arrays of queries by models, and which row is at fault if it cannot?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import EXTRAS, Floats
from workers.benchmarks.columns import Columns, read_columns
from workers.errors import BenchmarkError

Rows = npt.NDArray[np.int64]

#: Optional columns of numbers: least and most value, and what the numbers are.
_NUMBERS = {
    **dict.fromkeys(("confidence", "verifier", "margin"), (0.0, 1.0, "is outside [0, 1]; rescale it")),
    **dict.fromkeys(
        ("input_tokens", "output_tokens"),
        (0.0, np.finfo(np.float64).max, "is negative or infinite; give a number of tokens"),
    ),
}
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """The arrays of an outcomes table; models in the order in which they occur."""

    models: list[str]
    #: Mean scores over the observed samples, NaN = not observed. [n_queries, n_models]
    S: Floats
    #: Mean costs, NaN exactly where S is. [n_queries, n_models]
    C: Floats
    #: The optional columns that the file has, by their names in `EXTRAS`. [n_queries, n_models, ...]
    extras: dict[str, npt.NDArray[Any]]


def read_outcomes(path: Path, queries: Any, score: str, queries_path: Path) -> Outcomes:
    """Read an outcomes table.

    With a column `sample` a pair may have several rows, one for each of its samples. A table that `save_tables` wrote
    holds a pair's samples in one row instead, as a list `samples`.

    Args:
        path: The table.
        queries: Query ids. pyarrow string array
        score: Column that holds the score.
        queries_path: Where the queries stand, for messages.

    Raises:
        BenchmarkError: With the row at fault.
    """
    wanted = {"query_id", "model", score, "cost", "sample", *EXTRAS}
    if path.suffix != ".parquet":  # the other formats have no lists, and a column of this name means something else
        wanted -= {"samples"} - {score}
    table = read_columns(path, wanted)
    table.require("query_id", "model", score, "cost")
    return _pivot(table, queries, score, queries_path)


def _pivot(table: Columns, queries: Any, score: str, queries_path: Path) -> Outcomes:
    import pyarrow.compute as pc

    models = pc.unique(table.ids("model"))
    shape = (len(queries), len(models))
    cells = _cells(table, queries, models, queries_path)
    rank = _ranks(table)
    order = np.lexsort((rank, cells))
    twice = np.flatnonzero((np.diff(cells[order]) == 0) & (np.diff(rank[order]) == 0))
    if len(twice):
        first, second = order[twice[0] : twice[0] + 2]
        sample = f", sample {table.text('sample')[first].as_py()!r}" if "sample" in table.names else ""
        raise BenchmarkError(
            f"{table.at(first)} and row {second + 1}: {_pair(table, first)}{sample} occurs twice; keep one of them."
        )
    scores = _numbers(table, score, 0.0, 1.0, "is outside [0, 1]; rescale the scores")
    costs = _numbers(table, "cost", 0.0, np.finfo(np.float64).max, "is negative or infinite; costs are USD, at least 0")
    observed = ~(np.isnan(scores) | np.isnan(costs))
    # Of each pair the observed samples come first, then in order of their ids.
    order = np.lexsort((rank, ~observed, cells))
    cells, observed = cells[order], observed[order]
    starts = np.flatnonzero(np.diff(cells, prepend=-1))
    slots = np.arange(len(cells)) - np.repeat(starts, np.diff(starts, append=len(cells)))
    n_slots = int(slots[observed].max(initial=0)) + 1

    def spread(values: Floats) -> Floats:
        array = np.full((shape[0] * shape[1], n_slots), np.nan)
        array[cells[observed], slots[observed]] = values[order][observed]
        return array.reshape(*shape, n_slots)

    samples = spread(scores)
    extras = _extras(table, shape, cells[starts], order[starts])
    if "sample" in table.names:
        extras["samples"] = samples
    return Outcomes(models=models.to_pylist(), S=_means(samples), C=_means(spread(costs)), extras=extras)


def _cells(table: Columns, queries: Any, models: Any, queries_path: Path) -> Rows:
    """Query position times number of models plus model position, of every row. [n_rows]."""
    import pyarrow.compute as pc

    rows = pc.index_in(table.ids("query_id"), queries)
    if rows.null_count:
        row = int(rows.is_null().to_numpy(zero_copy_only=False).argmax())
        raise BenchmarkError(
            f"{table.at(row)}: query_id {table.ids('query_id')[row].as_py()!r} is not in {queries_path.name}; "
            "add the query or remove its outcomes."
        )
    cells: Rows = np.int64(len(models)) * rows.to_numpy() + pc.index_in(table.ids("model"), models).to_numpy()
    return cells


def _ranks(table: Columns) -> Rows:
    """Place of each row's sample among all sample ids: by number if all are numbers, else by code points. [n_rows]."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "sample" not in table.names:
        return np.zeros(table.n_rows, dtype=np.int64)
    column = table.ids("sample")
    ids = sorted(pc.unique(column).to_pylist())
    if all(_NUMBER.fullmatch(sample) for sample in ids):
        ids.sort(key=Decimal)
    ranks: Rows = pc.index_in(column, pa.array(ids, column.type)).to_numpy().astype(np.int64)
    return ranks


def _extras(table: Columns, shape: tuple[int, int], cells: Rows, rows: Rows) -> dict[str, npt.NDArray[Any]]:
    """The optional columns, one row for each cell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    extras: dict[str, npt.NDArray[Any]] = {}

    def place(name: str, values: npt.NDArray[Any], missing: float | None) -> None:
        array = np.full((shape[0] * shape[1], *values.shape[1:]), missing, dtype=values.dtype)
        array[cells] = values[rows]
        extras[name] = array.reshape(*shape, *values.shape[1:])

    if "response" in table.names:
        place("response", table.objects("response"), None)
    for name, limits in _NUMBERS.items():
        if name in table.names:
            place(name, _numbers(table, name, *limits), np.nan)
    if "samples" in table.table.column_names and pa.types.is_fixed_size_list(table.table.column("samples").type):
        lists = table.table.column("samples").combine_chunks()
        values = pc.list_flatten(lists).to_numpy(zero_copy_only=False).astype(np.float64)
        if lists.null_count or (values < 0).any() or (values > 1).any():
            raise BenchmarkError(f"{table.path}: samples has gaps or values outside [0, 1]; import the source again.")
        place("samples", values.reshape(table.n_rows, lists.type.list_size), np.nan)
    return extras


def _numbers(table: Columns, name: str, least: float, most: float, what: str) -> Floats:
    """A column of numbers within limits. [n_rows]."""
    values = table.numbers(name)
    bad = (values < least) | (values > most)
    if bad.any():
        row = int(bad.argmax())
        raise BenchmarkError(f"{table.at(row)} ({_pair(table, row)}): {name} {values[row]} {what}.")
    return values


def _pair(table: Columns, row: int) -> str:
    return f"query {table.text('query_id')[row].as_py()!r}, model {table.text('model')[row].as_py()!r}"


def _means(values: Floats) -> Floats:
    """Mean over the last axis of what is there, NaN where nothing is; exactly the value where all are equal."""
    there = ~np.isnan(values)
    first = values[..., 0]
    excess = np.where(there, values - first[..., None], 0.0).sum(axis=-1)
    means: Floats = first + excess / np.maximum(there.sum(axis=-1), 1)
    return means
