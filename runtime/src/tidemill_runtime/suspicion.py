"""What is known of records that kill workers: windows of suspects, and records that are condemned.

A worker that crashes, hangs or grows too large leaves on its board which records it was predicting. Whoever takes the
lease next takes them in small steps, until one record is left. The agent keeps the marks (`narrow`, `moved`), the
worker asks `Suspicion`; nothing here imports more than the agent may.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional, TypeVar

from tidemill_runtime.board import Window


class Failure(NamedTuple):
    """Why a record has no prediction; the fields of `contract.ErrorRecord` that say so."""

    fault: str
    type: str
    message: str
    traceback: str
    attempts: int


class Place(NamedTuple):
    """Where a worker is: the block [begin, end) of an object, of which `items` items are committed already.

    Windows and marks count items from there: whoever takes over the lease begins to read at just that place.
    """

    object: int
    begin: int
    end: int
    items: int

    def window(self, first: int, size: int, limit_s: float) -> Window:
        return Window(self.object, self.begin, self.end, first - self.items, size, limit_s)


class Suspect(NamedTuple):
    """Records of which one killed a worker. deaths: of workers, in exactly these. fault: how the last one died."""

    object: int
    begin: int
    end: int
    first: int
    size: int
    deaths: int
    fault: str


class Condemned(NamedTuple):
    """A record that kills each worker; it is not predicted again. size is 1."""

    object: int
    begin: int
    end: int
    first: int
    size: int
    fault: str
    message: str
    attempts: int


Mark = TypeVar("Mark", Suspect, Condemned)

STEPS = 32
"""A window of suspects is taken in so many steps: a death tells which. Two levels find one record of a thousand, at a
death each; halving would take ten.
"""


class Suspicion:
    """What earlier workers died of in this lease; asked by the worker before each mini-batch."""

    def __init__(self, suspects: list[Suspect], condemned: list[Condemned]) -> None:
        self._suspects = suspects
        self._condemned = condemned

    def forced(self) -> dict[int, dict[int, int]]:
        """By object, the blocks that have to be cut as they were: begin → end."""
        blocks: dict[int, dict[int, int]] = {}
        for marks in (self._suspects, self._condemned):
            for mark in marks:
                blocks.setdefault(mark.object, {})[mark.begin] = mark.end
        return blocks

    def move(self, old: Place, new: Place) -> None:
        self._suspects = moved(self._suspects, old, new)
        self._condemned = moved(self._condemned, old, new)

    def verdict(self, place: Place, item: int) -> Optional[Failure]:
        """The failure of an item that is not to be predicted again."""
        for mark in _within(self._condemned, place):
            if mark.first == item - place.items:
                return Failure(mark.fault, "WorkerDied", mark.message, "", mark.attempts)
        return None

    def starts(self, place: Place, item: int) -> bool:
        """Whether a suspected window begins here: what was done before is to be committed first."""
        return any(mark.first == item - place.items for mark in _within(self._suspects, place))

    def knows(self, place: Place) -> bool:
        """Whether anything is known of records of this block."""
        return any(_within(self._suspects, place)) or any(_within(self._condemned, place))

    def stop(self, place: Place, first: int, stop: int) -> int:
        """How far a mini-batch from `first` may go."""
        first, stop = first - place.items, stop - place.items
        for suspect in _within(self._suspects, place):
            last = suspect.first + suspect.size
            if first < suspect.first < stop:
                stop = suspect.first
            elif suspect.first <= first < last:
                stop = min(stop, last, first + -(-suspect.size // STEPS))
        for condemned in _within(self._condemned, place):
            if first < condemned.first < stop:
                stop = condemned.first
        return stop + place.items


def narrow(suspects: list[Suspect], window: Window, fault: str) -> list[Suspect]:
    """The suspects after a worker died in `window`, which comes last and takes the place of those that it lies in."""
    kept = []
    deaths = 1
    for each in suspects:
        if (each.object, each.begin) == (window.object, window.begin):
            if (each.first, each.size) == (window.first, window.size):
                deaths += each.deaths
                continue
            if each.first <= window.first and window.first + window.size <= each.first + each.size:
                continue
        kept.append(each)
    kept.append(Suspect(window.object, window.begin, window.end, window.first, window.size, deaths, fault))
    return kept


def moved(marks: list[Mark], old: Place, new: Place) -> list[Mark]:
    """Marks after a commit in the middle of their block: they count from the new place, those before it are gone."""
    found = []
    passed = new.items - old.items
    for mark in marks:
        if (mark.object, mark.begin) != (old.object, old.begin):
            found.append(mark)
            continue
        first, last = max(mark.first, passed), mark.first + mark.size
        if first < last:
            found.append(mark._replace(object=new.object, begin=new.begin, first=first - passed, size=last - first))
    return found


def _within(marks: list[Mark], place: Place) -> Iterator[Mark]:
    return (mark for mark in marks if (mark.object, mark.begin) == (place.object, place.begin))
