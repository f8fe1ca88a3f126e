"""What does keeping a router up to date cost: more labelled queries, or one more model, against fitting anew?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark
from workers.growth import more_queries, one_more_model
from workers.measures.base import Measure
from workers.routers.base import Router, router_class
from workers.units import Finding, MeasureUnit


class Maintenance(Measure):
    """`workers.growth` on one split: half of the labels come later, and the dearest model by mean cost comes later.

    Findings: `auc_path` and `seconds`, labelled `queries: <way>` or `model: <way>`; `x` is the number of labelled
    queries of the news.
    """

    name: ClassVar[str] = "maintenance"
    summary = "labelled queries and models that come later: taken in, against fitting anew"

    def __init__(self, *, router: str, params: Mapping[str, Any], labelled: int = 100) -> None:
        self.router = router
        self.params = params
        self.labelled = labelled

    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Grow by queries and by a model, as far as the router can."""
        cls = router_class(self.router)
        found = []
        if cls.partial_fit is not Router.partial_fit:
            grown = more_queries(cls, self.params, benchmark, embedding, split=unit.split)
            found += [("queries", one) for one in grown]
        if cls.add_model is not Router.add_model and benchmark.n_models > 1:
            dearest = int(np.nanargmax(np.nanmean(benchmark.C, axis=0)))
            grown = one_more_model(
                cls,
                self.params,
                benchmark,
                embedding,
                split=unit.split,
                model=benchmark.models[dearest].name,
                labelled=min(self.labelled, benchmark.n_queries // 4),
            )
            found += [("model", one) for one in grown]
        return [
            Finding(quantity=quantity, label=f"{what}: {one.way}", x=float(one.n_labelled), value=value)
            for what, one in found
            for quantity, value in (("auc_path", one.auc_path), ("seconds", one.seconds))
        ]


def can_grow(cls: type[Router]) -> bool:
    """Whether a router can take in queries or models."""
    return cls.partial_fit is not Router.partial_fit or cls.add_model is not Router.add_model
