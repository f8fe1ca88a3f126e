"""Does `ray up ray_cluster.yaml` work? For real, by ssh, on namespaces; everything said goes into a log.

    python -m tests.cluster.ray_up [--log FILE]

Of the file only head_ip, worker_ips and ssh_user are changed. Nothing leaves the namespaces, so no registry is reached:
each host has its `~/roadtest` already, which finds the packages of this project's environment, and pip, told by
PIP_NO_INDEX, has only roadtest's wheel to install. Every command of the file runs as it stands.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from tests.cluster.lab import DASHBOARD_PORT, PROJECT, Lab, Node
from tests.cluster.servers import end
from tests.cluster.three_nodes import PASSWORD, computed, machines, submit, write_sweep
from tests.runs import assert_same_results, deterministic, run

_SSHD = """
Port 22
HostKey /root/host_key
AuthorizedKeysFile /root/.ssh/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
PidFile none
"""
#: At most: `ray up`, workers to join, workers to notice that the head is gone.
UP_SECONDS, JOIN_SECONDS, ORPHAN_SECONDS = 300, 180, 180
#: What Ray says more than once.
_NOISE = re.compile(
    r"VINFO|VWARN|cli_output_helpers|commands\.py:9[4-7]|node_provider\.py|New status|"
    r"^(Shared connection|Warning: Perm|sen[td] |total size|\./$)"
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Transcript:
    """What was done and said, with the seconds since the beginning."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Add to the log and show."""
        lines = [line for line in _ANSI.sub("", text).rstrip().split("\n") if not _NOISE.search(line)]
        text = "\n".join(lines)
        self.lines.append(text)
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def run(self, node: Node, command: Sequence[str], *, timeout: float) -> str:
        """Run a command in the desk's folder, as a person would."""
        self.note(f"\n[{time.monotonic() - self._begin:5.1f} s] {node.name} $ {' '.join(command)}")
        done = node.run(["env", "-C", "/tmp/up", *command], timeout=timeout)
        self.note(done.stdout + done.stderr)
        if done.returncode:
            raise RuntimeError(f"exit code {done.returncode}")
        return done.stdout

    def moment(self, text: str) -> None:
        """Note that something happened now."""
        self.note(f"\n[{time.monotonic() - self._begin:5.1f} s] {text}")


def make_host(node: Node, public_key: str) -> None:
    """What an administrator has done on a host before: Python, sshd, `~/roadtest.env`; and the packages, see above."""
    site = Path(sys.prefix) / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
    node.run([f"{sys.base_prefix}/bin/python3", "-m", "venv", "/root/roadtest"], timeout=120).check_returncode()
    mine = f"root/roadtest/lib/python3.{sys.version_info.minor}/site-packages"
    for older in (node.folder / mine).glob("setuptools*"):  # than what torch wants and this project's environment has
        shutil.rmtree(older)
    node.put(f"{mine}/lab.pth", f"{site}\n")
    script = (Path(sys.prefix) / "bin" / "ray").read_text().partition("\n")[2]
    node.put("root/roadtest/bin/ray", f"#!/root/roadtest/bin/python\n{script}", mode=0o755)
    node.put("root/.bashrc", f"export PIP_NO_INDEX=1 PATH={sys.base_prefix}/bin:$PATH\n")
    names = ("ROADTEST_", "AWS_", "PGPASSFILE", "OPENBLAS_")
    variables = {name: value for name, value in node.environment.items() if name.startswith(names)}
    node.put("root/roadtest.env", "".join(f"{name}={value}\n" for name, value in variables.items()))
    node.put("root/.ssh/authorized_keys", public_key)
    node.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/host_key"]).check_returncode()
    (node.folder / "root").chmod(0o700)
    node.run(["mkdir", "-p", "/run/sshd"]).check_returncode()
    node.start(["/usr/sbin/sshd", "-D", "-e", "-f", node.put("tmp/sshd_config", _SSHD)], log="sshd")


def make_desk(desk: Node, lab: Lab) -> None:
    """The folder that `ray up` is called in: the file with this cluster's addresses, and `dist/`."""
    desk.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/root/.ssh/id_ed25519"]).check_returncode()
    there = desk.folder / "tmp" / "up"
    (there / "dist").mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="rt-wheel-") as sources:
        # A copy: the build writes into its folder, and others work in this one.
        for name in ("orchestrator", "workers", "roadtest", "migrations"):
            shutil.copytree(PROJECT / name, Path(sources) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(PROJECT / name, sources)
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(there / "dist"), sources]
        subprocess.run(build, check=True, capture_output=True, timeout=120)
    shutil.copy(PROJECT / "constraints.txt", there / "dist")
    text = (PROJECT / "ray_cluster.yaml").read_text()
    for key, value in (
        ("head_ip", lab.head.address),
        ("worker_ips", f"[{', '.join(node.address for node in lab.nodes[1:3])}]"),
        ("ssh_user", "root"),
    ):
        text, n = re.subn(rf"^(\s+{key}: )[^#\n]*", rf"\g<1>{value} ", text, flags=re.MULTILINE)
        assert n == 1, key
    (there / "ray_cluster.yaml").write_text(text)
    yaml.safe_load(text)


