"""What obstore's errors mean in our words. Used by `objects.s3` alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, InvalidPathError, PermissionDeniedError, UnauthenticatedError

from tidemill.domain.errors import InvalidValue, NotFound, StorageDenied, StorageFull, StorageUnavailable, TidemillError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_BUSY = (408, 425, 429)


def status_of(error: Exception) -> int | None:
    """The HTTP status that the storage answered, if it answered (obstore says it in the message alone)."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def translated(error: Exception, where: object) -> TidemillError:
    """What obstore's error means for the object at `where`."""
    text = str(error)
    status = status_of(error)
    found = _CODE.search(text)
    code = found[1] if found else f"status {status}" if status else "no answer"
    if code == "NoSuchBucket":
        return NotFound(f"the bucket of {where} does not exist.", remedy="Check the bucket's url in the settings.")
    if isinstance(error, FileNotFoundError) or status == 404:
        return NotFound(f"{where} is not there.")
    if isinstance(error, (InvalidPathError, ValueError)):
        reason = text.partition("\n\nDebug source")[0]
        return InvalidValue(f"below {where} is a name that cannot be used: {reason}.", remedy="Rename the object.")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        return StorageDenied(f"{where}: the storage refuses ({code}).", remedy="Check keys and permissions.")
    if status == 507 or code in ("XMinioStorageFull", "QuotaExceeded"):
        return StorageFull(f"{where}: the storage is full ({code}).")
    if status is None or status >= 500 or status in _BUSY:
        return StorageUnavailable(f"{where}: the storage does not answer as it should ({code}).")
    return StorageDenied(f"{where}: the storage refuses the request ({code}).", remedy="Check the bucket's settings.")


@contextmanager
def our_words(where: object) -> Iterator[None]:
    """Raises what obstore's errors inside mean for the object at `where`."""
    try:
        yield
    except (BaseError, FileNotFoundError, ValueError, OSError) as error:
        if isinstance(error, TidemillError):  # InvalidValue is a ValueError too
            raise
        raise translated(error, where) from error
