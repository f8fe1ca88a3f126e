"""How long does a local Ray take to start and to end, and how much memory do its daemons take: `ray.init` and ours?

    python -m tests.benchmarks.local_ray [--runs 3]

The two alternate, each in a process of its own, an actor made in each before its memory (summed proportional set sizes)
is read. Both sides' options are the same but for the daemons that ours leaves out (docs/design/local-ray.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from time import perf_counter

import psutil

from orchestrator import cluster
from tests.benchmarks.memory import pss

WAYS = ("ray.init", "roadtest")


def once(way: str) -> dict[str, float]:
    """Seconds until Ray is there and until it is gone, and megabytes of all that it started."""
    if way == "ray.init":
        cluster._few_daemons = lambda: nullcontext({"include_dashboard": False})  # type: ignore[assignment]
    begin = perf_counter()
    owned = cluster.connect(None, workers=2)
    start = perf_counter() - begin
    import ray

    holder = ray.remote(num_cpus=1)(_Holder).remote()
    ray.get(holder.there.remote())
    memory = sum(pss(child) for child in psutil.Process().children(recursive=True))
    begin = perf_counter()
    cluster.disconnect(owned=owned)
    return {"start, s": start, "end, s": perf_counter() - begin, "MB": memory / 1e6}


class _Holder:
    def there(self) -> bool:
        return True


def main() -> None:
    """Print a line for each run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--child", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        sys.stdout.write(json.dumps({key: round(value, 2) for key, value in once(asked.child).items()}))
        return
    for _ in range(asked.runs):
        for way in WAYS:
            command = [sys.executable, "-m", "tests.benchmarks.local_ray", "--child", way]
            ran = subprocess.run(command, capture_output=True, text=True, check=True)
            sys.stdout.write(f"{way:10} {ran.stdout}\n")


if __name__ == "__main__":
    main()
