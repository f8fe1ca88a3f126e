"""One open database: transactions, reads, and errors in people's words."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, CursorResult, Engine, Table, text
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.errors import DatabaseError, HomeError, NoDatabaseError
from orchestrator.store import schema
from orchestrator.store.engine import clock, make_engine, resolve_url, shown, sqlite_path, translated


class Store:
    """A database of results. Make one with `open_store`.

    Attributes:
        shown: URL without a password.
        path: SQLite's file, None on PostgreSQL.
        home: Folder of artefacts, imported benchmarks and logs.
    """

    def __init__(self, engine: Engine, shown: str, path: Path | None, home: Path) -> None:
        self._engine = engine
        self.shown = shown
        self.path = path
        self.home = home
        #: Set once a run has started: from then on a database error is one of mid-run (exit 4).
        self.running = False

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One write transaction: all of it is committed at the end, or nothing.

        Raises:
            RunError: The database failed in mid-run.
            DatabaseError: It failed before.
        """
        with translated(f"database {self.shown}", running=self.running), self._engine.begin() as connection:
            yield Session(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A read that holds no lock between statements."""
        with translated(f"database {self.shown}", running=self.running), self._engine.connect() as connection:
            yield Session(connection.execution_options(isolation_level="AUTOCOMMIT"))

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


class Session:
    """A connection inside `Store.begin` or `Store.read`; what the store's modules work on."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.dialect = connection.dialect.name
        #: SQL for the database's own time.
        self.now = clock(self.dialect)

    def run(self, sql: str, **values: Any) -> CursorResult[Any]:
        """Execute SQL text with bound values."""
        return self.connection.execute(text(sql), values)

    def rows(self, sql: str, **values: Any) -> list[Mapping[str, Any]]:
        """All rows as mappings."""
        return [cast(Mapping[str, Any], row) for row in self.run(sql, **values).mappings()]

    def one(self, sql: str, **values: Any) -> Any:
        """The first column of the first row, None without one."""
        return self.run(sql, **values).scalar()

    def time(self) -> float:
        """The database's time, seconds since 1970."""
        return float(self.one(f"SELECT {self.now}"))

    def insert(self, table: Table, rows: Sequence[Mapping[str, Any]], *, ignore_conflicts: bool = False) -> None:
        """Insert many rows; with `ignore_conflicts` rows whose key is there are left as they are."""
        if not rows:
            return
        if not ignore_conflicts:
            self.connection.execute(table.insert(), rows)
            return
        make = postgresql.insert if self.dialect == "postgresql" else sqlite.insert
        self.connection.execute(make(table).on_conflict_do_nothing(), rows)

    def update(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Update many rows by `id`."""
        if not rows:
            return
        columns = [column for column in rows[0] if column != "id"]
        assignments = ", ".join(f"{column} = :{column}" for column in columns)
        self.connection.execute(text(f"UPDATE {table.name} SET {assignments} WHERE id = :id"), rows)

    def in_list(self, name: str, values: Sequence[Any]) -> tuple[str, dict[str, Any]]:
        """SQL `(:name0, :name1, ...)` and its bound values."""
        bound = {f"{name}{i}": value for i, value in enumerate(values)}
        return "(" + ", ".join(f":{key}" for key in bound) + ")", bound


def home_folder(url: str | None) -> Path:
    """ROADTEST_HOME, else `.roadtest` beside the SQLite file (or in this folder); the database need not be there.

    Raises:
        DatabaseError: Wrong URL.
    """
    path = sqlite_path(resolve_url(url))
    given = os.environ.get("ROADTEST_HOME")
    return Path(given) if given else (path.resolve().parent if path else Path()) / ".roadtest"


def check_home(home: Path) -> Path:
    """Try whether the folder, or the existing one that it would be made in, takes a file; return the latter.

    Raises:
        HomeError: It does not.
    """
    existing = next(folder for folder in (home, *home.resolve().parents) if folder.exists())
    probe = existing / f".roadtest-{uuid.uuid4().hex}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise HomeError(
            f"artefacts and logs cannot be written to {home} ({error.strerror}); make it writable, or name another "
            "folder with ROADTEST_HOME."
        ) from error
    return existing


def open_store(url: str | None = None, *, create: bool = True) -> Store:
    """Open a database and bring its schema up to date.

    Args:
        url: Default ROADTEST_DB, else `sqlite:///roadtest.db`.
        create: Whether to make a database that is not there, and upgrade an older one. Commands that only read
            pass False.

    Raises:
        DatabaseError: Wrong URL, unreachable, not writable, no such database.
        SchemaError: A schema that this version cannot use.
    """
    resolved = resolve_url(url)
    name, path = shown(resolved), sqlite_path(resolved)
    if path is not None:
        if path.is_dir():
            raise DatabaseError(f"{path.resolve()} is a folder; name a file in it with --db.")
        if not create and not path.exists():
            raise NoDatabaseError(
                f"there is no database at {path.resolve()}; `roadtest run SWEEP` makes one, "
                "`--db` or ROADTEST_DB names another."
            )
        if create and not path.resolve().parent.is_dir():
            raise DatabaseError(
                f"the folder {path.resolve().parent} does not exist; make it, or name another database with --db."
            )
        if create and not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
            raise DatabaseError(f"{path.resolve()} is not writable; name another database with --db.")
    engine = make_engine(resolved, read_only=not create)
    try:
        with translated(f"database {name}", running=False):
            schema.require(engine, name, path=path, may_write=create)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, name, path, home_folder(url))
