"""Which measures does a study add to a sweep's evaluations? Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.catalog import EvaluatedBenchmark, NamedEncoder
from orchestrator.errors import PlanError
from orchestrator.planned import Embedding, MeasureGroup, PlannedRouter
from orchestrator.sweep import EncoderEntry, Sweep
from workers.encoders.base import make_encoder
from workers.measures.base import measures
from workers.measures.maintenance import can_grow
from workers.routers.base import untuned_params

#: Studies that evaluate nothing besides.
ONLY_MEASURES = ("scaling", "maintenance", "calibration")
#: Data sets that one unit of a calibration draws.
BATCH = 20


def dosed(encoders: Sequence[NamedEncoder], sweep: Sweep) -> list[NamedEncoder]:
    """Each encoder again with a fraction of its rows permuted over the queries, for each dose.

    Raises:
        PlanError: An encoder is fitted on the training side.
    """
    assert sweep.study is not None
    found = []
    for named in encoders:
        if not named.encoder.standalone:
            raise PlanError(
                f"encoder {named.name!r} is fitted on each split; `study: locality` is of encoders that are not."
            )
        of = {"name": named.name, "use": named.entry.target, **named.entry.params}
        for dose in sweep.study.doses:
            entry = EncoderEntry.model_validate(
                {"name": f"{named.name}, {dose:.0%} permuted", "use": "permuted", "of": of, "fraction": dose}
            )
            encoder = make_encoder(entry.target, entry.params)
            found.append(NamedEncoder(name=entry.name, entry=entry, encoder=encoder))
    return found


def measure_groups(
    sweep: Sweep, evaluated: EvaluatedBenchmark, embedding: Embedding | None, routers: Sequence[PlannedRouter]
) -> Iterator[MeasureGroup]:
    """The measures that a sweep's study takes of a benchmark under an encoder.

    Args:
        sweep: With a study or without.
        evaluated: Benchmark.
        embedding: Its embedding, None for routers without.
        routers: Those that read it.

    Raises:
        PlanError: The study needs rows that do not depend on the split.
    """
    study = sweep.study
    if study is None or study.kind in ("learning-curve", "shift"):
        return

    def group(measure: str, params: Mapping[str, Any], field: str, values: Sequence[int], router: str | None) -> Any:
        return MeasureGroup(
            sweep=sweep,
            evaluated=evaluated,
            embedding=embedding,
            measure=measure,
            version=measures()[measure].version,
            params=params,
            field=field,
            values=tuple(values),
            router=router,
        )

    if study.kind == "locality":
        if embedding is not None and not embedding.fitted:
            yield group("locality", {"doses": study.doses}, "permutations", [study.permutations], None)
        return
    if embedding is not None and embedding.fitted:
        raise PlanError(
            f"encoder {embedding.encoder.name!r} is fitted on each split; `study: {study.kind}` is of encoders that "
            "are not."
        )
    n_train = 7 * evaluated.benchmark.n_queries // 10
    for router in routers:
        name = router.entry.name
        asked = {"router": router.cls.name, "params": untuned_params(router.cls, router.params, n_train=n_train)}
        if study.kind == "maintenance" and can_grow(router.cls):
            yield group("maintenance", {**asked, "labelled": study.labelled}, "split", range(sweep.seeds), name)
        if study.kind == "scaling" and embedding is not None and not router.cls.privileged:
            yield group("scaling", asked, "n", study.sizes, name)
        if study.kind == "calibration" and embedding is not None and not router.cls.privileged:
            drawn = {
                "router": router.cls.name,
                "params": router.params,
                "tuned": router.tuned,
                "splits": sweep.seeds,
                "repetitions": BATCH,
                "bootstrap": sweep.protocol.bootstrap,
                "tuning_budget": sweep.protocol.tuning_budget,
            }
            for n in study.drawn:
                yield group("calibration", {**drawn, "n": n}, "batch", range(-(-study.repetitions // BATCH)), name)
