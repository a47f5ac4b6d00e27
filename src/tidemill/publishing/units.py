"""One unit of a plan: its committed parts become its results, its errors and its manifest. Used by `publisher`.

What a unit is depends on the layout: one pack of small objects (a result for each), all ranges of a large object (one
result), the files of one numbered part, or everything.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.errors import Conflict, OutputTaken, PartDamaged
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.receipt import canonical
from tidemill.domain.splits import Cut, Layout, ListedObject, PlannedSplit
from tidemill.objects.listing import read_listing
from tidemill.ports.journal import CommittedPart, PublishedUnit
from tidemill.ports.objects import Composed, Objects, Piece
from tidemill.publishing.parts import Parts, PlacedPart, Share, Source
from tidemill_runtime.contract import Counts, ResultFormat

LOADED_BYTES_MAX = 64 * 1024 * 1024
"""A pack whose parts are together larger is read range by range instead of once."""


@dataclass(frozen=True)
class Setting:
    """What every unit of a task shares. replace: whether others' objects may go."""

    objects: Objects
    plan: Plan
    output: Location
    task: str
    result: ResultFormat
    replace: bool


@dataclass(frozen=True)
class _Result:
    """One object to be. sources: where it is a table, the frames that are yet to become its only piece."""

    name: str
    pieces: list[bytes | Piece]
    sources: list[Source] | None
    counts: Counts


