"""Which record is meant: by its place in the input, as errors.jsonl and the command line show places, or by its number
among those that failed. Used by `replay`.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.splits import ListedObject
from tidemill.replaying.task import Task

_FAILED = re.compile(r"errors?\[(\d+)\]")
_PLACED = re.compile(r"(.+?)(?::| line | row )([\d,]+)")
_FIELD = "RECORD"


@dataclass(frozen=True)
class Wanted:
    """listed: the object, as the task read it. number: line or row in it, from 1; None where the object is the record.

    stored: the line of errors.jsonl, where the record failed.
    """

    listed: ListedObject
    number: int | None
    stored: dict[str, Any] | None

    @property
    def place(self) -> str:
        """`a.jsonl:3`, or the name of a whole file."""
        return self.listed.name if self.number is None else f"{self.listed.name}:{self.number}"


def find_record(task: Task, text: str | None, error: int | None) -> Wanted:
    """text: `OBJECT:LINE`, `LINE`, `OBJECT` or `errors[N]`. error: N. Raises InvalidValue or NotFound."""
    if (text is None) == (error is None):
        what = "is required" if text is None else "is given, and --error too: one record is replayed"
        remedy = "Write OBJECT:LINE, or --error 1 for the first that failed."
        raise InvalidValue(f"{what}.", field=_FIELD, remedy=remedy)
    failed = _FAILED.fullmatch(text) if text is not None else None
    if failed is not None or text is None:
        return _failed(task, int(failed[1]) if failed is not None else error or 0)
    return _placed(task, text)


def _failed(task: Task, number: int) -> Wanted:
    if number < 1:
        raise InvalidValue("failed records are counted from 1.", field="--error", remedy="Write --error 1.")
    count = 0
    for stored in task.errors():
        count += 1
        if count == number:
            place = next((stored[key] for key in ("line", "row") if stored.get(key) is not None), None)
            if place is None and task.input_format.type != "file":
                raise InvalidValue(
                    f"{layout.ERRORS} does not say where in {stored['object']} it is.",
                    field=_FIELD,
                    remedy="Give it by its line: OBJECT:LINE.",
                )
            return Wanted(_object(task, stored["object"]), place, stored)
    have = "no record failed" if not count else f"{count:,} {'record' if count == 1 else 'records'} failed"
    raise NotFound(f"there is no failed record {number:,}: {have}.", field=_FIELD, remedy="Give its place instead.")


def _placed(task: Task, text: str) -> Wanted:
    if task.input_format.type == "file":
        listed = _object(task, text)
        return Wanted(listed, None, _stored(task, listed.name, None))
    name, number = _read(task, text)
    if number < 1:
        raise InvalidValue("lines and rows are counted from 1.", field=_FIELD, remedy=f"Write {name}:1.")
    return Wanted(_object(task, name), number, _stored(task, name, number))


def _read(task: Task, text: str) -> tuple[str, int]:
    """Name and number; the name is that of the only object where none is given."""
    if text.replace(",", "").isdecimal():
        first = [listed.name for listed in itertools.islice(task.listing(), 2)]
        if len(first) != 1:
            raise InvalidValue(
                f"the task read {task.objects_read:,} objects, and {text} is a line of any of them.",
                field=_FIELD,
                remedy=f"Say which: {first[0]}:{text}." if first else None,
            )
        return first[0], int(text.replace(",", ""))
    placed = _PLACED.fullmatch(text)
    if placed is None:
        raise InvalidValue(
            f"{text!r} names no record.",
            field=_FIELD,
            remedy=f"Add the line or row, from 1: {text}:1, or give --error 1.",
        )
    return placed[1], int(placed[2].replace(",", ""))


def _object(task: Task, name: str) -> ListedObject:
    some: list[str] = []
    for listed in task.listing():
        if listed.name == name:
            return listed
        if len(some) < 3:
            some.append(listed.name)
    raise NotFound(
        f"the task read no object {name!r}.",
        field=_FIELD,
        remedy=f"It read {', '.join(some)}{' and others' if task.objects_read > len(some) else ''}.",
    )


def _stored(task: Task, name: str, number: int | None) -> dict[str, Any] | None:
    for stored in task.errors():
        if stored["object"] == name and number in (stored.get("line"), stored.get("row")):
            return stored
    return None
