"""How are the judge's annotations of AlpacaEval read?

Layout and meaning of the fields: tatsu-lab/alpaca_eval at commit cd543a1 (0.6.6). Of two answers the first is the
baseline's and the second the model's; a preference of 1 is the baseline's win, 2 the model's. Prices in a row are the
judge's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.alpaca_eval_control import Control, Judged
from workers.benchmarks.alpaca_eval_runs import Judgement, Layout, Run, find_layout, is_layout, read_judgements
from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.jsonfiles import read_records
from workers.benchmarks.length_control import instruction_key
from workers.benchmarks.logs import LogFormat
from workers.benchmarks.prices import estimate_tokens
from workers.errors import BenchmarkError
from workers.plugins import nearest

WIN_RATE, LENGTH_CONTROLLED = "win_rate", "length_controlled"
_UNKNOWN = "unknown"


class AlpacaEval(LogFormat):
    """Annotations of alpaca_eval."""

    name = "alpaca-eval"
    summary = "alpaca_eval's repository or results folder: <model>/<annotator>/annotations.json"
    verified: ClassVar[str] = (
        "58 models of tatsu-lab/alpaca_eval@cd543a1 and files of alpaca_eval 0.6.6: win rates equal to the published "
        "and the tool's own, length-controlled ones too with the repository's weights; instruction_difficulty.csv as "
        "the hub has it: not verified on real files; written from alpaca_eval/metrics/glm_winrate.py"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the names of files and how the first begins."""
        return is_layout(path)

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read every model that the annotator judged, and the baseline where only its answers are there."""
        score = options.score or WIN_RATE
        if score not in (WIN_RATE, LENGTH_CONTROLLED):
            raise BenchmarkError(f"{path}: no score {score!r}; {nearest(score, [WIN_RATE, LENGTH_CONTROLLED])}")
        if options.scale != 1:
            raise BenchmarkError(f"{path}: preferences of alpaca_eval are within [0, 1]; leave --scale out.")
        layout = find_layout(path, options.variant, notes)
        baseline = next((j.baseline for run in layout.runs for j in read_judgements(run, Notes())), None)
        if baseline is None:
            notes.left_out("no annotations", str(layout.models))
            return
        alone = ", which tells questions apart by their difficulty alone" if score == LENGTH_CONTROLLED else ""
        notes.choose("score", f"{score} against {baseline}{alone}")
        datasets = _Datasets(layout, notes)
        control = Control(layout, baseline)
        for run in layout.runs:
            yield from self._run(run, score, baseline, datasets, control, notes)
        if all(run.model != baseline for run in layout.runs):
            yield from _baseline(layout, baseline, datasets, notes)

    def _run(
        self, run: Run, score: str, baseline: str, datasets: _Datasets, control: Control, notes: Notes
    ) -> Iterator[Answer]:
        labels = control.labels(run) if score == LENGTH_CONTROLLED else None
        judged = Judged()
        for row, judgement in enumerate(read_judgements(run, notes)):
            if judgement.baseline != baseline:
                raise BenchmarkError(
                    f"{judgement.at}: judged against {judgement.baseline!r}, others against {baseline!r}; preferences "
                    "against two baselines do not compare: keep one."
                )
            if row == 0 and judgement.generator not in ("", run.model):
                notes.flag("answers of a model that is not called as its folder", f"{run.model}: {judgement.generator}")
            judged.add(judgement)
            value = judgement.preference if labels is None else labels[row]
            yield Answer(
                query=judgement.query,
                task=datasets.of(run, judgement),
                model=run.model,
                prompt=judgement.instruction,
                score=None if judgement.preference is None else value,
                proof=_proof(judgement.instruction, baseline),
                input_tokens=estimate_tokens(judgement.instruction),
                output_tokens=estimate_tokens(judgement.response),
                estimated=True,
                response=judgement.response,
                at=judgement.at,
            )
        control.report(run, judged, notes, labelled=labels is not None)


def _baseline(layout: Layout, baseline: str, datasets: _Datasets, notes: Notes) -> Iterator[Answer]:
    """The baseline's answers to the instructions that were judged: 0.5, as against itself."""
    path = layout.outputs(baseline)
    if path is None:
        return
    seen: set[str] = set()
    for line, row in read_records(path):
        instruction, output = row.get("instruction"), row.get("output")
        if not isinstance(instruction, str) or not isinstance(output, str):
            raise BenchmarkError(f"{path}, line {line}: no text 'instruction' or 'output'.")
        query = instruction_key(instruction)
        if query in datasets.found and query not in seen:
            seen.add(query)
            yield Answer(
                query=query,
                task=datasets.found[query],
                model=baseline,
                prompt=instruction,
                score=0.5,
                proof=_proof(instruction, baseline),
                input_tokens=estimate_tokens(instruction),
                output_tokens=estimate_tokens(output),
                estimated=True,
                response=output,
                at=f"{path}, line {line}",
            )
    notes.choose("baseline", f"{baseline}, answers of its {path.name}, 0.5 each as against itself")


def _proof(instruction: str, baseline: str) -> str:
    return f"{baseline}\n{instruction}"


class _Datasets:
    """Each instruction's data set, one for all models."""

    def __init__(self, layout: Layout, notes: Notes) -> None:
        self._layout = layout
        self._notes = notes
        #: By instruction.
        self.found: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}
        self._read: set[Path] = set()

    def of(self, run: Run, judgement: Judgement) -> str:
        """As the first row of the instruction says, else the model's outputs, else any other model's rows."""
        query = judgement.query
        if query not in self.found:
            dataset = judgement.dataset or self._look_up(run, query)
            if dataset is None:
                self._notes.flag("no data set is named for the instruction; its task is 'unknown'", judgement.at)
            self.found[query] = dataset or _UNKNOWN
        elif judgement.dataset not in (None, self.found[query]):
            self._notes.flag("another data set than in an earlier model, whose counts", judgement.at)
        return self.found[query]

    def _look_up(self, run: Run, query: str) -> str | None:
        if query not in self._elsewhere and run.outputs not in self._read:
            self._read.add(run.outputs)
            for _, row in read_records(run.outputs) if run.outputs.is_file() else ():
                instruction, dataset = row.get("instruction"), row.get("dataset")
                if isinstance(instruction, str) and isinstance(dataset, str) and dataset:
                    self._elsewhere.setdefault(instruction_key(instruction), dataset)
        for other in self._layout.runs:
            if query in self._elsewhere:
                break
            if other.path not in self._read:
                self._read.add(other.path)
                for judgement in read_judgements(other, Notes()):
                    if judgement.dataset:
                        self._elsewhere.setdefault(judgement.query, judgement.dataset)
        return self._elsewhere.get(query)
