"""Whether objects may be cut into ranges, and why not where they may not. Called by `formats`, `check` and `plan`.

CSV is cut only where no line break is seen inside quotes: no place inside of such an object is known to begin a row.
What is not seen here the readers find out (`codec.csv_rows`): then the run ends before a wrong row becomes a result.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable

from tidemill.domain.location import Location
from tidemill.domain.splits import LAST_BYTES_MAX, SPLIT_BYTES_MAX, Cut
from tidemill.ports.objects import ObjectInfo, Objects
from tidemill_runtime.contract import InputFormat

WINDOW_BYTES = 64 * 1024
_WINDOWS = 3
_LOOK_OBJECTS = 3
_LOOK_FROM_BYTES = 1024 * 1024
_WORTH_TELLING = 32
"""An object that runs whole is told of where it is more than this part of the input."""
"""Smaller objects are looked at no further than their beginning."""

SPANS_LINES = "a row of the CSV spans several lines"


def cut_of(found: InputFormat, heads: Iterable[bytes], *, whole: bool) -> tuple[Cut, str]:
    """How objects of a format are cut, and why they are not. heads: beginnings of some, as they are stored."""
    if found.type == "file":
        return Cut.FILES, ""
    if whole:
        return Cut.WHOLE, "format.split is whole"
    if found.compression != "none":
        return Cut.WHOLE, f"{found.compression} cannot be cut"
    if found.type == "parquet":
        return Cut.GROUPS, ""
    if found.type == "csv" and any(_widths(_lines(found, head), found) is None for head in heads):
        return Cut.WHOLE, SPANS_LINES
    return Cut.RANGES, ""


def spans_lines(objects: Objects, folder: Location, first: Iterable[ObjectInfo], found: InputFormat) -> bool:
    """Whether CSV that begins harmlessly has rows of several lines further on, as far as some windows show.

    first: some of the input's objects, the largest of which are looked at, with a few reads each. Doubt counts as yes:
    that costs speed alone.
    """
    for listed in sorted(first, key=lambda each: -each.size)[:_LOOK_OBJECTS]:
        if listed.size < _LOOK_FROM_BYTES:
            continue
        place = folder.child(listed.name)
        known = _widths(_lines(found, objects.read(place, 0, WINDOW_BYTES)), found)
        for number in range(1, _WINDOWS + 1):
            start = (listed.size - WINDOW_BYTES) * number // _WINDOWS
            window = objects.read(place, start, start + WINDOW_BYTES)
            widths = _widths(_lines(found, window)[1:], found)
            if known is None or widths is None or not widths <= known:
                return True
    return False


def uncut_note(uncut: int, objects: int, why: str) -> str:
    """What is said where objects that are large enough to be cut are not, or nothing. uncut: how many."""
    if not uncut or not why:
        return ""
    which = "the input runs" if objects == 1 else f"{uncut} of {objects} objects run"
    return f"{which} whole{', each' if uncut > 1 else ''} in a single process: {why}"


def worth_cutting(size: int, total: int) -> bool:
    """Whether an object is so large that it would be cut, and its running whole is to be told."""
    return size > max(LAST_BYTES_MAX, min(SPLIT_BYTES_MAX, total // _WORTH_TELLING))


def _lines(found: InputFormat, data: bytes) -> list[str]:
    """The whole lines of a piece of CSV; the first may be what is left of one."""
    text = data.decode(found.encoding, "replace")
    return [line + "\n" for line in text.split("\n")[:-1]]


def _widths(lines: list[str], found: InputFormat) -> set[int] | None:
    """The numbers of fields that rows have, blank ones left out; None if a row has more than a line."""
    if not any(found.quote in line for line in lines):
        return {line.count(found.delimiter) + 1 for line in lines if line.strip()}
    widths: set[int] = set()
    rows = csv.reader([*lines, "the end\n"], delimiter=found.delimiter, quotechar=found.quote)
    try:
        for number, row in enumerate(rows, 1):
            if rows.line_num != number:
                return None
            if number <= len(lines) and row:
                widths.add(len(row))
    except csv.Error:
        return None
    return widths
