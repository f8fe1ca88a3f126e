"""Is the ranking of routers the same on every benchmark and under every encoder? Kendall's W, and who turns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from orchestrator.analysis.claim import Claim, counted, first_panels, not_measured, suite_of
from orchestrator.analysis.comparisons import Comparison
from orchestrator.analysis.concordance import Concordance, concordance
from orchestrator.analysis.panels import Panel
from orchestrator.analysis.roles import readers
from orchestrator.analysis.sentences import names, p_value
from orchestrator.analysis.verdicts import ALPHA, Kind

#: Routers that make a ranking: of two, any two rankings agree every other time.
RANKED = 3


def across_benchmarks(panels: Sequence[Panel], comparisons: Sequence[Comparison]) -> Claim:
    """Rankings by suite, a suite's benchmarks averaged, as they share queries.

    Of the routers that read the query: baselines would make any two rankings agree. A router that is shown better than
    the reference on one benchmark and worse on another refutes it, whatever W is.
    """
    claim = "the ranking of routers is the same on every benchmark"
    primary = first_panels(panels)
    every = pd.DataFrame([_means(panel).rename(suite_of(panel)) for panel in primary])
    table = every.dropna(axis=1)
    by_suite = table.groupby(level=0, sort=False).mean()
    if len(by_suite) < 2 or by_suite.shape[1] < RANKED:
        return not_measured(claim, f"two suites or more with {RANKED} routers that read the query on each")
    found = concordance(by_suite, np.random.default_rng(0))
    turned = _turned(primary, comparisons)
    verdict = _agreement(found)
    if turned:
        against = comparisons[0].reference
        verdict = f"refuted: {names(turned)} shown better than {against} on one benchmark and worse on another"
    absent = [str(name) for name in every if name not in table]
    without = f", without {names(absent)}, absent somewhere" if absent else ""
    text = f"{_words(found)} over {counted(found.n, 'suite')} and {found.k} routers{without}"
    return Claim(claim=claim, found=text, verdict=verdict)


def across_encoders(panels: Sequence[Panel]) -> Claim:
    """Rankings under each encoder of a benchmark: rank stability (protocol 5.1)."""
    claim = "the ranking of routers is the same under every encoder"
    found: dict[str, Concordance] = {}
    for benchmark in dict.fromkeys(panel.benchmark for panel in panels):
        own = [panel for panel in panels if panel.benchmark == benchmark and panel.encoder is not None]
        table = pd.DataFrame([_means(panel).rename(panel.encoder) for panel in own]).dropna(axis=1)
        if len(table) > 1 and table.shape[1] >= RANKED:
            found[benchmark] = concordance(table, np.random.default_rng(0))
    if not found:
        return not_measured(claim, f"two encoders or more with {RANKED} routers that read the query under each")
    if len(found) == 1:
        [(benchmark, one)] = found.items()
        text = f"{_words(one)} over {counted(one.n, 'encoder')} and {one.k} routers on {benchmark}"
        return Claim(claim=claim, found=text, verdict=_agreement(one))
    sizes = sorted(one.w for one in found.values())
    shown = sum(one.p < ALPHA for one in found.values())
    median = f"median {np.median(sizes):.2f}"
    return Claim(
        claim=claim,
        found=f"Kendall's W {sizes[0]:.2f} to {sizes[-1]:.2f}, {median}, on {len(found)} benchmarks",
        verdict=f"alike beyond chance (p < {ALPHA:g}, not adjusted) on {shown} of {len(found)} benchmarks",
    )


def _turned(primary: Sequence[Panel], comparisons: Sequence[Comparison]) -> list[str]:
    """Routers that read the query with *better* on one benchmark and *worse* on another."""
    where = {(panel.benchmark, panel.encoder): set(readers(panel.results)) for panel in primary}
    kinds: dict[str, set[Kind]] = {}
    for row in comparisons:
        if row.metric == "auc" and row.candidate in where.get((row.benchmark, row.encoder), ()):
            kinds.setdefault(row.candidate, set()).add(row.kind)
    return [router for router, own in kinds.items() if own >= {Kind.BETTER, Kind.WORSE}]


def _words(found: Concordance) -> str:
    null = f"95 % of random rankings up to {found.null_95:.2f}, p {p_value(found.p)}"
    return f"Kendall's W = {found.w:.2f} ({null})"


def _agreement(found: Concordance) -> str:
    if not found.p < ALPHA:
        return "open: no more agreement than chance may give"
    return "the same here" if found.w > 1 - 1e-9 else "alike beyond chance, not the same"


def _means(panel: Panel) -> pd.Series[float]:
    """Mean AUC of the routers that read the query and have every split."""
    rows = panel.results[panel.results["router"].isin(readers(panel.results)) & panel.results["auc"].notna()]
    areas = rows.groupby("router", sort=False)["auc"]
    return areas.mean()[areas.count() == panel.n_splits]
