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

from tests.pictures import PICTURES, TEXTS, as_input, byte_vocabulary, noise
from workers.encoders import vlm2vec
from workers.encoders.base import Input, make_encoder
from workers.errors import EncoderError

ROOT = Path(__file__).parents[2]
VISION_TOKENS = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
Floats = npt.NDArray[np.float32]


def write_qwen(folder: Path, config_class: Any, model_class: Any, **vision: Any) -> Path:
    """A tiny model of the family with random weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    special = ["<|endoftext|>", *VISION_TOKENS]
    vocabulary = byte_vocabulary(*special)
    of_bytes = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    of_bytes.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=of_bytes, pad_token=special[0], eos_token=special[0])
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil().save_pretrained(folder)
    end, start, stop, image, video = (vocabulary[token] for token in special)
    torch.manual_seed(0)
    config = config_class(
        text_config={
            "vocab_size": len(vocabulary),
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.5,  # attention that is not flat
            "bos_token_id": end,
            "eos_token_id": end,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "mrope_section": [1, 1, 2]},
        },
        vision_config={"depth": 2, "num_heads": 2, "hidden_size": 16, **vision},
        vision_start_token_id=start,
        vision_end_token_id=stop,
        image_token_id=image,
        video_token_id=video,
    )
    model_class(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    folder = tmp_path_factory.mktemp("qwen2-vl")
    return write_qwen(folder, Qwen2VLConfig, Qwen2VLForConditionalGeneration, embed_dim=16, mlp_ratio=2)


@pytest.fixture(scope="module")
def qwen25_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLModel

    folder = tmp_path_factory.mktemp("qwen2.5-vl")
    more = {"out_hidden_size": 16, "intermediate_size": 32, "fullatt_block_indexes": [1], "window_size": 56}
    return write_qwen(folder, Qwen2_5_VLConfig, Qwen2_5_VLModel, **more)


FAST = {"dtype": "float32", "max_pixels": 20 * 28 * 28}


def last_state(folder: Path, before: str, image: Image.Image | None, after: str, *, spatial: bool) -> Floats:
    """The last token's state of one prompt by itself; transformers places the tokens where they are `spatial`."""
    from transformers import AutoModel, AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    size = {"shortest_edge": 4 * 28 * 28, "longest_edge": 20 * 28 * 28}
    seen = Qwen2VLImageProcessorPil(size=size)(images=image, return_tensors="pt") if image else {}
    n = int(seen["image_grid_thw"].prod()) // 4 if image else 0
    ids = torch.tensor([tokenizer(before + n * "<|image_pad|>" + after)["input_ids"]])
    kinds = (ids == model.config.image_token_id).int() * int(spatial)
    with torch.inference_mode():
        states = model(input_ids=ids, mm_token_type_ids=kinds, **seen).last_hidden_state
    row: Floats = states[0, -1].numpy()
    return row


