"""Objects of a region's buckets, for those who upload inputs and fetch results through the server. Called by the
API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

from tidemill.domain.errors import InvalidValue, NotFound, TooLarge
from tidemill.domain.location import Location, parse_location
from tidemill.ports.objects import ObjectInfo, Objects
from tidemill.services.access import Actor, check_allowed
from tidemill.services.queries import decode_cursor, encode_cursor
from tidemill.services.regions import Regions, find_region
from tidemill.wire.package_views import ObjectView
from tidemill.wire.views import DeletedView, Page, readable


@dataclass(frozen=True)
class Opened:
    """An object that can be read by ranges."""

    info: ObjectInfo
    _objects: Objects
    _location: Location

    def read(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes [start, stop) in pieces. Raises NotFound."""
        return self._objects.stream(self._location, start, stop) if stop > start else iter(())


class ObjectAccess:
    """limit_bytes: of one upload."""

    def __init__(self, regions: Regions, *, limit_bytes: int) -> None:
        self._regions = regions
        self._limit_bytes = limit_bytes

    def list(self, actor: Actor, region: str, path: str, limit: int, cursor: str | None) -> Page[ObjectView]:
        """What lies below a folder, recursively, in byte order of the names."""
        objects, folder = self._find(actor, region, path)
        if not folder.is_folder:
            folder = folder.as_folder()
        after = str(decode_cursor(cursor, [str])[0]) if cursor else ""
        found = list(islice(objects.list(folder, after), limit + 1))
        return Page[ObjectView](
            items=[_view(info, folder.child(info.name)) for info in found[:limit]],
            next_cursor=encode_cursor(found[limit - 1].name) if len(found) > limit else None,
        )

    def open(self, actor: Actor, region: str, path: str) -> Opened:
        """Raises NotFound if there is no such object."""
        objects, location = self._find(actor, region, path)
        return open_object(objects, location)

    def put(self, actor: Actor, region: str, path: str, content: Iterable[bytes], size: int | None) -> ObjectView:
        """Writes one object, replacing what is there; nobody ever sees half of it. size: as announced, if it was."""
        objects, location = self._find(actor, region, path)
        if location.is_folder:
            raise InvalidValue(f"{path!r} is a folder.", field="path", remedy="Name the object: no `/` at the end.")
        if size is not None and size > self._limit_bytes:
            raise self._too_large()
        objects.put(location, self._limited(content, size))
        info = objects.head(location)
        if info is None:
            raise NotFound(f"{location} is gone again.", field="path")
        return _view(info, location)

    def delete(self, actor: Actor, region: str, path: str, *, recursive: bool) -> DeletedView:
        """One object, or with `recursive` all below a folder. What is not there is no error."""
        objects, location = self._find(actor, region, path)
        if not location.is_folder:
            existed = objects.head(location) is not None
            objects.delete([location])
            return DeletedView(id=str(location), removed=[str(location)] if existed else [])
        if not recursive:
            raise InvalidValue(f"{path!r} is a folder.", field="path", remedy="Set recursive=true to remove all in it.")
        if location.key in ("", "/"):
            raise InvalidValue("a whole bucket is not removed at once.", field="path", remedy="Name a folder in it.")
        existed = objects.is_folder(location)
        objects.delete_below(location)
        return DeletedView(id=str(location), removed=[f"all below {location}"] if existed else [])

    def _limited(self, content: Iterable[bytes], size: int | None) -> Iterator[bytes]:
        seen = 0
        for chunk in content:
            seen += len(chunk)
            if seen > self._limit_bytes:
                raise self._too_large()
            yield chunk
        if size is not None and seen != size:
            raise InvalidValue(
                f"{size} bytes were announced and {seen} came.", field="Content-Length", remedy="Send it again."
            )

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"the object is larger than {self._limit_bytes} bytes.",
            remedy="Put it into the bucket by the store's own tools; limits.upload_bytes guards this door only.",
        )

    def _find(self, actor: Actor, region: str, path: str) -> tuple[Objects, Location]:
        objects = find_region(self._regions, region).objects
        location = parse_location(path, field="path")
        check_allowed(actor, location, field="path")
        return objects, location


def open_object(objects: Objects, location: Location) -> Opened:
    """Raises NotFound if there is no such object."""
    info = None if location.is_folder else objects.head(location)
    if info is None:
        raise NotFound(f"there is no object {location}.", field="path", remedy="Check the path.")
    return Opened(info, objects, location)


def _view(info: ObjectInfo, location: Location) -> ObjectView:
    modified = datetime.fromtimestamp(info.modified, UTC)
    return ObjectView(
        name=readable(info.name),
        location=readable(str(location)),
        size_bytes=info.size,
        etag=info.etag,
        modified_at=modified,
    )
