"""How is a sweep run from file to exit code? Load, plan, enlist, then let a coordinator work."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

from orchestrator import environment
from orchestrator.catalog import load_benchmarks, load_encoders
from orchestrator.cluster import Connection
from orchestrator.coordinator import Coordinator, Progress
from orchestrator.enlist import enlist
from orchestrator.executors.base import Executor
from orchestrator.plan import Plan, plan_sweep
from orchestrator.queue import exit_code
from orchestrator.shards import Pace
from orchestrator.store import Store, claims, registry
from orchestrator.sweep import Sweep

log = logging.getLogger("roadtest.run")

ExecutorName = Literal["ray", "local"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """How a run ended."""

    sweep: str
    #: Units of the sweep by (kind, state).
    counts: Mapping[tuple[str, str], int]
    #: Whether someone asked for the end.
    stopped: bool

    def number(self, *states: str) -> int:
        """Units in any of these states."""
        return sum(n for (_, state), n in self.counts.items() if state in states)

    @property
    def interrupted(self) -> bool:
        """Whether something is left because someone asked for the end."""
        return self.exit_code == 3

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some units failed, were quarantined or wait for one that did, 3 interrupted."""
        return exit_code(self.counts, stopped=self.stopped)


def load_plan(sweep: Sweep, *, home: Path) -> Plan:
    """Read everything a sweep names and resolve it into units.

    Raises:
        OrchestratorError, WorkersError: With what is wrong in the sweep, the files or the packages.
    """
    return plan_sweep(sweep, load_benchmarks(sweep, home=home, beside=sweep.folder), load_encoders(sweep.encoders))


def artifacts_url(home: Path) -> str:
    """Where embeddings live: ROADTEST_ARTIFACTS, any fsspec URL, else a folder of the home."""
    return os.environ.get("ROADTEST_ARTIFACTS") or str(home.resolve() / "artifacts")


def run_plan(
    store: Store,
    plan: Plan,
    *,
    executor: ExecutorName = "ray",
    workers: int | None = None,
    address: str | None = None,
    connection: Connection | None = None,
    progress: Progress | None = None,
    pace: Pace | None = None,
    takeover: bool = False,
) -> RunSummary:
    """Work a plan off; running it again goes on where it ended.

    Args:
        store: Database.
        plan: As `load_plan` gave it.
        executor: `ray`, or `local` for threads of this process.
        workers: Default: the machine's or the cluster's CPUs.
        address: Of a Ray cluster; default a local Ray.
        connection: To Ray, begun beforehand: its owner closes it, and waits for it.
        progress: Told how far the run is.
        pace: Leases and sizes of shards.
        takeover: End other coordinators of this sweep, alive or not, instead of sharing the work with them.

    Raises:
        RunError: The environment failed in mid-run (exit 4).
    """
    store.running = True  # from here on rows are written
    sweep_id = enlist(store, plan)
    facts = environment.facts()
    environment_id = store.transact(lambda session: registry.put_environment(session, facts))
    with ExitStack() as stack:
        if executor == "local" or not store.query(lambda session: claims.anything_open(session, sweep_id)):
            connection = None
        elif connection is None:
            connection = Connection(address, workers=workers)
            stack.callback(connection.join)
            stack.callback(connection.close)
        running = _make_executor(connection, plan.sweep, workers)
        stack.callback(running.close)
        coordinator = Coordinator(
            store=store,
            plan=plan,
            sweep_id=sweep_id,
            executor=running,
            artifacts=artifacts_url(store.home),
            environment_id=environment_id,
            progress=progress,
            pace=pace or Pace(),
            takeover=takeover,
        )
        log.info(
            "sweep %s: coordinator %s, %d workers (%s)", plan.sweep.name, coordinator.id, running.workers, executor
        )
        with _stops(coordinator):
            counts = coordinator.run()
    return RunSummary(sweep=plan.sweep.name, counts=counts, stopped=coordinator.stopped)


def _make_executor(connection: Connection | None, sweep: Sweep, workers: int | None) -> Executor:
    if connection is None:
        from orchestrator.executors.local import LocalExecutor

        return LocalExecutor(workers or os.cpu_count() or 1)
    from orchestrator.executors.ray import RayExecutor

    return RayExecutor(connection, workers=workers, resources=sweep.resources)


@contextmanager
def _stops(coordinator: Coordinator) -> Iterator[None]:
    """SIGINT and SIGTERM end the run gracefully; a second one at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ask(signum: int, _frame: FrameType | None) -> None:
        if coordinator.stopped:
            raise KeyboardInterrupt
        log.warning("%s: handing back what is not done", signal.Signals(signum).name)
        coordinator.stop()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
