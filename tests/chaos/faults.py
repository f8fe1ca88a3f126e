"""What goes wrong? One function per kind of fault; each hits something of ours or says that there is nothing to hit."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil

from tests.chaos import processes
from tests.chaos.coordinator import LEASE
from tests.chaos.harness import FAKETIME, Chaos, Child, Fault, Place, Strike

#: What may end a coordinator that is asked to: it hands back and says 3.
_ASKED = 3
_FAILED = 4


def _pick(chaos: Chaos, rng: random.Random) -> Child | None:
    up = chaos.registered()
    return rng.choice(up) if up else None


def _has_registered(chaos: Chaos, child: Child) -> Callable[[], bool]:
    """Whether a coordinator works, or is gone."""
    return lambda: child in chaos.registered() or child.process.poll() is not None


# -- workers -----------------------------------------------------------------------------------------------------------


def worker_killed(chaos: Chaos, rng: random.Random) -> str | None:
    workers = processes.ray_workers()
    if not workers or not processes.send(victim := rng.choice(workers), signal.SIGKILL):
        return None
    return f"SIGKILL to worker {victim.pid}"


def worker_frozen(chaos: Chaos, rng: random.Random) -> str | None:
    workers = processes.ray_workers()
    if not workers or not processes.send(victim := rng.choice(workers), signal.SIGSTOP):
        return None
    seconds = rng.uniform(1, 4)
    chaos.later(seconds, lambda: processes.send(victim, signal.SIGCONT))
    return f"worker {victim.pid} stopped for {seconds:.1f} s"


# -- coordinators ------------------------------------------------------------------------------------------------------


def coordinator_killed(chaos: Chaos, rng: random.Random) -> str | None:
    child = _pick(chaos, rng)
    if child is None:
        return None
    child.excused.add(-signal.SIGKILL)
    child.process.kill()
    return f"SIGKILL to coordinator {child.number}"


def coordinator_terminated(chaos: Chaos, rng: random.Random) -> str | None:
    child = _pick(chaos, rng)
    if child is None:
        return None
    child.excused.add(_ASKED)
    child.process.terminate()
    return f"SIGTERM to coordinator {child.number}"


def coordinator_interrupted(chaos: Chaos, rng: random.Random) -> str | None:
    child = _pick(chaos, rng)
    if child is None:
        return None
    child.excused.add(_ASKED)
    os.killpg(child.process.pid, signal.SIGINT)  # as a terminal does: the workers of its Ray may get it too
    return f"Ctrl-C to coordinator {child.number} and its process group"


def coordinator_frozen(chaos: Chaos, rng: random.Random) -> str | None:
    """Stopped until its lease has run out and another coordinator has worked for a while; then it comes back."""
    child = _pick(chaos, rng)
    if child is None:
        return None
    child.process.send_signal(signal.SIGSTOP)
    child.frozen = True
    began = time.monotonic()
    seen: list[float] = []

    def others_worked() -> bool:
        if chaos.registered() and not seen:
            seen.append(time.monotonic())
        late = time.monotonic() - began > 60
        return late or bool(seen and time.monotonic() - max(seen[0], began + LEASE) > LEASE)

    def thaw() -> None:
        child.frozen = False
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGCONT)

    chaos.later(others_worked, thaw)
    return f"coordinator {child.number} stopped for longer than its lease"


def second_coordinator(chaos: Chaos, rng: random.Random) -> tuple[str, Callable[[], bool]] | None:
    up = chaos.registered()
    if len(chaos.children) > 2:
        return None
    if len(chaos.children) == 2:
        if not up:
            return None
        up[0].excused |= {_ASKED, -signal.SIGTERM}
        up[0].process.terminate()
    child = chaos.start()
    return f"coordinator {child.number} beside", _has_registered(chaos, child)


def takeover(chaos: Chaos, rng: random.Random) -> tuple[str, Callable[[], bool]] | None:
    if len(chaos.children) > 2:
        return None
    for other in chaos.children:
        other.excused.add(_FAILED)
    child = chaos.start("--takeover")
    return f"coordinator {child.number} takes over", _has_registered(chaos, child)


def clock_ahead(chaos: Chaos, rng: random.Random) -> str | None:
    return _jump(chaos, rng, "+3600")


def clock_behind(chaos: Chaos, rng: random.Random) -> str | None:
    return _jump(chaos, rng, "-3600")


def _jump(chaos: Chaos, rng: random.Random, offset: str) -> str | None:
    child = _pick(chaos, rng)
    if child is None:
        return None
    child.clock.write_text(f"{offset}\n")
    seconds = rng.uniform(4, 10)
    chaos.later(seconds, lambda: child.clock.write_text("+0\n"))
    return f"clock of coordinator {child.number} at {offset} s for {seconds:.0f} s"


# -- nodes -------------------------------------------------------------------------------------------------------------


def raylet_killed(chaos: Chaos, rng: random.Random) -> str | None:
    """Without a cluster the whole Ray of a coordinator is gone: the run ends, resumable."""
    child = _pick(chaos, rng)
    found = processes.raylets(child.process.pid) if child is not None and child.place == "local" else []
    if child is None or not found or not processes.send(found[0], signal.SIGKILL):
        return None
    child.excused |= {_FAILED, 1}  # 1 is Ray's own end of the process, if it notices before the executor does
    return f"SIGKILL to the raylet of coordinator {child.number}"


def node_killed(chaos: Chaos, rng: random.Random) -> str | None:
    if chaos.cluster is None or not chaos.cluster.nodes:
        return None
    node, stack = chaos.cluster.nodes.pop(rng.randrange(len(chaos.cluster.nodes)))
    for raylet in processes.raylets(node.process.pid):
        processes.send(raylet, signal.SIGKILL)
    chaos.later(5.0, stack.close)
    chaos.cluster.join_soon()
    return "SIGKILL to the raylet of a node, another node joins"


def node_removed(chaos: Chaos, rng: random.Random) -> str | None:
    if chaos.cluster is None or not chaos.cluster.nodes:
        return None
    node, stack = chaos.cluster.nodes.pop(rng.randrange(len(chaos.cluster.nodes)))
    processes.send(psutil.Process(node.process.pid), signal.SIGTERM)
    chaos.later(10.0, stack.close)
    chaos.cluster.join_soon()
    return "a node leaves in order, another one joins"


# -- database ----------------------------------------------------------------------------------------------------------


def database_restarted(chaos: Chaos, rng: random.Random) -> str | None:
    assert chaos.server is not None
    if not chaos.rows("SELECT 1"):
        return None
    chaos.server.stop()
    chaos.server.start()
    return "PostgreSQL restarted at once"


def database_away(chaos: Chaos, rng: random.Random) -> str | None:
    assert chaos.server is not None
    if not chaos.rows("SELECT 1"):
        return None
    seconds = rng.uniform(2, 5)
    chaos.server.stop()
    chaos.later(seconds, chaos.server.start)
    return f"PostgreSQL away for {seconds:.1f} s"


def database_locked(chaos: Chaos, rng: random.Random) -> str | None:
    """Someone else holds SQLite's write lock."""
    connection = sqlite3.connect(chaos.folder / "roadtest.db", timeout=0.2, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        connection.close()
        return None
    seconds = rng.uniform(2, 5)
    chaos.later(seconds, connection.close)
    return f"SQLite's write lock held for {seconds:.1f} s"


# -- artefacts ---------------------------------------------------------------------------------------------------------


def _damage(chaos: Chaos, rng: random.Random, harm: Callable[[Path], object], how: str) -> str | None:
    """Harm a slice and kill a worker, so that its successor must read the slice again."""
    slices = sorted((chaos.folder / ".roadtest" / "artifacts").rglob("*.npy"))
    workers = processes.ray_workers()
    if not slices or not workers:
        return None
    harm(path := rng.choice(slices))
    processes.send(rng.choice(workers), signal.SIGKILL)
    return f"slice {path.stem} {how}, and SIGKILL to a worker that has read it"


def artefact_truncated(chaos: Chaos, rng: random.Random) -> str | None:
    return _damage(chaos, rng, lambda path: path.write_bytes(path.read_bytes()[: rng.randrange(5000)]), "truncated")


def artefact_flipped(chaos: Chaos, rng: random.Random) -> str | None:
    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes() or b"\0")  # it may have been truncated before
        for _ in range(8):
            content[rng.randrange(len(content) // 2, len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    return _damage(chaos, rng, flip, "with flipped bits")


def artefact_deleted(chaos: Chaos, rng: random.Random) -> str | None:
    return _damage(chaos, rng, lambda path: path.unlink(missing_ok=True), "deleted")


def manifest_deleted(chaos: Chaos, rng: random.Random) -> str | None:
    return _damage(chaos, rng, lambda path: path.with_suffix(".json").unlink(missing_ok=True), "without its manifest")


_ANYWHERE: tuple[Strike, ...] = (
    worker_killed, worker_frozen, coordinator_killed, coordinator_terminated, coordinator_interrupted,
    coordinator_frozen, second_coordinator, takeover, clock_ahead, clock_behind, artefact_truncated, artefact_flipped,
    artefact_deleted, manifest_deleted,
)  # fmt: skip
_AT: dict[str, tuple[Strike, ...]] = {
    "local": (raylet_killed,),
    "cluster": (node_killed, node_removed),
    "sqlite": (database_locked,),
    "postgresql": (database_restarted, database_away),
}


def _name(strike: Strike) -> str:
    return strike.__name__.replace("_", " ")


#: Every kind of fault by its name.
STRIKES: dict[str, Strike] = {
    _name(strike): strike for strike in (*_ANYWHERE, *(strike for kinds in _AT.values() for strike in kinds))
}


def draw(n: int, rng: random.Random, *, database: str, places: Iterable[Place], without: Iterable[str]) -> list[Fault]:
    """A schedule: every kind as often as every other one, at random shares of progress, place after place."""
    shares = sorted(rng.uniform(0.02, 0.8) for _ in range(n))
    places = list(places)
    faults: list[Fault] = []
    for i, place in enumerate(places):
        end = n * (i + 1) // len(places)
        kinds = [_name(strike) for strike in (*_ANYWHERE, *_AT[place], *_AT[database])]
        kinds = [kind for kind in kinds if kind not in set(without)]
        while len(faults) < end:
            deck = rng.sample(kinds, len(kinds))[: end - len(faults)]
            faults += [Fault(kind=kind, place=place, share=shares[len(faults) + j]) for j, kind in enumerate(deck)]
    return faults


def impossible() -> list[str]:
    """Kinds of fault that this machine lacks something for."""
    return [] if FAKETIME.exists() else [_name(clock_ahead), _name(clock_behind)]
