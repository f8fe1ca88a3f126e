"""What does the toolbox ask about quantities? Templates of arithmetic, dates and units, with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from workers.benchmarks.toolbox.drawing import Draw, Template
from workers.benchmarks.toolbox.facts import COINS, MONTHS, NAMES, UNITS, WEEKDAYS
from workers.benchmarks.toolbox.reading import show, spell

# arithmetic


def _signs(draw: Draw) -> tuple[str, str]:
    sign = draw.one("+-*")
    high = 99 if sign == "*" else 999
    a, b = draw.between(12, high), draw.between(12, high)
    text = draw.one(["What is {}?", "Calculate {}.", "Compute {} for me.", "{} = ?"]).format(f"{a} {sign} {b}")
    return text, str({"+": a + b, "-": a - b, "*": a * b}[sign])


def _large(draw: Draw) -> tuple[str, str]:
    sign = draw.one("+-*")
    a, b = draw.between(20_000, 9_000_000), draw.between(1_200, 900_000)
    text = draw.one(["What is {}?", "Calculate {} exactly.", "Work out {}."]).format(f"{a:,} {sign} {b:,}")
    return text, str({"+": a + b, "-": a - b, "*": a * b}[sign])


def _words(draw: Draw) -> tuple[str, str]:
    sign = draw.one(["plus", "minus", "times"])
    a, b = draw.between(11, 400 if sign != "times" else 60), draw.between(3, 90)
    text = draw.one(["What is {}?", "How much is {}?", "Tell me what {} makes."]).format(
        f"{spell(a)} {sign} {spell(b)}"
    )
    return text, str({"plus": a + b, "minus": a - b, "times": a * b}[sign])


def _precedence(draw: Draw) -> tuple[str, str]:
    a, b, c = (draw.between(2, 30) for _ in range(3))
    shape, value = draw.one(
        [(f"{a} + {b} * {c}", a + b * c), (f"({a} + {b}) * {c}", (a + b) * c), (f"{a} * {b} - {c}", a * b - c),
         (f"{a} * ({b} + {c})", a * (b + c)), (f"{a} - {b} * {c}", a - b * c)]
    )  # fmt: skip
    return draw.one(["Evaluate {}.", "What is the value of {}?", "Simplify {}."]).format(shape), str(value)


def _percent(draw: Draw) -> tuple[str, str]:
    rate, amount = draw.one([5, 10, 15, 20, 25, 30, 40, 60, 75]), 20 * draw.between(2, 60)
    part = rate * amount / 100
    return draw.one(
        [(f"What is {rate}% of {amount}?", show(part)), (f"How much is {rate} percent of {amount}?", show(part)),
         (f"A coat for {amount} dollars is reduced by {rate} percent. What does it cost now?", show(amount - part)),
         (f"A rent of {amount} dollars is raised by {rate} percent. What is the new rent?", show(amount + part))]
    )  # fmt: skip


def _story(draw: Draw) -> tuple[str, str]:
    who, thing = draw.one(NAMES), draw.one(["pencils", "eggs", "tiles", "stamps", "nails", "cards"])
    a, b, c = draw.between(3, 24), draw.between(5, 36), draw.between(2, 14)
    each = draw.one([f"{who} packs {a} boxes with {b} {thing} each", f"{who} buys {a} bags holding {b} {thing} each"])
    return draw.one(
        [(f"{each}. How many {thing} is that?", str(a * b)),
         (f"{each} and gives away {c}. How many {thing} are left?", str(a * b - c)),
         (f"{each} and finds {c} more. How many {thing} are there now?", str(a * b + c))]
    )  # fmt: skip


ARITHMETIC_TEMPLATES: tuple[Template, ...] = (_signs, _large, _words, _precedence, _percent, _story)


# dates


def _any_date(draw: Draw, first: int = 1930, last: int = 2059) -> date:
    return date(first, 1, 1) + timedelta(days=draw.between(0, (last - first + 1) * 365))


def _written(draw: Draw, day: date) -> str:
    month = MONTHS[day.month - 1]
    return draw.one([f"{day.day} {month} {day.year}", f"{month} {day.day}, {day.year}"])


_WEEKDAY = ["Which weekday does {} fall on?", "What day of the week is {}?", "Name the weekday of {}."]


def _weekday_iso(draw: Draw) -> tuple[str, str]:
    day = _any_date(draw)
    return draw.one(_WEEKDAY).format(day.isoformat()), WEEKDAYS[day.weekday()]


def _weekday_written(draw: Draw) -> tuple[str, str]:
    day = _any_date(draw)
    return draw.one(_WEEKDAY).format(_written(draw, day)), WEEKDAYS[day.weekday()]


def _days_between(draw: Draw) -> tuple[str, str]:
    start = _any_date(draw, 1960)
    gap = draw.between(10, 700)
    end = start + timedelta(days=gap)
    a, b = (start.isoformat(), end.isoformat()) if draw.between(0, 1) else (_written(draw, start), _written(draw, end))
    return draw.one(["How many days lie between {} and {}?", "Count the days from {} to {}."]).format(a, b), str(gap)


def _add_days(draw: Draw) -> tuple[str, str]:
    start, gap = _any_date(draw, 1960), draw.between(3, 120)
    written = draw.one([start.isoformat(), _written(draw, start)])
    text = draw.one(["Which date is {} days after {}? Write YYYY-MM-DD.", "Add {} days to {}; give an ISO date."])
    return text.format(gap, written), (start + timedelta(days=gap)).isoformat()


def _relative_weekday(draw: Draw) -> tuple[str, str]:
    today, gap = draw.between(0, 6), draw.between(3, 90)
    text = draw.one(
        ["If today is {}, what day will it be in {} days?", "Today is {}. Which weekday comes {} days later?"]
    )
    return text.format(WEEKDAYS[today], gap), WEEKDAYS[(today + gap) % 7]


def _clock(draw: Draw) -> tuple[str, str]:
    start, length = draw.between(0, 1439), draw.between(15, 600)
    end = (start + length) % 1440
    text = draw.one(
        ["A train leaves at {} and arrives at {}. How many minutes does it travel?",
         "A shift runs from {} to {}. How long is it in minutes?"]
    )  # fmt: skip
    return text.format(*(f"{t // 60:02d}:{t % 60:02d}" for t in (start, end))), str(length)


DATES_TEMPLATES: tuple[Template, ...] = (
    _weekday_iso,
    _weekday_written,
    _days_between,
    _add_days,
    _relative_weekday,
    _clock,
)


# units

_CONVERT = ["Convert {} {} to {}.", "How much is {} {} in {}?", "Express {} {} in {}."]


def _plural(unit: str) -> str:
    return {"foot": "feet", "inch": "inches"}.get(unit, unit + "s" if len(unit) > 3 or unit == "day" else unit)


def _conversion(draw: Draw, pairs: Sequence[tuple[str, str]], high: int = 60) -> tuple[str, str]:
    a, b = draw.one(pairs)
    if draw.between(0, 1):
        a, b = b, a
    amount = draw.between(2, high) / draw.one([1, 1, 2, 10])
    return draw.one(_CONVERT).format(show(amount), _plural(a), _plural(b)), show(amount * UNITS[a][1] / UNITS[b][1])


def _metric(draw: Draw) -> tuple[str, str]:
    names = [("kilometre", "metre"), ("centimetre", "metre"), ("millimetre", "centimetre"), ("kilogram", "gram"),
             ("milligram", "gram"), ("millilitre", "litre")]  # fmt: skip
    short = [("km", "m"), ("cm", "m"), ("mm", "cm"), ("kg", "g"), ("mg", "g"), ("ml", "l")]
    return _conversion(draw, draw.one([names, short]))


def _imperial(draw: Draw) -> tuple[str, str]:
    names = [("mile", "kilometre"), ("foot", "metre"), ("inch", "centimetre"), ("pound", "kilogram"),
             ("ounce", "gram"), ("gallon", "litre"), ("yard", "metre")]  # fmt: skip
    short = [("mi", "km"), ("ft", "m"), ("in", "cm"), ("lb", "kg"), ("oz", "g"), ("gal", "l"), ("yd", "m")]
    return _conversion(draw, draw.one([names, short]))


def _time(draw: Draw) -> tuple[str, str]:
    return _conversion(
        draw, [("minute", "hour"), ("hour", "day"), ("second", "minute"), ("day", "week"), ("second", "hour")]
    )


def _temperature(draw: Draw) -> tuple[str, str]:
    degrees = draw.between(-20, 200)
    a, b, value = draw.one(
        [("Celsius", "Fahrenheit", degrees * 9 / 5 + 32), ("Fahrenheit", "Celsius", (degrees - 32) * 5 / 9),
         ("Celsius", "kelvin", degrees + 273.15)]
    )  # fmt: skip
    return draw.one(_CONVERT).format(degrees, f"degrees {a}", b), show(value)


def _invented(draw: Draw) -> tuple[str, str]:
    a, b = draw.some(sorted(COINS), 2)
    rate, n = draw.between(3, 30), draw.between(2, 40)
    return draw.one(
        [(f"One {a} is worth {rate} {COINS[b]}. How many {COINS[b]} are {n} {COINS[a]}?", str(rate * n)),
         (f"There are {rate} {COINS[b]} in a {a}. How many {COINS[a]} do {rate * n} {COINS[b]} make?", str(n))]
    )  # fmt: skip


def _speed(draw: Draw) -> tuple[str, str]:
    n = draw.between(5, 150)
    return draw.one(
        [(f"A car drives {n} miles per hour. What is that in kilometres per hour?", show(n * 1.609344)),
         (f"A ball flies at {n} metres per second. How fast is it in kilometres per hour?", show(n * 3.6)),
         (f"The wind blows at {n} kilometres per hour. Give it in metres per second.", show(n / 3.6))]
    )  # fmt: skip


UNITS_TEMPLATES: tuple[Template, ...] = (_metric, _imperial, _time, _temperature, _invented, _speed)
