"""Shards: units of one family, sized by what such units took; killers travel alone, the hungry when nothing is out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.plan import PlannedUnit
from orchestrator.shards import PATIENCE, Backlog, Claimed, Pace, evenly
from tests.tiny import tiny_plan

PACE = Pace(shard_seconds=1.0, shard_units=500, first_units=5)


def claimed(n: int, *, routers: int = 1, **strikes: int) -> list[Claimed]:
    """n units of each of so many routers, as one plan orders them."""
    plan = tiny_plan("s", 5 * n)
    units: list[PlannedUnit] = [plan.units[i] for i in range(5 * n)]
    return [Claimed(unit_id=i, epoch=1, planned=unit, **strikes) for i, unit in enumerate(units[: routers * n])]


def sizes(backlog: Backlog, *, workers: int = 2) -> list[int]:
    found = []
    while units := backlog.next_units(workers=workers, idle=True):
        assert len({unit.planned.router for unit in units}) == 1
        found.append(len(units))
    assert len(backlog) == 0
    return found


def test_a_shard_holds_units_of_one_router_and_shrinks_towards_the_end() -> None:
    backlog = Backlog(PACE)
    backlog.extend(claimed(8, routers=2))
    # Nothing is known of their duration: five at most, and never more than a worker's share of all that is left.
    assert sizes(backlog) == [4, 4, 4, 2, 1, 1]


def test_a_shard_is_about_a_second_of_work() -> None:
    backlog = Backlog(PACE)
    units = claimed(100)
    backlog.learn(units[:1], 0.04)
    backlog.extend(units)
    # 25 units, less what is not evaluated together with seven others.
    assert sizes(backlog, workers=1) == [24, 24, 24, 16, 12]


@pytest.mark.parametrize(("seconds", "size"), [(0.5, 8), (2.5, 8), (4.0, 5), (20.0, 1), (30.0, 1)])
def test_a_shard_is_longer_for_the_sake_of_what_is_evaluated_at_once(seconds: float, size: int) -> None:
    backlog = Backlog(PACE)
    units = claimed(80)
    backlog.learn(units[:1], seconds)
    backlog.extend(units)
    assert len(backlog.next_units(workers=2, idle=True)) == size
    assert backlog.appetite(workers=2, left=10_000) == 2 * 2 * 2 * size


def test_a_shard_of_less_than_a_second_is_not_cut_for_idle_workers() -> None:
    backlog = Backlog(PACE)
    units = claimed(20)
    backlog.learn(units[:1], 0.2)
    backlog.extend(units)
    assert sizes(backlog, workers=4) == [5, 5, 5, 5]
    backlog.learn(units[:1], 100.0)
    backlog.extend(units[:6])
    assert sizes(backlog, workers=4) == [1] * 6


def test_a_shard_is_not_smaller_while_others_may_still_be_claimed() -> None:
    backlog = Backlog(PACE)
    backlog.extend(claimed(4))
    assert [len(backlog.next_units(workers=2, idle=True, left=left)) for left in (10, 0)] == [4, 0]
    backlog.extend(claimed(4))
    assert len(backlog.next_units(workers=2, idle=True, left=0)) == 2


@pytest.mark.parametrize(
    ("n", "size", "sizes"),
    [
        (10, 8, [5, 5]),
        (24, 8, [8, 8, 8]),
        (20, 8, [7, 7, 6]),
        (118, 80, [64, 54]),  # 8 and 7 groups of eight
        (118, 87, [64, 54]),
        (3, 8, [3]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_a_family_is_cut_evenly_and_into_whole_groups(n: int, size: int, sizes: list[int]) -> None:
    found = []
    while n:
        found.append(evenly(n, size))
        n -= found[-1]
    assert found == sizes


def test_a_unit_that_took_its_worker_down_travels_alone_after_the_others() -> None:
    backlog = Backlog(PACE)
    units = claimed(4)
    backlog.extend([replace(units[0], n_deaths=1), *units[1:]])
    shards = [backlog.next_units(workers=1, idle=False) for _ in range(3)]
    assert [[unit.unit_id for unit in shard] for shard in shards] == [[1, 2, 3], [0], []]


def test_a_unit_that_ran_out_of_memory_waits_until_nothing_is_out() -> None:
    backlog = Backlog(PACE)
    backlog.extend(claimed(1, n_ooms=1))
    assert backlog.starved
    assert backlog.next_units(workers=2, idle=False) == ()
    assert len(backlog) == 1
    assert backlog.unit_ids == {0}
    assert len(backlog.next_units(workers=2, idle=True)) == 1


@pytest.mark.parametrize(
    ("seconds", "left", "appetite"),
    [
        (None, 10_000, 2 * 2 * 2 * 5),  # two shards of five for each place at two workers
        (0.1, 10_000, 2 * 2 * 2 * 10),
        (1e-9, 10_000, 2 * 2 * 2 * 500),
        (0.1, 120, 60),  # half of what is left: others want some too
        (0.1, 40, 2 * 2 * 8),  # but eight for each place, which are evaluated at once
        (30.0, 10_000, 2 * 2 * 2),
    ],
)
def test_how_much_is_claimed_at_once(seconds: float | None, left: int, appetite: int) -> None:
    backlog = Backlog(PACE)
    if seconds is not None:
        backlog.learn(claimed(1), seconds)
    assert backlog.appetite(workers=2, left=left) == appetite


def test_patience_grows_with_the_units_and_never_beyond_the_timeout_of_each() -> None:
    backlog = Backlog(PACE)
    units = claimed(11)
    assert backlog.patience(units, 60.0) == pytest.approx(11 * 60.0)  # nothing is known
    backlog.learn(units, 0.5)
    assert backlog.patience(units, 60.0) == pytest.approx(60.0 + 10 * PATIENCE * 0.5)
    assert backlog.patience(units[:1], 60.0) == 60.0
    backlog.learn(units, 1000.0)
    assert backlog.patience(units, 60.0) == pytest.approx(11 * 60.0)
