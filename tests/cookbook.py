"""What does docs/cookbook.md show? Its queries, the database that answers them, and the answers written into the page.

`python -m tests.cookbook` runs the page's sweeps in a folder of its own and writes what the queries return into the
page; `--check` only says what has changed, `--keep FOLDER` keeps the database.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from orchestrator import api
from orchestrator.cli.output import print_rows
from orchestrator.store.reading import run_statement
from orchestrator.sweep import Sweep
from tests.tiny import write_tables

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cookbook.md"
_RECIPE = re.compile(r"^### (.+?)\n(?:(?!^### ).)*?^```sql\n(.*?)^```\n+^```text( observed)?\n(.*?)^```$", re.M | re.S)
#: Other machines agree to 1e-6; the page shows six digits.
TOLERANCE = 2e-5


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One question of the page."""

    question: str
    sql: str
    #: Its answer as `roadtest sql` printed it.
    output: str
    #: Whether the answer has observations, such as seconds, and so is another one in every run.
    observed: bool
    #: Where the answer is in the page.
    span: tuple[int, int]

    def agrees(self, output: str) -> bool:
        """Whether the page shows this answer: of observations the same columns and as many rows."""
        if self.observed:
            return _shape(self.output) == _shape(output)
        shown, found = self.output.split(), output.split()
        return len(shown) == len(found) and all(map(_same, shown, found))


def _shape(output: str) -> tuple[list[str], int]:
    lines = output.splitlines()
    return lines[0].split() if lines else [], len(lines)


def _same(shown: str, found: str) -> bool:
    if shown == found:
        return True
    try:
        a, b = float(shown), float(found)
    except ValueError:
        return False
    return abs(a - b) <= TOLERANCE * max(abs(a), abs(b))


def recipes(text: str) -> list[Recipe]:
    """Every question of the page, in order."""
    return [
        Recipe(question=m[1], sql=m[2].strip(), output=m[4], observed=m[3] is not None, span=m.span(4))
        for m in _RECIPE.finditer(text)
    ]


def answer(url: str, sql: str) -> str:
    """What `roadtest sql` prints, without blanks at the ends of lines."""
    columns, rows = run_statement(url, sql)
    shown = io.StringIO()
    with redirect_stdout(shown):
        print_rows((dict(zip(columns, row, strict=True)) for row in rows), as_json=False)
    return "".join(f"{line.rstrip()}\n" for line in shown.getvalue().splitlines())


def fill(text: str, url: str) -> str:
    """The page with this database's answers; those of observations stay while columns and number of rows do."""
    parts, end = [], 0
    for recipe in recipes(text):
        found = answer(url, recipe.sql)
        parts += [text[end : recipe.span[0]], recipe.output if recipe.agrees(found) else found]
        end = recipe.span[1]
    return "".join(parts) + text[end:]


def build(folder: Path) -> str:
    """Run the page's sweeps into a SQLite database of this folder; returns its URL."""
    url = f"sqlite:///{folder}/roadtest.db"
    for sweep in (Sweep.from_yaml(ROOT / "sweeps" / f"{name}.yaml") for name in ("cookbook", "cookbook-next")):
        assert api.run(sweep, db=url, executor="local").exit_code == 0
    with patch("workers.routers.knn.KNN.predict_many", _break):
        assert api.run(_faults(folder), db=url, executor="local").exit_code == 1
    return url


def _faults(folder: Path) -> Sweep:
    """A sweep with trouble: 7 cells of 60 × 3 are not observed, and a router breaks."""
    return Sweep.from_dict(
        {
            "name": "faults",
            "benchmarks": [{"name": "tiny", "path": str(write_tables(folder / "tiny"))}],
            "encoders": ["hash-ngrams"],
            "routers": ["oracle", "zero-router", {"name": "knn@5", "use": "knn", "k": 5}],
            "seeds": 2,
            "reference": "zero-router",
            "protocol": {"bootstrap": 0},
        }
    )


def _break(*_: Any, **__: Any) -> Iterator[Any]:
    raise ZeroDivisionError("broken on purpose")


def main() -> int:
    """Write the page, or say what has changed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when the page is out of date")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to build the database, and leave it")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        url = build(folder.resolve())
        text = PAGE.read_text(encoding="utf-8")
        changed = [recipe.question for recipe in recipes(text) if not recipe.agrees(answer(url, recipe.sql))]
        if not asked.check:
            PAGE.write_text(fill(text, url), encoding="utf-8")
    for question in changed:
        sys.stderr.write(f"{'out of date' if asked.check else 'written'}: {question}\n")
    return int(asked.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
