"""Does a router keep the contract? Checks that every router, ours or a plug-in's, must pass."""

from __future__ import annotations

import importlib
import inspect
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from workers.benchmarks.base import Benchmark, Floats, Model
from workers.errors import RouterError
from workers.routers.base import (
    Calls,
    Mixture,
    Positions,
    Prediction,
    Router,
    Side,
    resolve_params,
    router_class,
    untuned_params,
)
from workers.saving import load_router, save_router
from workers.sides import hidden, subset, whole
from workers.units import PREFERENCES

Answer = Prediction | Mixture | Calls | Positions

#: Numbers that differ by less are the same: another order of rows is another order of adding.
CLOSE = 1e-4
#: Price of cost at which selectors are checked.
_PRICE = PREFERENCES["balanced"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found."""

    check: str
    #: None: not applicable, for the reason in `message`.
    passed: bool | None
    #: What went wrong and where, or what was measured.
    message: str = ""


class _Broken(Exception):
    """A rule that does not hold; the message says how."""


class _Inapplicable(Exception):
    """Why a check says nothing about this router."""


def find_router(name: str) -> type[Router]:
    """A registered router by its name, or any class by `module:Class`.

    Raises:
        RouterError: No such router, module or class, or it is no router.
    """
    if ":" not in name:
        return router_class(name)
    module, _, attribute = name.partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise RouterError(
            f"{name!r} cannot be imported: {error}; give `module:Class` as Python would find it."
        ) from error
    if not (inspect.isclass(cls) and issubclass(cls, Router) and isinstance(getattr(cls, "name", None), str)):
        raise RouterError(f"{name!r} is not a subclass of roadtest.Router with a `name`.")
    return cls


def check_router(cls: type[Router], params: Mapping[str, Any] | None = None) -> list[Finding]:
    """Check a router on generated data, in seconds; never raises for a fault of the router.

    Args:
        cls: The router.
        params: Parameters; those left out have their defaults, tunables without one the first that tuning would try.

    Returns:
        A finding for each check, in a fixed order.

    Raises:
        RouterError: The parameters are not the router's.
    """
    subject = _Subject(cls, dict(params or {}))
    return [_run(name, check, subject) for name, check in _CHECKS.items()]


def _run(name: str, check: Callable[[_Subject], str | None], subject: _Subject) -> Finding:
    try:
        return Finding(check=name, passed=True, message=check(subject) or "")
    except _Inapplicable as reason:
        return Finding(check=name, passed=None, message=str(reason))
    except _Broken as fault:
        return Finding(check=name, passed=False, message=str(fault))
    except Exception as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        message = f"{type(error).__name__}: {error} ({Path(at.filename).name}, line {at.lineno})"
        return Finding(check=name, passed=False, message=message)


class _Subject:
    """A router with its parameters, and how to fit and ask it in each formulation."""

    def __init__(self, cls: type[Router], params: dict[str, Any]) -> None:
        self.cls = cls
        self.params = untuned_params(cls, params, n_train=150)
        self.train, self.queries = _world()

    @property
    def forms(self) -> tuple[str, ...]:
        return self.cls.formulations

    def fit(self, train: Side, form: str = "utility", seed: int = 0) -> Router:
        router, rng = self.cls(**self.params), np.random.default_rng(seed)
        return router.fit(train, rng) if form == "utility" else router.fit_selector(train, _PRICE, rng)

    def ask(self, router: Router, queries: Side, form: str = "utility") -> Answer:
        asked = queries if self.cls.privileged else hidden(queries)
        return router.predict(asked) if form == "utility" else router.select(asked)

    def answer(self, train: Side, queries: Side, form: str = "utility", seed: int = 0) -> Answer:
        return self.ask(self.fit(train, form, seed), queries, form)

    @property
    def seeded(self) -> bool:
        """Whether the answers depend on the seed."""
        return any(
            not _same(self.answer(self.train, self.queries, form, 0), self.answer(self.train, self.queries, form, 1))
            for form in self.forms
        )


def _world(
    *,
    n: int = 220,
    n_models: int = 4,
    observed: float = 0.95,
    seed: int = 0,
    names: tuple[int, ...] | None = None,
    order: Positions | None = None,
) -> tuple[Side, Side]:
    """Training side and queries of a benchmark whose scores depend on the embedding.

    Args:
        n: Queries; a quarter of them is asked.
        n_models: Models.
        observed: Share of observed training cells.
        seed: Of every draw.
        names: Number in each model's name: another order renames the models. [n_models]
        order: Order in which queries and models are handed in. [n]
    """
    rng = np.random.default_rng(seed)
    dim = 8
    X = rng.normal(size=(n, dim)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    chances = 0.5 + 0.45 * np.tanh(4 * X @ rng.normal(size=(dim, n_models)))
    S = (rng.random((n, n_models)) < chances).astype(float)
    C = np.exp2(-np.arange(n_models) % 7)[None, :] * rng.uniform(0.5, 1.5, size=(n, n_models)) * 1e-3
    train = np.arange(n) % 4 != 0
    unobserved = (rng.random((n, n_models)) > observed) & train[:, None]
    extras = {name: values for name, values in _extras(S, C, rng).items()}
    S = np.where(unobserved, np.nan, S)
    rows = np.arange(n) if order is None else order
    columns = np.arange(n_models) if order is None else np.arange(n_models)[::-1]
    numbers = np.array(names if names is not None else range(n_models))
    benchmark = Benchmark.build(
        name="check",
        queries=[f"q{i:05d}" for i in rows],
        prompts=[f"prompt {i}" for i in rows],
        tasks=[f"task {i % 3}" for i in rows],
        models=[Model(name=f"m{numbers[j]:03d}", price_in=1.0, price_out=2.0) for j in columns],
        S=S[np.ix_(rows, columns)],
        C=C[np.ix_(rows, columns)],
        extras={name: values[np.ix_(rows, columns)] for name, values in extras.items()},
    )
    X.flags.writeable = False
    side = whole(benchmark, benchmark.C / benchmark.c_ref, X)
    return subset(side, np.flatnonzero(train)), subset(side, np.flatnonzero(~train))


def _extras(S: Floats, C: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """Answers that show whether they are right, and the like. [n, M, ...] each."""
    words = np.array(["wrong guess", "right answer"], dtype=object)
    return {
        "response": words[S.astype(int)]
        + np.array([" perhaps", " surely"], dtype=object)[(rng.random(S.shape) < S) * 1],
        "confidence": np.clip(0.3 + 0.4 * S + 0.2 * rng.random(S.shape), 0, 1),
        "verifier": np.clip(0.3 + 0.4 * S + 0.2 * rng.random(S.shape), 0, 1),
        "margin": np.clip(0.2 + 0.5 * S + 0.2 * rng.random(S.shape), 0, 1),
        "input_tokens": np.tile(rng.integers(5, 50, size=(len(S), 1)), (1, S.shape[1])).astype(float),
        "samples": np.stack([S, (rng.random(S.shape) < 0.5).astype(float)], axis=2),
    }


def _parts(answer: Answer) -> tuple[Floats | Positions, ...]:
    if isinstance(answer, Prediction):
        return (answer.scores, answer.costs)
    if isinstance(answer, Mixture):
        return (answer.probabilities,)
    if isinstance(answer, Calls):
        return (answer.answers, answer.called, answer.train_scores, answer.train_costs)
    return (answer,)


def _same(one: Answer, other: Answer) -> bool:
    """Bit for bit."""
    return type(one) is type(other) and all(
        a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(_parts(one), _parts(other), strict=True)
    )


def _distance(one: Answer, other: Answer) -> float:
    """The largest difference of two answers; of selectors the share of other choices."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return float((one != other).mean())
    if type(one) is not type(other) or any(a.shape != b.shape for a, b in zip(_parts(one), _parts(other), strict=True)):
        return float("inf")
    return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(_parts(one), _parts(other), strict=True))


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _Broken(message)


