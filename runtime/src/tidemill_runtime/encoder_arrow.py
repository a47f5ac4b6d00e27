"""Predictions as Arrow streams, staged for results in Parquet. Used by the worker; the only encoder that needs pyarrow.

Nothing is widened or guessed here, because a column's type is known only when all of it is computed: values of several
kinds in one column are a union, and the publisher decides. So the result never shows where mini-batches ended.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime.encoder_columns import carried, column_list, frame, predicted, to_plain
from tidemill_runtime.faults import FatalError

try:
    import pyarrow  # type: ignore[import-untyped,unused-ignore]
    import pyarrow.compute  # type: ignore[import-untyped,unused-ignore]
except ImportError as error:
    raise FatalError(
        "missing_module", "results in Parquet need pyarrow, which is not installed where the model runs", str(error)
    ) from error

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import ResultFormat
    from tidemill_runtime.isolation import Piece

WIDE = 2**53
"""Integers beyond it are no floats: such a column is marked, and never becomes one of floats."""


class ArrowEncoder:
    def __init__(self, result: ResultFormat) -> None:
        self._result = result

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        known = self._carried(records, first, stop)
        return _stream(known, predicted(piece, first, stop), stop - first)

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return _stream({} if item is None else self._carried(records, item, item + 1), {}, 1)

    def _carried(self, records: Records, first: int, stop: int) -> dict[str, Any]:
        return carried(self._result, records, first, stop)


def _stream(known: dict[str, Any], found: dict[str, Any], rows: int) -> bytes:
    columns = [_array(column) for column in (*known.values(), *found.values())]
    if not columns:
        return frame(b"", rows)
    fields = [
        pyarrow.field(name, column.type, metadata={"wide": "1"} if _wide(column) else None)
        for name, column in zip((*known, *found), columns)
    ]
    schema = pyarrow.schema(fields)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pyarrow.RecordBatch.from_arrays(columns, schema=schema))
    return frame(sink.getvalue().to_pybytes(), rows, carried=len(known))


def _array(column: Any) -> Any:
    """A column of whatever kind as an Arrow array."""
    if isinstance(column, pyarrow.ChunkedArray):
        return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    if isinstance(column, pyarrow.Array):
        return column
    if hasattr(column, "to_arrow"):  # polars
        return _array(column.to_arrow())
    if type(column) is list:
        return array_of(column)
    kind = getattr(getattr(column, "dtype", None), "kind", "O")
    if kind in "biuf" and type(column).__module__.split(".")[0] == "numpy":
        return _of_numpy(column)
    if kind in "biufmM" and hasattr(column, "iloc"):
        made = _array(pyarrow.Array.from_pandas(column))  # NaN is null
        return made if made.null_count < len(made) else pyarrow.nulls(len(made))  # of floats only for want of values
    return array_of(column_list(column))


def _of_numpy(column: Any) -> Any:
    """An array of numbers; one of several dimensions is a column of lists."""
    if column.ndim == 1:
        return pyarrow.array(column)
    widths = column.shape[1:]
    if 0 in widths:
        return array_of(column.tolist())
    array = pyarrow.array(column.reshape(-1))
    for width in reversed(widths):
        array = pyarrow.FixedSizeListArray.from_arrays(array, width)
    return array


def array_of(values: list[Any]) -> Any:
    """Python's values as an Arrow array that holds them exactly: a union where they are of several kinds.

    In a dict a key that is null and one that is not there are the same.
    """
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pyarrow.nulls(len(values))
    if len(kinds) == 1:
        made = _of_kind(kinds.pop(), values)
        if made is not None:
            return made
        values = [None if value is None else _known(value) for value in values]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) == 1 and (made := _of_kind(kinds.pop(), values)) is not None:
            return made
    return _union(values)


def _of_kind(kind: type, values: list[Any]) -> Any:
    """An array of values of one kind and None; None where this kind has to be made another first."""
    if kind is dict:
        return _struct(values)
    if kind in (list, tuple):
        return _lists(values)
    if kind is int:
        try:
            return pyarrow.array(values, pyarrow.int64())
        except OverflowError:
            return None
    exact = {bool: pyarrow.bool_(), float: pyarrow.float64(), str: pyarrow.string(), bytes: pyarrow.binary()}
    if kind in exact:
        return pyarrow.array(values, exact[kind])
    if kind.__module__ in ("datetime", "decimal"):
        return pyarrow.array(values)
    return _of_unsigned(values) if kind is _Unsigned else None


class _Unsigned(int):
    """An integer of more than 63 bits, which is a kind of its own."""


def _of_unsigned(values: list[Any]) -> Any:
    return pyarrow.array([None if value is None else int(value) for value in values], pyarrow.uint64())


_EXACT = {bool, int, float, str, bytes, list, tuple, dict, _Unsigned}


def _known(value: Any) -> Any:
    """A value of a kind that Arrow has."""
    kind = type(value)
    if kind is int and not -(2**63) <= value < 2**63:
        return _Unsigned(value) if 0 <= value < 2**64 else str(value)
    if value is None or kind in _EXACT or kind.__module__ in ("datetime", "decimal"):
        return value
    if kind in (bytearray, memoryview):
        return bytes(value)
    if hasattr(value, "tolist"):  # NumPy's
        return _known(value.tolist())
    return to_plain(value)


def _struct(values: list[Any]) -> Any:
    names: dict[str, None] = {}
    for value in values:
        if value is not None:
            names.update(dict.fromkeys(map(str, value)))
    missing = pyarrow.array([value is None for value in values], pyarrow.bool_())
    if not names:
        return pyarrow.array(values, pyarrow.struct([]))
    rows = [value and {str(name): each for name, each in value.items()} for value in values]
    children = [array_of([row.get(name) if row else None for row in rows]) for name in names]
    return pyarrow.StructArray.from_arrays(children, list(names), mask=missing)


def _lists(values: list[Any]) -> Any:
    offsets: list[Optional[int]] = []
    end = 0
    for value in values:
        offsets.append(None if value is None else end)
        end += 0 if value is None else len(value)
    offsets.append(end)
    children = array_of(list(chain.from_iterable(value for value in values if value is not None)))
    return pyarrow.ListArray.from_arrays(pyarrow.array(offsets, pyarrow.int32()), children)


def _union(values: list[Any]) -> Any:
    children: dict[type, list[Any]] = {}
    types, offsets = bytearray(), []
    for value in map(_known, values):
        own = children.setdefault(type(value), [])
        types.append(list(children).index(type(value)))
        offsets.append(len(own))
        own.append(value)
    return pyarrow.UnionArray.from_dense(
        pyarrow.array(types, pyarrow.int8()),
        pyarrow.array(offsets, pyarrow.int32()),
        [array_of(own) for own in children.values()],
    )


def _wide(array: Any) -> bool:
    """Whether there are integers in it, at any depth, that no float can tell."""
    kind = array.type
    if pyarrow.types.is_int64(kind) or pyarrow.types.is_uint64(kind):
        bounds = pyarrow.compute.min_max(array).as_py()
        return bounds["min"] is not None and (bounds["min"] < -WIDE or bounds["max"] > WIDE)
    if pyarrow.types.is_union(kind) or pyarrow.types.is_struct(kind):
        # Not flatten(): pyarrow gives up the process where a struct has a union in it.
        return any(_wide(array.field(place)) for place in range(kind.num_fields))
    if pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind) or pyarrow.types.is_fixed_size_list(kind):
        return _wide(array.flatten())
    return False
