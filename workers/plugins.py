"""Which routers, encoders and benchmarks exist: every module of our folder and every installed entry point."""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from workers.errors import InputError


@cache
def discover(package: str, base: type[Any], group: str) -> dict[str, type[Any]]:
    """Collect the concrete subclasses of `base` by their `name`.

    Args:
        package: Our folder, such as `workers.routers`; every module in it is imported (so modules keep heavy
            imports inside functions).
        base: The base class; subclasses without a `name` of their own are abstract.
        group: Entry-point group of other people's packages, such as `roadtest.routers`.

    Raises:
        InputError: Two classes claim one name, or an entry point does not load.
    """
    found: dict[str, type[Any]] = {}

    def add(cls: type[Any], where: str) -> None:
        known = found.setdefault(cls.name, cls)
        if known is not cls:
            raise InputError(
                f"{where}: the name {cls.name!r} is already taken by {known.__module__}.{known.__qualname__}; "
                "choose another `name`."
            )

    folder = importlib.import_module(package)
    for info in pkgutil.iter_modules(folder.__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for cls in vars(module).values():
            ours = inspect.isclass(cls) and cls.__module__ == module.__name__
            if ours and issubclass(cls, base) and "name" in vars(cls):
                add(cls, module.__name__)
    for point in entry_points(group=group):
        try:
            cls = point.load()
        except Exception as error:
            raise InputError(
                f"entry point {point.name!r} of group {group!r} ({point.value}) does not load: {error}"
            ) from error
        if not (inspect.isclass(cls) and issubclass(cls, base) and isinstance(getattr(cls, "name", None), str)):
            raise InputError(
                f"entry point {point.name!r} of group {group!r} ({point.value}) is not a {base.__name__} with a `name`."
            )
        add(cls, point.value)
    return dict(sorted(found.items()))


def nearest(word: str, known: list[str]) -> str:
    """A `did you mean` clause that names the nearest known word, or lists what is known."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(sorted(known)) + "."
