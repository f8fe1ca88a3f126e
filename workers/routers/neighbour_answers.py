"""What do the neighbours say, for many jobs at once? Each search is made once, like neighbours are summed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from time import perf_counter
from typing import Literal

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Positions, Prediction, Side, mean_outcomes
from workers.routers.inverted_lists import InvertedLists, part_of, recall, sampled
from workers.routers.labels import most_voted, spread_labels
from workers.routers.neighbours import Neighbours, Search, Similarity, nearest
from workers.routers.sums import Summed, is_dense, running_sums, weighted_sums

Weights = Literal["uniform", "distance", "softmax"]

#: A kind of weights and its temperature.
Weighting = tuple[Weights, float]

#: Distances below this are float32 noise on unit rows.
COINCIDENT = 1e-3
#: Queries whose neighbours are summed at once.
SUMMED_TOGETHER = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """What a job asks of the neighbours of its queries: means of outcomes, or votes where it has a price."""

    job: FitJob
    #: Neighbours, at most the training side.
    k: int
    similarity: Similarity
    weighting: Weighting
    #: Lists that an index looks into; None: every similarity is computed.
    nprobe: int | None = None
    #: The training side's index, if it was built before.
    lists: InvertedLists | None = None
    #: Whether the answer says how often an index was right.
    tells_recall: bool = False


def answered(questions: Sequence[Question]) -> Iterator[Fitted]:
    """Answers in the questions' order, by one search at the largest k for all of a similarity and split."""
    tables: dict[tuple[int, float | None], _Table] = {}
    for question in questions:
        job = question.job
        if (id(job.train), job.price) not in tables:
            tables[id(job.train), job.price] = _Table(job)
    answers = [_Answer(question, tables[id(question.job.train), question.job.price]) for question in questions]
    searches: dict[tuple[object, ...], list[_Answer]] = {}
    for answer in answers:
        searches.setdefault(answer.space, []).append(answer)
    shared = [_Shared(group) for group in searches.values()]
    _search_exactly([each for each in shared if each.nprobe is None])
    _search_lists([each for each in shared if each.nprobe is not None])
    for answer in answers:
        yield answer.finish()


def _search_exactly(shared: Sequence[_Shared]) -> None:
    """All searches at once, so that they share what they can."""
    begin = perf_counter()
    for found in nearest([each.search for each in shared]):
        shared[found.search].add(found)
    for each in shared:
        each.flush()
    seconds, answers = perf_counter() - begin, [answer for each in shared for answer in each.answers]
    for answer in answers:
        answer.route_seconds = seconds / len(answers)


def _search_lists(shared: Sequence[_Shared]) -> None:
    """One index of a training side and similarity after the other: each holds a copy of the side's rows."""
    spaces: dict[tuple[object, ...], list[_Shared]] = {}
    for each in shared:
        spaces.setdefault((each.search.similarity, id(each.search.train)), []).append(each)
    for members in spaces.values():
        first, begin = members[0].search, perf_counter()
        lists = members[0].answers[0].question.lists or InvertedLists(first.train, first.similarity)
        built = (perf_counter() - begin) / sum(len(each.answers) for each in members)
        for each in members:
            assert each.nprobe is not None
            begin = perf_counter()
            for found in lists.search(each.search.queries, each.search.k, each.nprobe):
                each.add(found)
            each.flush()
            seconds = (perf_counter() - begin) / len(each.answers)
            for answer in each.answers:
                answer.fit_seconds += built
                answer.route_seconds, answer.n_bytes = seconds, answer.n_bytes + lists.n_bytes


