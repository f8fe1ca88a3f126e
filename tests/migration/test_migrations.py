"""The schema of either database: made, upgraded after a copy, refused when newer, and the same as the tables say."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect, text

from orchestrator.errors import NoDatabaseError, SchemaError
from orchestrator.store import maintenance, open_store, schema, views
from orchestrator.store.engine import make_engine, resolve_url
from orchestrator.store.tables import metadata

NEXT = '''
"""A later revision, for tests: a column that SQLite only gets by copying the table."""
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", {head!r}, None, None


def upgrade() -> None:
    with op.batch_alter_table("sweep") as batch:
        batch.add_column(sa.Column("later", sa.Text(), nullable=False, server_default="none"))
        batch.alter_column("margin", new_column_name="width")
    with op.batch_alter_table("sweep") as batch:
        batch.alter_column("width", new_column_name="margin")
'''


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = make_engine(resolve_url(url))
    yield made
    made.dispose()


def later_migrations(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that the next version of roadtest runs: our migrations and one more."""
    import shutil

    copy = folder / "migrations"
    shutil.copytree(schema.migrations_folder(), copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "versions" / "9999_next.py").write_text(NEXT.format(head=schema.head()))
    monkeypatch.setattr(schema, "migrations_folder", lambda: copy)


def test_files_begin_with_their_revisions_in_order() -> None:
    listed = [script.revision for script in ScriptDirectory(str(schema.migrations_folder())).walk_revisions()]
    assert schema.revisions() == listed[::-1] != []


def write_a_sweep(url: str) -> None:
    store = open_store(url)
    with store.begin() as session:
        session.run("INSERT INTO sweep (name, spec, margin, created_at, updated_at) VALUES ('kept', '{}', 1.5, 1, 1)")
    store.close()


def test_a_new_database_has_every_table_view_and_the_head_revision(url: str, engine: Engine) -> None:
    assert schema.current(engine) is None
    open_store(url).close()
    assert schema.current(engine) == schema.head()
    found = inspect(engine)
    assert set(found.get_table_names()) == {*metadata.tables, schema.VERSION_TABLE}
    assert set(found.get_view_names()) == set(views.NAMES)
    with engine.connect() as connection:
        for view in views.NAMES:
            assert connection.execute(text(f"SELECT * FROM {view}")).fetchall() == []


def test_migrations_make_what_the_tables_say(url: str, engine: Engine) -> None:
    open_store(url).close()
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True, "version_table": schema.VERSION_TABLE}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_every_constraint_has_a_name(url: str, engine: Engine) -> None:
    open_store(url).close()
    found = inspect(engine)
    for table in metadata.tables:
        assert found.get_pk_constraint(table)["name"] == f"pk_{table}"
        for kind in (found.get_unique_constraints, found.get_foreign_keys, found.get_check_constraints):
            assert all(constraint["name"] for constraint in kind(table)), table


def test_upgrading_again_changes_nothing(url: str, folder: Path) -> None:
    write_a_sweep(url)
    before = sorted(path.name for path in folder.iterdir() if "-" not in path.name)
    assert "has this version's schema already" in maintenance.upgrade(url)
    open_store(url).close()
    assert sorted(path.name for path in folder.iterdir() if "-" not in path.name) == before


def test_an_empty_database_is_no_place_to_read_from(url: str, folder: Path) -> None:
    if url.startswith("sqlite"):
        (folder / "roadtest.db").touch()
    with pytest.raises(NoDatabaseError, match="roadtest run SWEEP"):
        open_store(url, create=False)
    maintenance.upgrade(url)
    open_store(url, create=False).close()


def test_a_newer_revision_is_refused_by_all(url: str, engine: Engine) -> None:
    write_a_sweep(url)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9999'"))
    for attempt in (lambda: open_store(url), lambda: open_store(url, create=False), lambda: maintenance.upgrade(url)):
        with pytest.raises(SchemaError, match=r"'9999'.*newer version"):
            attempt()
    assert schema.current(engine) == "9999"


def test_an_older_sqlite_database_is_upgraded_after_a_copy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url, first = "sqlite:///roadtest.db", schema.head()
    write_a_sweep(url)
    later_migrations(folder, monkeypatch)
    with pytest.raises(SchemaError, match="roadtest db upgrade"):
        open_store(url, create=False)
    assert list(folder.glob("*.backup")) == []
    store = open_store(url)
    with store.read() as session:
        assert [dict(row) for row in session.rows("SELECT name, margin, later FROM sweep")] == [
            {"name": "kept", "margin": 1.5, "later": "none"}
        ]
        for view in views.NAMES:
            session.rows(f"SELECT * FROM {view}")
    store.close()
    [copy] = folder.glob(f"roadtest.db.{first}.*.backup")
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT name FROM sweep").fetchall() == [("kept",)]
        assert connection.execute(f"SELECT version_num FROM {schema.VERSION_TABLE}").fetchall() == [(first,)]
    assert maintenance.check(url) == []


def test_an_older_postgresql_database_is_upgraded_only_when_told(
    folder: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_a_sweep(postgres_url)
    later_migrations(folder, monkeypatch)
    for create in (True, False):
        with pytest.raises(SchemaError, match="roadtest db upgrade"):
            open_store(postgres_url, create=create)
    assert maintenance.upgrade(postgres_url).endswith("-> 9999.")
    store = open_store(postgres_url)
    with store.read() as session:
        assert session.one("SELECT later FROM sweep") == "none"
    store.close()


def test_a_failing_migration_leaves_the_database_as_it_was(
    url: str, engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_a_sweep(url)
    first = schema.head()
    later_migrations(folder, monkeypatch)
    script = folder / "migrations" / "versions" / "9999_next.py"
    script.write_text(script.read_text() + "    op.execute('SELECT nonsense FROM sweep')\n")
    with pytest.raises(Exception, match="nonsense"):
        maintenance.upgrade(url)
    assert schema.current(engine) == first
    assert set(inspect(engine).get_view_names()) == set(views.NAMES)
    assert "later" not in {column["name"] for column in inspect(engine).get_columns("sweep")}


def _open(url: str, barrier: multiprocessing.synchronize.Barrier, failures: multiprocessing.Queue[str]) -> None:
    barrier.wait()
    try:
        open_store(url).close()
    except Exception as error:
        failures.put(repr(error))


def test_processes_that_start_at_once_make_one_schema(url: str, engine: Engine) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, failures = spawn.Barrier(3), spawn.Queue()
    processes = [spawn.Process(target=_open, args=(url, barrier, failures)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert failures.empty(), failures.get()
    assert schema.current(engine) == schema.head()
    assert set(inspect(engine).get_view_names()) == set(views.NAMES)
