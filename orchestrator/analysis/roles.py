"""Which router of a sweep is which? The tuned kNN, the learned routers, the zero-router, by their registered names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

#: Routers that look labelled queries up, one by one or by cluster, instead of learning a function of the query.
LOOKUPS = frozenset({"knn", "cf-user", "tensoropera", "routellm-sw", "shnitzer", "eagle", "avengers", "uniroute"})
#: Routers that call several models or read their answers: they decide on more than kNN sees.
SEE_ANSWERS = frozenset({"automix", "blending", "cascade", "frugalgpt", "fusion", "llm-blender", "two-tier"})


def registered(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Registered names by display name; a router that the sweep file does not list goes by its own.

    Args:
        results: The view `results` of one sweep.
        spec: The sweep file as a dict.
    """
    entries = [entry for entry in (spec or {}).get("routers") or () if isinstance(entry, Mapping)]
    given = {
        str(entry.get("name") or entry.get("use")): str(entry.get("use") or entry.get("name")) for entry in entries
    }
    ordered = results.sort_values(["sweep_position", "router"], kind="stable")["router"].unique().tolist()
    return {str(name): given.get(str(name), str(name)) for name in ordered}


def zero_router(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> str | None:
    """Display name of the zero-router, None when the sweep has none."""
    return next((name for name, target in registered(results, spec).items() if target == "zero-router"), None)


def readers(results: pd.DataFrame) -> list[str]:
    """Routers that compete and read the queries' embedding, in the order of the sweep file."""
    rows = results[results["encoder"].notna() & results["twin_of"].isna()]
    rows = rows[~rows["privileged"].astype(bool) & ~rows["query_blind"].astype(bool)]
    return [str(name) for name in rows.sort_values(["sweep_position", "router"], kind="stable")["router"].unique()]


def learned_routers(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> list[str]:
    """Routers that learn a function of the query and see no more than kNN does, in the order of the sweep file."""
    names = registered(results, spec)
    return [name for name in readers(results) if names[name] not in LOOKUPS | SEE_ANSWERS]


def is_tuned(results: pd.DataFrame, router: str) -> bool:
    """Whether every one of its results was tuned."""
    own = results.loc[results["router"] == router, "chosen"]
    return len(own) > 0 and bool(own.notna().all())


def tuned_knn(results: pd.DataFrame, spec: Mapping[str, Any] | None, reference: str | None) -> str | None:
    """The tuned kNN that the claim is about: the reference if it is one, else the first, else None."""
    names = registered(results, spec)
    found = [name for name in readers(results) if names[name] == "knn" and is_tuned(results, name)]
    return reference if reference in found else next(iter(found), None)


def fixed_neighbours(results: pd.DataFrame, spec: Mapping[str, Any] | None = None) -> dict[int, str]:
    """Neighbour routers (kNN) by a fixed k, ascending, that differ in nothing else; of several families the largest.

    Reads the column `params` (JSON); without it there are none.
    """
    if "params" not in results:
        return {}
    names = registered(results, spec)
    families: dict[str, dict[int, str]] = {}
    for name in readers(results):
        if names[name] != "knn" or is_tuned(results, name):
            continue
        params = json.loads(results.loc[results["router"] == name, "params"].iloc[0] or "{}")
        k = params.pop("k", None)
        if k is not None:
            families.setdefault(json.dumps(params, sort_keys=True), {})[int(k)] = name
    largest: dict[int, str] = max(families.values(), key=len, default={})
    return dict(sorted(largest.items()))
