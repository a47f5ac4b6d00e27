"""JSON lines: a record is a JSON value on a line, decoded by msgspec without a step of Python between lines."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypedDict

import msgspec

from tidemill_runtime.codec.columnar import frames_for
from tidemill_runtime.codec.text import UNREADABLE, LineReader

if TYPE_CHECKING:
    from tidemill_runtime.contract import InputFormat, Lease

decoder = msgspec.json.Decoder()


def jsonl_reader(
    lease: Lease,
    form: InputFormat,
    forced: dict[int, dict[int, int]],
    shape: str,
    carried: Optional[Sequence[str]],
    record: Any = None,
) -> LineReader:
    """Items are what the lines' JSON says: dicts, mostly. form.columns: the keys of a dict that the model gets.

    carried: those that results need; None for whole records. record: the type that the model wants records of.
    """
    if record is not None:
        from tidemill_runtime.codec.typed import TypedReader  # for the few models that say one

        return TypedReader(lease, form, forced, record)
    frames = frames_for(shape)
    if frames is not None:
        reader: LineReader = frames.FrameReader(lease, form, forced, decode_block, decoder.decode, shape, carried or ())
        return reader
    whole = form.columns is None or carried is None
    chosen = None if whole else _chosen_decoder(list(dict.fromkeys([*(form.columns or ()), *(carried or ())])))
    if chosen is None:
        return LineReader(lease, form, forced, decode_block, decoder.decode, carried or ())

    def decode(data: memoryview) -> Optional[list[Any]]:
        return decode_block(data, chosen.decode) if _is_utf8(data) else None

    def decode_line(line: bytes) -> Any:
        line.decode()  # also what is passed over has to be text
        try:
            return chosen.decode(line)
        except msgspec.ValidationError:  # JSON, but no dict
            return decoder.decode(line)

    return LineReader(lease, form, forced, decode, decode_line, carried or ())


def _chosen_decoder(names: list[str]) -> Any:
    """Reads only these keys of dicts and passes over the others; None if it cannot (some releases know ASCII alone)."""
    make: Any = TypedDict
    chosen: Any = msgspec.json.Decoder(make("Chosen", dict.fromkeys(names, Any), total=False))
    known = dict.fromkeys(names, 1)
    written = [json.dumps(known, ensure_ascii=ascii_alone) for ascii_alone in (False, True)]
    return chosen if all(chosen.decode(each) == known for each in written) else None


def _is_utf8(data: memoryview) -> bool:
    try:
        str(data, "utf-8")
    except UnicodeDecodeError:
        return False
    return True


def decode_block(data: memoryview, decode: Callable[[bytes], Any] = decoder.decode) -> Optional[list[Any]]:
    """The values of a block with one on each line, else None: then blank and bad lines are told apart.

    msgspec's decode_lines takes values wherever they stand; to make sure of the lines after it costs more than this.
    """
    try:
        return list(map(decode, io.BytesIO(data)))
    except UNREADABLE:
        return None
