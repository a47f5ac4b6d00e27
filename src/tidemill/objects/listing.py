"""The listing of a run's input: an object of JSON lines beside the results.

Written by `planning`, read by the coordinator and the publisher by byte range.

One line is {"name": …, "size": …, "etag": …}; lines are in byte order of the names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tidemill.domain.errors import PartDamaged
from tidemill.domain.location import Location
from tidemill.domain.splits import ListedObject
from tidemill.ports.objects import ObjectInfo, Objects

_quoted = json.encoder.encode_basestring_ascii  # escaped: a local name need not be UTF-8
_decode = json.JSONDecoder().decode

T = TypeVar("T")


def listing_line(info: ObjectInfo) -> bytes:
    return f'{{"name":{_quoted(info.name)},"size":{info.size},"etag":{_quoted(info.etag)}}}\n'.encode()


def read_listing(
    objects: Objects, listing: Location, start: int = 0, stop: int | None = None, *, first_ordinal: int = 0
) -> Iterator[ListedObject]:
    """The objects of the byte range [start, stop) of a listing, which holds whole lines; the first has `first_ordinal`.

    Raises PartDamaged if the listing is not what was written.
    """
    return parse_listing(objects.stream(listing, start, stop), start, first_ordinal)


def parse_listing(chunks: Iterable[bytes], start: int, first_ordinal: int) -> Iterator[ListedObject]:
    """Listed objects of a stream of a listing's bytes that begins at byte `start`."""
    rest, at, ordinal = b"", start, first_ordinal
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            try:
                values = _decode(line.decode())
                listed = ListedObject(ordinal, values["name"], values["size"], values["etag"], at, at + len(line) + 1)
            except (ValueError, KeyError, TypeError) as error:
                raise PartDamaged(f"the listing of the input is damaged at byte {at}.", remedy="Start anew.") from error
            yield listed
            at, ordinal = listed.listing_stop, ordinal + 1
    if rest:
        raise PartDamaged(f"the listing of the input ends in the middle of a line at byte {at}.", remedy="Start anew.")


def whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream, each with its newline; the last may lack it."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest


def name_order(name: str) -> bytes:
    """By what listings are sorted: the bytes of a name, which locally need not be UTF-8."""
    return name.encode("utf-8", "surrogateescape")


def paired(
    before: Iterator[T], now: Iterator[T], key: Callable[[T], Any]
) -> Iterator[tuple[T, T] | tuple[T, None] | tuple[None, T]]:
    """Walks through two sequences that are sorted by `key`, each key once: what has the same key comes as a pair, what
    only one of them has comes alone. Equal items are a pair without a look at their keys. Flat memory.
    """
    old, new = next(before, None), next(now, None)
    while old is not None or new is not None:
        if old is not None and new is not None and (old == new or key(old) == key(new)):
            yield old, new
            old, new = next(before, None), next(now, None)
        elif new is None or (old is not None and key(old) < key(new)):
            assert old is not None
            yield old, None
            old = next(before, None)
        else:
            yield None, new
            new = next(now, None)
