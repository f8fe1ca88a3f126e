"""How do many small networks train as one? Members of a group step together, each with the bits it would have alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Prediction, Router, Side, mean_outcomes

if TYPE_CHECKING:
    import torch

Floats32 = npt.NDArray[np.float32]
Tensors = Mapping[str, "torch.Tensor"]

#: Members of one batched model at most: on one CPU thread more bring nothing.
TOGETHER = 8
#: Bytes of parameters of a batched model at most, unless one member has more: a step of larger ones waits for memory.
STEP_BYTES = 4 << 20
#: Batches are multiples of so many queries, and hidden layers should be of so many units: then every member's blocks
#: of memory begin at the same alignment, and kernels that depend on it give the same bits in any company.
LANES = 16
#: Epochs at which tuning may stop a configuration early.
STAGES = (0, 1, 2, 3, 5, 8, 12, 20, 30, 50, 80, 120, 200)


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """What one member starts from; numpy arrays, so that a family needs no torch to make it."""

    #: Initial weights by name.
    parameters: Mapping[str, Floats32]
    #: Rows that a batch picks from by training query, float32 or int64: targets, neighbours, ... [n_train, ...]
    tables: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """One step's queries of all members, `B` of them with `b` queries each."""

    #: Positions on each member's training side. [B, b]
    index: torch.Tensor
    #: The members' tables. [B, n, ...]
    tables: Tensors
    #: Embeddings of the whole benchmark. [n_benchmark, d]
    X: torch.Tensor
    #: Row of `X` of every training query. [B, n]
    rows: torch.Tensor
    #: What `draws` gave for this step. [B, ...]
    draws: Tensors
    #: What a family keeps from step to step of the same members, such as memory for what lies between the layers.
    kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def places(self) -> torch.Tensor:
        """The same in the tables of all members, one below the other. [B * b]."""
        import torch

        first = torch.arange(len(self.index), device=self.index.device) * self.rows.shape[1]
        return (self.index + first[:, None]).flatten()

    def take(self, name: str, index: torch.Tensor | None = None) -> torch.Tensor:
        """Rows of a table at the batch's queries, or at other positions [B, ...] of the training sides."""
        table = self.tables[name]
        if index is not None:
            return _take(table, index)
        return table.flatten(0, 1).index_select(0, self.places).view(*self.index.shape, *table.shape[2:])

    def x(self, index: torch.Tensor | None = None) -> torch.Tensor:
        """Embeddings of the batch's queries [B, b, d], or of other positions of the training sides [B, ..., d]."""
        if index is None:
            rows = self.rows.flatten().index_select(0, self.places)
            return self.X.index_select(0, rows).view(*self.index.shape, self.X.shape[1])
        rows = _take(self.rows, index)
        return self.X.index_select(0, rows.flatten()).view(*index.shape, self.X.shape[1])


