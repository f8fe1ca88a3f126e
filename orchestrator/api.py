"""What a notebook calls: run a sweep, read its results, compare two routers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.run import ExecutorName, RunSummary, load_plan, run_plan
from orchestrator.store import Session, Store, check_home, home_folder, open_store, reading
from orchestrator.sweep import Sweep

if TYPE_CHECKING:
    import pandas as pd

    from orchestrator.analysis import Comparison


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
    from orchestrator.analysis import compare as compare_pair

    with _reading(db) as (store, session):
        name = reading.find_sweep(session, sweep)
        facts = reading.sweep_facts(session, name, store.shown)
        frame = reading.results_frame(session, name)
    return compare_pair(frame, a, b, benchmark, encoder, margin=facts["margin"], spec=facts["spec"])


def compare(
    a: str,
    b: str,
    *,
    sweep: str | None = None,
    benchmark: str | None = None,
    encoder: str | None = None,
    db: str | None = None,
) -> pd.DataFrame:
    """What `comparisons` finds, as a data frame with one row each."""
    from orchestrator.analysis import comparison_frame

    return comparison_frame(comparisons(a, b, sweep=sweep, benchmark=benchmark, encoder=encoder, db=db))
