"""How are runs of HELM and VHELM read? One run is one scenario by one model; a question may have several trials.

Layout and meaning of the fields: release 0.5.16, and the sources that `verified` names.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.helm_media import Pictures, writable
from workers.benchmarks.helm_runs import Run, Schemas, find_runs, is_output
from workers.benchmarks.helm_samples import COUNTS, Call, Key, Metrics, Question, read_metrics, read_questions
from workers.benchmarks.logs import LogFormat, options_are_known
from workers.benchmarks.prices import estimate_tokens
from workers.errors import BenchmarkError

#: Metrics that are the score where no schema names one; those that only some scenarios have come first.
_USUAL = (
    "math_equiv_chain_of_thought",
    "math_equiv",
    "final_number_exact_match",
    "exact_match_indicator",
    "chain_of_thought_correctness",
    "ifeval_strict_accuracy",
    "omni_math_accuracy",
    "exact_match",
    "quasi_exact_match",
    "prefix_exact_match",
    "quasi_prefix_exact_match",
    "f1_score",
)
#: How names of metrics begin that measure something else than the answer.
_NOT_SCORES = (
    *("num_", "finish_reason_", "training_", "inference_", "batch_size", "prompt_truncated", "max_prob"),
    *("logprob", "predicted_index", "estimated_num_tokens"),
)
#: A metric that is declared to be better when lower: `1-<metric>`.
_FLIPPED = "1-"


class Helm(LogFormat):
    """Run folders of HELM and VHELM."""

    name = "helm"
    summary = "HELM and VHELM runs, benchmark_output or a part of it"
    verified: ClassVar[str] = (
        "runs of crfm-helm 0.5.16: 2 models, 2 scenarios (one with pictures), counts and mean scores equal to its "
        "display_predictions.json and stats.json; options asked apart, calibration, perturbations, trials, messages "
        "and schema.json: not verified on real files; written from stanford-crfm/helm@00cf7b2, "
        "src/helm/benchmark/presentation/run_display.py, @00abf6a, metrics/basic_metrics.py, and @02627ca, "
        "presentation/schema.py"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the beginning of a run's specification."""
        return is_output(path)

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the newest run of every model and scenario, trials averaged."""
        for option in options_are_known(options, "score"):
            raise BenchmarkError(f"{path}: HELM's runs have no {option}; leave it out.")
        if not path.is_dir():
            raise BenchmarkError(f"{path}: a run of HELM is a folder; give benchmark_output, or a part of it.")
        schemas = Schemas()
        scored_by: dict[str, str] = {}
        for run in find_runs(path, notes):
            notes.fact("HELM suite", run.suite)
            yield from _Reader(run, path, options, notes, schemas, scored_by).answers()


class _Reader:
    """One run."""

    def __init__(
        self,
        run: Run,
        given: Path,
        options: ReadOptions,
        notes: Notes,
        schemas: Schemas,
        scored_by: dict[str, str],
    ) -> None:
        self._run = run
        self._options = options
        self._notes = notes
        self._schemas = schemas
        #: Task -> metric, for all models alike.
        self._scored_by = scored_by
        self._pictures = Pictures(run.folder, given, notes)

    def answers(self) -> Iterator[Answer]:
        """One answer for each question."""
        run, main = self._run, self._schemas.main_metric(self._run)
        asked_for = [name.strip() for name in (self._options.score or "").split(",") if name.strip()]
        wanted = {*COUNTS, *_USUAL, *(name.removeprefix(_FLIPPED) for name in asked_for), *([main] if main else [])}
        metrics = read_metrics(run, wanted, self._notes)
        if not metrics.values:
            self._notes.left_out("a run without questions that are not perturbed", str(run.folder))
            return
        metric = self._metric(metrics, asked_for, main)
        if metric is None:
            return
        keep_sent = self._options.embed not in ("prompt", "question")
        questions, calls = read_questions(run, metrics, self._notes, keep_sent=keep_sent)
        trials: dict[str, dict[int, None]] = {}
        for query, trial in sorted({*calls, *metrics.values}):
            trials.setdefault(query, {})[trial] = None
        for query in sorted(set(trials) - set(questions)):
            self._notes.left_out("metrics of an instance that is not here", f"{query!r} ({run.folder})")
        several = max(map(len, trials.values()))
        if several > 1:
            self._notes.choose(f"trials of {run.task}", f"mean of {several}")
        for query, question in questions.items():
            if query not in trials:
                self._notes.left_out("an instance without a request", question.at)
                continue
            yield self._answer(query, question, [(query, trial) for trial in trials[query]], calls, metrics, metric)

    def _answer(
        self,
        query: str,
        question: Question,
        keys: Sequence[Key],
        calls: Mapping[Key, Call],
        metrics: Metrics,
        metric: str,
    ) -> Answer:
        self._remark(question)
        scores, inputs, outputs, estimated = [], [], [], False
        for key in keys:
            values, call = metrics.values.get(key, {}), calls.get(key, Call())
            given = values.get(metric.removeprefix(_FLIPPED))
            if given is not None:
                scores.append(self._options.scale - given if metric.startswith(_FLIPPED) else given)
            counted = _count(values, "num_prompt_tokens")
            inputs.append(counted or call.sent_tokens)
            generated, guess = self._output(values, call, question.at)
            outputs.append(generated)
            estimated = estimated or not counted or guess
        first = next((calls[key] for key in keys if key in calls), Call())
        n_pictures = len(question.pictures) if first.n_pictures is None else first.n_pictures
        if n_pictures:
            self._notes.choose("tokens of pictures", "not counted by HELM; a price of `image` in --prices counts them")
        texts = {"question": question.with_options, **({"request": first.sent} if first.sent is not None else {})}
        return Answer(
            query=query if question.split in ("", "test") else f"{question.split}/{query}",
            task=self._run.task,
            model=self._run.model,
            prompt=question.text,
            score=_mean(scores),
            proof=question.proof,
            texts=texts,
            input_tokens=_mean(inputs),
            output_tokens=_mean(outputs),
            estimated=estimated,
            image=self._pictures.find(question.pictures[0], question.at) if question.pictures else None,
            n_images=n_pictures,
            response=first.response,
            at=question.at,
        )

    def _output(self, values: Mapping[str, float], call: Call, at: str) -> tuple[float | None, bool]:
        """Output tokens of one call, and whether they are an estimate; None where nothing tells them."""
        if not call.generates:
            return 0.0, False
        counted = _count(values, "num_output_tokens", "num_completion_tokens")
        said = "" if call.response is None else call.thinking + call.response
        if counted or (counted is not None and call.response == said == ""):
            return counted, False
        if said:
            self._notes.flag("no output tokens are counted beside a response; estimated by its length", at)
        return (None, True) if call.response is None else (float(estimate_tokens(said)), True)

    def _remark(self, question: Question) -> None:
        if len(question.pictures) > 1:
            self._notes.flag("several pictures, of which encoders see the first", question.at)
        for kind in question.others:
            self._notes.flag(f"input of type {kind} is not read", question.at)

    def _metric(self, metrics: Metrics, asked_for: Sequence[str], main: str | None) -> str | None:
        """The score of the task, for all models alike; None where the task has none and the user did not name one."""
        run, task = self._run, self._run.task
        there = [name for name in metrics.names if not name.startswith(_NOT_SCORES)]
        has = ", ".join(there) or "none"
        known = self._scored_by.get(task)
        if known is not None:
            if known.removeprefix(_FLIPPED) not in metrics.names:
                raise BenchmarkError(
                    f"{run.folder}: no metric {known!r}, which is the score of {task!r} in other runs; it has {has}: "
                    "name one that all runs have with --score."
                )
            return known
        if asked_for:
            chosen = next((name for name in asked_for if name.removeprefix(_FLIPPED) in metrics.names), None)
            if chosen is None:
                raise BenchmarkError(
                    f"{run.folder}: no metric {self._options.score!r} in task {task!r}; it has {has} (several tasks: "
                    "give the metrics apart by commas)."
                )
            if not chosen.startswith(_FLIPPED) and self._schemas.lower_is_better(run, chosen):
                raise BenchmarkError(
                    f"{run.folder}: lower is better of {chosen!r}; give --score {_FLIPPED}{chosen}, which takes it "
                    "from the scale."
                )
            self._scored_by[task] = chosen
            return chosen
        candidates = [name for name in (main, *_USUAL) if name is not None and name in metrics.names]
        if main in candidates and self._schemas.lower_is_better(run, str(main)):
            reason = f"task {task}: lower is better of its main metric; --score {_FLIPPED}{main} reads it"
            self._notes.left_out(reason, str(run.folder))
            return None
        if not candidates:
            self._notes.left_out(f"task {task}: no usual metric; name one with --score ({has})", str(run.folder))
            return None
        self._scored_by[task] = chosen = candidates[0]
        others = [name for name in there if name != chosen and "@" not in name]
        also = f" (also there: {', '.join(others)})" if others else ""
        schema = ", the schema's main metric" if chosen == main else f", as {main} is not here" if main else ""
        self._notes.choose(f"score of {task}", writable(f"{chosen}{schema}{also}"))
        return chosen


def _count(values: Mapping[str, float], *names: str) -> float | None:
    """The first of these counts that is one."""
    found = (values.get(name) for name in names)
    return next((value for value in found if value is not None and 0 <= value < math.inf), None)


def _mean(numbers: Sequence[float | None]) -> float | None:
    """None where there is none, or where one is not known."""
    known = [number for number in numbers if number is not None]
    return sum(known) / len(known) if known and len(known) == len(numbers) else None
