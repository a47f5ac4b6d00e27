"""JSON lines as columns, for models that take a matrix or a frame: no Python object per record stands between file and
model. Used by the worker, through `jsonl`; polars and NumPy are imported here, and by what builds on this.

The columns' names and types come from the object's beginning, whatever range of it is read. A block becomes a frame
only if that shows exactly what its lines say; every other block is read line by line, as for any other model.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

import numpy
import polars

from tidemill_runtime.codec.lines import BLOCK_BYTES, LineBlocks, LongLine, RawBlock
from tidemill_runtime.codec.records import Bad, columns_of
from tidemill_runtime.codec.text import UNREADABLE, Decode, DecodeLine, LineReader, LineRecords, split_lines
from tidemill_runtime.faults import log
from tidemill_runtime.source import open_source

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputFormat, InputObject, Lease

FRAME_BYTES = 4 * 1024 * 1024
"""What is parsed into one frame: measured best for rows of 30 numbers."""
SAMPLE_BYTES = 64 * 1024
"""How much of an object's beginning decides on the types of its columns."""

_EXACT = 2**53
"""Whole numbers up to it are floats without loss."""
_COUNTED_BYTES = 128 * 1024
_PARSED = {"int": polars.Int64, "float": polars.Float64, "bool": polars.Boolean, "text": polars.Categorical}
# Text is parsed as categories because they refuse what is not text; as strings, polars writes down 1 or [1] as well.
_HELD = {**_PARSED, "text": polars.String}


class Layout(NamedTuple):
    """The columns of an object. types: of each that is read, by name: "int", "float", "bool" or "text".

    model: those that the model gets. whole: these are all that there are, so that a record with other keys has no place
    in the frame. carried: those that results need.
    """

    types: dict[str, str]
    model: list[str]
    whole: bool
    carried: Sequence[str] = ()


_layouts: dict[tuple[str, str], Optional[Layout]] = {}
"""Of the object that was read last: all leases of a worker read in the same way."""


class FrameRecords:
    """A block whose rows are all items, in a polars frame; see `Records`.

    For any format of lines: data are the block's bytes, in which row i is line i, and frame has a row for each line,
    with the columns that the model gets (`columns`, in its order) and those that are carried into results. Types must
    not depend on the block, and values must be what reading the line by itself gives (`carried` hands them out): a
    block of which that cannot be said has to be other `Records`. index, begin, end: `object`, `begin`, `end` of
    `Records`. whole: makes the whole record of a line without its end; None where the frame has all of it.
    """

    of_files = False
    item_rows: Optional[list[int]] = None

    def __init__(
        self,
        index: int,
        begin: int,
        end: int,
        data: bytes,
        frame: polars.DataFrame,
        columns: list[str],
        whole: Optional[Callable[[bytes], Any]] = None,
    ) -> None:
        self.object = index
        self.begin = begin
        self.end = end
        self.rows = self.size = frame.height
        self.bad: dict[int, Bad] = {}
        self._data = data
        self._frame = frame
        self._columns = columns
        self._whole = whole
        self._lines: Optional[list[bytes]] = None

    def items(self, first: int, stop: int) -> Any:
        """A polars frame; `shapes.convert` makes of it what the model takes."""
        return self._frame.select(self._columns).slice(first, stop - first)

    def fresh(self, first: int, stop: int) -> Any:
        """The same: what the model is given shares nothing with it that could be changed."""
        return self.items(first, stop)

    def raw(self, row: int) -> bytes:
        return self.lines()[row].rstrip(b"\r\n")

    def cursor(self, row: int) -> tuple[int, int]:
        if row == 0:
            return self.object, self.begin
        if row == self.rows:
            return self.object, self.end
        return self.object, self.begin + sum(map(len, self.lines()[:row]))

    def fields(self, first: int, stop: int) -> list[Any]:
        if self._whole is None:
            return self._frame.slice(first, stop - first).to_dicts()
        return [self._whole(line.rstrip(b"\r\n")) for line in self.lines()[first:stop]]

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        held = self._frame.columns
        rows = self._frame.slice(first, stop - first)
        return [rows[name].to_list() if name in held else [None] * (stop - first) for name in names]

    def lines(self) -> list[bytes]:
        """The rows with their line ends."""
        if self._lines is None:
            self._lines = split_lines(memoryview(self._data))
        return self._lines


