"""Identifiers. A leaf: imported everywhere, imports nothing of ours.

A task is `batch-` and sixteen characters that sort by time of creation; its runs and their instances are named after
it, so that a person who sees one in a log knows where it belongs.
"""

from __future__ import annotations

import secrets
from typing import NewType

TaskId = NewType("TaskId", str)
RunId = NewType("RunId", str)
InstanceId = NewType("InstanceId", str)
ModelId = NewType("ModelId", str)
VersionId = NewType("VersionId", str)
AccountId = NewType("AccountId", str)
RegionName = NewType("RegionName", str)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u


def _base32(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, rest = divmod(value, 32)
        digits.append(_ALPHABET[rest])
    return "".join(reversed(digits))


def _sortable(now_ms: int) -> str:
    """Nine characters of time (milliseconds, good until the year 3084) and seven of chance (35 bits)."""
    return _base32(now_ms, 9) + _base32(secrets.randbits(35), 7)


def new_task_id(now_ms: int) -> TaskId:
    return TaskId("batch-" + _sortable(now_ms))


def run_id(task: TaskId, number: int) -> RunId:
    """number counts the task's runs from 1."""
    return RunId(f"{task}-r{number}")


def instance_id(run: RunId, index: int, attempt: int) -> InstanceId:
    """index is the instance's place in the run, from 0; attempt counts its replacements, from 1."""
    return InstanceId(f"{run}-{index}-a{attempt}")


def new_model_id(now_ms: int) -> ModelId:
    return ModelId("m-" + _sortable(now_ms))


def new_version_id(now_ms: int) -> VersionId:
    return VersionId("mv-" + _sortable(now_ms))
