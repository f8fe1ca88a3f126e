"""Everything SQL: tables, views, engine, migrations, and the only importer of SQLAlchemy."""

from orchestrator.store.store import Session, Store, open_store

__all__ = ["Session", "Store", "open_store"]
