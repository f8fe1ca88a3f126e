"""What is a shard, what does a worker do with it, and what must an executor offer?"""

from __future__ import annotations

import os
import socket
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt

from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark
from workers.embed import load_embedding, run_embed
from workers.encoders.base import Input
from workers.errors import ArtifactError
from workers.units import EmbedResult, EmbedUnit, EvaluateResult, EvaluateUnit, UnitFailure

#: Identity of this worker process, minted here and never taken from the host.
WORKER_ID = str(uuid.uuid4())


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluateContext:
    """What evaluate units of one benchmark and embedding share."""

    #: Tells contexts apart in a worker's cache.
    name: str
    benchmark: Benchmark
    #: (name, sha256) of the embedding's slices; empty for routers that need none.
    slices: tuple[tuple[str, str], ...] = ()
    #: Row of the embedding of each query. [n_queries]
    rows: npt.NDArray[np.int64] | None = None
    artifacts: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbedContext:
    """What the slices of one embedding share."""

    inputs: tuple[Input, ...]
    artifacts: str


Context = EvaluateContext | EmbedContext


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Units that one worker does in one go; all share a context."""

    id: int
    #: Name of the context, as given to `Executor.share`.
    context: str
    units: tuple[EvaluateUnit, ...] | tuple[EmbedUnit, ...]

    @property
    def kind(self) -> str:
        """`embed` or `evaluate`."""
        return "embed" if isinstance(self.units[0], EmbedUnit) else "evaluate"


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What came back of a shard."""

    shard: int
    results: tuple[EvaluateResult | EmbedResult | UnitFailure, ...] = ()
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    #: Seconds since 1970 by the worker's clock.
    started_at: float | None = None
    #: The worker died; nothing is known of the units.
    died: str | None = None
    #: The machine failed (full disk, forbidden folder): the run must stop, resumable.
    environment_error: str | None = None


class Executor(Protocol):
    """Runs shards somewhere."""

    #: Workers that compute at the same time.
    workers: int

    def share(self, name: str, context: Context) -> None:
        """Make a context known under a name before shards refer to it."""

    def forget(self, name: str) -> None:
        """No further shard refers to this context."""

    def submit(self, shard: Shard) -> None:
        """Start a shard; returns at once."""

    def wait(self, timeout: float) -> list[ShardReport]:
        """Reports that arrived, after at most `timeout` seconds."""

    def close(self) -> None:
        """Stop every worker that this executor started."""


class _EmbeddingCache:
    """The last few embeddings of this process, so that shards of one benchmark load it once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[tuple[object, ...], npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def get(self, context: EvaluateContext) -> npt.NDArray[np.float32] | None:
        if not context.slices or context.rows is None:
            return None
        key = (context.name, context.slices)
        with self._lock:
            found = self._held.get(key)
            if found is None:
                found = load_embedding(ArtifactStore(context.artifacts), context.slices)[context.rows]
                found.flags.writeable = False
                self._held[key] = found
            self._held.move_to_end(key)
            while len(self._held) > self._size:
                self._held.popitem(last=False)
            return found


_EMBEDDINGS = _EmbeddingCache(size=2)


def execute(shard: Shard, context: Context) -> ShardReport:
    """Do a shard's units, in a worker; whatever goes wrong with a unit comes back as data."""
    started = time.time()
    error = None
    results: Sequence[EvaluateResult | EmbedResult | UnitFailure] = ()
    try:
        results = _compute(shard, context)
    except OSError as problem:
        error = f"{problem.strerror or problem}: {problem.filename}" if problem.filename else str(problem)
    except Exception as problem:
        message, trace = str(problem) or type(problem).__name__, traceback.format_exc()
        results = [
            UnitFailure(key=unit.key, kind="exception", message=message, traceback=trace) for unit in shard.units
        ]
    return ShardReport(
        shard=shard.id,
        results=tuple(results),
        worker=WORKER_ID,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=started,
        environment_error=error,
    )


def _compute(shard: Shard, context: Context) -> Sequence[EvaluateResult | EmbedResult | UnitFailure]:
    if isinstance(context, EmbedContext):
        store = ArtifactStore(context.artifacts)
        return [
            run_embed(unit, context.inputs[unit.start : unit.stop], store)
            for unit in shard.units
            if isinstance(unit, EmbedUnit)
        ]
    from workers.evaluate import run_evaluate

    units = [unit for unit in shard.units if isinstance(unit, EvaluateUnit)]
    try:
        embedding = _EMBEDDINGS.get(context)
    except ArtifactError as error:
        trace = traceback.format_exc()
        return [UnitFailure(key=unit.key, kind="artifact", message=str(error), traceback=trace) for unit in units]
    return list(run_evaluate(units, context.benchmark, embedding))
