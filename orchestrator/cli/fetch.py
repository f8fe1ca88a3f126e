"""The verb `benchmarks fetch`: published suites, from their upstream places onto this machine."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.options import AsJson, Database

if TYPE_CHECKING:
    from orchestrator.fetching.downloading import RemoteFile
    from orchestrator.fetching.fetch import Fetched, Listener

#: Seconds between plain lines.
EVERY = 5.0


def fetch_suite(
    name: Annotated[str | None, typer.Argument(help="Suite, of `--list`.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the suites.")] = False,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Folder; default suites/NAME in ROADTEST_HOME.")
    ] = None,
    models: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="MODEL", help="Take this model's files; may be given several times."),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(help="Commit, branch or release upstream, instead of the one listed.")
    ] = None,
    db: Database = None,
    as_json: AsJson = False,
) -> None:
    """Download a published suite: resumed, checked, and kept; then import it."""
    from orchestrator.fetching import SuiteError, find_suite, suite_folder
    from orchestrator.store import home_folder

    home = home_folder(db)
    if listed:
        _print_list(home, as_json=as_json)
        return
    if name is None:
        raise SuiteError("name a suite; `roadtest benchmarks fetch --list` lists them.")
    from orchestrator.cli.output import plain, print_json
    from orchestrator.fetching.fetch import fetch
    from orchestrator.fetching.upstream import hub_client

    suite, folder = find_suite(name), to or suite_folder(home, name)
    shown = {"licence": suite.licence, "from": suite.page, "size": suite.size, "note": suite.note, "to": folder}
    for line in (suite.title, *(f"{key}: {value}" for key, value in shown.items())):
        typer.echo(plain(line), err=as_json)
    with _shown(name) as listener:
        fetched = fetch(hub_client(), suite, folder, listener=listener, models=models or (), revision=revision)
    unpacking, importing = suite.unpacking(folder), suite.importing(folder)
    if as_json:
        print_json({"suite": name, "folder": str(folder), **vars(fetched), "unpack": unpacking, "import": importing})
        return
    for line in _told(fetched):
        typer.echo(plain(line))
    typer.echo(f"checksums: {folder / 'fetch.json'}")
    if unpacking:
        typer.echo(f"unpack it:\n  {unpacking}")
    typer.echo(f"import it:\n  {importing}")


def _print_list(home: Path, *, as_json: bool) -> None:
    from orchestrator.cli.output import print_rows
    from orchestrator.fetching import suite_folder, suites
    from orchestrator.fetching.manifest import NAME, Manifest

    def state(name: str) -> str:
        folder = suite_folder(home, name)
        if not (folder / NAME).is_file():
            return "no"
        return "yes" if Manifest.read(folder).complete else "in part"

    rows: list[dict[str, Any]] = [
        {"suite": suite.name, "title": suite.title, "licence": suite.licence, "size": suite.size, "here": state(name)}
        | ({"from": suite.upstream, "format": suite.format, "note": suite.note} if as_json else {})
        for name, suite in suites().items()
    ]
    print_rows(rows, as_json=as_json)


def _told(fetched: Fetched) -> Iterator[str]:
    if fetched.offline:
        yield f"upstream was not asked: {fetched.offline}"
        yield f"all is here as fetch.json has it; files: {fetched.here}"
        return
    yield f"files downloaded: {fetched.downloaded} ({_size(fetched.n_bytes)}); here already: {fetched.here}"
    if fetched.missing:
        yield f"note: upstream has no {', '.join(fetched.missing)}"
    if fetched.absent:
        yield f"note: {len(fetched.absent)} x named but not upstream: {fetched.absent[0]}"


def _size(n_bytes: int) -> str:
    from rich.filesize import decimal

    return decimal(n_bytes)


class _Counts:
    """Files and bytes of a fetch, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at: dict[str, int] = {}
        self.files = self.done = self.n_bytes = self.total = 0

    def started(self, files: Sequence[RemoteFile]) -> None:
        with self._lock:
            self.files += len(files)
            self.total += sum(file.size or 0 for file in files)
        self.show()

    def at(self, file: RemoteFile, n_bytes: int) -> None:
        with self._lock:
            self.n_bytes += n_bytes - self._at.get(file.path, 0)
            self._at[file.path] = n_bytes
        self.show()

    def ended(self, file: RemoteFile) -> None:
        with self._lock:
            self.done += 1
        self.show()

    def show(self) -> None:
        """Show how far it is."""


class _Lines(_Counts):
    """A line every few seconds and one at the end."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self._said = name, time.monotonic()

    def show(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._said < EVERY and self.done < self.files:
                return
            self._said = now
            line = f"{self._name}: {self.done}/{self.files} files, {_size(self.n_bytes)} of {_size(self.total)}\n"
        sys.stderr.write(line)
        sys.stderr.flush()


@contextmanager
def _shown(name: str) -> Iterator[Listener]:
    """Progress on stderr: a bar on a terminal, plain lines elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(name)
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[files]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(name, total=None, files="")

        class _Bar(_Counts):
            def show(self) -> None:
                files = f"{self.done}/{self.files} files"
                bars.update(task, completed=self.n_bytes, total=max(self.total, self.n_bytes) or None, files=files)

        yield _Bar()
