"""What a worker waits for, told while it waits: a storage that does not answer, a full disk. Used by remote and sink.

The worker's board carries it to the agent, whose reports do the rest: people see why nothing moves, long before
patience is at its end. Short troubles, which every storage has, are not told.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    from types import TracebackType

SILENT_S = 2.0
"""How long a trouble lasts before it is told."""

_told: dict[int, str] = {}  # thread → its words: reading and writing may wait at the same time
_lock = threading.Lock()
_show: Optional[Callable[[str], None]] = None


def show_with(show: Callable[[str], None]) -> None:
    """Has what is waited for handed to `show`, "" when it goes on. Called by the worker at its start."""
    global _show  # noqa: PLW0603 - one worker process has one board
    _show = show


class Wait:
    """Something that is tried again until it succeeds: call `again` after each failure, inside a `with`."""

    def __init__(self) -> None:
        self._since: Optional[float] = None

    def __enter__(self) -> Wait:  # noqa: PYI034 (Python 3.9)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._since is not None:
            _tell("")

    def again(self, why: str) -> None:
        """It failed, and will be tried again. why: what failed and in which words, for people."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        if now - self._since >= SILENT_S:
            _tell(why)


def _tell(words: str) -> None:
    with _lock:
        _told.pop(threading.get_ident(), None)
        if words:
            _told[threading.get_ident()] = words
        if _show is not None:
            _show(next(iter(_told.values()), ""))
