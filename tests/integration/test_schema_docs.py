"""docs/schema.md says what the tables and views are, on either database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, inspect, text

from orchestrator.store import open_store
from orchestrator.store.engine import make_engine, resolve_url
from orchestrator.store.schema_docs import page
from orchestrator.store.tables import metadata
from orchestrator.store.view_columns import VIEWS

PAGE = Path(__file__).parents[2] / "docs" / "schema.md"
COLUMNS = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_name = ANY(:v)"
#: What PostgreSQL calls a kind.
KINDS = {
    "text": {"text", "character varying"},
    "integer": {"integer", "bigint"},
    "double": {"double precision"},
    "boolean": {"boolean"},
    "timestamp": {"timestamp with time zone"},
}
#: Base columns that design 5 promises.
PROMISED = {
    "unit.id", "unit.key", "unit.benchmark_id",
    "metric.unit_id", "metric.name", "metric.value",
    "outcome.query_id", "outcome.model_id", "outcome.score", "outcome.cost",
    "query.id", "query.benchmark_id", "query.key", "query.task",
    "model.id", "model.benchmark_id", "model.name",
    "benchmark.id", "benchmark.name", "benchmark.c_ref",
}  # fmt: skip


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    open_store(url).close()
    made = make_engine(resolve_url(url))
    yield made
    made.dispose()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m orchestrator.store.schema_docs"


def test_every_table_and_column_says_what_it_holds() -> None:
    for table in metadata.tables.values():
        assert table.info.get("row"), table.name
        for column in table.columns:
            assert column.doc, column
    marked = {f"{t.name}.{c.name}" for t in metadata.tables.values() for c in t.columns if c.info.get("join")}
    assert marked >= PROMISED


def test_views_have_the_columns_and_kinds_that_the_page_says(engine: Engine) -> None:
    found = inspect(engine)
    for name, view in VIEWS.items():
        assert [column["name"] for column in found.get_columns(name)] == list(view.columns), name
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            types = connection.execute(text(COLUMNS), {"v": list(VIEWS)}).fetchall()
        assert len(types) == sum(len(view.columns) for view in VIEWS.values())
        wrong = [(v, c, t) for v, c, t in types if t not in KINDS[VIEWS[v].columns[c].kind]]
        assert wrong == []