class Unit:
    """One unit whose splits are all committed. `publish` may be repeated, also after a kill at any point of it."""

    def __init__(
        self, setting: Setting, number: int, splits: Iterable[PlannedSplit], parts: Iterable[CommittedPart]
    ) -> None:
        self._setting = setting
        self._number = number
        self._splits = list(splits)
        self._committed = list(parts)
        self._counts = sum((part.counts for part in self._committed), Counts())
        self._parts = Parts(setting.objects, setting.output.child(layout.parts_folder(setting.task)))

    def publish(self, executor: Executor) -> PublishedUnit:
        """Raises PartDamaged, OutputTaken, and what the storage raises."""
        reach("publish.assembling")
        if self._setting.result.type == "file":
            results = self._files()
        else:
            results = self._pack() if self._is_pack else [self._whole()]
        lines: list[bytes] = []
        size = 0
        for result, made in zip(results, executor.map(self._compose, results), strict=True):
            size += made.size
            values = {"name": result.name, "size": made.size, "sha256": made.sha256, "counts": vars(result.counts)}
            lines.append(canonical(values))
        if self._counts.failed:
            self._put(layout.unit_errors, self.errors())
        self._put(layout.unit_manifest, (b"".join(lines),))
        reach("publish.assembled")
        return PublishedUnit(self._number, len(results), size, self._counts)

    def errors(self) -> Iterator[bytes]:
        """The unit's lines of errors.jsonl, in order. Raises PartDamaged if they are not as many as failed."""
        seen = 0
        for placed in self._placed(shares=True):
            for line in self._errors_of(placed, {share.index: share.before for share in placed.shares}):
                seen += 1
                yield line
        if seen != self._counts.failed:
            raise PartDamaged(f"unit {self._number}: {self._counts.failed} records failed, {seen} are described.")

    def errors_so_far(self) -> Iterator[bytes]:
        """The same of a unit that is not done: for a look at a run at work, or one that ended early.

        The place of a record is null as long as records before it in the same object are missing.
        """
        committed = {no: list(found) for no, found in groupby(self._committed, key=lambda part: part.split)}
        ordinal, ahead = -1, 0
        known = True
        for split in self._splits:
            if split.first_object != ordinal:
                ordinal, ahead, known = split.first_object, 0, True
            own = committed.get(split.no, [])
            for placed in self._parts.placed([split], own, shares=True) if own else ():
                before = {share.index: ahead + share.before if known else None for share in placed.shares}
                yield from self._errors_of(placed, before)
            known = known and bool(own) and own[-1].end.object == split.objects
            ahead += sum(part.counts.inputs for part in own)

    @property
    def _is_pack(self) -> bool:
        """Whether the unit is several objects with a result each."""
        return self._setting.plan.layout is Layout.PER_OBJECT and self._splits[0].objects > 1

    @property
    def _of_tables(self) -> bool:
        """Whether results are put together of frames (`assembling`) and not simply of bytes."""
        return self._setting.result.type in ("csv", "parquet")

    @property
    def _place_key(self) -> str | None:
        if self._setting.plan.cut is Cut.FILES:
            return None
        return "row" if self._setting.plan.input_type in ("csv", "parquet") else "line"

    def _errors_of(self, placed: PlacedPart, before: Mapping[int, int | None]) -> Iterator[bytes]:
        if not placed.part.errors_bytes:
            return
        names = _names(self._setting, placed.split)
        for record in self._parts.errors(placed.part):
            yield canonical(_public(record, names, before, self._place_key, placed.part.name))

    def _placed(self, *, shares: bool) -> Iterator[PlacedPart]:
        return self._parts.placed(self._splits, self._committed, shares=shares)

    def _whole(self) -> _Result:
        """All data of the unit as one result."""
        setting = self._setting
        if setting.plan.layout is Layout.SINGLE:
            name = layout.result_single(setting.result.type)
        elif setting.plan.layout is Layout.PARTS:
            name = layout.result_for_part(self._number, setting.result.type)
        else:
            name = self._name_for(_names(setting, self._splits[0])[0])
        filled = [placed for placed in self._placed(shares=False) if placed.size]
        if self._of_tables:
            in_memory = _are_small(filled)
            sources = [self._source(placed, self._loaded(placed, in_memory)) for placed in filled]
            return _Result(name, [], sources, self._counts)
        return _Result(name, [self._parts.data(placed) for placed in filled], None, self._counts)

    def _pack(self) -> list[_Result]:
        """A result for each object of the pack, also for those without a record."""
        names = _names(self._setting, self._splits[0])
        pieces: list[list[bytes | Piece]] = [[] for _ in names]
        sources: list[list[Source]] = [[] for _ in names]
        counts = [Counts()] * len(names)
        placed = list(self._placed(shares=True))
        in_memory = _are_small(placed)
        for each in placed:
            loaded = self._loaded(each, in_memory)
            for share in each.shares:
                counts[share.index] += share.counts
                if share.start == share.stop:
                    continue
                if self._of_tables:
                    sources[share.index].append(self._source(each, loaded, share))
                else:
                    pieces[share.index].append(self._piece(each, loaded, share.start, share.stop))
        if sum(counts, Counts()) != self._counts:
            raise PartDamaged(f"unit {self._number}: its parts' indexes do not add up to what was committed.")
        return [
            _Result(self._name_for(name), own, frames if self._of_tables else None, account)
            for name, own, frames, account in zip(names, pieces, sources, counts, strict=True)
        ]

    def _files(self) -> list[_Result]:
        """A result for each object whose prediction there is: what the model returned for it."""
        from tidemill.publishing import assembling  # as in `_compose`

        results = []
        for placed in self._placed(shares=False):
            if not placed.size:
                continue
            loaded = self._loaded(placed, in_memory=placed.size <= LOADED_BYTES_MAX)
            names = _names(self._setting, placed.split)[placed.part.begin.object : placed.part.end.object]
            found = list(assembling.files_in(self._source(placed, loaded)))
            if len(found) != len(names):
                raise PartDamaged(f"part {placed.part.name} tells of {len(found)} objects, and is of {len(names)}.")
            for name, place in zip(names, found, strict=True):
                if place is None:
                    continue
                start, stop = place
                pieces = [self._piece(placed, loaded, start, stop)] if start < stop else []
                results.append(_Result(self._name_for(name), pieces, None, Counts(1, 1)))
        return results

    def _name_for(self, name: str) -> str:
        return layout.result_for_object(name, self._setting.result.type, self._setting.result.extension)

    def _loaded(self, placed: PlacedPart, in_memory: bool) -> bytes | None:
        """A part that was checked: its bytes, or None where it is to be read in ranges."""
        if in_memory:
            return self._parts.load(placed)
        if placed.size:
            self._parts.check(placed)
        return None

    def _piece(self, placed: PlacedPart, loaded: bytes | None, start: int, stop: int) -> bytes | Piece:
        return Piece(self._parts.location(placed.part), start, stop) if loaded is None else loaded[start:stop]

    def _source(self, placed: PlacedPart, loaded: bytes | None, share: Share | None = None) -> Source:
        """Frames of a part: all of them, or a share."""
        start, stop = (share.start, share.stop) if share else (0, placed.part.data_bytes)
        counts = share.counts if share else placed.part.counts
        files = self._setting.result.type == "file"
        rows = counts.ok if files else counts.ok + counts.failed
        if loaded is not None:
            data = loaded[start:stop]
            return Source(lambda: iter((data,)), rows, placed.part.name)
        location, objects = self._parts.location(placed.part), self._setting.objects
        return Source(lambda: objects.stream(location, start, stop), rows, placed.part.name)

    def _compose(self, result: _Result) -> Composed:
        setting = self._setting
        target = setting.output.child(result.name)
        staging = staging_for(setting.output, setting.task)
        if result.sources is None:
            made = composed(setting.objects, target, result.pieces, staging=staging, replace=setting.replace)
        else:
            from tidemill.publishing import assembling  # its libraries take longer to load than a start may take

            spool = staging_for(setting.output, setting.task)
            with assembling.spooled(setting.objects, spool, setting.result.type, result.sources) as pieces:
                made = composed(setting.objects, target, pieces, staging=staging, replace=setting.replace)
        reach("publish.result")
        return made

    def _put(self, name: Callable[[str, int], str], lines: Iterable[bytes]) -> None:
        self._setting.objects.put(self._setting.output.child(name(self._setting.task, self._number)), lines)


