"""Does the strong model win, tie or lose? RouteLLM's classifier, on frozen embeddings or a fine-tuned transformer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from workers.benchmarks.base import Floats
from workers.routers.base import FitJob, Fitted, Side
from workers.routers.finetuning import FineTuning, texts_of
from workers.routers.pairs import PairHead, WinRateRouter, label_shares, softmax
from workers.training import TrainedRouter, check_optimiser, check_whole

#: Classes of the head: the strong model wins, both tie, it loses.
CLASSES = 3
#: Learning rate, weight decay, epochs and batch size of the head on frozen embeddings: this project's.
FROZEN = (1e-3, 1e-4, 30, 64)
#: The same of fine-tuning: the paper's, but for the epochs (2,000 steps there).
FINE_TUNED = (1e-5, 0.01, 3, 16)


class RouteLLMBert(PairHead, WinRateRouter):
    """A head on an encoder with three classes for each pair: the strong model wins, both tie, it loses.

    The original fine-tunes BERT-base with a classification head of three labels (verified in the released code,
    github.com/lm-sys/RouteLLM, `BERTRouter`, which takes P(win) alone for the threshold, so a tie is the weak
    model's). Readings of this project: a tie counts half (see `WinRateRouter`); each pair of the chain has a head of
    its own, all on one encoder; by default the encoder is the sweep's, frozen, and the heads are linear in x.

    With `finetune` the whole transformer is trained by AdamW with transformers' own classification head, on the text
    and not on x. A fitted router then keeps all weights; configuration and tokenizer are the source's, which must
    still be there to route. A blind twin's texts are permuted as its embeddings are.

    Args:
        finetune: A transformers or sentence-transformers folder, a hub name, `minilm` for the packaged
            all-MiniLM-L6-v2, or None.
        max_length: Tokens of a text that a fine-tuned transformer sees.
        learning_rate: None: 1e-3 (Adam) of the frozen head, 1e-5 of fine-tuning.
        weight_decay: None: 1e-4 of the frozen head, 0.01 of fine-tuning.
        epochs: None: 30 of the frozen head, 3 of fine-tuning.
        batch_size: None: 64 of the frozen head, 16 of fine-tuning.
    """

    name = "routellm-bert"
    summary = "a 3-way head (win, tie, loss), frozen encoder or fine-tuned"
    source = "Ong et al. 2024, RouteLLM, arXiv 2406.18665, BERT classifier"

    def __init__(
        self,
        *,
        finetune: str | None = None,
        max_length: int = 512,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        if finetune is not None and not (isinstance(finetune, str) and finetune):
            raise ValueError(f"finetune must be a folder, a hub name, `minilm` or nothing, not {finetune!r}.")
        check_whole("max_length", max_length, 1)
        rate, decay, passes, size = FROZEN if finetune is None else FINE_TUNED
        self.finetune = finetune
        self.max_length = max_length
        self.learning_rate = rate if learning_rate is None else learning_rate
        self.weight_decay = decay if weight_decay is None else weight_decay
        self.epochs = passes if epochs is None else epochs
        self.batch_size = size if batch_size is None else batch_size
        check_optimiser(self.learning_rate, self.weight_decay, self.epochs, self.batch_size)

    def requirements(self) -> tuple[str, ...]:
        """Text to fine-tune on."""
        return self.needs if self.finetune is None else ("text",)

    @classmethod
    def space(cls) -> Mapping[str, Any]:
        """That of the frozen head; fine-tuning's rates and decays are a hundredth and a hundred times of it."""
        return {**super().space(), "finetune": {"learning_rate": {"log": [1e-6, 1e-4]}}}

    @classmethod
    def candidates(
        cls, *, n_train: int, budget: int, fixed: Mapping[str, Any], rng: np.random.Generator
    ) -> list[dict[str, Any]]:
        """As every trained router; with `finetune` its defaults first, rates of a hundredth and its few epochs."""
        drawn = super().candidates(n_train=n_train, budget=budget, fixed=fixed, rng=rng)
        if fixed.get("finetune") is None:
            return drawn
        rate, decay, passes, _ = FINE_TUNED
        scaled = [{**config, "learning_rate": config["learning_rate"] / 100, "epochs": passes} for config in drawn[1:]]
        return [{"learning_rate": rate, "weight_decay": decay, "epochs": passes}, *scaled]

    def labels(self, train: Side, price: float | None) -> Floats:
        """One of the three classes for every battle. [n, P, 3]."""
        outcomes = self.keep_battles(train, price)
        classes: Floats = (outcomes[..., None] == [1.0, 0.5, 0.0]).astype(np.float64)
        classes[np.isnan(outcomes)] = np.nan
        return classes

    def fit(self, train: Side, rng: np.random.Generator) -> Self:
        """Train the heads, or the transformer."""
        return super().fit(train, rng) if self.finetune is None else self._finetune(train, None, rng)

    def fit_selector(self, train: Side, price: float, rng: np.random.Generator) -> Self:
        """The same, and the price that sets the threshold."""
        return super().fit_selector(train, price, rng) if self.finetune is None else self._finetune(train, price, rng)

    @classmethod
    def predict_many(cls, jobs: Sequence[FitJob]) -> Iterator[Fitted]:
        """Heads train as batched models, transformers one by one."""
        tuned = [bool(job.router.params()["finetune"]) for job in jobs]
        heads = super().predict_many([job for job, each in zip(jobs, tuned, strict=True) if not each])
        for job, each in zip(jobs, tuned, strict=True):
            yield from super(TrainedRouter, cls).predict_many([job]) if each else (next(heads),)

    def _finetune(self, train: Side, price: float | None, rng: np.random.Generator) -> Self:
        labels = self.labels(train, price)
        self.weights_ = {}
        if labels.shape[1]:
            self.weights_ = self._tuning.fit(texts_of(train), labels, np.log(label_shares(labels)), rng)
        return self

    @property
    def _tuning(self) -> FineTuning:
        assert self.finetune is not None
        return FineTuning(
            source=self.finetune,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            epochs=self.epochs,
            batch_size=self.batch_size,
            max_length=self.max_length,
        )

    def win_rates(self, queries: Side) -> Floats:
        """P(win) + P(tie) / 2 of every pair. [n, P]."""
        n_pairs = len(self.chain_) - 1
        if self.finetune is None:
            chances = self.chances(queries, CLASSES)
        elif n_pairs:
            logits = self._tuning.logits(self.weights_, texts_of(queries), n_pairs * CLASSES)
            chances = softmax(logits.reshape(queries.n, n_pairs, CLASSES))
        else:
            chances = np.empty((queries.n, 0, CLASSES))
        return chances[..., 0] + chances[..., 1] / 2
