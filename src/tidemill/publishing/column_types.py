"""The one type that a column of a Parquet result has, when its parts were computed without knowing of each other.

Used by `parquet_tables`. Joining is associative, so that it does not matter how the values were divided. What does not
go together (text and a struct, a number and a truth value) becomes JSON text: nothing is lost.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
from typing import Any

import msgspec
import pyarrow  # type: ignore[import-untyped,unused-ignore]

Type = Any
"""A pyarrow.DataType; None where the column becomes JSON text."""

_json = msgspec.json.Encoder()
types = pyarrow.types


class ColumnType:
    """The type of one column, of what was added so far."""

    def __init__(self) -> None:
        self._kind: Type = pyarrow.null()
        self._wide = False
        self._join = _Join()

    def add(self, field: Any) -> None:
        """field: a column of a frame (pyarrow.Field), marked `wide` if it has integers that no float can tell."""
        self._wide = self._wide or bool(field.metadata and field.metadata.get(b"wide"))
        self._kind = self._join.both(self._kind, self._join.plain(field.type))

    @property
    def kind(self) -> Type:
        if self._kind is None or (self._wide and self._join.floated) or _has_bare_struct(self._kind):
            return None
        return self._kind


class _Join:
    """floated: whether integers and floats have met somewhere."""

    def __init__(self) -> None:
        self.floated = False

    def plain(self, kind: Type) -> Type:
        """A type that Parquet has, for one that may be an encoding of it, or a union."""
        if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
            return self.plain(kind.value_type)
        if isinstance(kind, pyarrow.BaseExtensionType):
            return self.plain(kind.storage_type)
        if types.is_union(kind):
            joined: Type = pyarrow.null()
            for place in range(kind.num_fields):
                joined = self.both(joined, self.plain(kind.field(place).type))
            return joined
        if types.is_struct(kind):
            return self._struct({field.name: self.plain(field.type) for field in kind}, kind.num_fields)
        if _is_list(kind):
            item = self.plain(kind.value_type)
            return None if item is None else pyarrow.list_(item)
        if types.is_map(kind):
            key, item = self.plain(kind.key_type), self.plain(kind.item_type)
            return None if key is None or item is None else pyarrow.map_(key, item)
        return _plain_scalar(kind)

    def both(self, one: Type, two: Type) -> Type:
        """The type that holds the values of two plain types."""
        if one is None or two is None:
            return None
        if one == two or types.is_null(two):
            return one
        if types.is_null(one):
            return two
        if _is_number(one) and _is_number(two):
            return self._number(one, two)
        if _is_list(one) and _is_list(two):
            item = self.both(one.value_type, two.value_type)
            return None if item is None else pyarrow.list_(item)
        if types.is_struct(one) and types.is_struct(two):
            fields = {field.name: field.type for field in one}
            for field in two:
                fields[field.name] = self.both(fields.get(field.name, pyarrow.null()), field.type)
            return self._struct(fields, len(fields))
        if types.is_decimal(one) and types.is_decimal(two):
            return _decimal(one, two)
        return None

    def _struct(self, fields: dict[str, Type], count: int) -> Type:
        if len(fields) != count or None in fields.values():
            return None
        return pyarrow.struct(list(fields.items()))

    def _number(self, one: Type, two: Type) -> Type:
        if types.is_floating(one) and types.is_floating(two):
            return max(one, two, key=_width)
        if types.is_floating(one) or types.is_floating(two):
            self.floated = True
            return pyarrow.float64()
        signed = types.is_signed_integer(one), types.is_signed_integer(two)
        if signed[0] == signed[1]:
            return max(one, two, key=_width)
        unsigned = two if signed[0] else one
        return None if _width(unsigned) == 64 else pyarrow.int64()


def _has_bare_struct(kind: Type) -> bool:
    """Whether there is a struct without fields in it, which Parquet does not know."""
    if types.is_struct(kind) and not kind.num_fields:
        return True
    return any(_has_bare_struct(kind.field(place).type) for place in range(kind.num_fields))


def _plain_scalar(kind: Type) -> Type:
    if types.is_large_string(kind) or types.is_string_view(kind):
        return pyarrow.string()
    if types.is_large_binary(kind) or types.is_binary_view(kind) or types.is_fixed_size_binary(kind):
        return pyarrow.binary()
    if types.is_float16(kind):
        return pyarrow.float32()
    return None if types.is_interval(kind) else kind


def _is_list(kind: Type) -> bool:
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or types.is_list_view(kind)
        or types.is_large_list_view(kind)
    )


def _is_number(kind: Type) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind))


def _width(kind: Type) -> int:
    return int(kind.bit_width)


def _decimal(one: Type, two: Type) -> Type:
    scale = max(one.scale, two.scale)
    digits = max(one.precision - one.scale, two.precision - two.scale) + scale
    if digits > 76:
        return None
    return pyarrow.decimal128(digits, scale) if digits <= 38 else pyarrow.decimal256(digits, scale)


def converted(array: Any, kind: Type) -> Any:
    """An array of a frame as the column's type, None for JSON text."""
    if kind is None:
        # Python has no nanoseconds; a model that gives them gives them in every frame.
        finer = getattr(array.type, "unit", None) == "ns"
        values = (array.cast(pyarrow.string()) if finer else array).to_pylist()
        return pyarrow.array([None if each is None else json_text(each) for each in values], pyarrow.string())
    if array.type == kind:
        return array
    if types.is_null(array.type):
        return pyarrow.nulls(len(array), kind)
    if _is_flat(array.type) or (_is_list(array.type) and _is_flat(array.type.value_type)):
        return array.cast(kind)
    return pyarrow.array(array.to_pylist(), kind)


def _is_flat(kind: Type) -> bool:
    return not (types.is_nested(kind) or types.is_union(kind))


def json_text(value: Any) -> str:
    """Canonical: keys sorted, those of nulls left out, as a frame tells neither their order nor null from not there."""
    return _json.encode(_bare(value)).decode()


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(value[name]) for name in sorted(value) if value[name] is not None}
    if isinstance(value, list | tuple):
        return [_bare(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return format(value.normalize(), "f")  # how many zeros it ends in was that of its neighbours
    return str(value) if isinstance(value, datetime.timedelta) else value
