"""The embed job: what are a benchmark's unique inputs, and which rows does an encoder give a slice of them?"""

from __future__ import annotations

import errno
import hashlib
import json
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from time import perf_counter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark
from workers.encoders.base import Encoder, Input, make_encoder
from workers.errors import ArtifactError, EncoderError, InputError, StoreError
from workers.units import EmbedResult, EmbedUnit, UnitFailure

#: Inputs per call of an encoder. Padding is to the longest of a batch, so the batches are part of the recipe.
BATCH = 64
BATCH_SCHEME = f"length-text/{BATCH}"

#: Failures of the machine and not of a unit: they stop the run, which can be resumed.
ENVIRONMENT_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES})


@dataclass(frozen=True, kw_only=True, eq=False)
class UniqueInputs:
    """What an encoder sees of a benchmark, each input once."""

    #: Name of the benchmark, for messages.
    benchmark: str
    #: Sorted by (length of text, text, image digest). [n_unique]
    inputs: tuple[Input, ...]
    #: Row of `inputs` of each query. [n_queries]
    row_of_query: npt.NDArray[np.int64]
    #: sha256 of the inputs.
    digest: str


def unique_inputs(benchmark: Benchmark, modality: Literal["text", "image", "joint"]) -> UniqueInputs:
    """Merge the queries that look alike to an encoder of this modality.

    Args:
        benchmark: The whole source: tasks and pools share its embedding.
        modality: `text` sees texts, `image` images by content, `joint` the pairs.
    """
    nothing = (None,) * benchmark.n_queries
    texts = benchmark.texts if modality != "image" else ("",) * benchmark.n_queries
    digests = benchmark.image_digests if modality != "text" else nothing
    images = benchmark.images if modality != "text" else nothing
    pairs = list(zip(texts, digests, strict=True))
    found: dict[tuple[str, str | None], Input] = {}
    for (text, digest), image, query in zip(pairs, images, benchmark.queries, strict=True):
        found.setdefault((text, digest), Input(text=text, image=image, image_digest=digest, query=query))
    order = sorted(found, key=lambda pair: (len(pair[0]), pair[0], pair[1] or ""))
    row = {pair: i for i, pair in enumerate(order)}
    sha = hashlib.sha256(f"inputs-1|{modality}".encode())
    for text, digest in order:
        raw = text.encode("utf-8", "surrogatepass")
        sha.update(f"|{len(raw)}|{digest or ''}|".encode() + raw)
    return UniqueInputs(
        benchmark=benchmark.name,
        inputs=tuple(found[pair] for pair in order),
        row_of_query=np.array([row[pair] for pair in pairs], dtype=np.int64),
        digest=sha.hexdigest(),
    )


def check_inputs(encoder: Encoder, inputs: UniqueInputs) -> None:
    """Refuse, when planning, inputs that the encoder cannot read.

    Raises:
        EncoderError: No text for a text encoder, a query without an image for an image encoder, broken Unicode.
    """
    where = f"benchmark {inputs.benchmark!r}, encoder {encoder.name!r}"
    if encoder.modality != "image":
        if not any(item.text for item in inputs.inputs):
            raise EncoderError(
                f"{where}: it reads texts and every text is empty; embed another column or use an image encoder "
                "such as pixels."
            )
        for item in inputs.inputs:
            try:
                item.text.encode()
            except UnicodeEncodeError as error:
                raise EncoderError(
                    f"{where}: the text of {item.label} is not valid Unicode ({error.reason}); repair the source."
                ) from error
    if encoder.modality != "text":
        missing = [item for item in inputs.inputs if item.image is None]
        if missing:
            raise EncoderError(
                f"{where}: it reads images and {missing[0].label} has none; use a text encoder or leave such queries "
                "out."
            )


def slice_bounds(n: int, slice_size: int = 512) -> list[tuple[int, int]]:
    """Cut n inputs into slices of whole batches: (start, stop) in order."""
    if slice_size < 1 or slice_size % BATCH:
        raise ValueError(f"slice_size is {slice_size}; it must be a positive multiple of {BATCH}.")
    return [(start, min(start + slice_size, n)) for start in range(0, n, slice_size)]


