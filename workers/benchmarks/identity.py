"""What do readers of published routing data share? Files below a path, ids of questions, and refusals."""

from __future__ import annotations

import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import ReadOptions
from workers.benchmarks.columns import bounded_lines
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: Characters of one field and of one line of a CSV file.
_MOST = 1 << 25
#: Characters of a value that a message shows.
_SHOWN = 80


def files_below(path: Path, pattern: str) -> list[Path]:
    """The file itself, or the files of a folder that match, without hidden ones and those of `benchmarks fetch`."""
    if path.is_file():
        return [path] if path.match(pattern) else []
    return sorted(
        file
        for file in path.glob(pattern)
        if file.is_file() and not file.name.startswith(".") and file.name != "fetch.json"
    )


def short_id(*parts: str) -> str:
    """The first 16 hexadecimal digits of the parts' sha256."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def option_error(path: Path, options: ReadOptions, scores: Sequence[str]) -> BenchmarkError:
    """What to raise for a score that a format lacks, or a variant where there are none."""
    if options.variant is not None:
        return BenchmarkError(f"{path}: variant {options.variant!r} means nothing here; leave it out.")
    wanted = options.score or ""
    return BenchmarkError(f"{path}: no score {wanted!r}; {nearest(wanted, list(scores))}")


def number(value: Any, at: str) -> float | None:
    """A number of a JSON record as a float, true and false as 1 and 0, None where there is none.

    Raises:
        BenchmarkError: Anything else stands there.
    """
    if value is None:
        return None
    if not isinstance(value, int | float):
        raise BenchmarkError(f"{at}: {repr(value)[:_SHOWN]} stands where a number belongs.")
    try:
        return float(value)
    except OverflowError as error:
        raise BenchmarkError(f"{at}: a number of {len(str(value))} digits is no score, cost or count.") from error


def read_csv_rows(path: Path, *columns: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Places and rows of a CSV file, one at a time.

    Raises:
        BenchmarkError: A column is missing, a row has another number of fields, a field or line is too long, or not
            UTF-8.
    """
    csv.field_size_limit(min(_MOST, sys.maxsize))
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(bounded_lines(file, path, _MOST), strict=True)
            missing = [column for column in columns if column not in (rows.fieldnames or ())]
            if missing:
                raise BenchmarkError(
                    f"{path}: no column {', '.join(missing)}; it has {', '.join(rows.fieldnames or ())}."
                )
            for row in rows:
                at = f"{path}, line {rows.line_num}"
                if None in row or None in row.values():
                    raise BenchmarkError(
                        f"{at}: another number of fields than the header has; the file may be cut short."
                    )
                yield at, row
    except (csv.Error, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path}: not a usable CSV file ({error}).") from error
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}).") from error
