"""What do HELM's media objects hold, and where on this machine are the pictures that a run names?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workers.benchmarks.answers import Notes
from workers.benchmarks.pictures import look
from workers.errors import BenchmarkError

_OUTPUT = "benchmark_output"


def mapping(value: Any) -> Mapping[str, Any]:
    """The value, or an empty mapping where it is none."""
    return value if isinstance(value, dict) else {}


def sequence(value: Any) -> Sequence[Any]:
    """The value, or an empty list where it is none."""
    return value if isinstance(value, list) else []


def writable(text: str) -> str:
    """Text that reports and databases take: NUL and lone surrogates replaced."""
    return text.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def media(content: Any) -> tuple[list[str], list[str], list[str]]:
    """Texts, locations of pictures, and kinds of other content, each in order."""
    texts, pictures, others = [], [], []
    for item in map(mapping, sequence(mapping(content).get("media_objects"))):
        kind, text, location = str(item.get("content_type", "")), item.get("text"), item.get("location")
        if isinstance(text, str):
            texts.append(text)
        elif kind.startswith("image/"):
            pictures.append(location if isinstance(location, str) else "")
        else:
            others.append(kind)
    return texts, pictures, others


def picture_name(location: str) -> str:
    """What is the same of a picture on every machine: its place below the output folder, else its file's name."""
    return _tail(location) or location.replace("\\", "/").rpartition("/")[2]


def _tail(location: str) -> str:
    """The part of a location below the output folder; "" where it names none."""
    parts = location.replace("\\", "/").split("/")
    for folder, skipped in ((_OUTPUT, 1), ("scenarios", 0)):
        if folder in parts:
            last = len(parts) - 1 - parts[::-1].index(folder)
            return "/".join(parts[last + skipped :])
    return ""


class Pictures:
    """Finds the pictures that a run names, in the folder above its output folder and nowhere else.

    Args:
        run: Folder of the run.
        given: What the user gave; bounds the search where the run lies in no output folder.
        notes: Takes pictures that are not here.
    """

    def __init__(self, run: Path, given: Path, notes: Notes) -> None:
        self._notes = notes
        above = list(run.resolve().parents)
        named = next((folder for folder in above if folder.name == _OUTPUT), None)
        by_place = above[2] if len(above) > 2 and above[1].name == "runs" else None
        self._output = named or by_place or given.resolve()
        top = self._output.parent if named or by_place else self._output
        #: Never the root of the file system.
        self._top = top if top != top.parent else self._output

    def find(self, location: str, at: str) -> str | None:
        """Path of a picture; None, and flagged, where it is not here.

        Raises:
            BenchmarkError: The location leads out of the folder.
        """
        if "://" in location or location.startswith("data:"):
            self._notes.flag("a picture that is given by an address is not fetched", f"{location[:200]!r} ({at})")
            return None
        plain, tail = location.replace("\\", "/"), _tail(location)
        absolute = Path(plain).is_absolute()
        for place in [Path(plain) if absolute else self._top / plain, *([self._output / tail] if tail else [])]:
            inside, found = look(place, self._top, at)
            if not inside and not (absolute and place == Path(plain)):
                raise BenchmarkError(
                    f"{at}: its picture {location!r} leads out of {self._top}; put pictures inside, at the place below "
                    f"{self._output.name} that the run names."
                )
            if found is not None:
                return found
        reason = "a picture lies outside of the run's folders" if absolute and not tail else "a picture is not here"
        self._notes.flag(f"{reason}; the question is without it", f"{location[:200]!r} ({at})")
        return None
