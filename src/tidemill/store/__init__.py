"""The server's memory: tables and repositories over SQLite and PostgreSQL, and blobs in the data folder."""
