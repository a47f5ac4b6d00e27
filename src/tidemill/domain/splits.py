"""Splits: planned once from a listing, leased, committed. Pure; both journals (database and file) decide by it.

How far splits shrink depends on how many processes are to work on them; results never depend on where splits begin and
end, so that any number of instances produces the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from tidemill_runtime.contract import Commit, Cursor, Held

SPLIT_BYTES_MAX = 16 * 1024 * 1024
"""Small objects are grouped up to this; larger ones are cut into ranges of about this (8 to 32 MB measured best)."""
SPLIT_BYTES_MIN = 64
"""No split is planned smaller than this: a few short records."""
GROUP_BYTES_MIN = 16 * 1024
GROUP_SHARE = 64
"""Where ranges take row groups, no split is smaller than this many bytes, nor than this part of the input (up to
LAST_BYTES_MAX): most row groups are larger, and each split reads the object's footer."""
LAST_BYTES_MAX = 1024 * 1024
"""However large an input is, its last splits are not larger than this."""
GROUP_FILES = 250
"""At most so many objects in a split (performance.md: about 250 small files a split)."""
SPLITS_EACH = 4
"""Of what is left when a split is leased, it is at most this part of each process's share: so they end together, and a
mini-batch is not made small by the split that it is of."""
LAST_SHARE = 2048
"""The last splits are about this part of the input: smaller ones would cost more than they save (about 0.6 ms each)."""
SPLITS_MAX = 65_536
"""Splits, and packs of small objects, grow where there would be more than about so many: all of them are held in memory
and in rows of a database."""
PART_FILES = 4000
"""Files that are records: so many in each numbered result part but the last."""


@dataclass(frozen=True)
class ListedObject:
    """One line of the listing. name is the path below the input folder; position: its line's byte range there."""

    ordinal: int
    name: str
    size: int
    etag: str
    listing_start: int
    listing_stop: int


@dataclass(frozen=True)
class PlannedSplit:
    """One split of a plan. unit: the group of splits that are published together (see `publishing`)."""

    no: int
    unit: int
    first_object: int
    objects: int
    start: int
    stop: int
    listing_start: int
    listing_stop: int
    bytes: int


class Cut(StrEnum):
    """How the objects of a format may be divided."""

    RANGES = "ranges"  # lines: a large object is cut by bytes
    GROUPS = "groups"  # row groups of Parquet: the same, but large groups are never cut
    WHOLE = "whole"  # compressed, or CSV with line breaks inside quotes: one object is never cut
    FILES = "files"  # each object is one record


class Layout(StrEnum):
    """Which result objects there are."""

    PER_OBJECT = "per_object"
    PARTS = "parts"
    SINGLE = "single"


