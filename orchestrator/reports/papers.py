"""How do a report's tables get into a paper? Leaderboards and comparisons as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from orchestrator.analysis.claim import claim_frame
from orchestrator.analysis.labels import label_frame
from orchestrator.analysis.settle import settlement_frame
from orchestrator.reports import across, words
from orchestrator.reports.content import Content, PanelContent, Standing
from orchestrator.reports.settling import LABELS_HEAD, SETTLE_HEAD, claim_rows, judged_rows, labels_rows, labels_title

#: What tells a leaderboard's panel, in the CSV.
_PLACE = ("benchmark", "encoder", "formulation", "train_size")
#: Columns of the claims: text that wraps.
_CLAIMS = "".join(rf">{{\raggedright\arraybackslash}}p{{{width}\linewidth}}" for width in (0.26, 0.42, 0.24))
#: What LaTeX would take for markup.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "\u00a0": "~"},
        **{"−": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$", "≈": r"$\approx$", "≥": r"$\ge$", "·": r"$\cdot$"},
        **{"≤": r"$\le$", "ρ": r"$\rho$"},
        **{
            "τ": r"$\tau$",
            "χ": r"$\chi$",
            "²": r"$^2$",
            "–": "--",
            "→": r"$\to$",
            "▲": r"$\blacktriangle$",
            "▼": r"$\blacktriangledown$",
        },
    }
)


def tables(content: Content) -> dict[str, pd.DataFrame]:
    """A report by table: `summary` (its words), `leaderboard`, comparisons, across suites, labels, rule, claims."""
    standings, compared = [], []
    for panel in content.panels:
        place = {name: getattr(panel.panel, name) for name in _PLACE}
        standings += [{**place, **vars(row)} for row in panel.standings]
        for rows in panel.comparisons:
            compared += [row.as_dict() for row in rows.values()]
    said = [("verdict", line) for line in (content.sentence, content.counts) if line]
    said += [("limit", line) for line in content.limits]
    found = {
        "summary": pd.DataFrame(said, columns=["kind", "text"]),
        "leaderboard": pd.DataFrame(standings, columns=[*_PLACE, *(part.name for part in fields(Standing))]),
    }
    if compared:
        found["comparisons"] = pd.DataFrame(compared)
    if content.labels:
        found["labels"] = label_frame(content.labels)
    if content.settlements:
        found["settled"] = settlement_frame(content.settlements)
    if content.claims:
        found["claims"] = claim_frame(content.claims)
    return found | dict(across.frames(content.across))


def markdown(content: Content) -> str:
    """The verdict and every panel's leaderboard as Markdown."""
    parts = [f"# {_md(content.name)}", _md(content.question), f"**{_md(content.sentence)}**"]
    parts += [_md(content.counts)] if content.counts else []
    parts += [f"- {_md(line)}" for line in content.limits]
    for part in content.across:
        head, rows = across.table(part)
        parts.append(f"## Across suites, {_md(part.title)}")
        parts += [_grid([head, *rows])] if rows else []
        parts += [_md(note) for note in across.notes(part.rows) + across.rank_notes(part.ranks)]
        parts += [_grid(_rank_rows(part))] if part.ranks.ranking else []
    for panel in content.panels:
        if panel.is_full and not panel.is_dosed:
            parts += [f"## {_md(panel.panel.benchmark)}, {_md(panel.panel.title)}", _grid(_rows(panel, content))]
    if content.labels:
        parts.append(f"## {LABELS_HEAD}")
    for table in content.labels:
        parts += [_md(labels_title(table)), _grid(labels_rows(table))]
    if content.settlements:
        parts.append(f"## {SETTLE_HEAD}")
    for settlement in content.settlements:
        parts += [f"{_md(settlement.sentence)} Rests on {_md(settlement.basis)}."]
        parts += [_grid(rows)] if (rows := judged_rows(settlement)) else []
    if content.claims:
        parts.append(_grid(claim_rows(content.claims), text=True))
    return "\n\n".join(parts) + "\n"


