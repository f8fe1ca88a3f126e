"""How does one file arrive whole and right? By way of a `.part` that a later call goes on from, and checksums."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from orchestrator.fetching.web import CHUNK, AnswerError, Client, FetchError, PassingError, StoppedError

PART, TAG = ".part", ".part.etag"


@dataclass(frozen=True, kw_only=True)
class Checksum:
    """What upstream says of a file's content."""

    #: sha256, md5, or git: the id of a git blob.
    kind: str
    value: str

    def hasher(self, size: int) -> Any:
        """A hash object for a file of this size in bytes."""
        if self.kind != "git":
            return hashlib.new(self.kind, usedforsecurity=False)
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file upstream."""

    #: Path below the folder of the suite, as a listing names it; not to be trusted.
    path: str
    url: str
    #: Bytes.
    size: int | None = None
    checksum: Checksum | None = None
    #: The suite is whole without it.
    optional: bool = False


def local_path(folder: Path, path: str) -> Path:
    """Where a file of a listing is put.

    Raises:
        FetchError: That would be outside the folder, or over files of roadtest itself.
    """
    parts = path.split("/")
    odd = (
        any(part in ("", ".", "..") for part in parts)
        or not path.isprintable()
        or "\\" in path
        or re.match(r"[A-Za-z]:($|[/\\])", path)
        or path.endswith((PART, TAG))
        or parts[0] in ("fetch.json", "fetch.lock")
    )
    found = folder.joinpath(*parts)
    if odd or not found.parent.resolve().is_relative_to(folder.resolve()):
        raise FetchError(f"upstream lists a file {path!r}, which is no path that is written below {folder}.")
    return found


def download(client: Client, remote: RemoteFile, path: Path, at: Callable[[int], None]) -> tuple[int, str]:
    """Bring a file.

    Args:
        client: Asks for it.
        remote: Which.
        path: Where it is put once it is whole and right.
        at: Told how many of its bytes are here.

    Returns:
        Bytes, and sha256.

    Raises:
        FetchError: It cannot be had, or has another size or checksum than upstream says.
        StoppedError: The client was stopped; the part stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    most = 0

    def held() -> int:
        nonlocal most
        most = max(most, size_of(_part(path)))
        return most

    return client.retried(remote.url, lambda: _attempt(client, remote, path, at), held)


def check(file: Path, remote: RemoteFile) -> tuple[int, str, str | None]:
    """A file's size in bytes, its sha256, and what is wrong with it."""
    size = size_of(file)
    if remote.size is not None and size != remote.size:
        return size, "", f"{size} bytes instead of {remote.size}"
    sha256, upstream = hashlib.sha256(), remote.checksum
    other = upstream.hasher(size) if upstream else None
    with file.open("rb") as content:
        while chunk := content.read(1 << 20):
            sha256.update(chunk)
            if other is not None:
                other.update(chunk)
    if upstream is not None and other is not None and other.hexdigest() != upstream.value:
        return size, "", f"{upstream.kind} checksum {other.hexdigest()} instead of {upstream.value}"
    return size, sha256.hexdigest(), None


def size_of(path: Path) -> int:
    """Bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _attempt(client: Client, remote: RemoteFile, path: Path, at: Callable[[int], None]) -> tuple[int, str]:
    part, tag = _part(path), path.with_name(path.name + TAG)
    start, etag = size_of(part), _read_tag(tag, remote.url)
    if not (etag or remote.checksum) or (remote.size is not None and start > remote.size):
        start = 0  # nothing would tell whether the rest belongs to the same version
    if not start or start != remote.size or remote.checksum is None:
        start = _stream(client, remote, part, tag, start, etag, at)
    size, sha256, wrong = check(part, remote)
    if wrong:
        _drop(part, tag)
        if start:
            raise PassingError(f"{wrong} after going on from a part; beginning anew")
        raise FetchError(f"{remote.url}: {wrong}. It was damaged on its way or changed upstream, and is not kept.")
    part.replace(path)
    tag.unlink(missing_ok=True)
    return size, sha256


def _stream(
    client: Client,
    remote: RemoteFile,
    part: Path,
    tag: Path,
    start: int,
    etag: str | None,
    at: Callable[[int], None],
) -> int:
    """Write the part, from byte `start` if the server agrees; returns where it went on from, 0 for anew."""
    headers = {"Range": f"bytes={start}-"} if start else {}
    if start and etag:
        headers["If-Range"] = etag
    try:
        with client.open(remote.url, headers) as response:
            if start and response.status_code == 206:
                _check_range(remote, response, start, part, tag)
            else:
                start = 0
            expected = _expected(response, start)
            if remote.size is not None and expected not in (None, remote.size):
                raise FetchError(f"{remote.url}: {expected} bytes come, upstream announced {remote.size}.")
            tag.write_text(f"{remote.url}\n{response.headers.get('etag', '')}\n", encoding="utf-8")
            size = start
            with part.open("ab" if start else "wb") as file:
                at(size)
                for chunk in response.iter_content(CHUNK):
                    file.write(chunk)
                    size += len(chunk)
                    at(size)
                    if remote.size is not None and size > remote.size:
                        raise FetchError(f"{remote.url}: more bytes come than the {remote.size} announced.")
                    if client.stopped.is_set():
                        raise StoppedError
    except AnswerError as error:
        if error.status != 416:
            raise
        _drop(part, tag)
        raise PassingError("the server has nothing to go on with; beginning anew") from None
    if expected is not None and size < expected:
        raise PassingError(f"the connection ended at byte {size} of {expected}")
    return start


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _drop(part: Path, tag: Path) -> None:
    part.unlink(missing_ok=True)
    tag.unlink(missing_ok=True)


def _read_tag(tag: Path, url: str) -> str | None:
    """The strong ETag of the version that a part is of; None where it has none or is of another address."""
    try:
        lines = tag.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return lines[1] if len(lines) > 1 and lines[0] == url and lines[1].startswith('"') else None


def _check_range(remote: RemoteFile, response: requests.Response, start: int, part: Path, tag: Path) -> None:
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("content-range", "").strip())
    if found is None or int(found[1]) != start or (remote.size is not None and found[3] not in ("*", str(remote.size))):
        _drop(part, tag)
        raise PassingError("the server sent another range than it was asked for; beginning anew")


def _expected(response: requests.Response, start: int) -> int | None:
    """Bytes of the whole file by this answer's headers."""
    length = response.headers.get("content-length", "")
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    return start + int(length) if length.isdecimal() and not encoded else None
