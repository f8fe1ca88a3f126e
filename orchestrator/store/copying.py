"""How does a whole database get into another one, SQLite or PostgreSQL, and how is it known that it arrived?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Table, select

from orchestrator.errors import DatabaseError
from orchestrator.store import filesystems, guards
from orchestrator.store.engine import resolve_url, sqlite_path
from orchestrator.store.store import Session, Store, open_store
from orchestrator.store.tables import metadata

log = logging.getLogger("roadtest.store")

#: Rows in memory at once.
BATCH = 5_000


@dataclass(frozen=True, kw_only=True)
class CopiedTable:
    """A table that is the same on both sides."""

    name: str
    rows: int
    #: Of all its rows, as `Checksum` computes it.
    checksum: str


class Checksum:
    """Checksum of a table's rows that any database gives in whatever order it returns them.

    The sum of the rows' sha256, modulo 2^256. A row is hashed as Python writes it: this tells 1, 1.0, True and NULL
    apart, and of a double it is the shortest decimal that reads back as the same bits. Only the two zeros count as
    one: SQLite stores -0.0 as 0.0.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Sequence[Sequence[Any]]) -> None:
        """Add rows."""
        self.rows += len(rows)
        for row in rows:
            written = repr(tuple(row))
            if "-0.0" in written:
                written = repr(tuple(0.0 if value == 0.0 and isinstance(value, float) else value for value in row))
            self._sum += int.from_bytes(sha256(written.encode()).digest(), "big")

    def __str__(self) -> str:
        return f"{self._sum % (1 << 256):064x}"


def copy_database(source_url: str | None, target_url: str | None) -> list[CopiedTable]:
    """Copy everything from one database into an empty one, in one transaction that ends with a comparison.

    Args:
        source_url: Default ROADTEST_DB, else `sqlite:///roadtest.db`; it is only read.
        target_url: Likewise; its schema is made when it has none.

    Returns:
        Every table, rows counted and compared on both sides.

    Raises:
        DatabaseError: A database cannot be used, a coordinator works on the source, the target holds data, or what
            arrived is not what was sent. The target is then as it was.
    """
    if resolve_url(source_url) == resolve_url(target_url):
        raise DatabaseError("--from and --to name one database; give two, one of them may be in ROADTEST_DB.")
    filesystems.require_local_disk(sqlite_path(resolve_url(target_url)))
    source = open_store(source_url, create=False)
    try:
        target = open_store(target_url)
        try:
            return _copy(source, target)
        finally:
            target.close()
    finally:
        source.close()


def _copy(source: Store, target: Store) -> list[CopiedTable]:
    copied = []
    with source.begin() as read, target.begin() as write:
        _freeze(read)
        guards.require_idle(read)
        _require_empty(write, target.shown)
        for table in metadata.sorted_tables:
            sent, arrived = Checksum(), Checksum()
            for rows in _batches(read, table):
                write.insert(table, [row._asdict() for row in rows])
                sent.add(rows)
            for rows in _batches(write, table):
                arrived.add(rows)
            if (sent.rows, str(sent)) != (arrived.rows, str(arrived)):
                raise DatabaseError(
                    f"table {table.name} did not arrive as it was sent: {sent.rows} rows with checksum {sent} became "
                    f"{arrived.rows} rows with checksum {arrived}; nothing was kept in {target.shown}."
                )
            _count_on(write, table)
            log.info("%s: %d rows copied", table.name, sent.rows)
            copied.append(CopiedTable(name=table.name, rows=sent.rows, checksum=str(sent)))
        if write.dialect == "postgresql":
            write.run(
                "ANALYZE"
            )  # without statistics a join of a full table takes minutes until autovacuum has been there
    return copied


def _freeze(session: Session) -> None:
    """Let every read of this transaction see the database as it is now."""
    # The engine begins nothing on SQLite for a connection that only reads.
    session.run("BEGIN" if session.dialect == "sqlite" else "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def _require_empty(session: Session, shown: str) -> None:
    guards.lock_tables(session)
    for table in metadata.sorted_tables:
        if session.rows(f"SELECT 1 FROM {table.name} LIMIT 1"):
            raise DatabaseError(
                f"{shown} holds roadtest data already (table {table.name}); copy into an empty database."
            )


def _batches(session: Session, table: Table) -> Iterator[Sequence[Any]]:
    found = session.connection.execute(select(table), execution_options={"yield_per": BATCH})
    yield from found.partitions()


def _count_on(session: Session, table: Table) -> None:
    """Let PostgreSQL number new rows after those that came with a number; SQLite does so by itself."""
    if session.dialect == "postgresql" and "id" in table.c and table.c.id.autoincrement is True:
        session.run(
            f"""SELECT setval(pg_get_serial_sequence('{table.name}', 'id'), max(id)) FROM {table.name}
                HAVING count(*) > 0"""
        )
