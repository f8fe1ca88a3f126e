"""What are the columns of a parquet, CSV or JSONL file, and which row is at fault when one cannot be used?"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: File name extensions that `read_columns` understands.
FORMATS = (".parquet", ".csv", ".jsonl")

#: What a number that is not there looks like in CSV and JSONL, in lower case.
MISSING = ("", "na", "n/a", "nan", "none", "null")

#: A CSV row must fit into one block of the parser.
_CSV_BLOCK_BYTES = 1 << 26
#: Characters of one line of a CSV file's header.
_MOST_HEADER = 1 << 20


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """The wanted columns of one file; CSV and JSONL hold every value as text until it is asked for as a number."""

    path: Path
    #: Every column of the file, wanted or not.
    names: tuple[str, ...]
    #: pyarrow.Table of the wanted columns that exist.
    table: Any

    @property
    def n_rows(self) -> int:
        """Number of data rows."""
        return int(self.table.num_rows)

    def at(self, row: int) -> str:
        """The place of a row (counted from 0 here, from 1 in the message, the header left out)."""
        return f"{self.path}, row {row + 1}"

    def require(self, *names: str) -> None:
        """Check that columns exist.

        Raises:
            BenchmarkError: Naming the missing column and those that the file has.
        """
        for name in names:
            if name not in self.names:
                columns = ", ".join(self.names)
                raise BenchmarkError(
                    f"{self.path}: no column {name!r} (columns: {columns}); {nearest(name, list(self.names))}"
                )

    def text(self, name: str) -> Any:
        """A column as a pyarrow string array, [n_rows]."""
        import pyarrow as pa

        column = self.table.column(name)
        try:
            return pa.chunked_array(column.cast(pa.string()).chunks, pa.string()).combine_chunks()
        except pa.ArrowException as error:
            raise BenchmarkError(f"{self.path}: column {name!r} holds {column.type}, not text.") from error

    def strings(self, name: str) -> list[str | None]:
        """A column as Python strings; all None where the file has no such column; [n_rows]."""
        return self.text(name).to_pylist() if name in self.names else [None] * self.n_rows

    def objects(self, name: str) -> npt.NDArray[np.object_]:
        """A column as str or None; equal texts are one object, so that repeated answers are kept once. [n_rows].

        An empty field of a CSV is None.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.table.column(name)
        try:  # 64-bit offsets: long answers of many rows exceed 2 GB
            encoded = column.cast(pa.large_string()).combine_chunks().dictionary_encode()
        except pa.ArrowException as error:
            raise BenchmarkError(f"{self.path}: column {name!r} holds {column.type}, not text.") from error
        texts = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
        if self.path.suffix == ".csv":
            texts[texts == ""] = None
        objects: npt.NDArray[np.object_] = texts[pc.fill_null(encoded.indices, len(texts) - 1).to_numpy()]
        return objects

    def ids(self, name: str) -> Any:
        """A text column without gaps, as a pyarrow string array, [n_rows].

        Raises:
            BenchmarkError: Naming the first row without a value.
        """
        import pyarrow.compute as pc

        values = self.text(name)
        gaps = pc.fill_null(pc.equal(values, ""), True).to_numpy(zero_copy_only=False)
        if gaps.any():
            raise BenchmarkError(f"{self.at(int(gaps.argmax()))}: no {name}; every row needs one.")
        return values

    def numbers(self, name: str) -> Floats:
        """A column as float64, true and false as 1 and 0, NaN where there is none; [n_rows].

        Raises:
            BenchmarkError: Naming the first row that is not a number.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.table.column(name)
        if pa.types.is_dictionary(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.string())
        if pa.types.is_string(column.type):
            column = pc.utf8_lower(pc.utf8_trim_whitespace(column))
            for words, value in ((MISSING, None), (("true",), "1"), (("false",), "0")):
                column = pc.if_else(pc.is_in(column, pa.array(words)), pa.scalar(value, pa.string()), column)
        try:
            return np.array(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException as error:
            for row, value in enumerate(column.to_pylist()):
                if value is not None and not _is_number(value):
                    raise BenchmarkError(f"{self.at(row)}: {name} {value!r} is not a number.") from error
            raise BenchmarkError(f"{self.path}: column {name!r} holds {column.type}, not numbers.") from error


def read_columns(path: Path, wanted: Collection[str]) -> Columns:
    """Read the wanted columns of a file, those of them that exist.

    Raises:
        BenchmarkError: The file is unreadable or malformed; the message names the line where there is one.
    """
    import pyarrow as pa

    read = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}[path.suffix]
    try:
        return read(path, wanted)
    except (pa.ArrowException, UnicodeError, csv.Error) as error:
        raise BenchmarkError(f"{path}: not a readable {path.suffix[1:]} file ({_first_line(error)}).") from error
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror or _first_line(error)}).") from error


def column_names(path: Path) -> tuple[str, ...]:
    """The column names of a CSV or parquet file.

    Raises:
        BenchmarkError: The file is unreadable, empty, or names a column twice.
    """
    return csv_header(path) if path.suffix == ".csv" else read_columns(path, ()).names


def csv_header(path: Path) -> tuple[str, ...]:
    """The column names of a CSV file.

    Raises:
        BenchmarkError: The file is unreadable, empty, or names a column twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            names = tuple(next(csv.reader(bounded_lines(file, path, _MOST_HEADER)), ()))
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}).") from error
    except (UnicodeError, csv.Error) as error:
        raise BenchmarkError(f"{path}: not a readable csv file ({_first_line(error)}).") from error
    if not names:
        raise BenchmarkError(f"{path}: the file is empty; a header line is needed.")
    return _unique(path, names)


