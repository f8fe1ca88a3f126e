"""Which encoders are the towers of CLIP: its images, its texts, or both side by side?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Input, Modality
from workers.encoders.local_models import FORWARD, torch_device
from workers.encoders.pictures import rgb_image
from workers.encoders.vision_models import VisionModel
from workers.errors import EncoderError

#: CLIP looks at the middle square, so of longer pictures nothing more is scaled.
WIDEST = 20


class ClipTowers(VisionModel):
    """CLIP (Radford et al. 2021): projected features of its towers, each row of length 1."""

    model_types = ("clip",)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any, str]:
        from transformers import CLIPModel

        model, tokenizer, processor, device = self.load(CLIPModel)
        limit = model.config.text_config.max_position_embeddings
        if self.max_length is not None and self.max_length > limit:
            raise EncoderError(
                f"encoder {self.name!r}: max_length {self.max_length} is above the {limit} tokens that its model takes."
            )
        return model, tokenizer, processor, device

    def image_rows(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Features of the images, one forward pass of them decoded at a time [len(batch), dim]."""
        import torch

        model, _, processor, device = self._loaded
        torch_device(self.device)
        rows = []
        for start in range(0, len(batch), self.batch):
            # The processor's copies are small: one decoded picture is held at a time.
            pixels = [
                processor(images=rgb_image(item, widest=WIDEST), return_tensors="pt")["pixel_values"]
                for item in batch[start : start + self.batch]
            ]
            with torch.inference_mode():
                found = model.get_image_features(pixel_values=torch.cat(pixels).to(device, model.dtype))
            rows.append(_unit(found))
        return np.concatenate(rows)

    def text_rows(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Features of the texts, cut to what the model takes or `max_length` [len(batch), dim]."""
        import torch

        model, tokenizer, _, device = self._loaded
        torch_device(self.device)
        rows = []
        for start in range(0, len(batch), self.batch):
            encoded = tokenizer(
                [item.text for item in batch[start : start + self.batch]],
                padding=True,
                truncation=True,
                max_length=self.max_length or model.config.text_config.max_position_embeddings,
                return_tensors="pt",
            ).to(device)
            with torch.inference_mode():
                found = model.get_text_features(
                    input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"]
                )
            rows.append(_unit(found))
        return np.concatenate(rows)


def _unit(found: Any) -> npt.NDArray[np.float32]:
    """Features of length 1, which transformers 5 returns as `pooler_output` and 4 as they are."""
    from torch.nn.functional import normalize

    rows: npt.NDArray[np.float32] = normalize(getattr(found, "pooler_output", found).float(), dim=1).cpu().numpy()
    return rows


class ClipImage(ClipTowers):
    """CLIP's image tower."""

    name = "clip-image"
    modality: Modality = "image"
    summary = "CLIP's image tower; model: a folder or hub name"

    def __init__(self, *, model: str, dtype: str = "float32", device: str | None = None, batch: int = FORWARD) -> None:
        super().__init__(model=model, dtype=dtype, max_length=None, device=device, batch=batch)

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Features of the images [len(batch), dim].

        Raises:
            EncoderError: An image that is missing, changed or not an image.
        """
        return self.image_rows(batch)


class ClipText(ClipTowers):
    """CLIP's text tower, which takes 77 tokens."""

    name = "clip-text"
    modality: Modality = "text"
    summary = "CLIP's text tower; model: a folder or hub name"

    def __init__(
        self,
        *,
        model: str,
        dtype: str = "float32",
        max_length: int | None = None,
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        super().__init__(model=model, dtype=dtype, max_length=max_length, device=device, batch=batch)

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Features of the texts [len(batch), dim]."""
        return self.text_rows(batch)


class Clip(ClipText):
    """Both towers side by side: the cosine of two inputs is the mean of their texts' and their images' cosines."""

    name = "clip"
    modality: Modality = "joint"
    summary = "CLIP's text and image features side by side; model: a folder or hub name"

    def recipe(self) -> Mapping[str, Any]:
        """That of a tower, and how the two are joined."""
        return {**super().recipe(), "joined": "text, image"}

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Text features, then image features, each of length 1 [len(batch), 2 * dim].

        Raises:
            EncoderError: An image that is missing, changed or not an image.
        """
        return np.concatenate([self.text_rows(batch), self.image_rows(batch)], axis=1)
