"""Times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def ago(moment: datetime | None) -> str:
    """`12 s ago`, `5 min ago`, `3 h ago`, and the date of what is older than a day."""
    if moment is None:
        return ""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if seconds < 90:
        return f"{max(0, seconds):.0f} s ago"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min ago"
    return f"{seconds / 3600:.0f} h ago" if seconds < 86400 else local(moment)


def local(moment: datetime | None) -> str:
    """Date and time of this machine's zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""
