"""Alembic migrations: `versions/` has one module for each schema that was ever released.

`migrate` applies them at the start of a server. A new one is drafted by
`alembic -x url=sqlite:///old.db --config src/tidemill/store/migrations/alembic.ini revision --autogenerate -m WHAT`.
"""
