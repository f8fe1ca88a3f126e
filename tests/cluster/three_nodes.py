"""Does a sweep survive a node? Three Ray nodes, PostgreSQL and S3 on the head; one node is lost in mid-run.

    python -m tests.cluster.three_nodes [--fault power|cable|blip|none] [--seeds N]

The sweep is submitted from a fourth machine that has neither a password nor the store's keys. Every deterministic
column must be that of a run on this host alone. Needs what `tests/cluster/lab.py` needs, and PostgreSQL's server.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.lab import DASHBOARD_PORT, PROJECT, Lab, Node
from tests.cluster.servers import BUCKET, end, postgres, s3_environment, s3_server
from tests.runs import assert_same_results, deterministic, executed_again, run, select

HEAD = "10.77.0.1"
PG_PORT, S3_PORT = 5432, 9000
PASSWORD = "pg-secret-of-the-lab"  # of a server that no other machine can reach

#: Where in the sweep the fault comes, as a share of its evaluations, and to which node: it has done units by then.
MOMENT, VICTIM = 0.25, "n3"
#: Seconds that a pulled cable stays out in the fault `blip`: Ray has given the node up and its processes live on.
BLIP = 20.0


def write_sweep(folder: Path, *, seeds: int) -> Path:
    """RouterBench's part where the shared data are, else the embedded toolbox; fixed, tuned and blind routers."""
    shared = os.environ.get("ROADTEST_SHARED") or str(PROJECT.parent / "shared")
    table = Path(shared) / "data" / "tables" / "routerbench_part"
    benchmark: dict[str, Any] = {"name": "toolbox", "queries": 600}
    if table.is_dir():
        benchmark = {"name": "routerbench-part", "path": str(table), "embed": "question", "queries": 600}
    sweep = {
        "name": "three-nodes",
        "benchmarks": [benchmark],
        "encoders": ["hash-ngrams", "minilm"],
        "routers": [
            "oracle",
            "zero-router",
            {"name": "knn@100", "use": "knn", "k": 100, "twin": True},
            {"name": "ridge@1", "use": "linear", "penalty": 1},
            "linear",
        ],
        "seeds": seeds,
        "protocol": {"tuning_budget": 6},
    }
    path = folder / "three-nodes.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False))
    return path


@contextmanager
def machines() -> Iterator[tuple[Lab, Node, str]]:
    """Four machines with PostgreSQL and S3 on the first: the lab, the one to submit from, the database's URL here."""
    s3 = {**s3_environment(f"http://{HEAD}:{S3_PORT}"), "ROADTEST_ARTIFACTS": f"s3://{BUCKET}/artifacts"}
    with Lab(nodes=4) as lab, ExitStack() as servers:
        desk = lab.nodes[3]
        for node in lab.nodes[:3]:
            node.environment.update(s3)
        lab.head.environment["PGPASSFILE"] = lab.head.put(
            "root/.pgpass", f"{HEAD}:{PG_PORT}:roadtest:roadtest:{PASSWORD}\n"
        )
        data = lab.folder / "postgres"
        data.mkdir()
        url = servers.enter_context(
            postgres(data, password=PASSWORD, address=HEAD, port=PG_PORT, inside=lab.head.inside)
        )
        servers.enter_context(s3_server(lab.folder / "s3.log", address=HEAD, port=S3_PORT, inside=lab.head.inside))
        yield lab, desk, url


def submit(desk: Node, sweep: Path, *, dashboard: str = HEAD) -> subprocess.Popen[bytes]:
    """Send the sweep to the cluster and follow it."""
    desk.environment["RAY_API_SERVER_ADDRESS"] = f"http://{dashboard}:{DASHBOARD_PORT}"
    # The sweep's data lie under ROADTEST_SHARED, on this host and thus on each of its namespaces.
    there = desk.put(f"tmp/{sweep.name}", sweep.read_text())
    database = f"postgresql+psycopg://roadtest@{HEAD}:{PG_PORT}/roadtest"
    return desk.start(["roadtest", "submit", there, "--db", database, "--wait"], log="submit")


def done(url: str) -> tuple[int, int]:
    """Evaluations that are done, and all."""
    import psycopg

    try:
        rows = select(url, "SELECT count(*) FILTER (WHERE state = 'done'), count(*) FROM unit WHERE kind = 'evaluate'")
    except psycopg.errors.UndefinedTable:
        return 0, 0
    return rows[0][0], rows[0][1]


def computed(url: str) -> set[str]:
    """Nodes that have finished a unit."""
    return {host for (host,) in select(url, "SELECT DISTINCT host FROM attempt WHERE outcome = 'done'")}


def strike(lab: Lab, fault: str, say: Any) -> None:
    """Lose a node."""
    victim = next(node for node in lab.nodes if node.name == VICTIM)
    if fault == "power":
        victim.power_off()
    elif fault in ("cable", "blip"):
        lab.cut(victim)
    say(f"{fault}: {victim.name} is lost")
    if fault == "blip":
        time.sleep(BLIP)
        lab.mend(victim)
        say(f"{victim.name}'s cable is in again")


def main() -> None:
    """Run once and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=["power", "cable", "blip", "none"], default="power")
    parser.add_argument("--seeds", type=int, default=20)
    asked = parser.parse_args()
    begin = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - begin:6.1f} s  {text}\n")
        sys.stdout.flush()

    with tempfile.TemporaryDirectory(prefix="rt-alone-") as here:
        folder = Path(here)
        sweep = write_sweep(folder, seeds=asked.seeds)
        run(sweep, "--workers", "2", env={"ROADTEST_SHARED": os.environ.get("ROADTEST_SHARED", "")})
        alone = deterministic(folder)
        say(f"on this host alone, SQLite: {len(alone['unit'])} units")
        with machines() as (lab, desk, url):
            lab.start_ray(lab.nodes[1:3])
            say("three nodes, PostgreSQL and S3 are up")
            follow_up(lab, desk, url, sweep, alone, asked.fault, say)


def follow_up(
    lab: Lab,
    desk: Node,
    url: str,
    sweep: Path,
    alone: Mapping[str, list[tuple[Any, ...]]],
    fault: str,
    say: Any,
) -> None:
    """Submit, strike, wait, compare."""
    job = submit(desk, sweep)
    try:
        struck = fault == "none"
        while job.poll() is None:
            finished, n = done(url)
            if n and not struck and finished >= MOMENT * n and VICTIM in computed(url):
                say(f"{finished} of {n} evaluations are done")
                strike(lab, fault, say)
                struck = True
            time.sleep(0.1)
        say(f"the job ended with exit code {job.returncode}")
        assert job.returncode == 0, (desk.folder / "submit.log").read_text()
        assert struck, "the sweep was over before the fault"
    finally:
        if job.poll() is None:
            end(job)
    assert_same_results(url, alone)
    assert executed_again(url) == []
    say("every deterministic column is that of this host alone")
    rows = select(
        url,
        "SELECT host, outcome, error_kind, count(*) FROM attempt GROUP BY host, outcome, error_kind ORDER BY 1, 2, 3",
    )
    for host, outcome, kind, n in rows:
        say(f"  {n:4d} × {outcome}{f' ({kind})' if kind else ''} on {host or 'a node that is gone'}")
    assert computed(url) == {"n1", "n2", "n3"}
    assert select(url, "SELECT count(*) FROM unit WHERE state <> 'done'") == [(0,)]


if __name__ == "__main__":
    main()
