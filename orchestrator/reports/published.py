"""Which figures has Li 2025 (arXiv 2505.12601) printed for a benchmark of this name?"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

#: AUC of its tables 2, 5 and E.1, by benchmark and router; its encoders are BERT's `[CLS]` and VLM2Vec.
_TABLE = Path(__file__).with_name("published.csv")


@cache
def _published() -> pd.DataFrame:
    return pd.read_csv(_TABLE)


def published(benchmark: str) -> pd.DataFrame:
    """Rows `router, auc, encoder, table` of the paper's benchmark of this name, however it is spelled.

    `routerbench-part/arc_challenge` is a task of RouterBench and so beside its figure; the whole of a part is not.
    """
    name = benchmark.casefold().replace("_", "-")
    head, _, task = name.partition("/")
    if head == "routerbench-part" and task:
        name = f"routerbench/{task}"
    table = _published()
    return table[table["benchmark"] == name][["router", "auc", "encoder", "table"]].reset_index(drop=True)
