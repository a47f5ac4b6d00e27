"""Everything about a task's data that can be known before it starts. The server's services and `tidemill run` call it.

It lists no further than the first inputs, reads the beginnings of a few of them, and leaves nothing behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotAllowed, Refused, StorageDenied, StorageUnavailable
from tidemill.domain.location import Location, parse_location
from tidemill.domain.plan import Earlier, Plan
from tidemill.domain.receipt import InputAccount
from tidemill.domain.splits import Cut
from tidemill.planning.cutting import SPANS_LINES, spans_lines
from tidemill.planning.formats import PEEK_BYTES, Formats, Sample, resolve
from tidemill.planning.only_new import FIELD as SINCE
from tidemill.planning.only_new import find_earlier
from tidemill.planning.patterns import selector
from tidemill.ports.objects import ObjectInfo, Objects
from tidemill.publishing.claims import check_output

if TYPE_CHECKING:
    from tidemill.wire.taskfile import TaskFile

_FIRST_OBJECTS = 200
_READ_OBJECTS = 3


@dataclass(frozen=True)
class Checked:
    """A task's data, found to be good. input: a folder, or one object. output: a folder. since: the results that it
    counts from, where only what is new is computed.
    """

    input: Location
    output: Location
    formats: Formats
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    since: Earlier | None = None

    @property
    def input_folder(self) -> Location:
        """The folder that the names of the listing lie below."""
        return folder_of(self.input)


def input_account(checked: Checked, plan: Plan) -> InputAccount:
    """The input, for a receipt: the whole of it, also where only what is new is computed."""
    whole = plan.input
    return InputAccount(str(checked.input), whole.objects, whole.bytes, whole.listing_sha256)


def folder_of(place: Location) -> Location:
    """The place itself if it is a folder, else the folder that the object lies in."""
    if place.is_folder:
        return place
    return Location(place.scheme, place.bucket, place.key[: place.key.rfind("/") + 1])


def locate_output(task: TaskFile, *, base: str | None, local_paths: bool) -> Location:
    """The folder for a task's results. Raises InvalidValue or NotAllowed."""
    return _locate(task.output.path, "output.path", base, local_paths).as_folder()


def check_task(
    task: TaskFile, objects: Objects, *, base: str | None, local_paths: bool, owner: str | None = None
) -> Checked:
    """What a task reads and writes, and how. base: the folder that relative paths start from; None refuses them.
    local_paths: whether paths of this machine are allowed at all. owner: the task that may own the output already.

    Raises InvalidValue, NotAllowed, NotFound or OutputTaken naming field, value and remedy; StorageDenied where the
    credential does not do.
    """
    source = _locate(task.input.path, "input.path", base, local_paths)
    target = locate_output(task, base=base, local_paths=local_paths)
    with naming("output.path"):
        objects.is_folder(target)  # a bucket that the region does not know
    with naming("input.path"):
        if objects.is_folder(source) or source.is_folder:
            source = source.as_folder()
    _check_apart(objects, source, target)
    earlier = _locate(task.only_new.since, SINCE, base, local_paths).as_folder() if task.only_new else None
    if earlier is not None:
        with naming(SINCE):
            _check_beside(objects, earlier, target)
    with naming("input.path"):
        first = first_inputs(objects, source, task.input.include, task.input.exclude)
        samples = samples_of(objects, source, first)
    formats = resolve(task.format, samples)
    if formats.cut is Cut.RANGES and formats.input.type == "csv":
        with naming("input.path"):
            if spans_lines(objects, folder_of(source), first, formats.input):
                formats = replace(formats, cut=Cut.WHOLE, uncut=SPANS_LINES)
    if formats.cut is not Cut.FILES and len(first) < _FIRST_OBJECTS and not any(each.size for each in first):
        raise InvalidValue(
            f"{source} holds no data: every object is empty.", field="input.path", remedy="Check the path."
        )
    with naming("output.path"):
        objects.check_writable(target)
        check_output(objects, target, if_exists=task.output.if_exists, task=owner)
    since = None
    if earlier is not None:
        with naming(SINCE):
            since = find_earlier(objects, task, earlier, target, formats)
    return Checked(source, target, formats, tuple(task.input.include), tuple(task.input.exclude), since)


