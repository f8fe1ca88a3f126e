"""Who else works on this database, and may they?"""

from __future__ import annotations

from orchestrator.errors import DatabaseError
from orchestrator.store.claims import boot_id
from orchestrator.store.store import Session
from orchestrator.store.tables import metadata


def require_one_host(session: Session, host: str) -> None:
    """Refuse to work on a SQLite file that a live coordinator of another host works on.

    Containers of one machine share its kernel, and so its boot id, and may work together.

    Raises:
        DatabaseError: One does.
    """
    if session.dialect != "sqlite":
        return
    for row in session.rows(
        f"""SELECT DISTINCT c.id, c.host FROM unit u JOIN coordinator c ON c.id = u.coordinator_id
            WHERE u.state = 'running' AND u.lease_expires > {session.now} AND c.host <> :h AND c.boot <> :b""",
        h=host,
        b=boot_id(),
    ):
        raise DatabaseError(
            f"coordinator {row['id']} on host {row['host']} works on this SQLite file, and processes of two hosts "
            f"cannot share one: wait until it ends, or use PostgreSQL (`roadtest db copy` moves results there)."
        )


def require_idle(session: Session) -> None:
    """Refuse while a coordinator holds claims whose lease has not run out.

    Raises:
        DatabaseError: One does.
    """
    for row in session.rows(
        f"""SELECT c.id, c.host, c.pid, count(*) AS n, max(u.lease_expires) - {session.now} AS seconds
            FROM unit u JOIN coordinator c ON c.id = u.coordinator_id
            WHERE u.state = 'running' AND u.lease_expires > {session.now} GROUP BY c.id, c.host, c.pid"""
    ):
        raise DatabaseError(
            f"coordinator {row['id']} on {row['host']} (pid {row['pid']}) works on {row['n']} units of this database; "
            f"end its run first (Ctrl-C hands them back). If it was killed, its claims end in {row['seconds']:.0f} s."
        )


def lock_tables(session: Session) -> None:
    """Let nobody else write to roadtest's tables until this transaction ends; on SQLite every write does so."""
    if session.dialect == "postgresql":
        session.run(f"LOCK TABLE {', '.join(table.name for table in metadata.sorted_tables)} IN EXCLUSIVE MODE")
