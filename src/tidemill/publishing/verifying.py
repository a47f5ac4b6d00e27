"""Whether an output folder still is what its receipt says, down to the last byte; and the input what it was.

Everything hangs on the receipt: its signature covers the digests of the list of results (the lines of `_SUCCESS`), of
errors.jsonl and of the listing of the inputs; the list of results has the digest of each. Used by the CLI and by
`tidemill.verify`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound, TidemillError
from tidemill.domain.location import Location, parse_location
from tidemill.domain.receipt import RECEIPT_VERSION, canonical
from tidemill.objects.listing import read_listing
from tidemill.ports.objects import Objects
from tidemill.publishing.publisher import Finished, marker_header
from tidemill.publishing.signing import signature_fault
from tidemill_runtime.contract import Counts

_WORKERS = 8
_RECEIPT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Difference:
    """name: of the object in the output folder, or `input: NAME` for one of the input. what: how it differs."""

    name: str
    what: str


@dataclass(frozen=True)
class Verified:
    """What was found. differences: none if all is as the receipt says. holder, key: whose signature it is ("server",
    "laptop"), and the name of the key. objects, bytes: results that were read. input_checked: whether the input could
    be listed; its bytes are not read, its etags and sizes are compared.
    """

    differences: tuple[Difference, ...]
    task: str
    holder: str
    key: str
    objects: int
    bytes: int
    input_checked: bool

    @property
    def good(self) -> bool:
        return not self.differences


def verify(
    objects: Objects,
    folder: Location,
    *,
    trusted: str | None = None,
    check_input: bool = True,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Checks an output folder. trusted: the public key, or its id, that must have signed; None takes the receipt's own.

    progress: called with the number of results read so far. Raises NotFound where there is no receipt, InvalidValue
    where it is none of ours.
    """
    return _Verification(objects, folder.as_folder(), progress).run(trusted, check_input)


