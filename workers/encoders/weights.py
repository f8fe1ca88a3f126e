"""Where do an encoder's weights lie, and what is their digest? Light: planning calls it."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from workers.errors import EncoderError

#: What sentence-transformers loads from a model folder; READMEs and ONNX or TensorFlow copies determine no row.
MODEL_FILES = ("*.json", "*.txt", "*.model", "*.safetensors", "*.bin")
_OTHER_BACKENDS = ("onnx", "openvino")


def package_folder(package: str, *, encoder: str) -> Path:
    """Folder of an installed package that carries weights, found without importing it.

    Raises:
        EncoderError: Not installed; says how to install it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EncoderError(
            f"encoder {encoder!r} needs the package {package!r}, which is not installed; "
            "install it with: pip install 'roadtest[offline]'."
        )
    return Path(spec.submodule_search_locations[0])


def hub_folder(name: str) -> Path:
    """The local snapshot of a hub model; downloaded only when the cache has none.

    Raises:
        EncoderError: It is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    ignore = [f"{folder}/*" for folder in _OTHER_BACKENDS]
    patterns = [pattern for pattern in MODEL_FILES if pattern != "*.bin"]
    try:
        cached = Path(snapshot_download(name, local_files_only=True))
        if _has_weights(cached):
            return cached
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        raise EncoderError(f"encoder 'st:{name}': neither a folder nor a valid hub name ({error}).") from error
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, ignore_patterns=ignore))
        if not _has_weights(folder):
            folder = Path(snapshot_download(name, allow_patterns=[*patterns, "*.bin"], ignore_patterns=ignore))
    except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise EncoderError(
            f"encoder 'st:{name}' is not in the local hub cache and cannot be downloaded ({reason}). Check the name; "
            f"without a network run `hf download {name}` where there is one and bring the folder here as "
            "`st:/path/to/folder`, or use an encoder that needs no hub: minilm, wordllama, hash-ngrams."
        ) from error
    return folder


def _has_weights(folder: Path) -> bool:
    return any(folder.rglob("*.safetensors")) or any(folder.rglob("*.bin"))


def folder_sha256(folder: Path) -> str:
    """sha256 over the names and contents of the files that a sentence-transformers folder loads.

    Raises:
        EncoderError: The folder holds no weights.
    """
    if not _has_weights(folder):
        raise EncoderError(f"{folder}: no *.safetensors or *.bin file there; give a sentence-transformers folder.")
    found = {path.relative_to(folder): path for pattern in MODEL_FILES for path in folder.rglob(pattern)}
    digest = hashlib.sha256()
    for relative in sorted(found, key=Path.as_posix):
        hidden = any(part.startswith(".") for part in relative.parts)
        # Where both formats lie side by side safetensors is the one that is loaded.
        shadowed = relative.suffix == ".bin" and any(found[relative].parent.glob("*.safetensors"))
        if not hidden and not shadowed and relative.parts[0] not in _OTHER_BACKENDS:
            digest.update(f"{relative.as_posix()}\0{file_sha256(found[relative])}\n".encode())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 of a file, read once per process while it stays unchanged."""
    stat = path.stat()
    return _file_sha256(path, stat.st_size, stat.st_mtime_ns)


@cache
def _file_sha256(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
