"""What can a wordsmith do? Cut and sort the letters it is given in quotes, and answer the rest by cue words."""

from __future__ import annotations

import re

from workers.benchmarks.toolbox.facts import SPELLING
from workers.benchmarks.toolbox.program import Program, Reply
from workers.benchmarks.toolbox.reading import listed, quoted


def _quoted(text: str) -> Reply | None:
    word = quoted(text)
    if word is None:
        return None
    steps = len(word)
    if re.search(r"backwards|reverse", text, re.IGNORECASE):
        return Reply(answer=word[::-1], steps=steps)
    if letter := re.search(r"the letter (\w)\b", text):
        return Reply(answer=str(word.count(letter[1])), steps=steps)
    if nth := re.search(r"the (\d)\w\w letter", text):
        return Reply(answer=word[int(nth[1]) - 1], steps=int(nth[1]))
    if re.search(r"initials|acronym", text):
        return Reply(answer="".join(part[0] for part in word.split()), steps=steps)
    if re.search(r"NATO|radio", text):
        return Reply(answer=", ".join(SPELLING[letter] for letter in word), steps=steps)
    return None


def _list(text: str) -> Reply | None:
    words = listed(text)
    if not words:
        return None
    if "alphabetical" in text:
        return Reply(answer=", ".join(sorted(words)), steps=len(words) ** 2)
    return Reply(answer=max(words, key=len), steps=len(words)) if "longest" in text else None


def _cue(text: str) -> Reply | None:
    """A negation says no, any other closed question yes; a true-or-false question the truth value seen most often."""
    if re.search(r"\b(true|false)\b", text):
        answer = "true" if len(re.findall("true", text)) >= len(re.findall("false", text)) else "false"
        return Reply(answer=answer, steps=count) if (count := text.count(" ")) else None
    if re.search(r"\b(Are|Is|Must|Does)\b", text):
        return Reply(answer="no" if re.search(r"\b(not|No|Some)\b", text) else "yes", steps=2)
    return None


def _first_name(text: str) -> Reply | None:
    """Who-questions are answered with the first name in sight."""
    name = re.search(r"(\w+) is \w+ than", text)
    return Reply(answer=name[1]) if name else None


WORDSMITH = Program(
    name="wordsmith",
    price_in=0.02,
    price_out=0.08,
    skills=(_quoted, _list, _cue, _first_name),
)
