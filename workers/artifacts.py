"""Where do embedding rows live? In checksummed `.npy` files with a JSON manifest, on any fsspec URL."""

from __future__ import annotations

import hashlib
import json
import os
import re
import uuid
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem

from workers.errors import ArtifactError

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)


def rows_sha256(rows: npt.NDArray[Any]) -> str:
    """sha256 of the rows' bytes, row by row; shape and dtype stand in the manifest."""
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


class ArtifactStore:
    """A folder of artefacts, local or on any fsspec URL (`s3://bucket/folder`, `file:///folder`).

    An artefact is `<name>.npy` and, written last, `<name>.json`. Writers of one name may race: each file is replaced
    as a whole, so one writer's file stays. What a reader gets is what the checksum says or an error.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = str(url)
        self._fs, self._root = fsspec.core.url_to_fs(self.url)
        self._local = isinstance(self._fs, LocalFileSystem)

    def write(self, name: str, rows: npt.NDArray[Any], manifest: Mapping[str, Any]) -> tuple[str, str, int]:
        """Write one artefact whole or not at all.

        Args:
            name: Path inside the store, such as `<embedding>/0-2048`.
            rows: Any array without objects. [n, d]
            manifest: What made the rows, as JSON values; checksum, dtype and shape are added.

        Returns:
            URL of the `.npy` file, sha256 of the rows' bytes, bytes of the `.npy` file.

        Raises:
            OSError: The disk is full, read-only or not ours.
        """
        sha256 = rows_sha256(rows)
        stream = BytesIO()
        np.save(stream, rows, allow_pickle=False)
        described = {**manifest, "sha256": sha256, "dtype": rows.dtype.str, "shape": list(rows.shape)}
        path = self._path(name, ".npy")
        data = stream.getvalue()
        self._put(path, data)
        self._put(self._path(name, ".json"), json.dumps(described, indent=1, sort_keys=True, allow_nan=False).encode())
        return self._fs.unstrip_protocol(path), sha256, len(data)

    def read(self, name: str, sha256: str) -> npt.NDArray[Any]:
        """The rows, read-only; memory-mapped where the store is local.

        Raises:
            ArtifactError: Missing, truncated or other bytes than the checksum says.
        """
        path = self._path(name, ".npy")
        try:
            if self._local:
                rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                rows = np.load(BytesIO(self._fs.cat_file(path)), allow_pickle=False)
                rows.flags.writeable = False
        except FileNotFoundError as error:
            raise ArtifactError(f"{path}: the artefact is missing; run again to embed it anew.") from error
        except OSError:
            raise
        except Exception as error:  # a torn header fails in numpy, in the tokenizer of Python or in a vast allocation
            raise ArtifactError(f"{path}: the artefact is damaged ({error}); run again to embed it anew.") from error
        found = rows_sha256(rows)
        if found != sha256:
            raise ArtifactError(
                f"{path}: the artefact's rows have sha256 {found[:12]}…, the database says {sha256[:12]}…; "
                "run again to embed it anew."
            )
        return rows

    def exists(self, name: str) -> bool:
        """Whether both files are there; only `read` checks what is in them."""
        return all(self._fs.exists(self._path(name, suffix)) for suffix in (".npy", ".json"))

    def _path(self, name: str, suffix: str) -> str:
        if not _NAME.fullmatch(name):
            raise ArtifactError(f"{name!r} is no name for an artefact; use letters, digits, '_', '-', '.' and '/'.")
        return f"{self._root.rstrip('/')}/{name}{suffix}"

    def _put(self, path: str, data: bytes) -> None:
        if not self._local:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(path, data)  # object stores put whole objects
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
