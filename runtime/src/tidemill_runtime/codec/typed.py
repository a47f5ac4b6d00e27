"""JSON lines as records of the model's own type: what `predict(self, batch: list[Line])` asks for.

Only the fields of the type are read, and each has to be of its type; no dict is made. See `models.shapes`.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Optional, Union

import msgspec

from tidemill_runtime.codec.records import columns_of
from tidemill_runtime.codec.text import UNREADABLE, LineReader, LineRecords

if TYPE_CHECKING:
    from tidemill_runtime.codec.lines import LongLine, RawBlock
    from tidemill_runtime.contract import InputFormat, Lease

_whole = msgspec.json.Decoder()


class TypedReader(LineReader):
    """Items are of the type `record`: a msgspec Struct, a dataclass or a TypedDict."""

    def __init__(self, lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]], record: Any) -> None:
        typed: Any = msgspec.json.Decoder(record)
        one = typed.decode

        def decode(data: memoryview) -> Optional[list[Any]]:
            try:
                return list(map(one, io.BytesIO(data)))
            except UNREADABLE:
                return None

        super().__init__(lease, form, forced, decode, one)

    def records(self, index: int, base: int, block: Union[RawBlock, LongLine]) -> TypedRecords:
        return TypedRecords(self, index, base, block)


class TypedRecords(LineRecords):
    """A block of them. What results carry is read again, as the line says it."""

    def fresh(self, first: int, stop: int) -> list[Any]:
        return super().fields(first, stop)

    def fields(self, first: int, stop: int) -> list[Any]:
        rows = range(first, stop) if self.item_rows is None else self.item_rows[first:stop]
        lines = self.lines()
        return [_whole.decode(lines[row]) for row in rows]

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return columns_of(self.fields(first, stop), names)
