"""What can a pocket calculator do? Press the keys it sees, left to right, on eight digits."""

from __future__ import annotations

import re

from workers.benchmarks.toolbox.program import Program, Reply
from workers.benchmarks.toolbox.reading import apply, expression, numbers, show

_DISPLAY = 99_999_999


def _display(value: float, steps: int) -> Reply:
    return Reply(answer=show(float(f"{value:.8g}")) if abs(value) <= _DISPLAY else "E", steps=steps)


def _percent(text: str) -> Reply | None:
    match = re.search(r"(\d+)(?:%| percent) of (\d+)", text)
    return _display(int(match[1]) * int(match[2]) / 100, 3) if match else None


def _keys(text: str) -> Reply | None:
    """No precedence: every sign acts on what the display shows; parentheses are no keys."""
    tokens = [token for token in expression(text) if token not in "()"]
    if not tokens or re.search(r"\d{4}-\d\d", text):
        return None
    value = float(tokens[0])
    for sign, operand in zip(tokens[1::2], tokens[2::2], strict=False):
        value = apply(sign, value, float(operand))
    return _display(value, len(tokens))


def _difference(text: str) -> Reply | None:
    """Compares two numbers by the sign of their difference."""
    if "larger" not in text and "smaller" not in text:
        return None
    values = numbers(text)
    return _display(max(values) if "larger" in text else min(values), 2 * len(values))


def _repeat(text: str) -> Reply | None:
    """The = key repeats the last step, here the last difference of a row of numbers."""
    values = numbers(text)
    if len(values) < 3 or not re.search(r"\bnext\b|sequence", text):
        return None
    return _display(2 * values[-1] - values[-2], len(values))


CALCULATOR = Program(
    name="calculator",
    price_in=0.02,
    price_out=0.05,
    skills=(_percent, _difference, _repeat, _keys),
)
