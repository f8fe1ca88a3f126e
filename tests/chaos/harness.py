"""How does a sweep run under chaos? Coordinators are started whenever none works; progress waits for the faults.

The brake is a coordinator too: it claims units that the sweep shall not reach before the next faults have landed, and
hands them back block by block. So all faults land before the sweep's last unit, however slow they are.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from orchestrator.errors import OrchestratorError
from orchestrator.store import Session, Store, claims, open_store
from tests.chaos import processes
from tests.chaos.content import ROOT, Content
from tests.cluster.head import Node, joined, ray_head
from tests.postgres import PostgresServer
from tests.runs import environment

Place = Literal["local", "cluster"]

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
#: Seconds without a new result after which the sweep counts as hung.
STALLED = 150.0
#: Units of a block that the brake holds, and unfinished ones that it leaves to the coordinators.
BLOCK, FREE = 4, 6
#: Raylets that fall silent are given up after seconds instead of a quarter of a minute.
_IMPATIENT = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}


class ChaosError(Exception):
    """The sweep did not survive."""


@dataclass(eq=False)
class Child:
    """A coordinator that the harness started."""

    number: int
    process: subprocess.Popen[bytes]
    place: Place
    #: File that libfaketime reads this coordinator's clock offset from.
    clock: Path
    log: Path
    #: Exit codes that what was done to it explains.
    excused: set[int] = field(default_factory=set)
    frozen: bool = False


@dataclass(eq=False)
class Landed:
    """A fault that was injected."""

    number: int
    kind: str
    what: str
    place: Place
    #: Share of the sweep's units that were finished.
    share: float
    at: float
    #: Results committed before.
    done: int
    #: When the fault has its effect, for those that need a process to start first.
    armed: Callable[[], bool]
    #: Seconds until the next result was committed.
    recovery: float | None = None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault to come."""

    kind: str
    place: Place
    #: Share of the sweep's units that are finished before it may land.
    share: float


#: Injects a fault; returns what was hit, or None when there is nothing to hit now, and when it has its effect.
Strike = Callable[["Chaos", random.Random], "tuple[str, Callable[[], bool]] | str | None"]


