"""What would a judge's preferences be if a model's answers were as long as the baseline's?

The length-controlled win rate of AlpacaEval 2: Dubois, Galambosi, Liang, Hashimoto 2024, "Length-Controlled AlpacaEval"
(arXiv 2404.04475); alpaca_eval, `metrics/glm_winrate.py`, `length_controlled_v1`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workers.benchmarks.base import Floats
from workers.benchmarks.columns import read_columns
from workers.errors import BenchmarkError

#: Names that `Weights` have in alpaca_eval's file of them.
_WEIGHTS = ("np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)")
#: alpaca_eval fits each model together with two gamed baselines, 805 answers of the baseline told to be concise and 805
#: told to be verbose, at a weight of 0.1 each. Their loss knows their preferences by two sums alone, over preference
#: times tanh of length (-182.71) and over preference times difficulty (412.93). At a model's published weights the
#: gradient is 0, which gives both sums; 56 models agree on them. With the gamed answers' lengths the loss has its
#: minimum at (-1.8367, 0.7444) and a curvature there, which these three pseudo-answers have too: tanh of length,
#: difficulty, preference, number.
_GAMED = np.array(
    [
        [1.0, 0.0, 0.137443, 650.070],
        [0.0, 2.0, 0.815899, 490.526],
        [1.0, 2.0, 0.413895, 150.844],
    ]
)
_GAMED_WEIGHT = 0.1
#: Of weights and difficulties; they are logits.
_LARGEST = 1000
#: 1 / C of the L1 penalty. alpaca_eval chooses C for each model by cross-validation: 2.8 or 21.5 for most.
_PENALTY = 1 / 21.5443469
#: |w| is taken as sqrt(w^2 + _ROUNDING^2), which has derivatives.
_ROUNDING = 1e-3
_SMALL_STEP = 1e-9
_MOST_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What decides a preference, in logits."""

    #: Of tanh(length difference / its standard deviation).
    length: float
    #: Of the instruction's difficulty.
    difficulty: float
    #: Of the model itself.
    model: float


def length_controlled_win_rate(
    preferences: Floats, length_differences: Floats, difficulties: Floats, *, weights: Weights | None = None
) -> float:
    """Length-controlled win rate of a model against a baseline.

    A logistic regression explains the preferences by three terms, the difference in length, the instruction's
    difficulty and the model; the win rate is the mean of what it predicts where the difference in length is 0. With
    the weights that alpaca_eval publishes of a model this is the published figure. Without, they are fitted here, and
    the win rate is an approximation: of the 50 models whose 805 answers could be read it misses the published one by
    0.05 percentage points on average, by 0.11 at most but for `NullModel` (0.26) and `gpt4_gamed` (0.53), which are
    made to game the judge.

    Source: alpaca_eval, `metrics/glm_winrate.py`, `get_length_controlled_winrate`; Dubois et al. 2024.

    Args:
        preferences: Probability that the judge prefers the model's answer, 0.5 for a draw, NaN where it gave none.
            [n_questions], not used where `weights` are given.
        length_differences: Characters of the baseline's answer less those of the model's. [n_questions], not used where
            `weights` are given.
        difficulties: alpaca_eval's `instruction_difficulty` of each question, in logits. [n_questions]
        weights: Fitted weights of the model; None: fitted here.

    Returns:
        From 0 to 1; the leaderboard multiplies by 100.
    """
    weights = weights or fit_weights(preferences, length_differences, difficulties)
    return float(length_controlled_preferences(weights, difficulties).mean())


def length_controlled_preferences(weights: Weights, difficulties: Floats) -> Floats:
    """`glm_preference` of alpaca_eval: what is predicted where lengths do not differ, [n_questions], 0 to 1."""
    return _logistic(weights.model + weights.difficulty * difficulties)


