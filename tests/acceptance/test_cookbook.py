"""Every query of docs/cookbook.md gives the printed answer, on SQLite and PostgreSQL."""

from __future__ import annotations

import pytest

from orchestrator.store.copying import copy_database
from tests.cookbook import PAGE, answer, make_database, questions, same

QUESTIONS = list(questions(PAGE.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_database(tmp_path_factory.mktemp("cookbook"))


def test_the_page_asks_enough_and_answers_all() -> None:
    assert len(QUESTIONS) >= 20
    assert all(len(printed.splitlines()) > 1 for _, printed in QUESTIONS)


def test_the_answers_are_those_printed(database: str) -> None:
    for query, printed in QUESTIONS:
        given = answer(query, database)
        assert same(printed, given), f"{query}\n{given}"


def test_postgresql_answers_the_same(database: str, postgres_url: str) -> None:
    copy_database(database, postgres_url)
    for query, _ in QUESTIONS:
        here, there = answer(query, database), answer(query, postgres_url)
        assert same(here, there), f"{query}\n{here}\n{there}"