class _Verification:
    def __init__(self, objects: Objects, folder: Location, progress: Callable[[int], None]) -> None:
        self._objects = objects
        self._folder = folder
        self._progress = progress
        self._found: list[Difference] = []
        self._objects_read = self._bytes_read = 0

    def run(self, trusted: str | None, check_input: bool) -> Verified:
        text, receipt = self._receipt()
        fault = signature_fault(receipt, trusted)
        if fault is None and text != canonical(receipt):
            fault = "it says what was signed, but is written otherwise"
        if fault is not None:  # nothing that it says can be relied upon
            self._differs(layout.RECEIPT, fault)
            return self._verified(receipt, input_checked=False)
        self._check_digest(layout.ERRORS, receipt["results"]["errors_sha256"])
        self._check_digest(layout.INPUTS, receipt["input"]["listing_sha256"])
        if receipt.get("since"):
            self._check_digest(layout.DELETED, receipt["since"]["deleted_sha256"])
        self._check_results(text, receipt)
        return self._verified(receipt, input_checked=check_input and self._check_input(receipt["input"]["path"]))

    def _verified(self, receipt: dict[str, Any], *, input_checked: bool) -> Verified:
        signature = receipt.get("signature")
        named = signature if isinstance(signature, dict) else {}
        return Verified(
            tuple(self._found),
            str(receipt.get("task")),
            str(named.get("holder", "nobody")),
            str(named.get("key", "")),
            self._objects_read,
            self._bytes_read,
            input_checked,
        )

    def _receipt(self) -> tuple[bytes, dict[str, Any]]:
        place = self._folder.child(layout.RECEIPT)
        info = self._objects.head(place)
        if info is None:
            raise NotFound(
                f"there is no {layout.RECEIPT} in {self._folder}.",
                field="folder",
                remedy="Give the output folder of a task that has succeeded.",
            )
        text = self._objects.read(place, 0, min(info.size, _RECEIPT_BYTES_MAX))
        try:
            receipt = json.loads(text)
            if receipt["version"] != RECEIPT_VERSION:
                raise InvalidValue(
                    f"{place} is of version {receipt['version']}, this release reads {RECEIPT_VERSION}.",
                    field="folder",
                    remedy="Use the release that wrote it, or a newer one.",
                )
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f"{place} is no receipt: {error!r}.", field="folder") from error
        return text, receipt

    def _check_results(self, text: bytes, receipt: dict[str, Any]) -> None:
        """The marker, which lists the results, and each of them; what is there beside them."""
        try:
            marker = self._objects.read(self._folder.child(layout.MARKER))
        except NotFound:
            self._differs(layout.MARKER, "it is missing")
            return
        header, _, manifest = marker.partition(b"\n")
        digest = hashlib.sha256(manifest).hexdigest()
        if digest != receipt["results"]["manifest_sha256"]:
            self._differs(layout.MARKER, "its list of results is not the one that the receipt vouches for")
            return
        counts, results = Counts(**receipt["counts"]), receipt["results"]
        account = Finished(results["objects"], results["bytes"], counts, hashlib.sha256(text).hexdigest(), digest)
        if header + b"\n" != marker_header(receipt["task"], receipt["run"], account):
            self._differs(layout.MARKER, "its first line does not fit the receipt")
        listed = [json.loads(line) for line in manifest.splitlines()]
        told = sum((Counts(**each["counts"]) for each in listed), Counts())
        no_files = Counts(inputs=counts.failed, failed=counts.failed)  # a failed record leaves none
        if counts not in (told, told + no_files):
            self._differs(layout.RECEIPT, "its account is not the sum of the results' accounts")
        with ThreadPoolExecutor(_WORKERS) as executor:
            for difference in executor.map(self._result, listed):
                self._objects_read += 1
                self._progress(self._objects_read)
                if difference is not None:
                    self._found.append(difference)
        self._bytes_read = sum(each["size"] for each in listed)
        beside = {layout.DELETED} if receipt.get("since") else set()
        self._check_others({each["name"] for each in listed} | beside)

    def _result(self, listed: dict[str, Any]) -> Difference | None:
        name, info = listed["name"], self._objects.head(self._folder.child(listed["name"]))
        if info is None:
            return Difference(name, "it is missing")
        if info.size != listed["size"]:
            return Difference(name, f"it has {info.size} bytes, not {listed['size']}")
        if self._digest(name) != listed["sha256"]:
            return Difference(name, "its content was changed")
        return None

    def _check_others(self, results: set[str]) -> None:
        known = results | {layout.ERRORS, layout.INPUTS, layout.RECEIPT, layout.MARKER}
        for info in self._objects.list(self._folder):
            if info.name not in known and not info.name.startswith(layout.STAGING):
                self._differs(info.name, "it is not of this task: no result is called so")

    def _check_digest(self, name: str, expected: str) -> None:
        try:
            if self._digest(name) != expected:
                self._differs(name, "its content was changed")
        except NotFound:
            self._differs(name, "it is missing")

    def _check_input(self, path: str) -> bool:
        """Compares the input as it is now with the listing. False where it cannot be looked at from here."""
        try:
            source = parse_location(path, field="input")
            if source.is_folder:
                now = {info.name: (info.size, info.etag) for info in self._objects.list(source)}
            else:
                info = self._objects.head(source)
                now = {} if info is None else {info.name: (info.size, info.etag)}
        except TidemillError:
            return False
        if not now:
            return False  # another machine's path, or a bucket that is empty by now: nothing can be said
        for before in self._listing():
            found = now.get(before.name)
            if found is None:
                self._differs(f"input: {before.name}", "it is gone")
            elif found != (before.size, before.etag):
                self._differs(f"input: {before.name}", "it was written again after the run was planned")
        return True

    def _listing(self) -> Iterator[Any]:
        try:
            yield from read_listing(self._objects, self._folder.child(layout.INPUTS))
        except (NotFound, ValueError, KeyError):
            return  # its digest has told already

    def _digest(self, name: str) -> str:
        digest = hashlib.sha256()
        for chunk in self._objects.stream(self._folder.child(name)):
            digest.update(chunk)
        return digest.hexdigest()

    def _differs(self, name: str, what: str) -> None:
        self._found.append(Difference(name, what))
