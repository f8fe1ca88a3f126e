"""What can a handbook do? Find a headword in its tables of facts and of unit factors; it is read forwards only."""

from __future__ import annotations

import re

from workers.benchmarks.toolbox.facts import CAPITALS, ELEMENTS, OPPOSITES, SPELLING, UNITS
from workers.benchmarks.toolbox.program import Program, Reply
from workers.benchmarks.toolbox.reading import show

#: Numerals up to where the printed table ends.
_ROMAN = (  # noqa: SIM905
    "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII XVIII XIX XX XXI XXII XXIII XXIV XXV XXVI "
    "XXVII XXVIII XXIX XXX XXXI XXXII XXXIII XXXIV XXXV XXXVI XXXVII XXXVIII XXXIX XL"
).split()


def _find(table: dict[str, str], text: str) -> Reply | None:
    """Reads down the headwords until one occurs in the question."""
    for row, (head, entry) in enumerate(table.items(), start=1):
        if re.search(rf"\b{head}\b", text):
            return Reply(answer=entry, steps=row)
    return None


def _capital(text: str) -> Reply | None:
    return _find(CAPITALS, text) if "capital" in text else None


def _element(text: str) -> Reply | None:
    if "atomic number" in text:
        return _find({name: str(i) for i, name in enumerate(ELEMENTS, start=1)}, text)
    return _find(ELEMENTS, text) if "symbol" in text else None


def _roman(text: str) -> Reply | None:
    number = re.search(r"\d+", text)
    if "Roman" not in text or not number or not 1 <= int(number[0]) <= len(_ROMAN):
        return None
    return Reply(answer=_ROMAN[int(number[0]) - 1], steps=int(number[0]))


def _spelling(text: str) -> Reply | None:
    word = re.search(r"word (\w+)", text)
    if not word or not re.search(r"NATO|radio", text):
        return None
    return Reply(answer=", ".join(SPELLING[letter] for letter in word[1]), steps=13 * len(word[1]))


def _opposite(text: str) -> Reply | None:
    return _find(OPPOSITES, text) if re.search(r"opposite|antonym|contrary", text) else None


def singular(unit: str) -> str:
    """A unit's headword: inches, feet and metres are listed as inch, foot and metre."""
    return {"feet": "foot", "inches": "inch"}.get(unit, unit[:-1] if len(unit) > 3 and unit.endswith("s") else unit)


def _convert(text: str) -> Reply | None:
    """From the unit after the number to the last unit named, through the base unit."""
    amount = re.search(r"(\d+(?:\.\d+)?) (\w+)", text)
    if not amount:
        return None
    named = [unit for word in re.findall(r"[A-Za-z]+", text[amount.end() :]) if (unit := singular(word)) in UNITS]
    source = singular(amount[2])
    if source not in UNITS or not named or UNITS[source][0] != UNITS[named[-1]][0]:
        return None
    rows = [*UNITS]
    value = float(amount[1]) * UNITS[source][1] / UNITS[named[-1]][1]
    return Reply(answer=show(float(f"{value:.7g}")), steps=rows.index(source) + rows.index(named[-1]) + 2)


HANDBOOK = Program(
    name="handbook",
    price_in=0.1,
    price_out=0.1,
    skills=(_capital, _element, _roman, _spelling, _opposite, _convert),
)
