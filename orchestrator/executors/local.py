"""Threads of this process: no Ray, nothing to start; a death is the coordinator's own, memory is not limited."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from threadpoolctl import threadpool_limits

from orchestrator.executors.base import Context, Shard, ShardReport, execute


class LocalExecutor:
    """Runs shards in `workers` threads; numpy and torch let go of the interpreter while they compute."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        # Limits are the whole process's: set once, or a thread that ends would lift them under another's feet.
        self._limits = threadpool_limits(limits=1)
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="roadtest-worker")
        self._contexts: dict[str, Context] = {}
        self._pending: set[Future[ShardReport]] = set()

    @property
    def workers(self) -> int:
        """Threads."""
        return self._workers

    def share(self, name: str, context: Context) -> None:
        """Keep the context under its name."""
        self._contexts[name] = context

    def forget(self, name: str) -> None:
        """Let the context go."""
        self._contexts.pop(name, None)

    def submit(self, shard: Shard) -> None:
        """Queue the shard for the next free thread."""
        self._pending.add(self._pool.submit(execute, shard, self._contexts[shard.context]))

    def wait(self, timeout: float) -> list[ShardReport]:
        """Reports of the shards that ended."""
        done, self._pending = wait_for(self._pending, timeout=timeout, return_when=FIRST_COMPLETED)
        return [future.result() for future in done]

    def rest(self) -> None:
        """Idle threads hold nothing."""

    def close(self) -> None:
        """Drop what has not begun; threads cannot be ended, so what has begun ends by itself and nobody takes it."""
        idle = not any(future.running() for future in self._pending)
        self._pool.shutdown(wait=idle, cancel_futures=True)
        self._limits.restore_original_limits()