def latex(content: Content) -> str:
    r"""Leaderboards, label counts and claims as LaTeX `table`s with rules of `booktabs`; glyphs need `amssymb`."""
    parts = [r"% \usepackage{booktabs,amssymb,array}", "% " + " ".join(content.sentence.split())]
    parts += ["% " + " ".join(line.split()) for line in (content.counts, *content.limits) if line]
    for part in content.across:
        head, body = across.table(part)
        if body:
            told = " ".join([across.METHOD, *across.notes(part.rows), *across.rank_notes(part.ranks)])
            parts.append(
                _tabular([head, *body], f"Across suites, {part.title}: differences to {content.reference}. {told}")
            )
    for panel in content.panels:
        if not panel.is_full or panel.is_dosed:
            continue
        caption = f"{panel.panel.benchmark}, {panel.panel.title}: means ± sd over {panel.panel.n_splits} splits"
        if panel.comparisons:
            caption += f"; differences to {content.reference} with 95 % intervals (Nadeau and Bengio) and verdicts"
        parts.append(_tabular(_rows(panel, content), f"{caption}."))
    parts += [_tabular(labels_rows(table), f"{LABELS_HEAD} {labels_title(table)}.") for table in content.labels]
    for settlement in content.settlements:
        rows = judged_rows(settlement)
        said = f"{settlement.sentence} Rests on {settlement.basis}."
        parts.append(_tabular(rows, said) if rows else f"% {' '.join(said.split())}")
    if content.claims:
        parts.append(_tabular(claim_rows(content.claims), "The paper's other claims.", spec=_CLAIMS))
    return "\n\n".join(parts) + "\n"


#: What writes a report's text, by the name of its format.
TEXTS: Mapping[str, Callable[[Content], str]] = {"md": markdown, "latex": latex}


def _tabular(rows: list[list[str]], caption: str, *, spec: str | None = None) -> str:
    spec = spec or "l" + "r" * (len(rows[0]) - 1)
    lines = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
    start = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}}}", rf"\begin{{tabular}}{{{spec}}}"]
    close = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join([*start, r"\toprule", lines[0], r"\midrule", *lines[1:], *close])


def _rank_rows(part: across.AcrossPart) -> list[list[str]]:
    ranking = part.ranks.ranking
    assert ranking is not None
    pairs = sorted(zip(ranking.ranks, ranking.routers, strict=True))
    rows = [[router, words.number(rank)] for rank, router in pairs]
    return [
        ["Router", "Average rank"],
        *rows,
        ["Nemenyi's critical difference", words.number(ranking.critical_difference)],
    ]


def _rows(panel: PanelContent, content: Content) -> list[list[str]]:
    utility = panel.panel.formulation == "utility"
    areas = ["AUC", "AUC path", "AUC rel"] if utility else []
    head = ["Router", *areas, words.METRIC_TITLES["utility_mean"]]
    if panel.comparisons:
        head += [f"Δ to {content.reference}", "95 % interval", "Verdict"]
    rows = [head]
    for row in panel.standings:
        shown = [f"{row.router} ({row.note})" if row.note else row.router]
        if utility:
            shown += [words.spread(row.auc, row.auc_sd), words.spread(row.auc_path, row.auc_path_sd)]
            shown += [words.number(row.auc_rel, 3), words.number(row.utility)]
        else:
            shown.append(words.spread(row.utility, row.utility_sd))
        if panel.comparisons:
            shown += _against(panel.against_reference(row.router))
        rows.append(shown)
    return rows


def _against(comparison: Any) -> list[str]:
    if comparison is None:
        return ["", "", ""]
    interval = words.interval(comparison.test.ci95 if comparison.test else None)
    verdict = f"{words.GLYPHS[comparison.kind]} {comparison.verdict}"
    return [words.difference(comparison.difference), interval, verdict]


def _grid(rows: list[list[str]], *, text: bool = False) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    head, *body = [[_md(cell) for cell in row] for row in rows]
    rule = ["---", *["---" if text else "---:"] * (len(head) - 1)]
    return "\n".join(map(line, [head, rule, *body]))


def _md(text: str) -> str:
    """Text that Markdown takes as text: neither markup, HTML nor a new line or cell."""
    plain = " ".join(text.split())
    for character in "\\`*_{}[]<>#|~":
        plain = plain.replace(character, f"\\{character}")
    return plain


def _tex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
