"""Pruning takes out what no sweep needs, what it said before, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import DatabaseError, NotFoundError
from orchestrator.store import Session, Store, maintenance, open_store
from orchestrator.store.copying import copy_database
from orchestrator.store.pruning import Garbage, prune
from tests.runs import executed_again, roadtest, run, select, write_sweep
from workers.artifacts import ArtifactStore

LOCAL = ("--executor", "local", "--workers", "1")
ROWS = np.zeros((1, 1), dtype=np.float32)
OLD = 3 * 86_400.0
TABLES = ("sweep", "sweep_unit", "unit", "metric", "frontier_point", "decision", "artifact", "attempt", "event")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first` and `second` share `zero-router` and, once `first` lost a router, leave units of nobody behind."""
    folder = tmp_path_factory.mktemp("ran")
    knn = [{"name": f"knn@{k}", "use": "knn", "k": k} for k in (3, 5, 7)]
    small = {"seeds": 2, "protocol": {"bootstrap": 10}}
    run(write_sweep(folder, name="first", routers=["zero-router", *knn[:2]], **small), *LOCAL)
    run(write_sweep(folder, name="first", routers=["zero-router", knn[0]], **small), *LOCAL)
    run(
        write_sweep(
            folder, name="second", routers=["zero-router", "oracle", knn[2]], encoders=["hash-ngrams"], **small
        ),
        *LOCAL,
    )
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, ran: Path, folder: Path) -> Iterator[Store]:
    """The database of those runs, once on either; its folder is the working directory."""
    shutil.copytree(ran, folder, dirs_exist_ok=True)
    url = f"sqlite:///{folder}/roadtest.db"
    if request.param == "postgresql":
        source, url = url, str(request.getfixturevalue("postgres_url"))
        copy_database(source, url)
    opened = open_store(url)
    yield opened
    opened.close()


@contextmanager
def changing(store: Store) -> Iterator[Session]:
    with store.begin() as session:
        yield session


def count(store: Store) -> Counter[str]:
    with store.read() as session:
        return Counter({table: session.one(f"SELECT count(*) FROM {table}") for table in TABLES})


def contents(store: Store, sweep: str) -> list[tuple[Any, ...]]:
    """All that a sweep's readers see."""
    with store.read() as session:
        return [
            tuple(row)
            for view in ("results", "decisions", "frontier", "progress", "failures")
            for row in sorted(session.run(f"SELECT * FROM {view} WHERE sweep = :s", s=sweep), key=repr)
        ]


def units(store: Store, sweep: str) -> set[int]:
    with store.read() as session:
        sql = "SELECT unit_id FROM sweep_unit su JOIN sweep s ON s.id = su.sweep_id WHERE s.name = :s"
        return {row["unit_id"] for row in session.rows(sql, s=sweep)}


def test_a_dry_run_says_what_is_then_taken_out_and_changes_nothing(store: Store) -> None:
    before = count(store)
    for options in ({}, {"sweep": "second"}, {"history_days": 0.0}):
        said = prune(store, None, **options)
        assert count(store) == before
        done = prune(store, None, apply=True, **options)
        after = count(store)
        assert done == said
        assert Counter(said.rows) == before - after
        assert sum(said.rows.values()) > 0
        before = after
    assert prune(store, None) == Garbage(rows={}, files=[], n_young=0)


def test_units_of_no_sweep_go_and_those_of_any_sweep_stay(store: Store) -> None:
    shown = {sweep: contents(store, sweep) for sweep in ("first", "second")}
    mine = units(store, "first") | units(store, "second")
    everything = count(store)
    # One slice; zero-router, knn@3, oracle and knn@7 at two splits; knn@5 is what the first sweep lost.
    assert (len(mine), everything["unit"]) == (1 + 2 * 4, 1 + 2 * 5)
    said = prune(store, None, apply=True)
    assert said.rows["unit"] == 2
    assert said.rows.keys() == {"unit", "metric", "frontier_point", "decision", "attempt"}
    assert {sweep: contents(store, sweep) for sweep in shown} == shown
    assert maintenance.check(store.shown) == []


