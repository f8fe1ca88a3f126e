"""A database that was copied is the same database: bit for bit, usable, or not there at all."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import DatabaseError, NoDatabaseError
from orchestrator.store import open_store, registry
from orchestrator.store import tables as t
from orchestrator.store.copying import copy_database
from tests.runs import executed_again, roadtest, run, select, write_sweep

#: Doubles whose bits a careless copy loses: signed zero, the smallest, the largest, neighbours, many digits.
DOUBLES = (-0.0, 0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1 + 0.2, 1 / 3, 1e15 + 0.3, 3.0)
TEXTS = ("", "naïve 🧮 \U0010ffff", "quote ' \" \\ \\N \t line\nend\r", "%s :x {y} NULL", "a" * 20_000)


def fill(url: str, *, event: str = "kind") -> None:
    """Rows in every table, with whatever is awkward in each type."""
    store = open_store(url)
    with store.begin() as session:
        put = session.insert
        for i in (7, 3):  # ids in no order and with gaps
            facts = {"fingerprint": str(i) * 64, "suite": TEXTS[1], "embedded": "p", "groups_digest": "g", "meta": "{}"}
            sizes = {"c_ref": 1 / 3, "n_queries": 2**31 - 1, "n_models": 1, "created_at": 1.7e9 + 1e-6}
            put(t.benchmark, [{"id": i, "name": TEXTS[2], **facts, **sizes}])
        put(t.model, [{"id": 5, "benchmark_id": 7, "position": 0, "code": "00", "name": "m", "price_in": 5e-324}])
        names = [{"id": 10 + i, "key": text, "task": text, "group_key": text} for i, text in enumerate(TEXTS)]
        put(t.query, [{"benchmark_id": 7, "position": i, **name} for i, name in enumerate(names)])
        put(t.outcome, [{"query_id": 10 + i, "model_id": 5, "score": x, "cost": -x} for i, x in enumerate(DOUBLES[:5])])
        put(t.split, [{"id": 1, "benchmark_id": 7, "root_seed": 2**62 + 1, "seed": 0, "n_dropped": 0}])
        put(t.test_query, [{"split_id": 1, "position": 0, "query_id": 10}])
        put(t.encoder, [{"id": 1, "name": "e", "recipe_digest": "r", "recipe": "{}", "created_at": 0.0}])
        registry.put_environment(session, {"python": "3"})
        sweep = registry.put_sweep(session, "s", {"näme": TEXTS[2]}, reference=None, margin=-0.0)
        who = {"host": "h", "boot": "b", "pid": 1, "process_started": 1.5, "started_at": 2.5}
        put(t.coordinator, [{"id": "c", "sweep_id": sweep, **who}])
        unit = {"kind": "evaluate", "spec": "{}", "config": "c", "state": "done", "split_id": 1, "coordinator_id": "c"}
        for i, flag in ((1, True), (2, False)):
            flags = {"twin": flag, "privileged": not flag, "query_blind": flag}
            blob = {"bootstrap": bytes(range(256)) + struct.pack("<3d", float("nan"), float("inf"), -0.0)}
            put(t.unit, [{"id": i, "key": f"u1:{i}", **unit, **flags, **(blob if flag else {})}])
        put(t.sweep_unit, [{"sweep_id": sweep, "position": i, "unit_id": i + 1, "router": TEXTS[1]} for i in (0, 1)])
        size = {"n_rows": 1, "dim": 1, "n_bytes": 2**40, "created_at": 0.0}
        put(t.artifact, [{"unit_id": 2, "embedding": "e", "start": 0, "stop": 1, "url": "u", "sha256": "s", **size}])
        put(t.attempt, [{"unit_id": 1, "epoch": 1, "coordinator_id": "c", "outcome": "done", "finished_at": 1e9 + 0.1}])
        values = [*DOUBLES, None, float("inf")]
        put(t.metric, [{"unit_id": 1, "name": f"m{i:02d}", "value": x} for i, x in enumerate(values)])
        put(t.metric, [{"unit_id": 2, "name": name, "value": 1.0} for name in ("B", "a", "_", "ä", "Z")])
        points = [{"position": i, "cost": x, "score": -x, "on_hull": i % 2 == 0} for i, x in enumerate(DOUBLES)]
        put(t.frontier_point, [{"unit_id": 1, "price_of_cost": None, **point} for point in points])
        put(t.decision, [{"unit_id": 1, "preference": "balanced", "models": "00" * 5000}])
        found = [{"position": i, "x": x, "value": -x, "low": None, "high": x} for i, x in enumerate(DOUBLES)]
        put(t.finding, [{"unit_id": 2, "quantity": TEXTS[4], "label": "", **row} for row in found])
        put(t.event, [{"at": 1e9, "kind": event, "message": TEXTS[4], "detail": None}])
    store.close()


def dump(url: str) -> dict[str, list[tuple[Any, ...]]]:
    """Every table as the driver gives it, without SQLAlchemy; doubles as their bits, booleans as SQLite has them."""

    def plain(value: Any) -> Any:
        if isinstance(value, float):
            return struct.pack(">d", value + 0.0)  # SQLite has no negative zero
        return int(value) if isinstance(value, bool) else value

    def read(execute: Callable[[str], Any]) -> dict[str, list[tuple[Any, ...]]]:
        tables = {}
        for table in t.metadata.sorted_tables:
            columns = ", ".join(f'"{column.name}"' for column in table.columns)
            rows = execute(f"SELECT {columns} FROM {table.name}").fetchall()
            tables[table.name] = sorted((tuple(map(plain, row)) for row in rows), key=repr)
        return tables

    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            return read(file.execute)
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as server:
        return read(lambda sql: server.execute(sql))


def counted(url: str) -> dict[str, float]:
    """Rows of every table as PostgreSQL's planner knows them, -1 where it does not."""
    import psycopg

    with psycopg.connect(url.replace("+psycopg", "")) as server:
        rows = server.execute("SELECT relname, reltuples FROM pg_class WHERE relkind = 'r'").fetchall()
    return {name: n for name, n in rows if name in t.metadata.tables}


