"""Fixtures for every kind of test: a folder of one's own, a tiny benchmark, the two databases."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests import postgres
from tests.postgres import PostgresServer
from tests.tiny import write_tables

# Ray gives its workers niceness 15: beside other tests they would starve until their units count as hung.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_collection_finish() -> None:
    """What is there by now stays to the end: garbage is not looked for in it, as hypothesis does 40 times a test."""
    gc.freeze()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: empty, and nothing of the user's environment points elsewhere."""
    for name in ("ROADTEST_DB", "ROADTEST_HOME", "ROADTEST_ARTIFACTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(folder: Path) -> Path:
    """The tiny benchmark's folder, `tiny` in the working directory."""
    return write_tables(folder / "tiny")


@pytest.fixture
def write_sweep(folder: Path) -> Callable[..., Path]:
    """Write a sweep file; keys given replace those of a small sweep over `tiny`."""

    def write(file: str = "sweep.yaml", /, **keys: object) -> Path:
        small = {
            "name": "small",
            "benchmarks": [{"name": "tiny", "path": "tiny"}],
            "encoders": ["hash-ngrams"],
            "routers": ["oracle", "zero-router", {"name": "knn@5", "use": "knn", "k": 5}],
            "seeds": 2,
            "protocol": {"bootstrap": 10},
        }
        content = {key: value for key, value in {**small, **keys}.items() if value is not None}
        path = folder / file
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def running_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of our own."""
    with postgres.postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server(running_postgres: PostgresServer) -> str:
    """URL of a PostgreSQL server of our own on a loopback port, without a database name."""
    return running_postgres.url


@pytest.fixture
def postgres_url(running_postgres: PostgresServer) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    url = running_postgres.create_database()
    yield url
    running_postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, folder: Path) -> str:
    """URL of an empty database, once on either."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/roadtest.db"
    return str(request.getfixturevalue("postgres_url"))
