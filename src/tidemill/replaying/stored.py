"""What the task left for one record, and whether that is what it has now. Used by `replay`."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidemill.comparing.report import Report
from tidemill.domain import layout
from tidemill.domain.errors import NotFound
from tidemill.domain.splits import Layout
from tidemill.publishing.rows import predictions
from tidemill.replaying.record import Wanted
from tidemill.replaying.task import Task

PREDICTION = "prediction"
_KILLED = ("crash", "timeout", "out_of_memory")
"""Faults that kill a process: what is said about them differs, and no place in the code goes with them."""


@dataclass(frozen=True)
class Stored:
    """known: whether a prediction was found; otherwise `why` says why there is none to be compared with."""

    known: bool
    prediction: Any = None
    why: str = ""


def find_stored(task: Task, wanted: Wanted, skipped: int, now: Any) -> Stored:
    """The stored prediction of a record that did not fail. skipped: blank lines before it, which have no result. now:
    the prediction that it has now: columns of a table are read as what that has.
    """
    result = task.result_format
    if not task.finished:
        return Stored(False, why="the task has not succeeded, so that there is no result of it")
    try:
        if result.form == "named":
            return _by_name(task, wanted)
        if result.layout != Layout.PER_OBJECT:
            return Stored(False, why="results of several objects are in one, and which of its rows it is nobody noted")
        place = task.folder.child(layout.result_for_object(wanted.listed.name, result.type, result.extension))
        if result.type == "file":
            data = task.objects.read(place)
            return Stored(True, {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        row = (wanted.number or 1) - 1 - skipped
        for value in itertools.islice(predictions(task.objects, place, result.type), row, row + 1):
            return Stored(True, _taken(value, now, carries=result.form != "aligned" or bool(result.keys)))
        return Stored(False, why=f"{place} has no row {row + 1:,}")
    except NotFound as error:
        return Stored(False, why=error.message.rstrip("."))


def apart(stored: Any, now: Any, tolerance: float) -> float | None:
    """How far the numbers of two predictions are apart: 0 where both are the same, None where they differ by more than
    the tolerance, or in anything but numbers.
    """
    if type(stored) is type(now) and stored == now:
        return 0.0
    if stored is None or now is None:
        return None
    report = Report("stored", "now", tolerance, 1)
    report.record(_Here(), 0, None, stored, now)
    if not report.equal:
        return None
    return max(_distances(stored, now), default=0.0)


def same_failure(stored: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a record fails for the cause that it failed for then."""
    if stored["fault"] != now["fault"]:
        return False
    return stored["fault"] in _KILLED or stored.get("fingerprint") == now.get("fingerprint")


class _Here:
    def place(self, index: int) -> str:
        return ""


def _by_name(task: Task, wanted: Wanted) -> Stored:
    names = [json.loads(line)["name"] for line in itertools.islice(task.lines(layout.MARKER), 1, None)]
    for name in names:
        for row in predictions(task.objects, task.folder.child(name), task.result_format.type):
            if isinstance(row, dict) and row.get("path") == wanted.listed.name:
                return Stored(True, row.get(PREDICTION))
    return Stored(False, why=f"no result names {wanted.listed.name}")


def _taken(value: Any, now: Any, *, carries: bool) -> Any:
    """The prediction alone, without what was carried beside it; numbers of CSV as numbers."""
    if carries and isinstance(value, dict):
        if PREDICTION in value:
            value = value[PREDICTION]
        elif isinstance(now, dict):
            value = {key: value[key] for key in now if key in value}
    return _as(value, now)


def _as(value: Any, like: Any) -> Any:
    """A text as the kind of value that `like` is, if it can be read so."""
    if isinstance(value, dict) and isinstance(like, dict):
        return {key: _as(inner, like.get(key)) for key, inner in value.items()}
    if not isinstance(value, str) or isinstance(like, str) or like is None:
        return value
    try:
        found = json.loads(value.lower() if isinstance(like, bool) else value)
    except ValueError:
        return value
    return float(found) if isinstance(like, float) and isinstance(found, int) else found


def _distances(stored: Any, now: Any) -> list[float]:
    if isinstance(stored, dict) and isinstance(now, dict):
        return [far for key in stored for far in _distances(stored[key], now.get(key))]
    if isinstance(stored, list) and isinstance(now, list):
        return [far for pair in zip(stored, now, strict=False) for far in _distances(*pair)]
    if isinstance(stored, int | float) and isinstance(now, int | float):
        return [abs(stored - now)]
    return []
