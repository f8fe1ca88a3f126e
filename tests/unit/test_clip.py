from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from tests.pictures import PICTURES, TEXTS, as_input, byte_vocabulary, encoded, noise
from workers.encoders import clip
from workers.encoders.base import Input, encoders, make_encoder
from workers.encoders.pictures import rgb_image
from workers.errors import EncoderError

ROOT = Path(__file__).parents[2]
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with random weights."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("clip")
    vocabulary = byte_vocabulary("<|startoftext|>", "<|endoftext|>")
    CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=16).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    last = len(vocabulary) - 1
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={
            **size,
            "vocab_size": len(vocabulary),
            "max_position_embeddings": 16,
            "bos_token_id": last - 1,
            "eos_token_id": last,
            "pad_token_id": last,
        },
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_features(folder: Path, image: Image.Image, text: str) -> tuple[Floats, Floats]:
    """What transformers' CLIP makes of one image and one text by themselves, scaled to length 1."""
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(folder).eval()
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(images=image, return_tensors="pt")
    tokens = CLIPTokenizer.from_pretrained(folder)(text)["input_ids"]
    tokens = tokens if len(tokens) <= 16 else [*tokens[:15], tokens[-1]]
    with torch.inference_mode():
        seen = model.get_image_features(**pixels).pooler_output[0]
        read = model.get_text_features(input_ids=torch.tensor([tokens])).pooler_output[0]
    return (seen / seen.norm()).numpy(), (read / read.norm()).numpy()


def test_clip_towers_are_transformers_features_of_each_input_alone(clip_folder: Path) -> None:
    items = [as_input(image, text) for image, text in zip(PICTURES, TEXTS, strict=True)]
    expected = [clip_features(clip_folder, image, text) for image, text in zip(PICTURES, TEXTS, strict=True)]
    seen, read = (np.stack(rows) for rows in zip(*expected, strict=True))
    wanted = {"clip-image": seen, "clip-text": read, "clip": np.concatenate([read, seen], axis=1)}
    assert np.abs(seen - seen[0]).max() > 1e-3 and np.abs(read - read[0]).max() > 1e-3
    for name, rows in wanted.items():
        for batch in (1, 3, 8):
            encoder = make_encoder(name, {"model": str(clip_folder), "batch": batch})
            np.testing.assert_allclose(encoder.encode(items), rows, atol=1e-6)
    assert {name: encoders()[name].modality for name in wanted} == {
        "clip-image": "image",
        "clip-text": "text",
        "clip": "joint",
    }


