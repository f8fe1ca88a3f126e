"""What does a pickle hold, when nothing of it is run? Numbers and texts of data frames, dicts and numpy arrays.

Runs in a process of its own (`pickles.py`) with bounds on memory and time. No class of pandas or numpy is ever built by
a pickle: the names that such files use stand for the inert records below, which keep what they are given, and columns
are then made of it by checked code. So neither a function that an allow-list forgot nor state that is set on a class
(the BUILD opcode calls nothing that `find_class` sees) can do anything. Python's own unpickler is used, not the one
in C: its BUILD, REDUCE and NEWOBJ can be watched.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

#: Path of names to an array of numbers, or to texts.
Plain = dict[tuple[str, ...], "npt.NDArray[Any] | list[str | None]"]

#: Characters that texts may have, for each byte of the file: a text that is named again and again costs nothing there.
GROWTH = 50
DEPTH = 10

_NUMBERS = re.compile(r"[iuf][1248]|b1|[US]\d{1,6}")


class RefusedError(Exception):
    """The pickle holds something that is no data; the message says what."""


class _Dtype:
    """A numpy.dtype: its code and byte order."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def build(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]

    def real(self) -> np.dtype[Any]:
        if self.code in ("O", "O8"):
            return np.dtype(object)
        if not isinstance(self.code, str) or not _NUMBERS.fullmatch(self.code) or self.order not in "<>|=":
            raise RefusedError(f"an array of {self.code!r}; numbers and texts are read")
        return np.dtype(f"{self.order}{self.code}" if self.code != "b1" else "b1")


class _Array:
    """A numpy.ndarray: shape, kind and content."""

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def build(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def real(self) -> npt.NDArray[Any]:
        _, shape, dtype, fortran, raw = self.state
        kind, count = _of(dtype, _Dtype).real(), int(np.prod(shape, dtype=object))
        if kind.kind == "O":
            flat = np.empty(len(_of(raw, list)), dtype=object)
            flat[:] = raw
        else:
            flat = np.frombuffer(_of(raw, bytes, bytearray), dtype=kind)
        if len(flat) != count or min(shape, default=0) < 0:
            raise RefusedError(f"an array of shape {shape} with {len(flat)} values")
        return flat.reshape(shape, order="F" if fortran else "C")


class _Frame:
    """A pandas.DataFrame."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def build(self, state: dict[str, Any]) -> None:
        self.state = state

    def columns(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        blocks = _of(self.state.get("_mgr"), _Blocks)
        names = _of(blocks.axes[0], _Index).values()
        seen: set[int] = set()
        for block in blocks.blocks:
            values, places = _of(block, _Block).values, block.places
            values = _of(values, _Array).real()
            at = range(len(names))[places] if isinstance(places, slice) else _of(places, _Array).real().tolist()
            if values.ndim != 2 or len(at) != len(values):
                raise RefusedError("a data frame whose blocks do not fit its columns")
            for row, column in enumerate(at):
                seen.add(column)
                yield str(names[column]), values[row]
        if seen != set(range(len(names))):
            raise RefusedError("a data frame that lacks columns")


class _Blocks:
    """The columns of a frame, those of a kind in one block."""

    def __init__(self, blocks: tuple[Any, ...], axes: list[Any], *_: object) -> None:
        self.blocks, self.axes = blocks, axes


class _Block:
    def __init__(self, values: Any, places: Any, *_: object) -> None:
        self.values, self.places = values, places


class _Name:
    """A class that is only named, as the kind of something."""


class _Index:
    """The names of columns, or of rows."""

    def __init__(self, _kind: object, data: dict[str, Any]) -> None:
        self.data = data

    def values(self) -> list[Any]:
        if "data" in self.data:
            listed: list[Any] = _of(self.data["data"], _Array).real().ravel().tolist()
            return listed
        return list(range(self.data["start"], self.data["stop"], self.data["step"])[:100_000])


def _array(*_: object) -> _Array:
    return _Array()


def _frombuffer(raw: Any, dtype: Any, shape: Any, order: Any, *_: object) -> _Array:
    array = _Array()
    array.build((1, shape, dtype, order == "F", raw))
    return array


def _latin1(text: Any, encoding: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if encoding != "latin1":
        raise RefusedError(f"text in the encoding {encoding!r}")
    return str(text).encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("pandas.core.frame", "DataFrame"): _Frame,
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
    ("pandas._libs.internals", "_unpickle_block"): _Block,
    ("pandas.core.indexes.base", "_new_Index"): _Index,
    ("pandas.core.indexes.base", "Index"): _Name,
    ("pandas.core.indexes.numeric", "Int64Index"): _Name,  # pandas 1
    ("pandas.core.indexes.range", "RangeIndex"): _Name,
    ("numpy", "ndarray"): _Name,
    ("numpy", "dtype"): _Dtype,
    ("builtins", "slice"): slice,
    ("__builtin__", "slice"): slice,
    ("_codecs", "encode"): _latin1,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _array
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _frombuffer
_CALLED = frozenset(_KNOWN.values()) - {_Name, _Frame}


_InPython: Any = pickle._Unpickler


class _Watched(_InPython):  # type: ignore[misc]
    """Python's unpickler, which makes records and nothing else."""

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = dict(_InPython.dispatch)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """A record for exactly this pair of names."""
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise RefusedError(f"{module}.{name}")

    def get_extension(self, code: int) -> None:
        """Names that the process has registered by number."""
        raise RefusedError(f"extension {code}")

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        called = self.stack[-1]
        if called not in _CALLED:
            raise RefusedError(f"a call of {called!r:.60}")
        self.stack[-1] = called(*arguments)

    def load_newobj(self) -> None:
        _, kind = self.stack.pop(), self.stack.pop()
        if kind is not _Frame:
            raise RefusedError(f"a new object of {kind!r:.60}")
        self.append(_Frame())

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) not in (_Dtype, _Array, _Frame):
            raise RefusedError(f"state that is set on {target!r:.60}")
        target.build(state)

    def load_refused(self) -> None:
        raise RefusedError("an opcode that data does not need")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
    for _opcode in (pickle.NEWOBJ_EX, pickle.INST, pickle.OBJ, pickle.PERSID, pickle.BINPERSID):
        dispatch[_opcode[0]] = load_refused


