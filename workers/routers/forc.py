"""Which model does each query deserve under a budget? Chances of being right, expected costs, and an assignment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, get_args

import numpy as np

from workers.benchmarks.base import Floats
from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.metrics.selection import one_hot
from workers.routers.base import Calls, Mixture, Positions, Prediction, Router, Side, mean_outcomes
from workers.routers.logistic import chances, fit_heads
from workers.routers.parameters import check_number, filled, log_uniform

Strategy = Literal["ilp", "greedy", "max", "threshold"]
BudgetStrategy = Literal["ilp", "greedy"]


class FORC(Router):
    """FORC: P(right) of every model by a logistic head on x, expected cost by prompt length, then a strategy.

    The original's head is a fine-tuned DistilBERT; here it is logistic regression on the frozen embedding (reading of
    this project), trained on scores anywhere in [0, 1]. Cost is prompt tokens x input price + mean output cost, where
    the benchmark has `input_tokens` and the model an input price; else the model's mean training cost. A router is not
    told what cost 1 is in USD, so that factor is the least-squares slope, common to all models, of costs against
    tokens x price, and at most what leaves no observed output a negative cost (reading of this project; exact if the
    length of outputs does not follow that of prompts).

    Strategies, as read in `src/model_strategies` of github.com/epfl-dlab/forc, and what they are under a price of cost:

    - `ilp`: most Σ P within a budget. A price λ chooses argmax P - λĉ, which is optimal for the budget that it spends
      (Everett 1963): λ is the dual of the budget, and the walk over all λ solves the linear relaxation at every budget.
    - `greedy`: queries as they come get their most probable model while the budget lasts. The original answers the
      others not at all; every query must be answered here, so they get their cheapest model, whose costs the budget
      sets aside (reading of this project). Over random orders of arrival that is a mixture of the two, so the router
      has two settings, most probable and cheapest, between which the frontier is straight.
    - `max`: the most probable model, whatever it costs: one operating point.
    - `threshold`: the cheapest model whose P exceeds the threshold; the dearest where none does: one operating point.

    As a selector `ilp` maximises P - λĉ at the preference's price, `greedy` takes the setting of the higher training
    utility there, and the others do as they always do. `within` assigns a batch of queries under a budget.

    Args:
        C: Weight of the errors against the squared coefficients of the heads, scikit-learn's `LogisticRegression(C)`,
            whose default is 1; 0 predicts training means, the query-blind limit; None: tuned.
        strategy: `ilp`, `greedy`, `max` or `threshold`.
        threshold: P above which `threshold` trusts a model; the original's 0.5.
    """

    name = "forc"
    summary = "logistic chance of being right, cost by prompt length, four strategies"
    source = "Šakota, Peyrard & West 2024, Fly-Swat or Cannon?, WSDM, arXiv 2308.06077, and its code"
    formulations = ("utility", "selection")
    uses = ("input_tokens",)
    tunables = ("C",)

    def __init__(self, *, C: float | None = None, strategy: Strategy = "ilp", threshold: float = 0.5) -> None:
        if C is not None:
            check_number("C", C, 0.0)
        if strategy not in get_args(Strategy):
            raise ValueError(f"strategy must be one of {', '.join(get_args(Strategy))}, not {strategy!r}.")
        check_number("threshold", threshold, 0.0, 1.0)
        if threshold != 0.5 and strategy != "threshold":
            raise ValueError("threshold is read by strategy `threshold` alone; leave it out or name that strategy.")
        self.C = C
        self.strategy: Strategy = strategy
        self.threshold = threshold

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space."""
        return {"C": {"log": [1e-3, 1e3]}, "first": [{"C": 1.0}, {"C": 0.0}]}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """scikit-learn's C = 1, the query-blind C = 0, then log-uniform draws."""
        return filled([{"C": 1.0}, {"C": 0.0}], lambda: {"C": log_uniform(rng, 1e-3, 1e3)}, budget)

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """The smaller C."""
        return (params["C"],)

    price_: float | None

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Fit the heads and split costs into what the prompt and what the answer costs."""
        if self.C is None:
            raise RouterError("router 'forc': C is neither given nor tuned; give C.")
        self.price_ = None
        scores, costs = train.outcomes
        self.coefficients_, self.intercepts_ = fit_heads(train.X, scores, self.C)
        self.costs_ = mean_outcomes(train)[1]
        self.rates_, self.output_costs_ = _token_costs(train, self.costs_)
        self.setting_scores_ = self.setting_costs_ = np.zeros(0)
        if self.strategy == "greedy":
            prediction, rows = self._outcomes(train), np.arange(train.n)
            chosen = np.stack([choose(prediction, 0.0), _cheapest(prediction)])
            self.setting_scores_, self.setting_costs_ = (
                np.where(np.isnan(values), predicted, values)[rows, chosen].mean(axis=1)
                for values, predicted in ((scores, prediction.scores), (costs, prediction.costs))
            )
        return self

    def predict(self, queries: Side) -> Prediction | Mixture | Calls:
        """P and ĉ [n, M], one operating point, or the settings between which a greedy budget mixes."""
        prediction = self._outcomes(queries)
        if self.strategy == "ilp":
            return prediction
        if self.strategy == "greedy":
            return self._settings(prediction)
        return Mixture(probabilities=one_hot(self._fixed(prediction), len(self.costs_)))

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Fit as for utility prediction and keep the price."""
        self.fit(train, rng)
        self.price_ = price
        return self

    def select(self, queries: Side) -> Positions:
        """The strategy's choice at the price. [n]."""
        assert self.price_ is not None
        prediction = self._outcomes(queries)
        if self.strategy == "ilp":
            return choose(prediction, self.price_)
        if self.strategy == "greedy":
            settings = self._settings(prediction)
            return choose(prediction, 0.0) if settings.setting(self.price_) == 0 else _cheapest(prediction)
        return self._fixed(prediction)

    def within(self, queries: Side, budget: float) -> Positions:
        """Assign a batch of queries under a budget. [n].

        Args:
            queries: The batch; what one query gets depends on the others.
            budget: Total predicted cost that may be spent, in units of cost 1.

        Raises:
            RouterError: The strategy knows no budget, or the budget is below what the cheapest models cost.
        """
        if self.strategy not in get_args(BudgetStrategy):
            raise RouterError(f"router 'forc': strategy {self.strategy!r} knows no budget; use `ilp` or `greedy`.")
        return assign(self._outcomes(queries), budget, "greedy" if self.strategy == "greedy" else "ilp")

    def _outcomes(self, queries: Side) -> Prediction:
        """P(right) and expected cost. [n, M]."""
        costs = np.broadcast_to(self.costs_, (queries.n, len(self.costs_)))
        tokens = queries.extras.get("input_tokens")
        if tokens is not None and self.rates_.any():
            priced = self.rates_ * tokens + self.output_costs_
            costs = np.where(np.isnan(priced), costs, priced)
        return Prediction(scores=chances(queries.X, self.coefficients_, self.intercepts_), costs=costs)

    def _settings(self, prediction: Prediction) -> Calls:
        m = len(self.costs_)
        answers = np.stack([one_hot(choose(prediction, 0.0), m), one_hot(_cheapest(prediction), m)])
        return Calls(
            answers=answers, called=answers, train_scores=self.setting_scores_, train_costs=self.setting_costs_
        )

    def _fixed(self, prediction: Prediction) -> Positions:
        """The choice of the strategies that have no price of cost. [n]."""
        if self.strategy == "max":
            return choose(prediction, 0.0)
        trusted = prediction.scores > self.threshold
        # Where nobody is trusted the dearest, as the cheapest of negative costs.
        costs = np.where(trusted.any(axis=1, keepdims=True), prediction.costs, -prediction.costs)
        allowed = trusted | ~trusted.any(axis=1, keepdims=True)
        return _cheapest(Prediction(scores=prediction.scores, costs=np.where(allowed, costs, np.inf)))


