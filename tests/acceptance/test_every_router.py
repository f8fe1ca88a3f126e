"""Every router on generated data whose truth is known, and on real data with heavy ties."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests

from orchestrator.analysis.corrected_t import nadeau_bengio
from workers.benchmarks.base import Benchmark, Model
from workers.benchmarks.load import load_benchmark
from workers.benchmarks.synthetic import synthetic_benchmark
from workers.embed import encode_inputs, unique_inputs
from workers.encoders.hash_ngrams import HashNgrams
from workers.evaluate import run_evaluate
from workers.metrics.frontier import choose
from workers.routers.base import Calls, Mixture, Prediction, router_class, routers, untuned_params
from workers.seeding import generator
from workers.sides import cost_ratios, hidden, subset, whole
from workers.splits import split_benchmark
from workers.training import TrainedRouter
from workers.units import EvaluateResult, EvaluateUnit, ProtocolOptions

pytestmark = pytest.mark.slow

SHARED = Path(os.environ.get("ROADTEST_SHARED", Path(__file__).parents[3] / "shared"))
SPLITS = 10
ALPHA = 0.05
#: Routers that learn from embeddings, neither online, privileged nor blind to queries.
LEARNED = sorted(
    name
    for name, cls in routers().items()
    if cls.needs_embedding and not (cls.online or cls.privileged or cls.query_blind)
)
#: Those that see more of a query than its embedding, such as the models' answers: their blind twins are not blind.
READ_ANSWERS = {name for name in LEARNED if set(router_class(name)().requirements()) - {"task"}}


def with_extras(benchmark: Benchmark) -> Benchmark:
    """Answers that show with probability 0.8 whether they are right, and the like; one task for all queries."""
    rng = np.random.default_rng(0)
    right = np.where(rng.random(benchmark.S.shape) < 0.8, benchmark.S, rng.integers(0, 2, size=benchmark.S.shape))
    sure = np.clip(0.25 + 0.5 * right + 0.2 * rng.random(right.shape), 0, 1)
    extras = {
        "response": np.array(["perhaps north", "surely south"], dtype=object)[right.astype(int)],
        "confidence": sure,
        "verifier": sure,
        "margin": sure,
        "samples": np.stack([benchmark.S, right], axis=2),
    }
    return replace(benchmark, tasks=("all",) * benchmark.n_queries, extras=extras)


def settings(name: str, n_train: int, **given: object) -> dict[str, object]:
    """Default parameters; networks with support sets take the paper's smaller one, for time."""
    cls = router_class(name)
    small = {"k": 10} if issubclass(cls, TrainedRouter) and "k" in cls().params() else {}
    return untuned_params(cls, {**small, **given}, n_train=n_train)


@cache
def areas(locality: float) -> Mapping[tuple[str, bool], list[EvaluateResult]]:
    """Results of every split by router and whether it is the blind twin."""
    made = synthetic_benchmark(n=600, n_models=4, dim=16, locality=locality)
    benchmark = with_extras(made.benchmark)
    found = {}
    for name in [*LEARNED, "zero-router", "random"]:
        for twin in (False, True) if name in LEARNED else (False,):
            units = [
                EvaluateUnit(
                    key=f"{split}",
                    router=name,
                    params=settings(name, 420),
                    twin=twin,
                    split=split,
                    protocol=ProtocolOptions(bootstrap=0),
                )
                for split in range(SPLITS)
            ]
            results = run_evaluate(units, benchmark, made.embeddings)
            for result in results:
                assert isinstance(result, EvaluateResult), result
            found[name, twin] = results
    return found


def p_better(locality: float, pairs: list[tuple[tuple[str, bool], tuple[str, bool]]]) -> dict[str, bool]:
    """Whether the first of each pair is better by the protocol's test: Nadeau-Bengio, Holm over all pairs."""
    found, tests = areas(locality), []
    for one, other in pairs:
        d = [a.metrics["auc_path"] - b.metrics["auc_path"] for a, b in zip(found[one], found[other], strict=True)]
        tests.append(nadeau_bengio(d, found[one][0].n_train, found[one][0].n_test))
    significant = multipletests([test.p for test in tests], alpha=ALPHA, method="holm")[0]
    return {
        f"{one} against {other}": bool(yes and test.mean > 0)
        for (one, other), test, yes in zip(pairs, tests, significant, strict=True)
    }


def test_with_locality_each_router_beats_random_and_its_own_blind_twin():
    pairs = [((name, False), ("random", False)) for name in LEARNED]
    pairs += [((name, False), (name, True)) for name in LEARNED if name not in READ_ANSWERS]
    assert not [pair for pair, better in p_better(1.0, pairs).items() if not better]


def test_without_locality_no_router_is_better_than_its_blind_twin_or_the_zero_router():
    names = [name for name in LEARNED if name not in READ_ANSWERS]
    pairs = [((name, False), (name, True)) for name in names]
    pairs += [((name, False), ("zero-router", False)) for name in names]
    assert not [pair for pair, better in p_better(0.0, pairs).items() if better]


@pytest.fixture(scope="module")
def real() -> tuple[Benchmark, np.ndarray]:
    """RouterBench's rows with the models' answers, under hashed n-grams."""
    folder = SHARED / "data/raw/routerbench"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ROADTEST_SHARED")
    benchmark = load_benchmark("routerbench", path=folder)
    inputs = unique_inputs(benchmark, "text")
    return benchmark, encode_inputs(HashNgrams(), inputs.inputs)[inputs.row_of_query]


@pytest.mark.parametrize("name", [name for name, cls in routers().items() if not cls.query_blind])
def test_columns_shuffled_no_router_falls_below_random(real, name):
    """7.7 of 11 models tie for best: who gives ties to the first listed loses to chance at a price of 0."""
    benchmark, embedding = real
    cls = router_class(name)
    # RouterBench has answers, but nobody's confidence in them: that is learned from the texts.
    params = {"signal": "learned"} if {"verifier", "margin"} & set(cls().requirements()) else {}
    for shuffle in range(2):
        shuffled = renamed(benchmark, np.random.default_rng(shuffle).permutation(benchmark.n_models))
        split = split_benchmark(shuffled, 0)
        side = whole(shuffled, cost_ratios(shuffled, ProtocolOptions()), embedding)
        train, test = subset(side, split.train[:600]), subset(side, split.test)
        router = cls(**settings(name, train.n, **params)).fit(train, generator(0, "fit", name, 0))
        answer = router.predict(test if cls.privileged else hidden(test))
        if isinstance(answer, Prediction):
            score = test.scores[np.arange(test.n), choose(answer, 0.0)].mean()
        else:
            chances = answer.probabilities if isinstance(answer, Mixture) else answer.answers[answer.setting(0.0)]
            score = (chances * test.scores).sum(axis=1).mean()
        assert isinstance(answer, Prediction | Mixture | Calls)
        assert score >= test.scores.mean(), f"{name}: {score:.3f} where chance has {test.scores.mean():.3f}"


def renamed(benchmark: Benchmark, order: np.ndarray) -> Benchmark:
    """The same benchmark with models renamed so that their canonical order is another."""
    models = tuple(
        Model(name=f"{i:02d} {benchmark.models[j].name}", family=benchmark.models[j].family)
        for i, j in enumerate(order)
    )
    return replace(
        benchmark,
        models=models,
        S=benchmark.S[:, order],
        C=benchmark.C[:, order],
        extras={name: values[:, order] for name, values in benchmark.extras.items()},
    )
