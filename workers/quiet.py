"""How is a warning that means nothing here kept quiet, while other threads compute?

`warnings.catch_warnings` puts back the filters that it found, those of another thread included: under the local
executor one thread's exit took away another's filter in mid-fit. Here a filter stays until the last thread has left.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Lock

_inside: Counter[type[Warning]] = Counter()
_lock = Lock()


@contextmanager
def ignoring(category: type[Warning] = Warning) -> Iterator[None]:
    """Ignore warnings of a category, in every thread, until the last block of this category has ended.

    Filters that are set or removed meanwhile, by whomever, are left alone.
    """
    filter_ = ("ignore", None, category, None, 0)
    with _lock:
        _inside[category] += 1
        warnings.simplefilter("ignore", category)
    try:
        yield
    finally:
        with _lock:
            _inside[category] -= 1
            if not _inside[category]:
                with suppress(ValueError):  # someone else has removed it
                    warnings.filters.remove(filter_)  # type: ignore[attr-defined]
