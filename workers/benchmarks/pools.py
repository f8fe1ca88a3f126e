"""Which models are a named pool, such as `alpacaeval/openai`, and what do calls cost at the pool's prices?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from workers.benchmarks.base import Benchmark, Floats, Model
from workers.benchmarks.columns import read_columns
from workers.benchmarks.prices import Price
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: Pools and prices of Li 2025 (arXiv 2505.12601).
_TABLE = Path(__file__).with_name("pools.csv")
_SEPARATORS = str.maketrans("._", "--")
#: A cost is tokens times price when it differs from that by less than this part.
_SAME_COST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Candidate models by name, with their prices."""

    name: str
    prices: Mapping[str, Price]


@dataclass(frozen=True, kw_only=True)
class Members:
    """Which of a benchmark's models are a pool's."""

    pool: Pool
    #: Name in the benchmark -> name in the pool.
    found: Mapping[str, str]
    #: Names of the pool that the benchmark lacks; with the names that it could be where there are several.
    missing: Sequence[str]

    def price(self, model: str) -> Price | None:
        """The pool's price of a model of the benchmark."""
        return self.pool.prices[self.found[model]] if model in self.found else None


@cache
def pools() -> dict[str, Pool]:
    """Every named pool."""
    table = read_columns(_TABLE, {"pool", "model", "input", "output"})
    names, models = table.strings("pool"), table.strings("model")
    found: dict[str, dict[str, Price]] = {}
    for name, model, given, out in zip(names, models, table.numbers("input"), table.numbers("output"), strict=True):
        found.setdefault(name or "", {})[model or ""] = Price(input=float(given), output=float(out))
    return {name: Pool(name=name, prices=prices) for name, prices in found.items()}


def find_pool(name: str) -> Pool:
    """The pool of this name.

    Raises:
        BenchmarkError: There is none.
    """
    known = pools()
    if name not in known:
        raise BenchmarkError(f"no pool {name!r}; {nearest(name, list(known))} (`roadtest benchmarks pools` lists them)")
    return known[name]


def match(pool: Pool, models: Sequence[str], where: str) -> Members:
    """Find a pool's models among those of a benchmark.

    By exact name, else by what follows the last `/`, else by that without case and with `.`, `_` and `-` taken as
    one; each only where it leaves no choice.

    Raises:
        BenchmarkError: Fewer than two are there.
    """
    found: dict[str, str] = {}
    missing = dict.fromkeys(pool.prices, "")
    for spell in _SPELLINGS:
        of_pool, of_models = (
            _by_spelling(list(missing), spell),
            _by_spelling([m for m in models if m not in found], spell),
        )
        for spelling, members in of_pool.items():
            candidates = of_models.get(spelling, [])
            if len(members) == len(candidates) == 1:
                found[candidates[0]] = members[0]
                del missing[members[0]]
            elif candidates:
                for member in members:
                    missing[member] = missing[member] or f"{member} (could be {' or '.join(candidates)})"
    if len(found) < 2:
        there = ", ".join(found) or "none"
        raise BenchmarkError(
            f"{where}: of pool {pool.name!r} {there} is there; a pool needs two models. "
            f"It has {', '.join(pool.prices)}; the benchmark has {_several(models)}."
        )
    return Members(pool=pool, found=found, missing=[note or name for name, note in missing.items()])


def keep_pool(benchmark: Benchmark, members: Members, *, at_pool_prices: bool = True) -> Benchmark:
    """A benchmark's models of a pool; `meta["pool"]` says which are missing and which prices hold.

    Args:
        benchmark: With at least the models that were found.
        members: What `match` found.
        at_pool_prices: Where token counts are there and costs are tokens times price, take the pool's price.
    """
    kept = benchmark.restrict(models=list(members.found))
    repriced: list[str] = []
    if at_pool_prices:
        kept, repriced = reprice(kept, members.price)
    report = {
        "name": members.pool.name,
        "models": dict(members.found),
        "missing": list(members.missing),
        "at_pool_prices": repriced,
    }
    return replace(kept, meta={**kept.meta, "pool": report})


def reprice(benchmark: Benchmark, price_of: Callable[[str], Price | None]) -> tuple[Benchmark, list[str]]:
    """Costs at other prices, of those models whose costs were tokens times the price that the benchmark records.

    Returns:
        The benchmark, and the models whose costs and prices are now those of `price_of`.
    """
    inputs, outputs = (benchmark.extras.get(f"{side}_tokens") for side in ("input", "output"))
    if inputs is None or outputs is None:
        return benchmark, []
    C = benchmark.C.copy()
    models: list[Model] = list(benchmark.models)
    repriced = []
    for j, model in enumerate(models):
        price = price_of(model.name)
        if price is None or not _from_prices(model, C[:, j], inputs[:, j], outputs[:, j]):
            continue
        observed = ~np.isnan(C[:, j])
        C[observed, j] = (price.input * inputs[observed, j] + price.output * outputs[observed, j]) / 1e6
        models[j] = replace(model, price_in=price.input, price_out=price.output)
        repriced.append(model.name)
    C.flags.writeable = False
    return replace(benchmark, C=C, models=tuple(models)), repriced


def _from_prices(model: Model, costs: Floats, inputs: Floats, outputs: Floats) -> bool:
    """Whether every observed cost is tokens times the model's recorded price. [n_queries] each."""
    if model.price_in is None or model.price_out is None:
        return False
    observed = ~np.isnan(costs)
    by_tokens = (model.price_in * inputs[observed] + model.price_out * outputs[observed]) / 1e6
    return bool(observed.any() and np.allclose(costs[observed], by_tokens, rtol=_SAME_COST, atol=1e-15))


def _exact(name: str) -> str:
    return name


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _loose(name: str) -> str:
    return _last(name).casefold().translate(_SEPARATORS)


_SPELLINGS: tuple[Callable[[str], str], ...] = (_exact, _last, _loose)


def _by_spelling(names: Sequence[str], spell: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(spell(name), []).append(name)
    return found


def _several(names: Sequence[str], n: int = 8) -> str:
    shown = ", ".join(list(names)[:n])
    return shown if len(names) <= n else f"{shown} and {len(names) - n} more"


def pool_rows() -> list[dict[str, Any]]:
    """One row per pool, for listings."""
    return [
        {"pool": name, "models": len(pool.prices), "names": ", ".join(pool.prices)} for name, pool in pools().items()
    ]