@pytest.fixture
def empty(folder: Path) -> str:
    """URL of a SQLite database that does not exist yet."""
    (folder / "elsewhere").mkdir()
    return f"sqlite:///{folder}/elsewhere/copy.db"


def test_everything_arrives_bit_for_bit_and_makes_the_way_back(url: str, postgres_url: str, empty: str) -> None:
    """SQLite to SQLite to ..., PostgreSQL to SQLite; `url` is one of both, filled."""
    fill(url)
    sent = dump(url)
    assert min(map(len, sent.values())) > 0
    copied = copy_database(url, empty)
    assert [(table.name, table.rows) for table in copied] == [(name, len(rows)) for name, rows in sent.items()]
    assert dump(empty) == sent
    if url != postgres_url:
        assert copy_database(empty, postgres_url) == copied
        assert dump(postgres_url) == sent
        assert counted(postgres_url) == {name: len(rows) for name, rows in sent.items()}
    assert len({table.checksum for table in copied}) == len(copied)


def test_new_rows_of_a_copy_are_numbered_after_those_that_came(url: str, empty: str, postgres_url: str) -> None:
    source = f"sqlite:///{Path(empty.removeprefix('sqlite:///')).with_name('source.db')}"
    fill(source)
    target = postgres_url if url == postgres_url else empty
    copy_database(source, target)
    store = open_store(target)
    with store.begin() as session:
        for i in range(3):
            registry.put_environment(session, {"python": str(i)})
            registry.put_encoder(session, "e", {"n": i})
        rows = session.rows("SELECT id FROM environment ORDER BY id")
        assert [row["id"] for row in rows] == [1, 2, 3, 4]
        session.insert(t.query, [{"benchmark_id": 3, "position": 0, "key": "k", "task": "t", "group_key": "g"}])
        assert session.one("SELECT max(id) FROM query") == 10 + len(TEXTS)
    store.close()


def test_a_target_with_data_is_refused_and_left_alone(url: str, empty: str) -> None:
    fill(empty)
    store = open_store(url)
    with store.begin() as session:
        registry.put_environment(session, {"python": "2"})
    store.close()
    before = dump(url)
    with pytest.raises(DatabaseError, match=r"holds roadtest data already \(table environment\); copy into an empty"):
        copy_database(empty, url)
    assert dump(url) == before


