"""Which runs did HELM leave below a folder, of which model and scenario, and where are their schema and pictures?

`<output>/runs/<suite>/<run>/` holds a run, `<output>/scenarios/<scenario>/` its pictures, and `<output>` is mostly
called `benchmark_output`. Names of folders say nothing here: a run is what its `run_spec.json` says.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import Notes
from workers.benchmarks.helm_media import mapping, sequence, writable
from workers.benchmarks.jsonfiles import first_characters, read_members, read_object
from workers.errors import BenchmarkError

SPEC, STATS, STATE = "run_spec.json", "per_instance_stats.json", "scenario_state.json"
INSTANCES, REQUESTS, PREDICTIONS = "instances.json", "display_requests.json", "display_predictions.json"
#: Specifications that recognising a folder looks at, and requests that tell a run's time.
_LOOKED_AT = 20
_LONGEST_NAME = 120


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run folder and what its specification says."""

    folder: Path
    model: str
    #: The scenario's class and arguments, and what else sets it apart from others where a model has several.
    task: str
    #: Of the adapter, such as `generation` or `multiple_choice_joint`.
    method: str
    groups: tuple[str, ...]
    #: 0: nothing is generated, the model is asked for likelihoods.
    max_tokens: Any
    #: Groups, method, shots and perturbation: in what runs of one scenario may differ.
    variant: tuple[str, ...]

    @property
    def suite(self) -> str:
        """Name of the folder that holds the run."""
        return self.folder.absolute().parent.name


def is_output(path: Path) -> bool:
    """Whether a folder holds a run, however deep."""
    if not path.is_dir():
        return False
    specs = [path / SPEC] if (path / SPEC).is_file() else itertools.islice(path.rglob(SPEC), _LOOKED_AT)
    return any('"scenario_spec"' in first_characters(spec, 1 << 16) for spec in specs)


def find_runs(path: Path, notes: Notes) -> list[Run]:
    """The newest complete run of every model and task, by task and model.

    Raises:
        BenchmarkError: No run, or a specification is at fault.
    """
    specs = [path / SPEC] if (path / SPEC).is_file() else sorted(path.rglob(SPEC))
    if not specs:
        raise BenchmarkError(f"{path}: no {SPEC} here; give HELM's benchmark_output, or a suite's folder in its runs.")
    runs = []
    for spec in specs:
        missing = _missing(spec.parent)
        if missing:
            notes.left_out(f"an incomplete run (no {missing})", str(spec.parent))
        else:
            runs.append(_run(spec))
    newest: dict[tuple[str, str], Run] = {}
    for key, same in _by_identity(_named(runs, notes)).items():
        *older, last = sorted(same, key=_age) if len(same) > 1 else same
        for run in older:
            notes.left_out("an older run of the same model and task", str(run.folder))
        newest[key] = last
    return [newest[key] for key in sorted(newest)]


def _missing(folder: Path) -> str:
    """What a run lacks to be read; "" where it is complete."""
    if not (folder / STATS).is_file():
        return STATS
    return "" if any((folder / name).is_file() for name in (INSTANCES, STATE)) else f"{STATE} or {INSTANCES}"


def _run(spec: Path) -> Run:
    head = read_object(spec)
    adapter, scenario = mapping(head.get("adapter_spec")), mapping(head.get("scenario_spec"))
    model, class_name = adapter.get("model"), scenario.get("class_name")
    if not (isinstance(model, str) and model and isinstance(class_name, str) and class_name):
        raise BenchmarkError(f"{spec}: names no adapter_spec.model or no scenario_spec.class_name; no run of HELM's.")
    groups = tuple(writable(str(group)) for group in sequence(head.get("groups")))
    method = writable(str(adapter.get("method", "generation")))
    perturbed = mapping(head.get("data_augmenter_spec")).get("perturbation_specs")
    shots = writable(f"{adapter.get('max_train_instances', '?')}-shot")
    return Run(
        folder=spec.parent,
        model=model,
        task=writable(_scenario(class_name, mapping(scenario.get("args")), model)),
        method=method,
        groups=groups,
        max_tokens=adapter.get("max_tokens"),
        variant=("+".join(groups), method, shots, "perturbed" if perturbed else "not perturbed"),
    )


