"""Which questions does the toolbox ask? Six families of six templates each, every text different."""

from __future__ import annotations

from dataclasses import dataclass

from workers.benchmarks.toolbox.drawing import Draw, Template
from workers.benchmarks.toolbox.quantities import ARITHMETIC_TEMPLATES, DATES_TEMPLATES, UNITS_TEMPLATES
from workers.benchmarks.toolbox.symbols import LOGIC_TEMPLATES, LOOK_UPS_TEMPLATES, STRINGS_TEMPLATES
from workers.seeding import generator


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its reference answer."""

    id: str
    #: Family: arithmetic, dates, units, strings, logic or look-ups.
    task: str
    text: str
    answer: str


FAMILIES: dict[str, tuple[Template, ...]] = {
    "arithmetic": ARITHMETIC_TEMPLATES,
    "dates": DATES_TEMPLATES,
    "logic": LOGIC_TEMPLATES,
    "look-ups": LOOK_UPS_TEMPLATES,
    "strings": STRINGS_TEMPLATES,
    "units": UNITS_TEMPLATES,
}


#: What people say around a question, whatever it is about.
_MANNERS = (
    "{}", "{}", "{}", "Please help me with this. {}", "A friend of mine wants to know. {}", "Short reply, please. {}",
    "{} I need it for a quiz.", "{} Thank you!", "My teacher gave me this. {}", "{} Just the result, nothing more.",
    "I keep wondering about it. {}", "{} My brother and I had a bet about it.",
)  # fmt: skip


def draw_questions(per_template: int = 90) -> list[Question]:
    """The benchmark's questions, every text different; the same at every call.

    Raises:
        ValueError: A template cannot give so many different questions.
    """
    questions, seen = [], set[str]()
    for task, templates in FAMILIES.items():
        for template in templates:
            name = template.__name__.strip("_").replace("_", "-")
            draw = Draw(generator(0, "toolbox", task, name))
            fresh: dict[str, str] = {}
            for _ in range(50 * per_template):
                question, answer = template(draw)
                text = draw.one(_MANNERS).format(question)
                if text not in seen:
                    seen.add(text)
                    fresh[text] = answer
                if len(fresh) == per_template:
                    break
            else:
                raise ValueError(f"template {name!r} has fewer than {per_template} different questions.")
            questions += [
                Question(id=f"{task}-{name}-{i:03d}", task=task, text=text, answer=answer)
                for i, (text, answer) in enumerate(fresh.items())
            ]
    return questions
