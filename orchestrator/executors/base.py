"""What is a shard, what does a worker do with it, and what must an executor offer?"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock, Thread
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark
from workers.embed import load_embedding, run_embed
from workers.encoders.base import Input
from workers.encoders.fitted import SplitEncoder
from workers.errors import ArtifactError
from workers.units import EmbedResult, EmbedUnit, EvaluateResult, EvaluateUnit, MeasureResult, MeasureUnit, UnitFailure

#: Identity of this worker process, minted here and never taken from the host.
WORKER_ID = str(uuid.uuid4())

#: Shards that a worker has at a time: one computes, one waits, so that it never idles.
IN_FLIGHT = 2

Unit = EvaluateUnit | EmbedUnit | MeasureUnit
UnitOutcome = EvaluateResult | EmbedResult | MeasureResult | UnitFailure


class Context(Protocol):
    """What the units of a shard share; travels to a worker once and computes there."""

    def compute(self, units: Sequence[Unit]) -> Sequence[UnitOutcome]:
        """A result or a failure for each unit, in their order.

        Raises:
            OSError: The machine failed: the run must stop.
        """


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
    #: What is fitted on each split's training side, on the embedding or on texts.
    encoder: SplitEncoder | None = None

    def embedding(self) -> npt.NDArray[np.float32] | None:
        """Rows of the benchmark's queries, None where there is no embedding. [n_queries, d].

        Raises:
            ArtifactError: A slice is missing or damaged.
        """
        return _EMBEDDINGS.get(self)

    def compute(self, units: Sequence[Unit]) -> Sequence[UnitOutcome]:
        """Evaluate them together; a shard of measures holds nothing else."""
        from workers.evaluate import run_evaluate

        try:
            embedding = self.embedding()
        except ArtifactError as error:
            trace = traceback.format_exc()
            return [UnitFailure(key=unit.key, kind="artifact", message=str(error), traceback=trace) for unit in units]
        measured = [unit for unit in units if isinstance(unit, MeasureUnit)]
        if measured:
            from workers.measures.base import run_measures

            return run_measures(measured, self.benchmark, embedding)
        evaluations = [unit for unit in units if isinstance(unit, EvaluateUnit)]
        return run_evaluate(evaluations, self.benchmark, embedding, self.encoder)


@dataclass(frozen=True, kw_only=True, eq=False)
class EmbedContext:
    """What the slices of one embedding share."""

    inputs: tuple[Input, ...]
    artifacts: str

    def compute(self, units: Sequence[Unit]) -> Sequence[UnitOutcome]:
        """Embed and write one slice after the other."""
        store = ArtifactStore(self.artifacts)
        return [
            run_embed(unit, self.inputs[unit.start : unit.stop], store) for unit in units if isinstance(unit, EmbedUnit)
        ]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Units that one worker does in one go; all share a context."""

    id: int
    #: `embed`, `evaluate` or `measure`.
    stage: str
    #: Name of the context, as given to `Executor.share`.
    context: str
    units: tuple[Unit, ...]
    #: Seconds after which it counts as hung.
    seconds: float
    #: Whether to give it twice the stage's memory.
    more_memory: bool = False


@dataclass(frozen=True, kw_only=True)
class Death:
    """Why nothing is known of a shard's units."""

    kind: Literal["worker_death", "node_loss", "out_of_memory", "timeout"]
    message: str
    #: Where the worker was, if that is known, else all that Ray says.
    traceback: str = ""


@dataclass(frozen=True, kw_only=True)
class ShardReport:
    """What came back of a shard."""

    shard: int
    results: tuple[UnitOutcome, ...] = ()
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    #: Seconds since 1970 by the worker's clock.
    started_at: float | None = None
    #: The worker died, hung or was lost.
    death: Death | None = None
    #: The machine failed (full disk, forbidden folder): the run must stop, resumable.
    environment_error: str | None = None


class Executor(Protocol):
    """Runs shards somewhere."""

    @property
    def workers(self) -> int:
        """Workers that compute at the same time; may change while a cluster grows or shrinks."""

    def share(self, name: str, context: Context) -> None:
        """Make a context known under a name before shards refer to it."""

    def forget(self, name: str) -> None:
        """No further shard refers to this context."""

    def submit(self, shard: Shard) -> None:
        """Start a shard; returns at once."""

    def wait(self, timeout: float) -> list[ShardReport]:
        """Reports that arrived, after at most `timeout` seconds."""

    def rest(self) -> None:
        """Nothing is to be done for a while: give back what others may want."""

    def close(self) -> None:
        """Stop every worker that this executor started."""


class _EmbeddingCache:
    """The last few embeddings of this process: tasks of one source share its rows, shards of one task its selection."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: OrderedDict[object, npt.NDArray[np.float32]] = OrderedDict()
        self._lock = Lock()

    def get(self, context: EvaluateContext) -> npt.NDArray[np.float32] | None:
        rows, slices = context.rows, context.slices
        if not slices or rows is None:
            return None
        with self._lock:
            return self._keep(
                (context.name, slices),
                lambda: self._keep(slices, lambda: load_embedding(ArtifactStore(context.artifacts), slices))[rows],
            )

    def _keep(self, key: object, load: Callable[[], npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        found = self._held.get(key)
        if found is None:
            found = load()
            found.flags.writeable = False
            self._held[key] = found
        self._held.move_to_end(key)
        while len(self._held) > self._size:
            self._held.popitem(last=False)
        return found


_EMBEDDINGS = _EmbeddingCache(size=4)


@dataclass(eq=False)
class _Computation:
    """What a thread made of a shard."""

    results: Sequence[UnitOutcome] = ()
    error: BaseException | None = None
    trace: str = field(default="")

    def run(self, compute: Callable[[], Sequence[UnitOutcome]]) -> None:
        try:
            self.results = compute()
        except BaseException as error:  # a unit that calls sys.exit must not end the worker
            self.error, self.trace = error, traceback.format_exc()


def execute(shard: Shard, context: Context) -> ShardReport:
    """Do a shard's units, in a worker; whatever goes wrong with a unit comes back as data.

    The units are computed in a thread of their own: one that hangs is reported with where it hangs, and left behind.
    """
    started = time.time()
    outcome, death, environment_error = _Computation(), None, None
    thread = Thread(
        target=outcome.run, args=(lambda: context.compute(shard.units),), name="roadtest-worker-shard", daemon=True
    )
    thread.start()
    thread.join(shard.seconds)
    results: Sequence[UnitOutcome] = ()
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        where = "".join(traceback.format_stack(frame)) if frame else ""
        death = Death(kind="timeout", message=f"no result after {shard.seconds:.0f} s", traceback=where)
    elif isinstance(outcome.error, OSError):
        problem = outcome.error
        environment_error = f"{problem.strerror or problem}: {problem.filename}" if problem.filename else str(problem)
    elif outcome.error is not None:
        message = str(outcome.error) or type(outcome.error).__name__
        kind = "out_of_memory" if isinstance(outcome.error, MemoryError) else "exception"
        results = [
            UnitFailure(key=unit.key, kind=kind, message=message, traceback=outcome.trace) for unit in shard.units
        ]
    else:
        results = outcome.results
    return ShardReport(
        shard=shard.id,
        results=tuple(results),
        worker=WORKER_ID,
        host=socket.gethostname(),
        pid=os.getpid(),
        started_at=started,
        death=death,
        environment_error=environment_error,
    )
