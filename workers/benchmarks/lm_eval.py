"""How are per-sample logs of lm-evaluation-harness read?

Layout and meaning of the fields: release 0.4.13, and the sources of 0.4.2. A line holds one document under one filter;
the score is the row's own metric where that is a number.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.choices import options_of, with_options
from workers.benchmarks.jsonfiles import read_records
from workers.benchmarks.lm_eval_runs import Run, find_runs, is_run
from workers.benchmarks.logs import LogFormat
from workers.benchmarks.prices import estimate_tokens
from workers.errors import BenchmarkError
from workers.plugins import nearest

#: Score columns of the Open LLM Leaderboard v2, by how its tasks begin.
_LEADERBOARD = {
    "leaderboard_bbh": "acc_norm",
    "leaderboard_gpqa": "acc_norm",
    "leaderboard_musr": "acc_norm",
    "leaderboard_mmlu_pro": "acc",
    "leaderboard_math": "exact_match",
    "leaderboard_ifeval": "prompt_level_strict_acc",
}
_NOT_METRICS = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"}
    | {"doc_hash", "prompt_hash", "target_hash"}
)
#: A metric that is declared to be better when lower: `1-<metric>`.
_FLIPPED = "1-"
#: Where tasks keep their question.
_QUESTIONS = ("question", "Question", "input", "problem", "prompt", "query", "instruction", "text")
#: A picture's text as Python prints it; it holds a memory address.
_PICTURE = re.compile(r"<PIL\.\S+ image .*at 0x[0-9A-Fa-f]+>")


class LmEval(LogFormat):
    """Sample logs of lm-evaluation-harness."""

    name = "lm-eval"
    summary = "lm-evaluation-harness --log_samples, Open LLM Leaderboard v2 details"
    verified: ClassVar[str] = (
        "files of lm_eval 0.4.13: 3 models, 4 tasks, mean scores equal to its results_*.json; the arrays of up to "
        "0.4.2 and the leaderboard's details: not verified on real files; written from the source of 0.4.2 and the "
        "leaderboard's task files"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the names of files."""
        return is_run(path)

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the newest run of every model and task."""
        tasks: dict[str, _Task] = {}
        runs = find_runs(path, notes)
        if len({run.templated for run in runs}) > 1 or all(run.templated for run in runs):
            sent = "without chat template where a run has none" if not runs[0].templated else "with chat template"
            notes.choose("prompt", f"as sent to {runs[0].model}, {sent}; --embed doc.<field> takes the bare question")
        for run in runs:
            yield from tasks.setdefault(run.task, _Task(run.task, options, notes)).answers(run)


class _Task:
    """One task: what is its score, which filter is read, for all models alike."""

    def __init__(self, name: str, options: ReadOptions, notes: Notes) -> None:
        self._name = name
        self._options = options
        self._notes = notes
        self._metric: str | None = None
        self._filter: str | None = None

    def answers(self, run: Run) -> Iterator[Answer]:
        """The answers of one model."""
        self._filter = self._filter or self._wanted_filter(run)
        seen: Counter[str] = Counter()
        documents: set[str] = set()
        filters: dict[str, None] = {}
        for line, row in read_records(run.path):
            at = f"{run.path}, line {line}"
            filters.setdefault(_filter(row))
            self._filter = self._filter or self._first_filter(_filter(row))
            if _filter(row) != self._filter:
                continue
            if "doc_id" not in row or not isinstance(row.get("arguments"), dict | list):
                raise BenchmarkError(f"{at}: no sample of lm_eval: doc_id or arguments are missing.")
            if str(row["doc_id"]) in documents:
                self._notes.left_out("a further row of the same document and filter", at)
                continue
            documents.add(str(row["doc_id"]))
            if self._metric is None and not self._choose_metric(row, run, at):
                return
            yield self._answer(row, run, at, seen)
        if not filters:
            self._notes.left_out("an empty file", str(run.path))
        elif not documents:
            raise BenchmarkError(
                f"{run.path}: no row of filter {self._filter!r}, only of {', '.join(filters)}; "
                "name one that all runs of the task have with --variant."
            )

    def _wanted_filter(self, run: Run) -> str | None:
        """The filter that the user names; a task that has one filter alone is read by that one."""
        wanted = self._options.variant
        if wanted is None:
            return None
        filters = run.filters or tuple(dict.fromkeys(_filter(row) for _, row in read_records(run.path)))
        if wanted in filters:
            return wanted
        if len(filters) == 1:
            self._notes.choose(f"filter of {self._name}", f"{filters[0]} (its only one)")
            return filters[0]
        raise BenchmarkError(
            f"{run.path}: no filter {wanted!r} in task {self._name!r}; {nearest(wanted, list(filters))}"
        )

    def _first_filter(self, name: str) -> str:
        if name != "none":
            self._notes.choose(f"filter of {self._name}", name)
        return name

    def _choose_metric(self, row: Mapping[str, Any], run: Run, at: str) -> bool:
        """Which metric is the score; False where the task has none and the user did not name one."""
        metrics = _metrics(row)
        numbers = [metric for metric in metrics if _is_score(row[metric])]
        if self._options.score is not None:
            wanted = [name.strip() for name in self._options.score.split(",")]
            for name in wanted:
                if name.removeprefix(_FLIPPED) in metrics:
                    self._metric = name
                    self._score(row, run, at)
                    return True
            raise BenchmarkError(
                f"{at}: no metric {self._options.score!r} in task {self._name!r}; it has {', '.join(metrics) or 'none'}"
                " (several tasks: give the metrics apart by commas)."
            )
        usual = next((metric for prefix, metric in _LEADERBOARD.items() if self._name.startswith(prefix)), None)
        better = [metric for metric in numbers if run.higher_is_better.get(metric, True)]
        if not better:
            named = ", ".join(metrics) or "none"
            self._notes.left_out(f"task {self._name}: no metric is a score of each sample ({named})", str(run.path))
            return False
        self._metric = usual if usual in better else better[0]
        others = f" (also there: {', '.join(m for m in metrics if m != self._metric)})" if len(metrics) > 1 else ""
        self._notes.choose(f"score of {self._name}", f"{self._metric}{others}")
        return True

    def _score(self, row: Mapping[str, Any], run: Run, at: str) -> float | None:
        assert self._metric is not None
        flipped = self._metric.startswith(_FLIPPED)
        metric = self._metric.removeprefix(_FLIPPED)
        if metric not in row:
            raise BenchmarkError(
                f"{at}: no metric {metric!r}, which is the score of {self._name!r} in other rows; "
                f"it has {', '.join(_metrics(row)) or 'none'}: name one that all runs have with --score."
            )
        value = row[metric]
        if metric == "bypass":
            raise BenchmarkError(f"{at}: run with --predict_only, so nothing is scored; run it without.")
        if value is not None and not _is_score(value):
            numbers = [name for name in _metrics(row) if _is_score(row[name])]
            raise BenchmarkError(
                f"{at}: {metric!r} holds {json.dumps(value)[:60]}, the input of an aggregation over the task and no "
                f"score of this sample; give another with --score (numbers here: {', '.join(numbers) or 'none'})."
            )
        if not run.higher_is_better.get(metric, True) and not flipped:
            raise BenchmarkError(
                f"{at}: lower is better of {metric!r}; give --score {_FLIPPED}{metric}, which takes it from the scale."
            )
        if value is None or value != value:
            return None
        return self._options.scale - float(value) if flipped else float(value)

    def _answer(self, row: Mapping[str, Any], run: Run, at: str, seen: Counter[str]) -> Answer:
        prompt, generates = _request(row["arguments"], at)
        query, proof, n_images = _identity(row)
        seen[query] += 1
        response = _response(row.get("resps")) if generates else None
        doc = row.get("doc")
        return Answer(
            query=query if seen[query] == 1 else f"{query}-{seen[query]}",
            task=self._name,
            model=run.model,
            prompt=prompt,
            score=self._score(row, run, at),
            proof=proof,
            texts={} if self._options.embed == "prompt" else _texts(doc),
            input_tokens=estimate_tokens(prompt),
            output_tokens=estimate_tokens(response or ""),
            estimated=True,
            n_images=n_images,
            response=response,
            at=at,
        )


def _filter(row: Mapping[str, Any]) -> str:
    """The filter of a row; rows before 0.4.7 name none."""
    return str(row.get("filter", "none"))


def _metrics(row: Mapping[str, Any]) -> list[str]:
    """Names of the row's metrics; rows before 0.4.7 do not list them."""
    listed = row.get("metrics")
    if isinstance(listed, list):
        return [name for name in listed if isinstance(name, str) and name in row]
    return [name for name in row if name not in _NOT_METRICS]


