"""All tables, so that `metadata` is complete: imported by `migrate` and by the migrations."""

from tidemill.store import journal_tables, models_tables, packages_tables, tables
from tidemill.store.base import metadata

__all__ = ["journal_tables", "metadata", "models_tables", "packages_tables", "tables"]
