from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from workers.encoders.base import Input, make_encoder
from workers.errors import EncoderError


def picture(level: int) -> bytes:
    stream = BytesIO()
    Image.new("L", (8, 8), level).save(stream, "png")
    return stream.getvalue()


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_cosines_are_the_weighted_mean_of_the_parts() -> None:
    inputs = [Input(text=text, image=picture(level)) for text, level in (("red one", 10), ("blue one", 200))]
    parts = [{"name": "hash-ngrams", "dim": 64}, {"name": "pixels", "size": 4, "weight": 3}]
    joint = unit(make_encoder("concat", {"parts": parts}).encode(inputs))
    text = unit(make_encoder("hash-ngrams", {"dim": 64}).encode(inputs))
    image = unit(make_encoder("pixels", {"size": 4}).encode(inputs))
    assert joint.shape == (2, 64 + 16)
    np.testing.assert_allclose(joint @ joint.T, 0.25 * text @ text.T + 0.75 * image @ image.T, atol=1e-6)


def test_modality_is_that_of_the_parts() -> None:
    assert make_encoder("concat", {"parts": ["hash-ngrams", "pixels"]}).modality == "joint"
    assert make_encoder("concat", {"parts": ["hash-ngrams", {"name": "wide", "use": "hash-ngrams"}]}).modality == "text"


def test_weights_are_relative_and_in_the_recipe() -> None:
    def recipe(*weights: float) -> Any:
        parts = [{"name": name, "weight": w} for name, w in zip(("hash-ngrams", "pixels"), weights, strict=True)]
        return make_encoder("concat", {"parts": parts}).recipe()

    assert recipe(1, 3) == recipe(2, 6) != recipe(1, 1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ("minilm", "give a list of two encoders or more"),
        (["hash-ngrams"], "give a list of two encoders or more"),
        (["hash-ngrams", 3], "parts holds 3"),
        (["hash-ngrams", {"name": "pixels", "weight": 0}], "weight of 'pixels' is 0"),
        (["hash-ngrams", "pixel"], "did you mean 'pixels'"),
        (["hash-ngrams", "tfidf-svd"], "fitted on each split"),
        (["hash-ngrams", {"name": "pixels", "sise": 3}], "did you mean 'size'"),
    ],
)
def test_bad_parts_are_named(parts: Any, message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        make_encoder("concat", {"parts": parts})
