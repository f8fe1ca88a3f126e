"""How do several models' evaluation logs become one routing benchmark? Answers joined on the question's identity."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.prices import Prices
from workers.errors import BenchmarkError
from workers.plugins import discover, nearest

#: Questions and reasons that a report names as examples.
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
    #: Prices of tokens and images; default: the dated table of this project.
    prices: Prices | None = None
    #: Scores run from 0 to this; answers are divided by it.
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One model's answer to one question, as a log has it."""

    #: Identity of the question within its task.
    query: str
    task: str
    model: str
    #: The question as the log has it, without chat template where that can be told.
    prompt: str
    #: In [0, 1] after scaling; None: not observed (an error, a refusal of the grader).
    score: float | None
    #: What must be equal for the same question whatever the model: raw input and target. "" = the prompt.
    proof: str = ""
    #: Other texts of the question by field name, for `embed`.
    texts: Mapping[str, str] = field(default_factory=dict)
    #: USD where the log has it; None: tokens times price.
    cost: float | None = None
    input_tokens: float | None = None
    output_tokens: float | None = None
    #: Whether the token counts are estimates.
    estimated: bool = False
    #: Encoded bytes or path.
    image: str | bytes | None = None
    n_images: int = 0
    response: str | None = None
    #: Place in the log, for messages: file and line.
    at: str = ""


class LogFormat(ABC):
    """Subclass, set `name`, recognise paths, yield answers. Each (task, query, model) comes once, the newest run."""

    #: Name for `--format`.
    name: ClassVar[str]
    #: One line for listings.
    summary: ClassVar[str]
    #: What it was checked on; `not verified on real files; written from <source>` where that holds.
    verified: ClassVar[str]

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether a file or folder is of this format; cheap, reads a few bytes, never raises for its content."""

    @abstractmethod
    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read all answers of all models below a path.

        Args:
            path: File or folder.
            options: What the user says.
            notes: Takes what was left out and why, and what was chosen for the user.

        Raises:
            BenchmarkError: With the file and line at fault.
        """


@cache
def log_formats() -> dict[str, type[LogFormat]]:
    """Every format by name: ours and those of plug-ins."""
    return discover("workers.benchmarks", LogFormat, "roadtest.formats")


def find_format(path: Path, name: str | None = None) -> type[LogFormat] | None:
    """The format of this name, or the one that recognises a path; None when none does.

    Raises:
        BenchmarkError: Unknown name, or several recognise it.
    """
    known = log_formats()
    if name is not None:
        if name not in known:
            raise BenchmarkError(f"unknown format {name!r}; {nearest(name, list(known))}")
        return known[name]
    found = [cls for cls in known.values() if cls.recognises(path)]
    if len(found) > 1:
        raise BenchmarkError(f"{path}: looks like {' and '.join(cls.name for cls in found)}; say which with --format.")
    return found[0] if found else None


