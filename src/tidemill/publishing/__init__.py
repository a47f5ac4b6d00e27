"""Committed parts become results: `claims` for the folder, `publisher` for what is in it."""