class FrameReader(LineReader):
    """JSON lines for a model of a columnar shape."""

    def __init__(
        self,
        lease: Lease,
        form: InputFormat,
        forced: dict[int, dict[int, int]],
        decode: Decode,
        decode_line: DecodeLine,
        shape: str,
        carried: Sequence[str],
    ) -> None:
        super().__init__(lease, form, forced, decode, decode_line, carried)
        self._shape = shape
        self._layout: Optional[Layout] = None

    def block_bytes(self, listed: InputObject) -> int:
        which = (listed.name, listed.etag)
        if which not in _layouts:
            _layouts.clear()  # leases of one object come one after another
            _layouts[which] = self._laid_out(listed)
        self._layout = _layouts[which]
        if self._layout is None:
            return BLOCK_BYTES
        return min(FRAME_BYTES, self.form.max_record_bytes)  # a larger block might hold a line that is too long

    def records(self, index: int, base: int, block: Union[RawBlock, LongLine]) -> Records:
        layout = self._layout
        if layout is None:
            return super().records(index, base, block)
        if isinstance(block, RawBlock) and len(block.data) <= self.form.max_record_bytes:
            data = bytes(block.data)
            frame = parsed(data, layout)
            if frame is not None:
                begin, end = block.begin - base, block.end - base
                return FrameRecords(index, begin, end, data, frame, layout.model, self.decode_line)
        return _Lines(self, layout, index, base, block)

    def read(self, block: RawBlock) -> Optional[list[Any]]:
        items = super().read(block)
        return None if items is None or any(map(self._has_other_keys, items)) else items

    def read_line(self, line: bytes) -> Union[Any, Bad]:
        item = super().read_line(line)
        if isinstance(item, Bad) or not self._has_other_keys(item):
            return item
        assert self._layout is not None
        found = f"the keys {sorted(item)}" if isinstance(item, dict) else "no keys"
        message = f"the record has {found}, the file begins with {sorted(self._layout.model)}; a matrix needs the same"
        return Bad("decode_error", "OtherKeys", message)

    def _has_other_keys(self, item: Any) -> bool:
        """Whether a matrix of all keys has no place for it; a row is not to depend on the rows beside it."""
        layout = self._layout
        if self._shape != "numpy" or layout is None or not layout.whole:
            return False
        return not isinstance(item, dict) or item.keys() != layout.types.keys()

    def _laid_out(self, listed: InputObject) -> Optional[Layout]:
        source = open_source(listed, 0, self.form.compression)
        try:
            longest = self.form.max_record_bytes
            block = next(iter(LineBlocks(source, position=0, longest=longest, block_bytes=SAMPLE_BYTES)), None)
        finally:
            source.close()
        if not isinstance(block, RawBlock):
            return None
        items = []
        for line in split_lines(block.data):
            try:
                items.append(self.decode_line(line))
            except UNREADABLE:
                continue  # a bad line, or a blank one
        layout = layout_of(items, self.form.columns, self.carried)
        if layout is None or (self._shape == "numpy" and any(layout.types[name] == "text" for name in layout.model)):
            return None  # a matrix is of numbers
        return layout


class _Lines(LineRecords):
    """A block that is no frame: its items become one, piece by piece, where those of the piece can."""

    def __init__(
        self, reader: FrameReader, layout: Layout, index: int, base: int, block: Union[RawBlock, LongLine]
    ) -> None:
        super().__init__(reader, index, base, block)
        self._layout = layout

    def items(self, first: int, stop: int) -> Any:
        return framed(super().items(first, stop), self._layout)

    def fresh(self, first: int, stop: int) -> Any:
        return framed(super().fresh(first, stop), self._layout)

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        """The same values as a frame would have: in a column of floats, 1 is 1.0."""
        columns = super().carried(names, first, stop)
        types = self._layout.types
        return [
            list(map(_as_float, column)) if types.get(name) == "float" else column
            for name, column in zip(names, columns)
        ]


def layout_of(items: list[Any], columns: Optional[list[str]], carried: Sequence[str]) -> Optional[Layout]:
    """What a sample of records says of their columns, None if they cannot be columns.

    columns: the keys that the model gets, None for all that the sample has. carried: those that results need too. A
    column without any value is taken for numbers.
    """
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    model = list(dict.fromkeys(name for item in items for name in item)) if columns is None else columns
    types = {}
    for name in dict.fromkeys([*model, *carried]):
        found = _type_of({type(item.get(name)) for item in items} - {type(None)})
        if found is None:
            return None
        types[name] = found
    return Layout(types, model, columns is None, carried) if model else None


