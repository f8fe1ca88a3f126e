"""What can go wrong inside the workers: one root, each docstring is the default message."""

from __future__ import annotations


class WorkersError(Exception):
    """Something went wrong while computing."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class InputError(WorkersError):
    """The input is not usable. The message says what, where and what to do."""


class BenchmarkError(InputError):
    """The benchmark's files or values are not usable."""


class EncoderError(InputError):
    """The encoder is unknown, not installed, or cannot embed these inputs."""


class RouterError(InputError):
    """The router is unknown or its parameters are not usable."""


class MeasureError(InputError):
    """The measure is unknown or cannot be taken of this benchmark."""


class ArtifactError(WorkersError):
    """An embedding artefact is missing, truncated or does not match its checksum."""


class StoreError(WorkersError, OSError):
    """The artefact store cannot be reached or used: the environment's failure, not a unit's."""