def plan_splits(
    listing: Iterable[ListedObject], cut: Cut, layout: Layout, *, total_objects: int, total_bytes: int, processes: int
) -> Iterator[PlannedSplit]:
    """The splits of a listing, in its order. The totals are the listing's. processes: of all instances, about.

    Splits are leased in their order, and they shrink towards the end: each is a part of what is left, so that no
    process works long on its last one while others have nothing left to do.
    """
    size = _Size(cut, total_objects, total_bytes, processes)
    in_parts = layout is Layout.PARTS
    no = unit = unit_files = 0
    group: list[ListedObject] = []
    group_bytes = 0

    def closed() -> PlannedSplit:
        return PlannedSplit(
            no, unit, group[0].ordinal, len(group), 0, -1, group[0].listing_start, group[-1].listing_stop, group_bytes
        )

    for listed in listing:
        large = cut in _DIVISIBLE and listed.size > size.bytes
        full = len(group) >= size.files or (in_parts and unit_files + len(group) == PART_FILES)
        if group and (large or full or group_bytes + listed.size > size.bytes):
            yield closed()
            size.took(len(group), group_bytes)
            unit_files += len(group)
            no += 1
            if layout is Layout.PER_OBJECT or (in_parts and unit_files == PART_FILES):
                unit, unit_files = unit + 1, 0
            group, group_bytes = [], 0
            large = cut in _DIVISIBLE and listed.size > size.bytes
        if not large:
            group.append(listed)
            group_bytes += listed.size
            continue
        start = 0
        while start < listed.size:
            left = listed.size - start
            stop = start + -(-left // -(-left // size.bytes))  # the pieces of an object's end are of one size
            yield PlannedSplit(
                no, unit, listed.ordinal, 1, start, stop, listed.listing_start, listed.listing_stop, stop - start
            )
            size.took(0, stop - start)
            start, no = stop, no + 1
        size.took(1, 0)
        if layout is not Layout.SINGLE:
            unit, unit_files = unit + 1, 0
    if group:
        yield closed()


_DIVISIBLE = (Cut.RANGES, Cut.GROUPS)


class _Size:
    """How large the next split may be, by what is left of the input."""

    def __init__(self, cut: Cut, total_objects: int, total_bytes: int, processes: int) -> None:
        self._shares = SPLITS_EACH * max(1, processes)
        self._of_files = cut is Cut.FILES
        self._files_left, self._bytes_left = total_objects, total_bytes
        self._bytes_max = max(SPLIT_BYTES_MAX, total_bytes // SPLITS_MAX)
        least, share = (GROUP_BYTES_MIN, GROUP_SHARE) if cut is Cut.GROUPS else (SPLIT_BYTES_MIN, LAST_SHARE)
        self._bytes_min = max(least, min(LAST_BYTES_MAX, total_bytes // share))
        self._files_max = max(GROUP_FILES, total_objects // SPLITS_MAX)
        self._files_min = max(1, min(self._files_max, total_objects // LAST_SHARE))
        self.took(0, 0)

    def took(self, files: int, size: int) -> None:
        self._files_left -= files
        self._bytes_left -= size
        self.bytes = max(self._bytes_min, min(self._bytes_max, self._bytes_left // self._shares))
        self.files = self._files_max
        if self._of_files:
            self.files = max(self._files_min, min(self._files_max, self._files_left // self._shares))


class SplitStatus(StrEnum):
    OPEN = "open"
    LEASED = "leased"
    DONE = "done"


@dataclass(frozen=True)
class SplitState:
    """What changes about a split. fence: raised by each lease; part: the name that this lease may write."""

    no: int
    status: SplitStatus = SplitStatus.OPEN
    fence: int = 0
    instance: str | None = None
    lease_until: float = 0.0
    cursor: Cursor = Cursor()
    part: str | None = None


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    REPEATED = "repeated"  # this very commit was accepted before: its answer was lost
    REFUSED = "refused"  # another lease owns the split by now


def may_lease(split: SplitState, now: float) -> bool:
    """An open split, or one whose lease has expired. now in seconds, by the clock that wrote lease_until."""
    return split.status is SplitStatus.OPEN or (split.status is SplitStatus.LEASED and split.lease_until <= now)


def lease(split: SplitState, instance: str, part: str, now: float, ttl_s: float) -> SplitState:
    """The split, leased to `instance` under a new fence. The caller has asked `may_lease`."""
    return replace(
        split,
        status=SplitStatus.LEASED,
        fence=split.fence + 1,
        instance=instance,
        lease_until=now + ttl_s,
        part=part,
    )


def renew(split: SplitState, held: Held, now: float, ttl_s: float) -> SplitState | None:
    """The split with a later expiry, or None if the lease is no longer the newest.

    An expired lease that nobody took over is still good: only a takeover ends it.
    """
    if split.status is not SplitStatus.LEASED or split.fence != held.fence:
        return None
    return replace(split, lease_until=now + ttl_s)


def judge(split: SplitState, commit: Commit, known_parts: frozenset[str] | set[str] = frozenset()) -> Verdict:
    """Whether a commit counts. known_parts: names of the parts that are committed for this split already."""
    if commit.part in known_parts:
        return Verdict.REPEATED
    owned = split.status is SplitStatus.LEASED and split.fence == commit.fence and split.part == commit.part
    forward = commit.begin == split.cursor and (commit.end > commit.begin or commit.done)
    return Verdict.ACCEPTED if owned and forward else Verdict.REFUSED


def accept(split: SplitState, commit: Commit) -> SplitState:
    """The split after an accepted commit: done, or open again at the commit's end for the rest."""
    status = SplitStatus.DONE if commit.done else SplitStatus.OPEN
    return replace(split, status=status, cursor=commit.end, instance=None, part=None, lease_until=0.0)


def release(split: SplitState) -> SplitState:
    """The split of an instance that is gone: open at its cursor. What was computed and not committed is lost."""
    return replace(split, status=SplitStatus.OPEN, instance=None, part=None, lease_until=0.0)
