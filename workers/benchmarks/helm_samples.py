"""What do HELM's files say of each question of a run: its text and pictures, its metrics, its request and response?

Everything is read item by item, and of each item what a benchmark needs is kept. Where `helm-summarize` has run, its
small files are read, else the states of all requests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import Notes
from workers.benchmarks.helm_media import mapping, media, picture_name, sequence
from workers.benchmarks.helm_runs import INSTANCES, PREDICTIONS, REQUESTS, STATE, STATS, Run
from workers.benchmarks.jsonfiles import read_items, read_members
from workers.benchmarks.prices import estimate_tokens
from workers.errors import BenchmarkError

#: Metrics that are read of every run besides its scores.
COUNTS = ("num_prompt_tokens", "num_output_tokens", "num_completion_tokens", "predicted_index")
#: (instance, trial)
Key = tuple[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """An instance, as its scenario has it."""

    split: str
    text: str
    #: The text with its lettered options, where there are options.
    with_options: str
    #: Text, names of pictures and references.
    proof: str
    #: Locations of the pictures as the run names them.
    pictures: tuple[str, ...]
    #: Kinds of media that are neither text nor picture.
    others: tuple[str, ...]
    at: str


@dataclass(kw_only=True, slots=True)
class Call:
    """The request for an instance in one trial, and what came back; for options asked apart, the one chosen."""

    #: Estimate by the text as sent; None where the request is not here.
    sent_tokens: int | None = None
    #: The text as sent, where it is asked for.
    sent: str | None = None
    n_pictures: int | None = None
    #: Whether a text is generated, rather than likelihoods asked for.
    generates: bool = True
    #: None: nothing is generated, or the response is not here.
    response: str | None = None
    #: Text that the model thought before it answered.
    thinking: str = ""


@dataclass(kw_only=True, slots=True)
class Metrics:
    """Means by (instance, trial) and metric, and the names of all metrics that have a mean."""

    values: dict[Key, dict[str, float]] = field(default_factory=dict)
    names: dict[str, None] = field(default_factory=dict)


def read_metrics(run: Run, wanted: Collection[str], notes: Notes) -> Metrics:
    """The means of some metrics, of questions as they are; several entries of one question become one.

    Raises:
        BenchmarkError: With the line at fault.
    """
    found = Metrics()
    perturbed: set[tuple[str, int, str]] = set()
    for at, entry in _objects(run.folder / STATS):
        key = _key(entry, at)
        if entry.get("perturbation") is not None:
            kind = json.dumps(entry["perturbation"], sort_keys=True)
            if (*key, kind) not in perturbed:
                perturbed.add((*key, kind))
                notes.left_out("a perturbed question", at)
            continue
        values = found.values.setdefault(key, {})
        for stat in map(mapping, sequence(entry.get("stats"))):
            name, mean = mapping(stat.get("name")), _number(stat.get("mean"))
            if mean is None or name.get("perturbation") is not None or not isinstance(name.get("name"), str):
                continue
            found.names.setdefault(name["name"])
            if name["name"] in wanted:
                values[name["name"]] = mean
    return found


def read_questions(
    run: Run, metrics: Metrics, notes: Notes, *, keep_sent: bool
) -> tuple[dict[str, Question], dict[Key, Call]]:
    """Questions by id, and calls.

    Args:
        run: The run.
        metrics: Its metrics; of options that are asked apart they tell the chosen one.
        notes: Takes what was left out.
        keep_sent: Whether to keep the texts as sent.

    Raises:
        BenchmarkError: With the line at fault.
    """
    questions: dict[str, Question] = {}
    calls: dict[Key, Call] = {}
    told: set[Key] = set()
    folder = run.folder
    there = [(folder / name).is_file() for name in (INSTANCES, REQUESTS, PREDICTIONS)]
    if (folder / STATE).is_file() and not all(there):
        for at, state in _states(folder / STATE):
            instance = mapping(state.get("instance"))
            if instance.get("perturbation") is not None:
                continue
            if state.get("request_mode") == "calibration":
                notes.left_out("a request that calibrates", at)
                continue
            _add_question(questions, instance, run, at)
            key = _key({**state, "instance_id": instance.get("id")}, at)
            if key in calls or not _chosen(state, metrics.values.get(key, {})):
                continue
            calls[key] = _call(mapping(state.get("request")), run, keep_sent=keep_sent)
            completions = sequence(mapping(state.get("result")).get("completions"))
            completion = mapping(completions[0]) if completions else {}
            thinking = mapping(completion.get("thinking")).get("text")
            _answered(calls[key], completion.get("text"), thinking, mapping(state.get("request")))
        return questions, calls
    for at, instance in _objects(folder / INSTANCES):
        if instance.get("perturbation") is None:
            _add_question(questions, instance, run, at)
    for at, item in _unperturbed(folder / REQUESTS, there[1], run, notes):
        calls.setdefault(_key(item, at), _call(mapping(item.get("request")), run, keep_sent=keep_sent))
    for at, item in _unperturbed(folder / PREDICTIONS, there[2], run, notes):
        key = _key(item, at)
        if key not in told and _chosen(item, metrics.values.get(key, {})):
            told.add(key)
            text = item.get("truncated_predicted_text", item.get("predicted_text"))
            call = calls.setdefault(key, Call(generates=_generates(run.max_tokens)))
            _answered(call, text, item.get("thinking_text"), {})
    return questions, calls


def _objects(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, item in read_items(path):
        at = f"{path}, line {number}"
        if not isinstance(item, dict):
            raise BenchmarkError(f"{at}: not an object, as every entry of this file is.")
        yield at, item


def _states(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, number, item in read_members(path, "request_states"):
        if key == "request_states":
            at = f"{path}, line {number}"
            if not isinstance(item, dict):
                raise BenchmarkError(f"{at}: not an object, as every request state is.")
            yield at, item


def _unperturbed(path: Path, there: bool, run: Run, notes: Notes) -> Iterator[tuple[str, dict[str, Any]]]:
    if not there:
        notes.flag(f"a run without {path.name} and {STATE}; run helm-summarize where it was made", str(run.folder))
        return
    yield from ((at, item) for at, item in _objects(path) if item.get("perturbation") is None)


def _key(entry: Mapping[str, Any], at: str) -> Key:
    given, trial = entry.get("instance_id"), entry.get("train_trial_index", 0)
    if not isinstance(given, str | int) or not isinstance(trial, int):
        raise BenchmarkError(f"{at}: names no instance or no trial; no entry of HELM's.")
    return str(given), trial


def _chosen(entry: Mapping[str, Any], values: Mapping[str, float]) -> bool:
    """Whether an entry is of the option that the model chose, where each option was asked apart."""
    index, chosen = entry.get("reference_index"), values.get("predicted_index")
    return index is None or chosen is None or index == chosen


def _add_question(questions: dict[str, Question], instance: Mapping[str, Any], run: Run, at: str) -> None:
    key, _ = _key({"instance_id": instance.get("id")}, at)
    asked = _question(instance, run, at)
    first = questions.setdefault(key, asked)
    if (first.proof, first.split) != (asked.proof, asked.split):
        raise BenchmarkError(f"{at}: instance {key!r} is another question than in {first.at}.")


def _question(instance: Mapping[str, Any], run: Run, at: str) -> Question:
    given = mapping(instance.get("input"))
    texts, pictures, others = media(given.get("multimedia_content"))
    parts = [given["text"]] if isinstance(given.get("text"), str) else []
    parts += texts
    contents = (mapping(message).get("content") for message in sequence(given.get("messages")))
    if not any(parts):
        parts += [content for content in contents if isinstance(content, str)]
    text = "\n".join(part for part in parts if part)
    references = []
    for reference in map(mapping, sequence(instance.get("references"))):
        output = mapping(reference.get("output"))
        words, shown, _ = media(output.get("multimedia_content"))
        names = [picture_name(location) for location in shown]
        references.append([str(output.get("text", "")), words, names, sequence(reference.get("tags"))])
    options = references[:26] if run.method.startswith("multiple_choice") else []
    lettered = [f"{chr(65 + i)}. {option[0] or ' '.join(map(str, option[1]))}" for i, option in enumerate(options)]
    return Question(
        split=str(instance.get("split", "")),
        text=text,
        with_options="\n".join([text, *lettered]),
        proof=json.dumps([text, [picture_name(location) for location in pictures], references]),
        pictures=tuple(pictures),
        others=tuple(others),
        at=at,
    )


def _call(request: Mapping[str, Any], run: Run, *, keep_sent: bool) -> Call:
    texts, pictures, _ = media(request.get("multimodal_prompt"))
    contents = (mapping(message).get("content") for message in sequence(request.get("messages")))
    prompt = request.get("prompt")
    sent = (prompt if isinstance(prompt, str) else "") or "".join(texts)
    sent = sent or "\n\n".join(content for content in contents if isinstance(content, str))
    return Call(
        sent_tokens=estimate_tokens(sent) if sent else None,
        sent=sent if keep_sent else None,
        n_pictures=len(pictures),
        generates=_generates(request.get("max_tokens", run.max_tokens)),
    )


def _answered(call: Call, text: Any, thinking: Any, request: Mapping[str, Any]) -> None:
    """Put the response into a call; without the prompt where the request had it repeated."""
    if not call.generates or not isinstance(text, str):
        return
    prompt = request.get("prompt")
    echoed = request.get("echo_prompt") is True and isinstance(prompt, str)
    call.response = text.removeprefix(str(prompt)) if echoed else text
    call.thinking = thinking if isinstance(thinking, str) else ""


def _generates(max_tokens: Any) -> bool:
    return not (isinstance(max_tokens, int) and max_tokens == 0)


def _number(value: Any) -> float | None:
    if not isinstance(value, bool | int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return math.inf
    return None if math.isnan(number) else number
