"""How many records go into one predict call. Used by the worker; the tuning of processes and threads will join it here.

Starts with one record, so that a first failure or a slow model shows at once, and grows fourfold while calls stay
short: the time of a call bounds what a crash costs and how late progress, commits and stop orders are seen.
"""

from __future__ import annotations

from typing import Optional

TARGET_S = 0.25
"""How long one call is to take."""
LARGEST = 16384
_GROWTH = 4


class BatchSizer:
    """pinned: the user's own size. most: an upper bound that was learned (out of memory)."""

    def __init__(self, pinned: Optional[int], most: Optional[int] = None) -> None:
        self._most = min(pinned or LARGEST, most or LARGEST)
        self.size = self._most if pinned else 1
        self._adapts = pinned is None
        self.record_s = 0.0
        """Smoothed time of one record, in seconds; 0 before the first call."""

    def limit(self, most: int) -> None:
        self._most = max(1, min(self._most, most))
        self.size = min(self.size, self._most)

    def took(self, count: int, seconds: float) -> None:
        """A call with `count` records took this long."""
        each = seconds / count
        self.record_s = each if not self.record_s else 0.7 * self.record_s + 0.3 * each
        if not self._adapts or count < self.size:
            return
        wanted = int(TARGET_S / max(self.record_s, 1e-9))
        self.size = max(1, min(self._most, self.size * _GROWTH, wanted))