class Chaos:
    """One sweep, its coordinators, and what is done to them."""

    def __init__(
        self, folder: Path, content: Content, url: str, server: PostgresServer | None, say: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self.content = content
        self.url = url
        self.server = server
        self.say = say
        self.place: Place = "local"
        self.children: list[Child] = []
        self.landed: list[Landed] = []
        self.problems: list[str] = []
        self.holders: dict[int, str] = {}
        self._every_holder: set[str] = set()
        #: Blocks from the front that the coordinators may work on.
        self._free_blocks = math.ceil(FREE / BLOCK)
        self.total = 0
        self.done = 0
        self.finished = 0
        self._stack = ExitStack()
        self.cluster: Cluster | None = None
        self._later: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self._brake_checked = 0.0
        #: Whether the fault that is due found nothing to hit.
        self._missed = False
        self._store: Store | None = None
        self.sweep = folder / "sweep.yaml"
        self.sweep.write_text(yaml.safe_dump(dict(content.sweep)))
        (folder / "trap").touch()
        # Short: Ray's sockets lie below it.
        self.ray = folder / "ray"
        self.variables = {
            "PYTHONPATH": f"{content.plugin}{os.pathsep}{ROOT}",
            "FRAGILE_TRAP": str(folder / "trap"),
        }

    # -- the loop ------------------------------------------------------------------------------------------------------

    def run(self, faults: list[Fault], strikes: Mapping[str, Strike], rng: random.Random) -> None:
        """Land every fault, then let the sweep end.

        Raises:
            ChaosError: It hung, or a coordinator ended as it should not have.
        """
        self.start()
        waiting = list(faults)
        moved = time.monotonic()
        while True:
            self._tend()
            if self._look():
                moved = time.monotonic()
            if time.monotonic() - moved > STALLED:
                self._show_stacks()
                raise ChaosError(f"no result was committed for {STALLED:.0f} s: {self._states()}")
            self._recovered()
            self._brake(waiting[0] if waiting else None)
            if waiting and self._is_due(waiting[0]):
                self._move_to(waiting[0].place)
                self._missed = not self._strike(waiting[0], strikes[waiting[0].kind], rng)
                if not self._missed:
                    del waiting[0]
            if not waiting and self._is_over():
                return
            time.sleep(0.05)

    def _is_due(self, fault: Fault) -> bool:
        return self._settled and self.total > 0 and self.finished >= fault.share * self.total

    @property
    def _settled(self) -> bool:
        """Whether a result was committed since the last fault, if there are any left."""
        return not self.landed or self.landed[-1].recovery is not None or self.finished == self.total

    def _strike(self, fault: Fault, strike: Strike, rng: random.Random) -> bool:
        at, done = time.monotonic(), self.done
        hit = strike(self, rng)
        if hit is None:
            return False
        what, armed = hit if isinstance(hit, tuple) else (hit, lambda: True)
        share = self.finished / self.total
        number = len(self.landed) + 1
        self.landed.append(Landed(number, fault.kind, what, fault.place, share, at, done, armed))
        self.say(f"fault {number:3d} at {share:6.1%}: {fault.kind}: {what}")
        return True

    def _recovered(self) -> None:
        if not self.landed or self.landed[-1].recovery is not None:
            return
        last = self.landed[-1]
        if not last.armed():
            last.at, last.done = time.monotonic(), self.done
        elif self.done > last.done:
            last.recovery = time.monotonic() - last.at

    def _is_over(self) -> bool:
        """Whether every unit is where it stays and no coordinator runs any more."""
        return self._settled and self.finished == self.total and not self.children and not self._later

    def _look(self) -> bool:
        """Read how far the sweep is; returns whether it got further."""
        rows = self.rows(
            """SELECT (SELECT count(*) FROM unit) AS total,
                      (SELECT count(*) FROM unit
                       WHERE state IN ('done', 'failed', 'quarantined', 'skipped')) AS finished,
                      (SELECT count(*) FROM attempt WHERE outcome = 'done') AS done,
                      (SELECT plan_digest FROM sweep) AS planned"""
        )
        if not rows or (rows[0]["planned"] or "~").startswith("~"):  # `~`: its units are being written
            return False
        self.total, self.finished = rows[0]["total"], rows[0]["finished"]
        before, self.done = self.done, rows[0]["done"]
        return self.done > before

    # -- coordinators --------------------------------------------------------------------------------------------------

    def start(self, *options: str) -> Child:
        """Start a coordinator."""
        number = len(list(self.folder.glob("coordinator-*.txt"))) + 1
        clock, log = self.folder / f"clock-{number}", self.folder / f"coordinator-{number}.txt"
        clock.write_text("+0\n")
        variables = dict(self.variables)
        if self.server is not None:
            variables["ROADTEST_DB"] = self.url
        if FAKETIME.exists():
            variables |= {
                "LD_PRELOAD": str(FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "NO_FAKE_STAT": "1",
            }
        arguments = ["run", self.sweep.name, "--no-report", "--workers", "2", *options]
        if self.place == "cluster":
            assert self.cluster is not None
            arguments += ["--address", self.cluster.head.address]
        else:
            self.ray.mkdir(exist_ok=True)
            variables["RAY_TMPDIR"] = str(self.ray)
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.coordinator", *arguments],
                cwd=self.folder, env=environment(**variables), stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        child = Child(number=number, process=process, place=self.place, clock=clock, log=log)
        self.children.append(child)
        return child

    def registered(self) -> list[Child]:
        """Coordinators that run and have written themselves down, so that signals meet their handlers."""
        pids = {row["pid"] for row in self.rows("SELECT pid FROM coordinator WHERE ended_at IS NULL")}
        return [child for child in self.children if child.process.pid in pids and not child.frozen]

    def later(self, due: Callable[[], bool] | float, action: Callable[[], object]) -> None:
        """Do something when a condition holds or so many seconds have passed."""
        if not callable(due):
            until = time.monotonic() + due
            self._later.append((lambda: time.monotonic() >= until, action))
        else:
            self._later.append((due, action))

    def _tend(self) -> None:
        """Undo what is to be undone, look at coordinators that ended, start one if none works."""
        for item in [item for item in self._later if item[0]()]:
            self._later.remove(item)
            item[1]()
        for child in [child for child in self.children if child.process.poll() is not None]:
            self.children.remove(child)
            self._judge(child)
        processes.bury_orphans({child.process.pid for child in self.children})
        over = self.total > 0 and self.finished == self.total and not self.holders
        if not over and not any(not child.frozen for child in self.children):
            self.start()

    def _judge(self, child: Child) -> None:
        code, said = child.process.returncode, child.log.read_text(errors="replace")
        # With poison in it a sweep ends with 1, once nothing is held back any more.
        expected = child.excused | ({1} if not self.holders and self.total else set())
        if code not in expected:
            self.problems.append(f"coordinator {child.number} ended with {code} instead of {expected or 'none'}")
            self.say(f"PROBLEM {self.problems[-1]}\n{said[-2000:]}")
        elif "Traceback (most recent call last)" in said or "defect of roadtest" in said:
            self.problems.append(f"coordinator {child.number} ended with a traceback")
            self.say(f"PROBLEM {self.problems[-1]}\n{said[-4000:]}")

    def _move_to(self, place: Place) -> None:
        """Let the sweep go on with another Ray."""
        if place == self.place:
            return
        self.place = place
        self.cluster = self._stack.enter_context(Cluster.started(self.variables, self.problems))
        self.say("coordinators join a cluster of three nodes from here on")
        for child in list(self.children):
            child.excused |= {3, -signal.SIGTERM}
            child.process.send_signal(signal.SIGTERM)
            if child.frozen:
                child.process.send_signal(signal.SIGCONT)
        for child in self.children:
            child.process.wait(timeout=120)

    # -- the brake -----------------------------------------------------------------------------------------------------

    def _brake(self, following: Fault | None) -> None:
        """Hold the units that are not to be reached yet; without a fault to come, hand all of them back."""
        if not self.total or time.monotonic() - self._brake_checked < 0.3:
            return
        self._brake_checked = time.monotonic()
        n_blocks = math.ceil(self.total / BLOCK)
        if following is None and self._settled:
            self._free_blocks = n_blocks
        with suppress(OrchestratorError), self._database() as store:
            ended = {row["id"] for row in self.rows("SELECT id FROM coordinator WHERE ended_at IS NOT NULL")}
            for block, holder in sorted(self.holders.items()):
                if holder in ended:  # by a takeover
                    del self.holders[block]
                elif block < self._free_blocks:
                    store.transact(lambda session, holder=holder: _let_go(session, holder))  # type: ignore[misc]
                    del self.holders[block]
            loose = self.rows(
                f"""SELECT su.position FROM sweep_unit su JOIN unit u ON u.id = su.unit_id
                    WHERE su.position >= {self._free_blocks * BLOCK}
                      AND (u.state = 'ready' OR (u.state = 'running' AND u.lease_expires < 1))
                      AND (u.embedding IS NULL OR NOT EXISTS (
                           SELECT 1 FROM unit e WHERE e.kind = 'embed' AND e.state <> 'done'))"""
            )
            # From the end, so that a block's claim does not reach into the next one.
            for block in sorted({row["position"] // BLOCK for row in loose}, reverse=True):
                store.transact(lambda session, block=block: self._hold(session, block))  # type: ignore[misc]
            left = self.rows(
                f"""SELECT count(*) AS n FROM unit WHERE state IN ('ready', 'invalidated')
                    OR (state = 'running' AND coordinator_id NOT IN ({self.brake_ids}))"""
            )
            if left and left[0]["n"] < FREE and self._wants_progress(following):
                self._free_blocks += 1

    def _wants_progress(self, following: Fault | None) -> bool:
        """Whether a fault waits for the sweep to get on, the last one to be over or the next one to come."""
        if not self._settled:
            return self.landed[-1].armed()
        return following is None or self._missed or self.finished < following.share * self.total

    @property
    def brake_ids(self) -> str:
        """The coordinators that are only the brake, for SQL's IN."""
        return ", ".join(f"'{holder}'" for holder in sorted(self._every_holder)) or "''"

    def _hold(self, session: Session, block: int) -> None:
        holder = self.holders.get(block)
        sweep_id = session.one("SELECT id FROM sweep")
        if holder is None:
            holder = str(uuid.uuid4())
            claims.register(session, holder, sweep_id, socket.gethostname())
        # For longer than any clock will jump.
        claims.claim(session, sweep_id, holder, limit=BLOCK, lease=1e6, after=block * BLOCK)
        self.holders[block] = holder
        self._every_holder.add(holder)

    # -- the database --------------------------------------------------------------------------------------------------

    @contextmanager
    def _database(self) -> Iterator[Store]:
        if self._store is None:
            if self.server is None and not (self.folder / "roadtest.db").exists():
                raise OrchestratorError("there is no database yet")
            self._store = open_store(self.url)
            self._store.reconnect_seconds = 0.0
            if self.server is None:
                # Whoever holds the lock may be one that this very process froze.
                with self._store.read() as session:
                    session.run("PRAGMA busy_timeout=500")
        yield self._store

    def rows(self, sql: str) -> list[Mapping[str, Any]]:
        """Rows of the sweep's database; none while it is not there."""
        try:
            with self._database() as store:
                return store.query(lambda session: session.rows(sql))
        except OrchestratorError:
            return []

    def _states(self) -> str:
        rows = self.rows("SELECT kind, state, count(*) AS n FROM unit GROUP BY kind, state")
        return ", ".join(f"{row['n']} {row['kind']} {row['state']}" for row in rows)

    def _show_stacks(self) -> None:
        for child in self.children:
            with suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGUSR1)
        time.sleep(1)
        for child in self.children:
            self.say(f"coordinator {child.number}:\n{child.log.read_text(errors='replace')[-6000:]}")

    def close(self) -> None:
        """End every process that was started, and forget the database."""
        if self._store is not None:
            self._store.close()
        for child in self.children:
            for process in processes.descendants(child.process.pid):
                processes.send(process, signal.SIGKILL)
            child.process.kill()
            child.process.wait(timeout=30)
        self._stack.close()


def _let_go(session: Session, holder: str) -> None:
    claims.release(session, holder)
    claims.end(session, holder, 0)


@dataclass(eq=False)
class Cluster:
    """A head and other nodes of Ray that come and go."""

    head: Node
    variables: Mapping[str, str]
    problems: list[str]
    nodes: list[tuple[Node, ExitStack]] = field(default_factory=list)
    _next: int = 3
    _joining: list[threading.Thread] = field(default_factory=list)

    @classmethod
    @contextmanager
    def started(cls, variables: Mapping[str, str], problems: list[str]) -> Iterator[Cluster]:
        """A head and two more nodes."""
        with ray_head(with_command=False, **variables, **_IMPATIENT) as head:
            cluster = cls(head=head, variables=variables, problems=problems)
            try:
                cluster.join()
                cluster.join()
                yield cluster
            finally:
                for thread in cluster._joining:
                    thread.join(timeout=120)
                for _, stack in cluster.nodes:
                    stack.close()

    def join(self, tries: int = 2) -> None:
        """Add a node. Ray itself gives a node 30 s to be up, which on a busy machine may not do."""
        address = f"127.0.0.{self._next}"
        self._next += 1
        stack = ExitStack()
        try:
            node = stack.enter_context(joined(self.head, address, **self.variables))
        except (AssertionError, psutil.Error) as error:
            if tries > 1:
                self.join(tries - 1)
            else:
                self.problems.append(f"a node did not join: {error}")
            return
        self.nodes.append((node, stack))

    def join_soon(self) -> None:
        """Add a node meanwhile."""
        thread = threading.Thread(target=self.join, daemon=True)
        thread.start()
        self._joining.append(thread)
