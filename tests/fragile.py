"""How does a router go wrong on demand? A plug-in that tests lay out as an installed package of its own."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from roadtest import Prediction, Router

#: What was leaked: stays as long as the process does.
HELD: list[npt.NDArray[np.float64]] = []


class OddError(Exception):
    """Cannot be unpickled: its constructor wants more than it hands on."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} because {why}")


def rows_digest(rows: npt.NDArray[np.int64]) -> str:
    """Tells training sides apart: by benchmark size and split."""
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]


class Fragile(Router):
    """Predicts training means, but goes wrong on some training sides while the file that FRAGILE_TRAP names is there.

    Args:
        wrong: Ways to go wrong (die, hang, leak, leave, raise), each with its training side: `way:digest,way:digest`.
    """

    name = "fragile"
    needs_embedding = False

    def __init__(self, *, wrong: str = "") -> None:
        self.wrong = wrong

    def fit(self, train, rng) -> Self:  # type: ignore[no-untyped-def]
        trap = os.environ.get("FRAGILE_TRAP")
        if trap and Path(trap).exists():
            digest = rows_digest(train.rows)
            for way, _, side in (part.partition(":") for part in self.wrong.split(",")):
                if side == digest:
                    self.go_wrong(way)
        scores, costs = train.outcomes
        self.scores_, self.costs_ = np.nanmean(scores, axis=0), np.nanmean(costs, axis=0)
        return self

    def go_wrong(self, way: str) -> None:
        if way == "die":
            os._exit(17)
        if way == "leave":
            sys.exit("the router left")
        if way == "hang":
            time.sleep(1000)
        if way == "leak":
            self.leak()
            return
        raise OddError("it broke", "it was told to")

    def leak(self) -> None:
        for _ in range(64):  # 3.2 GB: no machine of ours dies of it, and a limit of 1 GB is passed
            HELD.append(np.ones(50_000_000 // 8))

    def predict(self, queries) -> Prediction:  # type: ignore[no-untyped-def]
        shape = (queries.n, len(self.scores_))
        return Prediction(scores=np.broadcast_to(self.scores_, shape), costs=np.broadcast_to(self.costs_, shape))
