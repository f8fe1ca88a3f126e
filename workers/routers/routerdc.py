"""Can contrast alone teach routing? RouterDC draws queries towards the vectors of the models that answer them well."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.quiet import ignoring
from workers.routers.base import Positions, Prediction, Side, mean_outcomes
from workers.routers.forward import network_outputs
from workers.routers.labels import TIE, most_probable
from workers.training import (
    Batch,
    Network,
    Tensors,
    TrainedRouter,
    affine,
    check_optimiser,
    check_whole,
    padded,
    uniform,
)

if TYPE_CHECKING:
    import torch

#: Digits to which cosines count: float32 has no more, and equal vectors must tie.
DIGITS = 6


class RouterDC(TrainedRouter):
    """Cosine of the projected query and a vector k_m per model, taught by two contrastive losses.

    Sample-LLM: each of a query's K₊ best models against its K₋ worst, -log of the softmax of cosine / T. Sample-sample,
    with weight 1: a query of the same cluster against H of other clusters, both drawn from the minibatch. As a selector
    utilities at its price take the place of scores, and the nearest k_m is chosen.

    Verified in the authors' code (`train_router_mdeberta*.py`, `cluster_generate.ipynb`): cosines, k_m drawn from
    N(0, 0.78²), positives need a score above 0, negatives one of at most 0.5, T in the first loss alone, H = 3, AdamW
    with rate 5e-5 and decay 0.01, batches of 64, 1000 steps, 8 clusters. (For RouterBench its script has K = 4.) It
    takes ties in the order of the columns, may draw a query as its own friend, and keeps the best test checkpoint;
    here none of this.

    Readings of this project: the encoder is frozen, so a projection is trained in its place; ties share the places
    that are left (a model counts with its chance of a place when ties are broken at random; negatives so weighted
    inside the logarithm); K is at most half of the models that a query observed, so that none is on both sides; k-means
    clusters the frozen embeddings themselves, the code their t-SNE. All k_m start at one draw, so that models differ
    by their data, not by their order, and nothing is chosen without an epoch but by training means.
    Scores: ŝ = training mean + slope · (cosine, less the query's mean over models and the model's over training
    queries); the slope, one for all models and at least 0, is the least-squares fit to scores less the same means on a
    fifth of the training prompts that the sample-LLM loss does not see. (What all models of a query share changes no
    choice at any λ.) Costs are the models' training means.

    Validation `auc_path` under MiniLM at split indices 100 to 102, which no sweep file reports (zero-router 83.6 on
    RouterBench's rows; 65.8, 90.9, 78.6 on mbpp, ARC-challenge, winogrande), at 2, 5, 10, 20, 30 epochs (30 are 1020
    steps): the paper's 5e-5 84.0, 84.1, 84.4, 85.3, 85.7 (30 epochs on mbpp and winogrande: 65.4, 78.5); 1e-3 85.3,
    85.6, 85.7, 85.8, 85.5 (65.4, 78.4). So the paper's rate stands. With the slope fitted on queries that taught the
    cosines: 5e-5 83.9, 83.9, 84.5, 85.5, 85.7 (64.3, 78.0); 1e-3 85.5, 85.8, 85.8, 85.5, 84.7 (64.0, 78.0).

    Args:
        dim: Width of the projection and of the k_m.
        top_k: Models that a query is drawn to, K₊.
        last_k: Models that it is driven from, K₋.
        temperature: T, at least 0.05.
        clusters: Number of clusters.
        others: Queries of other clusters that a query is driven from, H.
        cluster_weight: Weight of the sample-sample loss.
        held: Share of the training prompts for the slope alone; 0: it is fitted on all of them.
        learning_rate: Of AdamW.
        weight_decay: AdamW's decay.
        epochs: Passes over the training side; the last incomplete minibatch of each is left out.
        batch_size: Queries of a minibatch.
    """

    name = "routerdc"
    summary = "projected queries near the vectors of their best models, by contrast"
    source = "Chen et al. 2024, RouterDC, arXiv 2409.19886"
    formulations = ("utility", "selection")
    decoupled_decay = True

    def __init__(
        self,
        *,
        dim: int = 128,
        top_k: int = 3,
        last_k: int = 3,
        temperature: float = 1.0,
        clusters: int = 8,
        others: int = 3,
        cluster_weight: float = 1.0,
        held: float = 0.2,
        learning_rate: float = 5e-5,
        weight_decay: float = 0.01,
        epochs: int = 30,
        batch_size: int = 64,
    ) -> None:
        check_optimiser(learning_rate, weight_decay, epochs, batch_size)
        wholes = {"dim": dim, "top_k": top_k, "last_k": last_k, "clusters": clusters, "others": others}
        for key, value in wholes.items():
            check_whole(key, value, 1)
        if not (isinstance(temperature, int | float) and 0.05 <= temperature < math.inf):
            raise ValueError(f"temperature must be a number, at least 0.05, not {temperature!r}.")
        if not (isinstance(cluster_weight, int | float) and 0 <= cluster_weight < math.inf):
            raise ValueError(f"cluster_weight must be a number, at least 0, not {cluster_weight!r}.")
        if not (isinstance(held, int | float) and 0 <= held < 1):
            raise ValueError(f"held must be a number, at least 0 and below 1, not {held!r}.")
        self.dim = dim
        self.top_k = top_k
        self.last_k = last_k
        self.temperature = temperature
        self.clusters = clusters
        self.others = others
        self.cluster_weight = cluster_weight
        self.held = held
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.epochs = epochs
        self.batch_size = batch_size

    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Projection and model vectors; who is a query's best and worst, and its cluster."""
        (scores, costs), means = train.outcomes, mean_outcomes(train)
        self.price_, (self.mean_scores_, self.mean_costs_) = price, means
        values = scores if price is None else scores - price * costs
        width, more = train.embeddings.shape[1], padded(self.dim) - self.dim
        bound = 1.0 / math.sqrt(width)
        vector = rng.normal(0.0, 0.78, size=self.dim).astype(np.float32)
        parameters = {
            "projection": np.pad(uniform(rng, bound, width, self.dim), ((0, 0), (0, more))),
            "shift": np.pad(uniform(rng, bound, 1, self.dim), ((0, 0), (0, more))),
            "models": np.tile(np.pad(vector, (0, more)), (len(train.models), 1)),
        }
        best = chances_of_a_place(values, self.top_k) * (values > 0.0)
        worst = chances_of_a_place(-values, self.last_k) * (values <= 0.5)
        # Kept until `finish`; a selector needs no map onto scores.
        self._held = held_groups(train.groups, 0.0 if price is not None else self.held, rng)
        best[self._held] = 0.0
        tables: dict[str, npt.NDArray[Any]] = {
            "best": best.astype(np.float32),
            "worst": worst.astype(np.float32),
            "cluster": _clusters(train, self.clusters, rng),
        }
        return Network(parameters=parameters, tables=tables)

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """How much each query of a batch would like to meet each other one. [size, size]."""
        return {"wish": rng.random((size, size), dtype=np.float32)}

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Sample-LLM and sample-sample loss, means over the batch. [B]."""
        hidden, cosines = self._forward(weights, batch.x())
        best, worst = batch.take("best"), batch.take("worst")
        logits = cosines / self.temperature
        against = (logits.exp() * worst).sum(dim=-1, keepdim=True)
        # -log(e^s / (e^s + Σ e^n)) = log(1 + Σ e^n · e^-s)
        of_models = ((against * (-logits).exp()).log1p() * best).sum(dim=-1).mean(dim=-1)
        return of_models + self.cluster_weight * self._among_queries(hidden, batch)

    def _among_queries(self, hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Sample-sample loss; a query alone in its cluster adds nothing. [B]."""
        import torch

        cluster, wish = batch.take("cluster"), batch.draws["wish"]
        n = cluster.shape[1]
        same = cluster[:, :, None] == cluster[:, None, :]
        itself = torch.eye(n, dtype=torch.bool, device=cluster.device)
        friends, strangers = wish.masked_fill(~same | itself, -1.0), wish.masked_fill(same, -1.0)
        friend = torch.nn.functional.one_hot(friends.argmax(dim=-1), n) * (friends >= 0)
        least = strangers.topk(min(self.others, n)).values[..., -1:]
        stranger = (strangers >= least) & ~same
        cosines = hidden @ hidden.transpose(1, 2)
        near = (cosines * friend).sum(dim=-1, keepdim=True)
        losses = ((cosines - near).exp() * stranger).sum(dim=-1).log1p()
        return (losses * friend.sum(dim=-1)).mean(dim=-1)

    def finish(self, train: Side) -> None:
        """Fit the map from cosines to scores."""
        if self.price_ is not None:
            return
        relative = self._relative(train)
        self.centres_ = relative.mean(axis=0)
        judged = self._held if self._held.any() else np.ones(train.n, dtype=bool)
        scores = train.outcomes[0][judged]
        observed = ~np.isnan(scores)
        counts = np.maximum(observed.sum(axis=1, keepdims=True), 1)
        x, y = (
            np.where(observed, values - values.sum(axis=1, keepdims=True, where=observed) / counts, 0.0)
            for values in (relative[judged] - self.centres_, scores - self.mean_scores_)
        )
        some = np.abs(x).max(initial=0.0) > 10.0**-DIGITS
        self.slope_ = max(0.0, float((x * y).sum() / (x * x).sum())) if some else 0.0

    def predict(self, queries: Side) -> Prediction:
        """Cosines on the score scale, and training means as costs. [n, M]."""
        scores: Floats = self.mean_scores_ + self.slope_ * (self._relative(queries) - self.centres_)
        return Prediction(scores=scores, costs=np.broadcast_to(self.mean_costs_, scores.shape))

    def select(self, queries: Side) -> Positions:
        """The model of the nearest vector; ties to the higher mean utility on the training side. [n]."""
        assert self.price_ is not None
        cosines = np.round(network_outputs(self._cosines, self.weights_, queries.X), DIGITS)
        return most_probable(cosines, self.price_ * self.mean_costs_ - self.mean_scores_)

    def _relative(self, queries: Side) -> Floats:
        """Cosines less each query's mean over models. [n, M]."""
        cosines = network_outputs(self._cosines, self.weights_, queries.X)
        relative: Floats = cosines - cosines.mean(axis=1, keepdims=True)
        return relative

    def _cosines(self, weights: Tensors, inputs: torch.Tensor) -> torch.Tensor:
        """Cosines [B, b, M] of embeddings [B, b, d]."""
        return self._forward(weights, inputs)[1]

    def _forward(self, weights: Tensors, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected queries of length 1 [B, b, dim], and their cosines with the models' vectors [B, b, M]."""
        import torch

        hidden, models = (
            torch.nn.functional.normalize(vectors, dim=-1)
            for vectors in (affine(inputs, weights["projection"], weights["shift"]), weights["models"])
        )
        return hidden, hidden @ models.transpose(1, 2)


def chances_of_a_place(values: Floats, places: int) -> Floats:
    """Chance of each model to be among the highest of its row when ties are broken at random. [n, M].

    Args:
        values: NaN = not observed. [n, M]
        places: Number of places, but at most half of the models that a row observed.
    """
    filled = np.where(np.isnan(values), -np.inf, values)
    places_of = np.minimum(places, (~np.isnan(values)).sum(axis=1) // 2)[:, None]
    least = np.take_along_axis(-np.sort(-filled, axis=1), np.maximum(places_of - 1, 0), axis=1)
    least = np.where(places_of > 0, least, np.inf)
    above = filled > least + TIE
    tied = ~above & (filled >= least - TIE)
    share = (places_of - above.sum(axis=1, keepdims=True)) / np.maximum(tied.sum(axis=1, keepdims=True), 1)
    chances: Floats = above + tied * share
    return chances


def held_groups(groups: npt.NDArray[np.int64], share: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Queries of a random share of the groups, rounded down. [n]."""
    names, number = np.unique(groups, return_inverse=True)
    chosen: npt.NDArray[np.bool_] = (rng.permutation(len(names)) < int(share * len(names)))[number]
    return chosen


def _clusters(train: Side, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Cluster of every query. [n]."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    X, seed = train.X, int(rng.integers(2**31))
    # Fewer distinct queries than clusters are no fault: some clusters stay empty.
    with threadpool_limits(1), ignoring(ConvergenceWarning):
        model = KMeans(n_clusters=min(most, len(X)), n_init=1, random_state=seed)
        labels: npt.NDArray[np.int64] = model.fit(X).labels_.astype(np.int64)
    return labels
