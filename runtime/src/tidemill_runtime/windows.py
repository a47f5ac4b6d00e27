"""Windows of several calls, whose records are ordered by length before they are cut into calls, and put back after.

A text model pads each call to its longest record, so records of one length in one call cost a third of what they cost
as they come. Used by isolation; what fails inside a window is bisected over the same calls and named by its true place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records

SHAPES = ("record", "dict", "str", "bytes")
"""Of batches that are lists, whose order a model cannot mind."""
CALLS = 16
"""A window is so many calls: more would be sorted a little better and seen much later."""
LEAST = 512
"""Or so many records, where calls are small: it is the window that has to be long."""
LONGEST_S = 2.0
WORTH_RECORD_S = 0.0002
"""A quicker record is not worth the sorting."""
_UNEVEN = 1.3
"""The longest record of a window, against the mean, from which on sorting can pay."""


def reach(size: int, record_s: float, longest_s: float) -> int:
    """How many records a window holds, from the size of a call; `size` where a window does not pay."""
    if record_s < WORTH_RECORD_S:
        return size
    return max(size, min(max(CALLS * size, LEAST), int(min(LONGEST_S, longest_s) / record_s)))


def lengths_of(items: Any) -> list[int]:
    """The length of each item, as far as it has one; nothing for what is no list."""
    return [_length(item) for item in items] if isinstance(items, list) else []


def by_length(lengths: list[int]) -> Optional[list[int]]:
    """The order of items by length, longest first; None where they have no lengths or much the same."""
    if not lengths:
        return None
    if max(lengths) * len(lengths) <= _UNEVEN * sum(lengths):
        return None
    return sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True)


def _length(item: Any) -> int:
    if isinstance(item, (str, bytes, list)):
        return len(item)
    if isinstance(item, dict):
        return sum(len(value) for value in item.values() if isinstance(value, (str, bytes, list)))
    return 0


class Sorted:
    """A window of a block in another order, as isolation sees it: item i is `order[i]` items from `first` on."""

    def __init__(self, records: Records, first: int, items: list[Any], lengths: list[int], order: list[int]) -> None:
        self._records = records
        self._first = first
        self._items = items
        self._lengths = lengths
        self._order = order

    def items(self, low: int, high: int) -> list[Any]:
        return [self._items[number] for number in self._order[low:high]]

    def weight(self, low: int, high: int) -> int:
        """The lengths of these items together: what their time is measured against."""
        return sum(self._lengths[number] for number in self._order[low:high])

    def fresh(self, low: int, high: int) -> list[Any]:
        """Made anew one by one: they lie anywhere in the block, and only what failed is asked for."""
        return [
            self._records.fresh(self._first + number, self._first + number + 1)[0] for number in self._order[low:high]
        ]


def restored(parts: Sequence[tuple[Sequence[int], Any]]) -> list[tuple[int, int, Any]]:
    """(first, stop, what was returned) for runs of numbers without a gap, in order.

    parts: of each call the numbers of its items, and what was returned for them (`returned.checked`). Arrays, lists and
    dicts of such are put together again; of any other form each item is a run of its own.
    """
    numbers = [number for part, _ in parts for number in part]
    places = sorted(range(len(numbers)), key=numbers.__getitem__)
    joined = _join([returned for _, returned in parts], places) if parts else None
    if joined is None:
        single = {number: _slice(returned, at, at + 1) for part, returned in parts for at, number in enumerate(part)}
        return [(number, number + 1, single[number]) for number in sorted(single)]
    found = []
    begin = 0
    for at in range(1, len(places) + 1):
        if at == len(places) or numbers[places[at]] != numbers[places[at - 1]] + 1:
            first = numbers[places[begin]]
            whole = (begin, at) == (0, len(places))
            found.append((first, first + at - begin, joined if whole else _slice(joined, begin, at)))
            begin = at
    return found


def _join(returned: list[Any], places: list[int]) -> Any:
    """All of it in one, in the order of `places`; None for forms that are left as they are."""
    first = returned[0]
    if any(type(each) is not type(first) for each in returned):
        return None
    if type(first) is list:
        flat = [value for each in returned for value in each]
        return [flat[place] for place in places]
    if type(first) is dict:
        if any(list(each) != list(first) for each in returned):
            return None
        columns = {name: _join([each[name] for each in returned], places) for name in first}
        return None if any(column is None for column in columns.values()) else columns
    if type(first).__module__ == "numpy" and type(first).__name__ == "ndarray":
        if any(each.dtype != first.dtype or each.shape[1:] != first.shape[1:] for each in returned):
            return None
        import numpy  # the model uses it already

        return numpy.concatenate(returned)[places]
    return None


def _slice(returned: Any, first: int, stop: int) -> Any:
    if type(returned) is dict:
        return {name: _slice(column, first, stop) for name, column in returned.items()}
    rows = getattr(returned, "iloc", returned)  # pandas would take numbers for labels
    return rows[first:stop]