def bounded_lines(file: TextIO, path: Path, most: int) -> Iterator[str]:
    """Lines of a text file, each of at most so many characters.

    Raises:
        BenchmarkError: With the line that is longer, before it is held whole.
    """
    for number in count(1):
        line = file.readline(most + 1)
        if len(line) > most:
            raise BenchmarkError(f"{path}, line {number}: over {most:,} characters; no line is so long.")
        if not line:
            return
        yield line


def _read_parquet(path: Path, wanted: Collection[str]) -> Columns:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = _unique(path, file.schema_arrow.names)
        return Columns(path=path, names=names, table=file.read(columns=[name for name in names if name in wanted]))


def _read_csv(path: Path, wanted: Collection[str]) -> Columns:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    names = csv_header(path)
    kept = [name for name in names if name in wanted]
    try:
        table = arrow_csv.read_csv(
            path,
            # One thread, or messages carry no row number.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=_CSV_BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                include_columns=kept, column_types=dict.fromkeys(kept, pa.string())
            ),
        )
    except pa.ArrowInvalid as error:
        numbered = re.search(r"Row #(\d+): (.*)", _first_line(error))
        if numbered is None:
            raise
        # Arrow counts the header as row 1.
        raise BenchmarkError(f"{path}, row {int(numbered[1]) - 1}: malformed: {numbered[2]}.") from error
    return Columns(path=path, names=names, table=table)


def _read_jsonl(path: Path, wanted: Collection[str]) -> Columns:
    import pyarrow as pa

    # Numbers stay as they are written: numeric ids are text, and floats are parsed once, with their column.
    decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)
    names: dict[str, None] = {}
    rows: list[dict[str, str | None]] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.isspace():
                continue
            try:
                record = decoder.decode(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(record, dict):
                    raise ValueError("not an object")
                rows.append({name: _json_text(name, record[name]) for name in wanted if name in record})
            except (ValueError, RecursionError) as error:
                raise BenchmarkError(
                    f"{path}, line {number}: not usable JSON ({error}); a line holds one object of text and numbers."
                ) from error
            names.update(dict.fromkeys(record))
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in names if name in wanted}
    return Columns(path=path, names=tuple(names), table=pa.table(columns))


def _json_text(name: str, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value)
    raise ValueError(f"{name} holds a {type(value).__name__}")


def _unique(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BenchmarkError(f"{path}: the column {name!r} is there twice; rename one.")
        seen.add(name)
    return tuple(names)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _first_line(error: Exception) -> str:
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= 200 else line[:200] + " …"
