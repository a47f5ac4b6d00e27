"""JSON lines: a record is a JSON value on a line, decoded a block at a time by msgspec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional

import msgspec

from tidemill_runtime.codec.columnar import frames_for
from tidemill_runtime.codec.text import UNREADABLE, LineReader

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, Lease

decoder = msgspec.json.Decoder()


def jsonl_reader(
    lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]], shape: str, carried: Sequence[str]
) -> LineReader:
    """Items are what the lines' JSON says: dicts, mostly. form.columns: the keys of a dict that the model gets."""
    frames = frames_for(shape)
    if frames is not None:
        reader: LineReader = frames.FrameReader(lease, form, forced, decode_block, decoder.decode, shape, carried)
        return reader
    return LineReader(lease, form, forced, decode_block, decoder.decode, carried)


def decode_block(data: memoryview) -> Optional[list[Any]]:
    """The values of a block with one on each line, else None: then it is decoded line by line.

    msgspec takes values wherever they stand, so where they stand is counted.
    """
    try:
        items = decoder.decode_lines(data)
    except UNREADABLE:
        return None
    return items if _one_on_each_line(bytes(data), len(items)) else None


def _one_on_each_line(block: bytes, values: int) -> bool:
    """Whether the lines are `values` in number, and a value ends and another begins at each line's end.

    JSON never has `}` and `{` side by side inside a value. So as many of these pairs across a line's end as there are
    line ends leave no line with two values and none with half of one. Only objects and arrays, without blanks around
    them, are known that way; whatever else comes is decoded line by line.
    """
    end = b"\r\n" if block.endswith(b"\r\n") else b"\n"
    last = -len(end) - 1 if block.endswith(end) else -1
    opening, closing = block[:1], block[last : last + 1 or None]
    if opening + closing not in (b"{}", b"[]"):
        return False
    between = block.count(closing + end + opening)
    return between == values - 1 and block.count(b"\n") == values - (last == -1)
