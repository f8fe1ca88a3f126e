"""How is a suite fetched? Listed, checked against what is here, downloaded by several threads, and recorded."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import filelock

from orchestrator.fetching.downloading import PART, RemoteFile, download, local_path, size_of
from orchestrator.fetching.helm_bucket import pictures
from orchestrator.fetching.listing import Listing
from orchestrator.fetching.manifest import Manifest
from orchestrator.fetching.suites import Suite
from orchestrator.fetching.upstream import explained, list_files
from orchestrator.fetching.web import AnswerError, Client, FetchError, OfflineError

WORKERS = 4
#: Seconds between two states of `fetch.json`.
EVERY = 5.0


class Listener(Protocol):
    """Whom a fetch tells how it goes; called from several threads."""

    def started(self, files: Sequence[RemoteFile]) -> None:
        """These files come (again, for the pictures that others name)."""

    def at(self, file: RemoteFile, n_bytes: int) -> None:
        """So many bytes of a file are here."""

    def ended(self, file: RemoteFile) -> None:
        """A file is here."""


@dataclass(kw_only=True)
class Fetched:
    """How a fetch ended."""

    downloaded: int = 0
    #: Bytes of those.
    n_bytes: int = 0
    #: Files that were here already.
    here: int = 0
    #: Pictures and the like that upstream names but does not have.
    absent: list[str] = field(default_factory=list)
    #: Patterns of `take` that match nothing upstream.
    missing: Sequence[str] = ()
    #: Why upstream was not asked, where all was here.
    offline: str | None = None


def fetch(
    client: Client,
    suite: Suite,
    folder: Path,
    *,
    listener: Listener,
    models: Sequence[str] = (),
    revision: str | None = None,
    workers: int = WORKERS,
) -> Fetched:
    """Bring a suite's files into a folder; what is there and right stays.

    Args:
        client: Asks; ended by an error, it asks no more.
        suite: Which.
        folder: Made where it is not there.
        listener: Told how it goes.
        models: Take these alone, where files are per model.
        revision: Another commit, branch or release than the suite's.
        workers: Downloads at a time.

    Raises:
        SuiteError: The models or the revision are not there.
        FetchError: It did not work out; what is here is kept.
    """
    models = sorted(set(models))
    try:
        listing = list_files(client, suite, models=models, revision=revision)
    except OfflineError as error:
        manifest = Manifest.read(folder)
        if manifest.whole(models, revision):
            return Fetched(here=len(manifest.files), offline=str(error))
        raise FetchError(f"{error} {_by_hand(suite, folder)}") from None
    except AnswerError as error:
        raise explained(error, client, suite) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / ".fetch.lock", timeout=0):
            return _Fetch(client, suite, folder, listing, listener, workers).run(models, revision)
    except filelock.Timeout:
        raise FetchError(f"another fetch writes to {folder}; wait for its end, or give --to another folder.") from None
    except AnswerError as error:
        raise explained(error, client, suite) from None
    except OfflineError as error:
        raise FetchError(f"{error} {_by_hand(suite, folder)}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise FetchError(f"no room left in {folder}; make some: what is here is kept, and goes on.") from None


def _by_hand(suite: Suite, folder: Path) -> str:
    """What to do without a network."""
    what = ", ".join(suite.take) or "the runs"
    return (
        "What is here is kept, and running the same command goes on. HTTPS_PROXY names a proxy where one is needed. "
        f"By hand: put {what} of {suite.page} at the same paths below {folder}; "
        f"`{suite.importing(folder)}` needs no network."
    )


class _Fetch:
    """One fetch into one folder, which nobody else writes to."""

    def __init__(
        self, client: Client, suite: Suite, folder: Path, listing: Listing, listener: Listener, workers: int
    ) -> None:
        self._client, self._suite, self._folder = client, suite, folder
        self._listing, self._listener, self._workers = listing, listener, workers
        self._manifest = Manifest.read(folder)
        self._fetched = Fetched(missing=listing.missing)

    def run(self, models: list[str], revision: str | None) -> Fetched:
        """Bring everything."""
        self._manifest.asked, self._manifest.complete = (models, revision), False
        try:
            self._bring(self._listing.files)
            self._bring(pictures(self._suite, self._folder, self._listing.files))
            self._manifest.complete = True
        finally:
            self._save()
        return self._fetched

    def _save(self) -> None:
        self._manifest.write(self._suite, dict(self._listing.revisions))

    def _bring(self, files: Sequence[RemoteFile]) -> None:
        if not files:
            return
        paths = {file: local_path(self._folder, file.path) for file in files}  # before a byte is written
        self._make_sure_of_room(paths)
        self._listener.started(files)
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="roadtest-worker-fetch")
        saved = time.monotonic()
        try:
            futures = {pool.submit(self._one, file, path): file for file, path in paths.items()}
            for future in as_completed(futures):
                self._note(futures[future], future)
                if time.monotonic() - saved > EVERY:
                    self._save()
                    saved = time.monotonic()
        except BaseException as error:
            self._client.stopped.set()
            # Whoever interrupts does not wait for a server that says nothing.
            pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
            raise
        pool.shutdown()

    def _make_sure_of_room(self, paths: dict[RemoteFile, Path]) -> None:
        to_come = 0
        for file, path in paths.items():
            here = size_of(path)
            if file.size is not None and here != file.size:
                to_come += max(file.size - size_of(path.with_name(path.name + PART)), 0)
        free = shutil.disk_usage(self._folder).free
        if to_come > free:
            raise FetchError(
                f"{to_come / 1e9:.1f} GB are to come and {self._folder} has room for {free / 1e9:.1f} GB; make room, "
                "give --to a folder elsewhere, or take fewer models where the suite has --model."
            )

    def _one(self, file: RemoteFile, path: Path) -> tuple[bool, int, str]:
        """Whether it was here already, bytes, sha256."""
        if (found := self._manifest.has(file, path)) is not None:
            return True, *found
        return False, *download(self._client, file, path, lambda n_bytes: self._listener.at(file, n_bytes))

    def _note(self, file: RemoteFile, future: Future[tuple[bool, int, str]]) -> None:
        try:
            here, size, sha256 = future.result()
        except AnswerError as error:
            if not (file.optional and error.status in (403, 404)):
                raise
            self._fetched.absent.append(file.path)
            return
        self._manifest.record(file, size, sha256)
        self._fetched.here += here
        self._fetched.downloaded += not here
        self._fetched.n_bytes += 0 if here else size
        self._listener.at(file, size)
        self._listener.ended(file)