def assign(prediction: Prediction, budget: float, strategy: BudgetStrategy = "ilp") -> Positions:
    """Name a model for every query so that the predicted costs stay within a budget. [n].

    Args:
        prediction: Predicted scores and costs, the latter at least 0. [n, M]
        budget: What may be spent in total, in the unit of the costs.
        strategy: `ilp`: the highest total predicted score, any of several such assignments; the solver may overdraw by
            a millionth of what the budget leaves above the cheapest models' costs. `greedy`: in the order of the
            queries each gets its model of the highest score while the budget lasts, else its cheapest.

    Raises:
        RouterError: The budget is below what the cheapest models cost together, or the solver gives up.
    """
    least = prediction.costs.min(axis=1)
    room = budget - float(least.sum())
    if not room >= -1e-9 * abs(budget):
        raise RouterError(
            f"a budget of {budget:g} is below {least.sum():g}, what the cheapest model of every query costs; raise it."
        )
    room, extra = max(room, 0.0), prediction.costs - least[:, None]
    if strategy == "greedy":
        best, cheap = choose(prediction, 0.0), _cheapest(prediction)
        affordable = _first_come(extra[np.arange(len(best)), best], room)
        return np.where(affordable, best, cheap)
    affordable = extra <= room
    free = choose(Prediction(scores=np.where(affordable, prediction.scores, -np.inf), costs=prediction.costs), 0.0)
    if extra[np.arange(len(free)), free].sum() <= room or room == 0:
        return free
    return _solve(prediction.scores, extra / room, affordable)


