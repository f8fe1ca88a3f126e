"""What a notebook calls: run a sweep, read its results, compare two routers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.run import ExecutorName, RunSummary, load_plan, run_plan
from orchestrator.store import Session, Store, check_home, home_folder, open_store, reading
from orchestrator.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.analysis import Comparison
    from orchestrator.analysis.across import AcrossSuites
    from orchestrator.analysis.readings import Reading


def run(
    sweep: Sweep | str | Path,
    *,
    db: str | None = None,
    executor: ExecutorName = "ray",
    workers: int | None = None,
    address: str | None = None,
) -> RunSummary:
    """Run a sweep, or finish one; the same as `roadtest run`.

    Args:
        sweep: A `Sweep` or the path of a sweep file.
        db: Database URL; default ROADTEST_DB, else `sqlite:///roadtest.db`.
        executor: `ray`, or `local` for threads of this process.
        workers: Default: all CPUs.
        address: Of a Ray cluster; default a local Ray.

    Returns:
        Units by state and the exit code that the command would give.

    Raises:
        OrchestratorError, WorkersError: What is wrong with the sweep, the data, the database or the machine.
    """
    asked = sweep if isinstance(sweep, Sweep) else Sweep.from_yaml(sweep)
    plan = load_plan(asked, home=home_folder(db))
    check_home(home_folder(db))
    store = open_store(db)
    try:
        return run_plan(store, plan, executor=executor, workers=workers, address=address)
    finally:
        store.close()


@contextmanager
def _reading(db: str | None) -> Iterator[tuple[Store, Session]]:
    store = open_store(db, create=False)
    try:
        with store.read() as session:
            yield store, session
    finally:
        store.close()


def results(sweep: str | None = None, *, db: str | None = None) -> pd.DataFrame:
    """The view `results`: one row per evaluated unit of a sweep (default: the last one run)."""
    with _reading(db) as (_, session):
        return reading.results_frame(session, reading.find_sweep(session, sweep))


def leaderboard(sweep: str | None = None, *, db: str | None = None) -> pd.DataFrame:
    """The view `leaderboard`: means and standard deviations over splits, one row per configuration."""
    with _reading(db) as (_, session):
        return reading.leaderboard_frame(session, reading.find_sweep(session, sweep))


def query(sql: str, *, db: str | None = None) -> pd.DataFrame:
    """Rows of one read-only SQL statement; the same as `roadtest sql`."""
    open_store(db, create=False).close()
    return reading.run_query(db, sql)


def comparisons(
    a: str,
    b: str,
    *,
    sweep: str | None = None,
    benchmark: str | None = None,
    encoder: str | None = None,
    db: str | None = None,
) -> list[Comparison]:
    """Differences a - b by benchmark, encoder and metric with Nadeau-Bengio intervals and verdicts.

    Raises:
        AnalysisError: A router is unknown or the two never met.
    """
    return [one.row for one in compared(a, b, sweep=sweep, benchmark=benchmark, encoder=encoder, db=db).readings]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What is known of one pair of routers."""

    #: By benchmark, encoder and metric: the comparison with its posterior and bootstrap.
    readings: list[Reading]
    #: Across suites; none below two suites, or when one benchmark was asked for.
    across: list[AcrossSuites]


def compared(
    a: str,
    b: str,
    *,
    sweep: str | None = None,
    benchmark: str | None = None,
    encoder: str | None = None,
    db: str | None = None,
) -> Compared:
    """Everything that `roadtest compare` prints of a - b.

    Raises:
        AnalysisError: A router is unknown or the two never met.
    """
    from orchestrator.analysis import compare as compare_pair
    from orchestrator.analysis.across import across_pair
    from orchestrator.analysis.readings import read_pair

    with _reading(db) as (store, session):
        name = reading.find_sweep(session, sweep)
        facts = reading.sweep_facts(session, name, store.shown)
        frame = reading.results_frame(session, name)
        areas = reading.bootstrap_areas(session, name, (a, b))
    rows = compare_pair(frame, a, b, benchmark, encoder, margin=facts["margin"], spec=facts["spec"])
    across = [] if benchmark else across_pair(frame, a, b, encoder, margin=facts["margin"], spec=facts["spec"])
    return Compared(readings=read_pair(rows, frame, areas), across=across)


def across_suites(
    a: str, b: str, *, sweep: str | None = None, encoder: str | None = None, db: str | None = None
) -> pd.DataFrame:
    """Differences a - b across suites, one row for each encoder and metric; empty below two suites.

    Raises:
        AnalysisError: A router is unknown or the two never met.
    """
    from orchestrator.analysis.across import across_frame

    return across_frame(compared(a, b, sweep=sweep, encoder=encoder, db=db).across)


def compare(
    a: str,
    b: str,
    *,
    sweep: str | None = None,
    benchmark: str | None = None,
    encoder: str | None = None,
    db: str | None = None,
) -> pd.DataFrame:
    """Differences by benchmark, encoder and metric, one row each, with posterior and bootstrap."""
    import pandas as pd

    found = compared(a, b, sweep=sweep, benchmark=benchmark, encoder=encoder, db=db)
    return pd.DataFrame([one.as_dict() for one in found.readings])