def _well_formed(answer: Answer, n: int, m: int) -> None:
    """Shapes, finite numbers, probabilities, known models.

    Raises:
        _Broken: What is wrong.
    """
    if isinstance(answer, np.ndarray):
        _require(answer.shape == (n,), f"select gave shape {answer.shape}, not ({n},)")
        _require(np.issubdtype(answer.dtype, np.integer), f"select gave {answer.dtype}, not positions of models")
        _require(bool(((answer >= 0) & (answer < m)).all()), f"select named a model outside 0 … {m - 1}")
        return
    for part in _parts(answer):
        _require(bool(np.isfinite(part).all()), "a prediction is not finite")
    if isinstance(answer, Prediction):
        for name, values in (("scores", answer.scores), ("costs", answer.costs)):
            _require(values.shape == (n, m), f"predicted {name} have shape {values.shape}, not ({n}, {m})")
    elif isinstance(answer, Mixture):
        p = answer.probabilities
        _require(p.shape == (n, m), f"probabilities have shape {p.shape}, not ({n}, {m})")
        _require(bool((p >= 0).all() and np.allclose(p.sum(axis=1), 1.0)), "probabilities of a query do not sum to 1")
    else:
        k = len(answer.answers)
        _require(answer.answers.shape == answer.called.shape == (k, n, m), f"answers {answer.answers.shape}, called")
        _require(answer.train_scores.shape == answer.train_costs.shape == (k,), "no training mean for each setting")
        _require(bool(np.allclose(answer.answers.sum(axis=2), 1.0)), "a query's answers do not sum to 1")
        _require(bool((answer.called >= answer.answers - 1e-9).all()), "it answers with a model that it did not call")


