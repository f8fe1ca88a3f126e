"""Where are the judge's annotations of an AlpacaEval folder, and what does one say?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import Notes
from workers.benchmarks.jsonfiles import first_characters, read_records
from workers.benchmarks.length_control import instruction_key
from workers.errors import BenchmarkError
from workers.plugins import nearest

ANNOTATIONS = "annotations.json"
OUTPUTS = "model_outputs.json"
#: The judge of AlpacaEval 2.
_USUAL = "weighted_alpaca_eval_gpt4_turbo"
#: Folders that are looked at to recognise a format, and how much of a file.
_LOOKED_AT = 2000
_BEGINNING = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Run:
    """One model's answers as one annotator judged them."""

    #: The name of its folder.
    model: str
    path: Path
    #: `model_outputs.json` beside the annotator's folder, which need not exist.
    outputs: Path


@dataclass(frozen=True, kw_only=True)
class Layout:
    """`<models>/<model>/<annotator>/annotations.json` of one annotator."""

    models: Path
    annotator: str
    runs: tuple[Run, ...]

    @property
    def root(self) -> Path:
        """The repository's root: around a folder `results`, else the folder of models itself."""
        return self.models.parent if self.models.name == "results" else self.models

    def outputs(self, model: str) -> Path | None:
        """`model_outputs.json` of a model, by the names that are on disk: what a log names is no path."""
        found = next((folder for folder in self.models.iterdir() if folder.name == model), None)
        return found / OUTPUTS if found and (found / OUTPUTS).is_file() else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """One row of annotations: the model's answer to one instruction beside the baseline's."""

    #: Identity of the instruction.
    query: str
    instruction: str
    #: None where the row names none.
    dataset: str | None
    #: Probability that the model's answer is preferred, 0 to 1; None: the judge gave none.
    preference: float | None
    baseline: str
    generator: str
    response: str
    #: Characters of the baseline's answer less those of the model's.
    length_difference: int
    #: `glm_preference`, 0 to 1, where alpaca_eval left it.
    controlled: float | None
    at: str


def is_layout(path: Path) -> bool:
    """Whether a folder holds annotations of AlpacaEval; never raises."""
    try:
        found = next(
            (files for folder in _places(path) if (files := list(islice(_annotations(folder, _LOOKED_AT), 1)))), None
        )
    except OSError:
        return False
    if not found:
        return False
    beginning = first_characters(found[0][2], _BEGINNING)
    return beginning.lstrip()[:1] == "[" and any(f'"{key}"' in beginning for key in ("output_1", "preference"))


def find_layout(path: Path, variant: str | None, notes: Notes) -> Layout:
    """The models of a folder and the annotator that is read.

    Args:
        path: A root with `results/`, `results/` itself, or another folder of models' folders.
        variant: The annotator; None: that of AlpacaEval 2 if it is there, else the only one.
        notes: Takes the choice, and models that it has not judged.

    Raises:
        BenchmarkError: No annotations, no such annotator, or several to choose from.
    """
    try:
        models = next((folder for folder in _places(path) if any(_annotations(folder))), None)
        found = sorted(_annotations(models)) if models else []
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}).") from error
    if models is None:
        raise BenchmarkError(
            f"{path}: no <model>/<annotator>/{ANNOTATIONS} in it nor in its results; give alpaca_eval's repository, "
            "its folder results, or a folder of models like it."
        )
    annotators = sorted({annotator for _, annotator, _ in found})
    if variant is not None and variant not in annotators:
        raise BenchmarkError(f"{models}: no annotator {variant!r}; {nearest(variant, annotators)}")
    chosen = variant or (_USUAL if _USUAL in annotators else annotators[0])
    if variant is None and chosen != _USUAL and len(annotators) > 1:
        raise BenchmarkError(f"{models}: judged by {', '.join(annotators)}; say which with --variant.")
    others = [annotator for annotator in annotators if annotator != chosen]
    notes.choose("annotator", chosen + (f" (also there: {', '.join(others)})" if others and variant is None else ""))
    runs = {model: file for model, annotator, file in found if annotator == chosen}
    for model in dict.fromkeys(model for model, _, _ in found if model not in runs):
        notes.left_out("a model that this annotator has not judged", model)
    return Layout(
        models=models,
        annotator=chosen,
        runs=tuple(
            Run(model=model, path=file, outputs=file.parent.parent / OUTPUTS) for model, file in sorted(runs.items())
        ),
    )