@pytest.mark.parametrize("family", ["qwen_folder", "qwen25_folder"])
@pytest.mark.parametrize("spatial", [False, True])
def test_vlm2vec_is_the_last_state_of_each_prompt_alone(
    family: str, spatial: bool, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(family)
    prompt = "Look: <|vision_start|>{image}<|vision_end|>{text}" if spatial else vlm2vec.PROMPT
    before, after = prompt.split("{image}")
    expected = [
        last_state(folder, before, image, after.replace("{text}", text), spatial=spatial)
        for image, text in zip(PICTURES, TEXTS, strict=True)
    ]
    assert np.ptp(np.stack(expected), axis=0).max() > 1e-2
    elsewhere = last_state(folder, before, PICTURES[0], after.replace("{text}", TEXTS[0]), spatial=not spatial)
    assert np.abs(expected[0] - elsewhere).max() > 1e-2  # the places of an image's tokens matter
    items = [as_input(image, text) for image, text in zip(PICTURES, TEXTS, strict=True)]
    for batch in (1, 3):
        encoder = make_encoder("vlm2vec", {"model": str(folder), "prompt": prompt, "batch": batch, **FAST})
        np.testing.assert_allclose(encoder.encode(items), expected, atol=2e-5)


def test_vlm2vec_with_a_prompt_of_one_kind_sees_only_that(qwen_folder: Path) -> None:
    read = make_encoder("vlm2vec", {"model": str(qwen_folder), "prompt": "Represent: {text}", **FAST})
    assert read.modality == "text"
    np.testing.assert_allclose(
        read.encode([Input(text="red"), Input(text="a roof")]),
        [last_state(qwen_folder, f"Represent: {text}", None, "", spatial=False) for text in ("red", "a roof")],
        atol=2e-5,
    )
    seen = make_encoder("vlm2vec", {"model": str(qwen_folder), "prompt": "{image}", **FAST})
    assert seen.modality == "image"
    np.testing.assert_allclose(
        seen.encode([as_input(PICTURES[0])])[0],
        last_state(qwen_folder, "", PICTURES[0], "", spatial=False),
        atol=2e-5,
    )
    bare = make_encoder("vlm2vec", {"model": str(qwen_folder), "prompt": "{text}", **FAST})
    np.testing.assert_allclose(
        bare.encode([Input(text="")])[0],
        last_state(qwen_folder, "<|endoftext|>", None, "", spatial=False),
        atol=2e-5,
    )


def test_vlm2vec_options_and_texts_that_spell_out_its_tokens(qwen_folder: Path) -> None:
    def rows(text: str, image: Image.Image = PICTURES[0], **params: Any) -> Floats:
        return make_encoder("vlm2vec", {"model": str(qwen_folder), **FAST, **params}).encode([as_input(image, text)])

    plain = rows("abcdef")
    np.testing.assert_array_equal(rows("abcdef", max_length=3), rows("abc"))
    np.testing.assert_array_equal(rows("abc", max_length=3), rows("abc"))
    assert not np.array_equal(rows("abcdef", max_pixels=4 * 28 * 28), plain)
    # Nothing of a text becomes an image, or moves the image's tokens.
    for token in VISION_TOKENS:
        spelt = f"{token[:-1]} {token[-1]}"
        np.testing.assert_array_equal(rows(f"a {token} {{image}} b"), rows(f"a {spelt} {{image}} b"))
    rough = rows("abcdef", dtype="bfloat16")
    assert 0.99 < float((rough * plain).sum() / np.linalg.norm(rough) / np.linalg.norm(plain)) < 1.0
    for image in (noise(3, 3), noise(1, 900), noise(2000, 3)):
        assert np.isfinite(rows("a", image)).all()
    recipes = [
        make_encoder("vlm2vec", {"model": str(qwen_folder), **params}).recipe()
        for params in ({}, {"prompt": "{image}{text}"}, {"max_pixels": 10_000}, {"max_length": 7}, {"dtype": "float32"})
    ]
    assert len({json.dumps(recipe) for recipe in recipes}) == 5
    for params, message in (
        ({"prompt": "Represent."}, "needs {image} or {text} or both"),
        ({"prompt": "{image}{image}"}, "each once"),
        ({"max_pixels": 10}, "max_pixels is 10"),
    ):
        with pytest.raises(EncoderError, match=message):
            make_encoder("vlm2vec", {"model": str(qwen_folder), **params})


def test_vlm2vec_runs_no_code_of_a_model(qwen_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen_folder, tmp_path / "phi")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "phi3_v", "auto_map": {"AutoModel": "modeling.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    with pytest.raises(EncoderError, match=r"type 'phi3_v'; this encoder runs qwen2_vl, .* never run"):
        make_encoder("vlm2vec", {"model": str(folder)}).recipe()


def test_vlm2vec_names_a_bad_image_and_plans_without_torch(qwen_folder: Path, tmp_path: Path) -> None:
    encoder = make_encoder("vlm2vec", {"model": str(qwen_folder), **FAST})
    with pytest.raises(EncoderError, match=r"query 'q1' \(image .*none\.png\): the image cannot be read"):
        encoder.encode([Input(query="q1", image=str(tmp_path / "none.png"), text="b")])
    with pytest.raises(EncoderError, match="query 'q2' has no image"):
        encoder.encode([Input(query="q2", text="c")])
    script = (
        "import sys\n"
        "from workers.encoders.base import make_encoder\n"
        f"make_encoder('vlm2vec', {{'model': {str(qwen_folder)!r}}}).recipe()\n"
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
