"""What can a generalist do? Something of everything: two significant digits, rules of thumb and famous facts."""

from __future__ import annotations

import re
from datetime import date, timedelta
from itertools import pairwise

from workers.benchmarks.toolbox.facts import CAPITALS, ELEMENTS, OPPOSITES, ORDINALS, SPELLING, WEEKDAYS
from workers.benchmarks.toolbox.handbook import singular
from workers.benchmarks.toolbox.program import Program, Reply
from workers.benchmarks.toolbox.reading import (
    apply,
    dates,
    digits_for_words,
    evaluate,
    expression,
    formula,
    listed,
    numbers,
    show,
)  # fmt: skip

#: Unit sizes as one remembers them.
_ROUGH = {
    "kilometre": 1000, "metre": 1, "centimetre": 0.01, "millimetre": 0.001, "mile": 1600, "yard": 0.91, "foot": 0.3,
    "inch": 0.025, "kilogram": 1000, "gram": 1, "milligram": 0.001, "pound": 450, "ounce": 28, "litre": 1,
    "millilitre": 0.001, "gallon": 3.8, "week": 604800, "day": 86400, "hour": 3600, "minute": 60, "second": 1,
}  # fmt: skip
#: Letters of a word that it sees as one.
_PIECE = 2
_FAMOUS = dict(list(CAPITALS.items())[:30])
_COMMON = dict(list(ELEMENTS.items())[:20])


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _arithmetic(text: str) -> Reply | None:
    """Knows precedence but overlooks parentheses; keeps two significant digits of every intermediate result."""
    tokens = [token for token in expression(digits_for_words(text)) if token not in "()"]
    if len(tokens) < 3 or re.search(r"\d{4}-\d\d", text):
        return None
    return Reply(answer=show(evaluate(tokens, lambda *step: _rounded(apply(*step)))), steps=4 * len(tokens))


def _percent(text: str) -> Reply | None:
    match = re.search(r"(\d+)(?:%| percent)", text)
    if not match:
        return None
    rate = float(match[1])
    amount = next((value for value in numbers(text) if value != rate), rate)
    change = {"reduced": -1, "raised": 1}
    base = next((amount for word in change if word in text), 0.0)
    sign = next((sign for word, sign in change.items() if word in text), 1)
    return Reply(answer=show(_rounded(base + sign * amount * rate / 100)), steps=9)


def _story(text: str) -> Reply | None:
    """So many of so many each, times; what happens afterwards is overlooked."""
    values = numbers(text)
    if len(values) < 2 or not re.search(r"\beach\b|\bworth\b|\bThere are\b", text):
        return None
    return Reply(answer=show(_rounded(values[0] * values[1])), steps=10)


def _weekday(text: str) -> Reply | None:
    """Knows this century's weekdays and takes any other year for its namesake in it."""
    days = dates(text)
    if len(days) == 1 and "week" in text:
        leap_safe = min(days[0].day, 28) if days[0].month == 2 else days[0].day
        return Reply(answer=WEEKDAYS[date(2000 + days[0].year % 100, days[0].month, leap_safe).weekday()], steps=12)
    today = re.search("|".join(WEEKDAYS), text)
    gap = re.search(r"(\d+) days", text)
    if not today or not gap:
        return None
    return Reply(answer=WEEKDAYS[(WEEKDAYS.index(today[0]) + int(gap[1])) % 7], steps=8)


