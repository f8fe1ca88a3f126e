"""Which results stand side by side? One panel per benchmark x encoder x formulation x training size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from orchestrator.errors import AnalysisError

#: Columns of the view `results` that the analysis reads.
COLUMNS = (
    "benchmark", "encoder", "router", "seed", "train_size", "n_train", "n_test", "formulation",
    "auc", "auc_path", "auc_rel", "utility_mean", "privileged", "query_blind", "twin_of", "sweep_position",
    "chosen", "tuning_seconds",
)  # fmt: skip

#: What a panel is ranked and judged by.
PRIMARY_METRIC: Mapping[str, str] = {"utility": "auc", "selection": "utility_mean"}


@dataclass(frozen=True, kw_only=True, eq=False)
class RouterRows:
    """One router's results in a panel; of a router without any all is empty."""

    #: Split indices, ascending. [K]
    seeds: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    #: Numeric columns of the view `results` by name, in the order of the splits; NaN = undefined. [K] each
    numbers: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    #: Whether it sees no query: query-blind, without an embedding, or a blind twin.
    sees_no_query: bool = False
    #: Its blind twin.
    twin: str | None = None

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A column by name. [K]."""
        return self.numbers.get(name, np.full(len(self.seeds), np.nan))


@dataclass(frozen=True, kw_only=True, eq=False)
class Panel:
    """Results that share queries, embedding, formulation and training size."""

    benchmark: str
    #: None where no router of the benchmark needs an embedding.
    encoder: str | None
    formulation: str
    train_size: float
    #: One row per router and split, in the order of the sweep file; baselines without an embedding are in every panel.
    results: pd.DataFrame

    @property
    def title(self) -> str:
        """What tells this panel from the others of its benchmark."""
        size = "" if self.train_size == 1 else f", {self.train_size:.0%} of the training side"
        formulation = "" if self.formulation == "utility" else f", {self.formulation}"
        return (self.encoder or "no encoder") + formulation + size

    @property
    def metric(self) -> str:
        """The metric that ranks its routers."""
        return PRIMARY_METRIC[self.formulation]

    @cached_property
    def routers(self) -> Mapping[str, RouterRows]:
        """Every router's results as arrays: hundreds of pairs are made of them, and each cost pandas 20 ms."""
        results = self.results
        numeric = results.select_dtypes("number")
        values = dict(zip(numeric.columns, numeric.to_numpy(dtype=np.float64, na_value=np.nan).T, strict=True))
        blind = results["query_blind"].astype(bool) | results["twin_of"].notna() | needs_no_embedding(results)
        twins = results[["twin_of", "router"]].dropna().drop_duplicates("twin_of")
        twin_of = dict(zip(twins["twin_of"], twins["router"], strict=True))
        seeds, sees_no_query = results["seed"].to_numpy(dtype=np.int64), blind.to_numpy(dtype=bool)
        found = {}
        for router, rows in results.groupby("router", sort=False).indices.items():
            order = rows[np.argsort(seeds[rows], kind="stable")]
            found[str(router)] = RouterRows(
                seeds=seeds[order],
                numbers={name: column[order] for name, column in values.items()},
                sees_no_query=bool(sees_no_query[rows].any()),
                twin=twin_of.get(router),
            )
        return found

    @cached_property
    def n_splits(self) -> int:
        """Splits on which some router has a value of the metric; a router that lacks one is incomplete."""
        return int(self.results.loc[self.results[self.metric].notna(), "seed"].nunique())


def panels(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> list[Panel]:
    """Cut results into panels, in the order of the sweep file; the first is the primary one.

    Args:
        results: The view `results` of one sweep.
        spec: The sweep file as a dict; without it benchmarks and encoders go by name.

    Raises:
        AnalysisError: When there are no results, a column is missing, or a router has two results for one split.
    """
    _check(results)
    encoders = encoder_names(spec)
    benchmark_names = [_name(entry) for entry in (spec or {}).get("benchmarks") or ()]
    return sorted(
        _cut(results),
        key=lambda panel: (
            _benchmark_position(benchmark_names, panel.benchmark),
            panel.benchmark,
            panel.formulation != "utility",
            -panel.train_size,
            encoders.index(panel.encoder) if panel.encoder in encoders else len(encoders),
            panel.encoder or "",
        ),
    )


def full_size(panels: Sequence[Panel]) -> list[Panel]:
    """Only the panels at their benchmark's largest training size: smaller ones are learning curves, not verdicts."""
    largest: dict[str, float] = {}
    for panel in panels:
        largest[panel.benchmark] = max(panel.train_size, largest.get(panel.benchmark, 0.0))
    return [panel for panel in panels if panel.train_size == largest[panel.benchmark]]


def encoder_names(spec: Mapping[str, Any] | None) -> list[str]:
    """Display names of a sweep file's encoders, the primary one first."""
    return [_name(entry) for entry in (spec or {}).get("encoders") or ()]


def needs_no_embedding(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows come from baselines that every encoder shares."""
    return rows["encoder"].isna()


def _check(results: pd.DataFrame) -> None:
    if results.empty:
        raise AnalysisError("the sweep has no finished result yet; run it, or `roadtest status` to see how far it is.")
    missing = [column for column in COLUMNS if column not in results]
    if missing:
        raise AnalysisError(f"results lack the column(s) {', '.join(missing)}; the view `results` has them.")
    cell = ["benchmark", "encoder", "formulation", "train_size", "router", "seed"]
    twice = results[results.duplicated(cell)]
    if not twice.empty:
        row = twice.iloc[0]
        raise AnalysisError(
            f"router {row['router']!r} has two results for split {row['seed']} of benchmark {row['benchmark']!r} "
            f"(encoder {row['encoder']}); give routers with different parameters different names in the sweep file."
        )


def _cut(results: pd.DataFrame) -> Iterator[Panel]:
    numbers = {
        name: pd.to_numeric(results[name]) for name in ("auc", "auc_path", "auc_rel", "utility_mean", "tuning_seconds")
    }
    ordered = results.assign(**numbers).sort_values(["sweep_position", "router", "seed"], kind="stable")
    for _, rows in ordered.groupby(["benchmark", "formulation", "train_size"], sort=False):
        first = rows.iloc[0]
        shared = needs_no_embedding(rows)
        for encoder in rows.loc[~shared, "encoder"].unique().tolist() or [None]:
            yield Panel(
                benchmark=str(first["benchmark"]),
                encoder=encoder,
                formulation=str(first["formulation"]),
                train_size=float(first["train_size"]),
                results=rows[shared | (rows["encoder"] == encoder)].reset_index(drop=True),
            )


def _name(entry: Any) -> str:
    return str(entry.get("name") or entry.get("use") or "") if isinstance(entry, Mapping) else str(entry)


def _benchmark_position(names: Sequence[str], benchmark: str) -> int:
    matches = (i for i, name in enumerate(names) if benchmark == name or benchmark.startswith(name + "/"))
    return next(matches, len(names))
