"""What do people read? Data frames for reports, and read-only SQL that anyone may type."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import exc, text

from orchestrator.errors import NotFoundError, QueryError
from orchestrator.store.engine import make_engine, resolve_url
from orchestrator.store.store import Session
from orchestrator.store.view_columns import VIEWS, View
from workers.plugins import nearest

#: First words of statements that only read.
_READING = ("select", "with", "values", "explain")
#: What a SQLite statement may do: read tables, call functions, recurse.
_ALLOWED_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_PLAIN_CODE = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/""", re.DOTALL)


def sweep_names(session: Session) -> list[str]:
    """Every sweep, the last one run first."""
    return [row["name"] for row in session.rows("SELECT name FROM sweep ORDER BY updated_at DESC, id DESC")]


def find_sweep(session: Session, name: str | None) -> str:
    """The sweep of this name, the last one run without a name.

    Raises:
        NotFoundError: There is none.
    """
    names = sweep_names(session)
    if not names:
        raise NotFoundError("the database holds no sweep yet; `roadtest run SWEEP` runs one.")
    if name is not None and name not in names:
        raise NotFoundError(f"no sweep {name!r} in the database; {nearest(name, names)}")
    return name or names[0]


def sweep_facts(session: Session, name: str, shown: str) -> dict[str, Any]:
    """A sweep with its specification, states, environments, what was skipped and why, and recalls of neighbours."""
    row = session.rows(
        "SELECT id, name, spec, reference, margin, created_at, updated_at FROM sweep WHERE name = :n", n=name
    )[0]
    environments = [
        {**json.loads(found["facts"]), "units": found["n"]}
        for found in session.rows(
            """SELECT e.facts, count(*) AS n FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
               JOIN environment e ON e.id = u.environment_id WHERE su.sweep_id = :s
               GROUP BY e.id, e.facts ORDER BY n DESC""",
            s=row["id"],
        )
    ]
    skipped = session.rows(
        """SELECT su.benchmark, su.encoder, su.router, u.reason, count(*) AS n
           FROM sweep_unit su JOIN unit u ON u.id = su.unit_id WHERE su.sweep_id = :s AND u.state = 'skipped'
           GROUP BY su.benchmark, su.encoder, su.router, u.reason ORDER BY min(su.position)""",
        s=row["id"],
    )
    approximate = session.rows(
        """SELECT su.router, avg(m.value) AS mean, min(m.value) AS lowest, count(*) AS n
           FROM sweep_unit su JOIN metric m ON m.unit_id = su.unit_id AND m.name = 'neighbour_recall'
           WHERE su.sweep_id = :s GROUP BY su.router ORDER BY min(su.position)""",
        s=row["id"],
    )
    states = session.rows("SELECT state, n FROM progress WHERE sweep = :n AND kind = 'evaluate'", n=name)
    moment = datetime.fromtimestamp(row["created_at"], UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {
        **row,
        "spec": json.loads(row["spec"]),
        "created_at": moment,
        "states": {found["state"]: found["n"] for found in states},
        "environments": environments,
        "skipped": [dict(found) for found in skipped],
        "approximate": [dict(found) for found in approximate],
        "url_shown": shown,
    }


def results_frame(session: Session, sweep: str) -> pd.DataFrame:
    """The view `results` of one sweep; booleans are booleans on both databases."""
    frame = _frame(session, "SELECT * FROM results WHERE sweep = :s ORDER BY sweep_position", s=sweep)
    for column in ("privileged", "query_blind"):
        frame[column] = frame[column].astype(bool)
    return frame


def leaderboard_frame(session: Session, sweep: str) -> pd.DataFrame:
    """The view `leaderboard` of one sweep."""
    return _frame(
        session, "SELECT * FROM leaderboard WHERE sweep = :s ORDER BY benchmark, encoder, sweep_position", s=sweep
    )


def frontier_frame(session: Session, sweep: str) -> pd.DataFrame:
    """The view `frontier` of one sweep."""
    frame = _frame(session, "SELECT * FROM frontier WHERE sweep = :s ORDER BY unit_key, position", s=sweep)
    frame["on_hull"] = frame["on_hull"].astype(bool)
    return frame


def hulls_frame(session: Session, sweep: str) -> pd.DataFrame:
    """Of the view `frontier` of one sweep what a report draws, the vertices of hulls: a fifth of the rows."""
    frame = _frame(
        session,
        """SELECT unit_key, router, cost, score, on_hull FROM frontier
           WHERE sweep = :s AND on_hull = :yes ORDER BY unit_key, position""",
        s=sweep,
        yes=True,
    )
    frame["on_hull"] = frame["on_hull"].astype(bool)
    return frame


def bootstrap_areas(session: Session, sweep: str, routers: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """`auc_path` x 100 on every resample of the test groups, by key of the unit, for some routers of a sweep.

    Units that stored none (selection, `bootstrap: 0`) are left out. NaN where a draw has no test query. [bootstrap]
    """
    among, bound = session.among("r", list(routers))
    rows = session.rows(
        f"""SELECT u.key, u.bootstrap FROM unit u
            WHERE u.state = 'done' AND u.bootstrap IS NOT NULL AND u.id IN (
                SELECT su.unit_id FROM sweep_unit su JOIN sweep s ON s.id = su.sweep_id
                WHERE s.name = :s AND su.router {among})""",
        s=sweep,
        **bound,
    )
    return {row["key"]: np.frombuffer(row["bootstrap"], dtype="<f8") for row in rows}


def findings_frame(session: Session, sweep: str) -> pd.DataFrame:
    """The view `findings` of one sweep."""
    return _frame(session, "SELECT * FROM findings WHERE sweep = :s ORDER BY unit_key, position", s=sweep)


def shares_frame(session: Session, sweep: str) -> pd.DataFrame:
    """Share of the test queries that each router sends to each model at the balanced price of cost, mean over splits.

    Of utility prediction at the largest training size; columns benchmark, encoder, router, model, share.
    """
    return _frame(
        session,
        """WITH own AS (
               SELECT su.benchmark, su.encoder, su.router, su.position, u.id
               FROM sweep s JOIN sweep_unit su ON su.sweep_id = s.id JOIN unit u ON u.id = su.unit_id
               WHERE s.name = :s AND u.kind = 'evaluate' AND u.state = 'done' AND u.formulation = 'utility'
                 AND u.train_size = 1 AND u.twin = :twin)
           SELECT own.benchmark, own.encoder, own.router, substr(m.name, 16) AS model,
                  sum(m.value) / max(counted.n) AS share, min(own.position) AS position
           FROM own
           JOIN metric m ON m.unit_id = own.id
           JOIN (SELECT benchmark, encoder, router, count(*) AS n FROM own GROUP BY benchmark, encoder, router) counted
             ON counted.benchmark = own.benchmark AND counted.router = own.router
            AND coalesce(counted.encoder, '') = coalesce(own.encoder, '')
           WHERE m.name > 'share:balanced:' AND m.name < 'share:balanced;'
           GROUP BY own.benchmark, own.encoder, own.router, m.name
           ORDER BY position, model""",
        s=sweep,
        twin=False,
    )


def hardest_frame(session: Session, sweep: str, router: str, *, most: int = 10) -> pd.DataFrame:
    """Queries on which a router's balanced choices score furthest below the best model, by benchmark.

    Of utility prediction at the full training size under the first encoder of the sweep; columns benchmark, query,
    task, score, best, lost (the difference), splits.
    """
    chosen = _frame(
        session,
        """SELECT d.benchmark, d.query_key AS query, avg(d.score) AS score, count(*) AS splits,
                  min(u.benchmark_id) AS benchmark_id
           FROM decisions d JOIN unit u ON u.key = d.unit_key
           WHERE d.sweep = :s AND d.router = :r AND d.formulation = 'utility' AND d.train_size = 1
             AND d.preference = 'balanced'
             AND coalesce(d.encoder, '') = (
                 SELECT coalesce(su.encoder, '') FROM sweep_unit su JOIN sweep s ON s.id = su.sweep_id
                 WHERE s.name = :s AND su.router = :r ORDER BY su.position LIMIT 1)
           GROUP BY d.benchmark, d.query_key""",
        s=sweep,
        r=router,
    )
    if chosen.empty:
        return chosen.assign(task="", best=0.0, lost=0.0)
    ids = [int(number) for number in chosen["benchmark_id"].unique()]
    among, bound = session.among("b", ids)
    best = _frame(
        session,
        f"""SELECT q.benchmark_id, q.key AS query, q.task, max(o.score) AS best
            FROM query q JOIN outcome o ON o.query_id = q.id WHERE q.benchmark_id {among}
            GROUP BY q.id, q.benchmark_id, q.key, q.task""",
        **bound,
    )
    both = chosen.merge(best, on=["benchmark_id", "query"])
    both["lost"] = both["best"] - both["score"]
    order = ["benchmark", "lost", "splits", "query"]
    both = both[both["lost"] > 0].sort_values(order, ascending=[True, False, False, True])
    return (
        both.groupby("benchmark", sort=False)
        .head(most)[["benchmark", "query", "task", "score", "best", "lost", "splits"]]
        .reset_index(drop=True)
    )


def models_frame(session: Session, sweep: str) -> pd.DataFrame:
    """Candidate models of a sweep's benchmarks: mean observed score, mean observed cost in USD, and cost 1 in USD."""
    spec = json.loads(session.one("SELECT spec FROM sweep WHERE name = :s", s=sweep))
    dearest = spec["protocol"]["cost_normalizer"] == "dearest_mean"
    reference = "max(b.c_ref)" if dearest else "max(max(o.cost)) OVER (PARTITION BY names.benchmark)"
    return _frame(
        session,
        f"""SELECT names.benchmark, m.name AS model, m.family, avg(o.score) AS mean_score, avg(o.cost) AS mean_cost,
                   {reference} AS c_ref
            FROM (SELECT DISTINCT su.benchmark, u.benchmark_id FROM sweep_unit su
                  JOIN sweep s ON s.id = su.sweep_id JOIN unit u ON u.id = su.unit_id
                  WHERE s.name = :s AND u.kind = 'evaluate') names
            JOIN benchmark b ON b.id = names.benchmark_id
            JOIN model m ON m.benchmark_id = b.id
            JOIN outcome o ON o.model_id = m.id
            GROUP BY names.benchmark, m.id, m.name, m.family, m.position
            ORDER BY names.benchmark, m.position""",
        s=sweep,
    )


def view_frames(session: Session, sweep: str, views: Sequence[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Views of one sweep, one at a time, for `export`; of the same types on both databases, empty or not."""
    for view in views:
        yield view, typed(_frame(session, f"SELECT * FROM {view} WHERE sweep = :s", s=sweep), VIEWS[view])


def typed(frame: pd.DataFrame, view: View) -> pd.DataFrame:
    """Rows of a view with numbers, booleans and times as their kinds say, which SQLite and empty columns do not."""
    columns = {}
    for name, column in view.columns.items():
        found = frame[name]
        if column.kind == "timestamp":
            found = pd.to_datetime(found, utc=True).astype("datetime64[us, UTC]")
        elif column.kind == "integer":
            found = found.astype("Int64" if found.isna().any() else "int64")
        elif column.kind == "double":
            found = found.astype("float64")
        elif column.kind == "boolean":
            found = found.astype("bool")
        columns[name] = found
    return pd.DataFrame(columns)


def parquet_schema(view: str) -> Any:
    """Arrow's types of a view's columns: a column without values has its type all the same."""
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "integer": pa.int64(),
        "double": pa.float64(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us", "UTC"),
    }
    return pa.schema([(name, kinds[column.kind]) for name, column in VIEWS[view].columns.items()])


def _frame(session: Session, sql: str, **values: Any) -> pd.DataFrame:
    return pd.read_sql_query(text(sql), session.connection, params=values)


def check_query(sql: str) -> str:
    """The statement without a closing semicolon, if it is one that only reads.

    Raises:
        QueryError: Several statements, or one that does not begin with SELECT, WITH, VALUES or EXPLAIN.
    """
    bare = _PLAIN_CODE.sub(" ", sql).strip()
    if ";" in bare.rstrip(";").rstrip() or bare.count(";") > 1:
        raise QueryError("`roadtest sql` takes one statement; this is several.")
    word = re.match(r"\w+|\S|", bare)
    first = word[0] if word else ""
    if first.lower() not in _READING:
        raise QueryError(
            f"`roadtest sql` only reads: begin with SELECT, WITH, VALUES or EXPLAIN, not {first or 'nothing'!r}."
        )
    return sql.strip().rstrip(";")


@contextmanager
def _reading_only(url: str | None) -> Iterator[Session]:
    """A session that cannot write, attach files or change settings, whatever the SQL says."""
    engine = make_engine(resolve_url(url), read_only=True)
    try:
        with engine.connect() as connection:
            raw: Any = connection.connection.driver_connection
            if isinstance(raw, sqlite3.Connection):
                raw.set_authorizer(_authorize)
            else:
                raw.prepare_threshold = 0  # a prepared statement is one statement, whatever its quotes hide
                connection.execute(text("SELECT 1"))  # from now on the transaction cannot be made READ WRITE
            yield Session(connection)
    finally:
        engine.dispose()


def _authorize(action: int, first: str | None, second: str | None, _database: str | None, _view: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and second in ("load_extension", "fts3_tokenizer"):
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def run_query(url: str | None, sql: str) -> pd.DataFrame:
    """Run one read-only statement that a person typed, as a data frame.

    Raises:
        QueryError: Not a single reading statement, or the database refuses it.
    """
    columns, rows = run_statement(url, sql)
    return pd.DataFrame(rows, columns=columns)


def run_statement(url: str | None, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Run one read-only statement that a person typed: names of its columns, and its rows as they are.

    Raises:
        QueryError: Not a single reading statement, or the database refuses it.
    """
    statement = check_query(sql)
    try:
        with _reading_only(url) as session:
            # Without parameters `%` is a percent sign.
            rows = session.connection.execution_options(no_parameters=True).exec_driver_sql(statement)
            return list(rows.keys()), [tuple(map(_number, row)) for row in rows]
    except exc.DBAPIError as error:
        raise QueryError(f"the database refuses this: {str(error.orig).strip()}") from error
    except exc.ResourceClosedError as error:
        raise QueryError("the statement returns no rows.") from error


def _number(value: Any) -> Any:
    """PostgreSQL's `numeric`, which sums and means of integers are, as the integer or double that SQLite has there."""
    if not isinstance(value, Decimal):
        return value
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


def status(session: Session, sweep: str) -> dict[str, Any]:
    """How far a sweep is: counts, live coordinators, the newest failures."""
    counts = session.rows("SELECT kind, state, n FROM progress WHERE sweep = :s ORDER BY kind, state", s=sweep)
    running = session.rows(
        f"""SELECT c.id, c.host, c.pid, c.started_at, count(DISTINCT u.id) AS units,
                   max(u.lease_expires) - {session.now} AS lease_seconds
            FROM unit u CROSS JOIN sweep_unit su CROSS JOIN sweep s CROSS JOIN coordinator c
            WHERE u.state = 'running' AND su.unit_id = u.id AND s.id = su.sweep_id AND c.id = u.coordinator_id
              AND s.name = :s GROUP BY c.id, c.host, c.pid, c.started_at ORDER BY c.started_at""",
        s=sweep,
    )
    failures = session.rows("SELECT * FROM failures WHERE sweep = :s ORDER BY unit_key LIMIT 20", s=sweep)
    return {"sweep": sweep, "counts": _plain(counts), "coordinators": _plain(running), "failures": _plain(failures)}


def quarantined(session: Session, sweep: str) -> list[dict[str, Any]]:
    """Quarantined units of a sweep with their last error and its traceback."""
    return _plain(
        session.rows(
            """SELECT f.unit_key, f.kind, f.benchmark, f.encoder, f.router, f.seed, f.attempts, f.error_kind, f.message,
                      (SELECT a.traceback FROM attempt a JOIN unit u ON u.id = a.unit_id
                       WHERE u.key = f.unit_key AND a.outcome = 'failed' ORDER BY a.id DESC LIMIT 1) AS traceback
               FROM failures f WHERE f.sweep = :s AND f.state = 'quarantined' ORDER BY f.unit_key""",
            s=sweep,
        )
    )


def _plain(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]


def select_units(
    session: Session,
    *,
    sweep: str | None,
    states: Sequence[str],
    keys: Sequence[str] = (),
    router: str | None = None,
    benchmark: str | None = None,
) -> list[int]:
    """Ids of units in some states, by sweep, key (or its beginning), display name of router or benchmark."""
    among, bound = session.among("st", list(states))
    where = [f"u.state {among}"]
    for name, value in (("sweep", sweep), ("router", router), ("benchmark", benchmark)):
        if value is not None:
            where.append(f"{'s.name' if name == 'sweep' else f'su.{name}'} = :{name}")
            bound[name] = value
    if keys:
        clauses = []
        for i, key in enumerate(keys):
            clauses.append(f"u.key LIKE :key{i}")
            bound[f"key{i}"] = f"{key}%"
        where.append(f"({' OR '.join(clauses)})")
    rows = session.rows(
        f"""SELECT DISTINCT u.id FROM unit u JOIN sweep_unit su ON su.unit_id = u.id JOIN sweep s ON s.id = su.sweep_id
            WHERE {" AND ".join(where)} ORDER BY u.id""",
        **bound,
    )
    return [row["id"] for row in rows]
