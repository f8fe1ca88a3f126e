"""How is a database opened? URL checks, engine set-up per dialect, and errors in people's words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, exc
from sqlalchemy.engine import URL, make_url
from sqlalchemy.pool import QueuePool

from orchestrator.errors import DatabaseError, RunError

DEFAULT_URL = "sqlite:///roadtest.db"
#: What libpq reads passwords from in a URL's query.
_SECRETS = {"password", "sslpassword"}
#: Seconds that a SQLite connection waits for another's write to end.
BUSY_SECONDS = 60


def resolve_url(url: str | None) -> URL:
    """The database to use: the given URL, else ROADTEST_DB, else `roadtest.db` in this folder.

    Raises:
        DatabaseError: Not a URL of SQLite (a file) or PostgreSQL.
    """
    given = url or os.environ.get("ROADTEST_DB") or DEFAULT_URL
    try:
        parsed = make_url(given)
    except (exc.ArgumentError, ValueError):  # the latter for a port that is no number
        raise DatabaseError(
            f"{_masked(given)!r} is not a database URL; write sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE."
        ) from None
    if url and (parsed.password is not None or _SECRETS & set(parsed.query)):
        raise DatabaseError(
            "the URL given by --db carries a password, which every process list shows; put the URL into the "
            "environment variable ROADTEST_DB, or the password into PGPASSFILE (~/.pgpass), and leave it out of --db."
        )
    backend = parsed.drivername.split("+")[0]
    if backend in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in ("sqlite", "sqlite+pysqlite"):
        if not parsed.database or parsed.database == ":memory:":
            raise DatabaseError(
                "an in-memory SQLite database is lost when the command ends; give a file: sqlite:///FILE."
            )
        return parsed
    raise DatabaseError(
        f"{parsed.drivername!r} is not supported; roadtest runs on sqlite and postgresql (postgresql+psycopg://…)."
    )


def shown(url: URL) -> str:
    """A URL without its passwords, for people's eyes."""
    return url.difference_update_query(_SECRETS).render_as_string(hide_password=True)


def sqlite_path(url: URL) -> Path | None:
    """SQLite's file, None on PostgreSQL."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def _masked(text: str) -> str:
    """What is no URL, with everything hidden that may be a password."""
    head, at, tail = text.partition("?")[0].rpartition("@")
    scheme, sep, _ = head.partition("://")
    return f"{scheme + sep if sep else ''}***{at}{tail}" if at else tail


def make_engine(url: URL, *, read_only: bool = False) -> Engine:
    """An engine with this house's settings.

    SQLite: WAL (read back), busy timeout, foreign keys, synchronous=NORMAL, writes by BEGIN IMMEDIATE, readers
    `mode=ro`. PostgreSQL: psycopg 3, UTC.
    """
    if url.get_backend_name() == "postgresql":
        try:
            import psycopg  # noqa: F401
        except ImportError:
            raise DatabaseError("PostgreSQL needs the driver psycopg: pip install 'roadtest[postgres]'.") from None
        options = "-c timezone=UTC" + (" -c default_transaction_read_only=on" if read_only else "")
        # A host that vanishes without a word must not be waited for longer than a run waits for its database.
        silence = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
        settings = {"options": options, "connect_timeout": 10, **silence}
        return create_engine(url, connect_args=settings, pool_pre_ping=True)
    path = Path(url.database or "")
    target = (
        f"file:{path.resolve().as_posix().replace('?', '%3f').replace('#', '%23')}?mode={'ro' if read_only else 'rwc'}"
    )

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(target, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)

    engine = create_engine("sqlite://", creator=connect, poolclass=QueuePool)

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys=ON")
        if read_only:
            return
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-16384")  # 16 MB; 50 000 units were no faster with 64
        connection.execute("PRAGMA wal_autocheckpoint=8000")  # pages; at 1000 every big commit waits for one
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise DatabaseError(
                f"{path}: this file system gives SQLite no write-ahead log (journal mode {mode!r}); "
                "put the database on a local disk."
            )

    if not read_only:

        @event.listens_for(engine, "begin")
        def _begin(connection: Any) -> None:
            # SQLAlchemy begins on reads too: those must not hold the write lock.
            if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
                connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def clock(dialect: str) -> str:
    """SQL for the database's own time, seconds since 1970."""
    if dialect == "postgresql":
        return "extract(epoch FROM clock_timestamp())"
    return "((julianday('now') - 2440587.5) * 86400.0)"


@contextmanager
def translated(what: str, *, running: bool) -> Iterator[None]:
    """Turn a driver's error into ours.

    Raises:
        RunError: In mid-run (exit 4).
        DatabaseError: Before anything started (exit 2).
    """
    try:
        yield
    except exc.DBAPIError as error:
        cause = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
        message = f"{what}: {cause}. {_advice(cause)}"
        raise (RunError if running else DatabaseError)(message) from error


#: SQLSTATEs of PostgreSQL after which the same transaction may go through: lost or refused connections, a server that
#: shuts down or starts up, serialization failures, deadlocks, too many connections.
_PASSING = ("08", "57P01", "57P02", "57P03", "40001", "40P01", "53300")


def may_pass(error: BaseException) -> bool:
    """Whether a database error may be gone at the next try: the connection was lost, or another one was in the way."""
    if not isinstance(error, exc.DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return "locked" in str(error.orig)
    state = getattr(error.orig, "sqlstate", None)
    return error.connection_invalidated or (
        isinstance(error, exc.OperationalError | exc.InterfaceError) and (state is None or state.startswith(_PASSING))
    )


def _advice(cause: str) -> str:
    low = cause.lower()
    if "full" in low or "no space" in low:
        return (
            "Free some disk space; what was committed is kept, and running the same command again goes on from there."
        )
    if "readonly" in low or "read-only" in low or "unable to open" in low or "permission" in low:
        return "Check that the folder exists and is writable, or name another database with --db."
    if "locked" in low:
        return f"Another process held its write lock for over {BUSY_SECONDS} s."
    if "not a database" in low or "malformed" in low:
        return "The file is not a SQLite database, or is damaged; name another with --db."
    if "connection" in low or "could not" in low or "password" in low or "does not exist" in low:
        return "Check that the server runs and that host, port, user, database and password (PGPASSFILE) are right."
    return "What was committed is kept."
