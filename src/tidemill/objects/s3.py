"""Objects in an S3-compatible store, over obstore. Built by `objects.region`.

Conditional creation is the store's own (If-None-Match). A large result is written under a staging key and then copied
onto its name on the condition that nothing is there, so that no writer, however late, replaces what another has made.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace as changed
from datetime import timedelta
from itertools import chain, islice
from typing import Literal

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from tidemill.domain.errors import Conflict, InvalidValue, NotFound, PartDamaged, StorageUnavailable, Temporary
from tidemill.domain.location import Location
from tidemill.objects.ahead import Ahead
from tidemill.objects.assembly import Assembly, check_size
from tidemill.objects.vendor import our_words, status_of
from tidemill.ports.objects import Composed, ObjectInfo, Objects, Piece
from tidemill_runtime.contract import Access

RANGE_BYTES = 8 * 1024 * 1024
SMALL_BYTES = 8 * 1024 * 1024
"""Up to this an object is made by one conditional put."""
COPY_BYTES_MAX = 5 * 1024**3
"""The most that S3 copies in one request. A larger result is written onto its name directly, after a look."""
LIST_CHUNK = 1000
WINDOW = 4
GRANT_S_MAX = 7 * 24 * 3600.0
"""Signatures are good for seven days at most (S3)."""
WRITER = "tidemill-write"
"""Metadata that tells a writer its own object, when the answer to its first attempt was lost."""


class S3Objects(Objects):
    """prefix: what the bucket's keys begin with in the store, "" or ending in `/`; nothing leads out of it."""

    def __init__(self, store: S3Store, prefix: str = "", *, small_bytes: int = SMALL_BYTES) -> None:
        self._store = store
        self._prefix = prefix
        self._small_bytes = small_bytes
        self._pool = ThreadPoolExecutor(16, thread_name_prefix="tidemill-s3")

    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        key = self._key(folder.as_folder())
        offset = key + after if after else None
        with our_words(folder):
            for chunk in obstore.list(self._store, key.rstrip("/") or None, offset=offset, chunk_size=LIST_CHUNK):
                markers = self._markers(
                    [meta["path"] for meta in chunk if meta["size"] == 0 and meta["path"] + "/" != key]
                )
                for meta in chunk:
                    path = meta["path"]
                    name = path[len(key) :]
                    if path + "/" != key and path not in markers and name > after:  # obstore drops a `/` at its end
                        yield _info(name, meta)

    def head(self, location: Location) -> ObjectInfo | None:
        if location.is_folder:
            return None
        try:
            with our_words(location):
                meta = obstore.head(self._store, self._key(location))
        except NotFound:
            return None
        return _info(location.key.rpartition("/")[2], meta)

    def is_folder(self, location: Location) -> bool:
        key = self._key(location.as_folder())
        with our_words(location):
            return any(chunk for chunk in obstore.list(self._store, key.rstrip("/") or None, chunk_size=1))

    def read(self, location: Location, start: int = 0, stop: int | None = None) -> bytes:
        if stop is not None and stop - start <= RANGE_BYTES:
            return self._range(location, start, stop)
        return b"".join(self.stream(location, start, stop))

    def stream(self, location: Location, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        found = self.head(location)
        if found is None:
            raise NotFound(f"{location} is not there.")
        piece = Piece(location, start, found.size if stop is None else min(stop, found.size))
        return self._ahead([piece]).stream(piece)

    def put(self, location: Location, data: bytes | Iterable[bytes]) -> None:
        chunks = iter((data,) if isinstance(data, bytes) else data)
        first = bytearray()
        for chunk in chunks:
            first += chunk
            if len(first) > self._small_bytes:
                break
        with our_words(location):
            key = self._key(location)
            if len(first) <= self._small_bytes:
                obstore.put(self._store, key, bytes(first), use_multipart=False)
            else:
                self._upload(key, chain((bytes(first),), chunks))

    def create(self, location: Location, data: bytes) -> bool:
        key = self._key(location)
        token = secrets.token_hex(16)
        with our_words(location):
            try:
                obstore.put(self._store, key, data, mode="create", attributes={WRITER: token}, use_multipart=False)
            except AlreadyExistsError:  # perhaps by our own request, repeated because its answer was lost
                return self._wrote(key, token)
        return True

    def compose(
        self, target: Location, pieces: Sequence[bytes | Piece], *, staging: Location, replace: bool = False
    ) -> Composed:
        pieces = self._bounded(pieces)
        size = sum(len(p) if isinstance(p, bytes) else (p.stop or 0) - p.start for p in pieces)
        ahead = self._ahead([piece for piece in pieces if not isinstance(piece, bytes)])
        assembly = Assembly(pieces, ahead.stream)
        if size <= self._small_bytes:
            return self._put_small(target, assembly, replace=replace)
        if not replace and self.head(target) is not None:
            return self._same(target, assembly.run())
        key = self._key(target)
        with our_words(target):
            if size > COPY_BYTES_MAX:
                self._upload(key, assembly)
                return assembly.made
            staged = self._key(staging)
            try:
                self._upload(staged, assembly, complete=True)
                obstore.copy(self._store, staged, key, overwrite=replace)
            except AlreadyExistsError:
                return self._same(target, assembly.made)
            except FileNotFoundError as error:  # the copy was completed, its answer lost, and it was asked for again
                if replace or self.head(target) is None:
                    raise StorageUnavailable(f"{target}: a copy got lost on its way.") from error
                return self._same(target, assembly.made)
            finally:
                with suppress(Temporary):
                    self.delete([staging])
        return assembly.made

    def copy(
        self, source: Location, target: Location, *, size: int, sha256: str, staging: Location, replace: bool = False
    ) -> None:
        found = check_size(self.head(source), source, size)
        if size <= COPY_BYTES_MAX:
            with our_words(target):
                try:
                    obstore.copy(self._store, self._key(source), self._key(target), overwrite=replace)
                    return
                except AlreadyExistsError:
                    there = self.head(target)
                    if there is not None and (there.size, there.etag) == (found.size, found.etag):
                        return
        self.compose(target, [Piece(source, 0, size, sha256)], staging=staging, replace=replace)

    def delete(self, locations: Iterable[Location]) -> None:
        waiting = iter(locations)
        while chunk := list(islice(waiting, LIST_CHUNK)):
            with our_words(chunk[0]):
                obstore.delete(self._store, [self._key(location) for location in chunk])

    def delete_below(self, folder: Location) -> None:
        key = self._key(folder.as_folder())
        with our_words(folder):
            for chunk in obstore.list(self._store, key.rstrip("/") or None, chunk_size=LIST_CHUNK):
                below = [meta["path"] for meta in chunk if meta["path"].startswith(key)]
                if below:
                    obstore.delete(self._store, below)

    def sync(self, folder: Location) -> None:
        """Nothing: what the store has answered for is durable."""

    def grant_read(self, location: Location, ttl_s: float) -> Access:
        return self._grant("GET", location, ttl_s)

    def grant_write(self, location: Location, ttl_s: float) -> Access:
        return self._grant("PUT", location, ttl_s)

    def check_writable(self, folder: Location) -> None:
        probe = folder.child(f"_tidemill/probe-{secrets.token_hex(8)}")
        self.put(probe, b"tidemill")
        self.delete([probe])

    def _key(self, location: Location) -> str:
        parts = location.key.split("/")
        if "" in parts[:-1] or "." in parts or ".." in parts:
            raise InvalidValue(f"{location} has an empty, `.` or `..` part.", remedy="Write the path without it.")
        return self._prefix + location.key

    def _grant(self, method: str, location: Location, ttl_s: float) -> Access:
        expires = timedelta(seconds=min(ttl_s, GRANT_S_MAX))
        with our_words(location):
            url = obstore.sign(self._store, method, self._key(location), expires)  # type: ignore[call-overload]
        return Access("url", url)

    def _markers(self, empty: Sequence[str]) -> set[str]:
        """Which of these keys of empty objects are folders' markers: obstore drops the `/` that they end in."""
        if not empty:
            return set()
        return {key for key, there in zip(empty, self._pool.map(self._is_there, empty), strict=True) if not there}

    def _is_there(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _range(self, location: Location, start: int, stop: int) -> bytes:
        if start >= stop:
            return b""
        with our_words(location):
            try:
                return bytes(obstore.get_range(self._store, self._key(location), start=start, end=stop))
            except FileNotFoundError:
                raise
            except Exception as error:
                if status_of(error) == 416:  # it ends before the range begins
                    return b""
                raise

    def _ahead(self, pieces: Sequence[Piece]) -> Ahead:
        return Ahead(pieces, self._range, self._pool, range_bytes=RANGE_BYTES, window=WINDOW)

    def _bounded(self, pieces: Sequence[bytes | Piece]) -> Sequence[bytes | Piece]:
        """The pieces with their stops known."""

        def bounded(piece: bytes | Piece) -> bytes | Piece:
            if isinstance(piece, bytes) or piece.stop is not None:
                return piece
            found = self.head(piece.location)
            if found is None:
                raise PartDamaged(f"{piece.location} is not there.")
            return changed(piece, stop=found.size)

        if all(isinstance(piece, bytes) or piece.stop is not None for piece in pieces):
            return pieces
        return [*self._pool.map(bounded, pieces)]

    def _upload(self, key: str, chunks: Iterable[bytes], *, complete: bool = False) -> None:
        """A multipart upload. complete: also when the chunks fail, so that the caller can delete the object.

        (An upload that is left is seen by nobody, and paid for; obstore has no call to abort it.)
        """
        token = secrets.token_hex(16)
        writer = obstore.open_writer(
            self._store, key, attributes={WRITER: token}, buffer_size=RANGE_BYTES, max_concurrency=WINDOW
        )
        try:
            for chunk in chunks:
                writer.write(chunk)
        except BaseException:
            if complete:
                with suppress(Exception):
                    writer.close()
            raise
        try:
            writer.close()
        except FileNotFoundError as error:  # no such upload: it was completed, and the answer to that was lost
            if not self._wrote(key, token):
                raise StorageUnavailable(f"{key}: an upload got lost on its way.") from error

    def _wrote(self, key: str, token: str) -> bool:
        """Whether the object there is the one that was written with this token."""
        try:
            return obstore.get(self._store, key, options={"head": True}).attributes.get(WRITER) == token
        except FileNotFoundError:
            return False

    def _put_small(self, target: Location, assembly: Assembly, *, replace: bool) -> Composed:
        data = b"".join(assembly)
        with our_words(target):
            try:
                mode: Literal["overwrite", "create"] = "overwrite" if replace else "create"
                obstore.put(self._store, self._key(target), data, mode=mode, use_multipart=False)
            except AlreadyExistsError:
                return self._same(target, assembly.made)
        return assembly.made

    def _same(self, target: Location, made: Composed) -> Composed:
        """`made`, if the target is just that: then it is our own, from before. Raises Conflict otherwise."""
        found = self.head(target)
        if found is not None and found.size == made.size:
            digest = hashlib.sha256()
            for chunk in self.stream(target):
                digest.update(chunk)
            if digest.hexdigest() == made.sha256:
                return made
        raise Conflict(f"{target} is there already, with other content.", remedy="Move it away or use another folder.")


def _info(name: str, meta: obstore.ObjectMeta) -> ObjectInfo:
    return ObjectInfo(name, meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp())
