"""Alembic migrations: `versions/` has one module for each schema that was ever released."""
