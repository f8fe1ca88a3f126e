"""How do a report's tables get into a paper? Leaderboards and comparisons as Markdown, LaTeX or CSV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import pandas as pd

from orchestrator.reports import words
from orchestrator.reports.content import METRIC_TITLES, Content, PanelContent, Standing

#: What tells a leaderboard's panel, in the CSV.
_PLACE = ("benchmark", "encoder", "formulation", "train_size")
#: What LaTeX would take for markup.
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: f"\\{character}" for character in "&%$#_{}"},
        **{"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "\u00a0": "~"},
        **{"−": "$-$", "±": r"$\pm$", "Δ": r"$\Delta$", "≈": r"$\approx$", "≥": r"$\ge$", "·": r"$\cdot$"},
        **{"–": "--", "→": r"$\to$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$"},
    }
)


def tables(content: Content) -> dict[str, pd.DataFrame]:
    """A report by table: `summary` (its words), `leaderboard`, and `comparisons` where there are any."""
    standings, compared = [], []
    for panel in content.panels:
        place = {name: getattr(panel.panel, name) for name in _PLACE}
        standings += [{**place, **vars(row)} for row in panel.standings]
        for rows in panel.comparisons:
            compared += [row.as_dict() for row in rows.values()]
    said = [("verdict", content.sentence), *(("limit", line) for line in content.limits)]
    found = {
        "summary": pd.DataFrame(said, columns=["kind", "text"]),
        "leaderboard": pd.DataFrame(standings, columns=[*_PLACE, *(part.name for part in fields(Standing))]),
    }
    if compared:
        found["comparisons"] = pd.DataFrame(compared)
    return found


def markdown(content: Content) -> str:
    """The verdict and every panel's leaderboard as Markdown."""
    parts = [f"# {_md(content.name)}", _md(content.question), f"**{_md(content.sentence)}**"]
    parts += [f"- {_md(line)}" for line in content.limits]
    for panel in content.panels:
        if panel.is_full and not panel.is_dosed:
            parts += [f"## {_md(panel.panel.benchmark)}, {_md(panel.panel.title)}", _grid(_rows(panel, content))]
    return "\n\n".join(parts) + "\n"


def latex(content: Content) -> str:
    r"""Every panel's leaderboard as a LaTeX `table` with rules of `booktabs`; glyphs need `amssymb`."""
    parts = [r"% \usepackage{booktabs,amssymb}", "% " + " ".join(content.sentence.split())]
    parts += ["% " + " ".join(line.split()) for line in content.limits]
    for panel in content.panels:
        if not panel.is_full or panel.is_dosed:
            continue
        rows = _rows(panel, content)
        spec = "l" + "r" * (len(rows[0]) - 1)
        lines = [" & ".join(map(_tex, row)) + r" \\" for row in rows]
        caption = f"{panel.panel.benchmark}, {panel.panel.title}: means ± sd over {panel.panel.n_splits} splits"
        if panel.comparisons:
            caption += f"; differences to {content.reference} with 95 % intervals (Nadeau and Bengio) and verdicts"
        start = [r"\begin{table}", r"\centering", rf"\caption{{{_tex(caption)}.}}", rf"\begin{{tabular}}{{{spec}}}"]
        close = [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
        parts.append("\n".join([*start, r"\toprule", lines[0], r"\midrule", *lines[1:], *close]))
    return "\n\n".join(parts) + "\n"


#: What writes a report's text, by the name of its format.
TEXTS: Mapping[str, Callable[[Content], str]] = {"md": markdown, "latex": latex}


def _rows(panel: PanelContent, content: Content) -> list[list[str]]:
    utility = panel.panel.formulation == "utility"
    areas = ["AUC", "AUC path", "AUC rel"] if utility else []
    head = ["Router", *areas, METRIC_TITLES["utility_mean"]]
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


def _grid(rows: list[list[str]]) -> str:
    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    head, *body = [[_md(cell) for cell in row] for row in rows]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(map(line, [head, rule, *body]))


def _md(text: str) -> str:
    """Text that Markdown takes as text: neither markup, HTML nor a new line or cell."""
    plain = " ".join(text.split())
    for character in "\\`*_{}[]<>#|~":
        plain = plain.replace(character, f"\\{character}")
    return plain


def _tex(text: str) -> str:
    return " ".join(text.split()).translate(_LATEX)
