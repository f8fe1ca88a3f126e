"""Can roadtest work here, and on every node of a cluster? One finding for each thing that was looked at."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np

from orchestrator.environment import facts
from orchestrator.errors import DatabaseError, HomeError, NoDatabaseError, OrchestratorError
from orchestrator.jobs import database_of_node
from orchestrator.run import artifacts_url
from orchestrator.store import check_home, home_folder, open_store
from orchestrator.store.engine import clock, make_engine, resolve_url, shown, sqlite_path, translated
from orchestrator.store.filesystems import require_local_disk
from workers.artifacts import ArtifactStore

T = TypeVar("T")
#: Packages without which a run cannot start.
NEEDED = ("ray", "torch", "sentence-transformers", "scikit-learn", "sqlalchemy", "alembic")
#: Bytes below which a sweep may fill the disk.
LITTLE_DISK = 1_000_000_000
#: Seconds between two clocks that are worth a look; leases run in database time, logs and attempts in the nodes'.
SKEW_SECONDS = 2.0
#: Seconds for an artefact store, and for a database's port, to answer.
PROBE_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    #: Address of the node, None for this machine.
    node: str | None = None


class NodeReport(TypedDict):
    """What a node found out about itself: plain values, which any version of roadtest can read."""

    host: str
    #: Versions by package, Python's included.
    versions: dict[str, str]
    #: Free bytes by folder.
    disks: dict[str, int]
    #: Why the database's port does not answer, and why nobody may log in; None when all is well or it is SQLite.
    port_error: str | None
    login_error: str | None
    #: Name and sha256 of what this node wrote to the artefact store, or why it could not.
    wrote: tuple[str, str] | None
    write_error: str | None


def check_up(url: str | None) -> list[Finding]:
    """Look at this machine; nothing is created but probe files that are removed again."""
    found = [*_versions(), *_database(url), *_home(url)]
    try:
        return [*found, *_artifacts(artifacts_url(home_folder(url)))]
    except DatabaseError:  # is among the findings
        return found


def _versions() -> Iterator[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding(name="python", ok=sys.version_info >= (3, 11), detail=python)
    for package in NEEDED:
        try:
            yield Finding(name=package, ok=True, detail=version(package))
        except PackageNotFoundError:
            yield Finding(name=package, ok=False, detail=f"not installed: pip install {package}")


def _database(url: str | None) -> Iterator[Finding]:
    try:
        resolved = resolve_url(url)
        name, path = shown(resolved), sqlite_path(resolved)
        require_local_disk(path)
        if path is None:
            yield _skew("clock", *_database_time(url), than="the database's")
        try:
            store = open_store(url, create=False)
        except NoDatabaseError:
            ready = path is None or path.resolve().parent.is_dir()
            yield Finding(name="database", ok=ready, detail=f"{name}: not there yet, a run makes it")
            return
        with store.read() as session:
            n = session.one("SELECT count(*) FROM unit")
        store.close()
        yield Finding(name="database", ok=True, detail=f"{name}: {n} units")
    except OrchestratorError as error:
        yield Finding(name="database", ok=False, detail=str(error))


def _database_time(url: str | None) -> tuple[float, float, float]:
    """Log in and ask for the time: here before, there, here after.

    Raises:
        DatabaseError: Not reachable, or no login.
    """
    resolved = resolve_url(url)
    engine = make_engine(resolved, read_only=True)
    try:
        with translated(f"database {shown(resolved)}", running=False), engine.connect() as connection:
            before = time.time()
            there = float(connection.exec_driver_sql(f"SELECT {clock('postgresql')}").scalar_one())
            return before, there, time.time()
    finally:
        engine.dispose()


def _skew(name: str, before: float, there: float, after: float, *, than: str, node: str | None = None) -> Finding:
    """Compare clocks: what was read there was read between two readings here."""
    apart, doubt = there - (before + after) / 2, (after - before) / 2
    ok = abs(apart) - doubt <= SKEW_SECONDS
    detail = f"{apart:+.3f} s from {than} (± {doubt:.3f} s)"
    return Finding(name=name, ok=ok, detail=detail if ok else f"{detail}: let NTP set the clocks", node=node)


def _home(url: str | None) -> Iterator[Finding]:
    try:
        home = home_folder(url)
        existing = check_home(home)
    except HomeError as error:
        yield Finding(name="home", ok=False, detail=str(error))
    except DatabaseError:  # is among the findings
        return
    else:
        yield Finding(name="home", ok=True, detail=str(home))
        yield _disk(str(existing), shutil.disk_usage(existing).free)


def _disk(folder: str, free: int, *, node: str | None = None) -> Finding:
    return Finding(name="free disk", ok=free > LITTLE_DISK, detail=f"{free / 1e9:.1f} GB at {folder}", node=node)


# -- the artefact store ----------------------------------------------------------------------------------------------


def _artifacts(url: str) -> Iterator[Finding]:
    error = _tried(lambda: _store(_existing(url)).check())[1]
    detail = _public(url) if error is None else f"{_public(url)}: {error}"
    yield Finding(name="artefact store", ok=error is None, detail=detail)


def _existing(url: str) -> str:
    """The folder to try: a local one that a run would make is tried in the one that it would be made in."""
    if "://" in url:
        return url
    return str(next(folder for folder in (Path(url), *Path(url).resolve().parents) if folder.is_dir()))


def _write_probe(url: str) -> tuple[tuple[str, str] | None, str | None]:
    """Write a small artefact: its name and sha256, or why it could not be written."""
    name = f"probe-{uuid.uuid4().hex}"
    if "://" not in url and not Path(url).is_dir():
        return None, "there is no such folder here"
    return _tried(lambda: (name, _store(url).write(name, np.arange(4, dtype=np.float32), {})[1]))


def _read_probe(url: str, name: str, sha256: str) -> str | None:
    """Why a probe that someone wrote cannot be read here, None when it can."""
    return _tried(lambda: _store(url).read(name, sha256))[1]


def _delete_probes(url: str, wrote: Iterable[tuple[str, str] | None]) -> None:
    for name, _ in filter(None, wrote):
        for suffix in (".json", ".npy"):
            _tried(partial(_store(url).delete, name + suffix))


def _store(url: str) -> ArtifactStore:
    return ArtifactStore(url, patience=PROBE_SECONDS)


def _tried(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """The result, or the error in one line: drivers of stores raise whatever they like."""
    try:
        return work(), None
    except Exception as error:
        return None, _public(str(error).strip().partition("\n")[0] or type(error).__name__)


def _public(text: str) -> str:
    """A text in which no URL shows credentials."""
    return re.sub(r"://[^/@\s]+@", "://***@", text)


# -- nodes -----------------------------------------------------------------------------------------------------------


def check_node(database: str | None, artifacts: str) -> NodeReport:
    """What a node finds out about itself, with its own environment; runs on the node.

    Args:
        database: PostgreSQL's URL without a password; None where the database is SQLite.
        artifacts: Artefact store of the run.
    """
    port_error = login_error = None
    if database is not None:
        port_error = _tried(partial(_reach, database))[1]
        login_error = port_error or _tried(lambda: _database_time(database_of_node(database)))[1]
    wrote, write_error = _write_probe(artifacts)
    own = Path(os.environ.get("ROADTEST_HOME", Path.home()))
    home = next(folder for folder in (own, *own.resolve().parents) if folder.exists())
    return {
        "host": socket.gethostname(),
        "versions": _installed(),
        "disks": {str(folder): shutil.disk_usage(folder).free for folder in (Path(tempfile.gettempdir()), home)},
        "port_error": port_error,
        "login_error": login_error,
        "wrote": wrote,
        "write_error": write_error,
    }


def _installed() -> dict[str, str]:
    found = facts()
    return {"python": found["python"], "blas": ", ".join(found["blas"]), **found["packages"]}


def _reach(database: str) -> None:
    url = resolve_url(database)
    if url.host is not None:  # else libpq knows where
        socket.create_connection((url.host, url.port or 5432), timeout=PROBE_SECONDS).close()


def check_cluster(url: str | None, address: str, *, timeout: float) -> list[Finding]:
    """Ask every node that is alive, and compare it with this machine.

    Args:
        url: Database.
        address: Of a cluster that this machine belongs to.
        timeout: Seconds for all nodes together.

    Raises:
        RunError: The cluster cannot be joined.
        DatabaseError: Not the URL of a database.
    """
    from orchestrator import cluster

    resolved, artifacts = resolve_url(url), _existing(artifacts_url(home_folder(url)))
    database = None if sqlite_path(resolved) is not None else shown(resolved).replace(":***@", "@")
    cluster.connect(address, workers=None)
    answers = cluster.ask_every_node(partial(check_node, database, artifacts), timeout=timeout)
    # Asked when the workers that answer run already: what is left is the way there and back.
    clocks = {answer.node: answer for answer in cluster.ask_every_node(time.time, timeout=PROBE_SECONDS)}
    found: list[Finding] = []
    for answer in answers:
        if answer.value is None:
            found.append(Finding(name="answers", ok=False, detail=answer.error or "no report", node=answer.node))
            continue
        report: NodeReport = answer.value
        role = "head" if answer.head else "worker"
        found.append(Finding(name="answers", ok=True, detail=f"{report['host']}, {role}", node=answer.node))
        found += node_findings(report, node=answer.node, head=answer.head, versions=_installed(), database=database)
        found.append(_shared(report, artifacts, answer.node))
        time_there = clocks.get(answer.node)
        if time_there is None or time_there.value is None:
            found.append(Finding(name="clock", ok=False, detail="no answer to a second question", node=answer.node))
        else:
            sent, there, received = time_there.sent, time_there.value, time_there.received
            found.append(_skew("clock", sent, there, received, than="this machine's", node=answer.node))
    _delete_probes(artifacts, [answer.value["wrote"] for answer in answers if answer.value])
    return found


def node_findings(
    report: NodeReport, *, node: str, head: bool, versions: Mapping[str, str], database: str | None
) -> Iterator[Finding]:
    """What is to be said about a node's report.

    Args:
        report: As `check_node` gave it.
        node: Address of the node.
        head: Whether it is the head, where the coordinators of submitted sweeps run; others need no login.
        versions: Of this machine.
        database: The URL that the node was asked to reach, None for SQLite, which no node touches.
    """
    theirs = report["versions"]
    other = [
        f"{name} {theirs.get(name, 'missing')} (here {versions.get(name, 'missing')})"
        for name in sorted({*theirs, *versions})
        if theirs.get(name) != versions.get(name)
    ]
    same = f"as here: roadtest {theirs.get('roadtest')}, ray {theirs.get('ray')}, python {theirs['python']}"
    yield Finding(name="versions", ok=not other, detail=", ".join(other) or same, node=node)
    if database is not None:
        port, login = report["port_error"], report["login_error"]
        if port is not None:
            yield Finding(name="database", ok=False, detail=f"{database} does not answer: {port}", node=node)
        elif login is not None:
            only = "" if head else " Only the head needs a login."
            yield Finding(name="database", ok=not head, detail=f"answers, but no login: {login}{only}", node=node)
        else:
            yield Finding(name="database", ok=True, detail=f"{database}: login works", node=node)
    for folder, free in report["disks"].items():
        yield _disk(folder, free, node=node)


def _shared(report: NodeReport, artifacts: str, node: str) -> Finding:
    """Whether this machine reads what the node wrote to the artefact store."""
    where, wrote = _public(artifacts), report["wrote"]
    if wrote is None:
        detail = f"cannot write to {where}: {report['write_error']}"
    elif (error := _read_probe(artifacts, *wrote)) is not None:
        detail = (
            f"wrote to {where}, but this machine does not read it ({error}); set ROADTEST_ARTIFACTS to a shared URL"
        )
    else:
        return Finding(name="artefact store", ok=True, detail=f"{where}: written there, read here", node=node)
    return Finding(name="artefact store", ok=False, detail=detail, node=node)