def test_a_sweep_goes_with_what_it_has_alone(store: Store) -> None:
    shown, shared = contents(store, "second"), units(store, "first") & units(store, "second")
    assert len(shared) == 3
    assert prune(store, None, sweep="first", apply=True).rows["sweep"] == 1
    assert contents(store, "second") == shown
    with store.read() as session:
        assert [row["name"] for row in session.rows("SELECT name FROM sweep")] == ["second"]
        assert {row["id"] for row in session.rows("SELECT id FROM unit")} == units(store, "second")
        # Who computed a unit that is still there is still known: the first run of `first`, and that of `second`.
        workers = session.rows(
            "SELECT DISTINCT c.sweep_id FROM attempt a JOIN coordinator c ON c.id = a.coordinator_id"
        )
        assert len(workers) == 1
        assert session.one("SELECT count(*) FROM coordinator") == 2
    assert maintenance.check(store.shown) == []
    with pytest.raises(NotFoundError, match="there is no sweep 'first'"):
        prune(store, None, sweep="first")


def test_what_a_sweep_lost_is_computed_again_and_nothing_else(ran: Path, folder: Path) -> None:
    shutil.copytree(ran, folder, dirs_exist_ok=True)
    roadtest("db", "prune", "--sweep", "second", "--apply", "--vacuum", cwd=folder)
    run(folder / "sweep.yaml", *LOCAL)  # the second sweep's
    assert executed_again(folder) == []
    last = "SELECT c.id FROM coordinator c ORDER BY c.started_at DESC LIMIT 1"
    assert select(folder, f"SELECT count(*) FROM attempt WHERE coordinator_id = ({last})") == [(4,)]


def test_history_goes_when_it_is_old_but_not_what_explains_a_failure(store: Store) -> None:
    prune(store, None, apply=True)
    failed, quarantined = sorted(units(store, "first") - units(store, "second"))
    aged = {"a": failed, "b": quarantined, "c": min(units(store, "second")), "age": OLD}
    with changing(store) as session:
        session.run("UPDATE attempt SET finished_at = finished_at - :age WHERE unit_id IN (:a, :b, :c)", **aged)
        for unit, state in ((failed, "failed"), (quarantined, "quarantined")):
            session.run("UPDATE unit SET state = :s WHERE id = :u", s=state, u=unit)
        for kind, age in (("reclaimed", OLD), ("reclaimed", 0.0), ("divergence", OLD)):
            session.run("INSERT INTO event (at, kind, message) VALUES (:t, :k, 'm')", t=session.time() - age, k=kind)
    assert prune(store, None, history_days=2.0, apply=True).rows == {"event": 1, "attempt": 1}
    with store.read() as session:
        assert {failed, quarantined} < {row["unit_id"] for row in session.rows("SELECT unit_id FROM attempt")}
        kinds = Counter(row["kind"] for row in session.rows("SELECT kind FROM event WHERE message = 'm'"))
        assert kinds == {"reclaimed": 1, "divergence": 1}


def test_nothing_is_taken_out_while_someone_works_or_a_plan_is_half_written(store: Store) -> None:
    everything = count(store)
    with changing(store) as session:
        busy = f"state = 'running', lease_expires = {session.now} + 50"
        session.run(f"UPDATE unit SET {busy} WHERE id = (SELECT min(id) FROM unit)")
    with pytest.raises(DatabaseError, match=r"works on 1 units of this database; end its run first"):
        prune(store, None, apply=True)
    assert prune(store, None).rows["unit"] == 2
    with changing(store) as session:
        session.run("UPDATE unit SET lease_expires = 0 WHERE state = 'running'")
        session.run("UPDATE sweep SET plan_digest = '~1' WHERE name = 'second'")
    for apply in (False, True):
        with pytest.raises(DatabaseError, match="which units sweep 'second' has is not yet written to the end"):
            prune(store, None, apply=apply)
    assert count(store) == everything
    assert prune(store, None, sweep="second", apply=True).rows["sweep"] == 1


