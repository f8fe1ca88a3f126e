"""Studies: the task that routers were trained on where it is another; measures and their findings.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KINDS = "kind IN ('embed', 'evaluate', 'measure')"


def upgrade() -> None:
    op.add_column("benchmark", sa.Column("trained_on", sa.Text(), nullable=True))
    with op.batch_alter_table("unit") as unit:  # SQLite copies the table for another check
        unit.add_column(sa.Column("measure", sa.Text(), nullable=True))
        unit.drop_constraint(op.f("ck_unit_kind_is_known"), type_="check")
        unit.create_check_constraint(op.f("ck_unit_kind_is_known"), _KINDS)
    op.create_table(
        "finding",
        sa.Column("unit_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("x", sa.Double(), nullable=True),
        sa.Column("value", sa.Double(), nullable=True),
        sa.Column("low", sa.Double(), nullable=True),
        sa.Column("high", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["unit_id"], ["unit.id"], name=op.f("fk_finding_unit_id_unit")),
        sa.PrimaryKeyConstraint("unit_id", "position", name=op.f("pk_finding")),
        sqlite_with_rowid=False,
    )
