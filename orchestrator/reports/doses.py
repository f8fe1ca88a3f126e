"""Which encoders of `study: locality` are another one with a part of its rows permuted?"""

from __future__ import annotations

import re

#: As `orchestrator.studies.dosed` names them.
_DOSED = re.compile(r"^(?P<of>.+), (?P<percent>[0-9.]+)% permuted$")


def dose(encoder: object) -> tuple[str, float] | None:
    """The encoder that is permuted and the percentage of its queries; None for any other name, and for none or NaN."""
    found = _DOSED.match(encoder) if isinstance(encoder, str) else None
    return (found["of"], float(found["percent"])) if found else None
