"""Which encoder is any text model of transformers, pooled as the user says?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Input
from workers.encoders.local_models import FORWARD, FolderOrHub, torch_device
from workers.errors import EncoderError

POOLINGS = ("cls", "mean", "last")


class TransformerEncoder(FolderOrHub):
    """Last hidden states of a transformers model, pooled over the tokens of a text; `hf:NAME` in a sweep file.

    `cls` takes the first token, `mean` all tokens, `last` the last one, wherever the tokenizer puts its padding. The
    tokenizer adds the special tokens that it is configured to add. Code that comes with a model is never run.
    """

    name = "hf"
    summary = "any transformers text model with cls, mean or last-token pooling: hf:<hub name> or hf:<folder>"

    def __init__(
        self,
        *,
        model: str,
        pooling: str = "mean",
        dtype: str = "float32",
        max_length: int | None = 512,
        prefix: str = "",
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        super().__init__(dtype=dtype, max_length=max_length, prefix=prefix, device=device, batch=batch)
        if not model:
            raise ValueError(f"it needs a model: {self.name}:<hub name> or {self.name}:<folder>.")
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}; known: {', '.join(POOLINGS)}.")
        self.model = model
        self.pooling = pooling

    def recipe(self) -> Mapping[str, Any]:
        """That of every local model, and the pooling."""
        return {**super().recipe(), "pooling": self.pooling}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        """Tokenizer, model and device."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        device = torch_device(self.device)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(self.folder), **local)
            local["output_loading_info"] = True
            model, loaded = AutoModel.from_pretrained(str(self.folder), dtype=getattr(torch, self.dtype), **local)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise EncoderError(
                f"encoder {self.name!r}: {self.folder} cannot be loaded by transformers ({reason})."
            ) from error
        missing = sorted(name for name in loaded["missing_keys"] if "pooler" not in name)
        if missing:  # they would be drawn at random
            raise EncoderError(f"encoder {self.name!r}: {self.folder} lacks weights, such as {missing[0]}.")
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        model = getattr(model, "encoder", model) if model.config.is_encoder_decoder else model
        return tokenizer, model.eval().to(device), device

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Tokenise, run and pool one batch [len(batch), dim]."""
        import torch

        tokenizer, model, device = self._loaded
        torch_device(self.device)
        encoded = tokenizer(
            [self.prefix + item.text for item in batch],
            truncation=self.max_length is not None,
            max_length=self.max_length,
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]])
        found: dict[int, npt.NDArray[np.float32]] = {}
        order = np.argsort(-lengths, kind="stable")
        for start in range(0, len(batch), self.batch):
            chosen = order[start : start + self.batch]
            rows = {key: [values[i] for i in chosen] for key, values in encoded.items()}
            padded = tokenizer.pad(rows, return_tensors="pt").to(device)
            with torch.inference_mode():
                states = model(**padded).last_hidden_state
            pooled = pool(states, padded["attention_mask"], self.pooling).cpu().numpy()
            found.update(zip(chosen.tolist(), pooled, strict=True))
        return np.stack([found[i] for i in range(len(batch))])


def pool(states: Any, mask: Any, pooling: str) -> Any:
    """Hidden states of each text as one float32 row [b, dim]; a text without any token is a zero row.

    Args:
        states: Tensor of last hidden states. [b, T, dim]
        mask: 1 where there is a token, padded on either side. [b, T]
        pooling: `cls`, `mean` or `last`.
    """
    import torch

    states = states.float()
    mask = mask.to(states.dtype)
    if pooling == "mean":
        return (states * mask.unsqueeze(2)).sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
    places = torch.arange(mask.shape[1], device=mask.device, dtype=mask.dtype)
    # The first and the last place that holds a token.
    at = mask.argmax(dim=1) if pooling == "cls" else (mask * (places + 1)).argmax(dim=1)
    rows = states[torch.arange(len(states), device=states.device), at]
    return rows * mask.any(dim=1, keepdim=True)
