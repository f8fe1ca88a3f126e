"""Run a sweep under chaos: `python -m tests.chaos --n 100 --seed 1 --db sqlite`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tests.chaos import processes, verdict
from tests.chaos.content import make_content
from tests.chaos.faults import STRIKES, draw, impossible
from tests.chaos.harness import Chaos, ChaosError
from tests.postgres import postgres_server


def main() -> int:
    """Run it; 0 when the sweep survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--n", type=int, default=10, help="faults")
    parser.add_argument("--seed", type=int, default=None, help="replays a schedule; default: a new one")
    parser.add_argument("--db", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--small", action="store_true", help="a sweep of under a hundred units")
    parser.add_argument("--ray", choices=["local", "cluster", "both"], default="both", help="where coordinators work")
    parser.add_argument("--only", action="append", choices=sorted(STRIKES), help="this kind of fault; may be repeated")
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--keep", action="store_true", help="keep the folder with logs and database")
    asked = parser.parse_args()
    seed = asked.seed if asked.seed is not None else int.from_bytes(os.urandom(3), "big")
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:7.1f} s  {text}\n" if text else "\n")
        sys.stdout.flush()

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    processes.adopt_orphans()
    say(f"chaos: N={asked.n} SEED={seed} DB={asked.db}{' small' if asked.small else ''}, Ray: {asked.ray}")
    folder = Path(tempfile.mkdtemp(prefix="rt-chaos-", dir="/tmp"))
    with ExitStack() as stack:
        if asked.keep:
            say(f"logs and database: {folder}")
        else:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(processes.end_all)
        content = make_content(folder, small=asked.small, seed=seed)
        say(f"undisturbed: {len(content.undisturbed['unit'])} units, {content.undisturbed_seconds or 'from before'} s")
        server = stack.enter_context(postgres_server("")) if asked.db == "postgresql" else None
        url = server.create_database() if server else f"sqlite:///{folder}/roadtest.db"
        without = impossible()
        if without:
            say(f"no libfaketime here (apt-get install libfaketime), so not: {', '.join(without)}")
        without += [kind for kind in STRIKES if asked.only and kind not in asked.only]
        places = ["local", "cluster"] if asked.ray == "both" else [asked.ray]
        rng = random.Random(seed)
        faults = draw(asked.n, rng, database=asked.db, places=places, without=without)
        chaos = Chaos(folder, content, url, server, say)
        stack.callback(chaos.close)
        try:
            chaos.run(faults, STRIKES, rng)
        except ChaosError as error:
            chaos.problems.append(str(error))
        wrong = list(verdict.problems(chaos))
        found = {"n": asked.n, "seed": seed, "db": asked.db, **verdict.figures(chaos), "problems": wrong}
        found["seconds"] = time.monotonic() - began
        verdict.show(found, say)
        if asked.out is not None:
            asked.out.write_text(json.dumps(found, indent=1))
        landed = f"{len(chaos.landed)} of {asked.n} faults landed before the last unit"
        if wrong or len(chaos.landed) < asked.n:
            say(f"{landed}; NOT SURVIVED (SEED={seed}):")
            for problem in wrong[:20]:
                say(f"  {problem}")
            return 1
        say(f"{landed}; nothing lost, nothing twice, every deterministic column as undisturbed.")
    return 0


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