def _fit_returns_self(subject: _Subject) -> None:
    for form in subject.forms:
        router, rng = subject.cls(**subject.params), np.random.default_rng(0)
        fit = router.fit if form == "utility" else lambda train, rng, r=router: r.fit_selector(train, _PRICE, rng)
        _require(fit(subject.train, rng) is router, f"{form}: fit does not return self")


def _well_formed_answers(subject: _Subject) -> None:
    for form in subject.forms:
        answer = subject.answer(subject.train, subject.queries, form)
        _well_formed(answer, subject.queries.n, len(subject.train.models))


def _deterministic(subject: _Subject) -> None:
    for form in subject.forms:
        one, other = (subject.answer(subject.train, subject.queries, form) for _ in range(2))
        _require(
            _same(one, other), f"{form}: two fits on one stream differ; take chance from the passed generator alone"
        )


def _inputs_stay(subject: _Subject) -> None:
    def contents() -> list[bytes]:
        sides = (subject.train, subject.queries)
        return [a.tobytes() for side in sides for a in (side.matrix, side.scores, side.costs) if a is not None]

    before = contents()
    for side in (subject.train, subject.queries):
        for array in (side.matrix, side.scores, side.costs, side.rows, side.embedding_rows, side.groups):
            if array is not None:
                array.flags.writeable = False
    for form in subject.forms:
        subject.answer(subject.train, subject.queries, form)
    _require(contents() == before, "the router changed its inputs")


def _order_of_queries(subject: _Subject) -> str:
    order = np.random.default_rng(1).permutation(220)
    again = _world(order=order)
    turned = np.random.default_rng(2).permutation(subject.queries.n)
    for form in subject.forms:
        straight = subject.answer(subject.train, subject.queries, form)
        _require(
            _same(straight, subject.answer(*again, form)), f"{form}: the order of the input's rows changes answers"
        )
        router = subject.fit(subject.train, form)
        moved = subject.ask(router, subset(subject.queries, turned), form)
        back = _reordered(moved, np.argsort(turned))
        gap = _distance(straight, back)
        _require(gap <= CLOSE, f"{form}: a query's answer depends on the queries beside it (by {gap:.2g})")
    return "input rows and columns shuffled; queries asked in another order"


def _reordered(answer: Answer, rows: Positions) -> Answer:
    if isinstance(answer, Prediction):
        return Prediction(scores=answer.scores[rows], costs=answer.costs[rows])
    if isinstance(answer, Mixture):
        return Mixture(probabilities=answer.probabilities[rows])
    if isinstance(answer, Calls):
        return replace(answer, answers=answer.answers[:, rows], called=answer.called[:, rows])
    return answer[rows]


