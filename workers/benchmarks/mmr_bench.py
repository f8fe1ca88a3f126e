"""How are MMR-Bench's outcomes read? One wide CSV, a row for each question about a picture, and folders of pictures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.columns import MISSING, csv_header
from workers.benchmarks.identity import files_below, option_error, read_csv_rows, short_id
from workers.benchmarks.logs import LogFormat
from workers.benchmarks.pictures import look
from workers.errors import BenchmarkError

#: The table of all sets as a clone names it, then as the hub does.
_MERGED = ("MMR_Bench.csv", "MMR-Bench.csv")
#: Sets, as `dataset_idx` begins; the folder of a set's pictures.
_FOLDERS = {
    "MathVerse": "MathVerse",
    "MathVision": "MathVision",
    "MathVista": "MathVista",
    "MMStar": "MMStar",
    "OCRBench": "OCRBench",
    "RealWorldQA": "RealWorldQA",
    "SEEDBench2_Plus": "SEEDBenchv2Plus",
}
_SUFFIXES = (".jpg", ".png", ".jpeg", ".webp")
_CORRECT, _COST, _TOKENS, _RESPONSE = "_correct", "_cost", "_token", "_prediction"
_TRUTH = {"true": 1.0, "false": 0.0}


class MMRBench(LogFormat):
    """MMR-Bench's `MMR_Bench.csv` with its pictures (Ma et al. 2026), or CSV files of single sets in its columns."""

    name = "mmr-bench"
    summary = "MMR-Bench's MMR_Bench.csv or MMR-Bench.csv, with folders of pictures beside it"
    verified: ClassVar[str] = (
        "not verified on real files; written from Hunter-Wrynn/MMR-Bench@494e8c8, src/mmrbench/data/mllm_data.py, and "
        "@1b0361c, scripts/merge_vlmeval_results_to_mmr.py; read on what its scripts/make_toy_data.py writes"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the columns of the first file."""
        for file in _files(path)[:1]:
            try:
                names = csv_header(file)
            except BenchmarkError:
                return False
            return "question" in names and bool(_models(names))
        return False

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read row by row; pictures are looked for beside the table, and nowhere else."""
        if options.score not in (None, "correct") or options.variant is not None:
            raise option_error(path, options, ("correct",))
        notes.choose("unit of costs", "as the file has them; MMR-Bench asks for any consistent unit, not for USD")
        for file in _files(path):
            yield from _Set(file, notes).answers()


def _files(path: Path) -> list[Path]:
    """The table of all sets where there is one, which has the others' rows."""
    merged = next((path / name for name in _MERGED if (path / name).is_file()), None)
    return files_below(path, "*.csv") if merged is None else [merged]


def _models(names: Sequence[str]) -> list[str]:
    """Models with a column of outcomes and one of costs."""
    found = [name.removesuffix(_CORRECT) for name in names if name.endswith(_CORRECT)]
    return [model for model in found if model and model + _COST in names]


class _Set:
    """One CSV file.

    Args:
        file: The file; its folder bounds where pictures may be.
        notes: Takes what is left out or noteworthy.
    """

    def __init__(self, file: Path, notes: Notes) -> None:
        self._file, self._notes = file, notes
        self._top = file.resolve().parent
        names = csv_header(file)
        self._models = _models(names)
        if "question" not in names or not self._models:
            raise BenchmarkError(
                f"{file}: a column question and a pair <model>_correct, <model>_cost are needed; it has "
                f"{', '.join(names)[:1000]}."
            )
        for name in names:
            if name.endswith(_CORRECT) and name.removesuffix(_CORRECT) not in self._models:
                notes.left_out("a model without a column of costs", name.removesuffix(_CORRECT))
        self._costly: set[str] = set()

    def answers(self) -> Iterator[Answer]:
        """Answers row by row; of rows with the same id the first.

        Raises:
            BenchmarkError: With the line at fault.
        """
        questions: dict[str, str] = {}
        for at, row in read_csv_rows(self._file, "question"):
            question, index = row["question"], row.get("dataset_idx", "")
            query = index or short_id(question, row.get("img_path", ""))
            if query in questions:
                if questions[query] != question:
                    raise BenchmarkError(f"{at}: {query[:200]!r} was another question before; ids must be unique.")
                self._notes.left_out("a repeated row, of which the first counts", at)
                continue
            questions[query] = question
            name = next((name for name in _FOLDERS if index.startswith(name + "_")), "")
            task = name or index.rpartition("_")[0] or self._file.stem
            picture = self._picture(row, name, at)
            for model in self._models:
                yield self._answer(model, row, query, task, picture, at)
        for model in self._models:
            if questions and model not in self._costly:
                self._notes.flag("every cost of a model is 0, which may stand for a cost that is not known", model)

    def _answer(
        self, model: str, row: Mapping[str, str], query: str, task: str, picture: str | None, at: str
    ) -> Answer:
        score = _number(row[model + _CORRECT], model + _CORRECT, at)
        cost = _number(row[model + _COST], model + _COST, at)
        if score is not None and cost is None:
            self._notes.flag("an answer without a cost is not observed", at)
            score = None
        if cost:
            self._costly.add(model)
        return Answer(
            query=query,
            task=task,
            model=model,
            prompt=row["question"],
            score=score,
            cost=cost,
            output_tokens=_number(row.get(model + _TOKENS, ""), model + _TOKENS, at),
            image=picture,
            n_images=int(picture is not None),
            response=row.get(model + _RESPONSE),
            at=at,
        )

    def _picture(self, row: Mapping[str, str], name: str, at: str) -> str | None:
        """Path of the question's picture; None, and flagged, where it is not here.

        Raises:
            BenchmarkError: It leads out of the table's folder.
        """
        given = row.get("img_path", "").replace("\\", "/")
        absolute = Path(given).is_absolute()
        places = self._places(given, name, row.get("dataset_idx", ""))
        for place in places:
            inside, found = look(place, self._top, at)
            if found is not None:
                return found
            if not inside and not absolute:
                named = str(place.relative_to(self._top)) if place.is_relative_to(self._top) else str(place)
                raise BenchmarkError(
                    f"{at}: its picture {named[:200]!r} leads out of {self._top}; put pictures inside."
                )
        reason = "a picture lies outside of the table's folder" if absolute else "a picture is not here"
        reason = f"{reason}; the question is without it" if places else "a question names no picture"
        self._notes.flag(reason, f"{given[:200]!r} ({at})" if given else at)
        return None

    def _places(self, given: str, name: str, index: str) -> list[Path]:
        """Where the picture may be: below the set's folder or the table's, or by the question's number."""
        if given:
            return [self._top / self._file.stem / given, self._top / given]
        if name:
            place = index.removeprefix(name + "_")
            return [self._top / _FOLDERS[name] / f"{place}{suffix}" for suffix in _SUFFIXES]
        return []


def _number(text: str, column: str, at: str) -> float | None:
    """A number, true or false of a CSV file; None where there is none."""
    word = text.strip().casefold()
    if word in MISSING:
        return None
    try:
        value = _TRUTH[word] if word in _TRUTH else float(word)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise BenchmarkError(f"{at}: {column} {text[:80]!r} is no number that is at least 0.")
    return value
