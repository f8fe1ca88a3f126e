"""How does the command line print rows? As a table for people, as JSON for programs; and how does it log?"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console


#: Rows that a table shows; beyond it they stream.
TABLE_ROWS = 5_000


def print_json(value: Any) -> None:
    """Print a value as JSON; NaN becomes null."""
    sys.stdout.write(_json(value) + "\n")


def _json(value: Any) -> str:
    return json.dumps(_clean(value), indent=2, ensure_ascii=False, default=str)


def _clean(value: Any) -> Any:
    if isinstance(value, float) and value != value:
        return None
    if isinstance(value, Mapping):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    return value


def console() -> Console:
    """Standard output; a file or pipe, which has no width of its own, is 120 wide."""
    from rich.console import Console

    found = Console()
    return found if found.is_terminal else Console(width=120)


def print_rows(rows: Iterable[Mapping[str, Any]], *, as_json: bool, title: str | None = None) -> None:
    """Print rows of equal keys; more than a table shows well are written one at a time, their cells apart by tabs."""
    if as_json:
        _print_json_array(rows)
        return
    iterator = iter(rows)
    first = list(islice(iterator, TABLE_ROWS + 1))
    if len(first) <= TABLE_ROWS:
        _print_table(first, title)
        return
    sys.stdout.write("\t".join(first[0]) + "\n")
    for row in chain(first, iterator):
        sys.stdout.write("\t".join(plain(" ".join(_shown(value).split())) for value in row.values()) + "\n")


def _print_json_array(rows: Iterable[Mapping[str, Any]]) -> None:
    """The same text as `print_json(list(rows))`, without the list."""
    between = "[\n"
    for row in rows:
        sys.stdout.write(between + "  " + _json(row).replace("\n", "\n  "))
        between = ",\n"
    sys.stdout.write("[]\n" if between == "[\n" else "\n]\n")


def _print_table(rows: Sequence[Mapping[str, Any]], title: str | None) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    columns = list(rows[0]) if rows else []
    for column in columns:
        numeric = all(isinstance(row[column], int | float) or row[column] is None for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(_shown(row[column]))) for column in columns))
    console().print(table if rows else "(no rows)")


def _shown(value: Any) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def plain(text: str) -> str:
    """A text of files for the terminal: its control characters, which would move the cursor, as escapes."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "sweep": getattr(record, "sweep", None),
            "unit": getattr(record, "unit", None),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class _PlainLines(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    def formatMessage(self, record: logging.LogRecord) -> str:
        context = "".join(
            f" {key}={value}" for key in ("sweep", "unit") if (value := getattr(record, key, None)) is not None
        )
        return f"{record.asctime} {record.levelname} {record.name}{context}: {record.message}"


def _formatter(log_format: str) -> logging.Formatter:
    return _JsonLines() if log_format == "json" else _PlainLines("%(asctime)s")


class _Named(logging.Filter):
    """Writes the sweep's name into every record."""

    def __init__(self, sweep: str) -> None:
        super().__init__()
        self._sweep = sweep

    def filter(self, record: logging.LogRecord) -> bool:
        record.sweep = self._sweep
        return True


def set_up_logging(level: str, log_format: str) -> None:
    """Send roadtest's log lines of this level and above to stderr."""
    handler = logging.StreamHandler()
    handler.setLevel(level.upper())
    handler.setFormatter(_formatter(log_format))
    root = logging.getLogger("roadtest")
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG)
    root.propagate = False


def log_to_file(folder: Path, sweep: str, log_format: str) -> Path:
    """Send every line of this run to a file of its own too."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{sweep}-{datetime.now(UTC).strftime('%Y%m%dT%H%M%S%f')}.log"
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(_formatter(log_format))
    handler.setLevel(logging.INFO)
    handler.addFilter(_Named(sweep))
    logging.getLogger("roadtest").addHandler(handler)
    return path
