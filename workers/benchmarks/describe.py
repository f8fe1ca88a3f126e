"""What is in a benchmark, how much can routing gain on it, and what should its reader beware of?"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from workers.benchmarks.base import ENOUGH_COMPLETE, Benchmark, Floats
from workers.evaluate import run_evaluate
from workers.metrics.areas import auc
from workers.metrics.frontier import Path, exact_path
from workers.routers.base import Prediction
from workers.units import EvaluateResult, EvaluateUnit, ProtocolOptions

#: A best single model outside this range of cost / c_ref decides most of the area by itself (protocol 2.4).
TELLING_COST_RATIOS = (0.1, 0.9)
#: Where the dearest model costs less than this many times the cheapest there is no cost to trade.
SMALLEST_COST_SPREAD = 1.5
#: Where the oracle's mean score is less than this above the best single model's there is nothing to gain.
SMALLEST_GAIN = 0.01
#: Splits that baselines and references are measured on.
SPLITS = 5
_MEASURED = ("zero-router", "task-zero", "task-oracle", "oracle")


def describe(benchmark: Benchmark) -> dict[str, Any]:
    """Counts, prices, headroom and warnings; plain values that JSON can hold.

    Returns:
        `models` are in canonical order with means over their observed cells (USD; `cost_ratio` = mean cost / c_ref).
        `headroom` is over complete rows of all queries: `best_single` (highest mean score, then cheaper, then
        earlier) and `oracle_score` are mean scores, `zero_router_auc` is the hull of the single models' means and
        `oracle_auc` that of the oracle, both as `auc`; None where no row is complete. `on_test_sides` has the mean
        `auc` of baselines and references as a sweep measures them, over the first splits; None where that cannot be.
    """
    models = _models(benchmark)
    headroom = _headroom(benchmark)
    n_complete = int(benchmark.complete.sum())
    costs = [model["mean_cost"] for model in models if model["mean_cost"] is not None]
    n_cells = benchmark.n_queries * benchmark.n_models
    n_missing = int(np.isnan(benchmark.S).sum())
    summary: dict[str, Any] = {
        "name": benchmark.name,
        "suite": benchmark.suite,
        "fingerprint": benchmark.fingerprint,
        "embedded": benchmark.embedded,
        "n_queries": benchmark.n_queries,
        "n_models": benchmark.n_models,
        "n_images": sum(image is not None for image in benchmark.images),
        "tasks": dict(sorted(Counter(benchmark.tasks).items())),
        "n_groups": len(set(benchmark.groups)),
        "n_source_groups": len(benchmark.source_groups),
        "n_duplicates": benchmark.n_queries - len(set(benchmark.groups)),
        "n_missing": n_missing,
        "missing_share": n_missing / n_cells,
        "n_complete": n_complete,
        "complete_share": n_complete / benchmark.n_queries,
        "auc_refused": n_complete < ENOUGH_COMPLETE * benchmark.n_queries,
        "c_ref": benchmark.c_ref,
        "cost_spread": max(costs) / min(costs) if min(costs) > 0 else None,
        "models": models,
        "headroom": headroom,
        "on_test_sides": _on_test_sides(benchmark),
    }
    return {**summary, "warnings": _warnings(summary)}


def _models(benchmark: Benchmark) -> list[dict[str, Any]]:
    facts = []
    for j, model in enumerate(benchmark.models):
        observed = ~np.isnan(benchmark.S[:, j])
        cost = float(benchmark.C[observed, j].mean()) if observed.any() else None
        facts.append(
            {
                "name": model.name,
                "family": model.family,
                "price_in": model.price_in,
                "price_out": model.price_out,
                "n_observed": int(observed.sum()),
                "mean_score": float(benchmark.S[observed, j].mean()) if observed.any() else None,
                "mean_cost": cost,
                "cost_ratio": None if cost is None else float(_ratios(np.array(cost), benchmark)),
            }
        )
    return facts


def _headroom(benchmark: Benchmark) -> dict[str, Any] | None:
    if not benchmark.complete.any():
        return None
    scores, costs = benchmark.S[benchmark.complete], _ratios(benchmark.C[benchmark.complete], benchmark)
    mean_scores, mean_costs = scores.mean(axis=0), costs.mean(axis=0)
    best = int(np.lexsort((mean_costs, -mean_scores))[0])
    singles = Path(costs=mean_costs, scores=mean_scores, prices=np.full(benchmark.n_models, np.nan))
    oracle = exact_path(Prediction(scores=scores, costs=costs), scores, costs)
    return {
        "best_single": benchmark.models[best].name,
        "best_single_score": float(mean_scores[best]),
        "best_single_cost_ratio": float(mean_costs[best]),
        "oracle_score": float(scores.max(axis=1).mean()),
        "zero_router_auc": auc(singles),
        "oracle_auc": auc(oracle),
    }


def _on_test_sides(benchmark: Benchmark) -> dict[str, float] | None:
    units = [
        EvaluateUnit(key=f"{name} {i}", router=name, params={}, split=i, protocol=ProtocolOptions(bootstrap=0))
        for name in _MEASURED
        for i in range(SPLITS)
        if name not in ("task-zero", "task-oracle") or benchmark.offers("task")
    ]
    found: dict[str, list[float]] = {}
    for unit, result in zip(units, run_evaluate(units, benchmark), strict=True):
        if not isinstance(result, EvaluateResult):  # too small to be split, or hardly a complete row
            return None
        found.setdefault(unit.router, []).append(float(result.metrics["auc"] or 0.0))
    return {name: float(np.mean(areas)) for name, areas in found.items()}


def _ratios(costs: Floats, benchmark: Benchmark) -> Floats:
    return costs / benchmark.c_ref if benchmark.c_ref > 0 else np.zeros_like(costs)


def _warnings(summary: dict[str, Any]) -> list[str]:
    warnings = []
    if summary["auc_refused"]:
        sparse = sorted(summary["models"], key=lambda model: (model["n_observed"], model["name"]))[:3]
        named = ", ".join(f"{model['name']} ({model['n_observed']})" for model in sparse)
        warnings.append(
            f"Only {summary['n_complete']} of {summary['n_queries']} queries have every model observed, so the AUC is "
            f"refused: the pool is too large; leave out models with few outcomes, such as {named}."
        )
    headroom, c_ref = summary["headroom"], summary["c_ref"]
    if summary["n_models"] == 1:
        warnings.append("There is one model: nothing to route between.")
    elif headroom is not None and (gain := headroom["oracle_score"] - headroom["best_single_score"]) < SMALLEST_GAIN:
        warnings.append(
            f"Routing is pointless for quality: choosing the best model for every query would gain {gain:.4f} in mean "
            f"score over {headroom['best_single']} alone; only cost can be saved."
        )
    if c_ref == 0:
        warnings.append("Every cost is 0: cost ratios are 0 and there is no cost to trade.")
    elif headroom is not None:
        low, high = TELLING_COST_RATIOS
        ratio = headroom["best_single_cost_ratio"]
        if not low <= ratio <= high:
            effect = (
                f"(under {low}): most of the AUC is the flat part beyond it"
                if ratio < low
                else f"(over {high}): the AUC hardly credits reaching its score"
            )
            warnings.append(
                f"The best single model, {headroom['best_single']}, costs {ratio:.2g} of the dearest model's mean cost "
                f"{effect}; read auc_rel beside it."
            )
    spread = summary["cost_spread"]
    if spread is not None and summary["n_models"] > 1 and spread < SMALLEST_COST_SPREAD:
        warnings.append(f"The dearest model costs only {spread:.2f} times the cheapest: hardly a cost to trade.")
    return warnings
