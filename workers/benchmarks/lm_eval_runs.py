"""Which sample files did lm-evaluation-harness write below a folder, of which model, task and time?

Two layouts: `samples_<task>_<stamp>.jsonl` beside `results_<stamp>.json` (0.4.3 and later; `.json` in the first details
of the Open LLM Leaderboard v2), and `<model_args>_<task>.jsonl` beside `results.json` (up to 0.4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import Notes
from workers.benchmarks.jsonfiles import first_characters, parse, read_object
from workers.errors import BenchmarkError

_STAMP = r"\d{4}[-_]\d\d[-_]\d\dT\d\d[-_:]\d\d[-_:]\d\d(?:\.\d+)?"
SAMPLES = re.compile(rf"samples_(?P<task>.+)_(?P<stamp>{_STAMP})\.jsonl?", re.S)
#: Keys of `--model_args` that name the model, the first that is there.
_NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")
#: Results of a whole leaderboard stay far below.
_RESULTS_BYTES = 1 << 28


@dataclass(frozen=True, kw_only=True)
class Run:
    """One sample file and what its results file says of it."""

    path: Path
    model: str
    task: str
    #: Digits of the time stamp, so that later sorts later; "" in the layout that has none.
    stamp: str
    #: Metric -> whether more is better, where the results say so.
    higher_is_better: Mapping[str, bool] = field(default_factory=dict)
    #: Filters of the task, where the results say so.
    filters: tuple[str, ...] = ()
    #: Whether the prompts hold the model's chat template.
    templated: bool = False


def find_runs(path: Path, notes: Notes) -> list[Run]:
    """The newest run of every model and task, those without a chat template first.

    Raises:
        BenchmarkError: No sample file, or a results file is at fault.
    """
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*.json*") if file.is_file())
    heads = _Heads(notes)
    runs = [run for file in files for run in _run(file, heads, notes)]
    if path.is_dir():
        runs += [run for file in files if file.name == "results.json" for run in _old_runs(file, heads)]
    if not runs:
        raise BenchmarkError(
            f"{path}: no samples_<task>_<stamp>.jsonl; run lm_eval with --log_samples --output_path, and give that "
            "folder."
        )
    newest: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=lambda run: (run.stamp, str(run.path))):
        older = newest.get((run.model, run.task))
        if older is not None:
            notes.left_out("an older run of the same model and task", str(older.path))
        newest[run.model, run.task] = run
    return sorted(newest.values(), key=lambda run: (run.templated, run.model, run.task))


def is_run(path: Path) -> bool:
    """Whether a file is named as sample files are, or a folder holds one or the layout of up to 0.4.2."""
    if path.is_file():
        return SAMPLES.fullmatch(path.name) is not None
    for number, file in enumerate(path.rglob("*.json*")):
        if SAMPLES.fullmatch(file.name):
            return True
        if file.name == "results.json" and '"results"' in first_characters(file, 1 << 16):
            return any('"doc_id"' in first_characters(other) for other in file.parent.glob("*.jsonl"))
        if number > 10_000:
            break
    return False


class _Heads:
    """What the results files say, each read once."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._read: dict[Path, dict[str, Any]] = {}

    def of(self, samples: Path, stamp: str) -> dict[str, Any]:
        """The results file with this stamp in the folder of a sample file; empty where there is none."""
        beside = samples.parent / f"results_{stamp}.json"
        others = [beside] if beside.is_file() else sorted(samples.parent.glob(f"*_{stamp}.json"))
        for path in others:
            if not SAMPLES.fullmatch(path.name):
                return self.read(path)
        return {}

    def read(self, path: Path) -> dict[str, Any]:
        if path not in self._read:
            head = read_object(path, most=_RESULTS_BYTES)
            if isinstance(version := head.get("lm_eval_version"), str):
                self._notes.fact("lm_eval version", version)
            # Hashes, templates and the environment are long and of no use here.
            wanted = ("model_name", "config", "higher_is_better", "chat_template", "results", "configs")
            self._read[path] = {key: head[key] for key in wanted if key in head}
        return self._read[path]


def _run(file: Path, heads: _Heads, notes: Notes) -> Iterator[Run]:
    match = SAMPLES.fullmatch(file.name)
    if match is None:
        return
    head = heads.of(file, match["stamp"])
    task = match["task"]
    if not head:
        notes.flag("no results file of the same time; the model is named by its folder", str(file))
    better = _mapping(_mapping(head.get("higher_is_better")).get(task))
    yield Run(
        path=file,
        model=_model(head, file, notes),
        task=task,
        stamp=re.sub(r"\D", "", match["stamp"]),
        higher_is_better={metric: flag for metric, flag in better.items() if isinstance(flag, bool)},
        filters=_filters(head, task),
        templated=bool(head.get("chat_template")),
    )


def _old_runs(results: Path, heads: _Heads) -> Iterator[Run]:
    """Files of up to 0.4.2: `/` and `=` of the model arguments became `__`."""
    head = heads.read(results)
    arguments = _mapping(head.get("config")).get("model_args")
    if not isinstance(arguments, str):
        return
    prefix = re.sub("/|=", "__", arguments)
    tasks = dict.fromkeys([*_mapping(head.get("configs")), *_mapping(head.get("results"))])
    for file in sorted(results.parent.glob("*.jsonl")):
        task = file.stem.removeprefix(f"{prefix}_")
        if task != file.stem and task in tasks:
            model = _named(arguments) or _of_folder(file)
            yield Run(path=file, model=model, task=task, stamp="", filters=_filters(head, task))


def _filters(head: Mapping[str, Any], task: str) -> tuple[str, ...]:
    """Of the keys `<metric>,<filter>` of a task's results."""
    keys = _mapping(_mapping(head.get("results")).get(task))
    return tuple(dict.fromkeys(name for key in keys for _, comma, name in [key.rpartition(",")] if comma))


def _model(head: Mapping[str, Any], file: Path, notes: Notes) -> str:
    arguments = _mapping(head.get("config")).get("model_args")
    named = _named(arguments)
    model = head.get("model_name")
    if isinstance(model, str) and model:
        if arguments is not None and named is None:
            notes.flag("lm_eval made up the model's name, as its model_args name none", f"{model} ({file})")
        return model
    return named or _of_folder(file)


def _named(arguments: Any) -> str | None:
    """The model that `--model_args` name, as text or as a mapping."""
    if isinstance(arguments, str):
        text = arguments.strip()
        if text.startswith("{"):
            arguments = parse(text, "model_args")
        else:
            pairs = [part.partition("=") for part in text.split(",")]
            arguments = {key.strip(): value.strip() for key, equals, value in pairs if equals}
    found = _mapping(arguments)
    return next((str(found[name]) for name in _NAMES if found.get(name)), None)


def _of_folder(file: Path) -> str:
    return file.absolute().parent.name.removesuffix("-details").replace("__", "/", 1)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