def _are_small(placed: Iterable[PlacedPart]) -> bool:
    """Whether all of these parts together may be in memory."""
    return sum(each.size for each in placed) <= LOADED_BYTES_MAX


def staging_for(output: Location, task: str) -> Location:
    """A free name for what has to lie somewhere while an object is composed. A second publisher has another."""
    return output.child(f"{layout.task_folder(task)}tmp/{secrets.token_hex(8)}")


def composed(
    objects: Objects, target: Location, pieces: list[bytes | Piece], *, staging: Location, replace: bool
) -> Composed:
    """`Objects.compose`, with OutputTaken for another's object in the way."""
    try:
        return objects.compose(target, pieces, staging=staging, replace=replace)
    except Conflict as error:
        raise OutputTaken(error.message, field="output", remedy="Move it away, then resume the task.") from error


def _names(setting: Setting, split: PlannedSplit) -> list[str]:
    """Names of the split's objects."""
    listed: Iterator[ListedObject] = read_listing(
        setting.objects, setting.plan.listing, split.listing_start, split.listing_stop, first_ordinal=split.first_object
    )
    names = [each.name for each in listed]
    if len(names) != split.objects:
        raise PartDamaged(f"the listing has {len(names)} objects for split {split.no}, not {split.objects}.")
    return names


def _public(
    record: dict[str, Any], names: list[str], before: Mapping[int, int | None], place_key: str | None, part: str
) -> dict[str, Any]:
    """A line of errors.jsonl: a part's record with the object's name and the place in the whole object, from 1."""
    index, position = record.get("object"), record.get("position")
    if not isinstance(index, int) or not isinstance(position, int) or not 0 <= index < len(names) or position < 0:
        raise PartDamaged(f"part {part}: an error names an object or a place that is not there.")
    public: dict[str, Any] = {"object": names[index]}
    if place_key is not None:
        if index not in before:
            raise PartDamaged(f"part {part}: an error names an object that the part has no record of.")
        start = before[index]
        public[place_key] = None if start is None else start + position + 1
    for key in ("fault", "type", "message", "traceback", "attempts", "input", "fingerprint"):
        public[key] = record.get(key)
    for key in ("input_truncated", "input_base64"):
        if record.get(key):
            public[key] = True
    return public