class TrainedRouter(Router, ABC):
    """A router whose weights gradient descent finds; all fits of a shard train as batched models.

    A subclass has the constructor parameters `learning_rate`, `weight_decay`, `epochs` and `batch_size`, makes a
    `network`, and says what its `loss` is and what a fitted router predicts from `weights_`. An epoch runs over the
    training side in a new order; its last incomplete batch is left out. Adam; everything on one CPU thread, or on a
    GPU where the worker has one.
    """

    version = "2"
    staged = "epochs"
    #: Whether weight decay is AdamW's and not Adam's.
    decoupled_decay: ClassVar[bool] = False
    #: Epochs that tuning trains a configuration for, at most.
    most_epochs: ClassVar[int] = 30
    tunables: ClassVar[tuple[str, ...]] = ("learning_rate", "weight_decay", "epochs")
    tuned_by_default = False

    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    #: Fitted weights by name, as `network` made them.
    weights_: dict[str, Floats32]

    @abstractmethod
    def network(self, train: Side, price: float | None, rng: np.random.Generator) -> Network:
        """Initial weights and tables of one fit; keeps what `predict` needs besides the weights in fitted names.

        Args:
            train: Training side.
            price: None for utility prediction, else the price of cost of a selector.
            rng: The job's stream.
        """

    def loss(self, weights: Tensors, batch: Batch) -> torch.Tensor:
        """Loss of every member of the batch, [B]; a member's may depend on nothing of the others.

        Args:
            weights: By name, [B, ...].
            batch: Queries of this step.
        """
        raise NotImplementedError(f"{type(self).__name__} has neither a loss nor gradients of its own")

    def gradients(self, weights: Tensors, batch: Batch, into: Tensors) -> None:
        """Gradient of every member's loss by its own weights; by autograd, unless a family knows a shorter way.

        Args:
            weights: By name, [B, ...].
            batch: Queries of this step.
            into: Where to write the gradients, all of them. By name, [B, ...]
        """
        import torch

        losses = self.loss(weights, batch).sum()
        found = torch.autograd.grad(losses, list(weights.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(weights, found, strict=True):
            into[name].copy_(gradient)

    def draws(self, rng: np.random.Generator, size: int) -> Mapping[str, npt.NDArray[Any]]:
        """Random numbers of one step of one member, such as masks, by name."""
        return {}

    def finish(self, train: Side) -> None:
        """Keep what follows from the final weights, such as a calibration; most families need nothing.

        Args:
            train: Training side.
        """
        return None

    def signature(self) -> Hashable:
        """Parameters in which all members of one batched model must agree; default: all but those of the optimiser."""
        optimiser = ("learning_rate", "weight_decay", "epochs", "batch_size")
        return tuple((key, value) for key, value in self.params().items() if key not in optimiser)

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """The declared tuning space: rate and decay are drawn, the number of epochs is found by stopping early."""
        return {
            "learning_rate": {"log": [1e-4, 1e-2]},
            "weight_decay": {"log": [1e-6, 1e-2]},
            "epochs": cls.stages({"epochs": cls.most_epochs}),
            "first": [{key: cls().params()[key] for key in cls.tunables if key != "epochs"}],
        }

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """The default rate and decay, then draws; the query-blind epoch 0 is a stage of each."""
        drawn = [
            {
                "learning_rate": float(np.exp(rng.uniform(np.log(1e-4), np.log(1e-2)))),
                "weight_decay": float(np.exp(rng.uniform(np.log(1e-6), np.log(1e-2)))),
                "epochs": cls.most_epochs,
            }
            for _ in range(budget - 1)
        ]
        default = cls().params()
        return [{**{key: default[key] for key in cls.tunables}, "epochs": cls.most_epochs}, *drawn]

    @classmethod
    def stages(cls, config: Mapping[str, Any]) -> list[int]:
        """Epochs at which validation is looked at."""
        most = int(config["epochs"])
        return sorted({*(stage for stage in STAGES if stage < most), most})

    @classmethod
    def simplicity(cls, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Fewer epochs, then smaller steps, then more decay."""
        return (params["epochs"], params["learning_rate"], -params["weight_decay"])

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Train alone."""
        return self._fit(FitJob(router=self, train=train, queries=train, rng=rng))

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """Train alone, at one price of cost."""
        if "selection" not in self.formulations:
            return super().fit_selector(train, price, rng)
        return self._fit(FitJob(router=self, train=train, queries=train, rng=rng, price=price))

    def _fit(self, job: FitJob) -> Self:
        train_members([job], lambda i, router, seconds: None)
        return self

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """Train all jobs in batched models; of jobs that differ in epochs alone the longest shows the shorter ones."""
        answers: dict[int, Fitted] = {}

        def answer(i: int, router: TrainedRouter, seconds: float) -> None:
            begin = perf_counter()
            job = jobs[i]
            prediction = router.predict(job.queries) if job.price is None else router.select(job.queries)
            answers[i] = Fitted(
                prediction=prediction,
                fit_seconds=seconds,
                route_seconds=perf_counter() - begin,
                n_bytes=router.n_bytes,
            )

        train_members(jobs, answer)
        yield from (answers[i] for i in range(len(jobs)))


@dataclass(eq=False)
class _Member:
    """Jobs that one run of training serves."""

    #: Positions of the jobs by the number of epochs that they ask for.
    jobs: dict[int, list[int]]
    network: Network
    train: Side
    #: The longest job's router: its parameters drive the optimiser.
    router: TrainedRouter
    rng: np.random.Generator
    size: int
    #: Seconds of training since weights were last handed out.
    seconds: float
    #: Batches that are left of this epoch, and epochs done.
    order: list[npt.NDArray[np.int64]] = field(default_factory=list)
    epoch: int = 0

    def next_batch(self) -> npt.NDArray[np.int64]:
        if not self.order:
            shuffled = self.rng.permutation(self.train.n)
            self.order = [shuffled[i : i + self.size] for i in range(0, self.train.n - self.size + 1, self.size)]
        batch = self.order.pop(0)
        self.epoch += not self.order
        return batch


#: Takes a job's position, its fitted router, and the seconds of training since this member's last one.
Receiver = Callable[[int, TrainedRouter, float], None]


def train_members(jobs: Sequence[FitJob], receive: Receiver) -> None:
    """Fit the routers of jobs of one class; hands each over as soon as its epochs are done.

    A member is one run of training, which serves jobs that differ in epochs alone; up to `TOGETHER` members of like
    parameters and shapes are one batched model, fewer where they are large.
    """
    runs: dict[Hashable, list[int]] = {}
    for i, job in enumerate(jobs):
        runs.setdefault(_run_key(job), []).append(i)
    waiting: dict[Hashable, list[_Member]] = {}
    for run in runs.values():
        member = _member(jobs, run)
        group = waiting.setdefault(_group_key(member), [])
        group.append(member)
        if len(group) == _company(member):
            _train(group, jobs, receive)
            group.clear()
    for group in waiting.values():
        if group:
            _train(group, jobs, receive)


def _run_key(job: FitJob) -> Hashable:
    """Jobs that one run of training serves agree in this: all but the epochs, on equal streams."""
    params = {key: value for key, value in job.router.params().items() if key != "epochs"}
    return (repr(sorted(params.items())), id(job.train), job.price, repr(job.rng.bit_generator.state["state"]))


def _member(jobs: Sequence[FitJob], run: list[int]) -> _Member:
    by_epochs: dict[int, list[int]] = {}
    for i in run:
        by_epochs.setdefault(int(jobs[i].router.params()["epochs"]), []).append(i)
    longest = jobs[by_epochs[max(by_epochs)][0]]
    router = longest.router
    assert isinstance(router, TrainedRouter)
    begin = perf_counter()
    network = router.network(longest.train, longest.price, longest.rng)
    return _Member(
        jobs=by_epochs,
        network=network,
        train=longest.train,
        router=router,
        rng=longest.rng,
        size=_batch_size(router.batch_size, longest.train.n),
        seconds=perf_counter() - begin,
    )


def _batch_size(asked: int, n: int) -> int:
    """The largest multiple of 16 that is neither above the batch size nor the training side; below 16 queries all."""
    return min(asked, n) // LANES * LANES or n


def _group_key(member: _Member) -> Hashable:
    if member.size % LANES:
        return id(member)  # its blocks of memory are not aligned like others', so it trains alone
    tables = tuple((name, table.shape[1:], table.dtype.str) for name, table in member.network.tables.items())
    shapes = tuple((name, array.shape) for name, array in member.network.parameters.items())
    return (member.router.signature(), member.size, id(member.train.matrix), tables, shapes)


def _company(member: _Member) -> int:
    """How many members like this one make a batched model."""
    n_bytes = sum(array.nbytes for array in member.network.parameters.values())
    return max(1, min(TOGETHER, STEP_BYTES // max(n_bytes, 1)))


def _train(members: list[_Member], jobs: Sequence[FitJob], receive: Receiver) -> None:
    """Step all members until each has done its epochs; hand out the routers on the way."""
    import torch

    with one_thread(), without_denormals():
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        X = torch.from_numpy(np.array(members[0].train.embeddings)).to(device)  # torch takes no read-only array
        begin = perf_counter()
        group = _Group(members, device)
        active = list(range(len(members)))
        while active:
            ended = [i for i in active if not members[i].order]
            if ended:
                for i in active:
                    members[i].seconds += (perf_counter() - begin) / len(active)
                for i in ended:
                    _hand_out(group, i, members[i], jobs, receive)
                active = [i for i in active if members[i].order or members[i].epoch < max(members[i].jobs)]
                begin = perf_counter()
                group.keep(active)
            if active:
                _step(group, [members[i] for i in active], X, device)


def _hand_out(group: _Group, i: int, member: _Member, jobs: Sequence[FitJob], receive: Receiver) -> None:
    asked = member.jobs.get(member.epoch, [])
    if not asked:
        return
    weights = group.weights_of(i)
    fitted = {key: value for key, value in vars(member.router).items() if key not in member.router.params()}
    for job in asked:
        router = jobs[job].router
        assert isinstance(router, TrainedRouter)
        vars(router).update(fitted)
        router.weights_ = weights
        begin = perf_counter()
        router.finish(member.train)
        receive(job, router, member.seconds / len(asked) + perf_counter() - begin)
    member.seconds = 0.0


class _Group:
    """Parameters and tables of the members that still train."""

    def __init__(self, members: list[_Member], device: torch.device) -> None:
        import torch

        from workers.descent import Descent, Rates

        rates = [
            Rates(
                learning_rate=member.router.learning_rate,
                weight_decay=member.router.weight_decay,
                decoupled=member.router.decoupled_decay,
            )
            for member in members
        ]
        self.descent = Descent([member.network.parameters for member in members], rates, lanes=LANES, device=device)
        most = max(member.train.n for member in members)
        self.tables = {
            name: torch.from_numpy(_stacked([member.network.tables[name] for member in members], most)).to(device)
            for name in members[0].network.tables
        }
        rows = [np.asarray(member.train.embedding_rows, dtype=np.int64) for member in members]
        self.rows = torch.from_numpy(_stacked(rows, most)).to(device)
        self.members = list(range(len(members)))
        self.kept: dict[str, Any] = {}

    def keep(self, active: list[int]) -> None:
        """Go on with these members alone."""
        if active == self.members or not active:
            return
        places = [self.members.index(i) for i in active]
        self.descent.keep(places)
        self.tables = {name: table[places] for name, table in self.tables.items()}
        self.rows = self.rows[places]
        self.members, self.kept = list(active), {}

    def weights_of(self, i: int) -> dict[str, Floats32]:
        """A copy of one member's parameters."""
        return self.descent.copy(self.members.index(i))


def _step(group: _Group, members: list[_Member], X: torch.Tensor, device: torch.device) -> None:
    import torch

    index = np.stack([member.next_batch() for member in members])
    drawn = [member.router.draws(member.rng, member.size) for member in members]
    batch = Batch(
        index=torch.from_numpy(index).to(device),
        tables=group.tables,
        X=X,
        rows=group.rows,
        draws={name: torch.from_numpy(np.stack([draw[name] for draw in drawn])).to(device) for name in drawn[0]},
        kept=group.kept,
    )
    members[0].router.gradients(group.descent.weights, batch, group.descent.gradients)
    group.descent.step()


def _stacked(arrays: list[npt.NDArray[Any]], most: int) -> npt.NDArray[Any]:
    """Arrays of different length as one, filled up with zeros. [B, most, ...]."""
    out = np.zeros((len(arrays), most, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return out


def _take(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Rows of every member's table. [B, n, ...] at [B, ...]."""
    import torch

    member = torch.arange(len(table), device=table.device).view(-1, *[1] * (index.dim() - 1))
    return table[member, index]


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in another number of threads have other bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def without_denormals() -> Iterator[None]:
    """What is next to zero is zero.

    After a thousand steps or so Adam's means of gradients that have become zero are such numbers, with which processors
    compute ten times slower.
    """
    import torch

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Standardised:
    """Scores and costs in units of their spread over the training side, per model."""

    #: (score, cost) of every model. [2, M]
    means: Floats
    #: Standard deviations, 1 where there is none. [2, M]
    scales: Floats
    #: NaN where not observed. [n, M, 2]
    targets: Floats32


def standardise(train: Side) -> Standardised:
    """Targets of utility prediction (protocol 4): standardised per model on the training side."""
    means = np.stack(mean_outcomes(train))
    outcomes = np.stack(train.outcomes)
    observed = ~np.isnan(outcomes)
    deviations = np.where(observed, outcomes - means[:, None], 0.0)
    variances = (deviations**2).sum(axis=1) / np.maximum(observed.sum(axis=1), 1)
    scales = np.where(variances > 0, np.sqrt(variances), 1.0)
    targets = np.where(observed, deviations / scales[:, None], np.nan).transpose(1, 2, 0)
    return Standardised(means=means, scales=scales, targets=targets.astype(np.float32))


def in_units(outputs: Floats, means: Floats, scales: Floats) -> Prediction:
    """Network outputs [n, M, 2] in the units of scores and costs."""
    scores, costs = means[:, None] + scales[:, None] * outputs.transpose(2, 0, 1)
    return Prediction(scores=scores, costs=costs)


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error over the observed cells of each model and of score and cost, summed over both. [B].

    Args:
        outputs: [B, b, M, 2]
        targets: NaN where not observed. [B, b, M, 2]
    """
    observed = ~targets.isnan()
    errors = (outputs - targets.nan_to_num()).square() * observed
    counts = over_batch(observed.float()).clamp(min=1)
    return (over_batch(errors) / counts).flatten(1).sum(dim=1)


def affine(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A fully connected layer for every member; all leading dimensions are there, none is broadcast. [..., b, out].

    Args:
        inputs: [..., b, in]
        weight: [..., in, out]
        bias: [..., 1, out]
    """
    from workers.products import Affine

    return Affine.apply(inputs, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


def repeat(rows: torch.Tensor, n: int) -> torch.Tensor:
    """One row of each matrix, `n` times: [..., 1, w] to [..., n, w].

    What broadcasting would give, but a gradient that has the same bits whatever the number of members.
    """
    from workers.products import Repeat

    return Repeat.apply(rows, n)  # type: ignore[no-any-return, no-untyped-call]


def padded(width: int) -> int:
    """A hidden width rounded up to a multiple of 16; units beyond the width start at zero and stay there."""
    return -(-width // LANES) * LANES


def over_batch(values: torch.Tensor) -> torch.Tensor:
    """Sum over a batch's queries, [B, b, ...] to [B, ...]: along contiguous rows, so that company changes no bit."""
    return values.movedim(1, -1).contiguous().sum(dim=-1)


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the softmax over models with soft labels, mean over the batch. [B].

    Args:
        logits: [B, b, M]
        labels: Shares; a row of zeros adds nothing. [B, b, M]
    """
    return -(logits.log_softmax(dim=-1) * labels).sum(dim=-1).mean(dim=-1)


def uniform(rng: np.random.Generator, bound: float, *shape: int) -> Floats32:
    """Initial weights, uniform within the bound either way."""
    return rng.uniform(-bound, bound, size=shape).astype(np.float32)


def check_optimiser(learning_rate: object, weight_decay: object, epochs: object, batch_size: object) -> None:
    """Refuse what no optimiser can use.

    Raises:
        ValueError: Names the parameter.
    """
    check_whole("epochs", epochs, 0)
    check_whole("batch_size", batch_size, 1)
    if batch_size % LANES:  # type: ignore[operator]
        raise ValueError(f"batch_size must be a multiple of {LANES}, not {batch_size!r}.")
    if not (isinstance(learning_rate, int | float) and 0 < learning_rate < math.inf):
        raise ValueError(f"learning_rate must be a number above 0, not {learning_rate!r}.")
    if not (isinstance(weight_decay, int | float) and 0 <= weight_decay < math.inf):
        raise ValueError(f"weight_decay must be a number, at least 0, not {weight_decay!r}.")


def check_whole(key: str, value: object, least: int) -> None:
    """Refuse what is not a whole number of at least `least`.

    Raises:
        ValueError: Names the parameter.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{key} must be a whole number, at least {least}, not {value!r}.")


__all__ = [
    "STAGES",
    "Batch",
    "Network",
    "Standardised",
    "TrainedRouter",
    "affine",
    "check_optimiser",
    "check_whole",
    "cross_entropy",
    "in_units",
    "one_thread",
    "over_batch",
    "padded",
    "repeat",
    "squared_error",
    "standardise",
    "train_members",
    "uniform",
]
