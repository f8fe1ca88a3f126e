"""What do the fields of one Inspect sample mean: its question and pictures, its score, its tokens and cost?"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workers.errors import BenchmarkError

_ATTACHMENT = "attachment://"
#: Inspect's grades and words for them.
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


@dataclass(frozen=True, kw_only=True)
class Question:
    """The input of a sample, as the data set has it."""

    text: str
    #: sha256 of roles, texts and pictures: equal for the same question.
    digest: str
    #: Encoded bytes of the pictures that are in the log.
    images: tuple[bytes, ...]
    n_images: int
    #: Kinds of content that are neither text nor picture.
    others: tuple[str, ...]


def question(sample: Mapping[str, Any], at: str) -> Question:
    """Read a sample's input, attachments resolved.

    Raises:
        BenchmarkError: The input is neither text nor messages.
    """
    given = sample["input"]
    messages = [{"role": "user", "content": given}] if isinstance(given, str) else given
    attachments = _mapping(sample.get("attachments"))
    texts: list[str] = []
    images: list[bytes] = []
    others: dict[str, None] = {}
    digest = hashlib.sha256()
    n_images = 0
    for message in messages if isinstance(messages, list) else [None]:
        content = _mapping(message).get("content")
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        if not isinstance(parts, list):
            raise BenchmarkError(f"{at}: its input is neither text nor a list of messages.")
        digest.update(f"\0{_mapping(message).get('role')}\0".encode("utf-8", "surrogatepass"))
        for part in map(_mapping, parts):
            kind, value = part.get("type"), _resolved(part.get(str(part.get("type"))), attachments)
            if kind == "text" and isinstance(value, str):
                texts.append(value)
                digest.update(value.encode("utf-8", "surrogatepass") + b"\0")
            elif kind == "image":
                n_images += 1
                image = _picture(value)
                images += [image] if image else []
                digest.update(image or b"?")
            else:
                others.setdefault(str(kind))
    return Question(
        text="\n\n".join(texts),
        digest=digest.hexdigest(),
        images=tuple(images),
        n_images=n_images,
        others=tuple(others),
    )


def fields(sample: Mapping[str, Any], text: str) -> dict[str, str]:
    """Texts that encoders may see besides the prompt: `question` with its choices, and metadata that are text."""
    choices = sample.get("choices")
    options = choices[:26] if isinstance(choices, list) else []
    lettered = [f"{chr(65 + i)}) {choice}" for i, choice in enumerate(options)]
    metadata = _mapping(sample.get("metadata"))
    own = {f"metadata.{key}": value for key, value in metadata.items() if isinstance(value, str)}
    return {"question": "\n".join([text, *lettered]), **own}


def response(sample: Mapping[str, Any]) -> str | None:
    """The text that the model answered last; None where it answered nothing."""
    output = _mapping(sample.get("output"))
    completion = _resolved(output.get("completion"), _mapping(sample.get("attachments")))
    if isinstance(completion, str) and completion:
        return completion
    choices = output.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    content = _mapping(_mapping(first).get("message")).get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in map(_mapping, content) if part.get("type") == "text")
    return content if isinstance(content, str) and content else None


def score(sample: Mapping[str, Any], wanted: str, at: str) -> tuple[float | None, str]:
    """A sample's score, and why there is none.

    Args:
        sample: The sample.
        wanted: Name of a scorer, or `<scorer>.<key>` where its values have several.
        at: Place of the sample, for messages.

    Raises:
        BenchmarkError: The scorer is not there although others are, or its value has several keys.
    """
    if sample.get("error"):
        return None, "not scored: the sample ended in an error"
    scores = _mapping(sample.get("scores"))
    if not scores:
        return None, "not scored"
    name, key = (wanted, None) if wanted in scores else _split(wanted, scores)
    if name not in scores:
        raise BenchmarkError(f"{at}: no scorer {wanted!r}; give one of {', '.join(scores)} with --score.")
    found = _mapping(scores[name])
    value = found.get("value")
    if isinstance(value, dict):
        keys = ", ".join(f"{name}.{key}" for key in value)
        if key is None or key not in value:
            raise BenchmarkError(f"{at}: scorer {name!r} gives several values; choose one of {keys} with --score.")
        value = value[key]
    elif isinstance(value, list) or key is not None:
        raise BenchmarkError(f"{at}: {wanted!r} is no single value of scorer {name!r}; give another with --score.")
    number = _number(value)
    if number is None or number != number:
        reason = found.get("reason") or _mapping(found.get("metadata")).get("reason")
        return None, f"not scored: {reason}" if isinstance(reason, str) else f"not scored: the value is {value!r}"[:80]
    return number, ""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens and USD of one sample; None where the log does not say."""

    input_tokens: float | None = None
    output_tokens: float | None = None
    cost: float | None = None


