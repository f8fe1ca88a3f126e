"""A database's password is nowhere but in the environment and the password file that it came from.

Every place that is searched must hold a word that is no secret, too: a search that finds nothing proves nothing.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg
import pytest

from tests.cluster.head import ray_head
from tests.cluster.servers import postgres
from tests.postgres import free_port
from tests.runs import command, environment, select, write_sweep

pytestmark = pytest.mark.slow

#: The part of the password that is the same however it is written: the whole has to be encoded in a URL.
SECRET = f"hush{uuid4().hex}"
PASSWORD = f"p@{SECRET}:/w"
#: The database's name, which is shown wherever a URL is.
LEDGER = f"ledger{uuid4().hex[:12]}"


@dataclass(frozen=True, kw_only=True)
class Server:
    """A PostgreSQL that asks for the password on its port."""

    port: int
    #: Of the database, by the socket, which asks for none.
    inside: str

    def url(self, password: str | None = None, *, port: int | None = None) -> str:
        """URL by the port."""
        login = "roadtest" if password is None else f"roadtest:{quote(password, safe='')}"
        return f"postgresql+psycopg://{login}@127.0.0.1:{port or self.port}/{LEDGER}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="rt-pg-", dir="/tmp") as data:
        Path(data).chmod(0o755)
        with postgres(Path(data), password=PASSWORD, address="127.0.0.1", port=port):
            with psycopg.connect(f"host={data} port={port} user=roadtest dbname=postgres", autocommit=True) as session:
                session.execute(f"CREATE DATABASE {LEDGER}")  # type: ignore[arg-type]
            with pytest.raises(psycopg.OperationalError, match="password"):
                psycopg.connect(f"host=127.0.0.1 port={port} user=roadtest dbname={LEDGER}")
            yield Server(port=port, inside=f"postgresql://roadtest@/{LEDGER}?host={data}&port={port}")


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder for a local Ray: its sockets lie below it, and a socket's path is short."""
    folder = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def assert_no_secret(place: str, text: str, *, holds: str) -> None:
    """Fail if the password is in a text, or if the text is not what it should be."""
    assert holds in text, f"{place} does not even hold {holds!r}: {text[:2000]}"
    at = text.find(SECRET)
    assert at < 0, f"the password is in {place}: …{text[max(0, at - 200) : at + 100]}"


def files(folder: Path, pattern: str = "*") -> str:
    """All that is in the regular files below a folder."""
    found = [path for path in sorted(folder.rglob(pattern)) if stat.S_ISREG(path.lstat().st_mode)]
    return "\n".join(path.read_bytes().decode(errors="replace") for path in found)


def tables(server: Server) -> str:
    """Every column of every table and view that is not the server's own."""
    named = select(
        server.inside,
        """SELECT table_schema, table_name FROM information_schema.tables
           WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2""",
    )
    assert len(named) > 15
    return "\n".join(f"{name}\n{select(server.inside, f'SELECT * FROM {schema}.{name}')}" for schema, name in named)


@contextmanager
def watched_processes() -> Iterator[list[str]]:
    """Command lines of all processes of this machine, again and again; as one text at the end."""
    seen: set[str] = set()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.2):
            for process in psutil.process_iter(["cmdline"]):
                seen.add(" ".join(process.info["cmdline"] or ()))

    thread = threading.Thread(target=watch)
    thread.start()
    texts: list[str] = []
    try:
        yield texts
    finally:
        ended.set()
        thread.join()
        texts.append("\n".join(sorted(seen)))


