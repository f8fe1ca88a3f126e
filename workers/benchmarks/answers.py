"""What is one answer of a log, what may a user say about reading it, and what does reading report?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from workers.benchmarks.pools import Pool
from workers.benchmarks.prices import Prices

#: Questions and files that a report names as examples.
EXAMPLES = 3


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """What a user says about logs; a format refuses what means nothing to it."""

    #: Metric, scorer or column that holds the score; None: the format's first choice, which its report names.
    score: str | None = None
    #: Which text encoders see: `prompt`, or a field of the question that the format offers.
    embed: str = "prompt"
    #: Filter of lm-evaluation-harness, or another variant of an answer that the format offers.
    variant: str | None = None
    #: The user's prices of tokens and images, above those of the pool and the dated table of this project.
    prices: Prices | None = None
    #: Scores run from 0 to this; answers are divided by it.
    scale: float = 1.0
    #: The pool that is kept, at its prices.
    pool: Pool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One model's answer to one question, as a log has it."""

    #: Identity of the question within its task.
    query: str
    task: str
    model: str
    #: The question as the log has it, without chat template where that can be told.
    prompt: str
    #: As the log has it, from 0 to `ReadOptions.scale`; None: not observed (an error, a refusal of the grader).
    score: float | None
    #: What must be equal for the same question whatever the model: raw input and target. "" = the prompt.
    proof: str = ""
    #: Other texts of the question by field name, for `embed`; needed only where that is not `prompt`.
    texts: Mapping[str, str] = field(default_factory=dict)
    #: USD where the log has it; None: tokens times price.
    cost: float | None = None
    #: None: estimated from the prompt.
    input_tokens: float | None = None
    #: None: estimated from the response; 0 where nothing is generated.
    output_tokens: float | None = None
    #: Whether the token counts are estimates.
    estimated: bool = False
    #: Encoded bytes or path.
    image: str | bytes | None = None
    n_images: int = 0
    response: str | None = None
    #: Place in the log, for messages: file and line.
    at: str = ""


@dataclass(eq=False)
class Notes:
    """What reading left out, flagged or chose, counted, with a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    facts: dict[str, dict[str, None]] = field(default_factory=dict)
    #: Prices that the log brings with it: below the user's and the pool's, above the dated table of this project.
    prices: Prices | None = None

    def left_out(self, reason: str, example: str) -> None:
        """One answer or file was not used."""
        self._count(self.counts, reason, example)

    def flag(self, reason: str, example: str) -> None:
        """One answer was used, but its reader should know something of it."""
        self._count(self.flags, reason, example)

    def choose(self, what: str, value: str) -> None:
        """Something that the user did not say was chosen, such as `score: acc`."""
        self.chosen[what] = value

    def fact(self, what: str, value: str) -> None:
        """Something that a log says of how it was made, such as its tool's version; all values are kept."""
        self.facts.setdefault(what, {}).setdefault(value)

    def _count(self, counts: Counter[str], reason: str, example: str) -> None:
        counts[reason] += 1
        if len(self.examples.setdefault(reason, [])) < EXAMPLES:
            self.examples[reason].append(example)