@dataclass(eq=False)
class Notes:
    """What reading left out or chose, counted, with a few examples of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)

    def left_out(self, reason: str, example: str) -> None:
        """One answer or file was not used."""
        self.counts[reason] += 1
        if len(self.examples.setdefault(reason, [])) < EXAMPLES:
            self.examples[reason].append(example)

    def choose(self, what: str, value: str) -> None:
        """Something that the user did not say was chosen, such as `score: acc`."""
        self.chosen[what] = value


def read_logs(path: Path, cls: type[LogFormat], *, name: str, options: ReadOptions) -> Benchmark:
    """Join a path's logs into a benchmark; `meta["join"]` reports what did not match.

    Raises:
        BenchmarkError: With what is wrong, where, and what to do.
    """
    notes = Notes()
    table = _Table(options)
    for answer in cls().answers(path, options, notes):
        table.add(answer)
    if not table.cells:
        raise BenchmarkError(f"{path}: read as {cls.name}, it holds no answer; check the folder and --format.")
    return table.benchmark(name, path, cls, notes)


@dataclass(slots=True)
class _Question:
    task: str
    prompt: str
    digest: str
    texts: Mapping[str, str]
    image: str | bytes | None
    first: str


class _Table:
    """Questions and cells as they come in."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        self.prices = options.prices or Prices.default()
        self.questions: dict[tuple[str, str], _Question] = {}
        self.cells: dict[tuple[str, str, str], tuple[float, float, str | None, float]] = {}
        self.models: dict[str, None] = {}
        self.unscored: Counter[str] = Counter()
        self.unpriced: dict[str, str] = {}
        self.estimated: Counter[str] = Counter()
        self.without_tokens: Counter[str] = Counter()

    def add(self, answer: Answer) -> None:
        self.models.setdefault(answer.model)
        self._ask(answer)
        key = (answer.task, answer.query, answer.model)
        if key in self.cells:
            raise BenchmarkError(
                f"{answer.at}: model {answer.model!r} answered query {answer.query!r} of {answer.task!r} twice; "
                "keep one run of each model and task."
            )
        score = np.nan if answer.score is None else answer.score / self.options.scale
        if score is not np.nan and not (0 <= score <= 1 or np.isnan(score)):
            raise BenchmarkError(
                f"{answer.at}: score {answer.score:g} is outside [0, {self.options.scale:g}]; "
                "name another score, or give --scale 100 where scores are percentages."
            )
        self.unscored[answer.model] += bool(np.isnan(score))
        response = answer.response
        tokens = np.nan if answer.input_tokens is None else answer.input_tokens
        self.cells[key] = (score, self._cost(answer), response, tokens)

    def _ask(self, answer: Answer) -> None:
        digest = hashlib.sha256((answer.proof or answer.prompt).encode("utf-8", "surrogatepass")).hexdigest()
        known = self.questions.get((answer.task, answer.query))
        if known is None:
            self.questions[answer.task, answer.query] = _Question(
                answer.task, answer.prompt, digest, answer.texts, answer.image, answer.at
            )
        elif known.digest != digest:
            raise BenchmarkError(
                f"{answer.at}: query {answer.query!r} of {answer.task!r} is another question than in {known.first}; "
                "the runs used other data, another order or another limit: evaluate all models on the same questions."
            )

    def _cost(self, answer: Answer) -> float:
        if answer.cost is not None:
            return answer.cost
        self.estimated[answer.model] += answer.estimated
        if answer.input_tokens is None and answer.output_tokens is None and not answer.n_images:
            self.without_tokens[answer.model] += 1
        cost = self.prices.cost(
            answer.model,
            input_tokens=answer.input_tokens or 0.0,
            output_tokens=answer.output_tokens or 0.0,
            n_images=answer.n_images,
        )
        if cost is None:
            self.unpriced.setdefault(answer.model, answer.at)
            return np.nan
        return cost

    def benchmark(self, name: str, path: Path, cls: type[LogFormat], notes: Notes) -> Benchmark:
        if self.unpriced:
            models = ", ".join(sorted(self.unpriced))
            raise BenchmarkError(
                f"{path}: no price for {models}; give a table of prices with --prices FILE (columns model, input, "
                "output in USD per 1M tokens, optionally image in USD each; 0 for models of your own)."
            )
        keys = sorted(self.questions)
        several = len({task for task, _ in keys}) > 1
        row = {key: i for i, key in enumerate(keys)}
        column = {model: j for j, model in enumerate(self.models)}
        shape = (len(keys), len(column))
        S, C, tokens = (np.full(shape, np.nan) for _ in range(3))
        responses = np.full(shape, None, dtype=object)
        for (task, query, model), (score, cost, response, n_tokens) in self.cells.items():
            i, j = row[task, query], column[model]
            S[i, j], C[i, j], responses[i, j], tokens[i, j] = score, cost, response, n_tokens
        questions = [self.questions[key] for key in keys]
        extras: dict[str, npt.NDArray[Any]] = {}
        if (responses != None).any():  # noqa: E711 -- elementwise
            extras["response"] = responses
        if not np.isnan(tokens).all():
            extras["input_tokens"] = tokens
        return Benchmark.build(
            name=name,
            queries=[f"{task}/{query}" if several else query for task, query in keys],
            prompts=[question.prompt for question in questions],
            texts=[self._embedded(question, path) for question in questions],
            images=[question.image for question in questions],
            tasks=[question.task for question in questions],
            models=[
                Model(name=model, price_in=price.input if price else None, price_out=price.output if price else None)
                for model in column
                for price in [self.prices.find(model)]
            ],
            S=S,
            C=C,
            embedded=self.options.embed,
            meta={"source": str(path), "format": cls.name, "join": self._report(S, notes)},
            extras=extras,
            where=str(path),
        )

    def _embedded(self, question: _Question, path: Path) -> str:
        if self.options.embed == "prompt":
            return question.prompt
        if self.options.embed not in question.texts:
            fields = list(question.texts)
            raise BenchmarkError(
                f"{path}: {question.first} has no field {self.options.embed!r} to embed; "
                f"{nearest(self.options.embed, ['prompt', *fields])}"
            )
        return question.texts[self.options.embed]

    def _report(self, S: npt.NDArray[np.float64], notes: Notes) -> dict[str, Any]:
        """What matched and what did not, as JSON values."""
        answered: Counter[str] = Counter(model for _, _, model in self.cells)
        by_question = Counter((task, query) for task, query, _ in self.cells)
        missing = [key for key, n in by_question.items() if n < len(self.models)]
        return {
            "models": {model: {"answers": answered[model], "unscored": self.unscored[model]} for model in self.models},
            "questions": len(self.questions),
            "answered_by_all": len(self.questions) - len(missing),
            "complete": int((~np.isnan(S)).all(axis=1).sum()),
            "not_by_all": [f"{task}/{query}" for task, query in sorted(missing)[:EXAMPLES]],
            "estimated_tokens": {model: n for model, n in self.estimated.items() if n},
            "without_tokens": {model: n for model, n in self.without_tokens.items() if n},
            "left_out": {reason: {"n": n, "such_as": notes.examples[reason]} for reason, n in notes.counts.items()},
            "chosen": dict(notes.chosen),
            "prices": self.prices.source,
        }


def options_are_known(options: ReadOptions, *known: str) -> Iterable[str]:
    """Options that a user gave and a format does not know: for formats to refuse."""
    default = ReadOptions()
    for key in ("score", "variant"):
        if key not in known and getattr(options, key) != getattr(default, key):
            yield key