def roadtest(folder: Path, env: Mapping[str, str], *arguments: str | Path) -> tuple[int, str]:
    """Run the command with every log line there is; its exit code and all that it said."""
    done = subprocess.run(
        command("--log-level", "debug", *arguments),
        cwd=folder,
        env=environment(ROADTEST_HOME=str(folder / "home"), ROADTEST_RECONNECT="1", **env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout


def password_file(folder: Path, server: Server) -> str:
    """A PGPASSFILE for the server; returns its path."""
    path = folder / "pgpass"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    path.write_text(f"127.0.0.1:{server.port}:*:roadtest:{escaped}\n")
    path.chmod(0o600)
    return str(path)


@pytest.mark.parametrize("given", ["ROADTEST_DB", "PGPASSFILE"])
def test_a_run_on_a_ray_of_its_own(server: Server, tmp_path: Path, short: Path, given: str) -> None:
    # Seeds of its own: units that the database has already would not be computed.
    sweep = write_sweep(tmp_path, name=f"by-{given}", root_seed=len(given))
    env, options = {"ROADTEST_DB": server.url(PASSWORD)}, []
    if given == "PGPASSFILE":
        env, options = {"PGPASSFILE": password_file(tmp_path, server)}, ["--db", server.url()]
    with watched_processes() as seen:
        code, said = roadtest(tmp_path, {**env, "RAY_TMPDIR": str(short)}, "run", sweep, "--workers", "1", *options)
    assert code == 0, said

    assert_no_secret("the output", said, holds="zero-router")
    assert_no_secret("the logs", files(tmp_path / "home", "*.log"), holds="coordinator")
    assert_no_secret("the report", files(tmp_path / "roadtest-report"), holds=f"by-{given}")
    assert_no_secret("the tables", tables(server), holds=f"by-{given}")
    assert_no_secret("the command lines", seen[0], holds=LEDGER if options else sweep.name)
    assert_no_secret("Ray's session", files(short), holds="NodeManager")
    code, said = roadtest(tmp_path, env, "doctor", "--json", *options)
    assert_no_secret("doctor", said, holds=LEDGER)
    assert code == 0


FAILURES = ["a wrong password", "a server that is down", "a port that is no number", "a database that is not there"]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("verb", ["run", "status", "doctor"])
def test_an_error(server: Server, tmp_path: Path, verb: str, failure: str) -> None:
    url = {
        "a wrong password": server.url(PASSWORD + "no"),
        "a server that is down": server.url(PASSWORD, port=free_port()),
        "a port that is no number": server.url(PASSWORD).replace(str(server.port), "port"),
        "a database that is not there": server.url(PASSWORD).replace(LEDGER, f"not{LEDGER}"),
    }[failure]
    options = [write_sweep(tmp_path), "--executor", "local"] if verb == "run" else []
    code, said = roadtest(tmp_path, {"ROADTEST_DB": url}, verb, *options)
    assert code == (1 if verb == "doctor" else 2)
    assert_no_secret("the error", "".join(said.split()), holds=LEDGER)  # a table breaks words


def test_a_traceback_in_a_notebook(server: Server, tmp_path: Path) -> None:
    wrong = environment(ROADTEST_DB=server.url(PASSWORD + "no"))
    done = subprocess.run(
        [sys.executable, "-c", "import roadtest; roadtest.results('small')"],
        cwd=tmp_path, env=wrong, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "Traceback" in done.stderr
    assert_no_secret("the traceback", done.stderr, holds=LEDGER)


def test_a_submitted_job(server: Server, tmp_path: Path) -> None:
    home = tmp_path / "home-of-the-head"
    # The head has the password in its environment, and the client in a file.
    with ray_head(ROADTEST_DB=server.url(PASSWORD), ROADTEST_HOME=str(home)) as head:
        client = {"PGPASSFILE": password_file(tmp_path, server), "RAY_API_SERVER_ADDRESS": head.dashboard}
        sweep = write_sweep(tmp_path, name="submitted", root_seed=1)
        with watched_processes() as seen:
            code, said = roadtest(tmp_path, client, "submit", sweep, "--db", server.url(), "--id", "job", "--wait")
        assert code == 0, said
        assert_no_secret("what the client says", said, holds=LEDGER)
        assert_no_secret("the command lines", seen[0], holds=f"jobs drive submitted.yaml --db {server.url()}")

        code, said = roadtest(tmp_path, client, "doctor", "--address", head.dashboard, "--db", server.url(), "--json")
        assert code == 0, said
        assert_no_secret("doctor on the head", said, holds="login works")
        # A job that fails: the head's own URL is refused by the server.
        lost = server.url().replace(LEDGER, f"not{LEDGER}")
        code, said = roadtest(tmp_path, client, "submit", sweep, "--db", lost, "--id", "fails", "--wait")
        assert code == 2, said
        assert_no_secret("what a failing job says", said, holds=f"not{LEDGER}")
        # A client that would send the password.
        careless = {**client, "ROADTEST_DB": server.url(PASSWORD)}
        code, said = roadtest(tmp_path, careless, "submit", sweep, "--id", "careless")
        assert code == 2
        assert_no_secret("the refusal", said, holds="PGPASSFILE")

        code, said = roadtest(tmp_path, client, "jobs", "list", "--json")
        assert [row["id"] for row in json.loads(said)] == ["job", "fails"]
        assert_no_secret("the list of jobs", said, holds="submitted")
        for page, word in (("api/jobs/", LEDGER), ("api/jobs/fails", LEDGER), ("nodes?view=summary", "raylet"),
                           ("logical/actors", "JobSupervisor")):  # fmt: skip
            with urllib.request.urlopen(f"{head.dashboard}/{page}", timeout=30) as answer:
                assert_no_secret(f"the dashboard's {page}", answer.read().decode(), holds=word)
        assert_no_secret("Ray's session", files(head.folder), holds=LEDGER)
        assert_no_secret("the head's logs", files(home, "*.log"), holds="coordinator")
    assert_no_secret("the tables", tables(server), holds="submitted")
