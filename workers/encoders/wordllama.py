"""Which static encoder runs offline: WordLlama's token table, averaged over the tokens of a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.encoders.base import Encoder, Input
from workers.encoders.weights import file_sha256, package_folder


class WordLlama(Encoder):
    """Mean of token vectors (WordLlama l2_supercat, Miller 2024), 256 dimensions; no text is cut.

    What sentence-transformers' `StaticEmbedding` computes, without loading torch.
    """

    name = "wordllama"
    summary = "WordLlama, 256-d static token vectors from a package, no hub"
    extra = "offline"

    @property
    def _files(self) -> tuple[Path, Path]:
        folder = package_folder("wordllama", encoder=self.name)
        return (
            folder / "weights" / "l2_supercat_256.safetensors",
            folder / "tokenizers" / "l2_supercat_tokenizer_config.json",
        )

    def recipe(self) -> Mapping[str, Any]:
        """Name, version, digests of table and tokenizer, pooling."""
        weights, tokenizer = map(file_sha256, self._files)
        return {
            "encoder": self.name,
            "version": self.version,
            "weights": weights,
            "tokenizer": tokenizer,
            "pooling": "mean",
            "dtype": "float32",
        }

    @cached_property
    def _loaded(self) -> tuple[Any, npt.NDArray[np.float32]]:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        weights, tokenizer = self._files
        return Tokenizer.from_file(str(tokenizer)), load_file(weights)["embedding.weight"].astype(np.float32)

    def encode(self, batch: Sequence[Input]) -> npt.NDArray[np.float32]:
        """Average the table's rows over each text's tokens; no token, zero row [len(batch), 256]."""
        tokenizer, table = self._loaded
        rows = np.zeros((len(batch), table.shape[1]), dtype=np.float32)
        for row, item in zip(rows, batch, strict=True):
            tokens = tokenizer.encode(item.text, add_special_tokens=False).ids
            if tokens:
                row[:] = table[tokens].mean(axis=0)
        return rows