def _first_come(costs: Floats, room: float) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Who is served if each in turn is served whenever the rest of the room suffices. [n]."""
    served = np.zeros(len(costs), dtype=np.bool_)
    waiting = np.flatnonzero(costs <= room)
    while len(waiting):
        spent = np.cumsum(costs[waiting])
        fits = int(np.searchsorted(spent, room, side="right"))
        served[waiting[:fits]] = True
        room -= float(spent[fits - 1])
        waiting = waiting[fits:][costs[waiting[fits:]] <= room]
    return served


def _solve(scores: Floats, shares: Floats, affordable: np.ndarray[Any, np.dtype[np.bool_]]) -> Positions:
    """One model for each query, the most score, shares of the budget that sum to at most 1. [n]."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import eye_array, kron

    n, m = scores.shape
    answer = milp(
        -scores.ravel(),
        integrality=np.ones(n * m),
        bounds=Bounds(0.0, affordable.ravel().astype(np.float64)),
        constraints=[
            LinearConstraint(kron(eye_array(n), np.ones((1, m)), format="csr"), 1.0, 1.0),
            LinearConstraint(np.where(affordable, shares, 0.0).reshape(1, -1), -np.inf, 1.0),
        ],
        options={"mip_rel_gap": 0.0},
    )
    if answer.x is None:
        raise RouterError(f"the assignment was not solved: {answer.message}")
    models: Positions = answer.x.reshape(n, m).argmax(axis=1)
    return models


def _cheapest(prediction: Prediction) -> Positions:
    """The model of the lowest predicted cost; ties to the higher score, then the earlier. [n]."""
    least = prediction.costs <= prediction.costs.min(axis=1, keepdims=True)
    models: Positions = np.where(least, prediction.scores, -np.inf).argmax(axis=1)
    return models


def _token_costs(train: Side, mean_costs: Floats) -> tuple[Floats, Floats]:
    """Cost of a prompt token and mean cost of an answer; 0 and the mean cost where that is not known. Both [M]."""
    rates = np.zeros(len(train.models))
    if "input_tokens" not in train.extras:
        return rates, mean_costs
    prices = np.array([np.nan if model.price_in is None else model.price_in for model in train.models])
    costs = train.outcomes[1]
    inputs = train.extra("input_tokens") * prices
    known = ~np.isnan(inputs) & ~np.isnan(costs)
    counts = np.maximum(known.sum(axis=0), 1)

    def centred(values: Floats) -> Floats:
        return np.where(known, values - np.where(known, values, 0.0).sum(axis=0) / counts, 0.0)

    spread, paid = centred(inputs), known & (inputs > 0)
    if not (spread**2).sum() > 0:
        return rates, mean_costs
    slope = (spread * centred(costs)).sum() / (spread**2).sum()
    most = (costs[paid] / inputs[paid]).min()
    rates = np.where(known.any(axis=0), float(np.clip(slope, 0.0, most)) * prices, 0.0)
    tokens = np.where(known, train.extra("input_tokens"), 0.0)
    outputs = np.where(known, costs - rates * tokens, 0.0).sum(axis=0) / counts
    return rates, np.where(known.any(axis=0), outputs, mean_costs)
