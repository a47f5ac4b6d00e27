"""Committed parts as what they hold: data by object, and errors with their place in the whole object. Used by `units`.

A part is data, then errors, then an index of its objects (only where its split has several and records of lines). Sizes
and accounts in a part come from an instance; they are checked against the commit before anything is built on them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tidemill.domain.errors import NotFound, PartDamaged
from tidemill.domain.location import Location
from tidemill.domain.splits import PlannedSplit
from tidemill.ports.journal import CommittedPart
from tidemill.ports.objects import Objects, Piece
from tidemill_runtime.contract import Counts, Cursor


@dataclass(frozen=True)
class Share:
    """What a part holds of one object. ordinal: in the listing. index: within the split. [start, stop): of the data.

    before: records of the same object that earlier parts hold.
    """

    ordinal: int
    index: int
    start: int
    stop: int
    counts: Counts
    before: int


@dataclass(frozen=True)
class PlacedPart:
    """A part with its split, and its shares in order (none where they are not known and not needed)."""

    split: PlannedSplit
    part: CommittedPart
    shares: tuple[Share, ...]

    @property
    def size(self) -> int:
        return self.part.data_bytes + self.part.errors_bytes + self.part.index_bytes


@dataclass(frozen=True)
class Source:
    """Frames of one result, one after another in a part. read: their bytes, from the beginning at each call.

    rows: how many they have together. part: its name, for messages.
    """

    read: Callable[[], Iterator[bytes]]
    rows: int
    part: str


class Parts:
    """The parts of one task. folder: where they are staged."""

    def __init__(self, objects: Objects, folder: Location) -> None:
        self._objects = objects
        self._folder = folder

    def location(self, part: CommittedPart) -> Location:
        return self._folder.child(part.name)

    def placed(
        self, splits: Iterable[PlannedSplit], parts: Iterable[CommittedPart], *, shares: bool
    ) -> Iterator[PlacedPart]:
        """Every part of a unit in order. shares: whether those of parts with several objects are needed (a read each).

        Raises PartDamaged if parts are missing or out of order, or an index is not that of its commit.
        """
        ordinal, before = -1, 0
        for split, part in _paired(splits, parts):
            if split.objects == 1:
                found = [(0, part.data_bytes, part.counts)]
            else:
                found = list(self._segments(split, part)) if shares and part.index_bytes else []
            made = []
            start = 0
            for index, data_bytes, counts in found:
                if split.first_object + index != ordinal:
                    ordinal, before = split.first_object + index, 0
                made.append(Share(ordinal, index, start, start + data_bytes, counts, before))
                start += data_bytes
                before += counts.inputs
            yield PlacedPart(split, part, tuple(made))

    def data(self, placed: PlacedPart) -> Piece:
        """All data of a part, to be composed; the part is checked on the way."""
        return Piece(
            self.location(placed.part), 0, placed.part.data_bytes, sha256=placed.part.sha256, checked_stop=placed.size
        )

    def load(self, placed: PlacedPart) -> bytes:
        """The whole part, checked. For parts that fit into memory."""
        location = self.location(placed.part)
        if not placed.size:
            return b""
        try:
            whole = self._objects.read(location)
        except NotFound as error:
            raise PartDamaged(f"{location} is not there.") from error
        if len(whole) != placed.size or hashlib.sha256(whole).hexdigest() != placed.part.sha256:
            raise PartDamaged(f"{location} is not what was written: its size or sha256 differs.")
        return whole

    def check(self, placed: PlacedPart) -> None:
        """Reads the whole part for its digest alone. Raises PartDamaged."""
        location = self.location(placed.part)
        digest = hashlib.sha256()
        try:
            for chunk in self._objects.stream(location):
                digest.update(chunk)
        except NotFound as error:
            raise PartDamaged(f"{location} is not there.") from error
        if digest.hexdigest() != placed.part.sha256:
            raise PartDamaged(f"{location} is not what was written: its sha256 differs.")

    def errors(self, part: CommittedPart) -> Iterator[dict[str, Any]]:
        """The error records of a part, as the instance wrote them. Raises PartDamaged."""
        if not part.errors_bytes:
            return
        yield from self._lines(part, part.data_bytes, part.data_bytes + part.errors_bytes)

    def _segments(self, split: PlannedSplit, part: CommittedPart) -> Iterator[tuple[int, int, Counts]]:
        stop = part.data_bytes + part.errors_bytes + part.index_bytes
        total, data_bytes, last = Counts(), 0, -1
        for line in self._lines(part, stop - part.index_bytes, stop):
            try:
                index, size, counts = int(line["object"]), int(line["data_bytes"]), Counts(**line["counts"])
            except (KeyError, TypeError, ValueError) as error:
                raise self._damaged(part, "its index cannot be read") from error
            if not last < index < split.objects or size < 0 or min(vars(counts).values()) < 0:
                raise self._damaged(part, "its index names objects that are not there, or out of order")
            total, data_bytes, last = total + counts, data_bytes + size, index
            yield index, size, counts
        if total != part.counts or data_bytes != part.data_bytes:
            raise self._damaged(part, "its index does not add up to its account")

    def _lines(self, part: CommittedPart, start: int, stop: int) -> Iterator[dict[str, Any]]:
        rest = b""
        try:
            for chunk in self._objects.stream(self.location(part), start, stop):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    values = json.loads(line)
                    if not isinstance(values, dict):
                        raise self._damaged(part, "a line of it is no record")
                    yield values
        except NotFound as error:
            raise PartDamaged(f"{self.location(part)} is not there.") from error
        except ValueError as error:
            raise self._damaged(part, "a line of it cannot be read") from error
        if rest:
            raise self._damaged(part, "it ends in the middle of a line")

    def _damaged(self, part: CommittedPart, why: str) -> PartDamaged:
        return PartDamaged(f"{self.location(part)} is not what it should be: {why}.")


def _paired(
    splits: Iterable[PlannedSplit], parts: Iterable[CommittedPart]
) -> Iterator[tuple[PlannedSplit, CommittedPart]]:
    """Each part with its split. Every split has parts, and each begins where the one before it ended."""
    following = iter(parts)
    part = next(following, None)
    for split in splits:
        if part is None or part.split != split.no:
            raise PartDamaged(f"split {split.no} has no committed part.")
        end = Cursor()
        while part is not None and part.split == split.no:
            if part.begin != end:
                raise PartDamaged(f"the parts of split {split.no} do not join at {end}.")
            end = part.end
            yield split, part
            part = next(following, None)
    if part is not None:
        raise PartDamaged(f"part {part.name} belongs to no split of its unit.")
