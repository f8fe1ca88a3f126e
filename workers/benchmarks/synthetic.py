"""What should statistics find? Generated queries whose optimal router is known in closed form."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Benchmark, Floats, Model, Source
from workers.errors import BenchmarkError
from workers.seeding import generator

#: Mean cost of the dearest model in USD.
_DEAREST = 1e-4
#: What a specialist scores above its level on its own topic.
_BONUS = 0.4
#: Lengths of the noise around a topic's centre stay below this, and below half the distance of two centres.
_NOISE = 0.6
_SYLLABLES = [c + v for c in "bdfghjklmnprstvz" for v in "aeiou"]


class Synthetic(NamedTuple):
    """A generated benchmark and what is true of it."""

    benchmark: Benchmark
    #: Unit rows in the benchmark's order; the nearest centre is the query's topic. [n, dim]
    embeddings: npt.NDArray[np.float32]
    #: Mean score of each model given the query's embedding or text. [n, n_models]
    expected_scores: Floats
    #: Mean cost in USD of each model, likewise. [n, n_models]
    expected_costs: Floats


class OptimalPoint(NamedTuple):
    """What the optimal router attains at one price of cost, in the mean over all queries."""

    score: float
    #: In units of the dearest model's mean cost.
    cost: float

    def utility(self, price: float) -> float:
        """Mean utility at a price of cost."""
        return self.score - price * self.cost


def synthetic_benchmark(
    *, n: int = 2000, n_models: int = 5, dim: int = 16, locality: float = 0.8, seed: int = 0
) -> Synthetic:
    """Draw queries, outcomes and embeddings.

    There is one topic per model. A query's *visible* topic v is uniform; it decides the text (words of that topic
    alone) and the embedding. Its *effective* topic w is v with probability `locality`, else uniform and independent.
    Model m scores 1 with probability `level_m + 0.4 [m = w]`, else 0, and costs its mean times 0.5, 1 or 1.5, whatever
    the topic. Hence

        E[score_m | v] = level_m + 0.4 (locality [m = v] + (1 - locality) / n_models)

    which is all that text or embedding tell, and `optimal_point` is the best that any router can do. Benchmarks that
    differ in locality alone have the same queries, embeddings and costs.

    Args:
        n: Number of queries.
        n_models: Number of models, and of topics; at least 2.
        dim: Dimension of the embeddings, at least `n_models`.
        locality: 0 = outcomes independent of the embedding, 1 = fully local.
        seed: Seed of every draw.

    Raises:
        BenchmarkError: A parameter outside its range.
    """
    if n < 1 or n_models < 2 or dim < n_models or not 0 <= locality <= 1:
        raise BenchmarkError(
            f"synthetic benchmark: n = {n}, n_models = {n_models}, dim = {dim}, locality = {locality} will not do; "
            "n is at least 1, n_models at least 2, dim at least n_models, and locality lies in [0, 1]."
        )
    rng = generator(seed, "synthetic", n, n_models, dim)
    visible = rng.integers(n_models, size=n)
    local = rng.random(n) < locality
    effective = np.where(local, visible, rng.integers(n_models, size=n))
    own = np.arange(n_models)
    chances = _levels(n_models) + _BONUS * (own == effective[:, None])
    expected_scores = expected_by_topic(n_models=n_models, locality=locality)[visible]
    expected_costs = np.tile(_DEAREST * _relative_costs(n_models), (n, 1))
    benchmark = Benchmark.build(
        name="synthetic",
        queries=[f"query-{i:07d}" for i in range(n)],
        prompts=_write_texts(visible, n_models, rng),
        models=[Model(name=f"model-{m:03d}", family="synthetic") for m in range(n_models)],
        S=(rng.random((n, n_models)) < chances).astype(np.float64),
        C=expected_costs * rng.choice([0.5, 1.0, 1.5], size=(n, n_models)),
        meta={"licence": "Apache-2.0", "source": f"generated: {n_models=}, {dim=}, {locality=}, {seed=}"},
    )
    return Synthetic(benchmark, _draw_embeddings(visible, dim, rng), expected_scores, expected_costs)


def expected_by_topic(*, n_models: int, locality: float) -> Floats:
    """Mean score of every model on queries of every visible topic; both axes have n_models entries."""
    return _levels(n_models) + _BONUS * (locality * np.eye(n_models) + (1 - locality) / n_models)


def optimal_point(*, n_models: int, locality: float, price: float) -> OptimalPoint:
    """Mean score and cost of the router that maximises expected utility at a price of cost.

    On topic v only two choices can be best: the specialist v, or the model g that is best regardless of topic,
    argmax of level_m - price * cost_m. The specialist wins where `0.4 locality > (level_g - price * cost_g) -
    (level_v - price * cost_v)`; ties go to the cheaper. The mean runs over the equally frequent topics.
    """
    levels, costs = _levels(n_models), _relative_costs(n_models)
    plain = levels - price * costs
    g = int(np.argmax(plain))
    lead = plain[g] - plain
    gain = _BONUS * locality
    specialist = (lead < gain) | ((lead == gain) & (costs < costs[g]))
    score = (
        np.where(specialist, levels + gain, levels[g] + gain * (np.arange(n_models) == g))
        + _BONUS * (1 - locality) / n_models
    )
    return OptimalPoint(float(score.mean()), float(np.where(specialist, costs, costs[g]).mean()))


def _levels(n_models: int) -> Floats:
    """Score off its topic: rises with the price from model to model, but the dearest is the weakest."""
    return np.roll(0.3 + 0.2 * np.arange(n_models) / (n_models - 1), -1)


def _relative_costs(n_models: int) -> Floats:
    """Mean costs in units of the dearest: each model costs twice the one before."""
    return np.exp2(np.arange(1 - n_models, 1, dtype=np.float64))


def _draw_embeddings(visible: npt.NDArray[np.int64], dim: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Topic v around the v-th axis: noise shorter than half of sqrt(2) leaves every row nearest to its own axis."""
    noise = rng.standard_normal((len(visible), dim))
    noise *= _NOISE * rng.random((len(visible), 1)) / np.linalg.norm(noise, axis=1, keepdims=True)
    noise[np.arange(len(visible)), visible] += 1
    rows: npt.NDArray[np.float32] = (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
    return rows


def _write_texts(visible: npt.NDArray[np.int64], n_topics: int, rng: np.random.Generator) -> list[str]:
    """Twelve words of the topic's own vocabulary of 30, disjoint from the others': character n-grams tell it too."""
    vocabulary: dict[str, None] = {}
    while len(vocabulary) < 30 * n_topics:
        vocabulary["".join(rng.choice(_SYLLABLES, size=3))] = None
    words = np.array(list(vocabulary)).reshape(n_topics, 30)
    picks = rng.integers(30, size=(len(visible), 12))
    return [" ".join(words[topic, pick]) for topic, pick in zip(visible, picks, strict=True)]


class SyntheticSource(Source):
    """The defaults of `synthetic_benchmark`."""

    name: ClassVar[str] = "synthetic"
    summary: ClassVar[str] = "2000 generated queries with a known optimal router; text only"

    def load(self) -> Benchmark:
        """Draw it."""
        return synthetic_benchmark().benchmark
