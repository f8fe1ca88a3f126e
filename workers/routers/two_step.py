"""When is a small model's answer kept, and when is a larger one called? What such routers share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from itertools import pairwise
from typing import ClassVar, Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.answer_scorer import Scorer, fit_scorer, judge, judged_out_of_fold, targets_of
from workers.routers.answers import answers_of
from workers.routers.base import Calls, Positions, Router, Side
from workers.routers.chains import calls_along, filled_outcomes, mean_of_settings, priced
from workers.routers.pairs import frontier_chain

Pairs = Literal["chain", "ends"]


class TwoStepRouter(Router, ABC):
    """A small model answers; by its confidence in that, a rule keeps the answer or calls a larger model.

    What is this project's reading in all of them:

    - The methods are of two models. Among more, `pairs: chain` takes every two adjacent models of the frontier of the
      training means (`frontier_chain`), `pairs: ends` its cheapest and its best model. Settings are the rules that the
      method proposes for each pair, and each of these models alone; those remain that some price of cost would choose
      by their training means.
    - `signal: learned` stands in for a confidence that a benchmark lacks: P(the answer is good) by a logistic scorer on
      [x ; features of the answer's text] (`fit_scorer`); rules and means are had from out-of-fold judgements.
    - A missing confidence counts as 0, an outcome that was not observed as its model's training mean.
    """

    #: The column of a benchmark that holds the confidence.
    column: ClassVar[str]
    uses = ("samples",)

    signal: str
    pairs: Pairs
    penalty: float

    def requirements(self) -> tuple[str, ...]:
        """Answers for the learned signal, else its column."""
        return ("response",) if self.signal == "learned" else (self.column,)

    def check_shared(self) -> None:
        """Refuse parameters that the base reads.

        Raises:
            ValueError: Naming the parameter.
        """
        choices = (("signal", self.signal, (self.column, "learned")), ("pairs", self.pairs, get_args(Pairs)))
        for key, choice, allowed in choices:
            if choice not in allowed:
                raise ValueError(f"{key} must be one of {', '.join(allowed)}, not {choice!r}.")
        check_number("penalty", self.penalty, above=True)

    @property
    def further_calls(self) -> float:
        """Calls of the small model that its confidence costs, besides the answer."""
        return 0.0

    @abstractmethod
    def propose(self, confidence: Floats, small: Floats, large: Floats) -> Floats:
        """Rules for one pair, a row each. [K, width].

        Args:
            confidence: In the small model's answers. [n]
            small: Scores of the small model, NaN = not observed. [n]
            large: Scores of the large model. [n]
        """

    @abstractmethod
    def calls_large(self, rules: Floats, confidence: Floats) -> Floats:
        """Which queries go on to the large model, 0 or 1, by each rule. [K, n]."""

    #: Models whose confidence is read. [P]
    small_: Positions
    #: Of these models; empty without a learned signal.
    scorer_: Scorer
    #: Small and large model of each setting, -1 where one answers alone. [K, 2]
    models_: Positions
    #: Rule of each setting, zeros where a model answers alone. [K, width]
    rules_: Floats
    train_scores_: Floats
    train_costs_: Floats

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Propose rules for every pair, and keep those worth their price."""
        chain = frontier_chain(train)
        if self.pairs == "ends":
            chain = chain[[0, -1]] if len(chain) > 1 else chain
        self.small_ = chain[:-1]
        confidence = self._confidence_of_train(train, rng)
        scores, costs = filled_outcomes(train)
        models, rules, means = [], [], []
        for place, (small, large) in enumerate(pairwise(chain)):
            pair = [small, large]
            proposed = self.propose(confidence[:, place], train.outcomes[0][:, small], train.outcomes[0][:, large])
            answers, called = self._calls(np.array([0, 1]), proposed, confidence[:, place], 2)
            models += [pair] * len(proposed)
            rules.append(proposed)
            means.append(np.stack(mean_of_settings(answers, called, scores[:, pair], costs[:, pair])))
        width = rules[0].shape[1] if rules else 0
        models += [[model, -1] for model in chain]
        rules.append(np.zeros((len(chain), width)))
        means.append(np.stack([scores[:, chain].mean(axis=0), costs[:, chain].mean(axis=0)]))
        mean_scores, mean_costs = np.concatenate(means, axis=1)
        kept = priced(mean_scores, mean_costs)
        self.models_, self.rules_ = np.array(models, dtype=np.int64)[kept], np.concatenate(rules)[kept]
        self.train_scores_, self.train_costs_ = mean_scores[kept], mean_costs[kept]
        return self

    def predict(self, queries: Side) -> Calls:
        """Answers and calls of the kept settings."""
        confidence, n_models = self._confidence(queries), len(queries.models)
        column = {int(model): place for place, model in enumerate(self.small_)}
        answers, called = (np.zeros((len(self.models_), queries.n, n_models)) for _ in range(2))
        for k, (small, large) in enumerate(self.models_):
            if large < 0:
                answers[k, :, small] = called[k, :, small] = 1.0
            else:
                of_small = confidence[:, column[int(small)]]
                found = self._calls(self.models_[k], self.rules_[k : k + 1], of_small, n_models)
                answers[k], called[k] = (array[0] for array in found)
        return Calls(answers=answers, called=called, train_scores=self.train_scores_, train_costs=self.train_costs_)

    def _calls(self, pair: Positions, rules: Floats, confidence: Floats, n_models: int) -> tuple[Floats, Floats]:
        """Answers and calls of a pair's rules. Both [K, n, M]."""
        goes_on = self.calls_large(rules, confidence)
        answers, called = calls_along(pair, np.stack([1.0 - goes_on, goes_on], axis=-1), n_models)
        called[..., pair[0]] += self.further_calls
        return answers, called

    def _confidence_of_train(self, train: Side, rng: np.random.Generator) -> Floats:
        """As `_confidence`; a learned one out of fold."""
        self.scorer_ = {}
        if self.signal != "learned" or not len(self.small_):
            return self._confidence(train)
        answers, targets = answers_of(train).of(self.small_), targets_of(train)[:, self.small_]
        self.scorer_ = fit_scorer(train.X, answers, targets, self.penalty)
        return judged_out_of_fold(train, answers, targets, rng, self.penalty)

    def _confidence(self, side: Side) -> Floats:
        """Confidence in the answers of the small models. [n, P]."""
        if not len(self.small_):
            return np.zeros((side.n, 0))
        if self.signal == "learned":
            return judge(self.scorer_, side.X, answers_of(side).of(self.small_))
        return np.nan_to_num(side.extra(self.column)[:, self.small_].astype(np.float64), nan=0.0)


def check_number(key: str, value: object, *, above: bool) -> None:
    """Refuse what is not a finite number, at least 0 or above it.

    Raises:
        ValueError: Naming the parameter.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and (value > 0 if above else value >= 0)):  # type: ignore[operator]
        raise ValueError(f"{key} must be a number {'above' if above else 'of at least'} 0, not {value!r}.")
