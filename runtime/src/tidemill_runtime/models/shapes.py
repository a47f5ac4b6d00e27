"""What a model's batch is: the names, and how a type hint or the attribute `batch` gives one.

A shape is one of SHAPES. The codecs make items of JSON values, text or paths; `convert` makes of them what the model
wants.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, Optional

from tidemill_runtime.codec.records import COLUMNAR

RECORD = "record"
"""Whatever the format's records are: dict or other JSON values, str, a file's path."""

TYPED = "typed"
"""Records of a type of the model's own."""

SHAPES = ("record", "dict", "str", "bytes", "path", TYPED, *COLUMNAR)

_BY_TYPE: dict[tuple[str, str], str] = {
    ("numpy", "ndarray"): "numpy",
    ("pandas", "DataFrame"): "pandas",
    ("polars", "DataFrame"): "polars",
    ("pyarrow", "Table"): "arrow",
    ("pyarrow", "RecordBatch"): "arrow",
}
_BY_ELEMENT = {"dict": "dict", "str": "str", "bytes": "bytes", "Path": "path", "PosixPath": "path"}
_SEQUENCES = ("list", "Sequence", "Iterable", "List")


class Shape(NamedTuple):
    """name: one of SHAPES. batched: whether predict gets a batch. record: the type of its records, if it is TYPED."""

    name: str
    batched: bool
    record: Any = None


def of_model(cls: Any) -> Shape:
    """What a model class wants."""
    stated = getattr(cls, "batch", None)
    if isinstance(stated, str):
        return Shape(stated if stated in SHAPES and stated != TYPED else RECORD, True)
    hinted = _of_hint(cls)
    if hinted is not None and stated is not False:
        return hinted
    return Shape(RECORD, stated is True or (stated is None and _first_parameter(cls) == "batch"))


def of_function(function: Any) -> Shape:
    """What a plain function wants, by the hint or else by the name of its first parameter."""
    while hasattr(function, "__wrapped__"):  # decorated by functools.wraps
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    if code is None:
        return Shape(RECORD, False)
    bound = 1 if hasattr(function, "__self__") else 0
    name = code.co_varnames[bound] if code.co_argcount > bound else ""
    hinted = _named_by(function, name, function.__globals__)
    return Shape(RECORD, name == "batch") if hinted is None else hinted


def _of_hint(cls: Any) -> Optional[Shape]:
    name = _first_parameter(cls)
    return _named_by(cls.predict, name, vars(sys.modules[cls.__module__])) if name else None


def _named_by(function: Any, name: str, scope: dict[str, Any]) -> Optional[Shape]:
    """The shape that the hint of a parameter names."""
    hint = getattr(function, "__annotations__", {}).get(name)
    while isinstance(hint, str):  # twice, where a quoted hint meets `from __future__ import annotations`
        hint = _evaluated(hint, scope)
    return None if hint is None else _of_type(hint)


def _first_parameter(cls: Any) -> str:
    """The name of what predict is given, "" if it says none."""
    code = getattr(getattr(cls, "predict", None), "__code__", None)
    return code.co_varnames[1] if code is not None and code.co_argcount > 1 else ""


def _evaluated(hint: str, names: dict[str, Any]) -> Any:
    """A hint that is a string (`from __future__ import annotations`) as what it names; None if that cannot be known."""
    try:
        return eval(hint, dict(names))  # noqa: S307 (the user's own hint, in the user's own process)
    except Exception:
        return None


def _of_type(hint: Any) -> Optional[Shape]:
    origin = getattr(hint, "__origin__", None)
    if origin is not None:
        arguments = getattr(hint, "__args__", None)
        if getattr(origin, "__name__", "") in _SEQUENCES and arguments:
            element = arguments[0]
            element = getattr(element, "__origin__", element)
            if _is_record(element):
                return Shape(TYPED, True, element)
            return _batch_of(_BY_ELEMENT.get(getattr(element, "__name__", "")))
        hint = origin
    module = getattr(hint, "__module__", "").split(".")[0]
    return _batch_of(_BY_TYPE.get((module, getattr(hint, "__name__", ""))))


def _batch_of(name: Optional[str]) -> Optional[Shape]:
    return None if name is None else Shape(name, True)


