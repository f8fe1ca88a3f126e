"""Which slices of an embedding got lost or damaged, and how are they embedded again?"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field

from orchestrator.errors import RunError
from orchestrator.store import Session, Store, registry
from workers.artifacts import ArtifactStore
from workers.embed import slice_name
from workers.errors import ArtifactError

log = logging.getLogger("roadtest.repair")

#: Times that one run embeds a slice again before it says that the artefact store is to blame.
MAX_LOSSES = 20


@dataclass(eq=False)
class Repair:
    """Puts slices that cannot be read back into the queue."""

    store: Store
    #: URL of the artefact store.
    artifacts: str
    coordinator_id: str
    _losses: Counter[str] = field(default_factory=Counter)
    #: Times in a row that workers complained of an embedding in which nothing is wrong, seen from here.
    _in_vain: Counter[str] = field(default_factory=Counter)

    def check(self, sweep_id: int) -> int:
        """Look whether the files that unfinished units of a sweep need are there; returns how many slices are not.

        Raises:
            OSError: The artefact store cannot be written or read.
        """

        def needed(session: Session) -> list[str]:
            rows = session.rows(
                """SELECT DISTINCT e.embedding FROM sweep_unit su CROSS JOIN unit e
                   WHERE su.sweep_id = :s AND su.benchmark IS NULL AND e.id = su.unit_id AND e.kind = 'embed'
                     AND EXISTS (SELECT 1 FROM unit u WHERE u.embedding = e.embedding AND u.kind <> 'embed'
                                 AND u.state IN ('ready', 'running', 'invalidated'))
                   ORDER BY e.embedding""",
                s=sweep_id,
            )
            return [row["embedding"] for row in rows]

        embeddings = self.store.query(needed)
        if embeddings:  # a store that cannot be reached must not look like one that lost everything
            ArtifactStore(self.artifacts).check()
        return sum(self.reopen(embedding, verify=False) for embedding in embeddings)

    def reopen(self, embedding: str, *, verify: bool) -> int:
        """Make slices of an embedding that are missing (or, if asked, damaged) ready again; returns how many.

        Raises:
            RunError: One was lost again and again.
        """
        artifacts = ArtifactStore(self.artifacts)
        slices = self.store.query(
            lambda session: session.rows(
                # Not those that wait to be embedded again already.
                """SELECT a.unit_id, a.start, a.stop, a.sha256 FROM artifact a JOIN unit u ON u.id = a.unit_id
                   WHERE a.embedding = :e AND u.state = 'done'""",
                e=embedding,
            )
        )
        lost: list[tuple[int, str]] = []
        for row in slices:
            name = slice_name(embedding, row["start"], row["stop"])
            try:
                if verify:
                    artifacts.read(name, row["sha256"])
                elif not artifacts.exists(name):
                    raise ArtifactError(f"{name} is missing")
            except ArtifactError as error:
                lost.append((row["unit_id"], str(error)))
                self._losses[name] += 1
                if self._losses[name] >= MAX_LOSSES:
                    raise RunError(
                        f"{error} That was the {MAX_LOSSES}th time in this run: the artefact store does not keep what "
                        "is written to it. What is done is kept; mend it and run again."
                    ) from error
        self._in_vain[embedding] = self._in_vain[embedding] + 1 if verify and not lost else 0
        if self._in_vain[embedding] >= MAX_LOSSES:
            raise RunError(
                f"workers cannot read embedding {embedding[:12]}, which this machine can: set ROADTEST_ARTIFACTS to a "
                "URL or folder that every node reaches. What is done is kept."
            )
        return self.store.transact(lambda session: self._put_back(session, lost)) if lost else 0

    def _put_back(self, session: Session, lost: list[tuple[int, str]]) -> int:
        n = 0
        for unit_id, reason in lost:
            log.warning("embedding again: %s", reason)
            reopened = session.run(
                "UPDATE unit SET state = 'ready', reason = :r WHERE id = :u AND state = 'done'", u=unit_id, r=reason
            ).rowcount
            if reopened:
                registry.put_event(
                    session, "artifact_lost", reason, coordinator_id=self.coordinator_id, unit_id=unit_id
                )
            n += reopened
        return n
