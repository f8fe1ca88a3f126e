"""How is a worker kept to its memory? By a limit on its private data, so that a leak is an error and not a crash."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def limit_memory(n_bytes: int) -> None:
    """Let this process allocate so many bytes more than it has now; beyond them allocations fail with MemoryError.

    Counted is private writable data (RLIMIT_DATA, Linux 4.7 and later), not files that are mapped. Elsewhere nothing
    happens: Ray's own watch over the node's memory remains.
    """
    if sys.platform != "linux":
        return
    wanted = _data_bytes() + n_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _data_bytes() -> int:
    """Private writable data of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    return 0
