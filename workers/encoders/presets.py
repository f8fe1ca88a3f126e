"""Which models have a name of their own here? Hub models, with the pooling, prefix and dtype of their cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: What the cards of instructed models call the task; ours is to find queries that the same models answer well.
_TASK = "Retrieve queries that the same language models answer well"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named model: an encoder with other defaults; a sweep file's own parameters stand above them."""

    summary: str
    #: Registered encoder that runs it.
    use: str = "hf"
    params: Mapping[str, Any]


PRESETS: Mapping[str, Preset] = {
    "bert-base": Preset(
        summary="BERT base uncased (Devlin et al. 2019), [CLS], 768-d: the text encoder of Li 2025",
        params={"model": "google-bert/bert-base-uncased", "pooling": "cls"},
    ),
    "sfr-embedding-mistral": Preset(
        summary="SFR-Embedding-Mistral (Salesforce 2024), last token, instruction, 4096-d, 14 GB",
        params={
            "model": "Salesforce/SFR-Embedding-Mistral",
            "pooling": "last",
            "dtype": "bfloat16",
            "max_length": 4096,
            "prefix": f"Instruct: {_TASK}\nQuery: ",
        },
    ),
    "e5": Preset(
        summary="E5 base v2 (Wang et al. 2022), mean, prefix of symmetric tasks, 768-d",
        params={"model": "intfloat/e5-base-v2", "pooling": "mean", "prefix": "query: "},
    ),
    "bge": Preset(
        summary="BGE base en v1.5 (Xiao et al. 2023), [CLS], 768-d",
        params={"model": "BAAI/bge-base-en-v1.5", "pooling": "cls"},
    ),
    "gte": Preset(
        summary="GTE base (Li et al. 2023), mean, 768-d",
        params={"model": "thenlper/gte-base", "pooling": "mean"},
    ),
    "qwen3-embedding": Preset(
        summary="Qwen3-Embedding 0.6B (Zhang et al. 2025), last token, instruction, 1024-d",
        params={
            "model": "Qwen/Qwen3-Embedding-0.6B",
            "pooling": "last",
            "dtype": "bfloat16",
            "max_length": 8192,
            "prefix": f"Instruct: {_TASK}\nQuery:",
        },
    ),
}
