"""From a folder to splits: the input is listed into an object, and the splits follow from it.

Called by the server's plan loop and by `tidemill run`. May be repeated: it writes the same listing to the same place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan, Since
from tidemill.domain.splits import Layout, PlannedSplit, plan_splits
from tidemill.objects.listing import listing_line, read_listing
from tidemill.planning.check import Checked
from tidemill.planning.cutting import uncut_note, worth_cutting
from tidemill.planning.formats import check_same_kind, kind_of_name
from tidemill.planning.only_new import Sieve
from tidemill.planning.patterns import selector
from tidemill.ports.objects import ObjectInfo, Objects
from tidemill.publishing.claims import check_result_name

if TYPE_CHECKING:
    from tidemill.wire.taskfile import TaskFile

_TICK_OBJECTS = 1000


def make_plan(
    objects: Objects, checked: Checked, task: str, *, processes: int, tick: Callable[[int], None] = lambda _: None
) -> tuple[Plan, list[PlannedSplit]]:
    """The plan of a task's run and its splits. processes: of all its instances, about.

    tick: called every thousand objects with their number so far; may raise, to end it.
    Memory does not grow with the objects, only with the splits (one for up to 250 objects or 16 MiB).
    Raises InvalidValue if the input is empty by now or mixes formats.
    """
    listed = _list(objects, checked, task, tick)
    formats = checked.formats
    splits = list(
        plan_splits(
            read_listing(objects, listed.listing),
            formats.cut,
            formats.layout,
            total_objects=listed.objects,
            total_bytes=listed.bytes,
            processes=processes,
        )
    )
    uncut = sum(each.stop == -1 and worth_cutting(each.bytes, listed.bytes) for each in splits)
    notes = [listed.since.words if listed.since else "", uncut_note(uncut, listed.objects, formats.uncut)]
    plan = Plan(
        listing=listed.listing,
        objects=listed.objects,
        bytes=listed.bytes,
        splits=len(splits),
        units=splits[-1].unit + 1 if splits else 0,
        cut=formats.cut,
        layout=formats.layout,
        listing_sha256=listed.sha256,
        input_type=formats.input.type,
        note="; ".join(filter(None, notes)),
        since=listed.since,
    )
    return plan, splits


@dataclass(frozen=True)
class _Listed:
    """What is to be computed: the listing of it, and its totals."""

    listing: Location
    objects: int
    bytes: int
    sha256: str
    since: Since | None = None


def _list(objects: Objects, checked: Checked, task: str, tick: Callable[[int], None]) -> _Listed:
    """Writes the listing, and where only what is new is computed those of the whole input and of what is gone."""
    writer = _ListingWriter(objects, checked, tick)
    listing = checked.output.child(layout.listing_name(task))
    if checked.since is None:
        objects.put(listing, _joined(writer.lines()))
        writer.check_some()
        return _Listed(listing, writer.objects, writer.bytes, writer.sha256.hexdigest())
    whole, gone = (checked.output.child(name(task)) for name in (layout.whole_listing_name, layout.gone_name))
    with closing(Sieve(objects, checked.since)) as sieve:
        objects.put(whole, _joined(sieve.pass_on(writer.lines())))
        writer.check_some()
        lines, digest = sieve.fresh()
        objects.put(listing, lines)
        objects.put(gone, sieve.gone())
        since = sieve.since(whole, writer.objects, writer.bytes, writer.sha256.hexdigest(), gone)
        return _Listed(listing, sieve.new + sieve.changed, sieve.fresh_bytes, digest, since)


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    while some := list(islice(lines, _TICK_OBJECTS)):
        yield b"".join(some)


def processes_of(task: TaskFile, instances: int, millicores: int) -> int:
    """How many processes will work on a task, about: one for each core, unless the task says it. millicores: of each
    instance.
    """
    return instances * (task.batch.processes or max(1, millicores // 1000))


def listed_inputs(objects: Objects, checked: Checked) -> Iterator[ObjectInfo]:
    """The input's objects as they are now, in byte order of their names.

    Raises InvalidValue at the first one of another format, where the format was told by the names.
    """
    if not checked.input.is_folder:
        found = objects.head(checked.input)
        if found is not None:
            yield found
        return
    takes = selector(checked.include, checked.exclude)
    wanted = checked.formats.by_name
    first: str | None = None
    for info in objects.list(checked.input):
        if not takes(info.name):
            continue
        first = info.name if first is None else first
        if wanted is not None and kind_of_name(info.name) != wanted:
            check_same_kind(first, info.name)
        yield info


class _ListingWriter:
    """Streams the listing and keeps its totals."""

    def __init__(self, objects: Objects, checked: Checked, tick: Callable[[int], None]) -> None:
        self._objects = objects
        self._checked = checked
        self._tick = tick
        self._stems: list[tuple[str, str]] = []
        self.objects = self.bytes = 0
        self.sha256 = hashlib.sha256()

    def lines(self) -> Iterator[bytes]:
        for info in listed_inputs(self._objects, self._checked):
            self._check_result(info.name)
            line = listing_line(info)
            self.sha256.update(line)
            self.objects += 1
            self.bytes += info.size
            yield line
            if self.objects % _TICK_OBJECTS == 0:
                self._tick(self.objects)

    def check_some(self) -> None:
        if not self.objects:
            raise InvalidValue(
                f"there is nothing in {self._checked.input}.", field="input.path", remedy="Put the input there first."
            )

    def _check_result(self, name: str) -> None:
        """Raises InvalidValue where the object's result could not be written, or is that of another one, too."""
        result = self._checked.formats.result
        if self._checked.formats.layout is not Layout.PER_OBJECT:
            return
        check_result_name(layout.result_for_object(name, result.type, result.extension))
        if not result.extension:
            return
        # The names come in order: those that begin like this one, up to its extension, come one after another.
        self._stems = [(stem, other) for stem, other in self._stems if name.startswith(stem)]
        own = layout.result_stem(name)
        known = next((other for stem, other in self._stems if stem == own), None)
        if known is not None:
            raise InvalidValue(
                f"{known!r} and {name!r} would have the same result, {own + result.extension!r}.",
                field="format.result.extension",
                remedy="Leave it out: results are named like a.jpg.out.",
            )
        if own + result.extension in (layout.ERRORS, layout.RECEIPT):
            raise InvalidValue(
                f"the result of {name!r} would be {own + result.extension!r}, which is a name of ours.",
                field="format.result.extension",
                remedy="Leave it out, or rename the input.",
            )
        self._stems.append((own, name))
