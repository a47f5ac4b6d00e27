"""The bytes of a composed object, checked as they pass. Both stores compose from it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as changed

from tidemill.domain.errors import NotFound, PartDamaged
from tidemill.domain.location import Location
from tidemill.ports.objects import Composed, ObjectInfo, Piece

Stream = Callable[[Piece], Iterator[bytes]]


def read_stop(piece: Piece) -> int | None:
    """Where reading the piece ends: where what is taken or what is checked does."""
    if piece.stop is None or piece.checked_stop is None:
        return piece.stop
    return max(piece.stop, piece.checked_stop)


def check_size(found: ObjectInfo | None, source: Location, size: int) -> ObjectInfo:
    """What is there. Raises PartDamaged if it is not there, or not of the size that it is known to have."""
    if found is None:
        raise PartDamaged(f"{source} is not there.")
    if found.size != size:
        raise PartDamaged(f"{source} has {found.size} bytes, not {size}.")
    return found


class Assembly:
    """One pass over `pieces`: yields their bytes in order; then `made` is the size and digest of all of them.

    stream: reads one piece in chunks, raises NotFound. Raises PartDamaged for a piece that is missing, short or not of
    its digest; nothing may be made visible before the pass is over.
    """

    def __init__(self, pieces: Sequence[bytes | Piece], stream: Stream) -> None:
        self._pieces = pieces
        self._stream = stream
        self._all = hashlib.sha256()
        self._size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield self._counted(piece)
            else:
                yield from self._checked(piece)

    @property
    def made(self) -> Composed:
        return Composed(self._size, self._all.hexdigest())

    def run(self) -> Composed:
        """The whole pass for its digest alone."""
        for _ in self:
            pass
        return self.made

    def _counted(self, chunk: bytes) -> bytes:
        self._all.update(chunk)
        self._size += len(chunk)
        return chunk

    def _checked(self, piece: Piece) -> Iterator[bytes]:
        alone = len(self._pieces) == 1  # then the digest of all serves for the piece too
        own = None if alone or piece.sha256 is None else hashlib.sha256()
        size = 0
        taken = None if piece.stop is None else piece.stop - piece.start
        stop = read_stop(piece)
        try:
            for chunk in self._stream(changed(piece, stop=stop)):
                kept = chunk if taken is None else chunk[: max(0, taken - size)]
                size += len(chunk)
                if kept:
                    yield self._counted(kept)
                if own is None and len(kept) < len(chunk):
                    own = self._all.copy()
                    own.update(chunk[len(kept) :])
                elif own is not None:
                    own.update(chunk)
        except NotFound as error:
            raise PartDamaged(f"{piece.location} is not there.") from error
        if stop is not None and size != stop - piece.start:
            raise PartDamaged(f"{piece.location} ends {stop - piece.start - size} bytes too early.")
        if piece.sha256 is not None and (own or self._all).hexdigest() != piece.sha256:
            raise PartDamaged(f"{piece.location} is not what was written: its sha256 differs.")
