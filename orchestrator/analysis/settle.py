"""Is the claim for simple kNN refuted, supported or open? The rule that the protocol fixed beforehand (end of 5)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from typing import Any

import pandas as pd

from orchestrator.analysis.across import AcrossSuites
from orchestrator.analysis.comparisons import (
    PREFERENCES,
    Comparison,
    compare_at_preferences,
    compare_to_reference,
    comparison_frame,
)
from orchestrator.analysis.primary_family import primary_at_preferences, primary_family
from orchestrator.analysis.roles import learned_routers, tuned_knn
from orchestrator.analysis.sentences import names
from orchestrator.analysis.verdicts import VERDICT_SPLITS, Kind, Learned

#: Preferences at which a router that refutes has to be better on selection utility, of three.
ENOUGH_PREFERENCES = 2
#: Tags of an equivalence that says nothing, or may not.
_VACUOUS, _UNTESTED = "(vacuous)", f"({Learned.NOT_TESTED})"


class Outcome(StrEnum):
    """What the rule says."""

    #: One learned router is better in the primary family and on selection utility at two preferences.
    REFUTED = "refuted for this pool"
    #: Every learned router is worse, or equivalent and not vacuous.
    SUPPORTED = "supported"
    OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One learned router against tuned kNN; verdicts as comparisons print them."""

    router: str
    #: In the primary family; None where the two were not compared.
    verdict: str | None = None
    #: On selection utility, by preference, as far as it was run.
    selection: Mapping[str, str] = field(default_factory=dict)
    #: Smallest difference that would be found four times in five, in points.
    detectable: float | None = None
    n_splits: int | None = None

    @property
    def kind(self) -> Kind:
        """The verdict without suffix and tag."""
        return kind_of(self.verdict)

    def selection_kind(self, preference: str) -> Kind:
        """The verdict on selection utility at a preference, without suffix and tag."""
        return kind_of(self.selection.get(preference))

    @property
    def better_at(self) -> list[str]:
        """Preferences at which it is better as a selector."""
        return [preference for preference in self.selection if self.selection_kind(preference) is Kind.BETTER]

    @property
    def refutes(self) -> bool:
        """Whether it alone refutes the claim."""
        return self.kind is Kind.BETTER and len(self.better_at) >= ENOUGH_PREFERENCES

    @property
    def supports(self) -> bool:
        """Whether it is what the claim says of every learned router: worse, or equivalent and not vacuous."""
        says_something = not any(tag in (self.verdict or "") for tag in (_VACUOUS, _UNTESTED))
        return self.kind is Kind.WORSE or (self.kind is Kind.EQUIVALENT and says_something)


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What the rule says of one family of verdicts."""

    #: `on toolbox with minilm`, `across 5 suites with minilm`.
    where: str
    #: Which verdicts it rests on.
    basis: str
    #: Display name of the tuned kNN, None where the sweep has none.
    knn: str | None
    outcome: Outcome
    routers: tuple[Judged, ...] = ()
    #: What is not known and would be needed to decide; nothing unless it is open.
    missing: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The outcome with its grounds and, where it is open, what is missing to decide."""
        head = f"The claim that simple kNN does as well as learned routers is {self.outcome} {self.where}"
        match self.outcome:
            case Outcome.REFUTED:
                found = [
                    f"{one.router} is better than tuned kNN ({self.knn}), and on selection utility at "
                    f"{len(one.better_at)} of {len(PREFERENCES)} preferences ({names(one.better_at)})"
                    for one in self.routers
                    if one.refutes
                ]
                return f"{head}: {'; '.join(found)}." if found else f"{head}."
            case Outcome.SUPPORTED:
                found = _tally(self.routers)
                return f"{head}: against tuned kNN ({self.knn}) {'; '.join(found)}." if found else f"{head}."
            case _:
                found = _tally(self.routers)
                grounds = f": against tuned kNN ({self.knn}) {'; '.join(found)}" if found else ""
                return f"{head}{grounds}. To decide: {'; '.join(self.missing)}."


def kind_of(verdict: str | None) -> Kind:
    """The kind of a printed verdict, without suffix and tag; no verdict for None.

    Raises:
        ValueError: It is none.
    """
    found = [kind for kind in Kind if (verdict or Kind.NONE).startswith(kind)]
    if not found:
        raise ValueError(f"{verdict!r} is no verdict")
    return found[0]


def decide_claim(routers: Sequence[Judged]) -> Outcome:
    """The rule, over every learned router."""
    if any(one.refutes for one in routers):
        return Outcome.REFUTED
    return Outcome.SUPPORTED if routers and all(one.supports for one in routers) else Outcome.OPEN


