"""Everything SQL: tables, views, engine, migrations, and the only importer of SQLAlchemy."""

from orchestrator.store.store import Session, Store, check_home, home_folder, open_store

__all__ = ["Session", "Store", "check_home", "home_folder", "open_store"]
