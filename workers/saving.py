"""How is a fitted router kept? Its state as JSON and safetensors, never pickle, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from workers.errors import RouterError
from workers.routers.base import Router, resolve_params, router_class
from workers.state import StateReader, StateWriter, locked, typed

#: Raise it when older programs could not read what is written.
FORMAT = 1
_ROUTER = "router.json"


def save_router(router: Router, directory: Path) -> None:
    """Write a fitted router as `router.json` and `router.safetensors` in a new folder.

    Its state is what its attributes hold whose names end in `_`. Of a side its own rows of the embedding matrix are
    kept, and of texts and extras those that the router declares: what it may read, and nothing else, leaves the
    machine.

    Args:
        router: Fitted in either formulation.
        directory: Folder; must not exist, or be empty.

    Raises:
        RouterError: An attribute holds what cannot be saved, the folder is in use or cannot be written.
    """
    writer = StateWriter(declared=frozenset({*router.needs, *router.uses, *router.requirements()}))
    where = f"router {router.name!r}: "
    fitted = {name: value for name, value in sorted(vars(router).items()) if name.endswith("_")}
    description = {
        "router": router.name,
        "version": router.version,
        "params": {key: writer.encode(value, f"{where}its parameter {key}") for key, value in router.params().items()},
        "fitted": {name: writer.encode(value, f"{where}its fitted {name}") for name, value in fitted.items()},
    }
    _write(directory, _ROUTER, description, writer.tensors)


def load_router(directory: Path, *, cls: type[Router] | None = None) -> Router:
    """Read a folder that `save_router` wrote; arrays come read-only.

    Args:
        directory: Folder.
        cls: Class of a router that is not registered.

    Raises:
        RouterError: A file is missing, damaged or of another format, or the router is not installed or of another
            version.
    """
    path = directory / _ROUTER
    content, reader = _read(directory, _ROUTER)
    name, version = content.get("router"), content.get("version")
    cls = cls or router_class(str(name))
    if name != cls.name:
        raise RouterError(f"{path}: holds router {name!r}, not {cls.name!r}.")
    if version != cls.version:
        raise RouterError(
            f"{path}: written by version {version} of router {name!r}, installed is version {cls.version}; fit and "
            "save it again."
        )
    params, fitted = (_decoded(path, reader, content.get(part)) for part in ("params", "fitted"))
    for attribute in fitted:
        if not attribute.isidentifier() or not attribute.endswith("_") or attribute.startswith("__"):
            raise _damaged(path, f"{attribute!r} is no fitted attribute")
    try:
        router = cls(**resolve_params(cls, params))
    except RouterError as error:
        raise RouterError(f"{path}: {error}") from error
    vars(router).update(fitted)
    return router


def write_state(directory: Path, description: Mapping[str, Any], state: Mapping[str, Any], *, name: str) -> None:
    """Write a new folder with a description and values such as arrays: `<name>` and its `.safetensors`.

    Args:
        directory: Folder; must not exist, or be empty.
        description: JSON values under keys other than `state`, `state_format` and `sha256`.
        state: Values of the kinds that a fitted router may hold, by name.
        name: File name that ends in `.json`.

    Raises:
        RouterError: A value cannot be saved, the folder is in use or cannot be written.
    """
    writer = StateWriter(declared=frozenset())
    encoded = {key: writer.encode(value, f"{directory}: {key}") for key, value in state.items()}
    _write(directory, name, {**description, "state": encoded}, writer.tensors)


def read_state(directory: Path, *, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Description and state of a folder that `write_state` wrote; arrays come read-only.

    Raises:
        RouterError: A file is missing, damaged or of another format.
    """
    content, reader = _read(directory, name)
    state = _decoded(directory / name, reader, content.pop("state", None))
    return content, state


def _write(directory: Path, name: str, description: Mapping[str, Any], tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Write both files into a folder beside, then give it its name."""
    from safetensors.numpy import save_file

    directory = Path(directory).absolute()
    temporary = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}.tmp")
    try:
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise RouterError(f"{directory}: exists already; remove it or choose another folder.")
        temporary.mkdir(parents=True)
        arrays = temporary / _tensors_of(name)
        save_file(tensors, arrays)
        content = {"state_format": FORMAT, **description}
        content["sha256"] = _digest(content, arrays)
        (temporary / name).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="ascii")
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(directory)
    except OSError as error:
        raise RouterError(f"{directory}: cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(directory: Path, name: str) -> tuple[dict[str, Any], StateReader]:
    """Content of the JSON file, and a reader over the arrays beside it."""
    from safetensors.numpy import load_file

    path = Path(directory) / name
    arrays = path.with_name(_tensors_of(name))
    try:
        content = json.loads(path.read_bytes(), parse_constant=_no_constant)
    except FileNotFoundError as error:
        raise RouterError(f"{path}: the file is missing; save the router again.") from error
    except OSError as error:
        raise RouterError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error) from error
    if not isinstance(content, dict) or "state_format" not in content:
        raise _damaged(path, "no saved state")
    if content["state_format"] != FORMAT:
        raise RouterError(
            f"{path}: of format {content['state_format']!r}, this version reads {FORMAT}; save the router again, or "
            "install the version that wrote it."
        )
    try:
        written = content.pop("sha256", None)
        found = _digest(content, arrays)
        tensors = load_file(arrays) if found == written else {}
    except FileNotFoundError as error:
        raise RouterError(f"{arrays}: the file is missing; save the router again.") from error
    except Exception as error:  # safetensors' own, numpy's for a kind of number that it lacks, a vast allocation
        raise _damaged(arrays, error) from error
    if found != written:
        raise _damaged(arrays, f"it and {path.name} are not as they were written")
    del content["state_format"]
    # Memory of numpy's own: products of arrays that begin at other alignments may differ in the last bits.
    return content, StateReader({key: locked(np.array(array)) for key, array in tensors.items()})


def _decoded(path: Path, reader: StateReader, items: Any) -> dict[str, Any]:
    try:
        return {key: reader.decode(item) for key, item in typed(items, dict).items()}
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, RecursionError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, why: object) -> RouterError:
    reason = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else why
    return RouterError(f"{path}: the file is damaged ({reason}); save the router again.")


def _tensors_of(name: str) -> str:
    return f"{Path(name).stem}.safetensors"


def _digest(content: Mapping[str, Any], arrays: Path) -> str:
    """sha256 of both files: finds damage and mixed-up files, not malice."""
    digest = hashlib.sha256(json.dumps(content, allow_nan=False).encode("ascii") + b"\0")
    with arrays.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
