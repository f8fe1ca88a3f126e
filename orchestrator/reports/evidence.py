"""Which further pictures answer a study's questions? From results, findings and decisions alone, never an artefact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from orchestrator.analysis.corrected_t import nadeau_bengio
from orchestrator.analysis.panels import Panel
from orchestrator.reports.charts import Chart, bars, curves, listing, matrix
from orchestrator.reports.content import Content
from orchestrator.reports.doses import dose
from orchestrator.reports.figures import line_styles
from orchestrator.reports.locality import dosed_correlations, locality_charts
from orchestrator.reports.published import published

#: Routers that a figure of many lines or matrices shows at most; the data link has all.
MOST_ROUTERS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """What a report is made of, besides the sweep's facts."""

    #: The view `results`.
    results: pd.DataFrame
    #: The view `frontier`.
    frontier: pd.DataFrame
    #: Columns benchmark, model, mean_cost (USD), mean_score, family, c_ref.
    models: pd.DataFrame
    #: The view `findings`.
    findings: pd.DataFrame = field(default_factory=pd.DataFrame)
    #: Share of the queries that each router sends to each model, mean over splits: benchmark, encoder, router, model,
    #: share, at the balanced preference.
    shares: pd.DataFrame = field(default_factory=pd.DataFrame)
    #: Queries on which the reference loses most: benchmark, query, score, best, splits.
    hardest: pd.DataFrame = field(default_factory=pd.DataFrame)


def benchmark_charts(content: Content, frames: Frames, benchmark: str) -> list[Chart]:
    """Pictures of one benchmark: curves over labels and doses, encoders, locality, shares, hardest queries."""
    found: list[Chart] = []
    findings = frames.findings
    own = findings[findings["benchmark"] == benchmark] if len(findings) else findings
    primary = next(iter(content.benchmarks.get(benchmark, ())), None)
    if primary is None:  # measured and not evaluated
        return [*locality_charts(own, benchmark), *_growth(own, benchmark, {})]
    styles = line_styles(primary.panel, content.reference)
    results = _ordered(frames.results[frames.results["benchmark"] == benchmark])
    found += _twins(primary.panel, results)
    found += _published(primary.panel)
    found += _learning_curves(results, benchmark, styles)
    found += _encoders(results, benchmark)
    found += _doses(results, benchmark, styles, own)
    found += locality_charts(own, benchmark)
    found += _growth(own, benchmark, styles)
    shares = frames.shares
    found += _shares(shares[shares["benchmark"] == benchmark] if len(shares) else shares, benchmark, primary.panel)
    hardest = frames.hardest
    found += _hardest(hardest[hardest["benchmark"] == benchmark] if len(hardest) else hardest, benchmark, content)
    return found


def shift_charts(results: pd.DataFrame) -> list[Chart]:
    """A matrix of drops for each router and source of a study of shifts: in-distribution minus out, by column."""
    if "trained_on" not in results or results["trained_on"].isna().all():
        return []
    shifted = results[results["trained_on"].notna() & (results["formulation"] == "utility") & ~results["privileged"]]
    shifted = _ordered(shifted[shifted["twin_of"].isna()])
    found: list[Chart] = []
    for suite, own in shifted.groupby("suite", sort=False):
        for (encoder, _), rows in _cells(own):
            means = rows.groupby(["router", "trained_on", "task"], sort=False)["auc_path"].mean()
            for router in _routers(rows):
                table = means[router].unstack("task")
                diagonal = pd.Series({task: table.loc[task, task] for task in table.columns if task in table.index})
                found.append(_drops(diagonal - table, str(suite), encoder, router))
    return found


def _drops(drops: pd.DataFrame, suite: str, encoder: str | None, router: str) -> Chart:
    under = f", {encoder}" if encoder else ""
    return matrix(
        drops,
        title=f"{suite}: drop of {router} under shift",
        caption="AUC path when trained on the column's own task minus when trained on the row's, mean over splits"
        f"{under}. A column has one test side and one cost 1, and all training sides have one size. The drop of "
        "zero-router is what the shift of the models' mean scores and costs alone does.",
        file=f"shift {suite} {router}",
        corner="trained on, tested on",
    )


