"""One open database: transactions, reads, and errors in people's words."""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import tenacity
from sqlalchemy import Connection, CursorResult, Engine, Table, exc, text
from sqlalchemy.sql.schema import ScalarElementColumnDefault

from orchestrator.errors import DatabaseError, HomeError, NoDatabaseError
from orchestrator.store import filesystems, schema
from orchestrator.store.engine import clock, make_engine, may_pass, resolve_url, shown, sqlite_path, translated

log = logging.getLogger("roadtest.store")

T = TypeVar("T")
#: Seconds for which a lost database is called again before a run gives up (ROADTEST_RECONNECT overrides).
RECONNECT_SECONDS = 120.0


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
        self.reconnect_seconds = _reconnect_seconds()

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

    def transact(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one write transaction, again after a lost connection or a deadlock.

        Whether a transaction was committed is unknown when the connection goes down with the commit: `work` must be
        such that running it a second time does no harm.

        Raises:
            RunError: The database failed otherwise, or stayed away for `RECONNECT_SECONDS`.
        """
        return self._again(self._engine.begin, work)

    def query(self, work: Callable[[Session], T]) -> T:
        """Run `work`, which only reads, again after a lost connection; errors as `transact`."""

        def connect() -> Any:
            return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")

        return self._again(connect, work)

    def _again(self, connect: Callable[[], Any], work: Callable[[Session], T]) -> T:
        def warn(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                log.warning("database %s: %s; trying again", self.shown, _first_line(state))

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(may_pass),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=3),
            stop=tenacity.stop_after_delay(self.reconnect_seconds),
            before_sleep=warn,
            reraise=True,
        )
        with translated(f"database {self.shown}", running=self.running):
            for attempt in retrying:
                with attempt, connect() as connection:
                    return work(Session(connection))
        raise AssertionError("unreachable")

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
        result = self.run(sql, **values)
        names = list(result.keys())
        return [dict(zip(names, row, strict=True)) for row in result.all()]

    def one(self, sql: str, **values: Any) -> Any:
        """The first column of the first row, None without one."""
        return self.run(sql, **values).scalar()

    def time(self) -> float:
        """The database's time, seconds since 1970."""
        return float(self.one(f"SELECT {self.now}"))

    def insert(self, table: Table, rows: Sequence[Mapping[str, Any]], *, ignore_conflicts: bool = False) -> None:
        """Insert many rows of equal keys; with `ignore_conflicts` rows whose key is there are left as they are."""
        if not rows:
            return
        defaults = {
            column.name: column.default.arg
            for column in table.columns
            if column.name not in rows[0] and isinstance(column.default, ScalarElementColumnDefault)
        }
        names = [*rows[0], *defaults]
        columns = ", ".join(map(_quoted, names))
        filled = [{**defaults, **row} for row in rows] if defaults else rows
        if self.dialect == "postgresql" and not ignore_conflicts:
            self._copy(f"COPY {table.name} ({columns}) FROM STDIN", names, filled)
            return
        values = ", ".join(self._mark(name) for name in names)
        conflict = " ON CONFLICT DO NOTHING" if ignore_conflicts else ""
        self._many(f"INSERT INTO {table.name} ({columns}) VALUES ({values}){conflict}", filled)

    def update(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Update many rows by `id`."""
        if not rows:
            return
        assignments = ", ".join(f"{_quoted(name)} = {self._mark(name)}" for name in rows[0] if name != "id")
        self._many(f"UPDATE {table.name} SET {assignments} WHERE id = {self._mark('id')}", rows)

    def _many(self, sql: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Straight to the driver: SQLAlchemy's own handling of parameters costs more than the statement."""
        self.connection.exec_driver_sql(sql, cast(Any, rows))

    def _copy(self, sql: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """PostgreSQL's own way for many rows: several times faster than statements."""
        driver, dialect = cast(Any, self.connection.connection.driver_connection), self.connection.dialect
        any_error: Any = dialect.loaded_dbapi.Error
        try:
            with driver.cursor() as cursor, cursor.copy(sql) as copy:
                for row in rows:
                    copy.write_row([row[name] for name in names])
        except any_error as error:
            gone = dialect.is_disconnect(error, driver, None)
            if gone:
                self.connection.invalidate(error)
            raise exc.DBAPIError.instance(sql, None, error, any_error, connection_invalidated=gone) from error

    def _mark(self, name: str) -> str:
        return f"%({name})s" if self.dialect == "postgresql" else f":{name}"

    def among(self, name: str, values: Sequence[int] | Sequence[str]) -> tuple[str, dict[str, Any]]:
        """SQL after a column for being one of many values, and the one bound value: the same statement for any number.

        Args:
            name: Of the bound value.
            values: At least one; whole numbers or texts.
        """
        if self.dialect == "postgresql":
            kind = "text" if isinstance(values[0], str) else "bigint"
            return f"= ANY(CAST(:{name} AS {kind}[]))", {name: list(values)}
        return f"IN (SELECT value FROM json_each(:{name}))", {name: json.dumps(list(values))}


def _quoted(name: str) -> str:
    return f'"{name}"'  # `start` and `on_hull` are words of SQL somewhere


def _reconnect_seconds() -> float:
    given = os.environ.get("ROADTEST_RECONNECT", str(RECONNECT_SECONDS))
    try:
        seconds = float(given)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise DatabaseError(f"ROADTEST_RECONNECT is {given!r}; give seconds, such as 120.")
    return seconds


def _first_line(state: tenacity.RetryCallState) -> str:
    error = state.outcome.exception() if state.outcome else None
    return (str(getattr(error, "orig", error)).strip() or type(error).__name__).splitlines()[0]


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
        if create:
            filesystems.require_local_disk(path)
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
