"""How is an Inspect log read, `.eval` archive or `.json`, without inspect_ai and without trusting it?

Nothing is extracted to disk and no name inside is used as a path. A sample, and all that an archive unpacks to, are
bounded, so that a small file cannot fill the memory or run for ever.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from workers.benchmarks.jsonfiles import first_characters, parse, read_members
from workers.errors import BenchmarkError

#: Of one sample: pictures and agents' transcripts take MB.
SAMPLE_BYTES = 1 << 26
#: What an archive may unpack to: so much, or so many times its own size.
ARCHIVE_BYTES, ARCHIVE_RATIO = 1 << 30, 200
#: Inspect compresses with zstd since 0.3.206, which zipfile knows since Python 3.14.
_ZSTD = 93
_WINDOW_BYTES = 1 << 27
#: What zipfile raises for damaged, encrypted or unknown content.
_BROKEN = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError)
_CHUNK = 1 << 18
_SAMPLE = re.compile(r"samples/.*_epoch_\d+\.json", re.S)
_CHUNKED = re.compile(r"samples/.*_epoch_\d+/sample\.json", re.S)
_JSON_HEAD = re.compile(r'\s*\{\s*"version"\s*:\s*\d+\s*,\s*"status"\s*:\s*"\w+"\s*,\s*"(eval|invalidated)"')


@dataclass(frozen=True, kw_only=True)
class Log:
    """One log: one task, one model."""

    path: Path
    #: Everything but the samples: version, status, eval, results, ...
    head: dict[str, Any]


def is_log(path: Path) -> bool:
    """Whether a file is an Inspect log, by its first bytes or, for an archive, its names."""
    if path.suffix == ".json":
        return _JSON_HEAD.match(first_characters(path)) is not None
    if path.suffix != ".eval" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return False
    return not names.isdisjoint({"header.json", "_journal/start.json"})


def read_head(path: Path) -> Log:
    """Read all but the samples; a log that has no end yet is one with status `started`.

    Raises:
        BenchmarkError: With what is wrong.
    """
    head: dict[str, Any] = {}
    if path.suffix == ".json":
        for key, _, value in read_members(path, "samples", most=SAMPLE_BYTES):
            if key == "samples" and "eval" in head:
                break  # the rest is large, and what is wanted is there
            if key != "samples":
                head[key] = value
    else:
        with _Archive(path) as archive:
            names = [name for name in ("header.json", "_journal/start.json") if name in archive.names]
            if not names:
                raise BenchmarkError(f"{path}: neither header.json nor _journal/start.json inside; no log of Inspect.")
            value = archive.json(names[0])
            head = value if isinstance(value, dict) else {}
    facts = head.get("eval")
    if not isinstance(facts, dict) or not all(isinstance(facts.get(key), str) for key in ("model", "task")):
        raise BenchmarkError(f"{path}: its header names no eval.model and eval.task; no log of Inspect.")
    head.setdefault("status", "started")
    return Log(path=path, head=head)


def read_samples(log: Log) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and content of every sample and epoch.

    Raises:
        BenchmarkError: With the sample at fault.
    """
    if log.path.suffix == ".json":
        for key, line, value in read_members(log.path, "samples", most=SAMPLE_BYTES):
            if key == "samples" and value is not None:
                yield f"{log.path}, line {line}", _sample(value, f"{log.path}, line {line}")
        return
    with _Archive(log.path) as archive:
        for name in archive.names:
            if _CHUNKED.fullmatch(name):
                raise BenchmarkError(
                    f"{log.path}: {name!r} is a sample in chunks, which is not read here; write the log again as one "
                    "file with `inspect log convert --to json`."
                )
            if _SAMPLE.fullmatch(name):
                at = f"{log.path}, {name!r}"
                yield at, _sample(archive.json(name), at)


def _sample(value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not isinstance(value.get("id"), str | int) or "input" not in value:
        raise BenchmarkError(f"{at}: no sample: an object with id and input is needed.")
    return value


class _Archive:
    """A ZIP file whose members are read into memory, within bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Archive:
        try:
            self._file: BinaryIO = self._path.open("rb")
        except OSError as error:
            raise BenchmarkError(f"{self._path}: cannot be read ({error.strerror}).") from error
        try:
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            self._file.close()
            raise BenchmarkError(f"{self._path}: no readable archive ({error}); it may be cut short.") from error
        # The last entry of a name wins: Inspect appends.
        self._members = {member.filename: member for member in self._zip.infolist()}
        self._left = max(ARCHIVE_BYTES, ARCHIVE_RATIO * self._path.stat().st_size)
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    @property
    def names(self) -> list[str]:
        """Names inside, in the order of the archive."""
        return list(self._members)

    def json(self, name: str) -> Any:
        """The JSON value of one member."""
        at = f"{self._path}, {name!r}"
        try:
            raw = self._bytes(self._members[name], at)
        except _BROKEN as error:
            raise BenchmarkError(f"{at}: cannot be unpacked ({error}); the archive is damaged or encrypted.") from error
        return parse(raw, at)

    def _bytes(self, member: zipfile.ZipInfo, at: str) -> bytes:
        with self._unpacking(member, at) as stream:
            parts, size = [], 0
            while part := stream.read(_CHUNK):
                parts.append(part)
                size += len(part)
                if size > SAMPLE_BYTES:
                    raise BenchmarkError(f"{at}: unpacks to over {SAMPLE_BYTES >> 20} MB, which is refused.")
        self._left -= size
        if self._left < 0:
            raise BenchmarkError(
                f"{self._path}: unpacks to over {ARCHIVE_BYTES >> 30} GB and {ARCHIVE_RATIO} times its size; refused."
            )
        raw = b"".join(parts)
        if zlib.crc32(raw) != member.CRC:
            raise BenchmarkError(f"{at}: its checksum is wrong; the archive is damaged.")
        return raw

    def _unpacking(self, member: zipfile.ZipInfo, at: str) -> Any:
        if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            return self._zip.open(member)
        if member.compress_type != _ZSTD:
            raise BenchmarkError(f"{at}: compression method {member.compress_type} is not one that Inspect writes.")
        import zstandard

        self._file.seek(member.header_offset)
        header = self._file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("no local header")
        n_name, n_extra = struct.unpack("<HH", header[26:])
        start = member.header_offset + 30 + n_name + n_extra
        source = io.BufferedReader(_Part(self._file, start, member.compress_size))
        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES)
        return _Reading(decompressor.stream_reader(source, read_across_frames=True))


class _Part(io.RawIOBase):
    """A part of a file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read what is left, at most a buffer."""
        self._file.seek(self._at)
        part = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class _Reading:
    """A stream of zstandard whose errors are those of zipfile."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __enter__(self) -> _Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, n_bytes: int) -> bytes:
        import zstandard

        try:
            return bytes(self._stream.read(n_bytes))
        except (zstandard.ZstdError, MemoryError) as error:
            raise zipfile.BadZipFile(str(error)) from error
