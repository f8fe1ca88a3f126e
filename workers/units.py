"""The units of work that travel to workers, and what comes back: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

#: Price of cost at each stored preference (protocol 1).
PREFERENCES: Mapping[str, float] = {"low-cost": 1.0, "balanced": 0.5, "high-performance": 0.1}

Formulation = Literal["utility", "selection"]

#: Units of one router that are evaluated at once: they share searches and batched training. Bounds the memory that
#: tuning holds, 20 configurations' predictions for each unit.
TOGETHER = 8


@dataclass(frozen=True, kw_only=True)
class ProtocolOptions:
    """Options of the protocol; part of a result's identity."""

    #: `exact`: every price of cost at once; `grid`: RouterBench's 32 willingness-to-pay values.
    lambda_: Literal["exact", "grid"] = "exact"
    #: What cost 1 is.
    cost_normalizer: Literal["dearest_mean", "max_observed"] = "dearest_mean"
    #: Left end of the hull.
    left: Literal["null", "cheapest", "flat"] = "null"
    #: Validation and test keep complete rows only.
    missing: Literal["complete"] = "complete"
    #: Resamples of the test groups per unit; 0 stores none.
    bootstrap: int = 200
    #: Configurations that every tuned router gets.
    tuning_budget: int = 20


@dataclass(frozen=True, kw_only=True)
class EvaluateUnit:
    """One router on one split: benchmark x encoder x router x split x training size."""

    #: Content key, `u1:<sha256>`.
    key: str
    #: Registered name of the router.
    router: str
    #: Fixed parameters, defaults resolved; of a tuned router those that are not tuned.
    params: Mapping[str, Any]
    #: Whether to tune the router's other parameters.
    tuned: bool = False
    #: Whether to permute the training embeddings.
    twin: bool = False
    formulation: Formulation = "utility"
    #: Split index.
    split: int
    root_seed: int = 0
    train_size: float = 1.0
    protocol: ProtocolOptions = field(default_factory=ProtocolOptions)


@dataclass(frozen=True, kw_only=True)
class EmbedUnit:
    """One slice of a benchmark's unique inputs under one encoder."""

    key: str
    #: Digest of recipe and inputs: what the slices of one embedding share.
    embedding: str
    encoder: str
    params: Mapping[str, Any]
    #: First and one-past-last unique input; both multiples of the batch size, but for the end.
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class MeasureUnit:
    """One measure of a study, of a benchmark under one encoder."""

    key: str
    #: Registered name of the measure.
    measure: str
    params: Mapping[str, Any]
    #: Split index; 0 where there is none.
    split: int = 0
    root_seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One number that a measure found."""

    quantity: str
    value: float | None
    #: What it is of, where a quantity has several.
    label: str = ""
    #: Where on a curve.
    x: float | None = None
    #: Band about it, such as that of its null.
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """One operating point of a router on a test side."""

    #: Mean cost / c_ref.
    cost: float
    #: Mean score.
    score: float
    #: The smallest price of cost at which it holds; None for a router without one.
    price_of_cost: float | None
    on_hull: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluateResult:
    """What one evaluate unit found."""

    key: str
    n_train: int
    n_validation: int
    n_test: int
    #: Every metric of the contract by name; None where undefined.
    metrics: Mapping[str, float | None]
    #: The tuned choice, None for a fixed router.
    chosen: Mapping[str, Any] | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    #: Per preference the chosen model's position for every test query; none for expectations. [n_test]
    decisions: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    #: `auc_path` on each resample of the test groups. [bootstrap]
    bootstrap: npt.NDArray[np.float64] | None = None
    #: Seconds spent on choosing parameters, None for a fixed router; an observation.
    tuning_seconds: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class EmbedResult:
    """One written slice."""

    key: str
    url: str
    #: sha256 of the rows' bytes.
    sha256: str
    n_rows: int
    dim: int
    n_bytes: int
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class MeasureResult:
    """What one measure found."""

    key: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class UnitFailure:
    """A unit that failed; its shard goes on."""

    key: str
    #: `user_error`, `exception`, `out_of_memory`, `artifact`, `worker_death` or `timeout`.
    kind: str
    message: str
    traceback: str = ""
    seconds: float = 0.0


#: Metrics that are observations: every other one is deterministic.
OBSERVED_METRICS = frozenset({"fit_seconds", "route_us_per_query", "seconds"})
