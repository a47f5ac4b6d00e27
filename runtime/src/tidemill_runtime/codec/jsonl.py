"""JSON lines: a record is a JSON value on a line, decoded a block at a time by msgspec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

import msgspec

from tidemill_runtime.codec.text import UNREADABLE, LineReader

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, Lease

_decoder = msgspec.json.Decoder()


def jsonl_reader(lease: Lease, form: InputFormat, forced: dict[int, dict[int, int]]) -> LineReader:
    """Items are what the lines' JSON says: dicts, mostly. form.columns: the keys of a dict that the model gets."""
    columns = form.columns
    if columns is None:
        return LineReader(lease, form, forced, decode_block, _decoder.decode)

    def decode(data: memoryview) -> Optional[list[Any]]:
        items = decode_block(data)
        return None if items is None else [_chosen(item, columns) for item in items]

    def decode_line(line: bytes) -> Any:
        return _chosen(_decoder.decode(line), columns)

    return LineReader(lease, form, forced, decode, decode_line)


def decode_block(data: memoryview) -> Optional[list[Any]]:
    """The values of a block with one on each line, else None.

    msgspec takes values wherever they stand, so their number is held against that of the lines, and blank lines (which
    most often end a file) are looked for where a wrong line could hide behind them.
    """
    try:
        items = _decoder.decode_lines(data)
    except UNREADABLE:
        return None
    block = bytes(data)
    if block.endswith((b"\n\n", b"\n\r\n")):
        return None
    lines = block.count(b"\n") + (not block.endswith(b"\n"))
    return items if len(items) == lines else None


def _chosen(item: Any, columns: list[str]) -> Any:
    if not isinstance(item, dict):
        return item
    return {name: item.get(name) for name in columns}
