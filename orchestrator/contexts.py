"""What does a shard's worker need besides its units? The benchmark without its texts, and where the embedding is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from orchestrator.executors.base import Context, EmbedContext, EvaluateContext
from orchestrator.plan import PlannedUnit
from orchestrator.shards import context_name
from orchestrator.store import Store
from workers.embed import content_sha, slice_name
from workers.encoders.fitted import SplitEncoder


def build_context(store: Store, planned: PlannedUnit, artifacts: str) -> tuple[Context, str | None]:
    """The context of a unit and its like, and the sha256 of the embedding that evaluations use.

    Args:
        store: Database, which knows the checksums of the slices.
        planned: Unit.
        artifacts: URL of the artefact store.
    """
    embedding = planned.embedding
    if planned.evaluated is None:
        assert embedding is not None
        return EmbedContext(inputs=embedding.inputs.inputs, artifacts=artifacts), None
    benchmark = planned.evaluated.benchmark
    # Images, texts and other data stay behind where no router reads them.
    light = replace(
        benchmark,
        texts=benchmark.texts if "text" in planned.data else ("",) * benchmark.n_queries,
        images=(None,) * benchmark.n_queries,
        extras={name: values for name, values in benchmark.extras.items() if name in planned.data},
    )
    name, encoder = context_name(planned), None
    if embedding is not None and embedding.fitted:
        entry = embedding.encoder.entry
        encoder = SplitEncoder(
            where=name,
            name=entry.target,
            params=entry.params,
            texts=None if embedding.base else benchmark.texts,
        )
        embedding = embedding.base
    if embedding is None:
        return EvaluateContext(name=name, benchmark=light, encoder=encoder), None
    digest = embedding.digest
    found = store.query(
        lambda session: session.rows("SELECT start, stop, sha256 FROM artifact WHERE embedding = :e", e=digest)
    )
    checksums = {(row["start"], row["stop"]): row["sha256"] for row in found}
    # By the plan's bounds: another version may have cut the same embedding elsewhere.
    slices = tuple((slice_name(digest, *bounds), checksums[bounds]) for bounds in embedding.bounds)
    position = {query: i for i, query in enumerate(embedding.queries)}
    rows = embedding.inputs.row_of_query[np.array([position[query] for query in benchmark.queries])]
    context = EvaluateContext(
        name=name, benchmark=light, slices=slices, rows=rows, artifacts=artifacts, encoder=encoder
    )
    return context, content_sha([sha256 for _, sha256 in slices])
