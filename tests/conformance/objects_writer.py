"""Writes an object and never comes to its end: a process to be killed in the middle. Started by the tests of objects.

Arguments: what (put, put_large, compose), the data folder, the location, and for S3 bucket, endpoint, key, secret.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tidemill.domain.location import parse_location
from tidemill.objects import assembly
from tidemill.objects.region import open_region
from tidemill.ports.objects import Piece
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret

MEGABYTE = b"x" * 1_000_000


def endless(megabytes: int) -> Iterator[bytes]:
    for _ in range(megabytes):
        yield MEGABYTE
    sys.stdout.write("in the middle\n")
    sys.stdout.flush()
    threading.Event().wait()


def main() -> None:
    what, data, where, *s3 = sys.argv[1:]
    buckets = {"data": BucketSection()}
    if s3:
        bucket, endpoint, key, secret = s3
        buckets["data"] = BucketSection(
            url=f"s3://{bucket}", endpoint=endpoint, access_key=key, secret_key=Secret(secret), region="us-east-1"
        )
    objects = open_region(buckets, Path(data), local_paths=True)
    folder = parse_location(where, field="where")
    if what.startswith("put"):
        objects.put(folder.child("killed"), endless(20 if what == "put_large" else 1))
        return
    objects.put(folder.child("_tidemill/t/part"), MEGABYTE * 20)
    assembly.Assembly.__iter__ = lambda self: endless(12)  # type: ignore[method-assign]
    pieces = [b"head", Piece(folder.child("_tidemill/t/part"))]
    objects.compose(folder.child("killed"), pieces, staging=folder.child("_tidemill/t/tmp"))


if __name__ == "__main__":
    main()