class _Table:
    """What the neighbours of one training side and price say: outcomes and whether observed, or votes."""

    def __init__(self, job: FitJob) -> None:
        begin = perf_counter()
        scores, costs = job.train.outcomes
        self.means, self.n_models = mean_outcomes(job.train), scores.shape[1]
        if job.price is None:
            observed = ~np.isnan(scores)
            # Models that were tried on the same queries share a column.
            numbers: dict[bytes, int] = {}
            self.pattern = np.array([numbers.setdefault(column.tobytes(), len(numbers)) for column in observed.T])
            firsts = np.unique(self.pattern, return_index=True)[1]
            self.rows = np.hstack(
                [np.where(observed, scores, 0.0), np.where(observed, costs, 0.0), observed[:, firsts]]
            )
            #: What each column of `all` is a copy of.
            self.copied = np.concatenate([np.arange(2 * self.n_models), 2 * self.n_models + self.pattern])
            self.columns = np.concatenate([np.arange(2 * self.n_models), 2 * self.n_models + firsts])
        else:
            self.rows = spread_labels(scores, costs, job.price)
            self.copied = self.columns = np.arange(self.n_models)
        self.summed = Summed(self.rows)
        self.seconds = perf_counter() - begin

    @cached_property
    def all(self) -> Floats:
        """The rows with a column for each model's observations: a dense product's bits depend on how many there are."""
        return self.rows if len(self.copied) == self.rows.shape[1] else self.rows.take(self.copied, axis=1)

    def outcomes(self, sums: Floats, mean_scores: Floats, mean_costs: Floats) -> None:
        """Write mean scores and costs of every model [b, M] from sums over neighbours' rows [b, columns]."""
        scores, costs = sums[:, : self.n_models], sums[:, self.n_models : 2 * self.n_models]
        of_pattern = sums[:, 2 * self.n_models :]
        weight = of_pattern if of_pattern.shape[1] == 1 else of_pattern.take(self.pattern, axis=1)
        some: npt.NDArray[np.bool_] | bool = True
        if of_pattern.shape[1] > 1 and not (of_pattern > 0).all():
            some = weight > 0
            mean_scores[:], mean_costs[:] = self.means
        np.divide(scores, weight, out=mean_scores, where=some)
        np.divide(costs, weight, out=mean_costs, where=some)

    def votes(self, sums: Floats) -> Positions:
        """The model of the most votes [b] from sums over neighbours' labels [b, M]."""
        votes = np.where(sums.sum(axis=1, keepdims=True) > 0, sums, self.rows.mean(axis=0))
        total = votes.sum(axis=1, keepdims=True)
        return most_voted(votes / np.where(total > 0, total, 1.0), self.means[1])


class _Answer:
    """One job's answer, filled as neighbours are found."""

    def __init__(self, question: Question, table: _Table) -> None:
        self.question, self.table, job = question, table, question.job
        self.k, self.weighting = question.k, question.weighting
        self.fit_seconds, self.route_seconds, self.n_bytes = table.seconds, 0.0, table_bytes(job.train)
        #: The search of the index; None: it was not asked.
        self.searched: _Shared | None = None
        shape = (job.queries.n, table.n_models)
        self.prediction: Prediction | Positions
        if job.price is None:
            self.prediction = Prediction(scores=np.empty(shape), costs=np.empty(shape))
        else:
            self.prediction = np.empty(job.queries.n, dtype=np.int64)

    @property
    def space(self) -> tuple[object, ...]:
        """What answers of one search have in common; an index's k nearest are not the first of a larger k's."""
        question = self.question
        key = (question.similarity, id(question.job.train), id(question.job.queries))
        return key if question.nprobe is None else (*key, self.k, question.nprobe)

    def add(self, rows: Positions | slice, sums: Floats) -> None:
        """Take the sums of some queries' neighbours over the table's columns. [b] and [b, columns]."""
        if isinstance(self.prediction, Prediction):
            scores, costs = self.prediction.scores[rows], self.prediction.costs[rows]
            self.table.outcomes(sums, scores, costs)
            if not isinstance(rows, slice):  # then these are copies
                self.prediction.scores[rows], self.prediction.costs[rows] = scores, costs
        else:
            self.prediction[rows] = self.table.votes(sums)

    def finish(self) -> Fitted:
        """The means, or the choice by votes, with what they cost."""
        return Fitted(
            prediction=self.prediction,
            fit_seconds=self.fit_seconds,
            route_seconds=self.route_seconds,
            n_bytes=self.n_bytes,
            more_metrics=self._neighbour_recall if self.question.tells_recall else None,
        )

    def _neighbour_recall(self) -> dict[str, float]:
        return {"neighbour_recall": self.searched.recall if self.searched else 1.0}