def _order_of_models(subject: _Subject) -> str:
    if subject.seeded:
        return _ties_under_seeds(subject)
    names = (2, 0, 3, 1)
    renamed = _world(names=names)
    position = np.array(names)
    for form in subject.forms:
        straight = subject.answer(subject.train, subject.queries, form)
        other = subject.answer(*renamed, form)
        if isinstance(other, np.ndarray) and isinstance(straight, np.ndarray):
            gap = float((other != position[straight]).mean())
        else:
            gap = _distance(straight, _columns(other, position))
        _require(gap <= CLOSE, f"{form}: renaming the models changes the answers (by {gap:.2g})")
    return "models renamed so that their order changes"


def _columns(answer: Answer, position: Positions) -> Answer:
    if isinstance(answer, Prediction):
        return Prediction(scores=answer.scores[:, position], costs=answer.costs[:, position])
    if isinstance(answer, Mixture):
        return Mixture(probabilities=answer.probabilities[:, position])
    assert isinstance(answer, Calls)
    return replace(answer, answers=answer.answers[..., position], called=answer.called[..., position])


def _ties_under_seeds(subject: _Subject) -> str:
    """Chance is drawn in the models' order, so answers move with it; what must not move is whom ties favour."""
    found = []
    for names in ((0, 1, 2, 3), (3, 2, 1, 0)):
        train, queries = _tied(names)
        shares = np.zeros(4)
        for seed in range(3):
            for form in subject.forms:
                shares += _chosen(subject.answer(train, queries, form, seed), names)
        found.append(shares / shares.sum())
    gap = float(np.abs(found[0] - found[1]).max())
    _require(gap <= 0.25, f"models that tie get other shares when they are renamed: {found[0]} against {found[1]}")
    return "draws in the models' order; models that tie keep their shares when renamed"


def _tied(names: tuple[int, ...]) -> tuple[Side, Side]:
    """All models right on the same queries; they differ in price alone. The model of position j is named names[j]."""
    train, queries = _world(names=names, observed=1.0)
    own = np.array(names)  # column in canonical order of the j-th model
    price = np.empty(4)
    price[own] = [1.0, 0.5, 0.25, 0.125]

    def tie(side: Side) -> Side:
        assert side.scores is not None
        best = side.scores.max(axis=1, keepdims=True)
        return replace(side, scores=np.tile(best, (1, 4)), costs=np.tile(price, (side.n, 1)))

    return tie(train), tie(queries)


def _chosen(answer: Answer, names: tuple[int, ...]) -> Floats:
    """Share of the queries that each model gets at the checked price, by the position that its name stands for. [M]."""
    from workers.metrics.frontier import choose

    m = len(names)
    if isinstance(answer, Prediction):
        answer = choose(answer, _PRICE)
    if isinstance(answer, np.ndarray):
        shares = np.bincount(answer, minlength=m).astype(float)
    elif isinstance(answer, Mixture):
        shares = answer.probabilities.sum(axis=0)
    else:
        shares = answer.answers[answer.setting(_PRICE)].sum(axis=0)
    by_model: Floats = shares[np.array(names)]
    return by_model


def _edge_cases() -> Iterator[tuple[str, Side, Side]]:
    train, queries = _world()
    assert train.scores is not None and train.costs is not None
    yield "half of the outcomes unobserved", *_world(observed=0.5)
    unseen = train.scores.copy()
    unseen[:, 1] = np.nan
    yield "a model that training never observed", _with(train, unseen), queries
    yield "constant scores", _with(train, np.where(np.isnan(train.scores), np.nan, 1.0)), queries
    yield "one model", *_world(n_models=1)
    yield "two models", *_world(n_models=2)
    yield "100 models", *_world(n_models=100, n=80)
    twice = np.concatenate([np.arange(40), np.arange(40), np.zeros(30, dtype=np.int64)])
    yield "duplicated queries", subset(train, twice), subset(queries, twice[:60] % queries.n)
    yield "5 training queries", subset(train, np.arange(5)), queries
    yield "zero costs", _free(train), _free(queries)
    yield "an unseen task", train, replace(queries, tasks=("elsewhere",) * queries.n)
    yield "one query to route", train, subset(queries, np.array([3]))


def _with(side: Side, scores: Floats) -> Side:
    assert side.costs is not None
    return replace(side, scores=scores, costs=np.where(np.isnan(scores), np.nan, side.costs))


def _free(side: Side) -> Side:
    assert side.costs is not None
    return replace(side, costs=side.costs * 0.0)


