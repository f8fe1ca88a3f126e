"""Is the database's schema the one this version needs? Create, upgrade (with a backup copy), refuse."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, inspect, text

from orchestrator.errors import NoDatabaseError, SchemaError

VERSION_TABLE = "roadtest_alembic_version"
#: Any fixed number: two processes that start at once migrate one after the other.
ADVISORY_LOCK = 7_061_646_541


def migrations_folder() -> Path:
    """Where the migrations are: inside the installed package, or at the top of a checkout."""
    packaged = Path(__file__).parent / "migrations"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "migrations"


def revisions() -> list[str]:
    """What this version of roadtest knows, the oldest first: a migration's file begins with its revision."""
    return sorted(path.name.partition("_")[0] for path in (migrations_folder() / "versions").glob("[0-9]*_*.py"))


def head() -> str:
    """The revision this version of roadtest needs."""
    return revisions()[-1]


def current(engine: Engine) -> str | None:
    """The database's revision, None when it has no schema of ours yet."""
    with engine.connect() as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        return connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()


def require(engine: Engine, shown: str, *, path: Path | None, may_write: bool) -> None:
    """Bring the database to this version's schema, or say what to do.

    An empty database is created; an older schema is upgraded only on SQLite and after a backup copy.

    Args:
        engine: Database.
        shown: Its URL without a password.
        path: SQLite's file, None on PostgreSQL.
        may_write: False for commands that only read.

    Raises:
        NoDatabaseError: Empty, and `may_write` is False.
        SchemaError: Newer, or older where no automatic upgrade is made.
    """
    revision = current(engine)
    if revision == head():
        return
    if revision is None:
        if not may_write:
            raise NoDatabaseError(f"{shown} holds no roadtest database yet; `roadtest run SWEEP` makes one.")
        upgrade(engine)
        return
    if revision not in revisions():
        raise SchemaError(
            f"{shown} has schema revision {revision!r}, which this version of roadtest does not know "
            f"(it needs {head()!r}): a newer version wrote it. Install that one, or name another database with --db."
        )
    if path is None or not may_write:
        raise SchemaError(
            f"{shown} has the older schema revision {revision!r}; run `roadtest db upgrade` (needed: {head()!r})."
        )
    back_up(path, revision)
    upgrade(engine)


def back_up(path: Path, revision: str) -> Path:
    """Copy a SQLite database beside itself, consistently, before a migration."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.{revision}.{stamp}.backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    return copy


def upgrade(engine: Engine) -> None:
    """Run the migrations up to head in one transaction; concurrent callers wait for each other."""
    from alembic import command  # every command of ours begins by looking at the schema, and few change it
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
