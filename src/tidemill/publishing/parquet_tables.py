"""Frames of Arrow streams as one Parquet table. Used by `units`; the only part of publishing that needs pyarrow.

Its bytes depend on the values alone: types are joined over all frames, and row groups are cut by rows and the values'
own sizes, never where a frame ends.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow  # type: ignore[import-untyped,unused-ignore]
import pyarrow.compute  # type: ignore[import-untyped,unused-ignore]
import pyarrow.parquet  # type: ignore[import-untyped,unused-ignore]

from tidemill.domain.errors import PartDamaged
from tidemill.publishing.column_types import ColumnType, converted
from tidemill.publishing.frames import Columns, frames
from tidemill.publishing.parts import Source
from tidemill_runtime.contract import Frame

BLOCK_ROWS = 512
"""Row groups end only after so many rows, so that their sizes are asked for seldom."""
GROUP_ROWS = 256 * BLOCK_ROWS
GROUP_BYTES = 32 * 1024 * 1024
"""A row group is written when it has so many rows or bytes; one is in memory at a time."""

types = pyarrow.types


def parquet_table(sources: Sequence[Source]) -> Iterator[bytes]:
    """The table's bytes. Two passes: columns and types are known after the first. Raises PartDamaged."""
    columns = Columns()
    kinds: dict[tuple[bool, str], ColumnType] = {}
    for source in sources:
        for frame, payload in frames(source):
            if payload:
                schema = _opened(source, payload).schema
                columns.add(schema.names, frame.carried)
                for at, field in enumerate(schema):
                    kinds.setdefault((at < frame.carried, field.name), ColumnType()).add(field)
    return _written(sources, columns, {key: kind.kind for key, kind in kinds.items()})


def _written(sources: Sequence[Source], columns: Columns, kinds: dict[tuple[bool, str], Any]) -> Iterator[bytes]:
    places = columns.places()
    own = [kinds.get(key, pyarrow.null()) for key in places]
    schema = pyarrow.schema(
        [
            pyarrow.field(name, pyarrow.string() if kind is None else kind)
            for name, kind in zip(columns.names(), own, strict=True)
        ]
    )
    sink = _Sink()
    with pyarrow.parquet.ParquetWriter(sink, schema, version="2.6", compression="zstd") as writer:
        groups = _Groups(schema)
        for source in sources:
            for frame, payload in frames(source):
                groups.add(_batch(source, frame, payload, places, own, schema))
                for group in groups.ready():
                    writer.write_table(group, row_group_size=len(group))
                    yield sink.taken()
        for group in groups.rest():
            writer.write_table(group, row_group_size=len(group))
            yield sink.taken()
    yield sink.taken()


def _batch(
    source: Source, frame: Frame, payload: bytes, places: dict[tuple[bool, str], int], kinds: list[Any], schema: Any
) -> Any:
    """The rows of a frame in the columns of the table."""
    arrays: list[Any] = [None] * len(kinds)
    if payload:
        batch = _opened(source, payload).read_all()
        if len(batch) != frame.rows:
            raise PartDamaged(f"part {source.part}: a frame has {len(batch)} rows, and says {frame.rows}.")
        for at, name in enumerate(batch.schema.names):
            place = places[at < frame.carried, name]
            column = batch.column(at)
            array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
            arrays[place] = converted(array, kinds[place])
    whole = [pyarrow.nulls(frame.rows, schema.field(at).type) if a is None else a for at, a in enumerate(arrays)]
    return pyarrow.RecordBatch.from_arrays(whole, schema=schema)


def _opened(source: Source, payload: bytes) -> Any:
    try:
        return pyarrow.ipc.open_stream(payload)
    except pyarrow.ArrowInvalid as error:
        raise PartDamaged(f"part {source.part}: a frame of it is no Arrow stream.") from error


class _Groups:
    """Batches of any size as row groups whose bounds depend on the rows alone."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._waiting: list[Any] = []
        self._waiting_rows = 0
        self._blocks: list[Any] = []
        self._rows = self._bytes = 0

    def add(self, batch: Any) -> None:
        self._waiting.append(batch)
        self._waiting_rows += len(batch)

    def ready(self) -> Iterator[Any]:
        """Groups that are full."""
        if self._waiting_rows < BLOCK_ROWS:
            return
        table = self._table(self._waiting)
        whole = len(table) - len(table) % BLOCK_ROWS
        for start in range(0, whole, BLOCK_ROWS):
            self._block(table.slice(start, BLOCK_ROWS))
            if self._rows >= GROUP_ROWS or self._bytes >= GROUP_BYTES:
                yield self._group()
        self._waiting = table.slice(whole).to_batches()
        self._waiting_rows = len(table) - whole

    def rest(self) -> Iterator[Any]:
        if self._waiting_rows:
            self._block(self._table(self._waiting))
        if self._rows:
            yield self._group()

    def _block(self, block: Any) -> None:
        self._blocks.append(block)
        self._rows += len(block)
        self._bytes += sum(_bytes_of(chunk) for column in block.columns for chunk in column.chunks)

    def _group(self) -> Any:
        """Whole arrays, as the writer would begin a page where a chunk begins."""
        group = pyarrow.concat_tables(self._blocks).combine_chunks()
        self._blocks, self._rows, self._bytes = [], 0, 0
        return group

    def _table(self, batches: list[Any]) -> Any:
        return pyarrow.Table.from_batches(batches, schema=self._schema).combine_chunks()


def _bytes_of(array: Any) -> int:
    """Of the values alone: neither of spare room nor of how nulls are kept."""
    kind = array.type
    if types.is_string(kind) or types.is_binary(kind):
        return 4 * len(array) + (pyarrow.compute.sum(pyarrow.compute.binary_length(array)).as_py() or 0)
    if types.is_list(kind):
        return 4 * len(array) + _bytes_of(array.flatten())
    if types.is_struct(kind):
        return sum(map(_bytes_of, array.flatten()))
    if types.is_primitive(kind) or types.is_decimal(kind):
        return len(array) * int(kind.bit_width) // 8
    return 16 * len(array)


class _Sink(io.RawIOBase):
    """What the writer writes, until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
