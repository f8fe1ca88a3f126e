"""What is docs/schema.md? Written from the tables and views themselves: `python -m orchestrator.store.schema_docs`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Double, Integer, LargeBinary, Table
from sqlalchemy.types import TypeEngine

from orchestrator.store.tables import metadata
from orchestrator.store.view_columns import VIEWS

PAGE = Path("docs/schema.md")

_HEAD = """# Tables and views

<!-- Written by `python -m orchestrator.store.schema_docs` from orchestrator/store/tables.py and view_columns.py. -->

Every view and table with its columns, the same on SQLite and PostgreSQL. [sql.md](sql.md) says how to read them safely,
[cookbook.md](cookbook.md) has questions with their queries and answers, [metrics.md](metrics.md) defines the metrics.

Promised are the views and the columns marked **●** of the tables: columns may be added to them, none is renamed or
taken away. The rest of the tables is the coordinator's business and changes with the version.

| kind | SQLite | PostgreSQL |
|---|---|---|
| text | `TEXT` | `text` |
| integer | `INTEGER` | `integer`, `bigint` |
| double | `DOUBLE`, 8 bytes | `double precision` |
| boolean | 0 and 1; `WHERE on_hull` and `WHERE NOT on_hull` work on both | `boolean` |
| timestamp | `TEXT`, `2026-01-31 12:00:00.000`, UTC | `timestamp with time zone` |
| bytes | `BLOB` | `bytea` |

Times of the *tables* are doubles: seconds since 1970, UTC, of the database's clock unless it says otherwise. JSON is
text. NaN and infinity are never stored. Observations (seconds, microseconds, hosts, times) differ from run to run;
everything else is the same whenever it is computed again.
"""


def page() -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, "## Views", "", *_views(), "## Tables", "", *_tables()]).rstrip() + "\n"


def _views() -> Iterator[str]:
    for name, view in VIEWS.items():
        yield from _section(name, view.row, ["column", "kind", "meaning"])
        yield from (_row([f"`{column}`", found.kind, found.doc]) for column, found in view.columns.items())
        yield ""


def _tables() -> Iterator[str]:
    for table in metadata.tables.values():
        yield from _section(table.name, table.info["row"], ["", "column", "kind", "meaning"])
        yield from (_row(_described(table, column)) for column in table.columns)
        yield ""


def _section(name: str, row: str, head: Iterable[str]) -> Iterator[str]:
    yield f"### {name}"
    yield ""
    yield f"One row per {row}."
    yield ""
    cells = list(head)
    yield _row(cells)
    yield "|" + "---|" * len(cells)


def _described(table: Table, column: Column[object]) -> list[str]:
    null = ", NULL" if column.nullable else ""
    key = ", key" if column.name in table.primary_key.columns else ""
    return [
        "●" if column.info.get("join") else "",
        f"`{column.name}`",
        f"{kind(column.type)}{key}{null}",
        column.doc or "",
    ]


def kind(of: TypeEngine[object]) -> str:
    """A column type in the page's words."""
    kinds: dict[type[Any], str] = {
        Boolean: "boolean",
        BigInteger: "integer",
        Integer: "integer",
        Double: "double",
        LargeBinary: "bytes",
    }
    return next((name for cls, name in kinds.items() if isinstance(of, cls)), "text")


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    target.write_text(page(), encoding="utf-8")
