"""How are answers of several models joined, question by question, and what is said of those that do not match?"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.answers import EXAMPLES, Answer, Notes, ReadOptions
from workers.benchmarks.base import Benchmark, Floats, Model
from workers.benchmarks.pools import Members, keep_pool, match
from workers.benchmarks.prices import Price, Prices, estimate_tokens
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: Fields that the message about an unknown one names.
_FIELDS_SHOWN = 30


class _Answers:
    """One model's answers in the order in which they come; NaN where there is nothing."""

    def __init__(self) -> None:
        self.seen = bytearray()
        self.rows = array("q")
        self.scores, self.costs = array("d"), array("d")
        self.inputs, self.outputs = array("d"), array("d")
        self.n_images = array("q")
        self.responses: list[str | None] = []
        self.unscored = self.estimated = self.without_output = 0

    def first_time(self, row: int) -> bool:
        """Whether the model has not answered this question yet; from now on it has."""
        if row >= len(self.seen):
            self.seen.extend(bytes(row + 1 - len(self.seen) + len(self.seen) // 2))
        if self.seen[row]:
            return False
        self.seen[row] = 1
        return True


class Table:
    """Questions and answers as they come in."""

    def __init__(self, options: ReadOptions) -> None:
        self.options = options
        #: (task, query) -> row, in the order in which they come.
        self.questions: dict[tuple[str, str], int] = {}
        self.models: dict[str, _Answers] = {}
        self._prompts: list[str] = []
        self._texts: list[str] = []
        self._images: list[str | bytes | None] = []
        self._proofs: list[bytes] = []
        self._first: list[str] = []

    def add(self, answer: Answer) -> None:
        """Take one answer.

        Raises:
            BenchmarkError: It is of another question than its id says, comes twice, or its score is off the scale.
        """
        row = self._row(answer)
        found = self.models.setdefault(_clean(answer.model), _Answers())
        if not found.first_time(row):
            raise BenchmarkError(
                f"{answer.at}: model {answer.model!r} answered query {answer.query!r} of {answer.task!r} twice; "
                "keep one run of each model and task."
            )
        score = np.nan if answer.score is None else answer.score / self.options.scale
        if not (np.isnan(score) or 0 <= score <= 1):
            raise BenchmarkError(
                f"{answer.at}: score {answer.score:g} is outside [0, {self.options.scale:g}]; "
                "name another score, or give --scale 100 where scores are percentages."
            )
        inputs, outputs = answer.input_tokens, answer.output_tokens
        if inputs is None:
            inputs = estimate_tokens(answer.prompt)
        if outputs is None:
            outputs = 0.0 if answer.response is None else estimate_tokens(answer.response)
        counted = answer.input_tokens is not None and answer.output_tokens is not None and not answer.estimated
        scored = not np.isnan(score)
        found.rows.append(row)
        found.scores.append(score)
        found.costs.append(np.nan if answer.cost is None else answer.cost)
        found.inputs.append(inputs)
        found.outputs.append(outputs)
        found.n_images.append(answer.n_images)
        found.responses.append(None if answer.response is None else _clean(answer.response))
        found.unscored += not scored
        found.estimated += scored and not counted
        unknown = answer.output_tokens is None and answer.response is None and answer.cost is None
        found.without_output += scored and unknown

    def benchmark(self, name: str, path: Path, format_name: str, notes: Notes) -> Benchmark:
        """Everything that was added, as a benchmark, of the pool where one is asked for.

        Raises:
            BenchmarkError: A model has no price, or the pool is not there.
        """
        members = match(self.options.pool, list(self.models), str(path)) if self.options.pool else None
        prices = self._prices(members, path, notes.prices)
        order = sorted(self.questions)
        place = np.empty(len(order), dtype=np.int64)
        place[[self.questions[key] for key in order]] = np.arange(len(order))
        rows = [self.questions[key] for key in order]
        several = len({task for task, _ in order}) > 1
        S, C, extras = self._arrays(place, prices)
        benchmark = Benchmark.build(
            name=name,
            queries=[f"{task}/{query}" if several else query for task, query in order],
            prompts=[self._prompts[row] for row in rows],
            texts=[self._texts[row] for row in rows],
            images=[self._images[row] for row in rows],
            tasks=[task for task, _ in order],
            models=[
                Model(name=model, price_in=price.input if price else None, price_out=price.output if price else None)
                for model, price in prices.items()
            ],
            S=S,
            C=C,
            embedded=self.options.embed,
            meta={"source": str(path), "format": format_name, "join": self._report(S, order, prices, notes)},
            extras=extras,
            where=str(path),
        )
        return keep_pool(benchmark, members, at_pool_prices=False) if members else benchmark

    def _row(self, answer: Answer) -> int:
        key = _clean(answer.task), _clean(answer.query)
        proof = hashlib.sha256((answer.proof or answer.prompt).encode("utf-8", "surrogatepass")).digest()
        row = self.questions.setdefault(key, len(self.questions))
        if row == len(self._proofs):
            self._prompts.append(_clean(answer.prompt))
            self._texts.append(_clean(self._embedded(answer)))
            self._images.append(answer.image)
            self._proofs.append(proof)
            self._first.append(answer.at)
        elif self._proofs[row] != proof:
            raise BenchmarkError(
                f"{answer.at}: query {answer.query!r} of {answer.task!r} is another question than in "
                f"{self._first[row]}; the runs used other data, another order or another limit: evaluate all models "
                "on the same questions."
            )
        return row

    def _embedded(self, answer: Answer) -> str:
        wanted = self.options.embed
        if wanted == "prompt":
            return answer.prompt
        if wanted not in answer.texts:
            fields = ["prompt", *list(answer.texts)[:_FIELDS_SHOWN]]
            raise BenchmarkError(f"{answer.at}: no field {wanted!r} to embed; {nearest(wanted, fields)}")
        return answer.texts[wanted]

    def _prices(self, members: Members | None, path: Path, own: Prices | None) -> dict[str, Price | None]:
        """Each model's price: the user's, else the pool's, else the log's own, else ours."""
        found: dict[str, Price | None] = {}
        unpriced = []
        for model, answers in sorted(self.models.items()):
            price = self.options.prices.find(model) if self.options.prices else None
            price = price or (members.price(model) if members else None)
            price = price or (own.find(model) if own else None) or Prices.default().find(model)
            found[model] = price
            needed = np.isnan(answers.costs) & ~np.isnan(answers.scores)
            if price is None and needed.any() and (members is None or model in members.found):
                unpriced.append(model)
        if unpriced:
            raise BenchmarkError(
                f"{path}: no price for {', '.join(unpriced)}; give a table of prices with --prices FILE (columns "
                "model, input, output in USD per 1M tokens, optionally image in USD each; 0 for models of your own)."
            )
        return found

    def _arrays(
        self, place: npt.NDArray[np.int64], prices: Mapping[str, Price | None]
    ) -> tuple[Floats, Floats, dict[str, npt.NDArray[Any]]]:
        """Scores, costs and extras, [n_queries, n_models], models in the order of `prices`."""
        shape = (len(place), len(prices))
        S, C, inputs, outputs = (np.full(shape, np.nan) for _ in range(4))
        responses = np.full(shape, None, dtype=object)
        for j, (model, price) in enumerate(prices.items()):
            found = self.models[model]
            at = place[np.array(found.rows, dtype=np.int64)]
            S[at, j], inputs[at, j], outputs[at, j] = found.scores, found.inputs, found.outputs
            given = np.array(found.costs)
            by_tokens = np.full(len(at), np.nan)
            if price is not None:
                by_tokens = (price.input * inputs[at, j] + price.output * outputs[at, j]) / 1e6
                by_tokens += price.image * np.array(found.n_images)
            C[at, j] = np.where(np.isnan(given), by_tokens, given)
            responses[at, j] = found.responses
        extras: dict[str, npt.NDArray[Any]] = {"input_tokens": inputs, "output_tokens": outputs}
        if any(response is not None for response in responses.flat):
            extras["response"] = responses
        return S, C, extras

    def _report(
        self, S: Floats, order: list[tuple[str, str]], prices: Mapping[str, Price | None], notes: Notes
    ) -> dict[str, Any]:
        """What matched and what did not, as JSON values."""
        n_answers: Counter[int] = Counter()
        for found in self.models.values():
            n_answers.update(found.rows)
        missing = [key for key in order if n_answers[self.questions[key]] < len(self.models)]
        by_model = {model: self.models[model] for model in prices}
        costs: Counter[str] = Counter()
        for found in by_model.values():
            given = ~np.isnan(np.array(found.costs)[~np.isnan(found.scores)])
            costs["log"] += int(given.sum())
            costs["prices"] += int((~given).sum())

        def told(counts: Counter[str]) -> dict[str, Any]:
            return {
                _clean(reason): {"n": n, "such_as": [_clean(example) for example in notes.examples[reason]]}
                for reason, n in counts.items()
            }

        return {
            "models": {
                model: {"answers": len(found.rows), "unscored": found.unscored, "estimated_tokens": found.estimated}
                for model, found in by_model.items()
            },
            "tasks": dict(sorted(Counter(task for task, _ in order).items())),
            "questions": len(order),
            "answered_by_all": len(order) - len(missing),
            "scored_by_all": int((~np.isnan(S)).all(axis=1).sum()),
            "not_by_all": [f"{task}/{query}" for task, query in missing[:EXAMPLES]],
            "without_output_tokens": {m: found.without_output for m, found in by_model.items() if found.without_output},
            "left_out": told(notes.counts),
            "flagged": told(notes.flags),
            "chosen": {_clean(what): _clean(value) for what, value in notes.chosen.items()},
            "facts": {_clean(what): [_clean(value) for value in values] for what, values in notes.facts.items()},
            "costs": {source: n for source, n in costs.items() if n},
            "prices": self._price_sources(notes.prices),
        }

    def _price_sources(self, own: Prices | None) -> str:
        pool = self.options.pool
        sources = [
            self.options.prices.source if self.options.prices else "",
            f"pool {pool.name}" if pool else "",
            own.source if own else "",
            Prices.default().source,
        ]
        return _clean(", else ".join(source for source in sources if source))


def _clean(text: str) -> str:
    """Text that files and databases take: lone surrogates and NUL, which they do not, become U+FFFD."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
