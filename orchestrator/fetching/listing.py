"""Which files of a listing are a suite's? Those that `take` names, of the models asked for; nothing is trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from orchestrator.fetching.downloading import Checksum, RemoteFile
from orchestrator.fetching.suites import Suite, SuiteError, as_regex
from orchestrator.fetching.web import FetchError
from workers.plugins import nearest


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What upstream has of a suite."""

    #: Commit, release or suite, by repository.
    revisions: Mapping[str, str]
    files: Sequence[RemoteFile]
    #: Patterns of `take` that match nothing.
    missing: Sequence[str] = ()


def take(
    suite: Suite, files: Sequence[RemoteFile], models: Sequence[str], revision: str
) -> tuple[list[RemoteFile], list[str]]:
    """The files that `take` names, per model only of models that have each; and the patterns that match nothing."""
    taken: dict[str, RemoteFile] = {}
    missing: list[str] = []
    per_model: list[dict[str, RemoteFile]] = []
    for pattern in suite.take:
        regex = as_regex(pattern)
        matched = [(found, file) for file in files if (found := regex.fullmatch(file.path))]
        if not matched:
            missing.append(pattern)
        elif "model" in regex.groupindex:
            per_model.append({found["model"]: file for found, file in matched})
        else:
            taken |= {file.path: file for _, file in matched}
    if per_model:
        whole = sorted(set.intersection(*(set(one) for one in per_model)))
        for model in chosen(suite, whole, models):
            taken |= {one[model].path: one[model] for one in per_model}
    pinned = [_pinned(suite, file, revision) for file in taken.values()]
    return _newest(pinned) if suite.newest else pinned, missing


def chosen(suite: Suite, there: Sequence[str], models: Sequence[str]) -> list[str]:
    """Those of the models that are there: as they are written, or with `_` for `/`; without models, all.

    Raises:
        SuiteError: One is not there.
    """
    found: list[str] = []
    for model in models:
        spellings = (model, model.replace("/", "_"), model.replace("/", "__"))
        same = [name for name in there if name in spellings]
        if not same:
            raise SuiteError(f"--model {model!r}: suite {suite.name!r} does not have it; {nearest(model, list(there))}")
        found += same
    return list(dict.fromkeys(found)) if models else list(there)


def _pinned(suite: Suite, file: RemoteFile, revision: str) -> RemoteFile:
    """With the checksum that `suites.yaml` has for its own revision."""
    known, source = suite.sha256.get(file.path), suite.hub or suite.github
    if known is None or source is None or source.revision != revision:
        return file
    return replace(file, checksum=Checksum(kind="sha256", value=known))


def _newest(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Of `samples_<task>_<stamp>` the newest of each task and folder, and the results of the runs that stay."""
    newest: dict[tuple[str, str], tuple[str, RemoteFile]] = {}
    others: list[tuple[tuple[str, str], RemoteFile]] = []
    for file in files:
        path = PurePosixPath(file.path)
        kind, _, rest = path.stem.partition("_")
        task, _, stamp = rest.rpartition("_")
        if kind != "samples":
            others.append(((str(path.parent), stamp), file))
        elif (key := (str(path.parent), task)) not in newest or newest[key][0] < stamp:
            newest[key] = (stamp, file)
    kept = {(folder, stamp) for (folder, _), (stamp, _) in newest.items()}
    return [file for _, file in newest.values()] + [file for run, file in others if run in kept]


def unique(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """Each path once."""
    return list({file.path: file for file in files}.values())


def text(entry: Any, key: str, where: str) -> str:
    """A string of a listing's entry."""
    found = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(found, str):
        raise odd(where)
    return found


def number(entry: Any, key: str, where: str) -> int:
    """A count of bytes of a listing's entry."""
    found = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(found, int | str) or not re.fullmatch(r"[0-9]{1,18}", str(found)):
        raise odd(where)
    return int(found)


def odd(where: str) -> FetchError:
    """The error of a listing that is none."""
    return FetchError(f"{where}: the listing is too long, or not as this version of roadtest knows it.")
