"""Which sentence encoder is any sentence-transformers model: a folder or a hub name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Input
from workers.encoders.local_models import FORWARD, FolderOrHub, LocalModel, torch_device
from workers.errors import EncoderError


class SentenceEncoder(LocalModel):
    """A model folder run by sentence-transformers; pooling is what the folder says."""

    @cached_property
    def _model(self) -> Any:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from safetensors import SafetensorError
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        device = torch_device(self.device)
        try:
            model = SentenceTransformer(
                str(self.folder),
                device=device,
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
        model = self._model
        torch_device(self.device)
        rows = model.encode([self.prefix + item.text for item in batch], batch_size=self.batch, show_progress_bar=False)
        return np.asarray(rows, dtype=np.float32)


class SentenceTransformersEncoder(SentenceEncoder, FolderOrHub):
    """Any model that sentence-transformers loads; `st:NAME` in a sweep file."""

    name = "st"
    summary = "any sentence-transformers model: st:<hub name> or st:<folder>"

    def __init__(
        self,
        *,
        model: str,
        dtype: str = "float32",
        max_length: int | None = None,
        prefix: str = "",
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        super().__init__(dtype=dtype, max_length=max_length, prefix=prefix, device=device, batch=batch)
        if not model:
            raise ValueError("it needs a model: st:<hub name> or st:<folder>.")
        self.model = model
