from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from orchestrator.reports.content import Content, assemble
from orchestrator.reports.papers import latex, markdown, tables

HOSTILE = "<script>alert(1)</script> | \\input{x} $a_b$ & 100%\n# ~^{}"


@pytest.fixture
def content() -> Content:
    rng = np.random.default_rng(0)
    rows = []
    for position, (router, level) in enumerate({"knn": 70.0, HOSTILE: 72.0, "zero": 60.0}.items()):
        for seed in range(10):
            area = level + rng.normal()
            rows.append(
                {
                    "benchmark": "b|1_x", "encoder": "e", "router": router, "seed": seed, "train_size": 1.0,
                    "n_train": 700, "n_test": 200, "formulation": "utility", "auc": area, "auc_path": area - 0.5,
                    "auc_rel": 0.5, "utility_mean": area - 10, "privileged": False, "query_blind": False,
                    "twin_of": None, "sweep_position": 10 * position + seed, "chosen": None, "tuning_seconds": None,
                }
            )  # fmt: skip
    return assemble({"name": "s_1", "spec": {}, "reference": "knn", "margin": 1.0}, pd.DataFrame(rows))


def test_tables_hold_the_leaderboard_and_the_comparisons(content: Content) -> None:
    found = tables(content)
    board = found["leaderboard"].set_index("router")
    assert board.loc["zero", "rank"] == 3
    assert board.loc[HOSTILE, "rank"] == 1
    assert board.loc["knn", "auc"] == pytest.approx(content.panels[0].standings[1].auc)
    assert set(found["comparisons"]["candidate"]) == {HOSTILE, "zero"}
    assert set(found["comparisons"]["metric"]) == {"auc", "auc_path"}


def test_markdown_has_a_row_for_each_router_and_takes_no_markup_from_names(content: Content) -> None:
    text = markdown(content)
    assert "<script" not in re.sub(r"\\<", "", text)
    rows = [line for line in text[: text.index("What would settle it")].splitlines() if line.startswith("| ")]
    assert len(rows) == 2 + 3
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1  # as many cells in each
    assert "worse" in text


def test_latex_takes_no_command_from_names(content: Content) -> None:
    text = "\n".join(line for line in latex(content).splitlines() if not line.startswith("%"))
    assert r"\input" not in text
    assert r"\textbackslash{}input\{x\}" in text
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    assert body.count(r"\\") == 3
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2  # and the paper's claims


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(content: Content, tmp_path: Path) -> None:
    document = r"\documentclass{article}\usepackage{booktabs,amssymb}\begin{document}" + latex(content)
    (tmp_path / "t.tex").write_text(document + r"\end{document}")
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "t.tex"], cwd=tmp_path, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]