def read_judgements(run: Run, notes: Notes) -> Iterator[Judgement]:
    """Rows of one model, one instruction once.

    Raises:
        BenchmarkError: With the line at fault.
    """
    seen: set[str] = set()
    for line, row in read_records(run.path):
        judgement = _judgement(row, f"{run.path}, line {line}")
        if judgement.query in seen:
            notes.left_out("a further row of the same instruction", judgement.at)
            continue
        seen.add(judgement.query)
        yield judgement
    if not seen:
        notes.left_out("an empty file", str(run.path))


def read_doubled(run: Run) -> dict[str, float] | None:
    """`glm_preference` by instruction of the doubled folder that the repository has for two models; else None.

    That folder, `<annotator>/<annotator>`, holds the same answers a second time and is read for nothing else.
    """
    path = run.path.parent / run.path.parent.name / ANNOTATIONS
    if not path.is_file():
        return None
    doubled = list(read_judgements(Run(model=run.model, path=path, outputs=run.outputs), Notes()))
    found = {judgement.query: judgement.controlled for judgement in doubled if judgement.controlled is not None}
    return found if found and len(found) == len(doubled) else None


def _places(path: Path) -> list[Path]:
    return [folder for folder in (path / "results", path) if folder.is_dir()]


def _annotations(models: Path, most: int | None = None) -> Iterator[tuple[str, str, Path]]:
    """(model, annotator, file), at exactly this depth, of so many folders at most."""
    for model in islice(models.iterdir(), most):
        if model.is_dir():
            for annotator in islice(model.iterdir(), most):
                if (annotator / ANNOTATIONS).is_file():
                    yield model.name, annotator.name, annotator / ANNOTATIONS


def _judgement(row: Mapping[str, Any], at: str) -> Judgement:
    texts = {}
    for key in ("instruction", "output_1", "output_2", "generator_1"):
        if not isinstance(row.get(key), str):
            raise BenchmarkError(f"{at}: no text {key!r}, which annotations of alpaca_eval have.")
        texts[key] = row[key]
    if "preference" not in row:
        raise BenchmarkError(f"{at}: no 'preference', which annotations of alpaca_eval have.")
    preference, controlled = row["preference"], row.get("glm_preference")
    if preference is not None:
        if isinstance(preference, bool) or not isinstance(preference, int | float):
            raise BenchmarkError(f"{at}: preference {str(preference)[:40]!r} is not a number.")
        if preference != preference:
            preference = None
        elif preference != 0 and not 1 <= preference <= 2:
            raise BenchmarkError(
                f"{at}: preference {preference:g} is none of alpaca_eval's: 1 (the baseline) to 2 (the model), 0 for a "
                "draw, null where the judge gave none."
            )
    usable = isinstance(controlled, int | float) and 0 <= controlled <= 1
    dataset, generator = row.get("dataset"), row.get("generator_2")
    return Judgement(
        query=instruction_key(texts["instruction"]),
        instruction=texts["instruction"],
        dataset=dataset if isinstance(dataset, str) and dataset else None,
        preference=None if preference is None else 0.5 if preference == 0 else float(preference) - 1,
        baseline=texts["generator_1"],
        generator=generator if isinstance(generator, str) else "",
        response=texts["output_2"],
        length_difference=len(texts["output_1"]) - len(texts["output_2"]),
        controlled=float(controlled) if usable and controlled is not None else None,
        at=at,
    )
