"""An ONNX model, run by onnxruntime on the CPU (docs/guides/models/onnx.md).

A model with one input gets each record's values in their order; one with several gets the columns of their names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from tidemill_runtime.models.columns import Columns, numbers, threads
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, library, load_failed, unusable

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest

_TYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "bool": "bool",
    "string": "object",
    **{name: name for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
"""NumPy's name of each type of ONNX that a record can hold."""


class _Input(NamedTuple):
    """One input of the model. inner: its dimensions after the first, None where any length will do."""

    name: str
    dtype: str
    inner: tuple[Any, ...]


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The session, called with what its inputs want. Raises FatalError."""
    runtime = library("onnxruntime", "onnx")
    options = runtime.SessionOptions()
    count = threads(os.environ)
    if count:
        options.intra_op_num_threads = count
    options.inter_op_num_threads = 1
    try:
        session = runtime.InferenceSession(info.entry, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise load_failed(error) from error
    inputs = [_input_of(each) for each in session.get_inputs()]
    names = _outputs(session, info.options.get("outputs"))
    one_by_one = any(each.shape and each.shape[0] == 1 for each in session.get_inputs())

    def run(feed: dict[str, Any]) -> Any:
        if not one_by_one:
            return _returned(names, session.run(names, feed))
        rows = [
            session.run(names, {name: array[row : row + 1] for name, array in feed.items()})
            for row in range(len(next(iter(feed.values()))))
        ]
        return _returned(names, [_joined(column) for column in zip(*rows)])

    folders = folders_of(manifest)
    wanted = info.options.get("columns")
    if wanted is None and len(inputs) == 1:
        only = inputs[0]
        if only.dtype == "object":
            return Model(lambda texts: run({only.name: _texts(texts, only)}), "str", True, None, folders)
        return Model(lambda matrix: run({only.name: _matrix(matrix, only)}), "numpy", True, None, folders)
    library("polars", "onnx")
    if len(inputs) == 1:
        return Model(_of_columns(run, inputs[0], Columns(wanted or (), sparse=False)), "polars", True, None, folders)
    columns = Columns(wanted or [each.name for each in inputs], sparse=False)
    if len(columns.names) != len(inputs):
        raise unusable(f"the option columns names {len(columns.names)}, and the model has {len(inputs)} inputs")
    return Model(_of_inputs(run, inputs, columns), "polars", True, None, folders)


def _input_of(found: Any) -> _Input:
    kind = found.type.removeprefix("tensor(").removesuffix(")") if found.type.startswith("tensor(") else ""
    dtype = _TYPES.get(kind)
    if dtype is None:
        raise unusable(f"the model's input {found.name!r} is a {found.type}, which a record cannot hold")
    first = found.shape[0] if found.shape else None
    if isinstance(first, int) and first > 1:
        raise unusable(
            f"the model's input {found.name!r} takes exactly {first} records at once; export it with a free first "
            "dimension (dynamic batch)"
        )
    inner = tuple(each if isinstance(each, int) else None for each in found.shape[1:])
    return _Input(found.name, dtype, inner)


def _outputs(session: Any, wanted: Any) -> list[str]:
    there = [each.name for each in session.get_outputs()]
    unknown = [name for name in wanted or () if name not in there]
    if unknown:
        raise unusable(f"the model has no output {unknown[0]!r}; it has {', '.join(there)}")
    return list(wanted or there)


def _of_columns(run: Any, only: _Input, columns: Columns) -> Any:
    """A model of one input, given the named columns of each record as its row."""

    def call(frame: Any) -> Any:
        taken = columns.take(frame)
        if only.dtype == "object":
            return run({only.name: _texts(taken[columns.names[0]].to_list(), only)})
        return run({only.name: _matrix(numbers(taken), only)})

    return call


def _of_inputs(run: Any, inputs: list[_Input], columns: Columns) -> Any:
    """A model of several inputs, each given the column of its name."""

    def call(frame: Any) -> Any:
        taken = columns.take(frame)
        return run({each.name: _column(taken[name], each) for name, each in zip(columns.names, inputs)})

    return call


def _column(series: Any, wanted: _Input) -> Any:
    import numpy  # there wherever onnxruntime is; after the fork

    if wanted.dtype == "object":
        return _texts(series.to_list(), wanted)
    if series.dtype.is_nested():
        return _matrix(numpy.asarray(series.to_list()), wanted)
    return _matrix(numbers(series.to_frame()), wanted)


def _texts(values: Sequence[Any], wanted: _Input) -> Any:
    import numpy

    if not all(isinstance(value, str) for value in values):
        other = next(value for value in values if not isinstance(value, str))
        raise ValueError(f"the input {wanted.name!r} wants a text, and the record has {other!r:.80}")
    array = numpy.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape((len(values), *([1] * len(wanted.inner))))


def _matrix(values: Any, wanted: _Input) -> Any:
    """An array as the input wants it. Raises ValueError where a record has another shape or values of another kind."""
    import numpy

    if values.dtype.kind not in "fiub":
        raise ValueError(f"the input {wanted.name!r} wants numbers")
    rank = 1 + len(wanted.inner)
    while values.ndim > rank and values.shape[1] == 1:  # a record of one column that holds the whole row
        values = values.reshape((values.shape[0], *values.shape[2:]))
    if values.ndim < rank and values.ndim == 1:
        values = values.reshape((values.shape[0], *([1] * (rank - 1))))
    fits = values.ndim == rank and all(want in (None, has) for want, has in zip(wanted.inner, values.shape[1:]))
    if not fits:
        shown = [size if size is not None else "any" for size in wanted.inner]
        raise ValueError(
            f"the input {wanted.name!r} wants values of the shape {shown}, and the record has {list(values.shape[1:])}"
        )
    if (
        numpy.dtype(wanted.dtype).kind in "iub"
        and values.dtype.kind == "f"
        and not (values == numpy.trunc(values)).all()
    ):
        raise ValueError(f"the input {wanted.name!r} wants whole numbers ({wanted.dtype})")
    return numpy.ascontiguousarray(values, dtype=wanted.dtype)


def _returned(names: list[str], outputs: Sequence[Any]) -> Any:
    """One output as it is, several as columns; an output of one value for each record is that value."""
    columns = [_flat(output) for output in outputs]
    return columns[0] if len(columns) == 1 else dict(zip(names, columns))


def _flat(output: Any) -> Any:
    shape: Any = getattr(output, "shape", ())
    return output.reshape(-1) if len(shape) == 2 and shape[1] == 1 else output


def _joined(outputs: Sequence[Any]) -> Any:
    if all(hasattr(each, "shape") for each in outputs):
        import numpy

        return numpy.concatenate(list(outputs))
    return [value for each in outputs for value in each]
