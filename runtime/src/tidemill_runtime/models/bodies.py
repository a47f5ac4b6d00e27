"""The bodies of requests to a model's HTTP server and of its answers: JSON, JSON lines, CSV, text, or a bare record.

Used by `http`.
"""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any, Callable, Optional

import msgspec

from tidemill_runtime.models.outside import RecordFault
from tidemill_runtime.models.returned import WrongLength

if TYPE_CHECKING:
    from tidemill_runtime.contract import Command

_JSON = ("application/json",)
_JSON_LINES = ("application/jsonlines", "application/jsonl", "application/x-ndjson", "application/json-lines")
_CSV = ("text/csv",)
_TEXT = ("text/plain",)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Bodies:
    """plain: records are texts or paths, not JSON values. files: they are paths, of files that are sent themselves."""

    def __init__(self, command: Command, *, plain: bool, files: bool) -> None:
        self._type = _bare(command.content_type)
        self._key = command.key
        self._plain = plain
        self._files = files
        self._one = command.records == "one" or self._type not in (*_JSON, *_JSON_LINES, *_CSV, *_TEXT)

    def requests(self, records: list[Any], least: int, most_bytes: int) -> list[list[Any]]:
        """The records of each request: about equally many in at least so many, and no more bytes than permitted (as far
        as the first records tell).
        """
        if self._one:
            return [[record] for record in records]
        each_bytes = len(self.write(records[:32])) / min(32, len(records))
        most = max(1, int(most_bytes / max(1.0, each_bytes)))
        count = max(min(least, len(records)), -(-len(records) // most))
        at = [len(records) * number // count for number in range(count + 1)]
        return [records[low:high] for low, high in zip(at, at[1:])]

    def write(self, records: list[Any]) -> bytes:
        """One request's body. Raises ValueError or TypeError for records that cannot be in it."""
        if self._one:
            return self._single(records[0])
        if self._type in _JSON:
            return _encode({self._key: records} if self._key else records)
        if self._type in _CSV:
            return _csv([_fields(record) for record in records])
        encode: Callable[[Any], bytes] = _line if self._plain and self._type in _TEXT else _encode
        return b"\n".join([encode(record) for record in records]) + b"\n"

    def read(self, body: bytes, type_: str, count: int) -> list[Any]:
        """A prediction for each record of the request. Raises WrongLength, RecordFault."""
        try:
            found = [self._value(body, _bare(type_))] if self._one else self._values(body, _bare(type_), count)
        except (msgspec.DecodeError, UnicodeDecodeError, csv.Error) as error:
            shown = body[:200].decode("utf-8", "replace")
            raise RecordFault(
                "model_error",
                "NoPrediction",
                f"the server's answer cannot be read as {type_ or 'JSON'}: {error}",
                shown,
            ) from None
        if len(found) != count:
            raise WrongLength(f"the server returned {len(found)} predictions for {count} records")
        return found

    def _single(self, record: Any) -> bytes:
        if self._files:
            with open(record, "rb") as file:
                return file.read()
        if self._type in _CSV:
            return _csv([_fields(record)])
        if isinstance(record, str) and self._type not in (*_JSON, *_JSON_LINES):
            return record.encode()
        return _encode({self._key: record} if self._key else record)

    def _value(self, body: bytes, type_: str) -> Any:
        """The whole answer as one prediction."""
        if type_ in _CSV:
            rows = _rows(body)
            return rows[0] if len(rows) == 1 else rows
        if type_ in (*_JSON, *_JSON_LINES):
            return _decode(body)
        return _either(body.rstrip(b"\r\n"))

    def _values(self, body: bytes, type_: str, count: int) -> list[Any]:
        if type_ in _CSV:
            return _rows(body)
        if type_ in _JSON or (type_ not in (*_JSON_LINES, *_TEXT) and body[:1] in b"[{"):
            value = _whole(body)
            if value is not None:
                return self._listed(value, count)
        lines = body.split(b"\n")
        if not lines[-1]:
            lines.pop()
        return [(_either if type_ not in _JSON_LINES else _decode)(line.rstrip(b"\r")) for line in lines]

    def _listed(self, value: Any, count: int) -> list[Any]:
        """The list in a JSON answer: it, or the one in an object: `predictions`, or the only list there is."""
        if isinstance(value, dict):
            lists = {key: each for key, each in value.items() if isinstance(each, list)}
            if "predictions" in lists:
                return list(lists["predictions"])
            if len(lists) == 1:
                return list(next(iter(lists.values())))
            if not lists and count == 1 and "predictions" not in value:
                return [value]
            raise WrongLength(
                f"the server returned an object with {', '.join(map(str, value)) or 'nothing'} for {count} records; it "
                'has to be a list, or have one list, like "predictions" (or set command.records to one)'
            )
        if isinstance(value, list):
            return value
        raise WrongLength(f"the server returned one {type(value).__name__} for {count} records")


def _bare(type_: str) -> str:
    return type_.partition(";")[0].strip().lower()


def _whole(body: bytes) -> Optional[Any]:
    """JSON; None where it is lines of JSON under the wrong name."""
    try:
        return _decode(body)
    except msgspec.DecodeError:
        if b"\n" in body.strip():
            return None
        raise


def _line(record: Any) -> bytes:
    text = os.fspath(record)
    if "\n" in text:
        raise ValueError("the record has a line break in it, and text/plain has a record on each line")
    return str(text).encode()


def _fields(record: Any) -> list[Any]:
    values = list(record.values()) if isinstance(record, dict) else record if isinstance(record, list) else [record]
    for value in values:
        if isinstance(value, (dict, list)):
            raise ValueError(f"the record has {type(value).__name__} in it, which CSV cannot say")  # noqa: TRY004
    return values


def _csv(rows: list[list[Any]]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


def _rows(body: bytes) -> list[Any]:
    """The rows of CSV without a header; of one field the value itself."""
    rows = [[_either(field.encode()) for field in row] for row in csv.reader(io.StringIO(body.decode(), newline=""))]
    return [row[0] if len(row) == 1 else row for row in rows if row]


def _either(text: bytes) -> Any:
    try:
        return _decode(text)
    except msgspec.DecodeError:
        return text.decode()
