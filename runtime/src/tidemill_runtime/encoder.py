"""Predictions as bytes of the result format. Used by the worker, a mini-batch at a time.

NaN and infinities become `null`, as JSON has neither; NumPy scalars and arrays become what their tolist() says. What
cannot be written is that record's failure (encode_error), never the batch's.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import msgspec

from tidemill_runtime.faults import FatalError
from tidemill_runtime.isolation import Piece
from tidemill_runtime.models.returned import columns_of, listed

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputObject, ResultFormat


PREDICTION = "prediction"
"""The key of a prediction that stands beside what was carried over from its record."""


class Encoder(Protocol):
    """What a lease leaves in its part's data. One and the same prediction is the same bytes wherever it stands: neither
    the bounds of mini-batches nor what failed beside it may show.
    """

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        """The predictions of the items [first, stop) of a piece, which are rows one after another.

        Raises what encoding raises: then it is asked for fewer of them, until those that fail are found.
        """

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        """What one failed record leaves in the result. item: its number, None where it could not be read."""


def carried(result: ResultFormat) -> Optional[list[str]]:
    """The input columns that results need, None for whole records."""
    if result.form == "joined":
        return None
    return result.keys if result.form == "aligned" else []


def make_encoder(result: ResultFormat, objects: list[InputObject]) -> Encoder:
    """The encoder of a lease's results. Raises FatalError for a type that there is none for."""
    if result.type == "jsonl":
        return JsonEncoder(result, objects)
    if result.type == "text":
        return TextEncoder()
    # What the tables of other types need is loaded only where one is wanted.
    if result.type == "csv":
        from tidemill_runtime.encoder_columns import CsvEncoder

        return CsvEncoder(result)
    if result.type == "file":
        from tidemill_runtime.encoder_columns import FileEncoder

        return FileEncoder()
    if result.type == "parquet":
        from tidemill_runtime.encoder_arrow import ArrowEncoder

        return ArrowEncoder(result)
    raise FatalError("format_mismatch", f"result.type {result.type!r} cannot be written by this runtime")


class JsonEncoder:
    """JSON lines in one of the forms: aligned, joined, named. Line n is record n's in each of them."""

    def __init__(self, result: ResultFormat, objects: list[InputObject]) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        self._form = result.form
        self._keys = result.keys
        self._objects = objects
        self._lists = _Lists(_rows)
        self._line = _row_type((*result.keys, PREDICTION))

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        predictions = self._lists.of(piece, first, stop)
        bare = self._form == "aligned" and not self._keys
        return self._encoder.encode_lines(predictions if bare else self._shaped(records, first, predictions))

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return b"null\n"

    def _shaped(self, records: Records, first: int, predictions: list[Any]) -> list[Any]:
        if self._form == "named":
            rows = records.item_rows
            start = records.object
            return [
                {"path": self._objects[start + (rows[item] if rows else item)].name, PREDICTION: prediction}
                for item, prediction in enumerate(predictions, first)
            ]
        stop = first + len(predictions)
        if self._form == "joined":
            return [
                {**(field if isinstance(field, dict) else {"input": field}), PREDICTION: prediction}
                for field, prediction in zip(records.fields(first, stop), predictions)
            ]
        columns = [*records.carried(self._keys, first, stop), predictions]
        if self._line is not None:
            return list(map(self._line, *columns))
        names = [*self._keys, PREDICTION]
        return [dict(zip(names, values)) for values in zip(*columns)]


class TextEncoder:
    """Each prediction's own text on a line."""

    def __init__(self) -> None:
        self._lists = _Lists(listed)

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        return b"".join(map(_text_line, self._lists.of(piece, first, stop)))

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return b"\n"


def _text_line(prediction: Any) -> bytes:
    line = str(prediction).encode()
    if b"\n" in line or b"\r" in line:
        raise ValueError("the prediction has several lines, and a line of the text format holds one; use jsonl")
    return line + b"\n"


class _Lists:
    """Predictions as lists; what was returned for a piece is made one once, however often parts of it are asked for."""

    def __init__(self, make: Callable[[Any], list[Any]]) -> None:
        self._make = make
        self._piece: Optional[Piece] = None
        self._list: list[Any] = []

    def of(self, piece: Piece, first: int, stop: int) -> list[Any]:
        if piece is not self._piece:
            self._list = self._make(piece.returned)
            self._piece = piece
        if (first, stop) == (piece.first, piece.stop):
            return self._list
        return self._list[first - piece.first : stop - piece.first]


def _rows(returned: Any) -> list[Any]:
    """Predictions as values for msgspec; of a frame, a table or a dict of columns as structs, which write themselves as
    dicts would, in half the time.
    """
    columns = columns_of(returned)
    row = None if columns is None else _row_type(tuple(columns))
    if columns is None or row is None:
        return listed(returned)
    return list(map(row, *map(listed, columns.values())))


@functools.lru_cache(maxsize=64)
def _row_type(names: tuple[str, ...]) -> Optional[Callable[..., Any]]:
    """A struct with these keys; None where msgspec has none for them (it takes no quotes, for example)."""
    fields = [f"c{place}" for place in range(len(names))]
    try:
        return msgspec.defstruct("Row", [(field, Any) for field in fields], rename=dict(zip(fields, names)), gc=False)
    except (ValueError, TypeError):
        return None


def _plain(value: Any) -> Any:
    """What msgspec does not know, as something that it does."""
    for method in ("tolist", "as_py", "item", "to_dict"):
        convert: Optional[Callable[[], Any]] = getattr(value, method, None)
        if convert is not None:
            return convert()
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(
        f"a prediction holds a {type(value).__module__}.{type(value).__qualname__}, which cannot be written as JSON"
    )
