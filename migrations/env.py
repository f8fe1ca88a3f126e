"""Runs the migrations on the connection that `orchestrator.store.schema` hands over."""

from __future__ import annotations

from alembic import context

from orchestrator.store import views
from orchestrator.store.schema import VERSION_TABLE
from orchestrator.store.tables import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=False,  # one transaction of the caller's spans everything
)
views.drop(connection)
context.run_migrations()
views.recreate(connection)
