"""How fast is it, as ratios against named alternatives in the same run? `make bench`.

    python -m tests.benchmarks.run [--only NAME ...] [--check] [--record] [--json FILE]

Every benchmark runs in a process of its own, so that its memory is its own. Wall seconds depend on the machine and on
what else it does; the ratios are what is quoted. `--record` appends the run to the history (history.jsonl); `--check`
compares with it and exits with 1 if a figure has become slower or a benchmark failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from orchestrator.environment import facts
from tests.benchmarks import history
from tests.benchmarks.measuring import Figure, NotMeasuredError

#: Where each benchmark is: module of this package, function that returns figures.
BENCHMARKS: Mapping[str, tuple[str, str]] = {
    "knn": ("bench_evaluation", "knn_study"),
    "grid-knn": ("bench_knn", "figures"),
    "frontier": ("bench_evaluation", "frontier"),
    "embedding": ("bench_embedding", "figures"),
    "grid": ("bench_grid", "figures"),
    "training": ("bench_training", "figures"),
    "routerbench": ("bench_routerbench", "figures"),
    "llmrouter": ("bench_llmrouter", "figures"),
    "overhead": ("bench_overhead", "figures"),
    "orchestration": ("bench_orchestration", "figures"),
    "memory": ("bench_memory", "figures"),
}
RESULTS = Path("build/benchmarks.json")
ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write, and compare if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--check", action="store_true", help="compare with the history")
    parser.add_argument("--record", action="store_true", help="append to the history")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.child:
        return child(asked.child[0], Path(asked.child[1]))
    run = measure(asked.only or list(BENCHMARKS))
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(run, indent=1, ensure_ascii=False))
    _say(f"\n{asked.json} written\n")
    slower = False
    if asked.check:
        changes = history.changes(run, history.load())
        _say("".join(f"{change}\n" for change in changes))
        slower = any(change.slower for change in changes)
    if asked.record:
        history.append(run)
    return int(slower or bool(run["failed"]))


def measure(names: Sequence[str]) -> dict[str, Any]:
    """Run benchmarks one after the other, each in a process of its own, and print a table of their figures."""
    run: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": facts(),
        "load": [os.getloadavg()[0]],
        "seconds": {},
        "figures": [],
        "not_measured": {},
        "failed": [],
    }
    _say(f"{run['machine']['cpu']}, {run['machine']['cores']} cores, load {run['load'][0]:.1f}\n")
    _say(f"{'figure':<44}{'ours':>9}{'against':>10}{'':>7}{'ratio':>8}{'lowest':>8}{'aim':>6}{'MB':>7}{'MB':>7}\n")
    with tempfile.TemporaryDirectory(prefix="rt-bench-") as folder:
        for name in names:
            begin, answer = perf_counter(), Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", "tests.benchmarks.run", "--child", name, str(answer)]
            code = subprocess.run(command, cwd=ROOT).returncode
            run["seconds"][name] = round(perf_counter() - begin)
            got = json.loads(answer.read_text()) if answer.exists() else {}
            if reason := got.get("not_measured"):
                run["not_measured"][name] = reason
                _say(f"{name}: not measured, {reason}\n")
            elif code:
                run["failed"].append(name)
                _say(f"{name}: failed, exit code {code}\n")
            else:
                run["figures"] += got["figures"]
                _say("".join(map(row, got["figures"])))
    run["load"].append(os.getloadavg()[0])
    return run


def row(figure: Mapping[str, Any]) -> str:
    """A line of the table."""
    aim = f"{figure['wanted']:g}" if figure["wanted"] is not None else "–"
    sizes = "".join(f"{figure[key] / 1e6:>7.0f}" for key in ("ours_peak", "against_peak"))
    values = f"{figure['ours_value']:>9.4g}{figure['against_value']:>10.4g} {figure['unit']:<6}"
    said = f"{figure['name']:<44}{values}{figure['ratio']:>8.3g}{figure['lowest']:>8.3g}{aim:>6}{sizes}\n"
    return said + "".join(f"  {key}: {value}\n" for key, value in figure["facts"].items())


def child(name: str, answer: Path) -> int:
    """Run one benchmark in this process."""
    try:
        figures = found(name)()
    except NotMeasuredError as reason:
        answer.write_text(json.dumps({"not_measured": str(reason)}))
        return 0
    answer.write_text(json.dumps({"figures": [figure.as_json() for figure in figures]}))
    return 0


def found(name: str) -> Callable[[], list[Figure]]:
    """The function that measures a benchmark."""
    module, function = BENCHMARKS[name]
    measure: Callable[[], list[Figure]] = getattr(import_module(f"tests.benchmarks.{module}"), function)
    return measure


def _say(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
