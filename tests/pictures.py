"""Pictures and a vocabulary for the tests of image encoders."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from workers.encoders.base import Input


def encoded(image: Image.Image, kind: str = "png", **options: Any) -> bytes:
    """The image as a file's bytes."""
    stream = BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def as_input(image: Image.Image, text: str = "") -> Input:
    """The image as a query's."""
    return Input(image=encoded(image), text=text, query="q")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coloured clouds."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


PICTURES = [noise(300, 200, 1), noise(90, 400, 2), noise(256, 256, 3), noise(41, 33, 4)]

#: A text for each picture; the last is long.
TEXTS = ["one", "two red roofs", "", "much longer than sixteen tokens"]


def byte_vocabulary(*special: str) -> dict[str, int]:
    """Every byte as a token, within a word and at its end, and special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    return {token: i for i, token in enumerate([*letters, *(letter + "</w>" for letter in letters), *special])}
