"""Which sentence encoder is any sentence-transformers model: a folder or a hub name."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input
from workers.encoders.weights import folder_sha256, hub_folder
from workers.errors import EncoderError

DTYPES = ("float32", "bfloat16", "float16")

#: Texts per forward pass within a batch, which sentence-transformers sorts by length. It moves padding, so changing it
#: raises `version`. 8 took 27 % less CPU and 260 MB less at the peak than 64 (MiniLM, 115 tokens a text, one thread).
FORWARD = 8


class SentenceEncoder(Encoder):
    """A model folder run by sentence-transformers on one CPU thread; pooling is what the folder says."""

    def __init__(self, *, dtype: str = "float32", max_length: int | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; known: {', '.join(DTYPES)}.")
        if max_length is not None and (type(max_length) is not int or max_length < 1):
            raise ValueError(f"max_length is {max_length!r}; give a number of tokens, at least 1.")
        self.dtype = dtype
        self.max_length = max_length
        self.prefix = ""

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
        settings = folder / "tokenizer_config.json"
        limit = json.loads(settings.read_text()).get("model_max_length") if settings.is_file() else None
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
        }

    @cached_property
    def _model(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        try:
            model = SentenceTransformer(
                str(self.folder),
                device="cpu",
                local_files_only=True,
                model_kwargs={"dtype": getattr(torch, self.dtype)},
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            raise EncoderError(
                f"encoder {self.name!r}: {self.folder} cannot be loaded by sentence-transformers ({error})."
            ) from error
        if self.max_length is not None:
            model.max_seq_length = self.max_length
        return model

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Tokenise, run and pool one batch [len(batch), dim]."""
        import torch

        model = self._model
        torch.set_num_threads(1)  # sums depend on how many threads share them
        rows = model.encode([self.prefix + item.text for item in batch], batch_size=FORWARD, show_progress_bar=False)
        return np.asarray(rows, dtype=np.float32)


class SentenceTransformersEncoder(SentenceEncoder):
    """Any model that sentence-transformers loads; `st:NAME` in a sweep file."""

    name = "st"
    summary = "any sentence-transformers model: st:<hub name> or st:<folder>"

    def __init__(self, *, model: str, dtype: str = "float32", max_length: int | None = None, prefix: str = "") -> None:
        super().__init__(dtype=dtype, max_length=max_length)
        if not model:
            raise ValueError("it needs a model: st:<hub name> or st:<folder>.")
        self.model = model
        self.prefix = prefix

    @cached_property
    def folder(self) -> Path:
        """The given folder, or the hub model's snapshot in the local cache."""
        path = Path(self.model).expanduser()
        if path.is_dir():
            return path
        if self.model.startswith(("/", ".", "~")):
            raise EncoderError(f"encoder 'st:{self.model}': no such folder; give a model folder or a hub name.")
        return hub_folder(self.model)