def _twins(panel: Panel, results: pd.DataFrame) -> Iterator[Chart]:
    full = results[(results["train_size"] == results["train_size"].max()) & (results["formulation"] == "utility")]
    rows = []
    for router, own in full[full["twin_of"].isna()].groupby(["router", "encoder"], sort=False):
        name, encoder = router
        twin = full[(full["twin_of"] == name) & (full["encoder"] == encoder)]
        if twin.empty:  # most routers have none
            continue
        both = own.merge(twin, on="seed", suffixes=("", "_twin"))
        if len(both) < 2:
            continue
        areas, blind = both["auc_path"], both["auc_path_twin"]
        test = nadeau_bengio((areas - blind).to_numpy(), both["n_train"], both["n_test"])
        rows.append((name, encoder, areas.mean(), blind.mean(), test.mean, *test.ci95, test.p))
    if rows:
        columns = ["router", "encoder", "AUC path", "of its twin", "gain", "from", "to", "p"]
        yield listing(
            pd.DataFrame(rows, columns=columns).sort_values(["router", "encoder"]),
            title="Against their blind twins",
            caption="A blind twin is the same router trained on permuted embeddings: what is gained over it was "
            "learned of queries. 95 % interval and p of Nadeau and Bengio, not adjusted.",
            file=f"blind twins {panel.benchmark}",
        )


def _published(panel: Panel) -> Iterator[Chart]:
    paper = published(panel.benchmark)
    measured = panel.results.groupby("router", sort=False)["auc"].agg(["mean", "std"]).reset_index()
    both = measured.merge(paper, on="router")
    if panel.formulation == "utility" and panel.train_size == 1 and len(both):
        rows = both.rename(columns={"mean": "measured AUC", "std": "sd", "auc": "published", "encoder": "its encoder"})
        yield listing(
            rows,
            title="Beside what was published",
            caption="AUC of Li 2025 (arXiv 2505.12601) for the benchmark and routers of these names. It prints "
            "neither its price grid, nor the ends of its hull, nor its training settings; encoder, sample and pool may "
            "differ too.",
            file=f"published {panel.benchmark}",
        )


def _learning_curves(results: pd.DataFrame, benchmark: str, styles: Mapping[str, str]) -> Iterator[Chart]:
    for (encoder, formulation), rows in _cells(results):
        if rows["train_size"].nunique() < 3 or formulation != "utility":
            continue
        lines: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
        data = []
        for router, own in _routers(rows).items():
            for size, at in own.groupby("train_size"):
                test = nadeau_bengio(at["auc"].to_numpy(), at["n_train"], at["n_test"]) if len(at) > 1 else None
                low, high = test.ci95 if test else (None, None)
                n = float(at["n_train"].mean())
                lines.setdefault(router, []).append((n, float(at["auc"].mean()), None, None))
                data.append((router, size, n, at["auc"].mean(), low, high))
        yield curves(
            lines,
            title=f"How many labels? {encoder or ''}".strip(),
            caption="AUC over the number of labelled training queries (logarithmic), mean over splits. Validation and "
            "test sides are the same at every size. The data have the 95 % intervals of the means, which are wide "
            "because all routers share a split's queries: differences are known better than means.",
            file=f"learning curve {benchmark} {encoder}",
            x_title="labelled queries",
            y_title="AUC",
            styles=styles,
            logarithmic=True,
            data=pd.DataFrame(data, columns=["router", "train_size", "n_train", "auc", "low", "high"]),
        )


def _encoders(results: pd.DataFrame, benchmark: str) -> Iterator[Chart]:
    full = results[(results["train_size"] == results["train_size"].max()) & (results["formulation"] == "utility")]
    embedded = full[full["encoder"].notna() & full["twin_of"].isna() & ~full["privileged"]]
    embedded = embedded[embedded["encoder"].map(dose).isna()]
    if embedded["encoder"].nunique() < 2:
        return
    zero = full.loc[full["router"] == "zero-router"].set_index("seed")["auc_path"]
    gain = embedded["auc_path"] - (embedded["seed"].map(zero) if len(zero) else 0.0)
    table = gain.groupby([embedded["router"], embedded["encoder"]], sort=False).mean().unstack("encoder")
    order = list(dict.fromkeys(embedded.sort_values("sweep_position")["encoder"]))
    yield matrix(
        table[order],
        title="Is it the encoder?",
        caption=("AUC path above zero-router" if len(zero) else "AUC path") + ", mean over splits.",
        file=f"encoders {benchmark}",
        corner="router, encoder",
    )


