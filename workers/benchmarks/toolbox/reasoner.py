"""What can a reasoner do? Work things out step by step until its patience ends; it knows no facts."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from itertools import pairwise

from workers.benchmarks.toolbox.facts import ORDINALS, WEEKDAYS
from workers.benchmarks.toolbox.program import Program, Reply, Skill
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

#: Steps after which it gives up, having worked for nothing.
_PATIENCE = 40


def _patiently(skill: Skill) -> Skill:
    def tried(text: str) -> Reply | None:
        reply = skill(text)
        return Reply(answer="", steps=_PATIENCE) if reply is not None and reply.steps > _PATIENCE else reply

    return tried


def _digits(value: float) -> int:
    return len(show(abs(value)))


def _arithmetic(text: str) -> Reply | None:
    """Schoolbook: a step for every digit added and every pair of digits multiplied."""
    tokens = expression(digits_for_words(text))
    if not tokens or re.search(r"\d{4}-\d\d", text):
        return None
    steps = 0

    def operate(sign: str, a: float, b: float) -> float:
        nonlocal steps
        steps += _digits(a) * _digits(b) if sign in "*/" else max(_digits(a), _digits(b))
        return apply(sign, a, b)

    value = evaluate(tokens, operate)
    return Reply(answer=show(value), steps=4 * steps + 8)


def _percent(text: str) -> Reply | None:
    match = re.search(r"(\d+)(?:%| percent)", text)
    if not match:
        return None
    rate, amount = float(match[1]), (numbers(text.replace(match[0], "")) or [0.0])[0]
    part = rate * amount / 100
    value = amount - part if "reduced" in text else amount + part if "raised" in text else part
    return Reply(answer=show(value), steps=4 * _digits(rate) * _digits(amount) + (0 if value == part else 8))


def _story(text: str) -> Reply | None:
    values = numbers(digits_for_words(text))
    if not re.search(r"\beach\b", text) or len(values) < 2:
        return None
    value = values[0] * values[1]
    if len(values) == 3:
        value += -values[2] if "gives away" in text else values[2]
    return Reply(answer=show(value), steps=4 * _digits(values[0]) * _digits(values[1]) + 8 * len(values))


def _exchange(text: str) -> Reply | None:
    """A rate is given in the question: multiply towards the smaller coin, divide towards the larger."""
    values = numbers(digits_for_words(text))[-2:]
    if len(values) != 2 or not re.search(r"\bworth\b|\bThere are\b", text):
        return None
    return Reply(answer=show(values[0] * values[1] if "worth" in text else values[1] / values[0]), steps=30)


def _units(text: str) -> Reply | None:
    """Metric names say their factor; clock units it reasons out."""
    prefix = {"kilo": 1000.0, "centi": 0.01, "milli": 0.001, "": 1.0}
    clock = {"week": 604800.0, "day": 86400.0, "hour": 3600.0, "minute": 60.0, "second": 1.0}
    values = numbers(text)
    metric = re.findall(r"\b(kilo|centi|milli|)(?:metre|gram|litre)s?\b", text)
    sizes = [prefix[match] for match in metric] or [clock[unit] for unit in re.findall("|".join(clock), text)]
    if len(values) != 1 or len(sizes) != 2 or " per " in text:
        return None
    return Reply(answer=show(values[0] * sizes[0] / sizes[1]), steps=25)


def _count_days(text: str) -> Reply | None:
    """Counts day by day."""
    days, gap = dates(text), re.search(r"(\d+) days", text)
    if len(days) == 2:
        apart = abs((days[1] - days[0]).days)
        return Reply(answer=str(apart), steps=apart)
    if not gap:
        return None
    n = int(gap[1])
    if len(days) == 1:
        return Reply(answer=(days[0] + timedelta(days=n)).isoformat(), steps=n)
    today = re.search("|".join(WEEKDAYS), text)
    return Reply(answer=WEEKDAYS[(WEEKDAYS.index(today[0]) + n) % 7], steps=n) if today else None


def _clock(text: str) -> Reply | None:
    """Goes on in steps of ten minutes."""
    times = [int(hour) * 60 + int(minute) for hour, minute in re.findall(r"(\d\d):(\d\d)", text)]
    if len(times) != 2:
        return None
    minutes = (times[1] - times[0]) % 1440
    return Reply(answer=str(minutes), steps=minutes // 10 + 4)


def _letters(text: str) -> Reply | None:
    """Letter by letter, as often as it takes."""
    match = re.search(r"word (\w+)|'(\w+)'", text)
    if not match:
        return None
    word = match[1] or match[2]
    if re.search(r"backwards|reverse", text, re.IGNORECASE):
        return Reply(answer=word[::-1], steps=6 * len(word))
    if letter := re.search(r"the letter (\w)\b", text):
        return Reply(answer=str(word.count(letter[1])), steps=6 * len(word))
    if nth := re.search(r"the (\w+) letter", text):
        n = ORDINALS.index(nth[1]) + 1 if nth[1] in ORDINALS else int(nth[1][0])
        return Reply(answer=word[n - 1], steps=5 * n)
    return None


def _word_lists(text: str) -> Reply | None:
    words = listed(text)
    if "alphabetical" in text:
        return Reply(answer=", ".join(sorted(words)), steps=len(words) ** 2)
    return Reply(answer=max(words, key=len), steps=5 * len(words)) if "longest" in text else None


def _syllogism(text: str) -> Reply | None:
    """Follows every `all` from the kind asked about; what is reached is certain, its `no` excluded."""
    question = re.search(
        r"(?:Are|Must|Is) .*?(?:all|any|some|every one of the) (\w+) .*?(\w+)(?:, for certain)?\?", text
    )
    if not question:
        return None
    every = re.findall(r"All (\w+) are (\w+)\.", text)
    some = re.findall(r"Some (\w+) are (\w+)\.", text)
    reached = {question[1]} | ({b for a, b in some if a == question[1]} if "Must" in text else set())
    for _ in every:
        reached |= {b for a, b in every if a in reached}
    return Reply(answer="yes" if question[2] in reached else "no", steps=18 * (len(every) + len(some)))


def _implication(text: str) -> Reply | None:
    rule = re.search(r"[Ii]f (.+?), (.+?)\. .*?(the [^.]*)\. Does it follow that (.+?)\?", text)
    if not rule:
        return None
    if_, then, fact, asked = rule.groups()
    if fact == if_ and asked == then:
        answer = "yes"
    else:
        answer = "no" if fact == then.replace(" is ", " is not ") and asked == if_ else "unknown"
    return Reply(answer=answer, steps=36)


def _formula(text: str) -> Reply | None:
    """`not` before `and` before `or`, parentheses first: the same as arithmetic on 0 and 1."""
    words = formula(text)
    if not words:
        return None
    steps, position = 0, 0

    def atom() -> bool:
        nonlocal position, steps
        word = words[position]
        position, steps = position + 1, steps + 9
        if word == "not":
            return not atom()
        if word == "(":
            value = either()
            position += 1
            return value
        return word == "true"

    def both() -> bool:
        nonlocal position
        value = atom()
        while position < len(words) and words[position] == "and":
            position += 1
            value &= atom()
        return value

    def either() -> bool:
        nonlocal position
        value = both()
        while position < len(words) and words[position] == "or":
            position += 1
            value |= both()
        return value

    return Reply(answer=str(either()).lower(), steps=steps)


def _ordering(text: str) -> Reply | None:
    """Chains the comparisons: the one nobody is above."""
    comparatives = {"taller": 1, "older": 1, "faster": 1, "shorter": -1, "younger": -1, "slower": -1}
    pairs = [
        (a, b) if comparatives[word] > 0 else (b, a) for a, word, b in re.findall(r"(\w+) is (\w+) than (\w+)\.", text)
    ]
    asked = re.search(r"Who is the (\w+)st\?", text)
    if not pairs or not asked:
        return None
    below = [b for _, b in pairs]
    above = [a for a, _ in pairs]
    if comparatives[asked[1] + "r"] > 0:
        answer = next(name for name in above if name not in below)
    else:
        answer = next(name for name in below if name not in above)
    return Reply(answer=answer, steps=4 * len(pairs) ** 2)


def _compare(text: str) -> Reply | None:
    values = numbers(text)
    if "larger" not in text and "smaller" not in text:
        return None
    return Reply(answer=show(max(values) if "larger" in text else min(values)), steps=20)


def _series(text: str) -> Reply | None:
    """Constant factors, else differences of differences until they are constant."""
    row = numbers(text)
    if len(row) < 4 or not re.search(r"\bnext\b|sequence", text):
        return None
    factor = row[1] / row[0] if row[0] else math.nan
    if all(b == a * factor for a, b in pairwise(row)):
        return Reply(answer=show(row[-1] * factor), steps=6 * len(row))
    total, steps = 0.0, 0
    while len(row) > 1 and any(row):
        total += row[-1]
        steps += 4 * len(row)
        row = [b - a for a, b in pairwise(row)]
    return Reply(answer=show(total), steps=steps)


def _roman(text: str) -> Reply | None:
    if "Roman" not in text:
        return None
    signs = {"C": 100, "XC": 90, "L": 50, "XL": 40, "X": 10, "IX": 9, "V": 5, "IV": 4, "I": 1}
    if numeral := re.search(r"numeral ([CLXVI]+)\b", text):
        parts = re.findall("XC|XL|IX|IV|[CLXVI]", numeral[1])
        return Reply(answer=str(sum(signs[part] for part in parts)), steps=10 * len(parts))
    left, written = int(numbers(text)[0]), ""
    for sign, value in signs.items():
        written += sign * (left // value)
        left %= value
    return Reply(answer=written, steps=10 * len(written))


REASONER = Program(
    name="reasoner",
    price_in=1.0,
    price_out=8.0,
    skills=tuple(
        _patiently(skill)
        for skill in (
            _percent, _count_days, _clock, _roman, _letters, _word_lists, _implication, _syllogism, _formula, _ordering,
            _compare, _series, _story, _exchange, _units, _arithmetic,
        )
    ),
)  # fmt: skip
