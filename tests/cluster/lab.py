"""How do several machines fit on one? As namespaces: each node has its own network, processes, disk, memory and name.

    with Lab(nodes=3) as lab:
        lab.start_ray(lab.nodes[1:])
        lab.head.run(["ray", "status"])
        lab.nodes[2].power_off()

Needs Linux, root, iproute2 and util-linux. A bridge in a namespace of its own joins the nodes; nothing leaves it. A
namespace lives as long as its processes, which die with this one: a lab that is killed leaves nothing but a folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil

from tests.cluster.servers import end

PROJECT = Path(__file__).parents[2]
DIES_WITH_ME = ["setpriv", "--pdeathsig", "KILL"]
GCS_PORT, DASHBOARD_PORT = 6379, 8265

#: With these Ray calls a silent node dead after seconds; by default after most of a minute.
IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}

#: What a node's first process does: a disk, a memory and a name of its own, then collect orphans.
_BOOT = """
set -e
hostname "$NAME"
ip link set lo up
mount -t tmpfs -o size=2g tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mkdir -p "$DISK/root" "$DISK/tmp" "$DISK$PYTHON"
chmod 1777 "$DISK/tmp"
mount --bind "$PYTHON" "$DISK$PYTHON"    # an interpreter below /root must stay reachable
mount --bind "$PROJECT" "$PROJECT"
mount -o remount,ro,bind "$PROJECT"      # the code and its packages are installed here; nothing else of the host's is
for own in /root /tmp; do mount --rbind "$DISK$own" $own; done
if [ "$SEES_LAB" = no ]; then mount -t tmpfs tmpfs "$LAB"; fi
echo up
while :; do sleep 1d & wait $!; done
"""


class Node:
    """One machine of the lab."""

    def __init__(self, lab: Path, number: int, *, sees_lab: bool, environment: Mapping[str, str]) -> None:
        self.number = number
        self.name = f"n{number}"
        self.address = f"10.77.0.{number}"
        self.folder = lab / self.name
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **environment,
        }
        self.folder.mkdir()
        boot = {
            **self.environment,
            "NAME": self.name,
            "DISK": str(self.folder),
            "PYTHON": sys.base_prefix,
            "PROJECT": str(PROJECT),
            "LAB": str(lab),
            "SEES_LAB": "yes" if sees_lab else "no",
        }
        separate = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with self.log("boot") as said:
            self._outer = subprocess.Popen(
                [*DIES_WITH_ME, *separate, "bash", "-c", _BOOT], env=boot, stdout=subprocess.PIPE, stderr=said
            )
        assert self._outer.stdout is not None
        if self._outer.stdout.readline() != b"up\n":
            raise RuntimeError(f"{self.name} did not boot: {(self.folder / 'boot.log').read_text()}")
        (self._init,) = psutil.Process(self._outer.pid).children()

    @property
    def pid(self) -> int:
        """The first process, as this host numbers it."""
        return self._init.pid

    @property
    def inside(self) -> list[str]:
        """Command that runs the rest on this node."""
        return ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid", "--wd=/tmp", "--"]

    def log(self, name: str) -> IO[bytes]:
        """Open a log of this node, outside of its own disk."""
        return (self.folder / f"{name}.log").open("ab")

    def start(self, command: Sequence[str | Path], *, log: str) -> subprocess.Popen[bytes]:
        """Start a command on this node; secrets travel by its environment alone."""
        with self.log(log) as said:
            return subprocess.Popen(
                [*DIES_WITH_ME, *self.inside, *map(str, command)],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )

    def run(self, command: Sequence[str | Path], *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a command on this node to its end."""
        return subprocess.run(
            [*self.inside, *map(str, command)],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def put(self, file: str, content: str, *, mode: int = 0o600) -> str:
        """Write a file below this node's `/root` or `/tmp`; returns its path there."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(mode)
        return f"/{file}"

    def power_off(self) -> None:
        """End every process at once, as a power cut does."""
        if self._init.is_running():
            self._init.send_signal(signal.SIGKILL)
        self._outer.wait(timeout=30)


class Lab:
    """Some nodes on one switch; the first is the head."""

    def __init__(self, *, nodes: int, environment: Mapping[str, str] | None = None) -> None:
        self._n = nodes
        self._environment = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            **IMPATIENT,
            # Another kernel of the same library gives other last bits.
            **{name: value for name, value in os.environ.items() if name.startswith(("OPENBLAS_", "MKL_", "ONEDNN_"))},
            **(environment or {}),
        }
        self.nodes: list[Node] = []
        self._stack = ExitStack()

    @property
    def head(self) -> Node:
        """The first node."""
        return self.nodes[0]

    def __enter__(self) -> Lab:
        with self._stack:
            # Not below /tmp, which each node has of its own; the head's database is reached here by its socket.
            self.folder = Path(tempfile.mkdtemp(prefix="rt-lab-", dir="/var/tmp"))
            self.folder.chmod(0o755)
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._switch = subprocess.Popen([*DIES_WITH_ME, "unshare", "--net", "sleep", "infinity"])
            self._stack.callback(end, self._switch)
            self._wait_for_own_network()
            self._ip("link", "add", "br0", "type", "bridge")
            self._ip("link", "set", "br0", "up")
            for number in range(1, self._n + 1):
                self.nodes.append(Node(self.folder, number, sees_lab=number == 1, environment=self._environment))
                self._stack.callback(self.nodes[-1].power_off)
                self._plug_in(self.nodes[-1])
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _wait_for_own_network(self) -> None:
        mine, until = Path("/proc/self/ns/net").readlink(), time.monotonic() + 10
        while Path(f"/proc/{self._switch.pid}/ns/net").readlink() == mine:
            if time.monotonic() > until:
                raise RuntimeError("the switch has no network of its own")
            time.sleep(0.01)

    def _ip(self, *arguments: str) -> None:
        subprocess.run(["nsenter", "-t", str(self._switch.pid), "--net", "ip", *arguments], check=True, timeout=10)

    def _plug_in(self, node: Node) -> None:
        port = f"p{node.number}"
        self._ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
        self._ip("link", "set", port, "master", "br0", "up")
        for arguments in (
            ["addr", "add", f"{node.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["route", "add", "default", "dev", "eth0"],  # leads nowhere; Ray asks it for the host's own address
        ):
            node.run(["ip", *arguments]).check_returncode()

    def cut(self, node: Node) -> None:
        """Pull the node's network cable; it computes on."""
        self._ip("link", "set", f"p{node.number}", "down")

    def mend(self, node: Node) -> None:
        """Plug the cable in again."""
        self._ip("link", "set", f"p{node.number}", "up")

    def start_ray(self, workers: Sequence[Node]) -> None:
        """Start Ray on the head and on workers, one CPU each, and return once all have joined."""
        common = ["--num-cpus", "1", "--object-store-memory", "100000000", "--block"]
        for node in (self.head, *workers):
            if node is self.head:
                where = ["--head", "--port", str(GCS_PORT), "--dashboard-host", node.address]
                where += ["--dashboard-port", str(DASHBOARD_PORT), "--include-dashboard", "true"]
            else:
                where = ["--address", f"{self.head.address}:{GCS_PORT}"]
            node.start(["ray", "start", *where, "--node-ip-address", node.address, *common], log="ray")
            if node is self.head:
                self._wait_for_ray(node)  # workers that come too early wait in steps of many seconds
        for node in workers:
            self._wait_for_ray(node)

    def _wait_for_ray(self, node: Node) -> None:
        until = time.monotonic() + 60
        said = node.folder / "ray.log"
        while "Ray runtime started" not in said.read_text():
            if time.monotonic() > until:
                raise RuntimeError(f"Ray did not start on {node.name}: {said.read_text()[-2000:]}")
            time.sleep(0.1)
