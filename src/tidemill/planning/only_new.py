"""What is new in an input since earlier results: `only_new` of a task. Used by `check` and `plan`, and by those who
know the model's digest.

Objects are the same where name, size and etag are. Two sorted listings are walked through at once, in flat memory;
equal lines are not even parsed.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.location import Location
from tidemill.domain.plan import Earlier, Since
from tidemill.domain.splits import Layout
from tidemill.objects.listing import name_order, paired, whole_lines
from tidemill.ports.objects import Objects
from tidemill.publishing.publisher import read_marker

if TYPE_CHECKING:
    from tidemill.planning.formats import Formats
    from tidemill.wire.taskfile import TaskFile

FIELD = "only_new.since"
_MEMORY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024
_RECEIPT_BYTES_MAX = 4 * 1024 * 1024


def find_earlier(objects: Objects, task: TaskFile, folder: Location, output: Location, formats: Formats) -> Earlier:
    """The results that a task counts from. Raises NotFound, InvalidValue or Conflict, saying why they will not do."""
    assert task.only_new is not None
    folder, merged = folder.as_folder(), task.only_new.output == "merged"
    receipt, digest = _receipt(objects, folder)
    try:
        earlier = Earlier(folder, receipt["task"], digest, receipt["input"]["listing_sha256"], merged)
    except (KeyError, TypeError) as error:
        raise _unreadable(folder) from error
    if objects.head(folder.child(layout.INPUTS)) is None:
        raise NotFound(
            f"{folder} has no {layout.INPUTS}: what those results were computed from is not known.",
            field=FIELD,
            remedy="Give results that have it, or compute all.",
        )
    if merged:
        _check_mergeable(receipt, task, folder, output, formats)
    return earlier


def check_same_model(
    objects: Objects, earlier: Earlier | None, *, model_sha256: str | None, code_sha256: str | None
) -> None:
    """Raises Conflict where results would be merged with those of another model or other code."""
    if earlier is None or not earlier.merged:
        return
    receipt, digest = _receipt(objects, earlier.folder)
    if digest != earlier.receipt_sha256:
        raise Conflict(f"{earlier.folder} holds other results by now.", field=FIELD, remedy="Try again.")
    for what, now in (("model", model_sha256), ("code", code_sha256)):
        if receipt.get(f"{what}_sha256") != now:
            raise Conflict(
                f"the results in {earlier.folder} were made with another {what} than this task's; merged, the results "
                "would be of both.",
                field="only_new.output",
                remedy="Use output: delta, or compute all anew (without only_new).",
            )


def made_with(task: TaskFile, formats: Formats) -> dict[str, Any]:
    """What else than model and code results depend on, for the receipt: what has to be the same to be merged."""
    found = {
        "input": vars(formats.input),
        "result": {**vars(formats.result), "layout": formats.layout.value},
        "function": task.function,
        "command": task.command.run if task.command else None,
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=str))
    return plain


def _check_mergeable(
    receipt: dict[str, Any], task: TaskFile, folder: Location, output: Location, formats: Formats
) -> None:
    if formats.layout is not Layout.PER_OBJECT:
        raise InvalidValue(
            f"results in the layout {formats.layout.value} cannot be merged: only where each object has its own can "
            "some of them be taken over.",
            field="only_new.output",
            remedy="Use format.result.layout: per_object, or output: delta.",
        )
    if folder.bucket != output.bucket:
        raise InvalidValue(
            f"{folder} and {output} are not in the same store, so that no result can be taken over.",
            field="only_new.output",
            remedy="Put the output beside the earlier results, or use output: delta.",
        )
    since = receipt.get("since") or {}
    if since.get("output") == "delta" and since.get("unchanged"):
        raise InvalidValue(
            f"{folder} holds a delta: {since['unchanged']:,} objects have their results elsewhere.",
            field=FIELD,
            remedy="Give a folder that holds all results, or use output: delta.",
        )
    before, now = receipt.get("made_with") or {}, made_with(task, formats)
    for key, what in (("input", "format"), ("result", "format.result"), ("function",) * 2, ("command",) * 2):
        if before.get(key) != now[key]:
            raise Conflict(
                f"the results in {folder} were made with another {what} than this task's.",
                field="only_new.output",
                remedy="Use the same, or output: delta, or compute all anew (without only_new).",
            )


def _receipt(objects: Objects, folder: Location) -> tuple[dict[str, Any], str]:
    """The receipt of finished results, and its sha256."""
    marker = read_marker(objects, folder)
    if marker is None or marker.get("task") is None:
        where = "there are no finished results in" if objects.is_folder(folder) else "there is no folder"
        raise NotFound(f"{where} {folder}.", field=FIELD, remedy="Give the output folder of a task that has succeeded.")
    try:
        text = objects.read(folder.child(layout.RECEIPT), 0, _RECEIPT_BYTES_MAX)
        receipt = json.loads(text)
    except (NotFound, ValueError) as error:
        raise _unreadable(folder) from error
    digest = hashlib.sha256(text).hexdigest()
    if not isinstance(receipt, dict) or digest != marker.get("receipt_sha256"):
        raise _unreadable(folder)
    return receipt, digest


def _unreadable(folder: Location) -> InvalidValue:
    return InvalidValue(
        f"{layout.RECEIPT} in {folder} is missing or is not the one that {layout.MARKER} was written with.",
        field=FIELD,
        remedy="`tidemill receipt verify` says what was changed; give results that are whole.",
    )


class Sieve:
    """Lets through the lines of a listing that are new or changed, and counts. To be closed.

    `pass_on` takes all lines in order; then `fresh` and `gone` give those that are to be computed, and those that have
    no object any more.
    """

    def __init__(self, objects: Objects, earlier: Earlier) -> None:
        self._earlier = earlier
        self._before = _Checked(objects, earlier)
        self._fresh, self._gone = (tempfile.SpooledTemporaryFile(_MEMORY_BYTES) for _ in range(2))  # noqa: SIM115
        self._fresh_sha256, self._gone_sha256 = hashlib.sha256(), hashlib.sha256()
        self.new = self.changed = self.unchanged = self.deleted = self.fresh_bytes = 0

    def close(self) -> None:
        self._fresh.close()
        self._gone.close()

    def pass_on(self, lines: Iterable[bytes]) -> Iterator[bytes]:
        """Yields every line as it comes. Raises Conflict where the earlier listing is not what it was."""
        for old, new in paired(self._before.lines(), iter(lines), _order):
            if new is None:
                assert old is not None
                self.deleted += 1
                self._gone.write(old)
                self._gone_sha256.update(old)
                continue
            if old == new:
                self.unchanged += 1
            else:
                self.new, self.changed = self.new + (old is None), self.changed + (old is not None)
                self.fresh_bytes += int(json.loads(new)["size"])
                self._fresh.write(new)
                self._fresh_sha256.update(new)
            yield new

    def fresh(self) -> tuple[Iterator[bytes], str]:
        """Their lines, and the sha256 of these."""
        return _from_start(self._fresh), self._fresh_sha256.hexdigest()

    def gone(self) -> Iterator[bytes]:
        return _from_start(self._gone)

    def since(self, listing: Location, objects: int, size: int, listing_sha256: str, gone: Location) -> Since:
        """size: bytes of all objects."""
        return Since(
            self._earlier,
            listing,
            objects,
            size,
            listing_sha256,
            gone,
            self._gone_sha256.hexdigest(),
            self.new,
            self.changed,
            self.unchanged,
            self.deleted,
        )


class _Checked:
    """The lines of an earlier listing, with a look at the end whether they are what its receipt vouches for."""

    def __init__(self, objects: Objects, earlier: Earlier) -> None:
        self._objects = objects
        self._earlier = earlier

    def lines(self) -> Iterator[bytes]:
        place = self._earlier.folder.child(layout.INPUTS)
        digest = hashlib.sha256()

        def noted(chunks: Iterable[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        yield from whole_lines(noted(self._objects.stream(place)))
        if digest.hexdigest() != self._earlier.listing_sha256:
            raise Conflict(
                f"{place} is not what the receipt beside it vouches for.",
                field=FIELD,
                remedy="Give results that are whole, or compute all anew (without only_new).",
            )


def _order(line: bytes) -> bytes:
    try:
        return name_order(json.loads(line)["name"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Conflict(
            f"{layout.INPUTS} of the earlier results has the line {line[:80]!r}, which is none of ours.",
            field=FIELD,
            remedy="Give results that are whole, or compute all anew (without only_new).",
        ) from error


def _from_start(file: IO[bytes]) -> Iterator[bytes]:
    file.seek(0)
    read: Callable[[], bytes] = lambda: file.read(_CHUNK_BYTES)  # noqa: E731
    return iter(read, b"")
