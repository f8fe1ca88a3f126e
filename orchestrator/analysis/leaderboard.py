"""How did every router do? Means and spreads over splits, and ranks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from orchestrator.analysis.panels import Panel, panels

LEADERBOARD_COLUMNS = (
    "benchmark", "encoder", "formulation", "train_size", "rank", "router", "auc_mean", "auc_sd", "auc_path_mean",
    "auc_path_sd", "auc_rel_mean", "utility_mean", "utility_sd", "n_seeds", "privileged", "twin_of",
)  # fmt: skip


def leaderboard_table(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """Average over splits, one row per router of every panel, best first.

    Ranks (1 = best, equal means share the better rank) go by mean `auc`, or by mean utility where the formulation is
    selection. Privileged routers and blind twins are references and carry no rank, nor does a router that lacks a split
    of its panel: its mean is over other queries. sd: ddof 1, NaN for one split.

    Args:
        results: The view `results` of one sweep.
        spec: The sweep file as a dict, for the order of benchmarks and encoders.

    Returns:
        Columns `LEADERBOARD_COLUMNS`; `rank` is a nullable integer.
    """
    return pd.concat([panel_leaderboard(panel) for panel in panels(results, spec)], ignore_index=True)


def panel_leaderboard(panel: Panel) -> pd.DataFrame:
    """The rows of `leaderboard_table` for one panel."""
    rows = panel.results
    table = rows.groupby("router", sort=False).agg(
        auc_mean=("auc", "mean"),
        auc_sd=("auc", "std"),
        auc_path_mean=("auc_path", "mean"),
        auc_path_sd=("auc_path", "std"),
        auc_rel_mean=("auc_rel", "mean"),
        utility_mean=("utility_mean", "mean"),
        utility_sd=("utility_mean", "std"),
        n_seeds=(panel.metric, "count"),
        privileged=("privileged", "first"),
        twin_of=("twin_of", "first"),
    )
    scores = table["auc_mean" if panel.metric == "auc" else "utility_mean"].round(9)
    complete = table["n_seeds"] == panel.n_splits
    competes = ~table["privileged"].astype(bool) & table["twin_of"].isna() & complete
    table["rank"] = scores.where(competes).rank(ascending=False, method="min").astype("Int64")
    table = table.assign(_score=scores).sort_values("_score", ascending=False, kind="stable").reset_index()
    for column in ("benchmark", "encoder", "formulation", "train_size"):
        table[column] = getattr(panel, column)
    return table[list(LEADERBOARD_COLUMNS)]
