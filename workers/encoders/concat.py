"""Which encoder sees text and image together without having been trained to? Two or more encoders side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input, Modality, make_encoder
from workers.errors import EncoderError


class Concat(Encoder):
    """Unit rows of several encoders, each times the root of its weight, side by side.

    Weights are scaled to sum to 1, so that the cosine of two inputs is the weighted mean of their cosines under the
    parts. `parts` are names or entries: `[minilm, {name: mobilenet, weight: 2}]`.
    """

    name = "concat"
    modality: Modality = "joint"
    summary = "several encoders side by side, such as a text and an image encoder, weighted"

    def __init__(self, *, parts: Sequence[str | Mapping[str, Any]]) -> None:
        if isinstance(parts, str) or not isinstance(parts, Sequence) or len(parts) < 2:
            raise ValueError(f"parts is {parts!r}; give a list of two encoders or more.")
        for part in parts:
            entry = part if isinstance(part, Mapping) else {"name": part}
            weight = entry.get("weight", 1)
            if not isinstance(entry.get("name"), str):
                raise ValueError(f"parts holds {part!r}; give an encoder's name, or an entry with one.")
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < float("inf"):
                raise ValueError(f"the weight of {entry['name']!r} is {weight!r}; give a number above 0.")
        self.parts = parts
        modalities = {encoder.modality for encoder, _ in self._parts}
        self.modality = modalities.pop() if len(modalities) == 1 else "joint"

    @cached_property
    def _parts(self) -> list[tuple[Encoder, float]]:
        """Encoders, and the weights, which sum to 1."""
        entries = [dict(part) if isinstance(part, Mapping) else {"name": part} for part in self.parts]
        weights = [float(entry.pop("weight", 1)) for entry in entries]
        made = []
        for entry in entries:
            name = entry.pop("name")
            encoder = make_encoder(entry.pop("use", name), entry)
            if not encoder.standalone:
                raise EncoderError(f"encoder 'concat': {name!r} is fitted on each split; it cannot be a part.")
            made.append(encoder)
        return [(encoder, weight / sum(weights)) for encoder, weight in zip(made, weights, strict=True)]

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, and recipe and weight of each part."""
        return {
            "encoder": self.name,
            "version": self.version,
            "parts": [[dict(encoder.recipe()), weight] for encoder, weight in self._parts],
            "dtype": "float32",
        }

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Encode by each part and put the unit rows side by side [len(batch), sum of dims].

        Raises:
            EncoderError: A part cannot embed an input.
        """
        found = []
        for encoder, weight in self._parts:
            rows = np.asarray(encoder.encode(batch), dtype=np.float64)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            found.append(np.sqrt(weight) * rows / np.where(lengths > 0, lengths, 1.0))
        return np.concatenate(found, axis=1).astype(np.float32)
