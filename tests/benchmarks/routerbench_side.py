"""RouterBench's own routers and evaluation on rows that were written for them; run by bench_routerbench.

    python routerbench_side.py CHECKOUT FOLDER

CHECKOUT is github.com/withmartian/routerbench, FOLDER holds its wide table of each set as CSV (`train`, `test`),
`rows.npy` and `rows.json`, the row of each sample. What its modules import but a local evaluation does not use is left
out: its cloud, its bucket, its command line; embeddings are given, and a text's tokens are its words, as the tokenizers
would be downloaded. Printed is JSON: seconds from tables in memory to their aggregated results, and mean cost and score
by set, router and willingness to pay. The cascade, which needs no embedding, is not run.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
import types
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd


class GivenRows:
    """Stands for its cache of embeddings."""

    def __init__(self, folder: Path) -> None:
        self.rows = np.load(folder / "rows.npy")
        self.place = json.loads((folder / "rows.json").read_text())
        self.found: dict[tuple[str, ...], np.ndarray] = {}

    def batch_get_embedding(self, prompts: tuple[str, ...], _model: str) -> np.ndarray:
        """Rows of these prompts, remembered as the original does. [n, d]."""
        if prompts not in self.found:
            self.found[prompts] = self.rows[[self.place[prompt] for prompt in prompts]]
        return self.found[prompts]


def imported(checkout: Path) -> Any:
    """Its module `evaluate_routers`, in whose folder it runs."""
    for name, given in {
        "modal": {},
        "gcsfs": {},
        "dotenv": {"load_dotenv": lambda: None},
        "jsonargparse": {"ActionConfigFile": None, "ArgumentParser": None},
        "tokencost": {"count_string_tokens": lambda text, _model: len(text.split())},
        "embedding": {},
        "embedding.cache": {"EmbeddingCache": None},
    }.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(given)
    os.environ["CONNECTION_STRING"] = ""
    sys.path.insert(0, str(checkout))
    return importlib.import_module("evaluate_routers")


def evaluated(module: Any, train: pd.DataFrame, test: pd.DataFrame, cache: GivenRows) -> pd.DataFrame:
    """Its aggregated results of the settings of its `configs/evaluate_routers.yaml`."""
    fraction, models, encoder = 0.7, module.get_models_to_route(train), "given"
    module.MODELS_TO_ROUTE = models  # a global of its script
    common = (cache, train, fraction, models)
    routers = module.generate_svm_routers([encoder], *common)
    networks = [(encoder, hidden, "relu", 0.001) for hidden in (100, [100, 100])]
    routers += module.generate_mlp_routers(networks, *common)
    routers += module.generate_knn_routers([(encoder, k, "cosine") for k in (5, 10, 40)], *common)
    found: pd.DataFrame = module.get_results_for_all_evals(test, model_routers_and_names=routers, use_local=True)
    return found


def operating_points(found: pd.DataFrame, n_test: int) -> list[list[Any]]:
    """Router as ours are called, willingness to pay, mean cost and score of every operating point."""
    names = {"(100,)": "mlp@100", "([100, 100],)": "mlp@100-100"}
    return [
        [
            names[row.hidden_layer_sizes] if row.model_name == "mlp" else f"knn@{row.neighbors}",
            float(row.willingness_to_pay),
            float(row.total_cost) / n_test,
            float(row.performance),
        ]
        for row in found.itertuples()
        if row.model_name in ("mlp", "knn")
    ]


def main() -> None:
    """Evaluate every set; its own output is dropped."""
    checkout, folder = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    silence = io.StringIO()
    with contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
        module, cache = imported(checkout), GivenRows(folder)
        tables = {
            path.parent.name: (pd.read_csv(path), pd.read_csv(path.with_name("test.csv")))
            for path in sorted(folder.glob("*/train.csv"))
        }
        begin = perf_counter()
        results = {name: evaluated(module, train, test, cache) for name, (train, test) in tables.items()}
        seconds = perf_counter() - begin
    points = {name: operating_points(found, len(tables[name][1])) for name, found in results.items()}
    sys.stdout.write(json.dumps({"seconds": seconds, "points": points}))


if __name__ == "__main__":
    main()
