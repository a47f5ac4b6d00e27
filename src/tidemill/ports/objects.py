"""Object storage, as the control plane needs it: local folders and S3 alike.

All calls block; all may raise StorageUnavailable (temporary), StorageDenied, StorageFull. Locations of buckets are
resolved by the region's declaration. One conformance suite runs against every implementation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidemill.domain.location import Location
from tidemill_runtime.contract import Access


@dataclass(frozen=True)
class ObjectInfo:
    """name: path below the folder that was listed (or the last part of the key for `head`)."""

    name: str
    size: int
    etag: str
    modified: float


@dataclass(frozen=True)
class Piece:
    """A byte range of an object: [start, stop); stop None is its end.

    sha256: of the bytes [start, checked_stop), which are read and checked; only those before stop are taken. (A staged
    part has one digest over its data, errors and index; the data alone goes into a result.) None checks nothing.
    """

    location: Location
    start: int = 0
    stop: int | None = None
    sha256: str | None = None
    checked_stop: int | None = None


@dataclass(frozen=True)
class Composed:
    """What compose made: its size, the sha256 of all of it in hex."""

    size: int
    sha256: str


class Objects(Protocol):
    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        """Everything below a folder, recursively, in byte order of the names. Nothing if there is no such folder.

        after: only names that come after this one; what comes before is not looked at. Streams: the first come before
        the last are known where the store allows it.
        """

    def head(self, location: Location) -> ObjectInfo | None:
        """None if there is no such object (a folder is none)."""

    def is_folder(self, location: Location) -> bool:
        """Whether something lies below this location taken as a folder (or, locally, the folder exists)."""

    def read(self, location: Location, start: int = 0, stop: int | None = None) -> bytes:
        """The bytes [start, stop). Raises NotFound."""

    def stream(self, location: Location, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The same in chunks of at most a few MiB. Raises NotFound."""

    def put(self, location: Location, data: bytes | Iterable[bytes]) -> None:
        """Writes the whole object, replacing what is there. No reader ever sees half of it."""

    def create(self, location: Location, data: bytes) -> bool:
        """Writes it only if nothing is there; False otherwise.

        Our own write, repeated by the client below because its answer was lost, counts as made.
        """

    def compose(
        self, target: Location, pieces: Sequence[bytes | Piece], *, staging: Location, replace: bool = False
    ) -> Composed:
        """Makes one object of literal bytes and ranges of others, all or nothing, in flat memory.

        staging: a free location of the same store for what has to lie somewhere first. Idempotent: if the target is
        already there with the same content (size and digest), that counts as made. If something else is there and not
        `replace`, raises Conflict. A piece that is missing, short or not of its digest raises PartDamaged.
        """

    def copy(
        self, source: Location, target: Location, *, size: int, sha256: str, staging: Location, replace: bool = False
    ) -> None:
        """Makes the object at `target` what is at `source` in the same store, if possible without reading it: locally
        the file gets a second name, S3 copies by itself. size, sha256: what the source is known to be; the size is
        looked at. staging, replace, Conflict and PartDamaged as for `compose`.
        """

    def delete(self, locations: Iterable[Location]) -> None:
        """Those that are there. Missing ones are no error."""

    def delete_below(self, folder: Location) -> None:
        """Everything below a folder, and locally the folder itself."""

    def sync(self, folder: Location) -> None:
        """Makes everything written below the folder so far survive a loss of power (nothing to do on S3)."""

    def grant_read(self, location: Location, ttl_s: float) -> Access:
        """Scoped access to read one object: a path, or a signed URL."""

    def grant_write(self, location: Location, ttl_s: float) -> Access:
        """Scoped access to write one object. Locally the folder is made."""

    def check_writable(self, folder: Location) -> None:
        """Raises StorageDenied or InvalidValue (with the reason) if nothing can be written below it; leaves nothing."""