def settle(
    results: pd.DataFrame,
    *,
    reference: str | None,
    margin: float = 1.0,
    spec: Mapping[str, Any] | None = None,
    comparisons: Sequence[Comparison] = (),
    across: Sequence[AcrossSuites] = (),
) -> list[Settlement]:
    """Apply the rule to a sweep, at the first encoder of each benchmark and the full training size.

    The primary family is the one across suites. A sweep of one suite has none: then the rule is applied to the
    verdicts within each benchmark, and the sweep's answer is what they agree on.

    Args:
        results: The view `results` of one sweep; benchmarks of a study of shifts do not count.
        reference: The sweep's reference; it is the kNN that is meant if it is a tuned one.
        margin: Margin of equivalence in points.
        spec: The sweep file as a dict.
        comparisons: Those with the reference where they were made already; else they are made here.
        across: Comparisons across suites, likewise.

    Returns:
        The sweep's answer first, then that of each benchmark where there are several; nothing where none counts.
    """
    if "trained_on" in results:
        results = results[results["trained_on"].isna()]
    if results.empty:
        return []
    knn, learned = tuned_knn(results, spec, reference), learned_routers(results, spec)
    n_suites = results["suite"].nunique() if "suite" in results else 1
    benchmarks = sorted(map(str, results["benchmark"].unique()))
    if knn is None or not learned:
        absent = [] if knn else ["no tuned kNN in the sweep (name: knn, tune: true)"]
        absent += [] if learned else ["no learned router in the sweep"]
        where = f"on {names(benchmarks)}"
        return [Settlement(where=where, basis="no verdict", knn=knn, outcome=Outcome.OPEN, missing=tuple(absent))]
    made = list(comparisons) if knn == reference and comparisons else []
    made = made or compare_to_reference(results, knn, margin=margin, spec=spec)
    chosen = compare_at_preferences(results, knn, margin=margin, spec=spec)
    encoders = _first_encoders(chain(made, *chosen.values()))
    within = [
        _on_benchmark(benchmark, encoders.get(benchmark), made, chosen, knn, learned)
        for benchmark in dict.fromkeys([*encoders, *benchmarks])
    ]
    if n_suites > 1:
        judged = _judged(
            primary_family(results, knn, margin=margin, spec=spec, made=across),
            primary_at_preferences(results, knn, margin=margin, spec=spec),
            learned,
        )
        encoder = next((encoder for encoder in encoders.values() if encoder), None)
        where = f"across {n_suites} suites" + (f" with {encoder}" if encoder else "")
        return [_settlement(where, "the verdicts across suites", knn, judged, more="suites"), *within]
    return within if len(within) == 1 else [_agreed(within, knn), *within]


def settlement_frame(settlements: Sequence[Settlement]) -> pd.DataFrame:
    """A row for each settlement and learned router, with the verdicts that the rule read."""

    def rows() -> Iterator[dict[str, Any]]:
        for one in settlements:
            place = {"where": one.where, "basis": one.basis, "knn": one.knn, "outcome": str(one.outcome)}
            for judged in one.routers or (None,):
                selection = {
                    f"selection {preference}": judged.selection.get(preference) if judged else None
                    for preference in PREFERENCES
                }
                yield {
                    **place,
                    "router": judged.router if judged else None,
                    "verdict": judged.verdict if judged else None,
                    **selection,
                    "to_decide": "; ".join(one.missing),
                }

    return pd.DataFrame(rows())


def _first_encoders(comparisons: Iterable[Comparison]) -> dict[str, str | None]:
    """The encoder of the first comparison of each benchmark."""
    first: dict[str, str | None] = {}
    for row in comparisons:
        first.setdefault(row.benchmark, row.encoder)
    return first


def _on_benchmark(
    benchmark: str,
    encoder: str | None,
    made: Sequence[Comparison],
    chosen: Mapping[str, Sequence[Comparison]],
    knn: str,
    learned: Sequence[str],
) -> Settlement:
    def family(rows: Sequence[Comparison]) -> pd.DataFrame:
        own = [row for row in rows if (row.benchmark, row.encoder) == (benchmark, encoder)]
        return comparison_frame(own).rename(columns={"candidate": "router"})

    judged = _judged(
        family([row for row in made if row.metric == "auc"]),
        {preference: family(rows) for preference, rows in chosen.items()},
        learned,
    )
    return _settlement(
        f"on {benchmark}" + (f" with {encoder}" if encoder else ""), "the verdicts within the benchmark", knn, judged
    )


