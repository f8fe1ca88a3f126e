"""What does a vision model see of an image file? Its first frame, upright, in RGB, whatever the file's colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from workers.encoders.base import Input
from workers.encoders.pixels import open_image
from workers.errors import EncoderError
from workers.quiet import ignoring

if TYPE_CHECKING:
    from PIL.Image import Image


def rgb_image(item: Input, *, widest: float) -> Image:
    """Decode an input's image: first frame, EXIF orientation applied, transparency on white, 16-bit grey scaled.

    Args:
        item: The input.
        widest: Longer side over shorter side; of a picture above it the middle is taken. What scales the shorter
            side to a fixed length would blow a picture of 1 x 100 000 pixels up to gigabytes.

    Raises:
        EncoderError: Missing, unreadable, changed, too large or not an image; names the query and file.
    """
    image = open_image(item)
    try:
        return _middle(_rgb(_upright(image)), widest)
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's conversions has failures of its own
        raise EncoderError(f"{item.label}: the image cannot be turned into upright RGB ({error}).") from error


def _upright(image: Image) -> Image:
    """Turned and mirrored as its EXIF block says; a damaged block says nothing."""
    from PIL.ImageOps import exif_transpose

    with ignoring():  # Pillow's on a damaged block
        return exif_transpose(image)


def _rgb(image: Image) -> Image:
    """RGB of 8 bits. Pillow's own conversion drops transparency and cuts grey of 16 bits off at 255."""
    from PIL import Image

    if image.mode.startswith("I"):
        grey = np.asarray(image)
        grey = grey if image.mode != "I" else np.clip(grey, 0, 65535)
        return Image.fromarray((grey >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F":  # levels of no agreed meaning: stretched from the least to the greatest
        levels = np.nan_to_num(np.asarray(image), nan=0.0, posinf=0.0, neginf=0.0)
        low, span = levels.min(), np.ptp(levels)
        return Image.fromarray(((levels - low) / (span or 1.0) * 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("LA", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", solid.size, "white"), solid).convert("RGB")
    return image.convert("RGB")


def _middle(image: Image, widest: float) -> Image:
    """The middle of a picture whose longer side is above `widest` times its shorter one."""
    width, height = image.size
    longest = int(widest * min(width, height))
    if max(width, height) <= longest:
        return image
    left, top = max(0, (width - longest) // 2), max(0, (height - longest) // 2)
    return image.crop((left, top, min(width, left + longest), min(height, top + longest)))
