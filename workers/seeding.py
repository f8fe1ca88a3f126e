"""Random streams that depend on names, never on the order of work."""

from __future__ import annotations

import hashlib

import numpy as np


def generator(root_seed: int, role: str, *names: str | int | float) -> np.random.Generator:
    """A generator for one role (`twin`, `fit`, `tuning`, ...) and the names that the role may depend on."""
    digest = hashlib.sha256("|".join([role, *map(str, names)]).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return np.random.default_rng(np.random.SeedSequence([root_seed, *map(int, words)]))