def _days(text: str) -> Reply | None:
    """Months of 30 days and years of 365; a short step inside a month is counted rightly."""
    days, gap = dates(text), re.search(r"(\d+) days", text)
    if len(days) == 2:
        a, b = (day.year * 365 + day.month * 30 + day.day for day in days)
        return Reply(answer=str(abs(b - a)), steps=16)
    if len(days) != 1 or not gap:
        return None
    months, rest = divmod(int(gap[1]), 30)
    start = days[0]
    month = start.month - 1 + months
    moved = date(start.year + month // 12, month % 12 + 1, 1) + timedelta(days=start.day - 1 + rest)
    return Reply(answer=moved.isoformat(), steps=16)


def _clock(text: str) -> Reply | None:
    times = [int(hour) * 60 + int(minute) for hour, minute in re.findall(r"(\d\d):(\d\d)", text)]
    return Reply(answer=str((times[1] - times[0]) % 1440), steps=10) if len(times) == 2 else None


def _units(text: str) -> Reply | None:
    """Full unit names only, and factors to two digits; degrees it knows well."""
    values = re.findall(r"-?\d+(?:\.\d+)?", text)
    if not values:
        return None
    value = float(values[0])
    if "degrees" in text:
        if "Celsius to F" in text or "Celsius in F" in text:
            return Reply(answer=show(value * 1.8 + 32), steps=8)
        return Reply(answer=show(value + 273 if "kelvin" in text else (value - 32) / 1.8), steps=8)
    sizes = [_ROUGH[unit] for word in re.findall(r"[a-z]+", text) if (unit := singular(word)) in _ROUGH]
    if len(sizes) == 4:
        return Reply(answer=show(value * sizes[0] / sizes[1] / sizes[2] * sizes[3]), steps=14)
    return Reply(answer=show(value * sizes[0] / sizes[1]), steps=10) if len(sizes) == 2 else None


def _pieces(word: str) -> list[str]:
    return [word[i : i + _PIECE] for i in range(0, len(word), _PIECE)]


def _letters(text: str) -> Reply | None:
    """Sees words in pieces, holds the first two, and counts a letter once in a piece."""
    match = re.search(r"word (\w+)|'(\w+)'", text)
    if not match:
        return None
    word = match[1] or match[2]
    pieces = _pieces(word)
    if re.search(r"backwards|reverse", text, re.IGNORECASE):
        return Reply(answer="".join(pieces[:2])[::-1], steps=3 * len(pieces))
    if letter := re.search(r"the letter (\w)\b", text):
        return Reply(answer=str(sum(letter[1] in piece for piece in pieces)), steps=3 * len(pieces))
    if nth := re.search(r"the (\w+) letter", text):
        n = ORDINALS.index(nth[1]) + 1 if nth[1] in ORDINALS else int(nth[1][0])
        return Reply(answer=word[n - 1] if n <= 2 * _PIECE else word[-1], steps=3 * len(pieces))
    if re.search(r"NATO|radio", text):
        return Reply(answer=", ".join(SPELLING[letter] for letter in "".join(pieces[:2])), steps=6 * len(pieces))
    return None


def _word_lists(text: str) -> Reply | None:
    if re.search(r"initials|acronym", text):
        name = re.search(r" of (?:the |')((?:[A-Z]\w+ ?)+)", text)
        initials = "".join(word[0] for word in name[1].split()) if name else ""
        return Reply(answer=initials, steps=3 * len(initials) + 1)
    words = listed(text)
    if "alphabetical" in text:
        return Reply(answer=", ".join(sorted(words, key=lambda word: word[0])), steps=4 * len(words))
    return (
        Reply(answer=max(words, key=lambda word: len(_pieces(word))), steps=2 * len(words))
        if "longest" in text
        else None
    )


def _yes_no(text: str) -> Reply | None:
    """Takes some for all, and a rule for its converse."""
    if rule := re.search(r"[Ii]f (.+?), (.+?)\. .*?(the [^.]*)\. Does it follow", text):
        return Reply(answer="no" if " not " in rule[3] else "yes", steps=12)
    if not re.search(r"\b(Are|Is|Must)\b.*\?", text) or re.search(r"\btrue\b", text):
        return None
    return Reply(answer="no" if "No " in text else "yes", steps=10)


def _formula(text: str) -> Reply | None:
    """Reads a logical formula from left to right, without parentheses."""
    words = [word for word in formula(text) if word not in "()"]
    if not words:
        return None
    value, sign, negated = False, "or", False
    for word in words:
        if word in ("and", "or"):
            sign = word
        elif word == "not":
            negated = True
        else:
            operand = (word == "true") != negated
            value = value and operand if sign == "and" else value or operand
            negated = False
    return Reply(answer=str(value).lower(), steps=3 * len(words))


def _ordering(text: str) -> Reply | None:
    """Who is more often on the asked side of a comparison; the first such name."""
    pairs = re.findall(r"(\w+) is (\w+) than (\w+)\.", text)
    asked = re.search(r"Who is the (\w+)st\?", text)
    if not pairs or not asked:
        return None
    names = list(dict.fromkeys(name for a, _, b in pairs for name in (a, b)))
    lead = {name: sum(word == asked[1] + "r" and a == name for a, word, _ in pairs) for name in names}
    return Reply(answer=max(names, key=lambda name: lead[name]), steps=5 * len(pairs))


def _compare(text: str) -> Reply | None:
    """Reads decimals like version numbers: 9.11 comes after 9.9."""
    written = re.findall(r"\d+(?:\.\d+)?", text)
    if "larger" not in text and "smaller" not in text:
        return None
    ordered = sorted(written, key=lambda number: [int(part) for part in number.split(".")])
    return Reply(answer=ordered[-1 if "larger" in text else 0], steps=8)


def _series(text: str) -> Reply | None:
    """A constant difference or a constant factor, seen in the last three numbers."""
    values = numbers(text)
    if len(values) < 4 or not re.search(r"\bnext\b|sequence", text):
        return None
    (a, b), (_, c) = list(pairwise(values[-3:]))
    return Reply(answer=show(c + (c - b) if c - b == b - a else _rounded(c * c / b)), steps=12)


def _facts(text: str) -> Reply | None:
    """Famous facts in both directions."""
    tables = (
        (r"capital|governed", _FAMOUS), (r"symbol", _COMMON), (r"opposite|antonym|contrary", OPPOSITES),
        (r"atomic number", {name: str(i) for i, name in enumerate(_COMMON, start=1)}),
    )  # fmt: skip
    for cue, table in tables:
        if re.search(cue, text):
            for head, entry in table.items():
                if re.search(rf"\b{head}\b", text):
                    return Reply(answer=entry, steps=6)
                if cue != "atomic number" and re.search(rf"\b{entry}\b", text):
                    return Reply(answer=head, steps=6)
    return None


def _roman(text: str) -> Reply | None:
    """Adds up signs and never subtracts: 4 is IIII."""
    if "Roman" not in text:
        return None
    signs = {"C": 100, "L": 50, "X": 10, "V": 5, "I": 1}
    if numeral := re.search(r"numeral ([CLXVI]+)\b", text):
        return Reply(answer=str(sum(signs[sign] for sign in numeral[1])), steps=3 * len(numeral[1]))
    left, written = int(numbers(text)[0]), ""
    for sign, value in signs.items():
        written += sign * (left // value)
        left %= value
    return Reply(answer=written, steps=3 * len(written))


GENERALIST = Program(
    name="generalist",
    price_in=1.0,
    price_out=5.0,
    skills=(
        _percent, _weekday, _days, _clock, _roman, _facts, _letters, _word_lists, _formula, _yes_no, _ordering,
        _compare, _series, _story, _units, _arithmetic,
    ),
)  # fmt: skip
