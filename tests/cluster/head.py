"""How does a test get a Ray cluster of its own, with a dashboard that takes jobs? Nodes on loopback addresses."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.cluster.servers import end
from tests.postgres import free_port
from tests.runs import environment

#: Kept as it is given, while 127.0.0.1 becomes the address of an interface.
ADDRESS = "127.0.0.2"
_RAY = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@dataclass(frozen=True, kw_only=True)
class Node:
    """A running node of Ray, the head or another one."""

    process: subprocess.Popen[bytes]
    #: Ray's folder, with the logs of its session.
    folder: Path
    #: For drivers, and nodes that join.
    address: str
    #: Of the head's dashboard, where jobs are submitted.
    dashboard: str

    def processes(self) -> list[psutil.Process]:
        """Everything that runs for this node."""
        here = psutil.Process(self.process.pid)
        return [here, *here.children(recursive=True)]


@contextmanager
def ray_head(*, with_command: bool = True, **variables: str) -> Iterator[Node]:
    """A head with one CPU.

    Args:
        with_command: Whether `roadtest` is on its PATH.
        variables: Its environment, and that of the jobs, besides ours.
    """
    # Short: Ray's sockets lie below it.
    folder = Path(tempfile.mkdtemp(prefix="rt-ray-", dir="/tmp"))
    port, dashboard = free_port(), free_port()
    options = [
        "--head", f"--node-ip-address={ADDRESS}", f"--port={port}", f"--temp-dir={folder}", "--include-dashboard=true",
        f"--dashboard-host={ADDRESS}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}",
    ]  # fmt: skip
    path = {"PATH": f"{Path(sys.executable).parent}:{environment()['PATH']}"} if with_command else {}
    try:
        with _started(options, {**path, **variables}, folder / "head.log") as process:
            yield Node(
                process=process,
                folder=folder,
                address=f"{ADDRESS}:{port}",
                dashboard=f"http://{ADDRESS}:{dashboard}",
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def joined(head: Node, address: str, **variables: str) -> Iterator[Node]:
    """Another node with one CPU.

    Args:
        head: The cluster's head.
        address: A loopback address of the node's own.
        variables: Its environment besides ours.
    """
    options = [f"--address={head.address}", f"--node-ip-address={address}"]
    with _started(options, variables, head.folder / f"{address}.log") as process:
        yield Node(process=process, folder=head.folder, address=head.address, dashboard=head.dashboard)


@contextmanager
def _started(options: Sequence[str], variables: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`ray start`, ended with everything that it started."""
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1",
        "--object-store-memory=100000000", f"--dashboard-agent-listen-port={free_port()}",
        f"--dashboard-agent-grpc-port={free_port()}", f"--metrics-export-port={free_port()}", *options,
    ]  # fmt: skip
    with log.open("wb") as said:
        process = subprocess.Popen(command, env=environment(**_RAY, **variables), stdout=said, stderr=said)
        try:
            until = time.monotonic() + 60
            while "block forever" not in log.read_text():  # the last thing it says, when all is up
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.1)
            yield process
        finally:
            started = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            end(process)
            _, alive = psutil.wait_procs(started, timeout=10)
            for left in alive:
                left.kill()
