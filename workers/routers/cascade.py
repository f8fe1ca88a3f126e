"""What could a cascade do with a judge of known error? RouterBench's simulated cascade."""

from __future__ import annotations

from typing import Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import Calls, Positions, Router, Side
from workers.routers.chains import by_cost, calls_along, filled_outcomes, mean_of_settings, priced
from workers.routers.pairs import frontier_chain

Settings = Literal["budgets", "thresholds"]
Chain = Literal["all", "frontier"]

#: Budgets per query that a frontier is drawn with, besides that of the first call alone.
BUDGETS = 40
#: Least budget, as a share of what the dearest training query costs if every model is called.
LEAST_BUDGET = 1e-4
#: Thresholds on the judged quality, besides the one that accepts every answer.
THRESHOLDS = np.linspace(0.0, 1.0, 21)


class Cascade(Router):
    """Models are asked from the cheapest on until a judge accepts an answer; the last one's answer is given anyway.

    The judge reads the answer's true score, so this is a reference and no router: it accepts a score of at least q, and
    is wrong with probability `error`, on every call anew. Here answers and calls are expectations in closed form.

    `settings: budgets` is what the original's code does (checked in `routers/run_cascading_router.py` of
    github.com/withmartian/routerbench): q is the 0.95 quantile of all scores, and the frontier is drawn by the most
    that a query may cost. A call is not made, and the answer before it given, if its cost reaches what is left; the
    first call is always made. `settings: thresholds` draws it by q, without a budget; of binary scores that leaves two
    points. The original asks all models, in the order of list prices per token.

    Readings of this project: models are ordered by mean training cost; quantiles and budgets are those of the training
    side, 40 budgets in geometric steps up to its dearest query; outcomes that it did not observe count as their model's
    means; of the settings those remain that some price of cost would choose by their training means.

    Args:
        error: Probability that the judge is wrong; the original tries several from 0 to 0.8.
        settings: What is varied along the frontier.
        quantile: Of the training scores; q of `settings: budgets`.
        chain: Whether all models are asked or those on the frontier of the training means.
    """

    name = "cascade"
    summary = "simulated cascade with a judge of known error; a reference"
    source = "Hu et al. 2024, RouterBench, arXiv 2403.12031, section 4 (cascading routers)"
    needs_embedding = False
    privileged = True

    def __init__(
        self, *, error: float = 0.0, settings: Settings = "budgets", quantile: float = 0.95, chain: Chain = "all"
    ) -> None:
        for key, value in (("error", error), ("quantile", quantile)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{key} must be a number within [0, 1], not {value!r}.")
        for key, choice, choices in (("settings", settings, Settings), ("chain", chain, Chain)):
            if choice not in get_args(choices):
                raise ValueError(f"{key} must be one of {', '.join(get_args(choices))}, not {choice!r}.")
        self.error = error
        self.settings: Settings = settings
        self.quantile = quantile
        self.chain: Chain = chain

    chain_: Positions
    #: Least accepted score and most cost of a query in each setting. Both [K]
    thresholds_: Floats
    budgets_: Floats
    train_scores_: Floats
    train_costs_: Floats

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Order the models and choose thresholds and budgets."""
        scores, costs = filled_outcomes(train)
        self.chain_ = by_cost(train) if self.chain == "all" else frontier_chain(train)
        levels = scores[:, self.chain_]
        if self.settings == "budgets":
            most = float(costs[:, self.chain_].sum(axis=1).max()) * (1 + 1e-9)
            self.budgets_ = np.concatenate([[0.0], np.geomspace(LEAST_BUDGET, 1.0, BUDGETS) * most])
            self.thresholds_ = np.full(len(self.budgets_), np.quantile(levels, self.quantile))
        else:
            self.thresholds_ = np.unique(np.append(np.quantile(levels, THRESHOLDS), -np.inf))
            self.budgets_ = np.full(len(self.thresholds_), np.inf)
        # One setting at a time: those of a large training side together would not fit into memory.
        means = [
            mean_of_settings(*self._calls(scores, costs, slice(k, k + 1)), scores, costs)
            for k in range(len(self.budgets_))
        ]
        mean_scores, mean_costs = np.array(means)[:, :, 0].T
        kept = priced(mean_scores, mean_costs)
        self.thresholds_, self.budgets_ = self.thresholds_[kept], self.budgets_[kept]
        self.train_scores_, self.train_costs_ = mean_scores[kept], mean_costs[kept]
        return self

    def predict(self, queries: Side) -> Calls:
        """Expected answers and calls at each setting, by the queries' own outcomes."""
        answers, called = self._calls(*queries.outcomes, slice(None))
        return Calls(answers=answers, called=called, train_scores=self.train_scores_, train_costs=self.train_costs_)

    def _calls(self, scores: Floats, costs: Floats, settings: slice) -> tuple[Floats, Floats]:
        """Expected answers and calls at some settings. Both [K, n, M]."""
        good = scores[:, self.chain_] >= self.thresholds_[settings, None, None]
        accepted = np.where(good, 1.0 - self.error, self.error)
        asked = costs[:, self.chain_]
        left = self.budgets_[settings, None, None] - (np.cumsum(asked, axis=1) - asked)
        # An answer is final too where the next call is not made.
        final = np.zeros(accepted.shape, dtype=bool)
        final[..., :-1] = asked[:, 1:] >= left[..., 1:]
        return calls_along(self.chain_, np.where(final, 1.0, accepted), scores.shape[1])
