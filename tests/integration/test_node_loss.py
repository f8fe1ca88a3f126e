"""A node is lost in mid-run: its shards are done elsewhere, nobody is blamed, and no bit changes."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.servers import BUCKET, end, s3_environment, s3_server
from tests.runs import (
    assert_same_results,
    command,
    deterministic,
    environment,
    executed_again,
    run,
    select,
    write_sweep,
)

#: So many that both nodes still have shards when the first results are seen.
SEEDS = 16
UNITS = 8 * SEEDS


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Environment of the nodes: they have no disk in common that counts."""
    with s3_server(tmp_path / "s3.log") as endpoint:
        yield {**s3_environment(endpoint), "ROADTEST_ARTIFACTS": f"s3://{BUCKET}/artifacts"}


@pytest.fixture
def cluster(s3: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without CPUs and two workers with one each."""
    for name, value in {**s3, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}.items():
        monkeypatch.setenv(name, value)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_sweep_survives_the_loss_of_a_node(cluster: Any, s3: dict[str, str], tmp_path: Path) -> None:
    here = tmp_path / "alone"
    here.mkdir()
    run(write_sweep(here, seeds=SEEDS), "--executor", "local", "--workers", "2")
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    sweep = write_sweep(tmp_path, seeds=SEEDS)

    with (tmp_path / "said").open("wb") as said:
        process = subprocess.Popen(
            command("run", sweep.name, "--no-report", "--address", cluster.address),
            cwd=tmp_path,
            env=environment(**s3),
            stdout=said,
            stderr=said,
        )
        try:
            _wait_until_both_compute(process, tmp_path)
            cluster.remove_node(nodes[1], allow_graceful=False)
            assert process.wait(timeout=120) == 0, (tmp_path / "said").read_text()
        finally:
            if process.poll() is None:
                end(process)

    assert_same_results(tmp_path, deterministic(here))
    assert select(tmp_path, "SELECT count(*) FROM unit WHERE kind = 'evaluate' AND state = 'done'") == [(UNITS,)]
    assert executed_again(tmp_path) == []
    assert select(tmp_path, "SELECT max(n_deaths), max(n_failures) FROM unit") == [(0, 0)]
    kinds = select(tmp_path, "SELECT DISTINCT error_kind FROM attempt WHERE outcome <> 'done'")
    assert kinds == [("node_loss",)]


def _wait_until_both_compute(process: subprocess.Popen[bytes], folder: Path) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if (folder / "roadtest.db").exists():
            try:
                ((workers, done),) = select(
                    folder,
                    """SELECT count(DISTINCT worker), count(*) FROM attempt a JOIN unit u ON u.id = a.unit_id
                       WHERE a.outcome = 'done' AND u.kind = 'evaluate'""",
                )
            except sqlite3.OperationalError:  # no schema yet
                workers = done = 0
            if workers >= 2:
                assert done < UNITS, "the sweep was over before the node was lost"
                return
        time.sleep(0.02)
    raise AssertionError(f"never two workers; exit code {process.poll()}\n{(folder / 'said').read_text()}")
