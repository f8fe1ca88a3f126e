"""Do the answers in docs/cookbook.md still hold?

python -m tests.cookbook            # make the database, ask everything, compare
python -m tests.cookbook --write    # and put the answers into the page
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from tests.runs import roadtest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cookbook.md"
SWEEPS = ("cookbook", "cookbook-locality")
#: A query, and the answer below it where there is one.
BLOCK = re.compile(r"```sql\n(?P<query>.*?)```\n(\n```text\n(?P<answer>.*?)```\n)?", re.DOTALL)


def make_database(folder: Path) -> str:
    """Run the page's sweeps; the URL of their database."""
    for sweep in SWEEPS:
        roadtest("run", ROOT / "sweeps" / f"{sweep}.yaml", "--executor", "local", "--workers", "1", cwd=folder)
    return f"sqlite:///{folder}/roadtest.db"


def questions(page: str) -> Iterator[tuple[str, str]]:
    """Every query with the answer that the page has ("" where it has none)."""
    for block in BLOCK.finditer(page):
        yield block["query"], block["answer"] or ""


def answer(query: str, url: str) -> str:
    """Ask as `roadtest sql --csv` does; numbers to six digits, in columns."""
    from orchestrator import api

    frame = api.query(query, db=url)
    rows = [list(frame.columns), *([_shown(value) for value in row] for row in frame.itertuples(index=False))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )


def _shown(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.4g}" if isinstance(value, float | Decimal) else str(value)


def same(one: str, other: str) -> bool:
    """Equal words and lines, numbers within 0.01 or a thousandth of themselves: other machines round otherwise."""
    lines, others = one.splitlines(), other.splitlines()
    return len(lines) == len(others) and all(
        len(a.split()) == len(b.split()) and all(map(_alike, a.split(), b.split()))
        for a, b in zip(lines, others, strict=True)
    )


def _alike(a: str, b: str) -> bool:
    try:
        return abs(float(a) - float(b)) <= max(0.01, 1e-3 * abs(float(a)))
    except ValueError:
        return a == b


def main() -> None:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the answers into the page")
    write = parser.parse_args().write
    page = PAGE.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="rt-cookbook-") as folder:
        url = make_database(Path(folder))
        if write:
            PAGE.write_text(
                BLOCK.sub(
                    lambda block: f"```sql\n{block['query']}```\n\n```text\n{answer(block['query'], url)}```\n", page
                ),
                encoding="utf-8",
            )
            return
        wrong = [query for query, printed in questions(page) if not same(printed, answer(query, url))]
    sys.exit("\n".join(f"another answer than printed:\n{query}" for query in wrong) or 0)


if __name__ == "__main__":
    main()
