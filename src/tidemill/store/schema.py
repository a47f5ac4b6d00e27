"""All tables, so that `metadata` is complete: imported by `migrate` and by the migrations."""

from tidemill.store import habits_tables, journal_tables, models_tables, packages_tables, tables
from tidemill.store.base import metadata

__all__ = ["habits_tables", "journal_tables", "metadata", "models_tables", "packages_tables", "tables"]
