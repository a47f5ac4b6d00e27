"""Results that are more than their parts one after another: tables of frames, and files. Used by `units`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain

from tidemill.domain.errors import PartDamaged, Temporary
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects, Piece
from tidemill.publishing.csv_tables import csv_table
from tidemill.publishing.frames import headers
from tidemill.publishing.parts import Source

SPOOLED_BYTES_MAX = 8 * 1024 * 1024
"""A smaller result is put together in memory, a larger one beside the parts first."""


@contextmanager
def spooled(
    objects: Objects, staging: Location, result_type: str, sources: Sequence[Source]
) -> Iterator[list[bytes | Piece]]:
    """A csv or parquet table, made of frames, as pieces to be composed. What does not fit into memory is at `staging`
    meanwhile. Raises PartDamaged.
    """
    chunks = _table(result_type, sources)
    held: list[bytes] = []
    size = 0
    for chunk in chunks:
        held.append(chunk)
        size += len(chunk)
        if size > SPOOLED_BYTES_MAX:
            break
    else:
        yield [b"".join(held)]
        return
    objects.put(staging, chain(held, chunks))
    try:
        yield [Piece(staging)]
    finally:
        with suppress(Temporary):  # it lies in the task's own folder, which is removed at its end
            objects.delete([staging])


def _table(result_type: str, sources: Sequence[Source]) -> Iterator[bytes]:
    if result_type == "csv":
        return csv_table(sources)
    from tidemill.publishing.parquet_tables import parquet_table  # pyarrow: an extra, and slow to load

    return parquet_table(sources)


def files_in(source: Source) -> Iterator[tuple[int, int] | None]:
    """Where each record's file lies in a part, [start, stop); None for a record that failed. Raises PartDamaged."""
    files = 0
    for frame, start in headers(source):
        files += frame.rows
        yield (start, start + frame.bytes) if frame.rows else None
    if files != source.rows:
        raise PartDamaged(f"part {source.part} has {files} files where {source.rows} were committed.")