def read_plain(path: Path) -> Plain:
    """All numbers and texts of a pickle, by the path of names that leads to them.

    Raises:
        RefusedError: It holds something else, or is damaged.
    """
    try:
        with path.open("rb") as file:
            found = _Watched(file).load()
        plain = dict(_flat(found, (), _Budget(GROWTH * path.stat().st_size + 1_000_000)))
    except (RefusedError, MemoryError, OSError):
        raise
    except Exception as error:  # of whatever a damaged or crafted file makes of the records
        raise RefusedError(f"a damaged file ({type(error).__name__}: {error!s:.100})") from error
    if not plain:
        raise RefusedError(f"a {type(found).__name__} without columns")
    return plain


class _Budget:
    """Characters that may still be written."""

    def __init__(self, left: int) -> None:
        self.left = left

    def take(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise RefusedError("more text than a file of its size can hold")


def _flat(value: Any, path: tuple[str, ...], budget: _Budget) -> Iterator[tuple[tuple[str, ...], Any]]:
    if len(path) > DEPTH:
        raise RefusedError("dicts too deep in each other")
    if isinstance(value, _Frame):
        for name, column in value.columns():
            yield (*path, name), _values(column, budget)
    elif isinstance(value, dict):
        for name, inner in value.items():
            budget.take(1)
            yield from _flat(inner, (*path, str(_of(name, str, int))), budget)
    elif isinstance(value, _Array):
        yield path, _values(value.real(), budget)
    elif isinstance(value, list | tuple):
        array = np.empty(len(value), dtype=object)
        array[:] = value
        yield path, _values(array, budget)
    else:
        raise RefusedError(f"a {type(value).__name__} under {'/'.join(path) or 'its top'!r}")


def _values(array: npt.NDArray[Any], budget: _Budget) -> npt.NDArray[Any] | list[str | None]:
    """Numbers as they are; text, and None or NaN among it, as a list."""
    budget.take(array.size)
    if array.dtype != object and array.dtype.kind not in "US":
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    items = array.ravel().tolist()
    if all(isinstance(item, int | float) for item in items):
        return np.array(items, dtype=np.float64).reshape(array.shape)
    texts: list[str | None] = []
    for item in items:
        text = item.decode("utf-8") if isinstance(item, bytes) else item
        if isinstance(text, float) and np.isnan(text):
            text = None
        if isinstance(text, bool | int | float):
            text = str(text)
        if text is not None:
            budget.take(len(_of(text, str)))
        texts.append(text)
    return texts


def _of(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise RefusedError(f"a {type(value).__name__} where a {kinds[0].__name__.strip('_')} is expected")
    return value


def main() -> None:
    """Arguments FILE FOLDER SECONDS BYTES: read within bounds; write numbers.npz and texts.json, or say why not."""
    file, folder, seconds, most = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        plain = read_plain(file)
        numbers = {json.dumps(path): values for path, values in plain.items() if not isinstance(values, list)}
        with (folder / "numbers.npz").open("wb") as out:
            arrays: dict[str, Any] = {f"a{i}": values for i, values in enumerate(numbers.values())}
            np.savez(out, **arrays)
        texts = [[path, values] for path, values in plain.items() if isinstance(values, list)]
        order = [list(path) for path in plain]
        (folder / "texts.json").write_text(
            json.dumps({"numbers": list(numbers), "texts": texts, "order": order}), encoding="utf-8"
        )
    except RefusedError as error:
        sys.exit(f"it holds {error}")
    except MemoryError:
        sys.exit(f"reading it takes more than {most >> 20} MB")
    except UnicodeError:
        sys.exit("it holds text that is no Unicode")


if __name__ == "__main__":
    main()
