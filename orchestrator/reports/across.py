"""What does a report say across suites? A table, its notes and a picture of ranks for each encoder and formulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.analysis.across import AcrossSuites, across_frame, across_slice, suite_frame
from orchestrator.analysis.ranking import RANKING_SUITES, Ranking
from orchestrator.analysis.sentences import p_value, signed
from orchestrator.analysis.suite_ranks import SuiteRanking, suite_ranking
from orchestrator.analysis.suites import Incomplete, Slice, slices
from orchestrator.analysis.verdicts import Kind
from orchestrator.reports.charts import Ladder, ladder
from orchestrator.reports.words import GLYPHS, METRIC_TITLES, NOTHING, difference, interval, number, p

#: Below the table, wherever it is printed.
METHOD = (
    "Random-effects mean over suites of the differences paired by split (members of a suite averaged first): variance "
    "of a suite by Nadeau and Bengio, τ, the sd between suites, by Paule and Mandel, interval by Hartung and Knapp "
    "(q ≥ 1, t at N − 1). New suite: where the true difference of one more suite is to be expected, approximate."
)

#: Columns that a terminal is too narrow for.
DETAILS = ("Holm p of rel", "Signed-rank p", "90 % interval", "Detectable", "Least margin")


@dataclass(frozen=True, kw_only=True, eq=False)
class AcrossPart:
    """One encoder and formulation across suites."""

    encoder: str | None
    formulation: str
    primary: bool
    #: Of every metric, none without a reference.
    rows: tuple[AcrossSuites, ...]
    ranks: SuiteRanking

    @property
    def title(self) -> str:
        """What tells it from the others, and whether it is the primary family."""
        formulation = "" if self.formulation == "utility" else f", {self.formulation}"
        return f"{self.encoder or 'no encoder'}{formulation}: {'primary family' if self.primary else 'exploratory'}"

    @property
    def judged(self) -> list[AcrossSuites]:
        """Rows of the judged metric, the largest difference first."""
        metric = self.rows[0].metric if self.rows else ""
        own = [row for row in self.rows if row.metric == metric]
        return sorted(own, key=lambda row: -math.inf if row.difference is None else row.difference, reverse=True)

    def companion(self, row: AcrossSuites, metric: str) -> AcrossSuites | None:
        """The same comparison on another metric."""
        return next((own for own in self.rows if (own.candidate, own.metric) == (row.candidate, metric)), None)


def across_parts(
    results: pd.DataFrame, reference: str | None, *, margin: float, spec: Mapping[str, Any]
) -> tuple[AcrossPart, ...]:
    """Everything across suites, the primary family first; empty below two suites."""
    if "suite" not in results or results["suite"].nunique() < 2:
        return ()
    return tuple(_part(part, reference, margin) for part in slices(results, spec))


def _part(part: Slice, reference: str | None, margin: float) -> AcrossPart:
    return AcrossPart(
        encoder=part.encoder,
        formulation=part.formulation,
        primary=part.primary,
        rows=tuple(across_slice(part, reference, margin=margin)) if reference else (),
        ranks=suite_ranking(part),
    )


def table(part: AcrossPart) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the comparisons with the reference, as text; no rows without a reference."""
    judged = part.judged
    if not judged:
        return [], []
    title = METRIC_TITLES[judged[0].metric]
    areas = ["Δ path", "Δ rel", "Holm p of rel"] if part.formulation == "utility" else []
    head = [
        "Router", "Suites", f"Δ {title}", "95 % interval", "Holm p", "τ", "New suite", *areas, "Signed-rank p",
        "Verdict", "90 % interval", "Detectable", "Least margin",
    ]  # fmt: skip
    return head, [_cells(part, row) for row in judged]


def _cells(part: AcrossPart, row: AcrossSuites) -> list[str]:
    effect, relative = row.effect, part.companion(row, "auc_rel")
    areas = []
    if part.formulation == "utility":
        areas = [
            difference(row.other_difference),
            NOTHING if relative is None or relative.difference is None else signed(relative.difference, 3),
            p(relative.p_holm if relative else None),
        ]
    least = number(effect.equivalence_limit() if effect else None)
    return [
        row.candidate,
        f"{row.n_suites} of {row.n_suites + len(row.incomplete)}" if row.incomplete else str(row.n_suites),
        difference(row.difference),
        interval(effect.ci95 if effect else None),
        p(row.p_holm),
        number(effect.tau if effect else None),
        interval(effect.prediction if effect else None),
        *areas,
        "refused" if row.signed_rank.refused else p(row.signed_rank.p_holm),
        f"{GLYPHS[row.kind]} {row.verdict}",
        interval(effect.ci90 if effect else None),
        number(effect.detectable() if effect else None),
        least + ("; cannot show equivalence" if row.cannot_show_equivalence and row.kind in _UNDECIDED else ""),
    ]


