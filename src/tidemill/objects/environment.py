"""A bucket that no settings declare, as Amazon's own variables describe it. For `tidemill run`, through `region`.

What nothing describes is refused at once: looking for it at Amazon, by a role that this machine does not have, takes
long and tells people who mistyped a name nothing.
"""

from __future__ import annotations

import os

from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects

# Amazon's own variables, not settings of ours.
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_DESCRIBING = (
    *_ENDPOINTS,
    *_REGIONS,
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)


def open_environment_bucket(location: Location, declared: str, retry_s: float) -> Objects:
    """The bucket of a location; obstore looks up the keys (variables, machine's role). declared: those that are.

    Raises InvalidValue where no variable describes a store that could have it.
    """
    # 20 ms that a run on local folders need not wait.
    from tidemill.objects.s3 import S3Objects
    from tidemill.objects.s3_store import S3Config, open_store

    name = location.bucket
    assert name is not None
    endpoint = _first(_ENDPOINTS)
    declare = f"Declared are: {declared}. Declare it in tidemill.toml ([regions.local.buckets.{name}]), or set"
    if not any(os.environ.get(variable) for variable in _DESCRIBING):
        raise InvalidValue(
            f"the bucket {name!r} is not declared, and no AWS_* variable says where it is.",
            remedy=f"{declare} AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and AWS_ENDPOINT_URL or AWS_REGION.",
        )
    if location.scheme == "cos" and endpoint is None:
        raise InvalidValue(
            f"the bucket {name!r} is not declared, and AWS_ENDPOINT_URL is not set.",
            remedy=f"{declare} AWS_ENDPOINT_URL, like https://cos.ap-guangzhou.myqcloud.com.",
        )
    hosted = os.environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() in ("1", "true")
    region = os.environ.get(_first(_REGIONS) or "")
    address = None if endpoint is None else os.environ[endpoint]
    return S3Objects(open_store(S3Config(name, address, None, None, region, not hosted, retry_s)))


def where_looked_for(bucket: str) -> str:
    """Where an undeclared bucket is taken to be, in a sentence, for errors."""
    endpoint, region = _first(_ENDPOINTS), _first(_REGIONS)
    if endpoint is not None:
        place = f"{os.environ[endpoint]} ({endpoint})"
    elif region is not None:
        place = f"Amazon's {os.environ[region]} ({region})"
    else:
        place = "Amazon's us-east-1 (neither AWS_ENDPOINT_URL nor AWS_REGION is set)"
    keys = "" if os.environ.get("AWS_ACCESS_KEY_ID") else ", without AWS_ACCESS_KEY_ID"
    return f"The bucket {bucket!r} is not declared in tidemill.toml; it was looked for at {place}{keys}."


def _first(names: tuple[str, ...]) -> str | None:
    """The first of these variables that is set."""
    return next((name for name in names if os.environ.get(name)), None)