def _is_score(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _request(arguments: dict[str, Any] | list[Any], at: str) -> tuple[str, bool]:
    """The prompt of the first request, and whether it asks for a text (else for likelihoods)."""
    first: Any = arguments.get("gen_args_0") if isinstance(arguments, dict) else next(iter(arguments), None)
    parts = list(first.values()) if isinstance(first, dict) else first
    if not isinstance(parts, list) or not parts or not isinstance(parts[0], str):
        raise BenchmarkError(f"{at}: its arguments hold no prompt.")
    return parts[0], len(parts) > 1 and isinstance(parts[1], dict)


def _response(resps: Any) -> str | None:
    """The first text as generated, before any filter."""
    while isinstance(resps, list) and resps:
        resps = resps[0]
    return resps if isinstance(resps, str) else None


def _identity(row: Mapping[str, Any]) -> tuple[str, str, int]:
    """Id of a document, what proves that two are the same, and the number of pictures that it names.

    The id is the beginning of lm_eval's own `doc_hash`, computed anew: rows before 0.4.3 lack it, and of pictures it
    takes a memory address, which differs from run to run. Documents with such pictures go by `doc_id`.
    """
    doc = row.get("doc")
    if not isinstance(doc, dict):
        given = row.get("doc_hash")
        return (given[:16] if isinstance(given, str) else f"doc {row['doc_id']}"), str(row.get("target")), 0
    text = json.dumps(doc, indent=2, ensure_ascii=False)
    bare, n_images = _PICTURE.subn("<picture>", text)
    if n_images:
        return f"doc {row['doc_id']}", bare, n_images
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16], text, 0


def _texts(doc: Any) -> dict[str, str]:
    """Fields of a document that encoders may see: `doc.<field>`, and `question` with its options."""
    if not isinstance(doc, dict):
        return {}
    fields: dict[str, str] = {}

    def flatten(prefix: str, value: Any, depth: int) -> None:
        if isinstance(value, str):
            fields[prefix] = value
        elif isinstance(value, dict) and depth < 4:
            for key, item in value.items():
                flatten(f"{prefix}.{key}", item, depth + 1)

    flatten("doc", doc, 0)
    question = next((doc[key] for key in _QUESTIONS if isinstance(doc.get(key), str)), None)
    if question is not None:
        narrative = doc.get("narrative")
        options = next((found for key in ("options", "choices") if (found := options_of(doc.get(key)))), [])
        whole = f"{narrative}\n{question}" if isinstance(narrative, str) else question
        fields["question"] = with_options(whole, options)
    return fields
