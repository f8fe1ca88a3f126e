"""What do encoders share that run a model folder with torch? Folder, dtype, length, device, batch, and their recipe."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from workers.encoders.base import Encoder
from workers.encoders.weights import folder_sha256, hub_folder
from workers.errors import EncoderError

DTYPES = ("float32", "bfloat16", "float16")

#: Texts per forward pass within a batch that is sorted by length. It moves padding, so another one is part of the
#: recipe. 8 took 27 % less CPU and 260 MB less at the peak than 64 (MiniLM, 115 tokens a text, one thread).
FORWARD = 8


class LocalModel(Encoder):
    """A text model in a folder, on one CPU thread or a GPU.

    A GPU's rows agree with a CPU's within the tolerance of the dtype, not bit by bit: the device is no part of the
    recipe, so that one embedding may be computed where there is room. Give `device` where bits matter.
    """

    def __init__(
        self,
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        prefix: str = "",
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}.")
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise ValueError(f"max_length is {max_length!r}; give a number of tokens, at least 1.")
        if type(batch) is not int or batch < 1:
            raise ValueError(f"batch is {batch!r}; give a number of texts per forward pass, at least 1.")
        if device is not None and not isinstance(device, str):
            raise ValueError(f"device is {device!r}; give a name of torch's such as cpu or cuda, or leave it out.")
        if not isinstance(prefix, str):
            raise ValueError(f"prefix is {prefix!r}; give text.")
        self.dtype = dtype
        self.max_length = max_length
        self.prefix = prefix
        self.device = device
        self.batch = batch

    @property
    @abstractmethod
    def folder(self) -> Path:
        """The model's folder on this machine.

        Raises:
            EncoderError: It is not there.
        """

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, digest of the folder's files (weights, tokenizer, pooling), dtype, max length, prefix."""
        folder = self.folder
        limit = _token_limit(folder)
        if self.max_length is not None and limit is not None and self.max_length > limit:
            raise EncoderError(
                f"encoder {self.name!r}: max_length {self.max_length} is above the {limit} tokens that its model takes."
            )
        return {
            "encoder": self.name,
            "version": self.version,
            "weights": folder_sha256(folder),
            "dtype": self.dtype,
            "max_length": self.max_length,
            "prefix": self.prefix,
            **({} if self.batch == FORWARD else {"batch": self.batch}),
        }


class FolderOrHub(LocalModel):
    """A `LocalModel` that the user names: a folder, or a hub name. Subclasses store it in `model`."""

    model: str

    @cached_property
    def folder(self) -> Path:
        """The given folder, or the hub model's snapshot in the local cache."""
        path = Path(self.model).expanduser()
        if path.is_dir():
            return path
        if self.model.startswith(("/", ".", "~")):
            raise EncoderError(
                f"encoder '{self.name}:{self.model}': no such folder; give a model folder or a hub name."
            )
        return hub_folder(self.model)


def torch_device(wanted: str | None) -> str:
    """The device to compute on: the wanted one, else a GPU that this worker was given, else the CPU; one thread there.

    Raises:
        EncoderError: The wanted one is not here.
    """
    import torch

    torch.set_num_threads(1)  # sums depend on how many threads share them
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(
            f"device {wanted!r} cannot be used here ({reason}); leave `device` out, or reserve a GPU for the stage: "
            "`resources: {embed: {num_gpus: 1}}`."
        ) from error
    return wanted


def _token_limit(folder: Path) -> int | None:
    """Tokens that a tokenizer says its model takes; absurd figures are how tokenizers say that they do not know."""
    settings = folder / "tokenizer_config.json"
    limit = json.loads(settings.read_text(encoding="utf-8")).get("model_max_length") if settings.is_file() else None
    return int(limit) if isinstance(limit, int | float) and limit < 1e9 else None
