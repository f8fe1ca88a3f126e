"""How do programs read? Numbers, number words, dates and quoted words in a question's text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import date

from workers.benchmarks.toolbox.facts import MONTHS

_SMALL = (  # noqa: SIM905
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()  # noqa: SIM905
_VALUES = {word: i for i, word in enumerate(_SMALL)} | {word: 20 + 10 * i for i, word in enumerate(_TENS)}
_WORD = rf"(?:{'|'.join(sorted([*_VALUES, 'hundred'], key=len, reverse=True))})"
_SPELLED = re.compile(rf"\b{_WORD}(?:(?:[ -]|(?<=hundred) and ){_WORD})*\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\w.])\d[\d,]*(?:\.\d+)?")
_MONTH = "|".join(MONTHS)
_ISO = re.compile(r"\b(\d{4})-(\d\d)-(\d\d)\b")
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}}) ({_MONTH}) (\d{{4}})")
_MONTH_FIRST = re.compile(rf"\b({_MONTH}) (\d{{1,2}}), (\d{{4}})")
_SIGNS = {
    "plus": "+", "minus": "-", "times": "*", "multiplied by": "*", "divided by": "/", "×": "*", "÷": "/",
}  # fmt: skip
_TOKEN = re.compile(r"\d[\d,]*(?:\.\d+)?|[-+*/()]")

#: Applies one of + - * / to two numbers.
Operate = Callable[[str, float, float], float]


def spell(number: int) -> str:
    """Spell a number from 0 to 999 in words."""
    if number >= 100:
        rest = f" and {spell(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100]} hundred{rest}"
    if number < 20:
        return _SMALL[number]
    return _TENS[number // 10 - 2] + (f"-{_SMALL[number % 10]}" if number % 10 else "")


def digits_for_words(text: str) -> str:
    """Replace numbers that are spelled out by digits."""

    def value(match: re.Match[str]) -> str:
        total = 0
        for word in re.findall(r"[a-z]+", match[0].lower()):
            if word == "hundred":
                total = max(total, 1) * 100
            elif word != "and":
                total += _VALUES[word]
        return str(total)

    return _SPELLED.sub(value, text)


def numbers(text: str) -> list[float]:
    """All numbers written in digits, thousands separators allowed, in order."""
    return [float(match.replace(",", "")) for match in _NUMBER.findall(text)]


def iso_dates(text: str) -> list[date]:
    """All dates such as 2017-03-09, in order."""
    return [date(int(y), int(m), int(d)) for y, m, d in _ISO.findall(text)]


def day_first_dates(text: str) -> list[date]:
    """All dates such as 9 March 2017, in order."""
    return [date(int(y), MONTHS.index(m) + 1, int(d)) for d, m, y in _DAY_FIRST.findall(text)]


def month_first_dates(text: str) -> list[date]:
    """All dates such as March 9, 2017, in order."""
    return [date(int(y), MONTHS.index(m) + 1, int(d)) for m, d, y in _MONTH_FIRST.findall(text)]


def dates(text: str) -> list[date]:
    """All dates in any of the three ways of writing."""
    return iso_dates(text) + day_first_dates(text) + month_first_dates(text)


def quoted(text: str) -> str | None:
    """The first text in single quotes."""
    match = re.search(r"'([^']+)'", text)
    return match[1] if match else None


def listed(text: str) -> list[str]:
    """The words of a comma-separated list after a colon."""
    match = re.search(r": ((?:\w+, )+\w+)", text)
    return match[1].split(", ") if match else []


def expression(text: str) -> list[str]:
    """Tokens of the arithmetic expression in a text: numbers, signs, parentheses; [] without a sign between numbers."""
    for word, sign in _SIGNS.items():
        text = text.replace(word, sign)
    match = re.search(r"\(?\d[\d,. ()]*(?:[-+*/][ (]*\d[\d,. )]*)+", text)
    return [token.replace(",", "") for token in _TOKEN.findall(match[0])] if match else []


def formula(text: str) -> list[str]:
    """Tokens of the logical formula in a text, the longest run of them; [] without a truth value in it."""
    runs = [match[0] for match in re.finditer(r"(?:(?:\b(?:true|false|and|or|not)\b|[()]) ?)+", text)]
    run = max(runs, key=len, default="")
    return re.findall(r"\w+|[()]", run) if re.search("true|false", run) else []


def evaluate(tokens: list[str], operate: Operate) -> float:
    """Value of an expression by the usual precedence."""
    position = 0

    def chain(signs: str, part: Callable[[], float]) -> float:
        nonlocal position
        value = part()
        while position < len(tokens) and tokens[position] in signs:
            sign = tokens[position]
            position += 1
            value = operate(sign, value, part())
        return value

    def atom() -> float:
        nonlocal position
        token = tokens[position]
        position += 1
        if token != "(":
            return float(token)
        value = total()
        position += 1
        return value

    def total() -> float:
        return chain("+-", lambda: chain("*/", atom))

    return total()


def apply(sign: str, a: float, b: float) -> float:
    """Apply one of + - * / to two numbers; NaN for a division by zero."""
    if sign == "/":
        return a / b if b else math.nan
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def show(value: float) -> str:
    """Write a number without trailing zeros, to 12 significant digits."""
    return f"{value:.12g}" if abs(value) < 1e12 else f"{value:.0f}"