def _recipe_digest(recipe: Mapping[str, Any]) -> str:
    canonical = json.dumps({"batches": BATCH_SCHEME, "recipe": recipe}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def embedding_digest(recipe: Mapping[str, Any], inputs_digest: str) -> str:
    """Name of an embedding: 32 hex digits of its recipe and batch scheme, then 32 of its inputs."""
    return _recipe_digest(recipe) + inputs_digest[:32]


def slice_name(embedding: str, start: int, stop: int) -> str:
    """Name of a slice's artefact."""
    return f"{embedding}/{start}-{stop}"


@lru_cache(maxsize=1)  # one model in memory at a time; shards keep to one encoder
def _encoder(name: str, params: str) -> Encoder:
    return make_encoder(name, json.loads(params))


def embed_slice(unit: EmbedUnit, inputs: Sequence[Input], store: ArtifactStore) -> EmbedResult:
    """Embed one slice and write its artefact `<embedding>/<start>-<stop>`.

    Args:
        unit: Which slice, which encoder.
        inputs: The slice's inputs, `UniqueInputs.inputs[unit.start:unit.stop]`.
        store: Where the rows go: float32, of length 1 (a zero row stays zero). [stop - start, d]

    Raises:
        EncoderError: The encoder cannot embed an input, or is not the one that was planned.
        OSError: The store cannot be written.
    """
    begin = perf_counter()
    if unit.start % BATCH or len(inputs) != unit.stop - unit.start:
        raise ValueError(f"slice {unit.start}-{unit.stop} does not hold whole batches of its {len(inputs)} inputs")
    encoder = _encoder(unit.encoder, json.dumps(dict(unit.params), sort_keys=True))
    recipe = encoder.recipe()
    if not unit.embedding.startswith(_recipe_digest(recipe)):
        raise EncoderError(
            f"encoder {unit.encoder!r}: this worker's weights or version differ from those that were planned; "
            "install the same packages and models on every node."
        )
    rows = encode_inputs(encoder, inputs)
    manifest = {"recipe": recipe, "batches": BATCH_SCHEME, "start": unit.start, "stop": unit.stop}
    url, sha256, n_bytes = store.write(slice_name(unit.embedding, unit.start, unit.stop), rows, manifest)
    return EmbedResult(
        key=unit.key,
        url=url,
        sha256=sha256,
        n_rows=rows.shape[0],
        dim=rows.shape[1],
        n_bytes=n_bytes,
        seconds=perf_counter() - begin,
    )


def encode_inputs(encoder: Encoder, inputs: Sequence[Input]) -> npt.NDArray[np.float32]:
    """Embed inputs in whole batches on one thread; rows of length 1 (a zero row stays zero). [len(inputs), d].

    Raises:
        EncoderError: The encoder cannot embed an input.
    """
    with threadpool_limits(limits=1):
        batches = [_encode_batch(encoder, inputs[i : i + BATCH]) for i in range(0, len(inputs), BATCH)]
    widths = {batch.shape[1] for batch in batches}
    if len(widths) != 1:
        raise EncoderError(f"encoder {encoder.name!r} gave rows of different lengths: {sorted(widths)}.")
    return np.concatenate(batches)


def _encode_batch(encoder: Encoder, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
    rows = np.asarray(encoder.encode(batch))
    if rows.ndim != 2 or len(rows) != len(batch):
        raise EncoderError(f"encoder {encoder.name!r} gave an array {rows.shape} for {len(batch)} inputs.")
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        bad = batch[int(np.argmin(finite))]
        raise EncoderError(f"encoder {encoder.name!r} gave NaN or infinity for {bad.label}; try dtype float32.")
    return normalized(rows)


def normalized(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Scale rows to length 1, zero rows stay [n, d]."""
    wide = rows.astype(np.float64)  # squares of float32 overflow
    lengths = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    return (wide / np.where(lengths > 0, lengths, 1.0)).astype("<f4")


def run_embed(unit: EmbedUnit, inputs: Sequence[Input], store: ArtifactStore) -> EmbedResult | UnitFailure:
    """Embed one slice; what goes wrong with the unit comes back as data.

    Raises:
        OSError: Full disk, quota, read-only or forbidden, an artefact store that cannot be reached: the machine's
            failure and not the unit's.
    """
    begin = perf_counter()
    try:
        return embed_slice(unit, inputs, store)
    except Exception as error:
        if isinstance(error, StoreError) or (isinstance(error, OSError) and error.errno in ENVIRONMENT_ERRNOS):
            raise
        return UnitFailure(
            key=unit.key,
            kind=_failure_kind(error),
            message=str(error) or type(error).__name__,
            traceback=traceback.format_exc(),
            seconds=perf_counter() - begin,
        )


def _failure_kind(error: Exception) -> str:
    if isinstance(error, InputError):
        return "user_error"
    # torch reports exhausted memory as a RuntimeError: a subclass of its own on CUDA, a plain one on a CPU.
    torch_out_of_memory = type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)
    return "out_of_memory" if isinstance(error, MemoryError) or torch_out_of_memory else "exception"


def load_embedding(store: ArtifactStore, slices: Sequence[tuple[str, str]]) -> npt.NDArray[np.float32]:
    """Join an embedding's slices, checksums verified; read-only [n_unique, d].

    Args:
        store: Where they lie.
        slices: (name, sha256) of each, in order of their start.

    Raises:
        ArtifactError: A slice is missing or damaged, or the slices do not fit together.
    """
    parts = [store.read(name, sha256) for name, sha256 in slices]
    if {(part.ndim, part.dtype, part.shape[-1]) for part in parts} != {(2, np.dtype("<f4"), parts[0].shape[-1])}:
        found = ", ".join(f"{name}: {part.dtype} {part.shape}" for (name, _), part in zip(slices, parts, strict=True))
        raise ArtifactError(f"slices of one embedding do not fit together ({found}).")
    rows: npt.NDArray[np.float32] = np.concatenate(parts)
    rows.flags.writeable = False
    return rows


def content_sha(slice_shas: Sequence[str]) -> str:
    """sha256 that stands for an embedding's content: of its slices' checksums, in order of their start."""
    return hashlib.sha256("\n".join(slice_shas).encode()).hexdigest()
