"""How do routers rank over suites? Complete suites alone, the others named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from orchestrator.analysis.comparisons import competes
from orchestrator.analysis.ranking import Ranking, rank_routers
from orchestrator.analysis.suites import Incomplete, Member, Slice


@dataclass(frozen=True, kw_only=True)
class SuiteRanking:
    """A ranking over the complete suites of a slice and what it leaves out."""

    #: None below 2 complete suites or 2 routers.
    ranking: Ranking | None
    incomplete: tuple[Incomplete, ...]
    #: Routers without full results on at least half of the suites.
    unranked: tuple[str, ...]


def suite_ranking(part: Slice) -> SuiteRanking:
    """Rank the routers that compete by their means on the judged metric, members of a suite averaged.

    A cell is full when the router has every split of every member, as on a leaderboard. Routers with full cells on
    fewer than half of the suites are not ranked; then a suite with a gap is left out.
    """
    routers = [
        str(name)
        for name, own in part.results.sort_values(["sweep_position", "router"]).groupby("router", sort=False)
        if competes(own)
    ]
    table = pd.DataFrame(
        {suite: _means(members, part.metrics[0]) for suite, members in part.suites.items()}, index=routers, dtype=float
    ).T
    ranked = [router for router in routers if 2 * table[router].notna().sum() >= len(table)]
    gaps = {suite: [router for router in ranked if pd.isna(row[router])] for suite, row in table.iterrows()}
    full = table.loc[[suite for suite, absent in gaps.items() if not absent], ranked]
    return SuiteRanking(
        ranking=rank_routers(full.to_numpy(), ranked, [str(suite) for suite in full.index])
        if len(full) > 1 and len(ranked) > 1
        else None,
        incomplete=tuple(
            Incomplete(suite=str(suite), reason=f"not every split of {', '.join(absent)}")
            for suite, absent in gaps.items()
            if absent
        ),
        unranked=tuple(router for router in routers if router not in ranked),
    )


def _means(members: Mapping[str, Member | None], metric: str) -> dict[str, float]:
    """Mean of each router over the suite's members; NaN for who lacks a split that another has."""
    by_member = []
    for member in members.values():
        if member is None:
            return {}
        table = pd.DataFrame(member.values[metric]).dropna(how="all")
        by_member.append(table.mean(skipna=False) if len(table) else table.mean())
    means = pd.concat(by_member, axis=1).mean(axis=1, skipna=False)
    return {str(router): float(mean) for router, mean in means.items()}