def test_what_the_target_cannot_hold_leaves_nothing_behind(empty: str, postgres_url: str) -> None:
    fill(empty, event="k" * 33)  # SQLite keeps what is longer than the column says
    with pytest.raises(DatabaseError, match="value too long"):
        copy_database(empty, postgres_url)
    assert all(rows == [] for rows in dump(postgres_url).values())


@pytest.mark.parametrize("change", ["value = value + 1e-16", "name = name || ' '", "value = NULL"])
def test_what_changes_on_the_way_is_noticed(empty: str, folder: Path, change: str) -> None:
    fill(empty)
    target = folder / "target.db"
    open_store(f"sqlite:///{target}").close()
    with closing(sqlite3.connect(target)) as file:
        file.execute(
            f"""CREATE TRIGGER meddle AFTER INSERT ON metric WHEN new.name = 'm05' BEGIN
                UPDATE metric SET {change} WHERE unit_id = new.unit_id AND name = new.name; END"""
        )
    with pytest.raises(DatabaseError, match=r"table metric did not arrive as it was sent.*nothing was kept"):
        copy_database(empty, f"sqlite:///{target}")
    assert all(rows == [] for rows in dump(f"sqlite:///{target}").values())


def test_a_source_that_someone_works_on_is_refused(url: str, empty: str) -> None:
    fill(url)
    store = open_store(url)
    with store.begin() as session:
        session.run(f"UPDATE unit SET state = 'running', lease_expires = {session.now} + 500 WHERE id = 2")
    with pytest.raises(
        DatabaseError, match=r"coordinator c on h \(pid 1\) works on 1 units.*claims end in (499|500) s"
    ):
        copy_database(url, empty)
    with store.begin() as session:
        session.run(f"UPDATE unit SET lease_expires = {session.now} - 1 WHERE id = 2")
    store.close()
    assert {table.name: table.rows for table in copy_database(url, empty)}["unit"] == 2


def test_wrong_addresses_are_refused(folder: Path, empty: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NoDatabaseError, match="there is no database at"):
        copy_database(f"sqlite:///{folder}/none.db", empty)
    fill(empty)
    with pytest.raises(DatabaseError, match="name one database"):
        copy_database(empty, empty)
    monkeypatch.setenv("ROADTEST_DB", empty)
    with pytest.raises(DatabaseError, match="name one database"):
        copy_database(None, empty)
    with pytest.raises(DatabaseError, match="carries a password") as refused:
        copy_database(empty, "postgresql://me:s3cret@127.0.0.1:1/x")
    assert "s3cret" not in str(refused.value)


def test_a_run_goes_on_in_the_copy_and_reports_the_same(folder: Path, postgres_url: str) -> None:
    local = ("--executor", "local", "--workers", "1")
    routers = ["oracle", "zero-router", {"name": "knn@10", "use": "knn", "k": 10}]
    sweep = write_sweep(folder, routers=routers, seeds=2)
    run(sweep, *local)
    there = roadtest("report", cwd=folder).stdout
    missing = roadtest("db", "copy", cwd=folder, expect=2).stderr
    assert "where to?" in missing
    # A password may stand in the environment, and is not shown.
    secret = postgres_url.replace("roadtest@", "roadtest:s3cret@")
    said = roadtest("db", "copy", "--from", "sqlite:///roadtest.db", cwd=folder, env={"ROADTEST_DB": secret})
    assert "s3cret" not in said.stdout + said.stderr
    assert [line.split()[1] for line in said.stdout.splitlines() if line.startswith("unit ")] == ["7"]
    assert roadtest("report", "--db", postgres_url, cwd=folder).stdout == there
    run(sweep, *local, "--db", postgres_url)
    assert select(postgres_url, "SELECT count(*) FROM attempt") == select(folder, "SELECT count(*) FROM attempt")
    run(write_sweep(folder, routers=routers, seeds=3), *local, "--db", postgres_url)
    assert executed_again(postgres_url) == []
    assert select(postgres_url, "SELECT count(*) FROM attempt WHERE outcome = 'done'") == [(10,)]
    # And back.
    (folder / "back").mkdir()
    roadtest("db", "copy", "--from", postgres_url, "--to", "sqlite:///back/roadtest.db", cwd=folder)
    assert dump(f"sqlite:///{folder}/back/roadtest.db") == dump(postgres_url)
