"""Are the tests honest where the truth is known? Mirror twins: two routers that no data set prefers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Floats, Model
from workers.errors import MeasureError
from workers.evaluate import run_evaluate
from workers.measures.base import Measure
from workers.seeding import generator
from workers.units import EvaluateResult, EvaluateUnit, Finding, MeasureUnit, ProtocolOptions, UnitFailure

#: The areas whose differences are tested.
AREAS = ("auc", "auc_path")
#: Mean score of each model; a view has one coordinate for each.
_LEVELS: Floats = np.array([0.4, 0.5, 0.6])
#: Mean cost of each model in USD, the same for all queries, times 0.5, 1 or 1.5.
_COSTS: Floats = 1e-4 * np.array([0.1, 0.3, 1.0])
#: What a coordinate of either view adds to the chance of its model: chances stay within 0.2 and 1.
_STRENGTH = 0.2


class Calibration(Measure):
    """Two routers of one algorithm and grid, evaluated by `run_evaluate` on fresh data in every repetition.

    A query has two views A and B, independent and uniform on the unit sphere. Model m scores 1 with probability
    `level_m + 0.2 (A_m + B_m)`: smooth in either view, so local, and symmetric in the two. Router 1 sees A, router 2
    sees B. Exchanging the views changes nothing, so the true difference of any metric is exactly 0, whatever the
    router learns. Splits and resamples are the product's own, of a root seed that is drawn anew for every repetition.

    Findings, with x = the repetition, of router 1 - router 2 in points: `difference` and `sd` (mean and ddof 1 over
    splits) and `wilcoxon_p` (signed-rank over splits, two-sided, exact), labelled `auc` and `auc_path`;
    `bootstrap_sd` of the mean difference of `auc_path` with the fitted routers held fixed (protocol 5.3). Once a
    unit: `n_train` and `n_test`. The sweep's own benchmark and encoder are not read.

    Args:
        router: Registered name.
        params: Its parameters; of a tuned router those that are not tuned.
        tuned: Whether the rest is tuned, by either router on its own view.
        n: Queries of a data set.
        splits: Splits of a data set, at least 2.
        batch: Which repetitions: `batch * repetitions` and so many on.
        repetitions: Data sets in a batch.
        bootstrap: Resamples, at least 2.
        tuning_budget: Configurations that a tuned router gets.
    """

    name: ClassVar[str] = "calibration"
    summary = "mirror twins: differences of two routers whose true difference is 0"

    def __init__(
        self,
        *,
        router: str,
        params: Mapping[str, Any],
        tuned: bool,
        n: int,
        batch: int,
        splits: int = 10,
        repetitions: int = 20,
        bootstrap: int = 100,
        tuning_budget: int = 5,
    ) -> None:
        if n < 20 or splits < 2 or repetitions < 1 or bootstrap < 2 or batch < 0:
            raise ValueError(
                f"n = {n}, splits = {splits}, repetitions = {repetitions}, bootstrap = {bootstrap}, batch = {batch}; "
                "they are at least 20, 2, 1, 2 and 0."
            )
        self.router, self.params, self.tuned = router, params, tuned
        self.n, self.splits, self.batch, self.repetitions = n, splits, batch, repetitions
        self.options = ProtocolOptions(bootstrap=bootstrap, tuning_budget=tuning_budget)

    def findings(
        self, benchmark: Benchmark, embedding: npt.NDArray[np.float32] | None, unit: MeasureUnit
    ) -> list[Finding]:
        """Draw, evaluate both, subtract; neither `benchmark` nor `embedding` is read."""
        found: list[Finding] = []
        for repetition in range(self.batch * self.repetitions, (self.batch + 1) * self.repetitions):
            rng = generator(unit.root_seed, "calibration", self.n, repetition)
            data, views = mirror_twins(self.n, rng)
            root_seed = int(rng.integers(2**62))
            twins = [self._evaluated(data, view, root_seed) for view in views]
            if not found:
                first = twins[0][0]
                found = [Finding(quantity=name, value=float(getattr(first, name))) for name in ("n_train", "n_test")]
            found += _differences(*twins, repetition=repetition)
        return found

    def _evaluated(self, data: Benchmark, view: npt.NDArray[np.float32], root_seed: int) -> list[EvaluateResult]:
        units = [
            EvaluateUnit(
                key=f"split {split}",
                router=self.router,
                params=self.params,
                tuned=self.tuned,
                split=split,
                root_seed=root_seed,
                protocol=self.options,
            )
            for split in range(self.splits)
        ]
        results: list[EvaluateResult] = []
        for result in run_evaluate(units, data, view):
            if isinstance(result, UnitFailure):
                if result.kind == "user_error":
                    raise MeasureError(f"calibration of router {self.router!r}: {result.message}")
                raise RuntimeError(f"{result.key}: {result.message}\n{result.traceback}")
            results.append(result)
        return results


def mirror_twins(n: int, rng: np.random.Generator) -> tuple[Benchmark, list[npt.NDArray[np.float32]]]:
    """Draw a data set and its two views, independent and identically distributed. [n, 3] each."""
    drawn = rng.standard_normal((2, n, len(_LEVELS)))
    views = drawn / np.linalg.norm(drawn, axis=2, keepdims=True)
    chances = _LEVELS + _STRENGTH * views.sum(axis=0)
    scores = (rng.random(chances.shape) < chances).astype(np.float64)
    costs = _COSTS * rng.choice([0.5, 1.0, 1.5], size=chances.shape)
    return replace(_empty(n), S=scores, C=costs), list(views.astype(np.float32))


@lru_cache(maxsize=4)
def _empty(n: int) -> Benchmark:
    """A benchmark of n queries, each a group of its own, whose outcomes are to be filled in."""
    names = [f"query-{i:06d}" for i in range(n)]
    outcomes = np.zeros((n, len(_LEVELS)))
    models = [Model(name=f"model-{m}") for m in range(len(_LEVELS))]
    return Benchmark.build(name="mirror-twins", queries=names, prompts=names, models=models, S=outcomes, C=outcomes)


def _differences(
    first: Sequence[EvaluateResult], second: Sequence[EvaluateResult], *, repetition: int
) -> list[Finding]:
    """Router 1 - router 2 over the splits of one repetition."""
    from scipy.stats import wilcoxon

    values: list[tuple[str, str, float]] = []
    for area in AREAS:
        d = np.array([_area(a, area) - _area(b, area) for a, b in zip(first, second, strict=True)])
        p = float(wilcoxon(d).pvalue) if d.any() else 1.0
        values += [("difference", area, float(d.mean())), ("sd", area, float(d.std(ddof=1))), ("wilcoxon_p", area, p)]
    # Both routers' draws are the same resamples of the groups, and so are those of all splits.
    draws = np.mean([_draws(a) - _draws(b) for a, b in zip(first, second, strict=True)], axis=0)
    values.append(("bootstrap_sd", "auc_path", float(draws.std(ddof=1))))
    return [Finding(quantity=name, label=area, x=float(repetition), value=value) for name, area, value in values]


def _area(result: EvaluateResult, name: str) -> float:
    value = result.metrics[name]
    assert value is not None  # the utility formulation has areas
    return value


def _draws(result: EvaluateResult) -> Floats:
    assert result.bootstrap is not None
    return result.bootstrap
