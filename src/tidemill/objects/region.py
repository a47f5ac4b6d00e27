"""All the objects that a region can name: its declared buckets, and the paths of the machine where they are allowed.

Built once, by the composition root of the server and by `tidemill run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import Location
from tidemill.objects.environment import open_environment_bucket
from tidemill.objects.local import LocalObjects
from tidemill.ports.objects import Composed, ObjectInfo, Objects, Piece
from tidemill_runtime.contract import Access

if TYPE_CHECKING:
    from tidemill.settings import BucketSection


def open_region(
    buckets: Mapping[str, BucketSection],
    data: Path,
    *,
    local_paths: bool,
    environment_buckets: bool = False,
    retry_s: float = 10.0,
) -> Objects:
    """The objects of a region. Nothing is opened or made before it is used.

    data: the data folder; a bucket without url is `<data>/buckets/<name>/`. local_paths: plain paths are allowed.
    environment_buckets: undeclared buckets are S3 buckets, reached as the AWS_* variables say (for `tidemill run`).
    retry_s: how long a storage that does not answer is tried before StorageUnavailable is raised.
    """
    return RegionObjects(
        buckets, data, local_paths=local_paths, environment_buckets=environment_buckets, retry_s=retry_s
    )


class RegionObjects(Objects):
    """Hands each call on to the store that its location lies in. cos:// and s3:// of one bucket name are one place."""

    def __init__(
        self,
        buckets: Mapping[str, BucketSection],
        data: Path,
        *,
        local_paths: bool,
        environment_buckets: bool,
        retry_s: float,
    ) -> None:
        self._buckets = buckets
        self._data = data
        self._local_paths = local_paths
        self._environment_buckets = environment_buckets
        self._retry_s = retry_s
        self._paths = LocalObjects(None)
        self._opened: dict[str, Objects] = {}
        self._opening = Lock()

    def check(self, location: Location, *, field: str) -> None:
        """Raises InvalidValue if the region cannot name this location."""
        try:
            self._at(location)
        except InvalidValue as error:
            raise InvalidValue(error.message, field=field, remedy=error.remedy) from error

    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        return self._at(folder).list(folder, after)

    def head(self, location: Location) -> ObjectInfo | None:
        return self._at(location).head(location)

    def is_folder(self, location: Location) -> bool:
        return self._at(location).is_folder(location)

    def read(self, location: Location, start: int = 0, stop: int | None = None) -> bytes:
        return self._at(location).read(location, start, stop)

    def stream(self, location: Location, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        return self._at(location).stream(location, start, stop)

    def put(self, location: Location, data: bytes | Iterable[bytes]) -> None:
        self._at(location).put(location, data)

    def create(self, location: Location, data: bytes) -> bool:
        return self._at(location).create(location, data)

    def compose(
        self, target: Location, pieces: Sequence[bytes | Piece], *, staging: Location, replace: bool = False
    ) -> Composed:
        store = self._at(target)
        for other in (staging, *(piece.location for piece in pieces if not isinstance(piece, bytes))):
            if self._at(other) is not store:
                raise InvalidValue(f"{other} and {target} are not in the same store.")
        return store.compose(target, pieces, staging=staging, replace=replace)

    def copy(
        self, source: Location, target: Location, *, size: int, sha256: str, staging: Location, replace: bool = False
    ) -> None:
        store = self._at(target)
        for other in (source, staging):
            if self._at(other) is not store:
                raise InvalidValue(f"{other} and {target} are not in the same store.")
        store.copy(source, target, size=size, sha256=sha256, staging=staging, replace=replace)

    def delete(self, locations: Iterable[Location]) -> None:
        by_store: dict[int, tuple[Objects, list[Location]]] = {}
        for location in locations:
            store = self._at(location)
            by_store.setdefault(id(store), (store, []))[1].append(location)
        for store, own in by_store.values():
            store.delete(own)

    def delete_below(self, folder: Location) -> None:
        self._at(folder).delete_below(folder)

    def sync(self, folder: Location) -> None:
        self._at(folder).sync(folder)

    def grant_read(self, location: Location, ttl_s: float) -> Access:
        return self._at(location).grant_read(location, ttl_s)

    def grant_write(self, location: Location, ttl_s: float) -> Access:
        return self._at(location).grant_write(location, ttl_s)

    def check_writable(self, folder: Location) -> None:
        self._at(folder).check_writable(folder)

    def _at(self, location: Location) -> Objects:
        if location.bucket is None:
            if not self._local_paths:
                raise InvalidValue(
                    f"{location} is a path of the server's machine.", remedy=f"Use a bucket: {self._names()}."
                )
            return self._paths
        found = self._opened.get(location.bucket)
        if found is None:
            with self._opening:
                found = self._opened.get(location.bucket) or self._open(location, location.bucket)
                self._opened[location.bucket] = found
        return found

    def _open(self, location: Location, name: str) -> Objects:
        section = self._buckets.get(name)
        if section is None:
            if not self._environment_buckets:
                raise InvalidValue(f"there is no bucket {name!r}.", remedy=f"Declared are: {self._names()}.")
            return open_environment_bucket(location, self._names(), self._retry_s)
        if section.url is None:
            return _folder(self._data / "buckets" / name)
        if section.url.startswith("file://"):
            return _folder(Path(section.url.removeprefix("file://")))  # taken literally, as all addresses
        return _declared(name, section, self._retry_s)

    def _names(self) -> str:
        return ", ".join(f"cos://{name}/" for name in sorted(self._buckets)) or "none"


def _folder(path: Path) -> Objects:
    path.mkdir(parents=True, exist_ok=True)
    return LocalObjects(str(path))


def _declared(name: str, section: BucketSection, retry_s: float) -> Objects:
    # 20 ms that a run on local folders need not wait.
    from tidemill.objects.s3 import S3Objects
    from tidemill.objects.s3_store import S3Config, open_store

    assert section.url is not None
    scheme, _, rest = section.url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if (
        scheme not in ("s3", "cos")
        or not bucket
        or any(part in ("", ".", "..") for part in prefix.split("/") if prefix)
    ):
        raise InvalidValue(
            f"{section.url!r} is no bucket.",
            field=f"buckets.{name}.url",
            remedy="Write s3://bucket or s3://bucket/prefix.",
        )
    if (section.access_key is None) != (section.secret_key is None):
        raise InvalidValue(
            "one of access_key and secret_key is missing.",
            field=f"buckets.{name}",
            remedy="Give both, or neither to use the machine's own role.",
        )
    store = open_store(
        S3Config(
            bucket,
            section.endpoint,
            section.access_key,
            None if section.secret_key is None else section.secret_key.get_secret_value(),
            section.region,
            section.path_style,
            retry_s,
        )
    )
    return S3Objects(store, prefix + "/" if prefix else "")