def first_inputs(objects: Objects, source: Location, include: list[str], exclude: list[str]) -> list[ObjectInfo]:
    """The first objects of the input. Raises InvalidValue if there are none, and says what there is instead."""
    if not source.is_folder:
        if include or exclude:
            raise InvalidValue(
                f"{source} is one object, there is nothing to choose from.",
                field="input.include" if include else "input.exclude",
                remedy="Leave it out, or give a folder.",
            )
        found = objects.head(source)
        if found is None:
            raise InvalidValue(f"there is nothing at {source}.", field="input.path", remedy="Check the path.")
        return [found]
    takes = selector(include, exclude)
    seen = inputs = 0
    taken: list[ObjectInfo] = []
    for found in objects.list(source):
        seen += 1
        inputs += layout.is_input(found.name)
        if takes(found.name):
            taken.append(found)
            if len(taken) == _FIRST_OBJECTS:
                break
    if taken:
        return taken
    if inputs:
        field = "input.include" if include else "input.exclude"
        raise InvalidValue(
            f"of {inputs} objects in {source} none is left.",
            field=field,
            remedy="Check the patterns: *.jsonl, 2026/**.",
        )
    if seen:
        raise InvalidValue(
            f"{source} holds nothing but names that begin with `_` or `.`, which are not data.",
            field="input.path",
            remedy="Rename the objects.",
        )
    missing = not objects.is_folder(source)
    raise InvalidValue(
        f"there is no folder {source}." if missing else f"the folder {source} is empty.",
        field="input.path",
        remedy="Check the path." if missing else "Put the input there first.",
    )


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Errors of what a field names are that field's errors, unless they know better."""
    try:
        yield
    except (Refused, StorageDenied) as error:
        if error.field not in (None, "input", "output"):
            raise
        raise type(error)(error.message, field=field, remedy=error.remedy) from error
    except StorageUnavailable as error:
        raise StorageUnavailable(error.message, field=field, remedy="Nothing was started; try again later.") from error


def _locate(text: str, field: str, base: str | None, local_paths: bool) -> Location:
    if base is not None and text.startswith("~/"):
        text = os.path.expanduser(text)  # noqa: PTH111 - a Path would lose the last slash
    location = parse_location(text, field=field, base=base)
    if location.is_local and not local_paths:
        raise NotAllowed(
            f"{text!r} is a path of the server's own machine.", field=field, remedy="Use a bucket: cos://data/…"
        )
    return location


def _check_apart(objects: Objects, source: Location, target: Location) -> None:
    ours, theirs = _place(objects, source), _place(objects, target)
    if ours == theirs:
        inside = "is the input itself"
    elif source.is_folder and ours.contains(theirs):
        inside = f"lies inside the input {source}"
    elif theirs.contains(ours):
        inside = f"has the input {source} inside"
    else:
        return
    raise InvalidValue(f"{target} {inside}.", field="output.path", remedy="Choose a folder beside it.")


def _check_beside(objects: Objects, earlier: Location, target: Location) -> None:
    theirs, ours = _place(objects, earlier), _place(objects, target)
    if theirs.contains(ours) or ours.contains(theirs):
        raise InvalidValue(
            f"{earlier} is or contains the output {target}, or lies inside it.",
            field=SINCE,
            remedy="Choose an output folder beside the earlier results.",
        )


def _place(objects: Objects, location: Location) -> Location:
    """Where a location really is: a path without links where it is a path, be it of a bucket that is a folder."""
    access = objects.grant_read(location, 60.0)
    if access.kind != "path":
        return location
    path = os.path.realpath(access.location)
    return Location("file", None, f"{path.rstrip('/')}/" if location.is_folder else path)


def samples_of(objects: Objects, source: Location, first: list[ObjectInfo]) -> list[Sample]:
    """What formats are resolved by: names of the first inputs, and the beginnings of a few of them."""
    folder = folder_of(source)
    with_bytes = list(islice((each for each in first if each.size), _READ_OBJECTS))
    samples = []
    for each in with_bytes:
        head = objects.read(folder.child(each.name), 0, min(PEEK_BYTES, each.size))
        samples.append(Sample(each.name, head))
    read = {each.name for each in with_bytes}
    return samples + [Sample(each.name, b"") for each in first if each.name not in read]
