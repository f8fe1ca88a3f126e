"""Which encoder asks a vision-language model about text and image together: VLM2Vec's last hidden state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Input, Modality
from workers.encoders.hf import pool
from workers.encoders.local_models import FORWARD, torch_device
from workers.encoders.pictures import rgb_image
from workers.encoders.vision_models import VisionModel

if TYPE_CHECKING:
    from PIL.Image import Image

#: The query of VLM2Vec's own examples (TIGER-AI-Lab/VLM2Vec, experiments/examples/qwen2vl/demo.py).
PROMPT = "{image} Represent the given image with the following question: {text}"

#: Pixels that an image is scaled to, at least and at most (its src/arguments.py), in squares of 28, one token each.
MIN_PIXELS, MAX_PIXELS = 4 * 28 * 28, 1280 * 28 * 28

#: Qwen2-VL's image processor refuses longer pictures.
WIDEST = 200


class VLM2Vec(VisionModel):
    """Last hidden state of a prompt with an image and a text (Jiang et al. 2025), of models built on Qwen2-VL.

    Written from VLM2Vec's repository and run on small random models only. A prompt without `{image}` makes a text
    encoder of it, one without `{text}` an image encoder. As in VLM2Vec's code an image's tokens have consecutive
    positions, and positions by row and column only where the prompt has `<|vision_start|>` before `{image}`.
    """

    name = "vlm2vec"
    modality: Modality = "joint"
    summary = "VLM2Vec on Qwen2-VL: last hidden state of a prompt with image and text; model: a folder or hub name"
    model_types = ("qwen2_vl", "qwen2_5_vl")

    def __init__(
        self,
        *,
        model: str,
        prompt: str = PROMPT,
        dtype: str = "bfloat16",
        max_length: int | None = 2048,
        max_pixels: int = MAX_PIXELS,
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        super().__init__(model=model, dtype=dtype, max_length=max_length, device=device, batch=batch)
        if not isinstance(prompt, str):
            raise ValueError(f"prompt is {prompt!r}; give text with {{image}} and {{text}} in it.")
        sees = tuple(prompt.count(place) for place in ("{text}", "{image}"))
        kinds: dict[tuple[int, ...], Modality] = {(1, 1): "joint", (1, 0): "text", (0, 1): "image"}
        if sees not in kinds:
            raise ValueError(f"prompt is {prompt!r}; it needs {{image}} or {{text}} or both, each once.")
        if type(max_pixels) is not int or max_pixels < MIN_PIXELS:
            raise ValueError(f"max_pixels is {max_pixels!r}; give a number of pixels, at least {MIN_PIXELS}.")
        self.modality = kinds[sees]
        self.prompt = prompt
        self.max_pixels = max_pixels

    def recipe(self) -> Mapping[str, Any]:
        """That of every local model, the prompt and the greatest image."""
        return {**super().recipe(), "prompt": self.prompt, "max_pixels": self.max_pixels, "pooling": "last"}

    @cached_property
    def _loaded(self) -> tuple[Any, Any, Any, str]:
        from transformers import AutoModel

        return self.load(AutoModel)

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Ask, run, and take the last token's state [len(batch), dim].

        Raises:
            EncoderError: An image that is missing, changed or not an image.
        """
        import torch

        model, tokenizer, _, device = self._loaded
        torch_device(self.device)
        rows = []
        for start in range(0, len(batch), self.batch):
            chosen = batch[start : start + self.batch]
            pictures = [] if self.modality == "text" else [self._patches(item) for item in chosen]
            grids = [grid for _, grid in pictures] or [(0, 0)] * len(chosen)
            sequences = [self._tokens(item.text, grid) for item, grid in zip(chosen, grids, strict=True)]
            length = max(len(tokens) for tokens, _ in sequences)
            # Padding stands on the right, where no token of a causal model looks.
            ids = torch.full((len(chosen), length), tokenizer.pad_token_id or 0)
            mask = torch.zeros((len(chosen), length), dtype=torch.long)
            places = torch.zeros((3, len(chosen), length), dtype=torch.long)
            for i, (tokens, positions) in enumerate(sequences):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                mask[i, : len(tokens)] = 1
                places[:, i, : len(tokens)] = torch.from_numpy(positions)
            given = {"input_ids": ids, "attention_mask": mask, "position_ids": places}
            if pictures:
                given["pixel_values"] = torch.cat([patches for patches, _ in pictures]).to(model.dtype)
                given["image_grid_thw"] = torch.tensor([[1, *grid] for grid in grids])
            given = {key: tensor.to(device) for key, tensor in given.items()}
            with torch.inference_mode():
                states = model(**given, use_cache=False).last_hidden_state
            rows.append(pool(states, given["attention_mask"], "last").cpu().numpy())
        return np.concatenate(rows)

    def _patches(self, item: Input) -> tuple[Any, tuple[int, int]]:
        """An image's patches, and how many of them lie below and beside each other."""
        processor = self._loaded[2]
        found = processor(
            images=_at_least_28(rgb_image(item, widest=WIDEST)),
            size={"shortest_edge": MIN_PIXELS, "longest_edge": self.max_pixels},
            return_tensors="pt",
        )
        _, height, width = found["image_grid_thw"][0].tolist()
        return found["pixel_values"], (height, width)

    def _tokens(self, text: str, grid: tuple[int, int]) -> tuple[list[int], npt.NDArray[np.int64]]:
        """Token ids of the prompt, and their positions in time, row and column. [T], [3, T].

        Args:
            text: The text, of which `max_length` tokens are kept; prompt and image are never cut.
            grid: Patches below and beside each other; (0, 0) without an image.
        """
        model, tokenizer, _, _ = self._loaded
        config = model.config
        # A text that spells out a token of images must not become one.
        for token in tokenizer.convert_ids_to_tokens(
            [config.image_token_id, config.video_token_id, config.vision_start_token_id, config.vision_end_token_id]
        ):
            text = text.replace(token, f"{token[:-1]} {token[-1]}")
        if self.max_length is not None:
            ends = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            text = text[: ends[self.max_length - 1][1]] if len(ends) > self.max_length else text
        parts = [part.replace("{text}", text) for part in self.prompt.split("{image}")]
        *head, tail = [tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts]
        head = head[0] if head else []
        merge = config.vision_config.spatial_merge_size
        height, width = grid[0] // merge, grid[1] // merge
        at, end = len(head), len(head) + height * width
        # Nothing at all (an empty text is the whole prompt) is asked as an end of text.
        tokens = [*head, *[config.image_token_id] * (end - at), *tail] or [tokenizer.eos_token_id]
        positions = np.tile(np.arange(len(tokens)), (3, 1))
        if height and head and head[-1] == config.vision_start_token_id:
            rows, columns = np.divmod(np.arange(end - at), width)
            positions[:, at:end] = at + np.stack([np.zeros_like(rows), rows, columns])
            positions[:, end:] = at + max(height, width) + np.arange(len(tokens) - end)
        return tokens, positions


def _at_least_28(image: Image) -> Image:
    """As VLM2Vec does with a picture that is less than 28 pixels wide or high: scaled to 56 x 56."""
    return image.resize((56, 56)) if min(image.size) < 28 else image
