"""How is a fitted router used? Route new prompts: the model, what is expected of each, and how sure that is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Floats, Model
from workers.embed import encode_inputs
from workers.encoders.base import Encoder, Input, make_encoder
from workers.encoders.fitted import FittedEncoder, fitted_rows
from workers.errors import RouterError
from workers.metrics.frontier import choose
from workers.plugins import nearest as did_you_mean
from workers.routers.base import Calls, Mixture, Positions, Prediction, Router, Side
from workers.routers.labels import spread_labels
from workers.routers.neighbours import Search, nearest
from workers.saving import load_router, read_state, save_router, write_state
from workers.units import PREFERENCES

#: Raise it when older programs could not read what is written.
FORMAT = 1
#: Neighbours that the diagnostics look at.
NEIGHBOURS = 10
_DESCRIPTION = "deployed.json"
#: Folder of the router of utility prediction; a selector has one for each preference.
_UTILITY = "router"
#: Folder of what a fitted encoder learned.
_ENCODER = "encoder"


@dataclass(frozen=True, kw_only=True)
class Route:
    """What a deployed router says of one prompt."""

    #: The model to call.
    model: str
    #: Price of cost it was chosen at.
    price: float
    #: Predicted score of every model; None where the router names a model without predicting.
    scores: Mapping[str, float] | None
    #: Predicted cost of every model in USD; None likewise.
    costs: Mapping[str, float] | None
    #: Probability of each model, of a router that draws; else None.
    chances: Mapping[str, float] | None
    #: Euclidean distance to the k-th nearest labelled query, between unit rows; None without an embedding.
    distance: float | None
    #: Share of the labelled queries that are nearer to their own k-th neighbour than this; None likewise.
    farther_than: float | None
    #: Share of the neighbours' votes at this price that go to other models than the most voted; None likewise.
    disagreement: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Deployed:
    """A fitted router with all that routing needs: encoder, models, cost 1, and the labelled queries behind it."""

    #: By formulation: `router` for every price of cost, or one selector for each preference.
    routers: Mapping[str, Router]
    models: tuple[Model, ...]
    #: Cost 1 in USD.
    c_ref: float
    #: Registered name and parameters of the encoder; None where the router reads no embedding.
    encoder: tuple[str, Mapping[str, Any]] | None
    #: Recipe that the encoder must still have.
    recipe: Mapping[str, Any] | None
    #: Embeddings of the labelled queries, [n, d]; None likewise.
    support: npt.NDArray[np.float32] | None
    #: Their scores and costs in units of cost 1, NaN = not observed. Both [n, M].
    outcomes: tuple[Floats, Floats]
    #: Where it comes from: unit, sweep, benchmark, figures.
    provenance: Mapping[str, Any] = field(default_factory=dict)
    #: The encoder itself, of one that was fitted with the router; None where `encoder` says all.
    fitted: FittedEncoder | None = None

    def save(self, directory: Path) -> None:
        """Write the folder: safetensors and JSON, no pickle.

        Raises:
            RouterError: It exists, cannot be written, or the router's state cannot be saved.
        """
        if directory.exists():
            raise RouterError(f"{directory}: exists already; remove it or choose another folder.")
        description = {
            "format": FORMAT,
            "routers": sorted(self.routers),
            "models": [[m.name, m.family, m.price_in, m.price_out] for m in self.models],
            "c_ref": self.c_ref,
            "encoder": self.encoder and [self.encoder[0], dict(self.encoder[1])],
            "recipe": self.recipe,
            "provenance": dict(self.provenance),
        }
        state: dict[str, Any] = {"scores": self.outcomes[0], "costs": self.outcomes[1]}
        if self.support is not None:
            state["support"] = self.support
        write_state(directory, description, state, name=_DESCRIPTION)
        if self.fitted is not None:
            learned = {name: value for name, value in sorted(vars(self.fitted).items()) if name.endswith("_")}
            write_state(directory / _ENCODER, {}, learned, name=f"{_ENCODER}.json")
        for name, router in self.routers.items():
            save_router(router, directory / name)

    @classmethod
    def load(cls, directory: Path) -> Deployed:
        """Read a folder that `save` wrote.

        Raises:
            RouterError: Missing, damaged, of a newer format, or its router or encoder is not installed.
        """
        description, state = read_state(directory, name=_DESCRIPTION)
        if description.get("format") != FORMAT:
            raise RouterError(
                f"{directory / _DESCRIPTION}: format {description.get('format')!r}, this version reads {FORMAT}; "
                "export the router again."
            )
        try:
            names = [name for name in (_UTILITY, *PREFERENCES) if name in description["routers"]]
            encoder = description["encoder"]
            fitted = make_encoder(*encoder) if encoder and (directory / _ENCODER).is_dir() else None
            if isinstance(fitted, FittedEncoder):
                _, learned = read_state(directory / _ENCODER, name=f"{_ENCODER}.json")
                vars(fitted).update(learned)
            else:
                fitted = None
            return cls(
                routers={name: load_router(directory / name) for name in names},
                models=tuple(Model(name=n, family=f, price_in=i, price_out=o) for n, f, i, o in description["models"]),
                c_ref=float(description["c_ref"]),
                encoder=None if encoder is None else (encoder[0], encoder[1]),
                recipe=description["recipe"],
                support=state.get("support"),
                outcomes=(state["scores"], state["costs"]),
                provenance=description["provenance"],
                fitted=fitted,
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RouterError(
                f"{directory / _DESCRIPTION}: not what an export writes ({error}); export the router again."
            ) from error

    def route(
        self,
        prompts: Sequence[str],
        *,
        preference: str | None = None,
        price: float | None = None,
        task: str | None = None,
        seed: int = 0,
    ) -> list[Route]:
        """Choose a model for each prompt.

        Args:
            prompts: What the encoder is to see.
            preference: `low-cost`, `balanced` (default) or `high-performance`.
            price: A price of cost instead; a router of utility prediction alone takes any.
            task: Task of the prompts, for routers that read it.
            seed: Of the draws of a router that draws.

        Raises:
            RouterError: An unknown preference, a price for a selector, or an encoder that is not what it was.
        """
        price, router = self._pick(preference, price)
        side = self._side(prompts, task or "")
        answer = router.predict(side) if _UTILITY in self.routers else router.select(side)
        chosen, chances = _choose(answer, price, np.random.default_rng(seed))
        distance, farther, disagreement = self._diagnose(side, price)
        names = [model.name for model in self.models]

        def by_name(row: Floats) -> dict[str, float]:
            return {name: float(value) for name, value in zip(names, row, strict=True)}

        return [
            Route(
                model=names[model],
                price=price,
                scores=by_name(answer.scores[i]) if isinstance(answer, Prediction) else None,
                costs=by_name(answer.costs[i] * self.c_ref) if isinstance(answer, Prediction) else None,
                chances=None if chances is None else by_name(chances[i]),
                distance=None if distance is None else float(distance[i]),
                farther_than=None if farther is None else float(farther[i]),
                disagreement=None if disagreement is None else float(disagreement[i]),
            )
            for i, model in enumerate(chosen)
        ]

    def _pick(self, preference: str | None, price: float | None) -> tuple[float, Router]:
        if preference is not None and price is not None:
            raise RouterError("give a preference or a price of cost, not both.")
        if price is not None:
            if not 0 <= price < math.inf:
                raise RouterError(f"a price of cost is a number, at least 0, not {price!r}.")
            if _UTILITY not in self.routers:
                raise RouterError(f"this router was trained for {', '.join(self.routers)} alone; name a preference.")
            return price, self.routers[_UTILITY]
        preference = preference or "balanced"
        if preference not in PREFERENCES:
            raise RouterError(f"unknown preference {preference!r}; {did_you_mean(preference, list(PREFERENCES))}")
        return PREFERENCES[preference], self.routers[_UTILITY if _UTILITY in self.routers else preference]

    def _side(self, prompts: Sequence[str], task: str) -> Side:
        n = len(prompts)
        matrix, inputs = None, [Input(text=text) for text in prompts]
        if self.encoder is not None:
            encoder: Encoder | None = _checked(self.encoder, self.recipe)
            if isinstance(encoder, FittedEncoder):
                encoder = encoder.base
            matrix = None if encoder is None else encode_inputs(encoder, inputs)
        side = Side(
            rows=np.arange(n),
            matrix=matrix,
            embedding_rows=np.arange(n),
            tasks=(task,) * n,
            groups=np.arange(n),
            models=self.models,
            texts=tuple(prompts),
        )
        return side if self.fitted is None else replace(side, matrix=fitted_rows(self.fitted, side))

    def _diagnose(self, side: Side, price: float) -> tuple[Floats | None, Floats | None, Floats | None]:
        if self.support is None or side.matrix is None:
            return None, None, None
        n = len(self.support)
        labelled = Side(
            rows=np.arange(n),
            matrix=self.support,
            embedding_rows=np.arange(n),
            tasks=("",) * n,
            groups=np.arange(n),
            models=self.models,
        )
        k = min(NEIGHBOURS, n)
        index, distance = _neighbours(labelled, side, k)
        # Itself is each labelled query's first neighbour.
        own = np.sort(_neighbours(labelled, labelled, min(k + 1, n))[1])
        votes = spread_labels(*self.outcomes, price)[index].mean(axis=1)
        farther = np.searchsorted(own, distance) / n
        return distance, farther, 1.0 - votes.max(axis=1)


def _neighbours(labelled: Side, queries: Side, k: int) -> tuple[Positions, Floats]:
    """Positions of the k nearest [n, k] and the distance to the last of them [n]."""
    index = np.empty((queries.n, k), dtype=np.int64)
    distance = np.empty(queries.n)
    for found in nearest([Search(similarity="cosine", train=labelled, queries=queries, k=k)]):
        index[found.rows] = found.index
        distance[found.rows] = np.sqrt(np.maximum(2.0 - 2.0 * found.similarity[:, -1].astype(np.float64), 0.0))
    return index, distance


def _checked(encoder: tuple[str, Mapping[str, Any]], recipe: Mapping[str, Any] | None) -> Encoder:
    made = make_encoder(*encoder)
    if json.loads(json.dumps(made.recipe())) != recipe:
        raise RouterError(
            f"encoder {encoder[0]!r} has other weights or another version here than when the router was fitted; "
            "install the same package, or export the router again."
        )
    return made


def _choose(
    answer: Prediction | Mixture | Calls | Positions, price: float, rng: np.random.Generator
) -> tuple[Positions, Floats | None]:
    """Position of each prompt's model, and the chances that it was drawn by."""
    if isinstance(answer, Prediction):
        return choose(answer, price), None
    if isinstance(answer, np.ndarray):
        return answer, None
    chances = answer.probabilities if isinstance(answer, Mixture) else answer.answers[answer.setting(price)]
    below = np.cumsum(chances, axis=1) < rng.random((len(chances), 1))
    return np.minimum(below.sum(axis=1), chances.shape[1] - 1), chances
