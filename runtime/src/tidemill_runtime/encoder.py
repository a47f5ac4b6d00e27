"""Predictions as bytes of the result format. Used by the worker, a mini-batch at a time.

NaN and infinities become `null`, as JSON has neither; NumPy scalars and arrays become what their tolist() says. What
cannot be written is that record's failure (encode_error), never the batch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

import msgspec

from tidemill_runtime.faults import FatalError
from tidemill_runtime.isolation import Outcome
from tidemill_runtime.suspicion import Failure

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import InputObject, ResultFormat

Encoded = tuple[list[bytes], dict[int, Failure]]
"""A line for each item of a mini-batch (b"" where it failed) and the failures, by index from its first."""


class Encoder(Protocol):
    """failed_line: what a failed record leaves in the result."""

    failed_line: bytes

    def block(self, records: Records, first: int, outcome: Outcome) -> bytes:
        """All predictions of an outcome without failures. Raises what encoding raises."""

    def lines(self, records: Records, first: int, outcome: Outcome) -> Encoded:
        """The same one by one, failures and all."""


def make_encoder(result: ResultFormat, objects: list[InputObject]) -> Encoder:
    """The encoder of a lease's results. Raises FatalError for a type that there is none for."""
    if result.type == "jsonl":
        return JsonEncoder(result, objects)
    if result.type == "text":
        return TextEncoder()
    raise FatalError("format_mismatch", f"result.type {result.type!r} cannot be written by this runtime")


class JsonEncoder:
    """JSON lines in one of the forms: aligned, joined, named. Line n is record n's in each of them."""

    failed_line = b"null\n"

    def __init__(self, result: ResultFormat, objects: list[InputObject]) -> None:
        self._encoder = msgspec.json.Encoder(enc_hook=_plain)
        self._form = result.form
        self._keys = result.keys
        self._objects = objects

    def block(self, records: Records, first: int, outcome: Outcome) -> bytes:
        lines = outcome.predictions if self._bare else self._shaped(records, first, outcome)
        return self._encoder.encode_lines(lines)

    def lines(self, records: Records, first: int, outcome: Outcome) -> Encoded:
        shaped = outcome.predictions if self._bare else self._shaped(records, first, outcome)
        return _one_by_one(shaped, outcome, lambda value: self._encoder.encode(value) + b"\n")

    @property
    def _bare(self) -> bool:
        return self._form == "aligned" and not self._keys

    def _shaped(self, records: Records, first: int, outcome: Outcome) -> list[Any]:
        predictions = outcome.predictions
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

    failed_line = b"\n"

    def block(self, records: Records, first: int, outcome: Outcome) -> bytes:
        return b"".join([_text_line(prediction) for prediction in outcome.predictions])

    def lines(self, records: Records, first: int, outcome: Outcome) -> Encoded:
        return _one_by_one(outcome.predictions, outcome, _text_line)


def _text_line(prediction: Any) -> bytes:
    line = str(prediction).encode()
    if b"\n" in line or b"\r" in line:
        raise ValueError("the prediction has several lines, and a line of the text format holds one; use jsonl")
    return line + b"\n"


def _one_by_one(values: list[Any], outcome: Outcome, encode: Callable[[Any], bytes]) -> Encoded:
    lines: list[bytes] = []
    failed: dict[int, Failure] = dict(outcome.failed)
    for item, value in enumerate(values):
        line = b""
        if item not in failed:
            try:
                line = encode(value)
            except Exception as error:
                failed[item] = Failure("encode_error", type(error).__name__, str(error), "", 1)
        lines.append(line)
    return lines, failed


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
