"""Digest of a sweep's plan; out-of-memory failures of a unit.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sweep", sa.Column("plan_digest", sa.String(length=64), nullable=True))
    op.add_column("unit", sa.Column("n_ooms", sa.Integer(), server_default="0", nullable=False))
    # Nothing looks a unit up by its lease, and each heartbeat wrote the index anew; counts by state are read often.
    op.drop_index("ix_unit_state_lease_expires", "unit")
    op.drop_index("ix_unit_coordinator_id", "unit")  # who asks for a coordinator's units means the few that run
    op.create_index("ix_unit_state_kind_id", "unit", ["state", "kind", "id"])
    # Deleting a unit looks for what refers to it.
    op.create_index("ix_artifact_unit_id", "artifact", ["unit_id"])
    op.create_index("ix_event_unit_id", "event", ["unit_id"])
