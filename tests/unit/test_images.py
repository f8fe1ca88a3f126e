from __future__ import annotations

import csv
import logging
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.catalog import load_source
from orchestrator.sweep import BenchmarkEntry
from workers.benchmarks.base import Benchmark


def png(level: int) -> bytes:
    stream = BytesIO()
    Image.new("L", (4, 4), level).save(stream, "png")
    return stream.getvalue()


def entry(folder: Path, **keys: str) -> BenchmarkEntry:
    return BenchmarkEntry.model_validate({"name": "pictures", "path": str(folder), **keys})


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Twenty queries with a picture each; q03 and q04 share one that is cut short."""
    files = {i: png(i) for i in range(20)}
    files[3] = files[4] = png(99)[:-20]
    for i, raw in files.items():
        (tmp_path / f"{i}.png").write_bytes(raw)
    with (tmp_path / "queries.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["query_id", "prompt", "image_path"], *([f"q{i:02}", "?", f"{i}.png"] for i in files)]
        )
    with (tmp_path / "outcomes.csv").open("w", newline="") as file:
        rows = [[f"q{i:02}", model, 1, 0.1] for i in files for model in ("a", "b")]
        csv.writer(file).writerows([["query_id", "model", "score", "cost"], *rows])
    return tmp_path


def load(folder: Path, **keys: str) -> Benchmark:
    return load_source(entry(folder, **keys), home=folder / "home", beside=None)


def test_bad_images_stay_unless_their_queries_are_to_be_skipped(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "roadtest.catalog")
    everything = load(pictures)
    assert everything.n_queries == 20
    assert not caplog.records
    good = load(pictures, bad_images="skip")
    assert set(everything.queries) - set(good.queries) == {"q03", "q04"}
    assert good.meta["bad_images"]["n"] == 2
    assert "query 'q03'" in good.meta["bad_images"]["such_as"][0]
    assert "not an image that Pillow can decode" in caplog.text
    assert "2 queries left out" in caplog.text
    assert good.source_groups == everything.source_groups  # the others stay on their sides of every split


def test_nothing_is_left_out_where_all_decode(pictures: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in (3, 4):
        (pictures / f"{i}.png").write_bytes(png(50 + i))
    good = load(pictures, bad_images="skip")
    assert good.n_queries == 20
    assert good.meta["bad_images"] == {"n": 0, "such_as": []}
    assert good.fingerprint == load(pictures).fingerprint
    assert not caplog.records
