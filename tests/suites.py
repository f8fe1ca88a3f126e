"""What do tests of comparisons across suites compare? Results of routers that differ by what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

FIVE = ("v", "w", "x", "y", "z")

#: A spread whose mean is 0.
WAVE = np.tile([1.0, -1.0], 10)


def rows(router: str, auc: Sequence[float] | np.ndarray, suite: str, **columns: Any) -> pd.DataFrame:
    """Results of one router on one benchmark: `auc` per split; anything else overrides the defaults."""
    defaults = {
        "benchmark": suite, "suite": suite, "encoder": "minilm", "router": router, "train_size": 1.0, "n_train": 700,
        "n_test": 200, "formulation": "utility", "utility_mean": 40.0, "privileged": False, "query_blind": False,
        "twin_of": None, "sweep_position": 0, "chosen": None, "tuning_seconds": None,
    }  # fmt: skip
    auc = np.asarray(auc, dtype=float)
    areas = {"seed": range(len(auc)), "auc": auc, "auc_path": auc, "auc_rel": auc / 100}
    frame = pd.DataFrame(areas | {name: [value] * len(auc) for name, value in defaults.items() if name not in columns})
    return frame.assign(**columns)


def study(differences: Mapping[str, Mapping[str, Any]], **columns: Any) -> pd.DataFrame:
    """By suite and candidate: what it is above a reference at 80."""
    frames = []
    for suite, candidates in differences.items():
        frames.append(rows("reference", [80.0] * 20, suite, **columns))
        frames += [
            rows(name, 80 + np.asarray(d), suite, sweep_position=i, **columns)
            for i, (name, d) in enumerate(candidates.items(), 1)
        ]
    return pd.concat(frames, ignore_index=True)
