"""What is a candidate of the toolbox? A program that reads a question's text, answers it and bills its work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a program says, and how much it worked for it."""

    answer: str
    #: Elementary operations really done: table rows read, letters visited, digits multiplied, days counted, ...
    steps: int = 1


#: One thing a program can do: a reply, or None where it does not recognise the question.
Skill = Callable[[str], Reply | None]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A candidate model: tries its skills in order and sees nothing but the question's text."""

    name: str
    #: USD per 1M input tokens.
    price_in: float
    #: USD per 1M output tokens; every step of the work is one, as are the answer's own tokens.
    price_out: float
    skills: tuple[Skill, ...]

    def answer(self, text: str) -> Reply:
        """Reply to a question; an empty answer after one step where no skill recognises it."""
        for skill in self.skills:
            if (reply := skill(text)) is not None:
                return reply
        return Reply(answer="")

    def cost(self, text: str, reply: Reply) -> float:
        """Cost of a reply in USD."""
        written = count_tokens(reply.answer) + reply.steps
        return (self.price_in * count_tokens(text) + self.price_out * written) / 1e6


def count_tokens(text: str) -> int:
    """Words and punctuation marks."""
    return len(re.findall(r"\w+|[^\w\s]", text))