def _edge(subject: _Subject) -> str:
    cases = list(_edge_cases())
    for case, train, queries in cases:
        for form in subject.forms:
            try:
                _well_formed(subject.answer(train, queries, form), queries.n, len(train.models))
            except Exception as error:
                raise _Broken(f"{case} ({form}): {type(error).__name__}: {error}") from error
    return "; ".join(case for case, _, _ in cases)


def _test_outcomes(subject: _Subject) -> str:
    rng = np.random.default_rng(5)
    queries = subject.queries
    shape = (queries.n, len(queries.models))
    poisoned = replace(queries, scores=rng.integers(0, 2, size=shape).astype(float), costs=rng.random(shape))
    for form in subject.forms:
        router = subject.fit(subject.train, form)
        ask = router.predict if form == "utility" else router.select
        if subject.cls.privileged:
            changed = not _same(ask(queries), ask(poisoned))
            _require(changed, f"{form}: declared privileged, yet other test outcomes change nothing")
        else:
            _require(_same(ask(hidden(queries)), ask(poisoned)), f"{form}: it reads the outcomes of what it routes")
    return (
        "privileged: other test outcomes change the answers" if subject.cls.privileged else "poisoned outcomes unread"
    )


def _blindness(subject: _Subject) -> str:
    for form in subject.forms:
        parts = _parts(subject.answer(subject.train, subject.queries, form))
        rows = [part for part in parts if part.ndim and len(part) == subject.queries.n]
        same = all(bool((part == part[:1]).all()) for part in rows)
        if subject.cls.query_blind:
            _require(same, f"{form}: declared query_blind, yet queries get different answers")
    return "query-blind" if subject.cls.query_blind else "looks at queries"


def _savable(subject: _Subject) -> str:
    for form in subject.forms:
        router = subject.fit(subject.train, form)
        with tempfile.TemporaryDirectory() as folder:
            save_router(router, Path(folder) / "router")
            again = load_router(Path(folder) / "router", cls=subject.cls)
        gap = _distance(subject.ask(router, subject.queries, form), subject.ask(again, subject.queries, form))
        _require(gap <= CLOSE, f"{form}: a loaded router answers otherwise (by {gap:.2g})")
    return "safetensors and JSON, no pickle"


def _tuning(subject: _Subject) -> str:
    cls = subject.cls
    if not cls.tunables:
        raise _Inapplicable("nothing to tune")
    fixed = {name: value for name, value in subject.params.items() if name not in cls.tunables}
    drawn, again = (cls.candidates(n_train=150, budget=20, fixed=fixed, rng=np.random.default_rng(0)) for _ in range(2))
    _require(drawn == again, "candidates differ on one stream")
    _require(0 < len(drawn) <= 20, f"{len(drawn)} candidates for a budget of 20")
    for config in drawn:
        _require(set(config) <= set(cls.tunables), f"candidate {config} varies what `tunables` does not name")
        resolve_params(cls, {**subject.params, **config})
        cls.simplicity({**subject.params, **config})
    _require(bool(cls.space()), "no space is declared")
    return f"{len(drawn)} configurations"


def _costs(subject: _Subject) -> str:
    form = subject.forms[0]
    begin = perf_counter()
    router = subject.fit(subject.train, form)
    fitted = perf_counter()
    subject.ask(router, subject.queries, form)
    routed = perf_counter() - fitted
    _require(router.n_bytes >= 0, f"n_bytes is {router.n_bytes}")
    per_query = 1e6 * routed / subject.queries.n
    return (
        f"{subject.train.n} queries x {len(subject.train.models)} models: fit {fitted - begin:.3f} s, "
        f"{per_query:.0f} µs a query, {router.n_bytes / 1024:.1f} KiB"
    )


_CHECKS: Mapping[str, Callable[[_Subject], str | None]] = {
    "fit returns self": _fit_returns_self,
    "finite predictions of the right shape": _well_formed_answers,
    "deterministic for a seed": _deterministic,
    "read-only inputs": _inputs_stay,
    "order of queries": _order_of_queries,
    "order of models, ties": _order_of_models,
    "edge cases": _edge,
    "test outcomes": _test_outcomes,
    "query-blind as declared": _blindness,
    "save and load": _savable,
    "tuning space": _tuning,
    "memory and time": _costs,
}