def usage(sample: Mapping[str, Any], model: str, *, last_generation: bool) -> Usage:
    """What the evaluated model used, graders left out.

    Args:
        sample: The sample.
        model: The evaluated model.
        last_generation: Take the usage of the last output alone, as a grader's is summed under the same model.
    """
    by_model = _mapping(sample.get("model_usage"))
    found = _mapping(_mapping(sample.get("output")).get("usage") if last_generation else by_model.get(model))
    given = [_count(found.get(key)) for key in ("input_tokens", "input_tokens_cache_read", "input_tokens_cache_write")]
    return Usage(
        input_tokens=None if given[0] is None else sum(number or 0.0 for number in given),
        output_tokens=_count(found.get("output_tokens")),
        cost=_count(found.get("total_cost")),
    )


def graded_by_itself(facts: Mapping[str, Any]) -> bool:
    """Whether a log's model grades its own answers, so that both usages are one sum."""
    model = facts.get("model")
    grader = _mapping(_mapping(facts.get("model_roles")).get("grader")).get("model")
    for scorer in facts.get("scorers") or ():
        options = _mapping(_mapping(scorer).get("options"))
        given = options.get("model") or grader
        name = str(_mapping(scorer).get("name"))
        if given == model or (given is None and "model_graded" in name):
            return True
    return False


def scorers(head: Mapping[str, Any]) -> list[str]:
    """Names of a log's scorers, the headline one first."""
    results = _mapping(head.get("results"))
    names = [_mapping(results.get("headline")).get("scorer")]
    names += [_mapping(found).get("scorer") for found in results.get("scores") or ()]
    names += [_mapping(found).get("name") for found in _mapping(head.get("eval")).get("scorers") or ()]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def canonical(value: Any) -> str:
    """JSON with sorted keys, for comparing."""
    return json.dumps(value, sort_keys=True)


def _split(wanted: str, scores: Mapping[str, Any]) -> tuple[str, str | None]:
    name = max((name for name in scores if wanted.startswith(f"{name}.")), key=len, default=wanted)
    return name, wanted.removeprefix(f"{name}.") if name != wanted else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):
        if value in _GRADES:
            return _GRADES[value]
        if value.lower() in _WORDS:
            return _WORDS[value.lower()]
        try:
            return float(value)
        except ValueError:
            return None
    return None


def _count(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 else None


def _resolved(value: Any, attachments: Mapping[str, Any]) -> Any:
    if isinstance(value, str) and value.startswith(_ATTACHMENT):
        return attachments.get(value.removeprefix(_ATTACHMENT), value)
    return value


def _picture(value: Any) -> bytes | None:
    """Bytes of a data URI; None for a path, an address or removed data: nothing outside the log is read."""
    if not isinstance(value, str) or not value.startswith("data:"):
        return None
    kind, comma, data = value.partition(",")
    if not comma or not kind.endswith(";base64"):
        return None
    try:
        return base64.b64decode(data, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
