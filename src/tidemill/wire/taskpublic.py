"""The task as others may read it: in receipts, which go wherever the results go."""

from __future__ import annotations

from typing import Any

from tidemill.wire.taskfile import TaskFile, dump_task


def dump_public(task: TaskFile) -> dict[str, Any]:
    """As `dump_task`, but of environment variables the names alone: their values may be secret."""
    return dump_task(task.replace(env=dict.fromkeys(task.env, "")))