def fit_weights(preferences: Floats, length_differences: Floats, difficulties: Floats) -> Weights:
    """Fit `length_controlled_v1`, with three pseudo-answers in place of the gamed baselines and one penalty for all.

    Args:
        preferences: As in `length_controlled_win_rate`; rows of NaN are left out.
        length_differences: As there; their standard deviation is of all rows.
        difficulties: As there; rows of NaN are left out.
    """
    spread = float(length_differences.std(ddof=1)) if len(length_differences) > 1 else 0.0
    lengths = np.tanh(length_differences / spread) if spread > 0 else np.zeros(len(length_differences))
    used = ~(np.isnan(preferences) | np.isnan(difficulties))
    own = np.column_stack([lengths, difficulties, np.ones(len(lengths))])[used]
    gamed = np.column_stack([_GAMED[:, :2], np.zeros(len(_GAMED))])
    X = np.concatenate([own, gamed])
    wanted = np.concatenate([preferences[used], _GAMED[:, 2]])
    n = np.concatenate([np.ones(len(own)), _GAMED_WEIGHT * _GAMED[:, 3]])

    def loss(weights: Floats) -> float:
        logits = X @ weights
        fit = (n * (np.logaddexp(0, logits) - wanted * logits)).sum()
        return float(fit + _PENALTY * np.hypot(weights, _ROUNDING).sum())

    weights = np.zeros(3)
    for _ in range(_MOST_STEPS):  # Newton's, halved until they descend
        predicted, size = _logistic(X @ weights), np.hypot(weights, _ROUNDING)
        gradient = X.T @ (n * (predicted - wanted)) + _PENALTY * weights / size
        curvature = X.T @ (X * (n * predicted * (1 - predicted))[:, None])
        step = np.linalg.solve(curvature + np.diag(_PENALTY * _ROUNDING**2 / size**3), gradient)
        before = loss(weights)
        while np.abs(step).max() > _SMALL_STEP and loss(weights - step) > before:
            step = step / 2
        weights = weights - step
        if np.abs(step).max() <= _SMALL_STEP:
            break
    length, difficulty, model = weights.tolist()
    return Weights(length=length, difficulty=difficulty, model=model)


def read_weights(path: Path) -> dict[str, Weights]:
    """Fitted weights by model, from alpaca_eval's `metrics/weights/<annotator>/length_controlled_v1/baseline_*.csv`.

    Raises:
        BenchmarkError: With the row at fault.
    """
    columns = read_columns(path, {"", *_WEIGHTS})
    columns.require("", *_WEIGHTS)
    models = columns.ids("").to_pylist()
    values = np.column_stack([columns.numbers(name) for name in _WEIGHTS])
    for row in np.flatnonzero(~(np.abs(values) <= _LARGEST).all(axis=1))[:1]:
        raise BenchmarkError(f"{columns.at(int(row))}: a weight of {models[row]!r} is not within ±{_LARGEST}.")
    return {
        model: Weights(length=length, difficulty=difficulty, model=own)
        for model, (length, difficulty, own) in zip(models, values.tolist(), strict=True)
    }


def read_difficulties(path: Path, order: Iterable[str]) -> dict[str, float]:
    """Difficulty of each instruction, by `instruction_key`.

    Args:
        path: alpaca_eval's `instruction_difficulty.csv`: a difficulty for each place in the order of the baseline's
            answers, or by a column `instruction_sha256_16`.
        order: Keys of the instructions in that order; read only where the file has no such column.

    Raises:
        BenchmarkError: With the row at fault, or the file has another number of instructions than the baseline.
    """
    columns = read_columns(path, {"instruction_sha256_16", "instruction_difficulty"})
    columns.require("instruction_difficulty")
    values = columns.numbers("instruction_difficulty")
    for row in np.flatnonzero(~(np.abs(values) <= _LARGEST))[:1]:
        raise BenchmarkError(f"{columns.at(int(row))}: the difficulty is not within ±{_LARGEST}.")
    if "instruction_sha256_16" in columns.names:
        keys = list(columns.ids("instruction_sha256_16").to_pylist())
    else:
        keys = list(order)
    if len(keys) != len(values):
        raise BenchmarkError(
            f"{path}: {len(values)} difficulties, but the baseline answers {len(keys)} instructions; they are paired "
            "by order, so put the baseline's whole model_outputs.json in its folder, or add a column "
            "instruction_sha256_16 (the first 16 hexadecimal digits of the instruction's SHA-256)."
        )
    return dict(zip(keys, values.tolist(), strict=True))


def recovered_difficulties(controlled: Mapping[str, float], weights: Weights) -> dict[str, float]:
    """Difficulties that a model's `glm_preference` must have come from, by the same keys; {} where they cannot be told.

    Args:
        controlled: `glm_preference` by instruction, 0 to 1.
        weights: Fitted weights of the same model.
    """
    values = np.array(list(controlled.values()))
    if abs(weights.difficulty) < 1e-3 or not ((values > 0) & (values < 1)).all():
        return {}
    logits = np.log(values) - np.log1p(-values)
    return dict(zip(controlled, ((logits - weights.model) / weights.difficulty).tolist(), strict=True))


def instruction_key(instruction: str) -> str:
    """Identity of an instruction: the first 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(instruction.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _logistic(x: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))
