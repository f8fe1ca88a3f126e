"""Warnings that mean nothing are kept quiet across threads."""

from __future__ import annotations

import threading
import warnings

import pytest

from workers.quiet import ignoring


class Odd(UserWarning):
    """Of these tests alone."""


def test_one_threads_exit_leaves_anothers_filter() -> None:
    inside, leave = threading.Event(), threading.Event()

    def first() -> None:
        with ignoring(Odd):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=first)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread.start()
        assert inside.wait(10)
        with ignoring(Odd):
            leave.set()
            thread.join(10)
            warnings.warn("quiet", Odd, stacklevel=1)
        warnings.warn("heard", Odd, stacklevel=1)
    assert [str(each.message) for each in caught] == ["heard"]


def test_only_its_category_and_an_error_ends_it() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match="boom"), ignoring(Odd):
            warnings.warn("of another kind", UserWarning, stacklevel=1)
            raise ValueError("boom")
        warnings.warn("heard", Odd, stacklevel=1)
    assert [str(each.message) for each in caught] == ["of another kind", "heard"]