def _doses(results: pd.DataFrame, benchmark: str, styles: Mapping[str, str], findings: pd.DataFrame) -> Iterator[Chart]:
    # A smaller training size is a point of the learning curve, a selector has no area.
    results = results[(results["train_size"] == results["train_size"].max()) & (results["formulation"] == "utility")]
    of = {encoder: found for encoder in results["encoder"].dropna().unique() if (found := dose(encoder))}
    zero = results.loc[results["router"] == "zero-router"].set_index("seed")["auc_path"]
    for encoder in dict.fromkeys(base for base, _ in of.values()):
        percent = {encoder: 0.0} | {name: at for name, (base, at) in of.items() if base == encoder}
        part = results[results["encoder"].isin(percent)]
        doses = part["encoder"].map(percent)
        gain = part["auc_path"] - (part["seed"].map(zero) if len(zero) else 0.0)
        lines: dict[str, list[tuple[float, float, float | None, float | None]]] = {}
        data = []
        for router, own in _routers(part).items():
            for at, values in gain[own.index].groupby(doses[own.index]):
                rows = own.loc[values.index]
                test = nadeau_bengio(values.to_numpy(), rows["n_train"], rows["n_test"]) if len(values) > 1 else None
                low, high = test.ci95 if test else (None, None)
                lines.setdefault(router, []).append((float(str(at)), float(values.mean()), low, high))
                data.append((router, at, values.mean(), low, high))
        yield curves(
            lines,
            title=f"What is left without locality? {encoder}",
            caption="AUC path above zero-router when the embeddings of a part of the queries are permuted among them, "
            "the same splits at every dose; shaded: 95 % interval (Nadeau and Bengio)."
            + dosed_correlations(findings, encoder),
            file=f"dose {benchmark} {encoder}",
            x_title="% of the queries permuted",
            y_title="gain over zero-router",
            styles=styles,
            data=pd.DataFrame(data, columns=["router", "percent", "gain", "low", "high"]),
        )


def _growth(findings: pd.DataFrame, benchmark: str, styles: Mapping[str, str]) -> Iterator[Chart]:
    if not len(findings):
        return
    scaling = findings[findings["measure"] == "scaling"]
    for quantity, title, unit in (
        ("route_us_per_query", "What does routing cost?", "µs per query"),
        ("fit_seconds", "What does fitting cost?", "seconds"),
    ):
        rows = scaling[scaling["quantity"] == quantity]
        if len(rows):
            lines = {
                str(router): [
                    (x, y, None, None) for x, y in own.sort_values("x")[["x", "value"]].to_numpy(dtype=float).tolist()
                ]
                for router, own in rows.groupby("router", sort=False)
            }
            yield curves(
                lines,
                title=title,
                caption=f"{unit} over the number of labelled queries, one thread; an observation of one machine.",
                file=f"{quantity} {benchmark}",
                x_title="labelled queries",
                y_title=unit,
                styles=styles,
                logarithmic=True,
                data=rows[["router", "encoder", "x", "value"]],
            )
    grown = findings[findings["measure"] == "maintenance"]
    if len(grown):
        table = (
            grown.groupby(["router", "label", "quantity"], sort=False)["value"].mean().unstack("quantity").reset_index()
        )
        yield listing(
            table.rename(columns={"label": "news: way", "auc_path": "AUC path"}),
            title="Keeping up",
            caption="More labelled queries, or one more model, taken in by a fitted router against fitting anew on the "
            "same labels; stale: as it was. Means over splits; seconds are an observation.",
            file=f"maintenance {benchmark}",
            digits=3,
        )


def _shares(shares: pd.DataFrame, benchmark: str, panel: Panel) -> Iterator[Chart]:
    if not len(shares):
        return
    rows = shares[shares["encoder"].isna() | (shares["encoder"] == panel.encoder)]
    table = rows.pivot_table(
        index="router", columns="model", values="share", aggfunc="mean", fill_value=0.0, sort=False
    )
    table = table.div(table.sum(axis=1), axis=0)
    if len(table) and table.shape[1] > 1:
        yield bars(
            table.head(2 * MOST_ROUTERS),
            title="Who gets the queries?",
            caption="Share of the test queries that each router sends to each model at the balanced price of cost "
            "(0.5), mean over splits.",
            file=f"shares {benchmark}",
        )


def _hardest(hardest: pd.DataFrame, benchmark: str, content: Content) -> Iterator[Chart]:
    if len(hardest):
        yield listing(
            hardest[["query", "task", "score", "best", "lost", "splits"]],
            title="Where is most lost?",
            caption=f"Queries on which the model that {content.reference} chooses at the balanced price of cost scores "
            "furthest below the best model of the pool, mean over the splits that test them.",
            file=f"hardest queries {benchmark}",
        )


def _ordered(results: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of the sweep file, whatever order they came in."""
    return results.sort_values(["sweep_position", "router", "encoder", "benchmark", "seed"], kind="stable")


def _cells(results: pd.DataFrame) -> Iterator[tuple[tuple[str | None, str], pd.DataFrame]]:
    """Rows by encoder and formulation, with those of routers that read no embedding."""
    for formulation, rows in results.groupby("formulation", sort=False):
        blind = rows["encoder"].isna()
        for encoder in rows.loc[~blind, "encoder"].unique().tolist() or [None]:
            yield (encoder, str(formulation)), rows[blind | (rows["encoder"] == encoder)]


def _routers(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each router that competes, the first of the sweep file, in its order."""
    competing = rows[~rows["privileged"].astype(bool) & rows["twin_of"].isna()].sort_values(["sweep_position", "seed"])
    return {str(name): own for name, own in list(competing.groupby("router", sort=False))[:MOST_ROUTERS]}