def test_clip_options_and_recipes(clip_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(clip_folder, tmp_path / "elsewhere")
    plain = make_encoder("clip", {"model": str(clip_folder)})
    assert make_encoder("clip", {"model": str(copy), "device": "cpu"}).recipe() == plain.recipe()
    others = [{"dtype": "bfloat16"}, {"max_length": 5}, {"batch": 2}]
    recipes = [make_encoder("clip", {"model": str(copy), **other}).recipe() for other in others]
    recipes += [make_encoder(name, {"model": str(copy)}).recipe() for name in ("clip", "clip-text", "clip-image")]
    assert len({json.dumps(recipe) for recipe in recipes}) == 6
    assert "/" not in json.dumps(recipes)
    item = [as_input(PICTURES[0], "abcdef")]
    short = make_encoder("clip-text", {"model": str(copy), "max_length": 5})
    np.testing.assert_array_equal(short.encode(item), short.encode([Input(text="abcxyz")]))
    for dtype in ("bfloat16", "float16"):
        rough = make_encoder("clip", {"model": str(copy), "dtype": dtype}).encode(item)
        assert 0.99 < float((rough * plain.encode(item)).sum()) / 2 < 1.0
    with pytest.raises(EncoderError, match="max_length 17 is above the 16 tokens"):
        make_encoder("clip-text", {"model": str(copy), "max_length": 17}).recipe()
    (copy / "preprocessor_config.json").write_text(
        (copy / "preprocessor_config.json").read_text().replace("0.4", "0.3")
    )
    assert make_encoder("clip", {"model": str(copy)}).recipe() != plain.recipe()


def test_clip_decodes_one_batch_at_a_time(clip_folder: Path, monkeypatch: Any) -> None:
    held: list[int] = []
    decode = rgb_image
    monkeypatch.setattr(clip, "rgb_image", lambda item, **k: held.append(1) or decode(item, **k))
    unit = clip._unit
    monkeypatch.setattr(clip, "_unit", lambda found: held.append(0) or unit(found))
    make_encoder("clip-image", {"model": str(clip_folder), "batch": 2}).encode([as_input(p) for p in PICTURES[:3]])
    assert held == [1, 1, 0, 1, 0]


def test_recipes_of_vision_models_need_no_torch(clip_folder: Path) -> None:
    script = (
        "import sys\n"
        "from workers.encoders.base import make_encoder\n"
        f"folder = {str(clip_folder)!r}\n"
        "for name in ('clip', 'clip-image', 'clip-text'): make_encoder(name, {'model': folder}).recipe()\n"
        "print({'torch', 'transformers', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "set()", done.stderr


def test_folders_that_are_not_to_be_loaded_say_why(clip_folder: Path, tmp_path: Path) -> None:
    def changed(name: str, **files: str | None) -> str:
        folder = shutil.copytree(clip_folder, tmp_path / name)
        for file, content in files.items():
            path = folder / file.replace("__", ".")
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_text(content)
        return str(folder)

    cases = [
        (changed("lora", adapter_config__json="{}"), r"holds an adapter \(LoRA\), not a model; merge it"),
        (
            changed("bin", model__safetensors=None, pytorch_model__bin="x"),
            r"pickled weights \(\*\.bin\) are not loaded",
        ),
        (changed("bert", config__json='{"model_type": "bert"}'), "is a model of type 'bert'; this encoder runs clip"),
        (changed("none", config__json=None), "no config.json that names a `model_type`"),
        (changed("list", config__json="[]"), "no config.json that names a `model_type`"),
        (str(tmp_path / "nothing"), "no such folder"),
    ]
    for folder, message in cases:
        with pytest.raises(EncoderError, match=message):
            make_encoder("clip", {"model": folder}).recipe()
    for broken in ("model__safetensors", "preprocessor_config__json", "tokenizer__json"):
        encoder = make_encoder("clip", {"model": changed(broken, **{broken: "torn"})})
        with pytest.raises(EncoderError, match="cannot be loaded by transformers"):
            encoder.encode([as_input(PICTURES[0], "a")])
    for params, message in (
        ({}, "needs model"),
        ({"model": ""}, "model is ''"),
        ({"model": "x", "dtype": "int8"}, "dtype is 'int8'"),
        ({"model": "x", "batch": 0}, "batch is 0"),
    ):
        with pytest.raises(EncoderError, match=message):
            make_encoder("clip-image", params)


def test_missing_weights_are_not_filled_with_random_ones(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(clip_folder, tmp_path / "part")
    state = load_file(folder / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError, match=r"lacks 1 of the model's weights, such as 'visual_projection\.weight'"):
        make_encoder("clip-image", {"model": str(folder)}).encode([as_input(PICTURES[0])])


def test_a_bad_image_names_query_and_file(clip_folder: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.png"
    torn.write_bytes(encoded(noise(64, 64))[:100])
    encoder = make_encoder("clip", {"model": str(clip_folder)})
    with pytest.raises(EncoderError, match=r"query 'q1' \(image .*torn\.png\): not an image"):
        encoder.encode([as_input(PICTURES[0], "a"), Input(query="q1", image=str(torn), text="b")])
    with pytest.raises(EncoderError, match="query 'q2' has no image"):
        encoder.encode([Input(query="q2", text="c")])
