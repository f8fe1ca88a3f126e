from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workers.encoders import weights
from workers.encoders.base import Input, make_encoder
from workers.encoders.hf import pool
from workers.encoders.presets import PRESETS
from workers.errors import EncoderError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "red", "green", ":", "query"]
TEXTS = ["one", "two red green", "three three three one two", "red"]


def batch(*texts: str) -> list[Input]:
    return [Input(text=text) for text in texts]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=16).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny decoder with random weights, whose tokenizer pads on the left."""
    from transformers import BertTokenizerFast, Qwen3Config, Qwen3Model

    folder = tmp_path_factory.mktemp("qwen")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    Qwen3Model(config).save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab_file=str(bert / "vocab.txt"), model_max_length=64, padding_side="left")
    tokenizer.save_pretrained(folder)
    return folder


def states_alone(folder: Path, text: str) -> torch.Tensor:
    """Hidden states of one text by itself, so without padding. [T, dim]."""
    from transformers import AutoModel, AutoTokenizer

    encoded = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        states: torch.Tensor = AutoModel.from_pretrained(folder).eval()(**encoded).last_hidden_state[0]
    return states


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_rows_are_the_pooled_states_of_each_text_alone(kind: str, pooling: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    rows = make_encoder(f"hf:{folder}", {"pooling": pooling, "max_length": 16, "batch": 3}).encode(batch(*TEXTS))
    for row, text in zip(rows, TEXTS, strict=True):
        states = states_alone(folder, text)
        wanted = {"cls": states[0], "mean": states.mean(dim=0), "last": states[-1]}[pooling]
        np.testing.assert_allclose(row, wanted.numpy(), atol=2e-6)


def test_a_prefix_is_part_of_text_and_recipe_and_max_length_cuts(bert: Path) -> None:
    plain = make_encoder(f"hf:{bert}", {"max_length": 16})
    prefixed = make_encoder(f"hf:{bert}", {"max_length": 16, "prefix": "query : "})
    np.testing.assert_array_equal(plain.encode(batch("query : one")), prefixed.encode(batch("one")))
    assert plain.recipe() != prefixed.recipe()
    short = make_encoder(f"hf:{bert}", {"max_length": 3})
    np.testing.assert_array_equal(short.encode(batch("one two red")), plain.encode(batch("one")))
    with pytest.raises(EncoderError, match="max_length 17 is above the 16 tokens"):
        make_encoder(f"hf:{bert}", {"max_length": 17}).recipe()


def test_recipes_go_by_content_and_settings_not_by_place(bert: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "elsewhere"
    shutil.copytree(bert, copy)
    params = {"max_length": 16}
    here = make_encoder(f"hf:{bert}", params).recipe()
    assert make_encoder(f"hf:{copy}", params).recipe() == here
    assert make_encoder(f"hf:{copy}", {**params, "device": "cpu"}).recipe() == here
    for other in ({"pooling": "cls"}, {"dtype": "bfloat16"}, {"batch": 16}):
        assert make_encoder(f"hf:{copy}", {**params, **other}).recipe() != here
    changed = copy / "vocab.txt"
    changed.write_text(changed.read_text() + "\nblue")
    assert make_encoder(f"hf:{copy}", params).recipe() != here


def test_a_text_without_tokens_is_a_zero_row() -> None:
    states, mask = torch.ones(2, 3, 4), torch.tensor([[1, 1, 0], [0, 0, 0]])
    for pooling in ("cls", "mean", "last"):
        np.testing.assert_array_equal(pool(states, mask, pooling).numpy(), [[1] * 4, [0] * 4])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; known: cls, mean, last"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"batch": 0}, "batch is 0"),
        ({"device": 3}, "device is 3"),
        ({"poolng": "cls"}, "did you mean 'pooling'"),
    ],
)
def test_bad_parameters_are_named(params: dict[str, Any], message: str, bert: Path) -> None:
    with pytest.raises(EncoderError, match=message):
        make_encoder(f"hf:{bert}", params)


def test_a_device_that_is_not_here_is_named(bert: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(EncoderError, match=r"device 'cuda' cannot be used here.*num_gpus: 1"):
        make_encoder(f"hf:{bert}", {"device": "cuda", "max_length": 16}).encode(batch("one"))


def test_folders_without_a_model_are_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="no such folder"):
        make_encoder(f"hf:{tmp_path}/nothing").recipe()
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(EncoderError, match="cannot be loaded by transformers"):
        make_encoder(f"hf:{tmp_path}").encode(batch("one"))


def test_presets_are_models_of_the_hub_with_settings_of_their_own(bert: Path, monkeypatch: Any) -> None:
    asked: list[str] = []
    monkeypatch.setattr("workers.encoders.local_models.hub_folder", lambda name: asked.append(name) or bert)
    for name, preset in PRESETS.items():
        recipe = make_encoder(name, {"max_length": 16}).recipe()
        assert recipe["pooling"] == preset.params["pooling"]
        assert recipe["prefix"] == preset.params.get("prefix", "")
    assert asked == [preset.params["model"] for preset in PRESETS.values()]
    local = make_encoder("bert-base", {"model": str(bert), "max_length": 16})
    np.testing.assert_allclose(local.encode(batch("red"))[0], states_alone(bert, "red")[0].numpy(), atol=2e-6)
    with pytest.raises(EncoderError, match="did you mean 'bert-base'"):
        make_encoder("bert-bas")


def test_files_that_transformers_reads_are_in_the_digest() -> None:
    assert {"*.json", "*.txt", "*.model", "*.safetensors"} <= set(weights.MODEL_FILES)
