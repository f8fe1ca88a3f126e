"""Which image encoder needs no weights: the grey pixels of a small copy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input
from workers.errors import EncoderError
from workers.quiet import ignoring

if TYPE_CHECKING:
    from PIL.Image import Image


#: Formats that are decoded: none that starts another program, as EPS does.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
#: A small file can hold a vast picture: more than these is refused before it is decoded.
MAX_IMAGE_PIXELS = 89_478_485
MAX_IMAGE_BYTES = 1 << 28


class Pixels(Encoder):
    """Grey levels in [0, 1] of the image shrunk to size x size by averaging boxes."""

    name = "pixels"
    modality = "image"
    summary = "grey pixels of the image, shrunk; no weights"

    def __init__(self, *, size: int = 16) -> None:
        if type(size) is not int or size < 1:
            raise ValueError(f"size is {size!r}; give a number of pixels, at least 1.")
        self.size = size

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, size, resampling."""
        return {
            "encoder": self.name,
            "version": self.version,
            "size": self.size,
            "resampling": "box",
            "dtype": "float32",
        }

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Decode, grey, shrink [len(batch), size * size].

        Raises:
            EncoderError: An image that is missing, changed or not an image.
        """
        from PIL.Image import Resampling

        rows = np.empty((len(batch), self.size * self.size), dtype=np.float32)
        for row, item in zip(rows, batch, strict=True):
            small = open_image(item).convert("L").resize((self.size, self.size), Resampling.BOX)
            row[:] = np.asarray(small, dtype=np.float32).ravel() / 255
        return rows


def open_image(item: Input) -> Image:
    """Decode an input's image and check that its bytes are those that were planned.

    Raises:
        EncoderError: Missing, unreadable, changed or not an image; names the query and file.
    """
    from PIL import Image

    if item.image is None:
        raise EncoderError(f"{item.label} has no image; use a text encoder or leave the query out.")
    try:
        if isinstance(item.image, str) and Path(item.image).stat().st_size > MAX_IMAGE_BYTES:
            raise EncoderError(f"{item.label}: the image file is over {MAX_IMAGE_BYTES >> 20} MB; shrink it.")
        raw = item.image if isinstance(item.image, bytes) else Path(item.image).read_bytes()
    except OSError as error:
        raise EncoderError(f"{item.label}: the image cannot be read ({error.strerror}).") from error
    if item.image_digest is not None and hashlib.sha256(raw).hexdigest() != item.image_digest:
        raise EncoderError(f"{item.label}: the image has changed since the benchmark was read; run again.")
    try:
        with ignoring():  # of damaged EXIF blocks, and of sizes that are refused below
            image = Image.open(BytesIO(raw), formats=FORMATS)
            if image.width * image.height > MAX_IMAGE_PIXELS:
                raise EncoderError(f"{item.label}: {image.width} x {image.height} pixels are too many; shrink it.")
            image.load()
    except (MemoryError, EncoderError):
        raise
    except Exception as error:  # each of Pillow's decoders has failures of its own
        raise EncoderError(f"{item.label}: not an image that Pillow can decode ({error}).") from error
    return image
