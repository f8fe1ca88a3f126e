"""What is a routing benchmark? Queries, candidate models, scores and costs, in canonical order."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.errors import BenchmarkError
from workers.plugins import discover, nearest

Floats = npt.NDArray[np.float64]
#: Below this share of complete rows areas are refused (protocol 1, Missing values).
ENOUGH_COMPLETE = 0.5

#: Optional data of every query and model, that some routers need: name -> what it is.
EXTRAS: Mapping[str, str] = {
    "response": "the model's answer, text",
    "confidence": "the model's own confidence in its answer, in [0, 1]",
    "verifier": "confidence of a verifier in the model's answer, in [0, 1]",
    "margin": "probability of the answer's first token minus that of the runner-up, in [0, 1]",
    "input_tokens": "tokens of the prompt, as the model counts them",
    "output_tokens": "tokens of the model's answer, as it counts them",
    "samples": "scores of repeated answers, whose mean is the score; a third axis",
}
#: Those that are outcomes themselves, hidden of queries to be routed.
OUTCOME_EXTRAS = ("samples", "output_tokens")


@dataclass(frozen=True, kw_only=True)
class Model:
    """A candidate model."""

    #: As the data spell it.
    name: str
    #: Provider or family; `family:` in a sweep file selects by it.
    family: str | None = None
    #: USD per 1M input tokens, where known.
    price_in: float | None = None
    #: USD per 1M output tokens, where known.
    price_out: float | None = None


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Training on one task and testing on another (protocol 5.5)."""

    #: Task of the training and validation queries.
    trained_on: str
    #: Task of the test queries, whose costs define cost 1.
    tested_on: str
    #: Training queries that are kept, the same for all pairs of tasks.
    n_train: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Benchmark:
    """A routing benchmark in canonical order: models by name, queries by query_id (code points).

    Build one with `Benchmark.build`, which sorts, checks and groups.
    """

    name: str
    #: Benchmarks that share prompts are one suite; suites are the independent observations.
    suite: str
    #: Query ids, sorted. [n_queries]
    queries: tuple[str, ...]
    #: The text that encoders see ("" where there is none). [n_queries]
    texts: tuple[str, ...]
    #: Path or encoded bytes of each query's image, None where there is none. [n_queries]
    images: tuple[str | bytes | None, ...]
    #: sha256 of each image's bytes. [n_queries]
    image_digests: tuple[str | None, ...]
    #: [n_queries]
    tasks: tuple[str, ...]
    #: Name of each query's group in the *source*: the smallest query_id of its component. [n_queries]
    groups: tuple[str, ...]
    #: All group names of the source, sorted: what a split orders. [n_source_groups]
    source_groups: tuple[str, ...]
    models: tuple[Model, ...]
    #: Observed scores in [0, 1], NaN = not observed. [n_queries, n_models]
    S: Floats
    #: Observed costs in USD, NaN exactly where S is. [n_queries, n_models]
    C: Floats
    #: Name of the column that encoders see.
    embedded: str = "prompt"
    #: Licence, source, caveats: shown, never computed with.
    meta: Mapping[str, Any] = field(default_factory=dict)
    #: What there is of `EXTRAS`: `response` holds text or None, the others numbers or NaN. [n_queries, n_models, ...]
    extras: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    #: Two tasks, one to train on and one to test on; None: all sides have all tasks.
    shift: Shift | None = None

    @classmethod
    def build(
        cls,
        *,
        name: str,
        queries: Sequence[str],
        prompts: Sequence[str | None],
        models: Sequence[Model],
        S: npt.ArrayLike,
        C: npt.ArrayLike,
        suite: str | None = None,
        texts: Sequence[str | None] | None = None,
        images: Sequence[str | bytes | None] | None = None,
        tasks: Sequence[str | None] | None = None,
        embedded: str = "prompt",
        meta: Mapping[str, Any] | None = None,
        extras: Mapping[str, npt.NDArray[Any]] | None = None,
        where: str | None = None,
    ) -> Benchmark:
        """Sort, check and group.

        Args:
            name: Name of the source.
            queries: Query ids, unique. [n]
            prompts: Prompts; with `texts` and `images` they decide which queries are one group. [n]
            models: Candidate models, unique names. [M]
            S: Scores in [0, 1] or NaN. [n, M]
            C: Costs in USD, at least 0, or NaN; one of score and cost alone counts as not observed. [n, M]
            suite: Default: the name.
            texts: What encoders see; default the prompts. [n]
            images: Paths or encoded bytes. [n]
            tasks: Default: all "". [n]
            embedded: The column that `texts` came from.
            meta: Licence, source, caveats.
            extras: Optional data by their names in `EXTRAS`. [n, M, ...]
            where: File that messages name.

        Raises:
            BenchmarkError: With the file, row and model at fault.
        """
        at = f"{where}: " if where else f"benchmark {name!r}: "
        scores: Floats = np.array(S, dtype=np.float64)
        costs: Floats = np.array(C, dtype=np.float64)
        n, m = len(queries), len(models)
        if n == 0 or m == 0:
            raise BenchmarkError(
                f"{at}the pool is empty ({n} queries, {m} models); check the filters on tasks, models and family."
            )
        if scores.shape != (n, m) or costs.shape != (n, m):
            raise BenchmarkError(
                f"{at}scores {scores.shape} and costs {costs.shape} must both be ({n}, {m}), queries by models."
            )
        for kind, names in (("query_id", list(queries)), ("model", [model.name for model in models])):
            if len(set(names)) != len(names):
                twice = next(name for name, count in Counter(names).items() if count > 1)
                raise BenchmarkError(f"{at}{kind} {twice!r} occurs twice; ids must be unique.")
        rows = np.array(sorted(range(n), key=lambda i: queries[i]))
        columns = np.array(sorted(range(m), key=lambda j: models[j].name))
        scores, costs = scores[np.ix_(rows, columns)], costs[np.ix_(rows, columns)]
        ids = tuple(queries[i] for i in rows)
        sorted_models = tuple(models[j] for j in columns)
        with np.errstate(invalid="ignore"):
            for values, bad, what in (
                (scores, (scores < 0) | (scores > 1), "score {} outside [0, 1]; rescale the scores"),
                (costs, (costs < 0) | np.isinf(costs), "cost {} is negative or infinite; costs are USD, at least 0"),
            ):
                if bad.any():
                    i, j = np.argwhere(bad)[0]
                    raise BenchmarkError(
                        f"{at}query {ids[i]!r}, model {sorted_models[j].name!r}: {what.format(values[i, j])}."
                    )
        unobserved = np.isnan(scores) | np.isnan(costs)
        scores[unobserved] = np.nan
        costs[unobserved] = np.nan
        if unobserved.all():
            raise BenchmarkError(f"{at}no cell has both a score and a cost; nothing is observed.")
        scores.flags.writeable = costs.flags.writeable = False
        further = {}
        for extra, values in (extras or {}).items():
            if extra not in EXTRAS or values.shape[:2] != (n, m):
                raise BenchmarkError(f"{at}{extra!r} {values.shape} is not one of {', '.join(EXTRAS)} as ({n}, {m}).")
            further[extra] = values[np.ix_(rows, columns)]
            further[extra].flags.writeable = False
        prompts_sorted = [prompts[i] or "" for i in rows]
        texts_sorted = prompts_sorted if texts is None else [texts[i] or "" for i in rows]
        images_sorted = tuple(images[i] for i in rows) if images is not None else (None,) * n
        digests = tuple(_image_digest(image, at, ids[i]) for i, image in enumerate(images_sorted))
        groups = connected_groups(ids, prompts_sorted, texts_sorted, digests)
        return cls(
            name=name,
            suite=suite or name,
            queries=ids,
            texts=tuple(texts_sorted),
            images=images_sorted,
            image_digests=digests,
            tasks=tuple((tasks[i] or "") if tasks is not None else "" for i in rows),
            groups=groups,
            source_groups=tuple(sorted(set(groups))),
            models=sorted_models,
            S=scores,
            C=costs,
            embedded=embedded,
            meta=dict(meta or {}),
            extras=further,
        )

    @property
    def n_queries(self) -> int:
        """Number of queries."""
        return len(self.queries)

    @property
    def n_models(self) -> int:
        """Number of candidate models."""
        return len(self.models)

    @cached_property
    def complete(self) -> npt.NDArray[np.bool_]:
        """Which queries have every model observed, [n_queries]."""
        return np.asarray(~np.isnan(self.S).any(axis=1), dtype=np.bool_)

    @cached_property
    def c_ref(self) -> float:
        """Cost 1: the largest of the models' mean observed costs, in USD (protocol 1)."""
        costs = self.C[self.evaluated]
        counts = (~np.isnan(costs)).sum(axis=0)
        means = np.where(counts > 0, np.nansum(costs, axis=0) / np.maximum(counts, 1), 0.0)
        return float(means.max())

    @property
    def evaluated(self) -> npt.NDArray[np.bool_]:
        """Which queries may be tested on: all but those that a shift has to train on alone. [n_queries]."""
        return self.of_task(None if self.shift is None else self.shift.tested_on)

    def of_task(self, task: str | None) -> npt.NDArray[np.bool_]:
        """Which queries are of a task; None: all. [n_queries]."""
        return np.array([task is None or found == task for found in self.tasks], dtype=np.bool_)

    @cached_property
    def group_numbers(self) -> npt.NDArray[np.int64]:
        """Position of each query's group in `source_groups`. [n_queries]."""
        number = {group: i for i, group in enumerate(self.source_groups)}
        return np.array([number[group] for group in self.groups], dtype=np.int64)

    @cached_property
    def groups_digest(self) -> str:
        """sha256 of the source's sorted group names."""
        return hashlib.sha256("\n".join(self.source_groups).encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content: ids, texts, images, tasks, groups, model names, scores and costs; no display name."""
        digest = hashlib.sha256(b"roadtest-benchmark-1\0")
        for values in (
            self.queries,
            self.texts,
            [d or "" for d in self.image_digests],
            self.tasks,
            self.groups,
            [model.name for model in self.models],
        ):
            for value in values:
                raw = value.encode("utf-8", "surrogatepass")
                digest.update(len(raw).to_bytes(8, "little") + raw)
            digest.update(b"\0end")
        for array in (self.S, self.C):
            clean = np.where(np.isnan(array), np.nan, array + 0.0)  # one NaN, no negative zero
            digest.update(np.ascontiguousarray(clean, dtype="<f8").tobytes())
        digest.update(self.groups_digest.encode())
        if self.shift is not None:
            digest.update(repr(("shift", *astuple(self.shift))).encode())
        return digest.hexdigest()

    def offers(self, need: str) -> bool:
        """Whether data that a router may need are there: `task`, `text` or one of `EXTRAS`."""
        of_queries = {"task": self.tasks, "text": self.texts}
        return any(of_queries[need]) if need in of_queries else need in self._filled

    @cached_property
    def _filled(self) -> frozenset[str]:
        """The extras that hold anything at all."""
        return frozenset(name for name, values in self.extras.items() if _anything(values))

    @cached_property
    def extra_digests(self) -> Mapping[str, str]:
        """sha256 of each of the extras: part of the keys of routers that read it, and of no others."""
        return {name: _extra_digest(name, values) for name, values in self.extras.items()}

    def restrict(
        self,
        *,
        name: str | None = None,
        tasks: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        family: str | None = None,
        n_queries: int | None = None,
        without: Container[str] = (),
    ) -> Benchmark:
        """A smaller benchmark of the same source: groups, and so splits, stay the source's.

        Args:
            name: Name of the result; default unchanged.
            tasks: Keep these tasks.
            models: Keep these models.
            family: Keep the models of this family.
            n_queries: Keep the first so many in an order fixed by hashes of the groups (nested subsamples).
            without: Leave these queries out.

        Raises:
            BenchmarkError: A task, model or family that the benchmark lacks.
        """
        where = f"benchmark {self.name!r}"
        keep = np.array([query not in without for query in self.queries], dtype=bool)
        if tasks is not None:
            known = sorted(set(self.tasks))
            for task in tasks:
                if task not in known:
                    raise BenchmarkError(f"{where}: no task {task!r}; {nearest(task, known)}")
            wanted = set(tasks)
            keep &= np.array([task in wanted for task in self.tasks])
        columns = np.ones(self.n_models, dtype=bool)
        names = [model.name for model in self.models]
        if models is not None:
            for model in models:
                if model not in names:
                    raise BenchmarkError(f"{where}: no model {model!r}; {nearest(model, names)}")
            columns &= np.array([model in set(models) for model in names])
        if family is not None:
            families = sorted({model.family for model in self.models if model.family})
            matching = np.array([(model.family or "").casefold() == family.casefold() for model in self.models])
            if not matching.any():
                known_families = nearest(family, families) if families else "its models name no family."
                raise BenchmarkError(f"{where}: no model of family {family!r}; {known_families}")
            columns &= matching
        if n_queries is not None:
            positions = np.flatnonzero(keep)
            if n_queries > len(positions):
                raise BenchmarkError(f"{where}: queries: {n_queries} asked for, {len(positions)} there.")
            order = sorted(
                positions, key=lambda i: (hashlib.sha256(f"q1|{self.groups[i]}".encode()).hexdigest(), self.queries[i])
            )
            keep = np.zeros(self.n_queries, dtype=bool)
            keep[order[:n_queries]] = True
        rows, cols = np.flatnonzero(keep), np.flatnonzero(columns)
        if len(rows) == 0 or len(cols) == 0:
            raise BenchmarkError(
                f"{where}: the filters leave {len(rows)} queries and {len(cols)} models; the pool is empty."
            )
        S, C = self.S[np.ix_(rows, cols)], self.C[np.ix_(rows, cols)]
        if np.isnan(S).all():
            raise BenchmarkError(f"{where}: the filters leave no observed cell.")
        S.flags.writeable = C.flags.writeable = False
        extras = {name: values[np.ix_(rows, cols)] for name, values in self.extras.items()}
        return replace(
            self,
            name=name or self.name,
            queries=tuple(self.queries[i] for i in rows),
            texts=tuple(self.texts[i] for i in rows),
            images=tuple(self.images[i] for i in rows),
            image_digests=tuple(self.image_digests[i] for i in rows),
            tasks=tuple(self.tasks[i] for i in rows),
            groups=tuple(self.groups[i] for i in rows),
            models=tuple(self.models[j] for j in cols),
            S=S,
            C=C,
            extras=extras,
        )

    def shifted(self, name: str, *, trained_on: str, tested_on: str, n_train: int) -> Benchmark:
        """Two of its tasks, one to train and validate on and one to test on; groups, and so sides, stay the source's.

        Raises:
            BenchmarkError: It has no such task.
        """
        both = self.restrict(name=name, tasks=sorted({trained_on, tested_on}))
        return replace(both, shift=Shift(trained_on=trained_on, tested_on=tested_on, n_train=n_train))


def _anything(values: npt.NDArray[Any]) -> bool:
    """Whether some text or number is there."""
    if values.dtype == object:
        return any(value is not None for value in values.flat)
    return not np.isnan(values).all()


def _extra_digest(name: str, values: npt.NDArray[Any]) -> str:
    digest = hashlib.sha256(f"roadtest-extra-1|{name}|{values.shape}\0".encode())
    if values.dtype == object:
        for value in values.ravel():
            raw = b"" if value is None else b"\1" + value.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
    else:
        clean = np.where(np.isnan(values), np.nan, values + 0.0)
        digest.update(np.ascontiguousarray(clean, dtype="<f8").tobytes())
    return digest.hexdigest()


def _image_digest(image: str | bytes | None, at: str, query: str) -> str | None:
    if image is None:
        return None
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        return hashlib.sha256(Path(image).read_bytes()).hexdigest()
    except OSError as error:
        raise BenchmarkError(f"{at}query {query!r}: its image {image} cannot be read ({error.strerror}).") from error


def connected_groups(
    queries: Sequence[str],
    prompts: Sequence[str],
    texts: Sequence[str],
    image_digests: Sequence[str | None],
) -> tuple[str, ...]:
    """Each query's group: components of queries with the same image or, without one, the same prompt or text.

    A group is named by its smallest query_id (protocol 1, Splits).
    """
    parent = list(range(len(queries)))

    def find(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, (prompt, text, image) in enumerate(zip(prompts, texts, image_digests, strict=True)):
        links = [("image", image)] if image is not None else [("prompt", prompt), ("text", text)]
        for link in links:
            a, b = find(first.setdefault(link, i)), find(i)
            if a != b:
                parent[max(a, b)] = min(a, b)
    names: dict[int, str] = {}
    for i, query in enumerate(queries):
        root = find(i)
        names[root] = min(names.get(root, query), query)
    return tuple(names[find(i)] for i in range(len(queries)))


class Source(ABC):
    """A benchmark that needs no file: subclass, set `name`, return a `Benchmark` from `load`."""

    name: ClassVar[str]
    #: One line for `roadtest benchmarks list`.
    summary: ClassVar[str] = ""

    @abstractmethod
    def load(self) -> Benchmark:
        """Build the benchmark; the same at every call, on every machine."""


@cache
def embedded_sources() -> dict[str, type[Source]]:
    """Embedded benchmarks and those of plug-ins, by name."""
    return discover("workers.benchmarks", Source, "roadtest.benchmarks")
