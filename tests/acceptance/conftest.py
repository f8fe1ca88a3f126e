from __future__ import annotations

import gc
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from orchestrator.cli import main


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Ended]]:
    """Run the command in this process, through its real entry point."""
    log, terminate = logging.getLogger("roadtest"), signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["roadtest", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Ended(code=int(ended.value.code or 0), out=shown.out, err=shown.err)

    yield call
    gc.unfreeze()
    for handler in log.handlers:
        handler.close()
    log.handlers.clear()
    log.propagate = True
    signal.signal(signal.SIGTERM, terminate)
