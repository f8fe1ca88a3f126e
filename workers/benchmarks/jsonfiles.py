"""How is JSON of unknown origin read: a record at a time, within bounds, and naming the file and line at fault?

Records of evaluation tools are files of hundreds of MB, and nobody vouches for them. Everything here holds one record
at a time, refuses a record above `MOST_BYTES`, and takes UTF-8 alone.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from workers.errors import BenchmarkError

#: Of one record. Rows of lm-evaluation-harness take up to 50 KB, samples of Inspect with pictures some MB.
MOST_BYTES = 1 << 25
_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"[-+.0-9eE]*")
_DECODER = json.JSONDecoder()


def parse(text: str | bytes, where: str) -> Any:
    """One JSON value.

    Raises:
        BenchmarkError: Not UTF-8, not JSON, or nested too deeply; begins with `where`.
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{where}: not usable JSON ({_brief(error)}); the file may be cut short.") from error


def read_object(path: Path, *, most: int = MOST_BYTES) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        BenchmarkError: Unreadable, larger than `most` bytes, or anything but an object.
    """
    with _opened(path) as file:
        raw = file.read(most + 1)
    if len(raw) > most:
        raise BenchmarkError(f"{path}: over {most >> 20} MB, which no such file has; check what it is.")
    value = parse(raw, str(path))
    if not isinstance(value, dict):
        raise BenchmarkError(f"{path}: not a JSON object.")
    return value


def read_lines(path: Path, *, most: int = MOST_BYTES) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers, from 1, and objects of a file with one object a line.

    Raises:
        BenchmarkError: With the line at fault.
    """
    with _opened(path) as file:
        number = 0
        while line := file.readline(most + 1):
            number += 1
            if len(line) > most:
                raise BenchmarkError(f"{path}, line {number}: over {most >> 20} MB; no record is so long.")
            if line.isspace():
                continue
            record = parse(line, f"{path}, line {number}")
            if not isinstance(record, dict):
                raise BenchmarkError(f"{path}, line {number}: holds {_kind(record)}, not an object.")
            yield number, record


def read_items(path: Path, *, most: int = MOST_BYTES) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and items of a file that holds one JSON array, however long it is.

    Raises:
        BenchmarkError: With the line at fault.
    """
    with _opened(path) as file:
        stream = _Stream(file, str(path), most)
        yield from stream.items()
        stream.end()


def read_records(path: Path, *, most: int = MOST_BYTES) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a file, whether it holds one array or one object a line, whatever it is called.

    Raises:
        BenchmarkError: With the line at fault.
    """
    with _opened(path) as file:
        first = file.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()[:1]
    if first != b"[":
        yield from read_lines(path, most=most)
        return
    for number, item in read_items(path, most=most):
        if not isinstance(item, dict):
            raise BenchmarkError(f"{path}, line {number}: holds {_kind(item)}, not an object.")
        yield number, item


def read_members(path: Path, array: str, *, most: int = MOST_BYTES) -> Iterator[tuple[str, int, Any]]:
    """Keys, line numbers and values of a file that holds one object; the array of one key comes item by item.

    Args:
        path: The file.
        array: Key whose value, where it is an array, is yielded as (key, line, item) for each of its items.
        most: Bytes of one value or item.

    Raises:
        BenchmarkError: With the line at fault.
    """
    with _opened(path) as file:
        stream = _Stream(file, str(path), most)
        stream.take("{")
        while stream.peek() != "}":
            key = stream.value()
            if not isinstance(key, str):
                raise stream.broken(f"a key is {_kind(key)}")
            stream.take(":")
            if key == array and stream.peek() == "[":
                for number, item in stream.items():
                    yield key, number, item
            else:
                number = stream.line
                yield key, number, stream.value()
            if stream.peek() != "}":
                stream.take(",")
        stream.take("}")
        stream.end()


def first_characters(path: Path, n_bytes: int = 4096) -> str:
    """How a file begins, for telling formats apart; "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(n_bytes).removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    except OSError:
        return ""


class _Stream:
    """JSON values of a file, one after another; holds what was decoded and not yet used."""

    def __init__(self, file: BinaryIO, where: str, most: int) -> None:
        self._file = file
        self._where = where
        self._most = most
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("strict")
        self._text = ""
        self._at = 0
        self._ended = False
        #: Line of the next character, from 1.
        self.line = 1

    def peek(self) -> str:
        """The next character that is no space; "" at the end of the file."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._advance(match.end() if match else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_CHUNK):
                return ""

    def take(self, character: str) -> None:
        """Step over this character."""
        found = self.peek()
        if found != character:
            raise self.broken(f"{character!r} expected, {found!r} found" if found else "it ends too early")
        self._advance(self._at + 1)

    def value(self) -> Any:
        """The next value, whole."""
        if not self.peek():
            raise self.broken("it ends too early")
        more = _CHUNK
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise self.broken("nested too deeply") from error
            except ValueError as error:
                problem = _brief(error)  # the error itself would keep this text alive
            else:
                length = end - self._at
                goes_on = _NUMBER.fullmatch(self._text, end)  # a number may
                if goes_on is None or not self._more(_CHUNK):
                    self._advance(self._at + length)
                    return value
                continue
            if len(self._text) - self._at > self._most:
                raise self.broken(f"no whole record within {self._most >> 20} MB")
            if not self._more(more):
                raise self.broken(problem)
            more *= 2  # so that a long value is tried a few times only

    def items(self) -> Iterator[tuple[int, Any]]:
        """Line numbers and items of the array that comes next."""
        self.take("[")
        while self.peek() != "]":
            number = self.line
            yield number, self.value()
            if self.peek() != "]":
                self.take(",")
        self.take("]")

    def end(self) -> None:
        """Check that nothing follows."""
        if self.peek():
            raise self.broken("something follows the value")

    def broken(self, problem: str) -> BenchmarkError:
        """What to raise."""
        return BenchmarkError(
            f"{self._where}, line {self.line}: not usable JSON ({problem}); the file may be cut short."
        )

    def _advance(self, to: int) -> None:
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def _more(self, n_bytes: int) -> bool:
        """Decode more of the file; False at its end."""
        if self._ended:
            return False
        raw = self._file.read(n_bytes)
        self._ended = not raw
        try:
            more = self._decode.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{self._where}, after line {self.line}", error) from error
        self._text = self._text[self._at :] + more
        self._at = 0
        return not self._ended


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise BenchmarkError(f"{path}: cannot be read ({error.strerror}).") from error


def _not_utf8(where: str, error: UnicodeDecodeError) -> BenchmarkError:
    return BenchmarkError(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8.")


def _kind(value: Any) -> str:
    return {list: "an array", dict: "an object", str: "text", type(None): "null"}.get(type(value), "a number")


def _brief(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return str(error).split(": line ")[0].split("; use ")[0]