_UNDECIDED = (Kind.INCONCLUSIVE, Kind.NOT_WORSE, Kind.NONE)


def pair_table(rows: Sequence[AcrossSuites]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of one pair by encoder and metric."""
    head = [
        "encoder",
        "metric",
        "suites",
        "difference",
        "95 % interval",
        "p",
        "τ",
        "new suite",
        "signed-rank p",
        "verdict",
    ]
    cells = []
    for row in rows:
        digits = 3 if row.metric == "auc_rel" else 2
        effect = row.effect
        cells.append(
            [
                f"{row.encoder or NOTHING}{'' if row.formulation == 'utility' else f', {row.formulation}'}",
                METRIC_TITLES[row.metric],
                f"{row.n_suites} of {row.n_suites + len(row.incomplete)}" if row.incomplete else str(row.n_suites),
                NOTHING if effect is None else signed(effect.mean, digits),
                interval(effect.ci95 if effect else None, digits),
                p(effect.p if effect else None),
                number(effect.tau if effect else None, digits),
                interval(effect.prediction if effect else None, digits),
                "refused" if row.signed_rank.refused else p(row.signed_rank.p_holm),
                f"{GLYPHS[row.kind]} {row.verdict}",
            ]
        )
    return head, cells


def notes(rows: Sequence[AcrossSuites]) -> list[str]:
    """What was left out, and why the signed-rank test is refused, each said once."""
    gaps: dict[Incomplete, None] = {}
    for row in rows:
        gaps |= dict.fromkeys(row.incomplete)
    told = [f"Left out, not filled in: suite {gap.suite}, {gap.reason}." for gap in gaps]
    refused = dict.fromkeys(row.signed_rank.refused for row in rows if row.signed_rank.refused)
    return told + [f"Signed-rank test refused: {why}." for why in refused]


def rank_notes(ranks: SuiteRanking) -> list[str]:
    """Friedman's test in a line, and what the ranking leaves out."""
    told = []
    if ranks.ranking is not None:
        told.append(friedman(ranks.ranking))
    else:
        told.append("Ranks take two complete suites and two routers: none are given.")
    if ranks.unranked:
        told.append(f"Not ranked, as they lack more than half of the suites: {', '.join(ranks.unranked)}.")
    return told + [f"Left out of the ranks: suite {gap.suite}, {gap.reason}." for gap in ranks.incomplete]


def friedman(ranking: Ranking) -> str:
    """Friedman's test of equal average ranks, as Iman and Davenport's F."""
    n, k = len(ranking.suites), len(ranking.routers)
    where = f"Friedman over {n} suites and {k} routers"
    if math.isnan(ranking.f):
        return f"{where}: all routers tie on every suite."
    if math.isinf(ranking.f):
        found = f"{where}: every suite has the same order, chance of that {number(ranking.p, 4)}"
    else:
        degrees = f"F({k - 1}, {(k - 1) * (n - 1)})"
        chi = f"χ² {ranking.chi_square:.2f}"
        found = f"{where}: {chi}, Iman and Davenport's {degrees} = {ranking.f:.2f}, p {p_value(ranking.p)}"
    return found + ("." if ranking.carries_verdict else f"; no verdict by ranks below {RANKING_SUITES} suites.")


def ladder_chart(part: AcrossPart) -> Ladder | None:
    """Average ranks with Nemenyi's critical difference, None without a ranking."""
    ranking = part.ranks.ranking
    if ranking is None:
        return None
    few = "" if ranking.carries_verdict else f" A picture: no verdict rests on it below {RANKING_SUITES} suites."
    return ladder(
        ranking,
        title=f"Average ranks over suites, {part.title}",
        caption="1 = best. Bars join routers whose average ranks lie within Nemenyi's critical difference at 5 %."
        + few,
        file=f"average ranks {part.encoder or 'no encoder'} {part.formulation}",
    )


def frames(parts: Sequence[AcrossPart]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Numbers behind the tables and pictures, by name."""
    rows = [row for part in parts for row in part.rows]
    if rows:
        yield "across-suites", across_frame(rows)
        yield "suites", suite_frame(rows)
    ranks = [
        {"encoder": part.encoder, "formulation": part.formulation, "router": router, "average_rank": rank}
        | {"suites": len(ranking.suites), "critical_difference": ranking.critical_difference}
        for part in parts
        if (ranking := part.ranks.ranking)
        for router, rank in zip(ranking.routers, ranking.ranks, strict=True)
    ]
    if ranks:
        yield "ranks", pd.DataFrame(ranks)
