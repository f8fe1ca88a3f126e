"""How well do small programs answer text questions? The benchmark that really asks them and grades what they say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from workers.benchmarks.base import Benchmark, Floats, Model, Source
from workers.benchmarks.toolbox.calculator import CALCULATOR
from workers.benchmarks.toolbox.calendar import CALENDAR
from workers.benchmarks.toolbox.generalist import GENERALIST
from workers.benchmarks.toolbox.handbook import HANDBOOK
from workers.benchmarks.toolbox.program import Program
from workers.benchmarks.toolbox.questions import Question, draw_questions
from workers.benchmarks.toolbox.reasoner import REASONER
from workers.benchmarks.toolbox.wordsmith import WORDSMITH

PROGRAMS: tuple[Program, ...] = (CALCULATOR, CALENDAR, GENERALIST, HANDBOOK, REASONER, WORDSMITH)


class Toolbox(Source):
    """Arithmetic, dates, units, strings, logic and look-ups, answered by six programs of different skill and price."""

    name: ClassVar[str] = "toolbox"
    summary: ClassVar[str] = "3240 text questions that six small programs really answer; text only"

    def load(self) -> Benchmark:
        """Ask every program every question."""
        questions = draw_questions()
        S, C = ask(questions, PROGRAMS)
        return Benchmark.build(
            name=self.name,
            queries=[question.id for question in questions],
            prompts=[question.text for question in questions],
            tasks=[question.task for question in questions],
            models=[
                Model(name=program.name, family="toolbox", price_in=program.price_in, price_out=program.price_out)
                for program in PROGRAMS
            ],
            S=S,
            C=C,
            meta={"licence": "Apache-2.0", "source": "generated; programs in workers/benchmarks/toolbox"},
        )


def ask(questions: Sequence[Question], programs: Sequence[Program]) -> tuple[Floats, Floats]:
    """Scores in [0, 1] and costs in USD of every program on every question. Both [n_questions, n_programs]."""
    S = np.zeros((len(questions), len(programs)))
    C = np.zeros_like(S)
    for j, program in enumerate(programs):
        for i, question in enumerate(questions):
            reply = program.answer(question.text)
            S[i, j] = grade(reply.answer, question.answer)
            C[i, j] = program.cost(question.text, reply)
    return S, C


def grade(answer: str, reference: str) -> float:
    """Score an answer.

    A number scores 1 within a relative error of 1e-6 and 0.5 within 1 %; a comma-separated list scores the share of
    places that are right, 0 at another length; anything else scores 1 if equal but for case.
    """
    expected = _number(reference)
    if expected is not None:
        given = _number(answer)
        if given is None:
            return 0.0
        error = abs(given - expected)
        return 1.0 if error <= 1e-6 * abs(expected) else 0.5 if error <= 0.01 * abs(expected) else 0.0
    places, right = answer.casefold().split(", "), reference.casefold().split(", ")
    if len(places) != len(right):
        return 0.0
    return sum(a == b for a, b in zip(places, right, strict=True)) / len(right)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