def _scenario(class_name: str, arguments: Mapping[str, Any], model: str) -> str:
    """`MMLU:subject=anatomy` of `helm.….MMLUScenario` and its arguments."""
    last = class_name.rpartition(".")[2]
    told = {key: value for key, value in arguments.items() if value != model}
    parts = [
        f"{key}={value if isinstance(value, str) else json.dumps(value, sort_keys=True)}"
        for key, value in sorted(told.items())
    ]
    name = (last.removesuffix("Scenario") or last) + (f":{','.join(parts)}" if parts else "")
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}… {hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _named(runs: Sequence[Run], notes: Notes) -> Iterator[Run]:
    """Runs with what sets them apart in the task's name, where one model ran a scenario in several ways."""
    by_task: dict[str, list[Run]] = {}
    for run in runs:
        by_task.setdefault(run.task, []).append(run)
    for task, same in by_task.items():
        variants = {run.variant for run in same}
        if len(variants) == 1:
            yield from same
        elif len({(run.model, run.variant) for run in same}) == len({run.model for run in same}):
            ways = sorted({", ".join(_differing(run.variant, variants)) for run in same})
            notes.flag("models of one task were run in different ways", f"{task}: {' / '.join(ways)}")
            yield from same
        else:
            for run in same:
                yield replace(run, task=f"{task} ({', '.join(_differing(run.variant, variants))})")


def _differing(variant: tuple[str, ...], variants: set[tuple[str, ...]]) -> list[str]:
    return [part for i, part in enumerate(variant) if len({other[i] for other in variants}) > 1]


def _by_identity(runs: Iterator[Run]) -> dict[tuple[str, str], list[Run]]:
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.task, run.model), []).append(run)
    return found


def _age(run: Run) -> tuple[float, float, str]:
    """Later sorts later: time of the requests (a cached one keeps its own), else of the file, then of the file."""
    written = (run.folder / STATS).stat().st_mtime
    times: list[float] = []
    if (run.folder / STATE).is_file():
        states = (
            item for key, _, item in read_members(run.folder / STATE, "request_states") if key == "request_states"
        )
        for state in itertools.islice(states, _LOOKED_AT):
            time = mapping(mapping(state).get("result")).get("request_datetime")
            times += [time] if isinstance(time, int | float) else []
    return max(times, default=written), written, str(run.folder)


class Schemas:
    """What `schema.json` of suites and releases says: main metrics, and which metrics are better when lower."""

    def __init__(self) -> None:
        self._read: dict[Path, list[dict[str, Any]]] = {}

    def main_metric(self, run: Run) -> str | None:
        """The metric that HELM's tables show of the run's group."""
        for schema in self._of(run):
            groups = {group.get("name"): group for group in map(mapping, sequence(schema.get("run_groups")))}
            for name in run.groups:
                main = mapping(mapping(groups.get(name)).get("environment")).get("main_name")
                if isinstance(main, str) and main:
                    return main
        return None

    def lower_is_better(self, run: Run, metric: str) -> bool:
        """Whether a schema says so of a metric."""
        metrics = (mapping(item) for schema in self._of(run) for item in sequence(schema.get("metrics")))
        return any(item.get("name") == metric and item.get("lower_is_better") is True for item in metrics)

    def _of(self, run: Run) -> list[dict[str, Any]]:
        """The suite's schema, then those of the releases, the last one first."""
        suite = run.folder.absolute().parent
        if suite not in self._read:
            releases = sorted((suite.parent.parent / "releases").glob("*/schema.json"), reverse=True)
            files = [file for file in [suite / "schema.json", *releases] if file.is_file()]
            self._read[suite] = [read_object(file) for file in files]
        return self._read[suite]
