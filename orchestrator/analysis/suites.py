"""What does a pair differ by on each suite? Members averaged split by split; what is incomplete is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.analysis.corrected_t import CorrectedTest, nadeau_bengio
from orchestrator.analysis.panels import Panel, encoder_names, full_size, panels
from orchestrator.analysis.verdicts import INTERVAL_SPLITS
from orchestrator.errors import AnalysisError

Floats = npt.NDArray[np.float64]

#: Metrics that suites are compared on; the first of a formulation is judged.
SUITE_METRICS: Mapping[str, tuple[str, ...]] = {
    "utility": ("auc", "auc_path", "auc_rel"),
    "selection": ("utility_mean",),
}


@dataclass(frozen=True, kw_only=True)
class SuiteDifference:
    """Candidate - reference on one suite, its members averaged on every split."""

    suite: str
    #: Benchmarks of the suite.
    members: tuple[str, ...]
    test: CorrectedTest


@dataclass(frozen=True, kw_only=True)
class Incomplete:
    """A suite that a comparison or ranking had to leave out, and why."""

    suite: str
    reason: str


#: What a pair differs by on complete suites, and the incomplete ones.
Differences = tuple[tuple[SuiteDifference, ...], tuple[Incomplete, ...]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One benchmark of a suite under one encoder; arrays are over the splits of the suite, NaN where it lacks one."""

    benchmark: str
    #: By metric and router. [n_splits]
    values: Mapping[str, Mapping[str, Floats]]
    #: n_test / n_train. [n_splits]
    ratio: Floats

    def difference(self, candidate: str, reference: str, metric: str) -> Floats | str:
        """Difference on every split, or why there is none."""
        table = self.values[metric]
        absent = next((name for name in (reference, candidate) if name not in table), None)
        if absent is not None:
            return f"no result of {absent} on {self.benchmark}"
        d = table[candidate] - table[reference]
        n = int(np.isfinite(d).sum())
        if n < INTERVAL_SPLITS:
            have = f"{n} split{'' if n == 1 else 's'}"
            return f"{have} of {candidate} and {reference} on {self.benchmark} with a value, {INTERVAL_SPLITS} needed"
        return d


@dataclass(frozen=True, kw_only=True, eq=False)
class Slice:
    """What may be compared across suites: one encoder and formulation at the full training size."""

    #: None where no router of the sweep needs an embedding.
    encoder: str | None
    formulation: str
    #: Whether its comparisons are the sweep's primary family.
    primary: bool
    #: By suite, in order; a member that the encoder has no result on is None.
    suites: Mapping[str, Mapping[str, Member | None]]
    #: Rows of its panels.
    results: pd.DataFrame
    _known: dict[tuple[str, str, str], Differences] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics, the judged one first."""
        return SUITE_METRICS[self.formulation]

    def differences(self, candidate: str, reference: str, metric: str) -> Differences:
        """Differences of a pair on every suite that is complete for it, and the suites that are not."""
        key = candidate, reference, metric
        if key not in self._known:
            tried = [_difference(suite, members, *key, self.encoder) for suite, members in self.suites.items()]
            found = tuple(one for one in tried if isinstance(one, SuiteDifference))
            self._known[key] = found, tuple(one for one in tried if isinstance(one, Incomplete))
        return self._known[key]


def _difference(
    suite: str,
    members: Mapping[str, Member | None],
    candidate: str,
    reference: str,
    metric: str,
    encoder: str | None,
) -> SuiteDifference | Incomplete:
    by_member, ratios = [], []
    for name, member in members.items():
        if member is None:
            return Incomplete(suite=suite, reason=f"no result on {name}" + (f" with {encoder}" if encoder else ""))
        own = member.difference(candidate, reference, metric)
        if isinstance(own, str):
            return Incomplete(suite=suite, reason=own)
        by_member.append(own)
        ratios.append(member.ratio)
    # Members share queries and splits, so their average has a variance of its own: split by split, then tested.
    d, ratio = np.mean(by_member, axis=0), np.mean(ratios, axis=0)
    common = np.isfinite(d)
    if (n := int(common.sum())) < INTERVAL_SPLITS:
        return Incomplete(suite=suite, reason=f"its benchmarks share {n} splits, {INTERVAL_SPLITS} needed")
    test = nadeau_bengio(d[common], 1.0, ratio[common])
    return SuiteDifference(suite=suite, members=tuple(members), test=test)


def slices(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> list[Slice]:
    """Cut results by encoder and formulation, the primary one first; none when there are fewer than two suites.

    Primary is the first encoder of the sweep file that has results, in the sweep's first formulation; utility comes
    before selection. Benchmarks of a study of shifts, trained on one task and tested on another, belong to no suite.

    Args:
        results: The view `results` of one sweep.
        spec: The sweep file as a dict, for the order of benchmarks and encoders.

    Raises:
        AnalysisError: When there are no results or a column is missing.
    """
    cut = [panel for panel in full_size(panels(results, spec)) if not _shifted(panel)]
    if "suite" not in results:
        raise AnalysisError("results lack the column suite; the view `results` has it.")
    return list(_slices(cut, spec))


def _slices(cut: Sequence[Panel], spec: Mapping[str, Any] | None) -> Iterator[Slice]:
    for position, formulation in enumerate(dict.fromkeys(panel.formulation for panel in cut)):
        own = [panel for panel in cut if panel.formulation == formulation]
        benchmarks = {panel.benchmark: str(panel.results["suite"].iloc[0]) for panel in own}
        if len(set(benchmarks.values())) < 2:
            continue
        for i, encoder in enumerate(_encoders(own, spec)):
            # A benchmark without any embedding stands under every encoder, as baselines do.
            here = {panel.benchmark: panel for panel in own if panel.encoder in (encoder, None)}
            yield Slice(
                encoder=encoder,
                formulation=formulation,
                primary=position == 0 and i == 0,
                suites={
                    suite: _members({name: here.get(name) for name, its in benchmarks.items() if its == suite})
                    for suite in dict.fromkeys(benchmarks.values())
                },
                results=pd.concat([panel.results for panel in here.values()], ignore_index=True),
            )


def _members(panels: Mapping[str, Panel | None]) -> dict[str, Member | None]:
    present = [panel.results["seed"] for panel in panels.values() if panel]
    seeds = np.unique(np.concatenate(present)) if present else np.empty(0)
    return {name: _member(panel, seeds) if panel else None for name, panel in panels.items()}


def _member(panel: Panel, seeds: npt.NDArray[Any]) -> Member:
    rows, metrics = panel.results, SUITE_METRICS[panel.formulation]
    splits = rows.drop_duplicates("seed").set_index("seed").reindex(seeds)
    values: dict[str, dict[str, Floats]] = {}
    for metric in metrics:
        table = rows.pivot(index="seed", columns="router", values=metric).reindex(seeds).astype(np.float64)
        values[metric] = dict(zip(map(str, table.columns), table.to_numpy().T, strict=True))
    return Member(
        benchmark=panel.benchmark, values=values, ratio=(splits["n_test"] / splits["n_train"]).to_numpy(np.float64)
    )


def _encoders(cut: Sequence[Panel], spec: Mapping[str, Any] | None) -> list[str | None]:
    present = list(dict.fromkeys(panel.encoder for panel in cut if panel.encoder is not None))
    ordered = [name for name in encoder_names(spec) if name in present]
    return [*ordered, *(name for name in present if name not in ordered)] or [None]


def _shifted(panel: Panel) -> bool:
    return "trained_on" in panel.results and bool(panel.results["trained_on"].notna().any())
