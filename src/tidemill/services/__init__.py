"""Use cases, one transaction each: the only way to change anything on a server."""
