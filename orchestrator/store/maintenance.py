"""Is the database sound, and how does it get to this version's schema?"""

from __future__ import annotations

from sqlalchemy import text

from orchestrator.errors import DatabaseError
from orchestrator.store import schema
from orchestrator.store.engine import make_engine, resolve_url, shown, sqlite_path, translated
from orchestrator.store.store import Store, open_store

#: What must hold between tables: a query that counts offenders, and what they are.
_INVARIANTS = (
    (
        """SELECT count(*) FROM unit u WHERE u.state = 'done' AND u.kind = 'evaluate'
           AND NOT EXISTS (SELECT 1 FROM metric m WHERE m.unit_id = u.id)""",
        "done units without metrics",
    ),
    (
        """SELECT count(*) FROM unit u WHERE u.state <> 'done'
           AND EXISTS (SELECT 1 FROM metric m WHERE m.unit_id = u.id)""",
        "unfinished units with metrics",
    ),
    (
        """SELECT count(*) FROM unit u WHERE u.state = 'done' AND u.kind = 'embed'
           AND NOT EXISTS (SELECT 1 FROM artifact a WHERE a.unit_id = u.id)""",
        "done slices without an artefact",
    ),
    (
        """SELECT count(*) FROM (SELECT unit_id FROM attempt WHERE outcome = 'done'
                                GROUP BY unit_id, epoch HAVING count(*) > 1) twice""",
        "claims that were completed twice",
    ),
)


def upgrade(url: str | None) -> str:
    """Upgrade and say what was done."""
    resolved = resolve_url(url)
    name, path = shown(resolved), sqlite_path(resolved)
    if path is not None and not path.exists():
        raise DatabaseError(f"there is no database at {path.resolve()}.")
    engine = make_engine(resolved)
    try:
        with translated(f"database {name}", running=False):
            before = schema.current(engine)
            if before == schema.head():
                return f"{name} has this version's schema already ({before})."
            if before is not None and before not in schema.revisions():
                schema.require(engine, name, path=path, may_write=True)
            copy = schema.back_up(path, before) if path is not None and before is not None else None
            schema.upgrade(engine)
    finally:
        engine.dispose()
    kept = f"; the copy of before is {copy}" if copy else ""
    return f"{name}: schema {before or 'none'} -> {schema.head()}{kept}."


def check(url: str | None) -> list[str]:
    """What is wrong with the database; empty when nothing is."""
    store = open_store(url, create=False)
    problems = []
    try:
        with store.read() as session:
            if store.dialect == "sqlite":
                verdict = session.connection.execute(text("PRAGMA integrity_check")).scalar()
                problems += [] if verdict == "ok" else [f"SQLite says {verdict}"]
                broken = len(session.connection.execute(text("PRAGMA foreign_key_check")).fetchall())
                problems += [f"{broken} rows point nowhere"] if broken else []
            for sql, what in _INVARIANTS:
                n = session.one(sql)
                problems += [f"{n} {what}"] if n else []
    finally:
        store.close()
    return problems


def vacuum(store: Store) -> int:
    """Write a SQLite file anew without its free space; return by how many bytes it got smaller."""
    assert store.path is not None
    before = store.path.stat().st_size
    with store.read() as session:
        session.run("VACUUM")
        session.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return before - store.path.stat().st_size
