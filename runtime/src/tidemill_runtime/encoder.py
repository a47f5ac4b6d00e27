"""Predictions as bytes of the result format. Used by the worker, a mini-batch at a time.

NaN and infinities become `null`, as JSON has neither; NumPy scalars and arrays become what their tolist() says. What
cannot be written is that record's failure (encode_error), never the batch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import msgspec

from tidemill_runtime.faults import FatalError
from tidemill_runtime.isolation import Piece
from tidemill_runtime.models.returned import listed

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputObject, ResultFormat


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


def make_encoder(result: ResultFormat, objects: list[InputObject]) -> Encoder:
    """The encoder of a lease's results. Raises FatalError for a type that there is none for."""
    if result.type == "jsonl":
        return JsonEncoder(result, objects)
    if result.type == "text":
        return TextEncoder()
    raise FatalError("format_mismatch", f"result.type {result.type!r} cannot be written by this runtime")


class JsonEncoder:
    """JSON lines in one of the forms: aligned, joined, named. Line n is record n's in each of them."""

    def __init__(self, result: ResultFormat, objects: list[InputObject]) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        self._form = result.form
        self._keys = result.keys
        self._objects = objects

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        predictions = _part(listed(piece.returned), piece, first, stop)
        bare = self._form == "aligned" and not self._keys
        return self._encoder.encode_lines(predictions if bare else self._shaped(records, first, predictions))

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return b"null\n"

    def _shaped(self, records: Records, first: int, predictions: list[Any]) -> list[Any]:
        if self._form == "named":
            rows = records.item_rows
            start = records.object
            return [
                {"path": self._objects[start + (rows[item] if rows else item)].name, "prediction": prediction}
                for item, prediction in enumerate(predictions, first)
            ]
        fields = records.fields(first, first + len(predictions))
        if self._form == "joined":
            return [
                {**(field if isinstance(field, dict) else {"input": field}), "prediction": prediction}
                for field, prediction in zip(fields, predictions)
            ]
        keys = self._keys
        return [
            {**({key: field.get(key) for key in keys} if isinstance(field, dict) else {}), "prediction": prediction}
            for field, prediction in zip(fields, predictions)
        ]


class TextEncoder:
    """Each prediction's own text on a line."""

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        return b"".join(map(_text_line, _part(listed(piece.returned), piece, first, stop)))

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return b"\n"


def _text_line(prediction: Any) -> bytes:
    line = str(prediction).encode()
    if b"\n" in line or b"\r" in line:
        raise ValueError("the prediction has several lines, and a line of the text format holds one; use jsonl")
    return line + b"\n"


def _part(predictions: list[Any], piece: Piece, first: int, stop: int) -> list[Any]:
    if (first, stop) == (piece.first, piece.stop):
        return predictions
    return predictions[first - piece.first : stop - piece.first]


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
