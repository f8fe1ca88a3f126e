"""How is Ray started or joined? A local Ray by default, a cluster by its address."""

from __future__ import annotations

import logging
import os

#: Bytes of Ray's object store on a laptop: contexts are a few MB each.
OBJECT_STORE_BYTES = 200_000_000


def connect(address: str | None, *, workers: int | None) -> bool:
    """Start a local Ray or join the cluster at `address`.

    Args:
        address: As `ray start` printed it, or None for a local Ray of our own.
        workers: CPUs of a local Ray; default those of the machine.

    Returns:
        Whether the Ray is our own, to be ended by `disconnect`.

    Raises:
        RunError: It cannot be started or reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    from orchestrator.errors import RunError

    if ray.is_initialized():
        return False
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        else:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except SystemExit:  # Ray's own answer to SIGTERM while it starts
        raise KeyboardInterrupt from None
    except Exception as error:
        where = f"the cluster at {address}" if address else "a local Ray"
        raise RunError(f"{where} cannot be used ({error}). `--executor local` runs without Ray.") from error
    return address is None


def disconnect(*, owned: bool) -> None:
    """Leave Ray; end it where it is our own."""
    import ray

    if owned:
        ray.shutdown()