def put(artifacts: ArtifactStore, name: str, age: float) -> None:
    """A file of any name and age."""
    path = f"{artifacts._root.rstrip('/')}/{name}"
    artifacts._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    artifacts._fs.pipe_file(path, b"12345")
    if artifacts._local:
        os.utime(path, (0, time.time() - age))
    else:
        from datetime import timedelta

        artifacts._fs.store[path].created -= timedelta(seconds=age)


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_files_that_no_row_refers_to_go_when_they_are_old(store: Store, folder: Path, kind: str) -> None:
    where = folder / "store"
    artifacts = ArtifactStore({"path": str(where), "file": where.as_uri(), "memory": f"memory://{folder.name}"}[kind])
    assert prune(store, artifacts).files == []  # nothing is there yet, not even the folder
    with store.read() as session:
        [row] = session.rows("SELECT embedding, start, stop FROM artifact")
    known, other = row["embedding"], "0" * 64
    mine = f"{known}/{row['start']}-{row['stop']}"
    garbage = [
        f"{other}/0-64.json",  # a pair of a unit that is no more
        f"{other}/0-64.npy",
        f"{other}/64-128.npy",  # half of a pair
        f"{known}/9999-10000.npy",  # of a slice that was cut otherwise
        f"{known}/.0-64.npy.{'a' * 32}.tmp",  # its writer died
    ]
    stays = [f"{mine}.npy", f"{mine}.json", f"{known}/notes.txt", "probe.npy", f"backup/{other}/0-64.npy", "0-64.npy"]
    for name in garbage + stays:
        put(artifacts, name, OLD)
    put(artifacts, f"{other}/128-192.npy", 3600.0)
    said = prune(store, artifacts)
    assert sorted(file.name for file in said.files) == sorted(garbage)
    assert {file.n_bytes for file in said.files} == {5}
    assert said.n_young == 1
    assert len(artifacts.files()) == len(garbage + stays) + 1
    assert prune(store, artifacts, apply=True).files == said.files
    assert {file.name for file in artifacts.files()} == {*stays, f"{other}/128-192.npy"}
    # With its last sweeps a slice is nobody's.
    assert prune(store, artifacts, sweep="second", grace_days=0.0).n_young == 0
    prune(store, artifacts, sweep="second", apply=True)
    last = prune(store, artifacts, sweep="first", grace_days=0.0)
    assert [file.name for file in last.files] == sorted([f"{other}/128-192.npy", f"{mine}.json", f"{mine}.npy"])


def test_what_a_store_says_of_its_files(folder: Path) -> None:
    artifacts = ArtifactStore(folder / "a")
    artifacts.write("e/0-1", ROWS, {})
    found = artifacts.files()
    assert [(file.name, file.n_bytes) for file in found] == [
        (f"e/0-1{suffix}", (folder / f"a/e/0-1{suffix}").stat().st_size) for suffix in (".json", ".npy")
    ]
    assert found[1].modified == (folder / "a/e/0-1.npy").stat().st_mtime
    artifacts.delete("e/0-1.npy")
    artifacts.delete("e/0-1.npy")  # gone is gone
    assert [file.name for file in artifacts.files()] == ["e/0-1.json"]


def test_the_command_shows_first_and_does_it_when_told(ran: Path, folder: Path) -> None:
    shutil.copytree(ran, folder, dirs_exist_ok=True)
    shown = roadtest("db", "prune", cwd=folder).stdout
    assert shown.startswith("would be taken out (--apply does it):")
    said = json.loads(roadtest("db", "prune", "--json", cwd=folder).stdout)
    assert said["rows"]["unit"] == 2
    assert said["applied"] is False
    refused = roadtest("db", "prune", "--vacuum", cwd=folder, expect=2).stderr
    assert "give it together with --apply" in refused
    refused = roadtest("db", "prune", "--db", "sqlite:///none.db", "--apply", cwd=folder, expect=2).stderr
    assert "there is no database at" in refused
    assert not (folder / "none.db").exists()
    done = roadtest("db", "prune", "--sweep", "second", "--grace", "0", "--vacuum", "--apply", cwd=folder).stdout
    assert done.startswith("taken out")
    assert "bytes smaller" in done
    files = {path.suffix for path in (folder / ".roadtest/artifacts").rglob("*") if path.is_file()}
    assert files == {".npy", ".json"}  # the first sweep's slice
    roadtest("db", "prune", "--sweep", "first", "--grace", "0", "--keep-files", "--apply", cwd=folder)
    assert any(path.is_file() for path in (folder / ".roadtest/artifacts").rglob("*"))
    roadtest("db", "prune", "--grace", "0", "--apply", cwd=folder)
    assert not any(path.is_file() for path in (folder / ".roadtest/artifacts").rglob("*"))
    assert "nothing to take out" in roadtest("db", "prune", cwd=folder).stdout
