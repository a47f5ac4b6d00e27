"""Lists: cursors that stay where they are while things come and go, and the filters of tasks."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tidemill.domain.errors import InvalidValue
from tidemill.domain.life import TaskStatus

CursorValue = str | int | float


@dataclass(frozen=True)
class TaskQuery:
    """Which tasks, in which order. Filters that are not given let all through."""

    name: str | None = None
    name_contains: str | None = None
    statuses: tuple[TaskStatus, ...] = ()
    model: str | None = None
    region: str | None = None
    tags: tuple[str, ...] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    order_by: Literal["created", "updated"] = "created"
    descending: bool = True


def encode_cursor(*key: CursorValue) -> str:
    """The place behind the item with this sort key, opaque to clients."""
    return base64.urlsafe_b64encode(json.dumps(key, separators=(",", ":")).encode()).decode().rstrip("=")


def decode_cursor(text: str, kinds: Sequence[type]) -> list[CursorValue]:
    """The sort key of a cursor. kinds: what it has to be made of. Raises InvalidValue."""
    try:
        found = json.loads(base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        found = None
    good = isinstance(found, list) and len(found) == len(kinds)
    if good:
        for index, kind in enumerate(kinds):
            if kind is float and type(found[index]) is int:
                found[index] = float(found[index])
            good = good and type(found[index]) is kind and found[index] == found[index]
    if not good or any(isinstance(value, str) and "\0" in value for value in found):
        raise InvalidValue("is not a cursor of this list.", field="cursor", remedy="Use `next_cursor` of a page.")
    return list(found)
