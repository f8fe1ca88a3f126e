from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from workers import plugins
from workers.benchmarks.base import embedded_sources
from workers.encoders.base import encoders
from workers.errors import InputError, RouterError
from workers.plugins import nearest
from workers.routers.base import Router, router_class, routers

PLUGIN = """\
from roadtest import Prediction, Router
import numpy as np

class Always(Router):
    name = {name!r}
    needs_embedding = False
    def fit(self, train, rng):
        return self
    def predict(self, queries):
        shape = (queries.n, len(queries.models))
        return Prediction(scores=np.ones(shape), costs=np.ones(shape))

class NotARouter:
    name = "not-a-router"

def broken():
    raise RuntimeError("planted")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Pretend that a package with one entry point is installed."""

    def clear() -> None:
        plugins.discover.cache_clear()
        routers.cache_clear()

    def put(attribute: str, *, name: str = "always", group: str = "roadtest.routers") -> None:
        (tmp_path / "stranger.py").write_text(PLUGIN.format(name=name))
        monkeypatch.syspath_prepend(str(tmp_path))
        point = EntryPoint(name=name, value=f"stranger:{attribute}", group=group)
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == point.group else [])
        clear()

    yield put
    sys.modules.pop("stranger", None)
    monkeypatch.undo()
    clear()


@pytest.mark.parametrize(
    ("registry", "folder"), [(routers, "routers"), (encoders, "encoders"), (embedded_sources, "benchmarks")]
)
def test_registries_are_sorted_by_name_and_hold_our_own(registry: Callable[[], dict[str, Any]], folder: str) -> None:
    found = registry()
    assert list(found) == sorted(found)
    assert {cls.__module__.split(".")[1] for cls in found.values()} == {folder}
    assert all(cls.name == name and cls.summary for name, cls in found.items())


def test_an_installed_router_appears_without_another_edit(install: Callable[..., None]) -> None:
    install("Always")
    assert router_class("always").__module__ == "stranger"
    assert issubclass(router_class("always"), Router)
    with pytest.raises(RouterError, match=r"unknown router 'alway'; did you mean 'always'\?"):
        router_class("alway")


@pytest.mark.parametrize(
    ("attribute", "name", "words"),
    [
        ("NotARouter", "not-a-router", "is not a Router with a `name`"),
        ("Missing", "missing", "does not load"),
        ("broken", "broken", "is not a Router with a `name`"),
        ("Always", "knn", "'knn' is already taken by workers.routers.knn.KNN"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(
    install: Callable[..., None], attribute: str, name: str, words: str
) -> None:
    install(attribute, name=name)
    with pytest.raises(InputError) as error:
        routers()
    assert words in str(error.value)
    assert f"stranger:{attribute}" in str(error.value)


@pytest.mark.parametrize(
    ("word", "answer"),
    [("knm", "did you mean 'knn'?"), ("zzzz", "known: knn, linear."), ("liner", "did you mean 'linear'?")],
)
def test_nearest(word: str, answer: str) -> None:
    assert nearest(word, ["linear", "knn"]) == answer
