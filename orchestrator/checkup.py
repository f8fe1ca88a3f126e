"""Can roadtest work here? Versions, database, artefact folder, disk: one finding each."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from orchestrator.errors import HomeError, OrchestratorError
from orchestrator.store import check_home, home_folder, open_store
from orchestrator.store.engine import resolve_url, shown, sqlite_path

#: Packages without which a run cannot start.
NEEDED = ("ray", "torch", "sentence-transformers", "scikit-learn", "sqlalchemy", "alembic")
#: Bytes below which a sweep may fill the disk.
LITTLE_DISK = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def check_up(url: str | None) -> list[Finding]:
    """Look at everything; nothing is created but a probe file that is removed again."""
    return [*_versions(), *_database(url)]


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
        if path is not None and not path.exists():
            yield Finding(
                name="database", ok=path.resolve().parent.is_dir(), detail=f"{name}: not there yet, a run makes it"
            )
        else:
            store = open_store(url, create=False)
            with store.read() as session:
                n = session.one("SELECT count(*) FROM unit")
            store.close()
            yield Finding(name="database", ok=True, detail=f"{name}: {n} units")
    except OrchestratorError as error:
        yield Finding(name="database", ok=False, detail=str(error))
        return
    home = home_folder(url)
    try:
        existing = check_home(home)
    except HomeError as error:
        yield Finding(name="home", ok=False, detail=str(error))
        return
    yield Finding(name="home", ok=True, detail=str(home))
    free = shutil.disk_usage(existing).free
    yield Finding(name="free disk", ok=free > LITTLE_DISK, detail=f"{free / 1e9:.1f} GB at {existing}")