def weigh(similarity: Floats, weighting: Weighting) -> Floats:
    """Weights of neighbours, nearest first, up to a factor per row. Both [b, k]."""
    kind, tau = weighting
    if kind == "distance":
        return 1.0 / np.maximum(np.sqrt(np.maximum(2.0 - 2.0 * similarity, 0.0)), COINCIDENT)
    if kind == "softmax":
        return np.exp((similarity - similarity[:, :1]) / tau)
    return np.ones_like(similarity)


class _Shared:
    """Answers of one search: neighbours come in small parts, and are summed in larger ones."""

    def __init__(self, answers: list[_Answer]) -> None:
        self.answers = answers
        first = answers[0].question
        self.nprobe, job = first.nprobe, first.job
        self.search = Search(
            similarity=first.similarity,
            train=job.train,
            queries=job.queries,
            k=max(answer.k for answer in answers),
        )
        #: Those that a dense product serves, part by part: its bits depend on which part.
        self.wide = [answer for answer in answers if is_dense(answer.k, job.train.n)]
        self.narrow: dict[int, list[_Answer]] = {}
        for answer in answers:
            if not is_dense(answer.k, job.train.n):
                self.narrow.setdefault(id(answer.table), []).append(answer)
        self.waiting: list[Neighbours] = []
        if self.nprobe is not None:
            self.sample = sampled(job.queries.n)
            self.similarity = np.empty((len(self.sample), self.search.k), dtype=np.float32)
            for answer in answers:
                answer.searched = self

    @cached_property
    def recall(self) -> float:
        """How often the index was right, by the queries of the sample."""
        queries = part_of(self.search.queries, self.sample)
        return recall(replace(self.search, queries=queries), self.similarity)

    def add(self, found: Neighbours) -> None:
        """Take a part of the search's answer."""
        if self.nprobe is not None:
            _, there, here = np.intersect1d(self.sample, found.rows, assume_unique=True, return_indices=True)
            self.similarity[there] = found.similarity[here]
        for answer in self.wide:
            weights = weigh(found.similarity[:, : answer.k].astype(np.float64), answer.weighting)
            sums = weighted_sums(found.index[:, : answer.k], weights, answer.table.all)
            answer.add(found.rows, sums[:, answer.table.columns])
        if self.narrow:
            k = max(answer.k for group in self.narrow.values() for answer in group)
            index, similarity = found.index[:, :k], found.similarity[:, :k]
            self.waiting.append(replace(found, index=index.astype(np.int32), similarity=similarity))
            if sum(len(part.rows) for part in self.waiting) >= SUMMED_TOGETHER:
                self.flush()

    def flush(self) -> None:
        """Sum what waits."""
        if not self.waiting:
            return
        rows, index, similarity = (
            np.concatenate([getattr(part, name) for part in self.waiting]) for name in ("rows", "index", "similarity")
        )
        self.waiting = []
        places = slice(rows[0], rows[-1] + 1) if (np.diff(rows) == 1).all() else rows
        similarity = similarity.astype(np.float64)
        for group in self.narrow.values():
            kinds: dict[Weighting, list[_Answer]] = {}
            for answer in group:
                kinds.setdefault(answer.weighting, []).append(answer)
            weights = [
                weigh(similarity[:, : max(answer.k for answer in members)], kind) for kind, members in kinds.items()
            ]
            ends = sorted({answer.k for answer in group})
            for end, sums in zip(ends, running_sums(index, weights, group[0].table.summed, ends), strict=True):
                for number, members in enumerate(kinds.values()):
                    for answer in members:
                        if answer.k == end:
                            answer.add(places, sums[number])


def table_bytes(train: Side) -> int:
    """Bytes of a training side's embeddings and outcomes."""
    scores, costs = train.outcomes
    return train.n * int(train.embeddings[0].nbytes) + scores.nbytes + costs.nbytes
