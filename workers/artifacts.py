"""Where do embedding rows live? In checksummed `.npy` files with a JSON manifest, on any fsspec URL."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import tenacity
from fsspec.asyn import AsyncFileSystem, sync
from fsspec.implementations.local import LocalFileSystem

from workers.errors import ArtifactError, StoreError

#: Seconds in which a remote store must answer; until then an operation that it did not answer is tried again.
PATIENCE = 60.0

_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
#: Stores that know no folders; s3fs takes the wish for one as the wish for a bucket and makes it.
_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
#: What fsspec's drivers raise when a server is busy, restarts or is cut off. By name: each driver is optional and has
#: classes of its own (botocore's are no OSErrors).
_PASSING_CLASSES = frozenset({"ConnectionError", "HTTPClientError", "ClientConnectionError", "TimeoutError"})
_PASSING_ERRNOS = frozenset({errno.EBUSY, errno.EIO, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ECONNRESET})


def rows_sha256(rows: npt.NDArray[Any]) -> str:
    """sha256 of the rows' bytes, row by row; shape and dtype stand in the manifest."""
    return hashlib.sha256(np.ascontiguousarray(rows).data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    """A file in an artefact store, whoever put it there."""

    #: Path inside the store, such as `<embedding>/0-2048.npy`.
    name: str
    n_bytes: int
    #: Seconds since 1970; infinity where the store does not tell.
    modified: float


class ArtifactStore:
    """A folder of artefacts, local or on any fsspec URL (`s3://bucket/folder`, `file:///folder`).

    An artefact is `<name>.npy` and, written last, `<name>.json`. Writers of one name may race: each file is replaced
    as a whole, so one writer's file stays. What a reader gets is what the checksum says or an error.

    Args:
        url: Folder. Credentials and endpoint of a remote one are its driver's business, by the environment.
        patience: Seconds in which a remote store must answer.

    Raises:
        StoreError: No such kind of URL, or its driver is not installed.
    """

    def __init__(self, url: str | Path, *, patience: float = PATIENCE) -> None:
        self.url = str(url)
        self._patience = patience
        try:
            # Others write here too, so a listing of a minute ago says nothing.
            self._fs, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise self._unusable(error) from error
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
            StoreError: The remote store cannot be reached or refuses.
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
            StoreError: The remote store cannot be reached or refuses.
        """
        path = self._path(name, ".npy")
        try:
            if self._local:
                rows: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                rows = np.load(BytesIO(self._remote("cat_file", path)), allow_pickle=False)
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
        """Whether both files are there; only `read` checks what is in them.

        Raises:
            StoreError: The remote store cannot be reached or refuses.
        """
        return all(self._is_there(self._path(name, suffix)) for suffix in (".npy", ".json"))

    def check(self) -> None:
        """Write a small artefact, read it back and remove it.

        Raises:
            OSError: The disk is full, read-only or not ours.
            StoreError: The remote store cannot be reached, refuses, or gave other bytes.
        """
        name = f"probe-{uuid.uuid4().hex}"  # others may look at the same moment
        try:
            self.read(name, self.write(name, np.arange(4, dtype=np.float32), {})[1])
        except ArtifactError as error:
            raise self._unusable(error) from error
        self.delete(f"{name}.npy")
        self.delete(f"{name}.json")

    def files(self) -> list[StoredFile]:
        """Every file there is, in order of their names; none where the folder does not exist yet.

        Raises:
            StoreError: The remote store cannot be reached or refuses.
        """
        root = self._root.rstrip("/")
        try:
            find = self._fs.find if self._local else partial(self._remote, "find")
            found = find(root, detail=True)
        except FileNotFoundError:
            return []
        return [
            StoredFile(name=path.removeprefix(f"{root}/"), n_bytes=int(info["size"]), modified=_modified(info))
            for path, info in sorted(found.items())
        ]

    def delete(self, name: str) -> None:
        """Delete the file of this name, as `files` gives it; that it is gone already is no error.

        Raises:
            OSError: The disk is read-only or not ours.
            StoreError: The remote store cannot be reached or refuses.
        """
        path = f"{self._root.rstrip('/')}/{name}"
        if self._local:
            Path(path).unlink(missing_ok=True)
            return
        with suppress(FileNotFoundError):
            self._remote("rm_file", path)

    def _path(self, name: str, suffix: str) -> str:
        if not _NAME.fullmatch(name):
            raise ArtifactError(f"{name!r} is no name for an artefact; use letters, digits, '_', '-', '.' and '/'.")
        return f"{self._root.rstrip('/')}/{name}{suffix}"

    def _is_there(self, path: str) -> bool:
        return Path(path).exists() if self._local else bool(self._remote("exists", path))

    def _put(self, path: str, data: bytes) -> None:
        if not self._local:
            protocol = self._fs.protocol
            try:
                if _WITHOUT_FOLDERS.isdisjoint((protocol,) if isinstance(protocol, str) else protocol):
                    self._remote("makedirs", path.rpartition("/")[0], exist_ok=True)
                self._remote("pipe_file", path, data)  # whole objects: half of one is never seen
            except FileNotFoundError as error:
                raise self._unusable(error) from error
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

    def _remote(self, operation: str, *arguments: Any, **options: Any) -> Any:
        """Do one operation of the file system, again and again while it does not answer.

        Raises:
            FileNotFoundError: There is no such file.
            StoreError: Anything else.
        """
        # Drivers try again by themselves, but may take many minutes over a server that accepts and says nothing.
        once = self._patience / 2
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            wait=tenacity.wait_exponential(multiplier=0.1, max=5),
            stop=tenacity.stop_before_delay(self._patience),
            reraise=True,
        )
        try:
            if isinstance(self._fs, AsyncFileSystem):
                method = getattr(self._fs, f"_{operation}")
                return attempts(sync, self._fs.loop, method, *arguments, timeout=once, **options)
            return attempts(getattr(self._fs, operation), *arguments, **options)
        except FileNotFoundError as error:
            answer = getattr(error.__cause__, "response", None) or {}
            if answer.get("Error", {}).get("Code") == "NoSuchBucket":
                raise self._unusable(error) from error
            raise
        except Exception as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> StoreError:
        reason = str(error).strip() or f"no answer within {self._patience:g} s ({type(error).__name__})"
        where = re.sub(r"//[^/@]*@", "//***@", self.url)
        return StoreError(
            f"the artefact store {where} cannot be used: {reason.rstrip('.')}. Check ROADTEST_ARTIFACTS, that the "
            "bucket or folder exists, and that endpoint and credentials are in the environment of every node."
        )


def _modified(info: Mapping[str, Any]) -> float:
    """When a file was last written, by the name and in the form that its driver gives it."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return math.inf


def _may_pass(error: BaseException) -> bool:
    """Whether trying again may help: no connection, no answer, or a server that says it is busy."""
    names = {cls.__name__ for cls in type(error).__mro__}
    return not names.isdisjoint(_PASSING_CLASSES) or (isinstance(error, OSError) and error.errno in _PASSING_ERRNOS)