def _is_record(kind: Any) -> bool:
    """Whether it is a class whose fields have names and types: a msgspec Struct, a dataclass or a TypedDict."""
    return any(hasattr(kind, mark) for mark in ("__struct_fields__", "__dataclass_fields__", "__required_keys__"))


def convert(items: Any, shape: str, record: Any = None) -> Any:
    """Items of a block (a list, a polars frame, or rows in Arrow's columns) as the batch that a model wants.

    record: the type of its records, where it is typed.

    Raises ValueError or TypeError where they cannot be that. What is imported here is what the model's own hint names.
    """
    if shape == TYPED:
        return _typed(items, record)
    if isinstance(items, list):
        return _from_list(items, shape)
    if type(items).__module__.split(".", 1)[0] == "polars":
        return _from_frame(items, shape)
    if shape == "arrow":
        import pyarrow  # type: ignore[import-untyped,unused-ignore]

        return pyarrow.Table.from_batches([items])
    if shape == "pandas":
        return items.to_pandas()
    if shape == "polars":
        import polars

        return polars.from_arrow(items)
    if shape == "numpy":
        import numpy

        return numpy.column_stack([column.to_numpy(zero_copy_only=False) for column in items.columns])
    return _from_list(items.to_pylist(), shape)


def _from_frame(frame: Any, shape: str) -> Any:
    """Of a polars frame of numbers, truth and text."""
    if shape == "polars":
        return frame
    if shape == "arrow":
        return frame.to_arrow()
    if shape == "numpy":
        import polars

        # null becomes NaN; the copy is the model's own, column after column
        return frame.cast(polars.Float64).to_numpy(order="fortran", writable=True)
    if shape == "pandas":
        import pandas  # type: ignore[import-untyped,unused-ignore]

        # not frame.to_pandas(), which needs pyarrow
        return pandas.DataFrame({column.name: _for_pandas(column) for column in frame.get_columns()})
    return _from_list(frame.to_dicts(), shape)


def _for_pandas(column: Any) -> Any:
    """What pandas makes the same column of as of the values one by one: numbers with null are floats with NaN."""
    if column.dtype.is_numeric() or (str(column.dtype) == "Boolean" and not column.null_count()):
        return column.to_numpy(writable=True)
    return column.to_list()


def _from_list(items: list[Any], shape: str) -> Any:
    if shape in (RECORD, "dict"):
        return items
    if shape == "str":
        return [_text(item) for item in items]
    if shape == "bytes":
        return [item if isinstance(item, bytes) else _text(item).encode() for item in items]
    if shape == "path":
        import pathlib

        return [pathlib.Path(item) for item in items]
    if shape == "numpy":
        return _matrix(items)
    if shape == "pandas":
        import pandas  # type: ignore[import-untyped,unused-ignore]

        return pandas.DataFrame.from_records([_named(item) for item in items])
    if shape == "polars":
        import polars

        return polars.DataFrame([_named(item) for item in items], infer_schema_length=None)
    import pyarrow  # type: ignore[import-untyped,unused-ignore]

    return pyarrow.Table.from_pylist([_named(item) for item in items])


def _typed(items: Any, record: Any) -> list[Any]:
    """Records of JSON lines are of the type already; those of other formats are made so."""
    import msgspec

    listed = items if isinstance(items, list) else items.to_pylist()
    if not listed or (isinstance(record, type) and type(listed[0]) is record):
        return listed
    try:
        return msgspec.convert(listed, list[record], strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None


def _text(item: Any) -> str:
    """A string; the only column of a record; else the record's JSON."""
    if isinstance(item, dict) and len(item) == 1:
        item = next(iter(item.values()))
    if isinstance(item, str):
        return item
    import msgspec

    return msgspec.json.encode(item).decode()


def _named(item: Any) -> dict[str, Any]:
    if isinstance(item, dict):
        return item
    return {"value": item}


def _matrix(items: Any) -> Any:
    """A matrix of floats, a row for each item; the columns are the keys of the first."""
    import numpy

    if items and isinstance(items[0], dict):
        names = list(items[0])
        for item in items:
            if len(item) != len(names):
                raise ValueError(
                    f"a record has the keys {sorted(item)}, another {sorted(names)}; a matrix needs the same"
                )
        items = [[item[name] for name in names] for item in items]
    return numpy.asarray(items, dtype=numpy.float64)
