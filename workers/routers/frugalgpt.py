"""Which chain of models, asked until a scorer accepts, is best under each budget? FrugalGPT's cascade."""

from __future__ import annotations

from typing import Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.metrics.areas import hull, value_at
from workers.metrics.frontier import Path
from workers.routers.agreement import agreements, fit_agreement, judge_again
from workers.routers.answer_scorer import Scorer, fit_scorer, judge, judged_out_of_fold, targets_of
from workers.routers.answers import answers_of
from workers.routers.base import Calls, Positions, Router, Side, mean_outcomes
from workers.routers.chain_search import search_chains
from workers.routers.chains import DECIMALS, by_cost, calls_along, filled_outcomes
from workers.routers.two_step import check_number
from workers.training import check_whole

Kind = Literal["learned", "confidence"]


class FrugalGPT(Router):
    """Chains of up to three models: an answer with g(query, answer) above its model's threshold is given.

    For every budget the chain and its thresholds are those of the highest mean score on the training side whose mean
    cost keeps to it, among all ordered triples, pairs and single models and a grid of quantiles of g. The original's
    code (checked in `optimizer.py`, `llmchain.py` and `llmcascade.py` of github.com/stanford-futuredata/FrugalGPT)
    trains a DistilBERT scorer for each model on the text "query answer", takes all permutations of three models, and
    searches 40 quantiles each by brute force, then polishes them.

    Readings of this project: g is a logistic scorer on [x ; features of the answer's text] for each model
    (`fit_scorer`); thresholds and means are had from out-of-fold scores, because a scorer is too sure of answers that
    it was trained on (the original chooses thresholds on the scorer's training side); quantiles are those of all
    training answers of a model, the original's of the queries that get that far, and they are not polished; of more
    than `pool` models chains are made of those nearest to the frontier of the training means. Budgets are 40 in
    geometric steps from the cheapest model's mean cost to that of the three dearest. Training means of settings that
    are the best of many are still optimistic: a price of cost chooses by them, the frontier does not depend on them.
    `agreement` is no part of the original: the second answer of a chain is then judged by its agreement with the first
    too (`fit_agreement`, on out-of-fold judgements), which has been paid for by then.
    Outcomes that the training side did not observe count as their model's means. An answer without a confidence is
    given only as the chain's last.

    Args:
        scorer: `learned`: g is learned from answers; `confidence`: it is the models' own confidence.
        quantiles: The grid of thresholds of a model: its g's quantiles 1 / quantiles, 2 / quantiles, ..., 1
        pool: Most models that chains are made of.
        penalty: Of the squared weights of the learned scorer.
        agreement: Whether second answers are compared with first ones.
    """

    name = "frugalgpt"
    summary = "chains of up to 3 models, a scorer of answers, thresholds per budget"
    source = "Chen et al. 2023, FrugalGPT, arXiv 2305.05176, section 3 (LLM cascade)"
    needs = ("response",)
    uses = ("samples",)

    def __init__(
        self,
        *,
        scorer: Kind = "learned",
        quantiles: int = 40,
        pool: int = 12,
        penalty: float = 10.0,
        agreement: bool = False,
    ) -> None:
        if scorer not in get_args(Kind):
            raise ValueError(f"scorer must be one of {', '.join(get_args(Kind))}, not {scorer!r}.")
        check_whole("quantiles", quantiles, 2)
        check_whole("pool", pool, 1)
        check_number("penalty", penalty, above=True)
        if not isinstance(agreement, bool):
            raise ValueError(f"agreement must be true or false, not {agreement!r}.")
        self.scorer: Kind = scorer
        self.quantiles = quantiles
        self.pool = pool
        self.penalty = penalty
        self.agreement = agreement

    def requirements(self) -> tuple[str, ...]:
        """Answers for the learned scorer and for agreement, else the confidence."""
        reads = ("response",) if self.scorer == "learned" else ("confidence",)
        return (*reads, "response") if self.agreement and "response" not in reads else reads

    #: Models that chains are made of, cheapest first. [P]
    pool_: Positions
    #: Of the models of the pool; empty without a learned scorer.
    scorer_: Scorer
    #: Weights of the judgement of second answers; None without agreement. [P, P, 6]
    agreement_: Floats | None
    #: Positions in the pool of each setting's models in turn, -1 behind the last. [K, 3]
    chains_: Positions
    #: What g must exceed. [K, 3]
    thresholds_: Floats
    train_scores_: Floats
    train_costs_: Floats

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Fit the scorer, then search chains and thresholds."""
        self.pool_ = _pool(train, self.pool)
        scores, costs = (values[:, self.pool_] for values in filled_outcomes(train))
        self.scorer_ = {}
        if self.scorer == "learned":
            answers, targets = answers_of(train).of(self.pool_), targets_of(train)[:, self.pool_]
            judged = judged_out_of_fold(train, answers, targets, rng, self.penalty)
            self.scorer_ = fit_scorer(train.X, answers, targets, self.penalty)
        else:
            judged = self._judged(train)
        second = None
        self.agreement_ = None
        if self.agreement:
            alike = agreements(answers_of(train).of(self.pool_))
            self.agreement_ = fit_agreement(judged, alike, targets_of(train)[:, self.pool_])
            second = judge_again(self.agreement_, judged, alike)
        found = search_chains(judged, scores, costs, self.quantiles, second)
        self.chains_, self.thresholds_ = found.chains, found.thresholds
        self.train_scores_, self.train_costs_ = found.scores, found.costs
        return self

    def _judged(self, side: Side) -> Floats:
        """The judgement g of every answer of the pool's models. [n, P]."""
        if self.scorer == "learned":
            return judge(self.scorer_, side.X, answers_of(side).of(self.pool_))
        confidence = side.extra("confidence")[:, self.pool_]
        return np.where(np.isnan(confidence), -np.inf, confidence)

    def predict(self, queries: Side) -> Calls:
        """Answers and calls of each setting's chain."""
        judged, n_models = self._judged(queries), len(queries.models)
        second = None
        if self.agreement_ is not None:
            second = judge_again(self.agreement_, judged, agreements(answers_of(queries).of(self.pool_)))
        parts = []
        for chain, thresholds in zip(self.chains_, self.thresholds_, strict=True):
            places = chain[chain >= 0]
            accepted = judged[:, places] > thresholds[: len(places)]
            if second is not None and len(places) > 2:
                accepted[:, 1] = second[:, places[0], places[1]] > thresholds[1]
            parts.append(calls_along(self.pool_[places], accepted, n_models))
        answers, called = (np.stack(arrays) for arrays in zip(*parts, strict=True))
        return Calls(answers=answers, called=called, train_scores=self.train_scores_, train_costs=self.train_costs_)


def _pool(train: Side, most: int) -> Positions:
    """The models nearest to the frontier of the training means (in score), by cost. [P]."""
    scores, costs = (np.round(means, DECIMALS) for means in mean_outcomes(train))
    frontier = hull(Path(costs=costs, scores=scores, prices=np.full(len(costs), np.nan)), left="cheapest")
    below = np.array([value_at(frontier, float(cost)) for cost in costs]) - scores
    ordered = by_cost(train)
    nearest = ordered[np.argsort(below[ordered], kind="stable")[:most]]
    return ordered[np.isin(ordered, nearest)]
