"""What is an encoder? Something that turns inputs into float32 rows and can say exactly what determines them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from workers.encoders.presets import PRESETS
from workers.errors import EncoderError
from workers.plugins import discover, nearest

Modality = Literal["text", "image", "joint"]

#: Encoders of any model, named before a colon: `st:NAME`.
OF_ANY_MODEL = ("st", "hf")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One thing to embed."""

    text: str = ""
    #: Path or encoded bytes of an image.
    image: str | bytes | None = None
    #: sha256 of the image's bytes.
    image_digest: str | None = None
    #: The first query that carries it: for messages, never part of a digest.
    query: str = field(default="", compare=False)

    @property
    def label(self) -> str:
        """How messages name it."""
        file = f" (image {self.image})" if isinstance(self.image, str) else ""
        return f"query {self.query!r}{file}"


class Encoder(ABC):
    """Subclass, set `name`, implement `recipe` and `encode`; the constructor only stores parameters."""

    #: Name in sweep files.
    name: ClassVar[str]
    #: Raise it when the same recipe would give other rows.
    version: ClassVar[str] = "1"
    #: What it reads of a query; an encoder made of others may say so in its constructor.
    modality: Modality = "text"
    #: Whether an input's row depends on the input alone; not so of `workers.encoders.fitted`.
    standalone: ClassVar[bool] = True
    #: One line for `roadtest encoders list`.
    summary: ClassVar[str] = ""
    #: Extra of this project that installs it, None when nothing more is needed.
    extra: ClassVar[str | None] = None

    @abstractmethod
    def recipe(self) -> Mapping[str, Any]:
        """All that determines the rows: weights' sha256, pooling, prefix, dtype, max length. JSON values.

        Cheap: planning calls it, so it imports neither torch nor sentence-transformers.

        Raises:
            EncoderError: Its package or weights are not installed.
        """

    @abstractmethod
    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Embed one fixed batch of at most 64 inputs. Rows need not be normalised [len(batch), dim]."""


@cache
def encoders() -> dict[str, type[Encoder]]:
    """All encoders by name."""
    return discover("workers.encoders", Encoder, "roadtest.encoders")


def make_encoder(name: str, params: Mapping[str, Any] | None = None) -> Encoder:
    """Make an encoder from a sweep file's entry: a registered one, a preset, or `st:NAME`, `hf:NAME` for any model.

    Raises:
        EncoderError: Unknown name or parameter.
    """
    known, given = encoders(), dict(params or {})
    kind, _, model = name.partition(":")
    if kind in OF_ANY_MODEL and name != kind:
        cls, given = known[kind], {"model": model, **given}
    elif name in PRESETS:
        cls, given = known[PRESETS[name].use], {**PRESETS[name].params, **given}
    elif name in known:
        cls = known[name]
    else:
        places = [f"{kind}:<name or path>" for kind in OF_ANY_MODEL]
        raise EncoderError(f"unknown encoder {name!r}; {nearest(name, [*known, *PRESETS, *places])}")
    allowed = inspect.signature(cls).parameters
    missing = [key for key, p in allowed.items() if p.default is p.empty and key not in given]
    if missing:
        raise EncoderError(f"encoder {name!r} needs {', '.join(missing)}; give it as a key of the encoder's entry.")
    for key in given:
        if key not in allowed:
            hint = nearest(key, list(allowed)) if allowed else "it has none."
            raise EncoderError(f"encoder {name!r} has no parameter {key!r}; {hint}")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise EncoderError(f"encoder {name!r}: {error}") from error
