"""What can a desk calendar do? Weekdays and distances of dates it can store: from 1970 on, day before month."""

from __future__ import annotations

import re
from datetime import date, timedelta

from workers.benchmarks.toolbox.facts import WEEKDAYS
from workers.benchmarks.toolbox.program import Program, Reply
from workers.benchmarks.toolbox.reading import day_first_dates, iso_dates

_EPOCH = date(1970, 1, 1)


def _stored(text: str) -> list[date]:
    return [day for day in iso_dates(text) + day_first_dates(text) if day >= _EPOCH]


def _weekday(text: str) -> Reply | None:
    days = _stored(text)
    if len(days) != 1 or "week" not in text:
        return None
    return Reply(answer=WEEKDAYS[days[0].weekday()], steps=4)


def _between(text: str) -> Reply | None:
    days = _stored(text)
    return Reply(answer=str(abs((days[1] - days[0]).days)), steps=8) if len(days) == 2 else None


def _shift(text: str) -> Reply | None:
    days, gap = _stored(text), re.search(r"(\d+) days", text)
    if len(days) != 1 or not gap:
        return None
    return Reply(answer=(days[0] + timedelta(days=int(gap[1]))).isoformat(), steps=6)


def _clock(text: str) -> Reply | None:
    """Both times are taken on one day."""
    times = [int(hour) * 60 + int(minute) for hour, minute in re.findall(r"(\d\d):(\d\d)", text)]
    return Reply(answer=str(times[1] - times[0]), steps=5) if len(times) == 2 else None


CALENDAR = Program(
    name="calendar",
    price_in=0.05,
    price_out=0.1,
    skills=(_shift, _weekday, _between, _clock),
)
