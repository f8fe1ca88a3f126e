"""What runs as a coordinator under chaos? The `roadtest` command, at a faster pace and with a clock that can jump.

Leases are short, so that they do run out, and shards and batches are small, so that there is much to be lost.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import sys
import time
from functools import partial

#: Seconds until the claims of a coordinator that stopped beating run out.
LEASE = 3.0


def _sleep(seconds: float) -> None:
    """As `time.sleep`, by another system call.

    libfaketime 0.9.10 answers clock_nanosleep with EINVAL when it leaves the monotonic clock alone.
    """
    select.select([], [], [], max(0.0, seconds))


def main() -> None:
    """Be `roadtest`."""
    if os.environ.pop("LD_PRELOAD", None):  # it is in this process already, and no other one is to inherit it
        time.sleep = _sleep
    faulthandler.register(signal.SIGUSR1)

    import orchestrator.run
    from orchestrator.cli import main as roadtest
    from orchestrator.shards import Pace

    pace = partial(Pace, lease=LEASE, shard_seconds=0.5, shard_units=4, first_units=2, flush_seconds=0.25)
    orchestrator.run.Pace = pace  # type: ignore[misc, assignment]
    sys.argv[0] = "roadtest"
    roadtest()


if __name__ == "__main__":
    main()