def _agreed(within: Sequence[Settlement], knn: str) -> Settlement:
    outcomes = {one.outcome for one in within}
    outcome = outcomes.pop() if len(outcomes) == 1 else Outcome.OPEN
    missing = () if outcome is not Outcome.OPEN else tuple(f"{one.outcome} {one.where}" for one in within)
    return Settlement(
        where=f"on {len(within)} benchmarks of one suite",
        basis="what the verdicts within each benchmark agree on, as there is one suite only",
        knn=knn,
        outcome=outcome,
        missing=missing,
    )


def _judged(primary: pd.DataFrame, selection: Mapping[str, pd.DataFrame], learned: Sequence[str]) -> tuple[Judged, ...]:
    by_router = _verdicts(primary)
    by_preference = {preference: _verdicts(frame) for preference, frame in selection.items()}
    found = []
    for router in learned:
        own = by_router.get(router, {})
        chosen = {preference: rows.get(router, {}).get("verdict") for preference, rows in by_preference.items()}
        found.append(
            Judged(
                router=router,
                verdict=own.get("verdict"),
                selection={preference: str(verdict) for preference, verdict in chosen.items() if verdict},
                detectable=own.get("detectable"),
                n_splits=own.get("n_splits"),
            )
        )
    return tuple(found)


def _verdicts(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """What a family says of each router, as far as it does: `verdict`, `detectable`, `n_splits`."""
    columns = [column for column in ("verdict", "detectable", "n_splits") if column in frame]
    return {
        str(row["router"]): {column: row[column] for column in columns if pd.notna(row[column])}
        for row in frame.to_dict("records")
    }


def _settlement(where: str, basis: str, knn: str, judged: tuple[Judged, ...], *, more: str = "queries") -> Settlement:
    outcome = decide_claim(judged)
    missing = tuple(_missing(judged, knn, more)) if outcome is Outcome.OPEN else ()
    return Settlement(where=where, basis=basis, knn=knn, outcome=outcome, routers=judged, missing=missing)


def _missing(judged: Sequence[Judged], knn: str, more: str) -> Iterator[str]:
    """What keeps the rule from deciding, in the order of what is cheapest to mend."""
    if not any(one.selection for one in judged):
        yield "no selection runs in the sweep (formulation: [utility, selection])"
    elif unselected := [one.router for one in judged if one.kind is Kind.BETTER and not one.selection]:
        yield f"selection runs of {names(unselected)}"
    absent = [one.router for one in judged if one.verdict is None]
    if absent:
        yield f"utility prediction by {names([*absent, knn])} on the same splits"
    none = [one for one in judged if one.verdict is not None and one.kind is Kind.NONE]
    few = {one.n_splits for one in none if one.n_splits is not None and one.n_splits < VERDICT_SPLITS}
    if few:
        yield f"only {_range(few)} splits, a verdict takes {VERDICT_SPLITS}"
    elif none:
        yield f"two suites or more with {names([*(one.router for one in none), knn])}"
    elif any(kind_of(verdict) is Kind.NONE for one in judged for verdict in one.selection.values()):
        yield f"fewer than {VERDICT_SPLITS} splits of selection"
    for one in judged:
        if one.kind is Kind.BETTER and one.selection:
            at = f"{len(one.better_at)} of {len(PREFERENCES)} preferences"
            yield f"{one.router}, better in AUC, is better on selection utility at {at}, {ENOUGH_PREFERENCES} are asked"
    untested = [one.router for one in judged if _UNTESTED in (one.verdict or "")]
    if untested:
        yield f"blind twins (twin: true) of {knn} and {names(untested)}"
    vacuous = [one.router for one in judged if _VACUOUS in (one.verdict or "")]
    if vacuous:
        yield f"queries on which {', '.join([knn, *vacuous[:-1]])} or {vacuous[-1]} beats its blind twin"
    hull = [one.router for one in judged if one.kind is Kind.INCONCLUSIVE and "(hull)" in str(one.verdict)]
    if hull:
        yield f"one sign of {names(hull)} in AUC and AUC path"
    weak = [one for one in judged if one.kind in (Kind.INCONCLUSIVE, Kind.NOT_WORSE) and one.router not in hull]
    if weak:
        found = [one.detectable for one in weak if one.detectable is not None]
        size = f" (as it is, a true difference has to reach {max(found):.1f} points to be found)" if found else ""
        yield f"more {more} for {names([one.router for one in weak])}{size}"


def _range(counts: set[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _tally(routers: Sequence[Judged]) -> list[str]:
    """Routers by verdict: `linear and mlp are worse`."""
    groups: dict[str, list[str]] = {}
    for one in routers:
        if one.verdict is not None:
            word = "without a verdict" if one.kind is Kind.NONE else one.verdict
            groups.setdefault(word, []).append(one.router)
    return [f"{names(own)} {'is' if len(own) == 1 else 'are'} {word}" for word, own in groups.items()]
