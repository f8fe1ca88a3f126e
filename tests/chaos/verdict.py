"""Did the sweep survive? What must hold after chaos, and the figures of it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from tests.chaos.content import POISON, code_digest
from tests.chaos.harness import Chaos
from tests.runs import assert_same_results, roadtest

_UNITS = """SELECT u.id, u.key, u.kind, u.state, u.n_deaths, su.router, su.benchmark, u.seed
            FROM unit u LEFT JOIN sweep_unit su ON su.unit_id = u.id"""


def problems(chaos: Chaos) -> Iterator[str]:
    """What is not as it must be."""
    yield from chaos.problems
    if code_digest() != chaos.content.code:
        yield "the code was edited while the sweep ran, so its results cannot be compared; run it again"
    units = chaos.rows(_UNITS)
    by_id = {unit["id"]: unit for unit in units}
    poisoned = {
        unit["key"]: way
        for unit in units
        if unit["router"] == "fragile" and (way := chaos.content.poisoned.get((unit["benchmark"], unit["seed"])))
    }
    if len(poisoned) != len(POISON):
        yield f"{len(poisoned)} poisoned units instead of {len(POISON)}"
    for unit in units:
        wanted = POISON[poisoned[unit["key"]]][0] if unit["key"] in poisoned else "done"
        if unit["state"] != wanted:
            name = f"{unit['kind']} {unit['benchmark']} {unit['router']} split {unit['seed']}"
            yield f"{name} is {unit['state']} instead of {wanted}"
    yield from _poison(chaos, poisoned)
    try:
        database = chaos.url if chaos.server is not None else chaos.folder
        assert_same_results(database, chaos.content.undisturbed, but=poisoned)
    except AssertionError as error:
        yield f"the results are not those of an undisturbed run: {str(error)[:2000]}"
    for row in chaos.rows(
        """SELECT unit_id, count(*) AS n,
                  (SELECT count(*) FROM event e WHERE e.unit_id = a.unit_id AND e.kind = 'artifact_lost') AS losses
           FROM attempt a WHERE outcome = 'done' GROUP BY unit_id HAVING count(*) > 1"""
    ):
        unit = by_id[row["unit_id"]]
        if unit["kind"] != "embed" or row["n"] > 1 + row["losses"]:
            yield f"{unit['kind']} unit {unit['key']} was done {row['n']} times, and lost {row['losses']} times"
    checked = roadtest("db", "check", "--db", chaos.url, cwd=chaos.folder, expect=None)
    if checked.returncode:
        yield f"db check: {checked.stdout} {checked.stderr}"


def _poison(chaos: Chaos, poisoned: dict[str, str]) -> Iterator[str]:
    for key, way in poisoned.items():
        _, kind, trace = POISON[way]
        attempts = chaos.rows(
            f"""SELECT a.error_kind, a.traceback FROM attempt a JOIN unit u ON u.id = a.unit_id
                WHERE u.key = '{key}' AND a.outcome = 'failed' AND a.error_kind NOT IN ('node_loss', 'artifact')"""
        )
        own = [attempt for attempt in attempts if attempt["error_kind"] == kind]
        if not own:
            yield f"the unit that goes wrong by {way!r} has no attempt that failed by {kind}"
        for attempt in own:
            if trace not in (attempt["traceback"] or ""):
                yield f"the unit that goes wrong by {way!r} has no {trace!r} in {(attempt['traceback'] or '')[-300:]!r}"


def figures(chaos: Chaos) -> dict[str, Any]:
    """What was seen, as JSON values."""
    attempts = {
        row["outcome"]: row["n"]
        for row in chaos.rows(
            f"""SELECT outcome || CASE WHEN error_kind IS NULL THEN '' ELSE ' (' || error_kind || ')' END AS outcome,
                       count(*) AS n FROM attempt
                WHERE coordinator_id NOT IN ({chaos.brake_ids}) GROUP BY 1 ORDER BY 1"""
        )
    }
    again = chaos.rows(
        f"""SELECT count(*) AS n, coalesce(max(claims), 0) AS most FROM (
              SELECT unit_id, count(*) AS claims FROM attempt
              WHERE coordinator_id NOT IN ({chaos.brake_ids}) AND outcome <> 'released'
              GROUP BY unit_id HAVING count(*) > 1) again"""
    )[0]
    events = {row["kind"]: row["n"] for row in chaos.rows("SELECT kind, count(*) AS n FROM event GROUP BY kind")}
    coordinators = chaos.rows(f"SELECT count(*) AS n FROM coordinator WHERE id NOT IN ({chaos.brake_ids})")[0]["n"]
    kinds: dict[str, list[float]] = defaultdict(list)
    for landed in chaos.landed:
        kinds[landed.kind] += [] if landed.recovery is None else [landed.recovery]
    return {
        "units": chaos.total,
        "undisturbed_seconds": chaos.content.undisturbed_seconds,
        "coordinators": coordinators,
        "attempts": attempts,
        "units_executed_again": again["n"],
        "most_executions_of_a_unit": again["most"],
        "events": events,
        "faults": {
            kind: {"n": len(taken), "median": statistics.median(taken or [0]), "most": max(taken, default=0)}
            for kind, taken in sorted(kinds.items())
        },
        "schedule": [
            {
                "number": landed.number,
                "kind": landed.kind,
                "what": landed.what,
                "place": landed.place,
                "share": landed.share,
                "recovery": landed.recovery,
            }
            for landed in chaos.landed
        ],
    }


def show(found: dict[str, Any], say: Callable[[str], None]) -> None:
    """The figures as a table for docs/chaos.md."""
    say("")
    say("| fault | times | recovery, median s | recovery, most s |")
    say("|---|---|---|---|")
    for kind, of in found["faults"].items():
        say(f"| {kind} | {of['n']} | {of['median']:.1f} | {of['most']:.1f} |")
    say("")
    say(f"units: {found['units']}, coordinators: {found['coordinators']}")
    say(f"units executed again: {found['units_executed_again']}, one {found['most_executions_of_a_unit']} times")
    say("attempts: " + ", ".join(f"{n} {outcome}" for outcome, n in found["attempts"].items()))
    say("events: " + ", ".join(f"{n} {kind}" for kind, n in found["events"].items()))
