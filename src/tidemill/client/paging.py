"""Following a list from page to page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from tidemill.wire.views import Page

T = TypeVar("T")


def every(fetch: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """All items of a list. fetch: the page at a cursor. Each page is asked for when its first item is."""
    cursor: str | None = None
    while True:
        page = fetch(cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
