"""Is the picture that a file of unknown origin names in the folder that it belongs to?"""

from __future__ import annotations

from pathlib import Path

from workers.errors import BenchmarkError

#: Bytes of one picture.
MOST_BYTES = 1 << 26


def look(place: Path, top: Path, at: str) -> tuple[bool, str | None]:
    """Whether a place is below a folder, links followed, and the path of the picture where one is there.

    Args:
        place: Where the picture should be; may be no possible path.
        top: The folder, resolved.
        at: Place of the picture's name, for messages.

    Raises:
        BenchmarkError: The file is too large to be a picture.
    """
    try:
        found = place.resolve()
        inside = found.is_relative_to(top)
        size = found.stat().st_size if inside and found.is_file() else None
    except (OSError, ValueError, RuntimeError):  # a NUL, too long, links in a circle
        return True, None
    if size is not None and size > MOST_BYTES:
        raise BenchmarkError(f"{at}: its picture {found} is over {MOST_BYTES >> 20} MB; check what it is.")
    return inside, None if size is None else str(found)
