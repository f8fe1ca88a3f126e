"""What was fetched, from where, with which checksum? `fetch.json` beside the files says it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from orchestrator.fetching.downloading import RemoteFile, check, local_path
from orchestrator.fetching.suites import Suite
from orchestrator.fetching.web import FetchError

NAME = "fetch.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    url: str
    size: int
    sha256: str
    checksum: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(extra="ignore")

    models: list[str] = []
    revision: str | None = None
    complete: bool = False
    files: dict[str, _Entry] = {}


@dataclass(kw_only=True)
class Manifest:
    """`fetch.json` of a folder.

    Attributes:
        folder: Where it lies.
        asked: What the last fetch was asked for: models and revision.
        complete: Whether that fetch ended well.
        files: By path: address, bytes, sha256, and which checksum of upstream it agreed with.
    """

    folder: Path
    asked: tuple[list[str], str | None] = ([], None)
    complete: bool = False
    files: dict[str, _Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """That of a folder; an empty one where there is none or it is broken, so that files are checked anew."""
        found = _File()
        with contextlib.suppress(OSError, ValueError, ValidationError, RecursionError):
            found = _File.model_validate(json.loads((folder / NAME).read_bytes()))
        return cls(
            folder=folder, asked=(found.models, found.revision), complete=found.complete, files=dict(found.files)
        )

    def write(self, suite: Suite, revisions: dict[str, str]) -> None:
        """Replace it as a whole."""
        models, revision = self.asked
        content: dict[str, Any] = {
            "suite": suite.name,
            "title": suite.title,
            "licence": suite.licence,
            "upstream": suite.upstream,
            "revisions": revisions,
            "models": models,
            "revision": revision,
            "complete": self.complete,
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
            "files": {path: entry.model_dump() for path, entry in sorted(self.files.items())},
        }
        fresh = self.folder / f".{NAME}.new"
        fresh.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        fresh.replace(self.folder / NAME)

    def record(self, remote: RemoteFile, size: int, sha256: str) -> None:
        """Note a file that is here."""
        checksum = remote.checksum and f"{remote.checksum.kind}:{remote.checksum.value}"
        self.files[remote.path] = _Entry(url=remote.url, size=size, sha256=sha256, checksum=checksum)

    def has(self, remote: RemoteFile, path: Path) -> tuple[int, str] | None:
        """Bytes and sha256 of a file that is here already and right."""
        if not path.is_file():
            return None
        size, sha256, wrong = check(path, remote)
        known = self.files.get(remote.path)
        by_record = known is not None and known.url == remote.url and known.sha256 == sha256
        return (size, sha256) if not wrong and (remote.checksum or by_record) else None

    def whole(self, models: list[str], revision: str | None) -> bool:
        """Whether a fetch of just this ended well, and its files are as they were."""
        if not self.complete or self.asked != (models, revision) or not self.files:
            return False
        for path, entry in self.files.items():
            try:
                file = local_path(self.folder, path)
            except FetchError:
                return False
            if not file.is_file() or check(file, RemoteFile(path=path, url="", size=entry.size))[1] != entry.sha256:
                return False
        return True
