"""What does routing cost as the labelled queries grow: seconds to fit, to route, and bytes to keep?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark
from workers.embed import normalized
from workers.errors import MeasureError
from workers.measures.base import Measure
from workers.routers.base import Side, router_class
from workers.seeding import generator
from workers.sides import cost_ratios, hidden, subset, whole
from workers.units import Finding, MeasureUnit, ProtocolOptions

#: Queries that are routed at once and timed, after a batch that is not.
ROUTED = 1000
BATCHES = 3
#: Jitter of a drawn row, as a part of its length: rows stay as close as they were and none repeats.
JITTER = 0.05


class Scaling(Measure):
    """One fit on n labelled queries drawn with replacement from the benchmark, jittered, with their outcomes.

    Findings, all with x = n: `fit_seconds`, `route_us_per_query` (median of three batches), `router_bytes`. What a
    router costs depends on n, d and M alone, not on what the rows mean, so that drawn rows stand for new ones.
    """

    name: ClassVar[str] = "scaling"
    summary = "seconds to fit and to route, and bytes, as the labelled queries grow"

    def __init__(self, *, router: str, params: Mapping[str, Any], n: int) -> None:
        if type(n) is not int or n < 2:
            raise ValueError(f"n is {n!r}; give a number of labelled queries, at least 2.")
        self.router = router
        self.params = params
        self.n = n

    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Draw, fit, route."""
        cls = router_class(self.router)
        rng = generator(unit.root_seed, "scaling", self.n)
        train, queries = _drawn(benchmark, embedding, self.n, rng), _drawn(benchmark, embedding, ROUTED, rng)
        router = cls(**self.params)
        router.check(n_train=train.n)
        begin = perf_counter()
        router.fit(train, generator(unit.root_seed, "fit", cls.name, 0, "utility"))
        fit_seconds = perf_counter() - begin
        times = []
        for _ in range(BATCHES + 1):
            begin = perf_counter()
            router.predict(hidden(queries))
            times.append(perf_counter() - begin)
        found = {
            "fit_seconds": fit_seconds,
            "route_us_per_query": 1e6 * float(np.median(times[1:])) / queries.n,
            "router_bytes": float(router.n_bytes),
        }
        return [Finding(quantity=name, x=float(self.n), value=value) for name, value in found.items()]


def _drawn(benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, n: int, rng: np.random.Generator) -> Side:
    """A side of n queries drawn with replacement, jittered, each a group of its own."""
    if embedding is None:
        raise MeasureError("scaling is measured of routers that read embeddings; name an encoder.")
    side = whole(benchmark, cost_ratios(benchmark, ProtocolOptions()), embedding)
    rows = rng.integers(side.n, size=n)
    drawn = subset(side, rows)
    matrix = np.empty((n, embedding.shape[1]), dtype=np.float32)
    for start in range(0, n, 65_536):  # no second copy of a million rows in float64
        part = slice(start, min(start + 65_536, n))
        noise = rng.standard_normal((part.stop - part.start, matrix.shape[1]), dtype=np.float32)
        matrix[part] = normalized(embedding[rows[part]] + JITTER / np.sqrt(matrix.shape[1]) * noise)
    return replace(drawn, rows=np.arange(n), matrix=matrix, embedding_rows=np.arange(n), groups=np.arange(n))
