"""Which win rates do an AlpacaEval folder's files allow, and how exactly?"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from workers.benchmarks.alpaca_eval_runs import Judgement, Layout, Run, read_doubled, read_judgements
from workers.benchmarks.answers import Notes
from workers.benchmarks.base import Floats
from workers.benchmarks.jsonfiles import read_records
from workers.benchmarks.length_control import (
    Weights,
    fit_weights,
    instruction_key,
    length_controlled_preferences,
    read_difficulties,
    read_weights,
    recovered_difficulties,
)
from workers.errors import BenchmarkError

DIFFICULTIES = "instruction_difficulty.csv"
#: Below the root; then `<annotator>/length_controlled_v1/baseline_<baseline>.csv`.
WEIGHTS = "src/alpaca_eval/metrics/weights"


class Judged:
    """What win rates need of a model's rows, in their order."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self._preferences, self._lengths, self._controlled = array("d"), array("d"), array("d")

    def add(self, judgement: Judgement) -> None:
        """Take one row."""
        self.queries.append(judgement.query)
        self._preferences.append(np.nan if judgement.preference is None else judgement.preference)
        self._lengths.append(judgement.length_difference)
        self._controlled.append(np.nan if judgement.controlled is None else judgement.controlled)

    @property
    def preferences(self) -> Floats:
        """NaN where the judge gave none, [n_rows]."""
        return np.array(self._preferences)

    @property
    def lengths(self) -> Floats:
        """Characters of the baseline's answer less those of the model's, [n_rows]."""
        return np.array(self._lengths)

    @property
    def controlled(self) -> Floats:
        """`glm_preference` of the rows, NaN where there is none, [n_rows]."""
        return np.array(self._controlled)


@dataclass(frozen=True, kw_only=True, eq=False)
class Controlled:
    """One model's length-controlled preferences."""

    #: NaN where the instruction's difficulty is not known, [n_rows].
    preferences: Floats
    #: What the win rate is, where it is not alpaca_eval's own; "" where it is.
    caveat: str = ""
    #: Whether the weights are fitted here.
    fitted: bool = False


class Control:
    """Win rates of the models of one folder; files are read when they are first needed."""

    def __init__(self, layout: Layout, baseline: str) -> None:
        self._layout = layout
        self._baseline = baseline
        self._weights_folder = layout.root / WEIGHTS / layout.annotator / "length_controlled_v1"

    def labels(self, run: Run) -> list[float | None]:
        """Length-controlled preferences of a model's rows, None where the difficulty is not known.

        Raises:
            BenchmarkError: The files do not allow them.
        """
        judged = Judged()
        for judgement in read_judgements(run, Notes()):
            judged.add(judgement)
        found = self._of(run.model, judged)
        if found is None:
            raise BenchmarkError(
                f"{run.path}: no length-controlled preferences: its rows hold no glm_preference, and the difficulty of "
                f"none of its instructions is known. Put {DIFFICULTIES} of the data set tatsu-lab/alpaca_eval "
                f"(Hugging Face) into {self._layout.root}, or import --score win_rate."
            )
        return [None if np.isnan(value) else value for value in found.preferences.tolist()]

    def report(self, run: Run, judged: Judged, notes: Notes, *, labelled: bool) -> None:
        """Say a model's win rates in percent, as leaderboards do.

        Args:
            run: The model.
            judged: Its rows.
            notes: Takes them.
            labelled: Whether length-controlled preferences are the score.
        """
        preferences = judged.preferences
        if not np.isnan(preferences).all():
            notes.fact("win rate", f"{run.model} {100 * np.nanmean(preferences):.2f}")
        found = self._of(run.model, judged) if judged.queries else None
        if found is None or np.isnan(found.preferences).all():
            return
        rate = f"{100 * np.nanmean(found.preferences):.2f}"
        notes.fact("length-controlled win rate", f"{run.model} {rate}{found.caveat}")
        if labelled and found.fitted:
            reason = "length-controlled preferences that are an approximation: no fitted weights of the model are here"
            notes.flag(reason, run.model)
        if labelled and np.isnan(found.preferences).any():
            notes.flag("a model with instructions of unknown difficulty, not observed there", run.model)

    def _of(self, model: str, judged: Judged) -> Controlled | None:
        """The rows' own, else from alpaca_eval's weights, else from weights fitted here; None without difficulties."""
        n_rows = len(judged.queries)
        if model == self._baseline:
            return Controlled(preferences=np.full(n_rows, 0.5))
        if not np.isnan(judged.controlled).any():
            return Controlled(preferences=judged.controlled)
        difficulties = np.array([self._difficulties.get(query, np.nan) for query in judged.queries])
        known = ~np.isnan(difficulties)
        if not known.any():
            return None
        part = "" if known.all() else f" of {known.sum()} of {n_rows} instructions"
        weights = self._weights.get(model)
        if weights is None and np.isnan(judged.preferences[known]).all():  # nothing to fit
            return Controlled(preferences=np.full(n_rows, np.nan))
        if weights is None:
            weights = fit_weights(judged.preferences, judged.lengths, difficulties)
            caveat = f" (approximation{part})"
        else:
            by_row = list(self._difficulties.values())[:n_rows]
            caveat = f" ({part[1:]})" if part else ""
            if not part and judged.queries != list(self._difficulties)[:n_rows]:
                own = 100 * length_controlled_preferences(weights, np.array(by_row)).mean()
                caveat = f" ({own:.2f} in alpaca_eval, which takes difficulties by row number)"
        preferences = length_controlled_preferences(weights, difficulties)
        return Controlled(preferences=preferences, caveat=caveat, fitted=model not in self._weights)

    @cached_property
    def _weights(self) -> dict[str, Weights]:
        """Fitted weights by model, those of the baseline's file; its name is compared, never used as a path."""
        wanted = f"baseline_{self._baseline}.csv"
        folder = self._weights_folder
        found = next((f for f in folder.iterdir() if f.name == wanted), None) if folder.is_dir() else None
        return read_weights(found) if found else {}

    @cached_property
    def _difficulties(self) -> dict[str, float]:
        """By instruction, in alpaca_eval's order: from the file of them, else recovered from a doubled folder."""
        for folder in dict.fromkeys((self._layout.root, self._layout.models)):
            if (folder / DIFFICULTIES).is_file():
                return read_difficulties(folder / DIFFICULTIES, self._order())
        for run in self._layout.runs:
            doubled = read_doubled(run) if run.model in self._weights else None
            if doubled and (found := recovered_difficulties(doubled, self._weights[run.model])):
                return found
        return {}

    def _order(self) -> Iterator[str]:
        """Instructions in the order of the baseline's answers."""
        outputs = self._layout.outputs(self._baseline)
        for _, row in read_records(outputs) if outputs else ():
            if isinstance(row.get("instruction"), str):
                yield instruction_key(row["instruction"])
