"""How is a benchmark read from, and written to, a folder of queries, outcomes and meta.json (the `tables/` layout)?"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.columns import FORMATS, Columns, read_columns
from workers.benchmarks.outcomes import read_outcomes
from workers.errors import BenchmarkError


def find_table(directory: Path, stem: str) -> Path | None:
    """The file `stem` of a folder, in whichever format it is; None when there is none.

    Raises:
        BenchmarkError: Two formats of it are there.
    """
    found = [path for suffix in FORMATS if (path := directory / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise BenchmarkError(f"{directory}: both {found[0].name} and {found[1].name} are there; remove one.")
    return found[0] if found else None


def load_tables(directory: Path, *, name: str, embed: str = "prompt", score: str = "score") -> Benchmark:
    """Read a folder with `queries.*`, `outcomes.*` (parquet, CSV or JSONL) and, if there is one, `meta.json`.

    Queries: query_id, prompt, and optionally task, image_path (relative to the folder) and others to embed. Outcomes:
    query_id, model, score in [0, 1] and cost in USD; one row per pair, empty = not observed; optionally the columns of
    `EXTRAS`, and `sample` where a pair has a row for each of several samples. A folder that `save_tables` wrote keeps
    the groups of its source, and the imported column alone, as `prompt`.

    Args:
        directory: The folder.
        name: Name of the source.
        embed: Column of the queries that encoders see.
        score: Column of the outcomes that holds the score.

    Raises:
        BenchmarkError: With the file and the row or key at fault.
    """
    meta = _read_meta(directory)
    source_groups = meta.pop("source_groups", None)
    embedded = embed
    if source_groups is not None:
        embedded = meta.get("embedded", "prompt")
        if embed not in ("prompt", embedded):
            raise BenchmarkError(
                f"{directory}: this import keeps the column {embedded!r} alone, so {embed!r} cannot be embedded; "
                f"import its source again with --embed {embed}."
            )
        embed = "prompt"
    queries = read_columns(_table(directory, "queries"), {"query_id", "prompt", "task", "image_path", "group", embed})
    queries.require("query_id", "prompt", embed)
    ids = queries.ids("query_id")
    outcomes = read_outcomes(_table(directory, "outcomes"), ids, score, queries.path)
    query_ids = ids.to_pylist()
    _refuse_duplicates(queries, query_ids)
    benchmark = Benchmark.build(
        name=name,
        suite=meta.get("suite") or meta.get("name"),
        queries=query_ids,
        prompts=queries.strings("prompt"),
        texts=queries.strings(embed),
        images=[_image(queries, row, value) for row, value in enumerate(queries.strings("image_path"))],
        tasks=queries.strings("task"),
        models=_models(directory / "meta.json", meta, outcomes.models),
        S=outcomes.S,
        C=outcomes.C,
        embedded=embedded,
        meta=meta,
        extras=outcomes.extras,
        where=str(directory),
    )
    return benchmark if source_groups is None else _with_groups(benchmark, queries, query_ids, source_groups)


def save_tables(benchmark: Benchmark, directory: Path) -> None:
    """Write a benchmark so that `load_tables` gives back the same content, extras too; all of the folder or nothing.

    `prompt` is the embedded text, images are copied beside, groups stay those of the source.

    Raises:
        BenchmarkError: The folder exists already or cannot be written.
    """
    if directory.exists():
        raise BenchmarkError(f"{directory}: exists already; remove it or choose another name.")
    temporary = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        _write(benchmark, temporary)
        temporary.rename(directory)
    except OSError as error:
        raise BenchmarkError(
            f"{directory}: cannot be written ({error.strerror or error}); check its permissions and the free space."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _table(directory: Path, stem: str) -> Path:
    path = find_table(directory, stem)
    if path is None:
        names = ", ".join(f"{stem}{suffix}" for suffix in FORMATS)
        raise BenchmarkError(f"{directory}: no {stem} table; looked for {names}.")
    return path


def _read_meta(directory: Path) -> dict[str, Any]:
    path = directory / "meta.json"
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path}: not JSON ({error}).") from error
    if not isinstance(meta, dict):
        raise BenchmarkError(f"{path}: not a JSON object.")
    for key, kind in (("suite", str), ("embedded", str), ("source_groups", list), ("models", dict), ("pools", dict)):
        if key in meta and not isinstance(meta[key], kind):
            raise BenchmarkError(f"{path}: {key!r} holds {type(meta[key]).__name__}, not {kind.__name__}.")
    return meta


def _models(path: Path, meta: Mapping[str, Any], names: list[str]) -> list[Model]:
    """Families and prices: `models.*`, else the family that lists the model under `pools`."""
    pools: dict[str, list[str]] = {}
    for family, members in meta.get("pools", {}).items():
        for member in members if isinstance(members, list) else ():
            pools.setdefault(member, []).append(family)
    models = []
    for name in names:
        facts = meta.get("models", {}).get(name, {})
        if not isinstance(facts, dict):
            raise BenchmarkError(f"{path}: models.{name} holds {type(facts).__name__}, not an object.")
        for key in ("price_in", "price_out"):
            price = facts.get(key)
            if price is not None and (isinstance(price, bool) or not isinstance(price, int | float) or not price >= 0):
                raise BenchmarkError(f"{path}: models.{name}.{key} {price!r} is not a price in USD per 1M tokens.")
        family, listed = facts.get("family"), pools.get(name, [])
        if family is None and len(listed) > 1:
            raise BenchmarkError(
                f"{path}: model {name!r} is in the pools {' and '.join(listed)}; name its family under models."
            )
        models.append(
            Model(
                name=name,
                family=family or next(iter(listed), None),
                price_in=facts.get("price_in"),
                price_out=facts.get("price_out"),
            )
        )
    return models


def _refuse_duplicates(queries: Columns, ids: list[str]) -> None:
    first: dict[str, int] = {}
    for row, query in enumerate(ids):
        if first.setdefault(query, row) != row:
            raise BenchmarkError(
                f"{queries.at(first[query])} and row {row + 1}: query_id {query!r} occurs twice; ids must be unique."
            )


def _image(queries: Columns, row: int, value: str | None) -> str | None:
    if not value:
        return None
    relative = PurePath(value)
    if relative.is_absolute() or ".." in relative.parts:
        raise BenchmarkError(f"{queries.at(row)}: image_path {value!r} leaves the folder; put images inside.")
    path = queries.path.parent / relative
    if not path.is_file():
        raise BenchmarkError(f"{queries.at(row)}: its image {path} is missing; add the file or empty the image_path.")
    return str(path)


def _with_groups(benchmark: Benchmark, queries: Columns, ids: list[str], source_groups: list[str]) -> Benchmark:
    queries.require("group")
    groups = queries.ids("group").to_pylist()
    known = set(source_groups)
    for row, group in enumerate(groups):
        if group not in known:
            raise BenchmarkError(
                f"{queries.at(row)}: group {group!r} is not in meta.json's source_groups; import the source again."
            )
    group_of = dict(zip(ids, groups, strict=True))
    return replace(
        benchmark,
        groups=tuple(group_of[query] for query in benchmark.queries),
        source_groups=tuple(sorted(known)),
    )


def _write(benchmark: Benchmark, directory: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    queries = {
        "query_id": benchmark.queries,
        "prompt": benchmark.texts,
        "task": benchmark.tasks,
        "image_path": [_copy_image(benchmark, row, directory) for row in range(benchmark.n_queries)],
        "group": benchmark.groups,
    }
    texts = {name: pa.array(values, pa.string()) for name, values in queries.items()}
    pq.write_table(pa.table(texts), directory / "queries.parquet")
    # Unobserved cells are written too: a model without any outcome is still a candidate.
    names = [model.name for model in benchmark.models]
    outcomes = {
        "query_id": pa.array(benchmark.queries).take(np.repeat(np.arange(benchmark.n_queries), benchmark.n_models)),
        "model": pa.array(names).take(np.tile(np.arange(benchmark.n_models), benchmark.n_queries)),
        "score": pa.array(benchmark.S.ravel(), from_pandas=True),
        "cost": pa.array(benchmark.C.ravel(), from_pandas=True),
        **{name: _column(values) for name, values in benchmark.extras.items()},
    }
    pq.write_table(pa.table(outcomes), directory / "outcomes.parquet")
    facts = benchmark.meta.get("models", {})
    meta = {
        **benchmark.meta,
        "name": benchmark.name,
        "suite": benchmark.suite,
        "embedded": benchmark.embedded,
        "models": {
            model.name: {
                **facts.get(model.name, {}),
                "family": model.family,
                "price_in": model.price_in,
                "price_out": model.price_out,
            }
            for model in benchmark.models
        },
        "source_groups": benchmark.source_groups,
    }
    (directory / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _column(values: npt.NDArray[Any]) -> Any:
    """One of a benchmark's extras as a pyarrow array of all pairs; a third axis as lists."""
    import pyarrow as pa

    if values.dtype == object:
        return pa.array(values.ravel(), pa.large_string())
    if values.ndim == 3:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), from_pandas=True), values.shape[2])
    return pa.array(values.ravel(), from_pandas=True)


def _copy_image(benchmark: Benchmark, row: int, directory: Path) -> str | None:
    image, digest = benchmark.images[row], benchmark.image_digests[row]
    if image is None:
        return None
    suffix = "" if isinstance(image, bytes) else Path(image).suffix
    path = directory / "images" / f"{digest}{suffix}"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(image if isinstance(image, bytes) else Path(image).read_bytes())
    return f"images/{path.name}"
