"""How do label counts, the rule's answer and the paper's claims look? Rows of text for every format, and scatters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.analysis.claim import Claim
from orchestrator.analysis.comparisons import PREFERENCES
from orchestrator.analysis.labels import AREAS, LabelTable
from orchestrator.analysis.settle import Judged, Settlement
from orchestrator.reports.charts import Chart, curves
from orchestrator.reports.words import GLYPHS, NOTHING, number

LABELS_HEAD = "How many labels?"
SETTLE_HEAD = "What would settle it"


def labels_title(table: LabelTable) -> str:
    """What a table of label counts is of, and its common target."""
    where = table.benchmark + (f", {table.encoder}" if table.encoder else "")
    sizes = ", ".join(f"{n:,}" for n in table.sizes)
    level = table.level["auc"]
    if isinstance(level, str):
        return f"{where}: {sizes} labels tried; no common target: {level}"
    target = f"zero-router + 80 % of the gain of {table.reference}"
    return f"{where}: {sizes} labels tried; common target {number(level)} AUC: {target}"


def first_tables(tables: Sequence[LabelTable]) -> list[LabelTable]:
    """Of every benchmark the table of its first encoder."""
    first: dict[str, LabelTable] = {}
    for table in tables:
        first.setdefault(table.benchmark, table)
    return list(first.values())


def labels_rows(table: LabelTable) -> list[list[str]]:
    """Head and a row for each router; the reference is not held against itself."""
    within = f"Within {table.delta:g} of it"
    head = ["Router", f"AUC at {table.sizes[-1]:,}", f"{within}, AUC", f"{within}, AUC path"]
    head += ["To the target, AUC", "To the target, AUC path"]
    if table.reference:
        head.append(f"Against {table.reference}")
    rows = [head]
    for row in table.rows:
        cells = [row.router, number(row.full["auc"]), str(row.within["auc"]), str(row.within["auc_path"])]
        cells += [NOTHING if isinstance(table.level[area], str) else str(row.target[area]) for area in AREAS]
        if table.reference:
            cells.append(str(row.overtaking) if row.overtaking else NOTHING)
        rows.append(cells)
    return rows


def judged_rows(settlement: Settlement) -> list[list[str]]:
    """Head and a row for each learned router with the verdicts that the rule read; nothing without routers."""
    if not settlement.routers:
        return []
    head = ["Learned router", "AUC", *(f"Utility, {name}" for name in PREFERENCES), "Counts"]
    return [head, *([one.router, *_verdicts(one), _counts(one)] for one in settlement.routers)]


def claim_rows(claims: Sequence[Claim]) -> list[list[str]]:
    """Head and a row for each claim."""
    return [["The paper's claim", "Here", "Verdict"], *([row.claim, row.found, row.verdict] for row in claims)]


def claim_charts(claims: Sequence[Claim]) -> Iterator[Chart]:
    """A scatter for each claim that is one."""
    for claim in claims:
        if claim.scatter is not None:
            points = claim.scatter.points
            yield curves(
                {name: [(x, y, None, None)] for name, x, y in points.itertuples(index=False)},
                title=claim.claim[0].upper() + claim.claim[1:] + "?",
                caption=f"{claim.scatter.y_title[0].upper()}{claim.scatter.y_title[1:]} over "
                f"{claim.scatter.x_title}; a picture, no test.",
                file=claim.claim,
                x_title=claim.scatter.x_title,
                y_title=claim.scatter.y_title,
                styles={},
                joined=False,
                data=points,
            )


def _verdicts(one: Judged) -> list[str]:
    found = [one.verdict, *(one.selection.get(preference) for preference in PREFERENCES)]
    glyphs = [one.kind, *(one.selection_kind(preference) for preference in PREFERENCES)]
    return [f"{GLYPHS[kind]} {text}" if text else "not run" for kind, text in zip(glyphs, found, strict=True)]


def _counts(one: Judged) -> str:
    return "refutes" if one.refutes else "supports" if one.supports else "leaves it open"
