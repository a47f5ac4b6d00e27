"""`tidemill receipt verify` and `tidemill.verify`: a receipt checked from this machine, with no server asked."""

from __future__ import annotations

import os
from collections.abc import Callable

from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import parse_location
from tidemill.objects.region import open_region
from tidemill.publishing.verifying import Difference, Verified
from tidemill.publishing.verifying import verify as verify_folder
from tidemill.settings import Settings, load_settings

__all__ = ["Difference", "Verified", "verify"]

_RETRY_S = 10.0


def verify(
    folder: str | os.PathLike[str],
    *,
    key: str | None = None,
    check_input: bool = True,
    region: str = "local",
    settings: Settings | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Verified:
    """Whether an output folder is still what its receipt says, to the last byte; see `Verified`.

    folder: a path, or a bucket's address (cos://…, s3://…). key: the public key, or its id, that must have signed.
    check_input: compare sizes and etags of the input too, where it can be reached from here. progress: called with the
    number of results read. Raises NotFound where there is no receipt, InvalidValue where it is none.
    """
    settings = settings or load_settings(None, os.environ).settings
    if region not in settings.regions:
        known = ", ".join(sorted(settings.regions))
        raise InvalidValue(f"there is no region {region!r}.", field="region", remedy=f"Declared are: {known}.")
    buckets = settings.regions[region].buckets
    objects = open_region(buckets, settings.data, local_paths=True, environment_buckets=True, retry_s=_RETRY_S)
    place = parse_location(os.fspath(folder), field="folder", base=os.getcwd())  # noqa: PTH109 - a text is wanted
    return verify_folder(objects, place.as_folder(), trusted=key, check_input=check_input, progress=progress)
