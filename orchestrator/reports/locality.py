"""How does the report show whether performance is local? A curve and a table beside their nulls, and a map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from orchestrator.reports.charts import Chart, curves, listing, plane
from orchestrator.reports.words import number

#: Rows of the table: quantity and label of its value, quantity and label of its p, and a name short enough for a phone.
_ROWS = (
    ("correlation", "", "p", "", "double-centred"),
    ("correlation", "", "p_within_task", "", "within tasks"),
    ("correlation", "same task", "p", "same task", "pairs of one task"),
    ("correlation", "model-centred", "p", "model-centred", "model-centred"),
    ("binned_correlation", "", "binned_p", "", "binned, as Li 2025"),
)

Findings = Mapping[tuple[Any, Any], Mapping[Any, Any]]


def locality_charts(findings: pd.DataFrame, benchmark: str) -> Iterator[Chart]:
    """Charts of one benchmark's findings, encoder by encoder.

    Args:
        findings: Rows of the view `findings` of that benchmark.
        benchmark: Its name.
    """
    if not len(findings):
        return
    for encoder, rows in findings[findings["measure"] == "locality"].groupby("encoder", sort=False):
        yield from _curve(rows, benchmark, str(encoder))
        yield from _numbers(rows, benchmark, str(encoder))
        yield from _map(rows, benchmark, str(encoder))


def dosed_correlations(findings: pd.DataFrame, encoder: str) -> str:
    """In words, what permuting a part of the embeddings leaves of the correlation; "" where it was not measured."""
    if not len(findings):
        return ""
    own = findings[(findings["measure"] == "locality") & (findings["encoder"] == encoder)]
    whole = own[(own["quantity"] == "correlation") & (own["label"] == "")]
    rows = own[own["quantity"] == "dosed_correlation"].sort_values("x")
    if whole.empty or rows.empty:
        return ""
    doses = [(0.0, whole["value"].iloc[0]), *rows[["x", "value"]].itertuples(index=False, name=None)]
    said = ", ".join(f"{value:+.4f} at {x:g} %".replace("-", "−") for x, value in doses)
    return f" Correlation of agreement with distance that is left: {said}."


def _curve(rows: pd.DataFrame, benchmark: str, encoder: str) -> Iterator[Chart]:
    agreement = rows[rows["quantity"] == "agreement"].sort_values(["label", "x"])
    primary = agreement[agreement["label"] == ""]
    if primary.empty:
        return
    at = primary[["x", "value", "low", "high"]].to_numpy(dtype=float).tolist()
    centred = agreement[agreement["label"] == "model-centred"][["x", "value"]].to_numpy(dtype=float).tolist()
    lines = {
        "observed": [(x, value, None, None) for x, value, _, _ in at],
        "null": [(x, (low + high) / 2, low, high) for x, _, low, high in at],
        **({"observed, queries' means kept": [(x, value, None, None) for x, value in centred]} if centred else {}),
    }
    yield curves(
        lines,
        title=f"Is performance local? {encoder}",
        caption="Agreement of two queries' scores, without the models' and the queries' means, over their distance; "
        "shaded: 95 % of permutations of the queries. Where the queries' means are kept, two queries agree by being "
        "hard for all models too.",
        file=f"locality {benchmark} {encoder}",
        x_title="distance",
        y_title="agreement",
        styles={"observed": "reference", "null": "c6 p2", "observed, queries' means kept": "c0 p1"},
        data=agreement[["label", "x", "value", "low", "high"]],
    )


def _numbers(rows: pd.DataFrame, benchmark: str, encoder: str) -> Iterator[Chart]:
    single = rows[rows["x"].isna()]
    found = {(row["quantity"], row["label"]): row for row in single.to_dict("records")}
    table = [
        (
            name,
            _shown(found[quantity, label]["value"]),
            _null(found[quantity, label]) if p_quantity != "p_within_task" else "–",
            _shown(found.get((p_quantity, p_label), {}).get("value")),
        )
        for quantity, label, p_quantity, p_label, name in _ROWS
        if (quantity, label) in found and (p_quantity, p_label) in found
    ]
    if not table:
        return
    yield listing(
        pd.DataFrame(table, columns=["correlation with distance", "value", "95 % of permutations", "p"]),
        title=f"Locality in numbers, {encoder}",
        caption="Below 0 near queries agree more than far ones. Double-centred: agreement without the models' and the "
        "queries' means; within tasks: the same number, its p by permutations within tasks; pairs of one task: between "
        "tasks nothing counts; model-centred: the queries' means are kept. p is one-sided, of binned means two-sided."
        + _binned(found)
        + _dimension(found),
        file=f"locality in numbers {benchmark} {encoder}",
    )


def _binned(found: Findings) -> str:
    """What the paper's figure is worth here."""
    row = found.get(("binned_correlation", ""))
    if row is None:
        return ""
    outside = not row["low"] <= row["value"] <= row["high"]
    undefined = found.get(("undefined_share", ""))
    share = (
        f" {100 * undefined['value']:.0f} % of the pairs have no such correlation: all models did alike on one of the "
        "two queries."
        if undefined
        else ""
    )
    return (
        " The last row is the figure of Li 2025 (−0.815 on ARC-challenge, −0.875 on GSM8K). Means of bins no longer "
        "show the noise of single pairs, and bins share queries, so that chance alone gives large figures too: here "
        f"95 % of permutations lie between {number(row['low'])} and {number(row['high'])}, and {number(row['value'])} "
        + ("lies outside." if outside else "lies within: it shows no locality.")
        + share
    )


def _dimension(found: Findings) -> str:
    row = found.get(("dimension", ""))
    return f" Intrinsic dimension (TwoNN): {row['value']:.1f}." if row and not pd.isna(row["value"]) else ""


def _map(rows: pd.DataFrame, benchmark: str, encoder: str) -> Iterator[Chart]:
    points = rows[rows["quantity"] == "map"].rename(columns={"value": "y"})[["x", "y", "label"]]
    if len(points):
        yield plane(
            points.reset_index(drop=True),
            title=f"The embedding by best model, {encoder}",
            caption="Up to 1000 queries on the two widest directions of the embedding, coloured by the model that "
            "answers best, the cheapest of several; no interval can be read off it.",
            file=f"map {benchmark} {encoder}",
        )


def _shown(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else number(value, 4 if abs(value) < 0.1 else 3)


def _null(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["low"]) or pd.isna(row["high"]):
        return "–"
    return f"{_shown(row['low'])} to {_shown(row['high'])}"
