"""Which servers does a cluster need besides Ray? An S3 and a PostgreSQL of our own, here or inside a namespace."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests.postgres import binaries, free_port, give_away

BUCKET = "roadtest"

#: Answers once the server does, and makes the bucket.
_MAKE_BUCKET = """
import sys, time, urllib.error, urllib.request
end = time.monotonic() + 30
while True:
    try:
        urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="PUT"), timeout=5)
        break
    except urllib.error.URLError as error:
        if time.monotonic() > end:
            raise
        time.sleep(0.05)
"""


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM, then KILL."""
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=10)


@contextmanager
def s3_server(
    log: Path, *, address: str = "127.0.0.1", port: int | None = None, inside: Sequence[str] = ()
) -> Iterator[str]:
    """An S3 with an empty bucket; gives its endpoint.

    Args:
        log: Where it writes one line per request.
        address: To listen on.
        port: Default a free one.
        inside: Command that enters a namespace and runs the rest there.
    """
    port = port or free_port()
    endpoint = f"http://{address}:{port}"
    with log.open("wb") as said:
        command = [*inside, sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]
        server = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            make = [*inside, sys.executable, "-c", _MAKE_BUCKET, f"{endpoint}/{BUCKET}"]
            subprocess.run(make, check=True, timeout=60)
            yield endpoint
        finally:
            end(server)


def s3_environment(endpoint: str) -> Mapping[str, str]:
    """What a process needs to reach the S3; the bucket's URL is `s3://{BUCKET}`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "roadtest",
        "AWS_SECRET_ACCESS_KEY": "s3-secret-of-the-lab",
    }


@contextmanager
def postgres(data: Path, *, password: str, address: str, port: int, inside: Sequence[str] = ()) -> Iterator[str]:
    """A PostgreSQL that asks for a password on its address and trusts its socket in `data`.

    Args:
        data: Empty folder that becomes the server's.
        password: Of the user `roadtest`.
        address: To listen on.
        port: To listen on.
        inside: Command that enters a namespace and runs the rest there.

    Yields:
        URL by the socket, which processes outside of the namespace reach too.

    Raises:
        NoPostgresError: There are no binaries, or no user that they run as.
    """
    tools, drop = binaries(), give_away(data)

    def do(tool: str, *options: str, within: Sequence[str] = ()) -> None:
        command = [*within, *drop, str(tools / tool), "-D", str(data / "db"), *options]
        # No pipes: the server would hold them open.
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)

    do("initdb", "-U", "roadtest", "-A", "trust", "--no-locale", "-E", "UTF8", "--no-sync")
    (data / "db" / "pg_hba.conf").write_text("local all all trust\nhost all all 0.0.0.0/0 scram-sha-256\n")
    settings = f"-p {port} -c listen_addresses={address} -k {data}"
    do("pg_ctl", "-w", "-l", str(data / "log"), "-o", settings, "start", within=inside)
    try:
        here = f"roadtest@/roadtest?host={data}&port={port}"
        with psycopg.connect(f"host={data} port={port} user=roadtest dbname=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE roadtest")
            connection.execute(f"ALTER USER roadtest PASSWORD '{password}'")  # type: ignore[arg-type]
        yield f"postgresql+psycopg://{here}"
    finally:
        do("pg_ctl", "-m", "immediate", "-W", "stop", within=inside)
        until = time.monotonic() + 10
        while (data / "db" / "postmaster.pid").exists() and time.monotonic() < until:
            time.sleep(0.05)
