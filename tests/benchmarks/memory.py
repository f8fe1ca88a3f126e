"""How much memory does a command take at its peak, all its processes together? Prints the summed PSS.

    python -m tests.benchmarks.memory -- roadtest run sweeps/mmlu-pro.yaml --db sqlite:////tmp/mmlu.db

Proportional set size counts a page that k processes share as 1/k in each, so the sum is what the machine gives. The
tree is every descendant of the command, and what was one when it was last seen (Ray's daemons may outlive a parent).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil

#: Seconds between two samples.
EVERY = 1.0


def pss(process: psutil.Process) -> int:
    """Proportional set size in bytes; 0 of a process that ended."""
    try:
        for line in Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    return 0


def alive(known: set[psutil.Process]) -> set[psutil.Process]:
    """The processes of the tree that live, with the children that they have by now."""
    found = set()
    for process in known:
        if process.is_running():  # compares start times: a pid that was given again is another process
            found.add(process)
            try:
                found.update(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
    return found


def main() -> int:
    """Run the command, sample it, print the peak; exits as the command does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+")
    asked = parser.parse_args()
    begin = time.monotonic()
    process = subprocess.Popen(asked.command)
    tree = {psutil.Process(process.pid)}
    peak, at, parts = 0, 0.0, Counter[str]()
    while process.poll() is None:
        tree = alive(tree)
        sizes = {member: pss(member) for member in tree}
        if sum(sizes.values()) > peak:
            peak, at, parts = sum(sizes.values()), time.monotonic() - begin, Counter()
            for member, size in sizes.items():
                parts[_name(member)] += size
        time.sleep(EVERY)
    out = sys.stdout.write
    out(f"command    {' '.join(asked.command)}\n")
    out(f"exit code  {process.returncode}\n")
    out(f"wall time  {time.monotonic() - begin:.0f} s\n")
    out(f"peak PSS   {peak / 1e9:.2f} GB after {at:.0f} s\n")
    for name, size in parts.most_common(8):
        out(f"  {size / 1e9:6.2f} GB  {name}\n")
    return process.returncode


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return "ended"


if __name__ == "__main__":
    sys.exit(main())
