"""A real browser draws the report: nothing overflows, nothing is fetched, nothing goes wrong."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="no playwright here (extra: dev)"),
]
SWEEP = {
    "benchmarks": [{"name": "toolbox", "queries": 250}],
    "encoders": ["hash-ngrams", {"name": "narrow", "use": "hash-ngrams", "dim": 64}],
    "routers": [
        "oracle",
        "zero-router",
        {"name": "knn <script>alert(1)</script>", "use": "knn", "k": 10, "twin": True},
        {"name": "a router with a name that goes on and on and on and on", "use": "linear", "penalty": 1.0},
    ],
    "seeds": 10,
    "train_sizes": [0.2, 0.5, 1.0],
    "protocol": {"bootstrap": 0},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def page(cli: Any, write_sweep: Callable[..., Path], folder: Path) -> Path:
    ended = cli("run", write_sweep(**SWEEP), "--executor", "local")
    assert ended.code == 0, ended.err
    return folder / "roadtest-report" / "small.html"


def test_a_browser_draws_it_at_every_width(page: Path, browser: Any) -> None:
    for width, scheme in ((1440, "light"), (1440, "dark"), (390, "light"), (390, "dark")):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        tab = context.new_page()
        troubles: list[str] = []
        tab.on("console", lambda message, seen=troubles: seen.append(message.text))
        tab.on("pageerror", lambda error, seen=troubles: seen.append(str(error)))
        tab.on("dialog", lambda dialog, seen=troubles: seen.append(f"dialog {dialog.message}"))
        requested: list[str] = []
        tab.on("request", lambda request, seen=requested: seen.append(request.url))
        tab.goto(page.as_uri())
        for details in tab.query_selector_all("details"):
            details.evaluate("element => element.open = true")
        assert not troubles
        assert [url for url in requested if not url.startswith("data:")] == [page.as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        wide = tab.evaluate(
            """() => [...document.querySelectorAll('main *')].filter(e => {
                const box = e.getBoundingClientRect();
                return box.width > 0 && box.right > innerWidth + 1 && !e.closest('.scroll') && !e.closest('svg');
            }).map(e => e.outerHTML.slice(0, 120))"""
        )
        assert wide == []
        context.close()
    keyboard_reaches_every_link_and_downloads_work(page, browser)


def keyboard_reaches_every_link_and_downloads_work(page: Path, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 1440, "height": 900})
    tab.goto(page.as_uri())
    focused = set()
    for _ in range(400):
        tab.keyboard.press("Tab")
        here = tab.evaluate("document.activeElement.getAttribute('href') || document.activeElement.tagName")
        if here in focused and here.startswith("#top"):
            break
        focused.add(here)
    links = {link.get_attribute("href") for link in tab.query_selector_all("a[href]") if link.is_visible()}
    assert links <= focused
    with tab.expect_download() as started:
        tab.query_selector("a[download]").click()
    text = Path(started.value.path()).read_text()
    assert started.value.suggested_filename.endswith(".csv")
    assert "," in text.splitlines()[0]