def main() -> None:
    """Up, submit, down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, help="Write the transcript there.")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rt-alone-") as here:
        folder = Path(here)
        sweep = write_sweep(folder, seeds=asked.seeds)
        run(sweep, "--workers", "2")
        alone = deterministic(folder)
        with machines() as (lab, desk, url):
            make_desk(desk, lab)
            for node in lab.nodes[:3]:
                make_host(node, (desk.folder / "root/.ssh/id_ed25519.pub").read_text())
            desk.environment["RAY_UP_enable_autoscaler_v2"] = "0"
            log = Transcript()
            try:
                up_and_down(log, lab, desk, url, sweep)
                assert_same_results(url, alone)
                assert computed(url) <= {"n1", "n2", "n3"}
                log.moment(
                    f"every deterministic column is that of this host alone; computed on {sorted(computed(url))}"
                )
            finally:
                text = "\n".join(log.lines) + "\n"
                secrets = [PASSWORD, lab.head.environment["AWS_SECRET_ACCESS_KEY"]]
                assert not [secret for secret in secrets if secret in text], "a secret in the log"
                if asked.log:
                    asked.log.write_text(text)


def up_and_down(log: Transcript, lab: Lab, desk: Node, url: str, sweep: Path) -> None:
    """The commands of ray_cluster.yaml's head comment, from the desk."""
    log.run(desk, ["ray", "up", "-y", "--no-config-cache", "ray_cluster.yaml"], timeout=UP_SECONDS)
    until = time.monotonic() + JOIN_SECONDS
    while True:
        status = lab.head.run(["/root/roadtest/bin/ray", "status", "--address", f"{lab.head.address}:6379"]).stdout
        if _nodes(status) == 3:
            break
        if time.monotonic() > until:
            raise RuntimeError(f"the workers did not come:\n{status}")
        time.sleep(0.5)
    log.moment("three nodes are there")
    log.note(status)
    tunnel = desk.start(["env", "-C", "/tmp/up", "ray", "dashboard", "ray_cluster.yaml"], log="tunnel")
    try:
        _wait_for_port(desk, tunnel)
        log.moment("n4 $ ray dashboard ray_cluster.yaml &\nthe dashboard is at n4's port 8265")
        job = submit(desk, sweep, dashboard="127.0.0.1")
        code = job.wait(timeout=600)
        log.moment(f"n4 $ roadtest submit {sweep.name} --db postgresql+psycopg://roadtest@… --wait")
        log.note((desk.folder / "submit.log").read_text())
        log.note(f"exit code {code}")
        if code:
            raise RuntimeError("the job failed")
    finally:
        end(tunnel)
    log.run(desk, ["ray", "down", "-y", "ray_cluster.yaml"], timeout=UP_SECONDS)
    # Ray 2.60 stops the head alone; the others end when they have not heard of it for a while.
    until = time.monotonic() + ORPHAN_SECONDS
    for node in lab.nodes[:3]:
        while node.run(["pgrep", "-c", "raylet|gcs_server"]).stdout.strip() != "0":
            if time.monotonic() > until:
                raise RuntimeError(f"Ray still runs on {node.name} after `ray down`")
            time.sleep(0.5)
        log.moment(f"no process of Ray is left on {node.name}")


def _nodes(status: str) -> int:
    active = status.partition("Active:")[2].partition("Pending:")[0]
    return sum(int(n) for n in re.findall(r"^ (\d+) ", active, re.MULTILINE))


def _wait_for_port(desk: Node, tunnel: subprocess.Popen[bytes]) -> None:
    connect = f"import socket; socket.create_connection(('127.0.0.1', {DASHBOARD_PORT}), 2)"
    until = time.monotonic() + 60
    while desk.run([sys.executable, "-c", connect]).returncode:
        if time.monotonic() > until or tunnel.poll() is not None:
            raise RuntimeError((desk.folder / "tunnel.log").read_text())
        time.sleep(0.5)


if __name__ == "__main__":
    main()
