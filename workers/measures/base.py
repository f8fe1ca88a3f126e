"""What is a measure? Something that a study computes of a benchmark, and whose findings are rows of one table."""

from __future__ import annotations

import inspect
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from workers.benchmarks.base import Benchmark
from workers.errors import InputError, MeasureError
from workers.plugins import discover, nearest
from workers.units import Finding, MeasureResult, MeasureUnit, UnitFailure


class Measure(ABC):
    """Subclass, set `name` and `summary`, implement `findings`; the constructor only stores parameters."""

    #: Name in units and findings.
    name: ClassVar[str]
    #: Raise it when the same parameters would give other findings.
    version: ClassVar[str] = "1"
    summary: ClassVar[str]

    @abstractmethod
    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Compute.

        Args:
            benchmark: What to measure.
            embedding: Unit rows of its queries, None where the measure reads none. [n, d]
            unit: Names split and root seed.

        Raises:
            InputError: The benchmark or a router cannot give what is asked for.
        """


@cache
def measures() -> dict[str, type[Measure]]:
    """Every measure by name."""
    return discover("workers.measures", Measure, "roadtest.measures")


def make_measure(name: str, params: Mapping[str, Any]) -> Measure:
    """Make a measure.

    Raises:
        MeasureError: Unknown measure or parameter.
    """
    known = measures()
    if name not in known:
        raise MeasureError(f"unknown measure {name!r}; {nearest(name, list(known))}")
    allowed = list(inspect.signature(known[name]).parameters)
    for key in params:
        if key not in allowed:
            raise MeasureError(f"measure {name!r} has no parameter {key!r}; {nearest(key, allowed)}")
    try:
        return known[name](**params)
    except (TypeError, ValueError) as error:
        raise MeasureError(f"measure {name!r}: {error}") from error


def run_measures(
    units: Sequence[MeasureUnit], benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None
) -> list[MeasureResult | UnitFailure]:
    """Measure on one thread; what goes wrong with a unit comes back as data."""
    import scipy.linalg  # noqa: F401 -- it brings a BLAS of its own, which can be limited once it is loaded

    found: list[MeasureResult | UnitFailure] = []
    with threadpool_limits(limits=1):
        for unit in units:
            begin = perf_counter()
            try:
                findings = make_measure(unit.measure, unit.params).findings(benchmark, embedding, unit)
            except Exception as error:
                kinds = ((InputError, "user_error"), (MemoryError, "out_of_memory"), (Exception, "exception"))
                kind = next(kind for cls, kind in kinds if isinstance(error, cls))
                found.append(
                    UnitFailure(
                        key=unit.key,
                        kind=kind,
                        message=str(error) or type(error).__name__,
                        traceback="" if kind == "user_error" else traceback.format_exc(),
                        seconds=perf_counter() - begin,
                    )
                )
            else:
                found.append(MeasureResult(key=unit.key, findings=tuple(findings), seconds=perf_counter() - begin))
    return found
