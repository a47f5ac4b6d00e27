"""Results of a task that computed only what was new, together with the earlier ones of what has not changed. Used by
`publisher` at the end of a plan with `since.earlier.merged`.

All that is walked through is in order of the input (listings, lists of results, errors), so that memory stays flat.
Results are taken over by the store itself; the digests of the earlier list of results are theirs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, groupby, islice
from typing import Any

from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.errors import NotFound, PartDamaged
from tidemill.domain.location import Location
from tidemill.domain.plan import Since
from tidemill.domain.receipt import canonical
from tidemill.objects.listing import name_order, whole_lines
from tidemill.ports.objects import Objects
from tidemill.publishing.units import Setting, staging_for
from tidemill_runtime.contract import Counts

_WORKERS = 8
_AT_ONCE = 256
_Outcome = tuple[str, dict[str, Any] | None]
"""An object of the input, and the line of its result in `_SUCCESS`. None: it failed, and as a file it has none."""


def result_names(objects: Objects, folder: Location) -> Iterator[str]:
    """Of finished results, which an unfinished run may have taken over; none where they are gone by now."""
    try:
        lines = whole_lines(objects.stream(folder.child(layout.MARKER)))
        next(lines, None)
        yield from (json.loads(line)["name"] for line in lines)
    except NotFound:
        return


class Merging:
    """Writes nothing but the results that are taken over. counts, results, size: of these, once `manifest` is over."""

    def __init__(self, setting: Setting, since: Since) -> None:
        self._setting = setting
        self._since = since
        self._folder = since.earlier.folder
        self._vouched = self._receipt()["results"]
        self.counts = Counts()
        self.results = self.size = 0

    def manifest(self, units: Iterable[Location]) -> Iterator[bytes]:
        """The list of all results, in order of the input; those of unchanged objects are taken over as it passes.

        units: the lists of what was computed. Raises PartDamaged where the earlier results are not what they were.
        """
        computed = self._outcomes(self._setting.plan.listing, chain.from_iterable(map(self._lines, units)))
        header = self._lines(self._folder.child(layout.MARKER))
        next(header, None)
        earlier = self._outcomes(
            self._folder.child(layout.INPUTS), _checked(header, self._vouched["manifest_sha256"], self._folder)
        )
        found = self._all(computed, earlier)
        with ThreadPoolExecutor(_WORKERS, thread_name_prefix="tidemill-merge") as executor:
            while some := list(islice(found, _AT_ONCE)):
                entries = [entry for entry, taken in some if taken and entry is not None]
                list(executor.map(self._take_over, entries))
                reach("finish.merging")
                yield b"".join(canonical(entry) for entry, _ in some if entry is not None)

    def errors(self, units: Iterable[Location]) -> Iterator[bytes]:
        """Lines of errors.jsonl: of what was computed, and of what has not changed. units: the errors of the first."""
        computed = _Groups(chain.from_iterable(map(self._lines, units)))
        place = self._folder.child(layout.ERRORS)
        earlier = _Groups(_checked(self._lines(place), self._vouched["errors_sha256"], place))
        fresh = self._names(self._setting.plan.listing)
        ahead = next(fresh, None)
        for name in self._names(self._since.listing):
            if name == ahead:
                yield from computed.of(name)
                ahead = next(fresh, None)
            else:
                yield from earlier.of(name)
        earlier.drain()

    def _all(
        self, computed: Iterator[_Outcome], earlier: Iterator[_Outcome]
    ) -> Iterator[tuple[dict[str, Any] | None, bool]]:
        """The result of each object of the input, and whether it is taken over."""
        ahead = next(computed, None)
        for name in self._names(self._since.listing):
            if ahead is not None and ahead[0] == name:
                yield ahead[1], False
                ahead = next(computed, None)
                continue
            entry = next((entry for before, entry in earlier if before == name), _MISSING)
            if entry is _MISSING:
                raise PartDamaged(f"{self._folder} has no result of {name!r}.")
            self._count(entry)
            yield entry, True
        for _ in earlier:
            pass  # to the end, where the digest is compared

    def _outcomes(self, listing: Location, lines: Iterator[bytes]) -> Iterator[_Outcome]:
        """Each object of a listing with its result. lines: a list of results in the same order."""
        result = self._setting.result
        entry = _parsed(next(lines, None))
        for name in self._names(listing):
            if entry is not None and entry["name"] == layout.result_for_object(name, result.type, result.extension):
                yield name, entry
                entry = _parsed(next(lines, None))
            elif result.type == "file":
                yield name, None
            else:
                raise PartDamaged(f"the list of results beside {listing} has none of {name!r}.")
        if entry is not None:
            raise PartDamaged(f"{entry['name']!r} is a result of nothing in {listing}.")

    def _count(self, entry: dict[str, Any] | None) -> None:
        if entry is None:
            self.counts += Counts(inputs=1, failed=1)
            return
        self.counts += Counts(**entry["counts"])
        self.results += 1
        self.size += entry["size"]

    def _take_over(self, entry: dict[str, Any]) -> None:
        setting, name = self._setting, entry["name"]
        setting.objects.copy(
            self._folder.child(name),
            setting.output.child(name),
            size=entry["size"],
            sha256=entry["sha256"],
            staging=staging_for(setting.output, setting.task),
            replace=setting.replace,
        )

    def _receipt(self) -> dict[str, Any]:
        try:
            text = self._setting.objects.read(self._folder.child(layout.RECEIPT))
        except NotFound as error:
            raise PartDamaged(f"the earlier results in {self._folder} are gone.") from error
        if hashlib.sha256(text).hexdigest() != self._since.earlier.receipt_sha256:
            raise PartDamaged(f"the earlier results in {self._folder} have been replaced by others.")
        receipt: dict[str, Any] = json.loads(text)
        return receipt

    def _names(self, listing: Location) -> Iterator[str]:
        for line in self._lines(listing):
            yield json.loads(line)["name"]

    def _lines(self, place: Location) -> Iterator[bytes]:
        try:
            yield from whole_lines(self._setting.objects.stream(place))
        except NotFound as error:
            raise PartDamaged(f"{place} is not there.") from error


_MISSING: dict[str, Any] = {}


class _Groups:
    """Lines of errors, object by object; they are asked for in order."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._groups = groupby(lines, lambda line: str(json.loads(line)["object"]))
        self._next()

    def of(self, name: str) -> Iterator[bytes]:
        """Those of one object. What comes before it is passed over: it has changed, or is gone."""
        wanted = name_order(name)
        while self._head is not None and name_order(self._head[0]) < wanted:
            self._next()
        if self._head is not None and self._head[0] == name:
            yield from self._head[1]
            self._next()

    def drain(self) -> None:
        """To the end, where a digest is compared."""
        while self._head is not None:
            self._next()

    def _next(self) -> None:
        self._head = next(self._groups, None)


def _parsed(line: bytes | None) -> dict[str, Any] | None:
    return None if line is None else json.loads(line)


def _checked(lines: Iterator[bytes], sha256: str, place: Location) -> Iterator[bytes]:
    """The lines as they are. Raises PartDamaged at their end if they are not those of the digest."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line)
        yield line
    if digest.hexdigest() != sha256:
        raise PartDamaged(f"{place} was changed since: it is not what its receipt vouches for.")
