"""Which processes are ours? All that descend from this one: orphans come to it instead of to the first process."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Collection
from contextlib import suppress

import psutil

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, so that none is lost sight of."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def bury_orphans(known: Collection[int]) -> None:
    """Collect adopted processes that ended; `known` are those that someone waits for."""
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess, ChildProcessError):
            if child.pid not in known and child.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(child.pid, os.WNOHANG)


def descendants(pid: int | None = None) -> list[psutil.Process]:
    """Everything below a process, by default this one."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def ray_workers() -> list[psutil.Process]:
    """Ours that compute shards."""
    return [process for process in descendants() if _title(process).startswith("ray::_Worker")]


def raylets(pid: int) -> list[psutil.Process]:
    """Ray's own daemon of a node below a process."""
    return [process for process in descendants(pid) if _name(process) == "raylet"]


def send(process: psutil.Process, number: signal.Signals) -> bool:
    """Send a signal; returns whether there was still someone to get it."""
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True


def end_all() -> None:
    """Kill every descendant, those that appear meanwhile too."""
    for _ in range(10):
        found = descendants()
        if not found:
            return
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)
        bury_orphans(())


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def _name(process: psutil.Process) -> str:
    try:
        return str(process.name())
    except psutil.Error:
        return ""
