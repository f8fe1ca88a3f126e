"""Which values can fitted state hold? All that become JSON with arrays beside it, and come back as they were."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.benchmarks.base import Model
from workers.errors import RouterError
from workers.routers.base import Side

#: Kinds of numbers that safetensors and numpy share.
_DTYPES = frozenset(
    np.dtype(kind)
    for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")  # native byte order
)
#: Lists and dictionaries inside each other at most.
_DEPTH = 32
_KNOWN = "numpy arrays of numbers or text, numbers, text, None, lists, tuples, dicts with text keys, sides and models"


class StateWriter:
    """Turns values into JSON; arrays go to `tensors`, each once, and are referred to by their number."""

    def __init__(self, *, declared: frozenset[str]) -> None:
        self.tensors: dict[str, npt.NDArray[Any]] = {}
        self._declared = declared
        #: What was met, by identity, and its JSON; holds the values so that no identity is used twice.
        self._met: dict[int, tuple[object, Any]] = {}

    def encode(self, value: object, at: str, depth: int = 0) -> Any:
        """JSON of a value.

        Args:
            value: Any.
            at: What messages call it.
            depth: Lists and dictionaries around it.

        Raises:
            RouterError: It is of no kind that can be saved.
        """
        if depth > _DEPTH:
            raise RouterError(f"{at} is nested more than {_DEPTH} deep, so it cannot be saved.")
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"float": repr(value)}
        if isinstance(value, np.str_):
            return str(value)
        if isinstance(value, np.generic):
            return {"scalar": self._tensor(np.asarray(value), at)}
        if isinstance(value, Model):
            return {"model": [value.name, value.family, value.price_in, value.price_out]}
        if type(value) in (list, tuple):
            items = [self.encode(item, f"{at}[{i}]", depth + 1) for i, item in enumerate(value)]  # type: ignore[var-annotated, arg-type]
            return items if type(value) is list else {"tuple": items}
        if type(value) is dict:
            if not all(type(key) is str for key in value):
                raise RouterError(f"{at} is a dict with keys that are not text, so it cannot be saved.")
            return {"dict": {key: self.encode(item, f"{at}[{key!r}]", depth + 1) for key, item in value.items()}}
        if isinstance(value, Side) or type(value) in (np.ndarray, np.memmap):
            if id(value) not in self._met:
                encoded = self._side(value, at) if isinstance(value, Side) else self._array(np.asarray(value), at)
                self._met[id(value)] = (value, encoded)
            return self._met[id(value)][1]
        raise RouterError(f"{at} is a {type(value).__name__}, which cannot be saved; keep {_KNOWN} in fitted state.")

    def _array(self, array: npt.NDArray[Any], at: str) -> Any:
        if array.dtype == object:
            flat = array.ravel().tolist()
            if not all(item is None or type(item) is str for item in flat):
                raise RouterError(f"{at} is an array of objects other than text and None, so it cannot be saved.")
            return {"text": flat, "shape": list(array.shape)}
        if array.dtype.kind == "U" and array.dtype.isnative:
            points = np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint32)
            return {"unicode": self._tensor(points, at)}
        if array.flags.f_contiguous and not array.flags.c_contiguous:
            # Products of matrices laid out otherwise may differ in the last bits.
            return {"transposed": self._tensor(array.T, at)}
        return {"array": self._tensor(array, at)}

    def _tensor(self, array: npt.NDArray[Any], at: str) -> str:
        if array.dtype not in _DTYPES:
            raise RouterError(f"{at} is of dtype {array.dtype}, which cannot be saved; use floats, integers or bools.")
        name = str(len(self.tensors))
        self.tensors[name] = np.asarray(array, order="C")
        return name

    def _side(self, side: Side, at: str) -> Any:
        values = {
            "matrix": None if side.matrix is None else side.X,
            "tasks": list(side.tasks),
            "groups": side.groups,
            "models": list(side.models),
            "scores": side.scores,
            "costs": side.costs,
            "texts": list(side.texts) if side.texts is not None and "text" in self._declared else None,
            "extras": {name: array for name, array in side.extras.items() if name in self._declared},
        }
        return {"side": {name: self.encode(value, f"{at}.{name}") for name, value in values.items()}}


class StateReader:
    """Turns JSON back into values, arrays read-only.

    What no `StateWriter` wrote raises ValueError, KeyError, TypeError, AttributeError or an error of size.
    """

    def __init__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
        self._tensors = tensors
        self._kinds: Mapping[str, Callable[[Any], Any]] = {
            "float": self._float,
            "scalar": lambda name: tensors[name][()],
            "array": lambda name: tensors[name],
            "transposed": lambda name: tensors[name].T,
            "unicode": self._unicode,
            "model": self._model,
            "tuple": lambda items: tuple(self.decode(item) for item in typed(items, list)),
            "dict": lambda items: {key: self.decode(item) for key, item in typed(items, dict).items()},
            "side": self._side,
        }

    def decode(self, node: Any) -> Any:
        """The value of what `StateWriter.encode` gave."""
        if node is None or isinstance(node, bool | int | float | str):
            return node
        if isinstance(node, list):
            return [self.decode(item) for item in node]
        if "text" in node:
            return _text(**node)
        ((kind, content),) = node.items()
        return self._kinds[kind](content)

    def _float(self, written: Any) -> float:
        if written not in ("nan", "inf", "-inf"):
            raise ValueError(f"no number: {written!r}")
        return float(written)

    def _unicode(self, name: str) -> npt.NDArray[Any]:
        points = self._tensors[name]
        if points.dtype != np.uint32 or points.ndim < 1 or points.shape[-1] < 1 or points.max(initial=0) > 0x10FFFF:
            raise ValueError("an array of text that holds no text")
        return locked(points.view(f"U{points.shape[-1]}")[..., 0])

    def _model(self, content: Any) -> Model:
        name, family, price_in, price_out = content
        if not (isinstance(name, str) and all(p is None or isinstance(p, int | float) for p in (price_in, price_out))):
            raise ValueError(f"no model: {content!r}")
        return Model(name=name, family=family, price_in=price_in, price_out=price_out)

    def _side(self, content: Any) -> Side:
        values = {key: self.decode(item) for key, item in typed(content, dict).items()}
        tasks, models, texts = (tuple(values[key] or ()) for key in ("tasks", "models", "texts"))
        n, m = len(tasks), len(models)
        _require(all(isinstance(task, str) for task in tasks), "tasks that are not text")
        _require(all(isinstance(model, Model) for model in models), "models that are none")
        _require(len(texts) == (0 if values["texts"] is None else n), "texts of other queries")
        _require(_is_array(values["groups"], np.int64, (n,)), "groups of other queries")
        for key in ("scores", "costs"):
            _require(values[key] is None or _is_array(values[key], np.float64, (n, m)), f"{key} of another shape")
        matrix = values["matrix"]
        if matrix is not None:
            _require(_is_array(matrix, np.float32, (n, *matrix.shape[1:])) and matrix.ndim == 2, "another matrix")
        for extra in typed(values["extras"], dict).values():
            _require(extra.shape[:2] == (n, m), "extras of another shape")
        rows = locked(np.arange(n))
        return Side(
            rows=rows,
            matrix=matrix,
            embedding_rows=rows,
            tasks=tasks,
            groups=values["groups"],
            models=models,
            scores=values["scores"],
            costs=values["costs"],
            texts=None if values["texts"] is None else texts,
            extras=values["extras"],
        )


def _text(*, text: Any, shape: Any) -> npt.NDArray[Any]:
    _require(all(item is None or isinstance(item, str) for item in typed(text, list)), "an array of text without text")
    array = np.empty(len(text), dtype=object)
    array[:] = text
    return locked(array.reshape(shape))


def locked(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, made read-only."""
    array.flags.writeable = False
    return array


def typed(value: Any, kind: type) -> Any:
    """The value, if it is of this type.

    Raises:
        ValueError: It is not.
    """
    _require(isinstance(value, kind), f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _is_array(value: Any, dtype: Any, shape: tuple[int, ...]) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.shape == shape


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