def _type_of(types: set[type]) -> Optional[str]:
    if types == {int}:
        return "int"
    if types <= {int, float}:
        return "float"
    return {frozenset({bool}): "bool", frozenset({str}): "text"}.get(frozenset(types))


def parsed(data: bytes, layout: Layout) -> Optional[polars.DataFrame]:
    """The frame of a block of JSON lines, None unless it shows what they say: one dict on each line, no value that is
    not of its column's type, no blank line, and no other keys where the model gets all of them.
    """
    try:
        frame = polars.read_ndjson(data, schema={name: _PARSED[type_] for name, type_ in layout.types.items()})
    except (polars.exceptions.PolarsError, ValueError):
        return None
    if frame.height != count_of(data, b"\n") + (not data.endswith(b"\n")):
        return None
    if layout.whole and count_of(data, b'":') != frame.height * len(layout.model):
        return None  # a key is missing or one too many; or text has it, and costs a little time
    texts = [name for name, type_ in layout.types.items() if type_ == "text"]
    if texts:
        frame = frame.with_columns(polars.col(texts).cast(polars.String))
        # What is left of half a surrogate pair, which is no text.
        if frame.select(polars.any_horizontal(polars.col(texts).str.contains("\0", literal=True).any())).item():
            return None
    return frame if _exact(frame, layout) else None


def _exact(frame: polars.DataFrame, layout: Layout) -> bool:
    """Whether whole numbers among floats are still what they were where results carry them."""
    names = [name for name in layout.carried if layout.types[name] == "float"]
    return all((frame[name].abs().max() or 0.0) < _EXACT for name in names)  # type: ignore[operator]


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) < _EXACT else value


def framed(items: list[Any], layout: Layout) -> Any:
    """Items that were read line by line as a frame of the layout; where they cannot be, they keep its order of keys."""
    names = layout.model
    if not all(isinstance(item, dict) for item in items):
        return items
    if layout.whole:
        items = [{**{name: item[name] for name in names if name in item}, **item} for item in items]
        if any(list(item) != names for item in items):
            return items
    columns = dict(zip(names, columns_of(items, names)))
    if not all(_fits(column, layout.types[name]) for name, column in columns.items()):
        return items
    return polars.DataFrame(columns, schema={name: _HELD[layout.types[name]] for name in names}, strict=False)


def _fits(column: list[Any], type_: str) -> bool:
    types = {type(value) for value in column} - {type(None)}
    if type_ == "int":
        return types <= {int} and all(value is None or -(2**63) <= value < 2**63 for value in column)
    known: dict[str, set[type]] = {"float": {int, float}, "bool": {bool}, "text": {str}}
    return types <= known[type_]


def count_of(data: bytes, what: bytes) -> int:
    """How often one or two bytes occur: several times quicker than bytes.count where there are many."""
    values = numpy.frombuffer(data, numpy.uint8)
    found = 0
    for start in range(0, len(values), _COUNTED_BYTES):
        hits = values[start : start + _COUNTED_BYTES] == what[0]
        if len(what) == 2:
            after = values[start + 1 : start + _COUNTED_BYTES + 1] == what[1]
            hits = hits[: len(after)] & after
        found += int(numpy.count_nonzero(hits))
    return found


@functools.lru_cache(maxsize=1)
def usable() -> bool:
    """Whether this release of polars refuses what is not of a column's type, as the one this was made with does."""
    good = b'{"i":1,"f":1,"b":true,"t":"a"}\n{"i":null,"f":0.5,"b":null,"t":null}\n'
    layout = Layout({"i": "int", "f": "float", "b": "bool", "t": "text"}, ["i"], whole=False)
    rows = [(1, 1.0, True, "a"), (None, 0.5, None, None)]
    wrong = {
        b"i": [b"1.5", b"1.0", b'"1"', b"true", b"[1]", b"9223372036854775808"],
        b"f": [b'"1"', b"true", b"[1]", b'"NaN"'],
        b"b": [b"1", b'"true"', b"[]"],
        b"t": [b"1", b"true", b"[1]", b"{}", b'"\\ud800"'],
    }
    lines = [b'{"%b":%b}\n' % (key, value) for key, values in wrong.items() for value in values]
    lines += [b'{"i":1}{"i":2}\n', b'{"i":1\n', b"1\n", b"\n", b'{"i":1} x\n']
    found = parsed(good, layout)
    if found is not None and found.rows() == rows and all(parsed(good + line, layout) is None for line in lines):
        return True
    log(f"polars {polars.__version__} reads JSON lines in a way that is not known: they are read one by one")
    return False
