"""How are logs of Inspect (inspect_ai) read? One log is one task by one model; a question may have several epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.inspect_archive import Log, is_log, read_head, read_samples
from workers.benchmarks.inspect_samples import (
    Question,
    canonical,
    fields,
    graded_by_itself,
    question,
    response,
    score,
    scorers,
    usage,
)
from workers.benchmarks.logs import LogFormat, options_are_known
from workers.errors import BenchmarkError

#: Files that recognising a folder looks at.
_LOOKED_AT = 200


class InspectLog(LogFormat):
    """Logs of Inspect, `.eval` (zstd or deflate) and `.json`."""

    name = "inspect"
    summary = "Inspect logs, .eval (zstd or deflate) and .json"
    verified: ClassVar[str] = (
        "logs of inspect_ai 0.3.285: 2 models, 2 tasks (one with pictures, one with 2 epochs and errors), .eval with "
        "zstd and .json, mean scores equal to the logs' own results; deflate on archives packed anew"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the first bytes of a file; a folder by one of its files."""
        if path.is_file():
            return is_log(path)
        for number, file in enumerate(_files(path)):
            if is_log(file):
                return True
            if number > _LOOKED_AT:
                break
        return False

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the best log of every model and task, epochs averaged."""
        for option in options_are_known(options, "score"):
            raise BenchmarkError(f"{path}: Inspect logs have no {option}; leave it out.")
        files = [path] if path.is_file() else [file for file in _files(path) if is_log(file)]
        if not files:
            raise BenchmarkError(f"{path}: no Inspect log (.eval or .json) here.")
        logs = _best([read_head(file) for file in files], notes)
        names = _task_names(logs)
        shuffled = {names[log.path] for log in logs if _facts(log).get("dataset", {}).get("shuffled")}
        scored_by: dict[str, str] = {}
        for log in logs:
            task = names[log.path]
            yield from _Reader(log, task, task in shuffled, options, notes, scored_by).answers()


@dataclass(kw_only=True)
class _Epochs:
    """What the epochs of one question say."""

    question: Question
    texts: dict[str, str]
    at: str
    response: str | None = None
    scores: list[float] = field(default_factory=list)
    inputs: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    costs: list[float] = field(default_factory=list)
    n: int = 0


class _Reader:
    """One log."""

    def __init__(
        self, log: Log, task: str, shuffled: bool, options: ReadOptions, notes: Notes, scored_by: dict[str, str]
    ) -> None:
        self._log = log
        self._task = task
        self._shuffled = shuffled
        self._options = options
        self._notes = notes
        #: Task -> scorer, for all models alike.
        self._scored_by = scored_by
        self._model = str(_facts(log)["model"])
        self._last_generation = graded_by_itself(_facts(log))

    def answers(self) -> Iterator[Answer]:
        """One answer for each question."""
        packages = _facts(self._log).get("packages")
        if isinstance(packages, dict) and isinstance(version := packages.get("inspect_ai"), str):
            self._notes.fact("inspect_ai version", version)
        if self._log.head["status"] != "success":
            self._notes.flag(f"the log's status is {self._log.head['status']}", str(self._log.path))
        if self._last_generation:
            self._notes.flag("tokens are the last generation's, as the model grades itself", str(self._log.path))
        found: dict[str, _Epochs] = {}
        repeated: Counter[tuple[str, int]] = Counter()
        for at, sample in read_samples(self._log):
            self._add(found, repeated, sample, at)
        epochs = max((each.n for each in found.values()), default=1)
        if epochs > 1:
            self._notes.choose(f"epochs of {self._task}", f"mean of {epochs}{self._reducer()}")
        if not found:
            self._notes.left_out("a log without samples", str(self._log.path))
        for query, each in found.items():
            yield Answer(
                query=query,
                task=self._task,
                model=self._model,
                prompt=each.question.text,
                score=_mean(each.scores),
                proof=each.question.digest,
                texts=each.texts,
                cost=_mean(each.costs) if len(each.costs) >= len(each.inputs) else None,
                input_tokens=_mean(each.inputs),
                output_tokens=_mean(each.outputs),
                estimated=self._last_generation,
                image=each.question.images[0] if each.question.images else None,
                n_images=each.question.n_images,
                response=each.response,
                at=each.at,
            )

    def _add(
        self, found: dict[str, _Epochs], repeated: Counter[tuple[str, int]], sample: dict[str, Any], at: str
    ) -> None:
        asked = question(sample, at)
        epoch = sample.get("epoch", 1)
        query = str(sample["id"])
        if self._shuffled and isinstance(sample["id"], int):
            # Numbers that Inspect gave a shuffled data set are places in it.
            query = asked.digest[:16]
            repeated[query, epoch] += 1
            query = query if repeated[query, epoch] == 1 else f"{query}-{repeated[query, epoch]}"
        texts = fields(sample, asked.text) if self._options.embed != "prompt" else {}
        each = found.setdefault(query, _Epochs(question=asked, texts=texts, at=at))
        if each.question.digest != asked.digest:
            raise BenchmarkError(f"{at}: sample {query!r} is another question than in {each.at}.")
        self._remark(asked, sample, at)
        each.n += 1
        each.response = each.response or response(sample)
        value, reason = score(sample, self._scorer(sample), at)
        if value is None:
            self._notes.flag(reason, at)
            return
        each.scores.append(value)
        used = usage(sample, self._model, last_generation=self._last_generation)
        numbers_of = (each.inputs, used.input_tokens), (each.outputs, used.output_tokens), (each.costs, used.cost)
        for numbers, number in numbers_of:
            if number is not None:
                numbers.append(number)

    def _remark(self, asked: Question, sample: dict[str, Any], at: str) -> None:
        if asked.n_images > len(asked.images):
            self._notes.flag("a picture is not in the log", at)
        if len(asked.images) > 1:
            self._notes.flag("several pictures, of which encoders see the first", at)
        for kind in asked.others:
            self._notes.flag(f"input of type {kind} is not read", at)
        limit = sample.get("limit")
        if isinstance(limit, dict):
            self._notes.flag(f"ended by a limit ({limit.get('type')})", at)

    def _scorer(self, sample: dict[str, Any]) -> str:
        """The scorer that the user names, else the headline one of the first log of this task."""
        if self._options.score is not None:
            wanted = [name.strip() for name in self._options.score.split(",")]
            there = [name for name in sample.get("scores") or () if isinstance(name, str)]
            fitting = (name for name in wanted if any(name == n or name.startswith(f"{n}.") for n in there))
            return next(fitting, wanted[0])
        if self._task not in self._scored_by:
            names = scorers(self._log.head) or list(sample.get("scores") or ())
            if not names:
                return ""
            self._scored_by[self._task] = names[0]
            others = f" (also there: {', '.join(names[1:])})" if names[1:] else ""
            self._notes.choose(f"score of {self._task}", f"{names[0]}{others}")
        return self._scored_by[self._task]

    def _reducer(self) -> str:
        given = _facts(self._log).get("config", {}).get("epochs_reducer")
        other = isinstance(given, list) and given and given != ["mean"]
        return f" (the log's own reducer: {', '.join(map(str, given))})" if other else ""


def _files(path: Path) -> Iterator[Path]:
    """Files that may be logs, sorted within each kind."""
    for suffix in ("eval", "json"):
        yield from (file for file in sorted(path.rglob(f"*.{suffix}")) if file.is_file())


def _facts(log: Log) -> dict[str, Any]:
    facts = log.head["eval"]
    assert isinstance(facts, dict)
    clean = {key: value for key, value in facts.items() if key not in ("dataset", "config") or isinstance(value, dict)}
    return clean


def _identity(log: Log) -> tuple[str, str, str]:
    facts = _facts(log)
    return str(facts["task"]), str(facts.get("dataset", {}).get("name")), canonical(facts.get("task_args") or {})


def _best(logs: Sequence[Log], notes: Notes) -> list[Log]:
    """Of several logs of one task by one model the successful ones first, of these the newest."""
    best: dict[tuple[Any, ...], Log] = {}

    def worth(log: Log) -> tuple[bool, str, Path]:
        return log.head["status"] == "success", str(_facts(log).get("created")), log.path

    for log in sorted(logs, key=worth):
        key = (*_identity(log), _facts(log)["model"])
        if key in best:
            notes.left_out("an older or unfinished log of the same task and model", str(best[key].path))
        best[key] = log
    return sorted(best.values(), key=lambda log: (_identity(log), str(_facts(log)["model"])))


def _task_names(logs: Sequence[Log]) -> dict[Path, str]:
    """A task's name, with data set and arguments where logs of one name differ in them."""
    variants: dict[str, set[tuple[str, str]]] = {}
    for log in logs:
        task, *rest = _identity(log)
        variants.setdefault(task, set()).add((rest[0], rest[1]))
    names = {}
    for log in logs:
        task, data, arguments = _identity(log)
        several = variants[task]
        parts = [data] if len({data for data, _ in several}) > 1 else []
        parts += [arguments] if len({arguments for _, arguments in several}) > 1 else []
        names[log.path] = f"{task} ({', '.join(parts)})" if parts else task
    return names


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None
