"""How are RouterEval's ready-made pools read? One pickle a task; of each the scores of pools of 3 to 1000 models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from workers.benchmarks.answers import Answer, Notes, ReadOptions
from workers.benchmarks.identity import files_below, option_error
from workers.benchmarks.logs import LogFormat
from workers.benchmarks.pickles import read_pickle
from workers.errors import BenchmarkError
from workers.plugins import nearest

if TYPE_CHECKING:
    from workers.benchmarks.unpickling import Plain

_END = "_router_dataset.pkl"
_SIDES = ("train", "val", "test")


class RouterEval(LogFormat):
    """RouterEval's `<task>_router_dataset.pkl` (Huang et al. 2025); a variant is a pool, such as `easy/5/all_strong`.

    Its three sides are joined; splits are cut here.
    """

    name = "routereval"
    summary = f"RouterEval's <task>{_END}, one pool of models of each"
    verified: ClassVar[str] = (
        "not verified on real files; written from MilkThink-Lab/RouterEval@2edf54d, get_router_dataset.py and "
        "test_router.py"
    )

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """By the files' names."""
        return path.name.endswith(_END) if path.is_file() else bool(files_below(path, f"*{_END}"))

    def answers(self, path: Path, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
        """Read the pool of every task; the first one where the user names none."""
        if options.score not in (None, "score"):
            raise option_error(path, options, ("score",))
        files = files_below(path, f"*{_END}")
        if len(files) > 1:  # each task has pools of its own models: together they would be mostly unobserved
            names = ", ".join(file.name for file in files)
            raise BenchmarkError(f"{path}: every task has models of its own; import one file of {names}.")
        for file in files:
            yield from _task(file, file.name.removesuffix(_END), options, notes)


def _task(file: Path, task: str, options: ReadOptions, notes: Notes) -> Iterator[Answer]:
    plain = read_pickle(file)
    pools = list(dict.fromkeys("/".join(name[:3]) for name in plain if name[3:] == ("model",)))
    if not pools:
        raise BenchmarkError(f"{file}: no pool of models in it; RouterEval's layout is looked for.")
    pool = options.variant or pools[0]
    if pool not in pools:
        raise BenchmarkError(f"{file}: no pool {pool!r} (pools: {', '.join(pools)}); {nearest(pool, pools)}")
    if options.variant is None:
        notes.choose("pool", pool)
    at = tuple(pool.split("/"))
    models = _texts(plain, (*at, "model"), file)
    for side in _SIDES:
        scores = _numbers(plain, (*at, "data", f"{side}_score"), file)
        prompts = _texts(plain, ("prompt", f"{side}_prompt"), file)
        if scores.shape != (len(prompts), len(models)):
            raise BenchmarkError(
                f"{file}: {side}_score of {pool} is {scores.shape}, of {len(prompts)} prompts and {len(models)} models."
            )
        numbers = plain.get(("split_index", f"{side}_indices"), np.arange(len(prompts)))
        if len(numbers) != len(prompts):
            raise BenchmarkError(f"{file}: {len(numbers)} {side}_indices of {len(prompts)} prompts.")
        for i, prompt in enumerate(prompts):
            for model, score in zip(models, scores[i], strict=True):
                yield Answer(
                    query=f"{side}-{numbers[i]}",
                    task=task,
                    model=model,
                    prompt=prompt,
                    score=None if np.isnan(score) else float(score),
                    output_tokens=0.0,
                    estimated=True,
                    at=f"{file}, {side} row {i + 1}",
                )


def _texts(plain: Plain, name: tuple[str, ...], file: Path) -> list[str]:
    found = plain.get(name)
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise BenchmarkError(f"{file}: no texts under {'/'.join(name)!r}; RouterEval's layout is looked for.")
    return [text for text in found if text is not None]


def _numbers(plain: Plain, name: tuple[str, ...], file: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    found = plain.get(name)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "biuf":
        raise BenchmarkError(f"{file}: no numbers under {'/'.join(name)!r}; RouterEval's layout is looked for.")
    return found.astype(np.float64)
