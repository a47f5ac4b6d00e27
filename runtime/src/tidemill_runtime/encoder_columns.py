"""Predictions as frames, which the publisher makes tables or files of. Used by the worker for csv, parquet and file.

Tables cannot simply be appended to one another: the columns of a result are known when all of it is computed. So a part
holds frames (`contract.Frame`), one for each piece of rows: in CSV its rows without a header, for Parquet an Arrow
stream, for files a file's bytes. A value is written by itself, whatever stands beside it, so that the publisher makes
the same result of frames that were cut elsewhere.
"""

from __future__ import annotations

import base64
import datetime
import math
import os
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Optional

import msgspec

from tidemill_runtime.contract import Frame
from tidemill_runtime.models.returned import listed

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Records
    from tidemill_runtime.contract import ResultFormat
    from tidemill_runtime.isolation import Piece

PREDICTION = "prediction"
"""The column of predictions that are no records themselves."""

_json = msgspec.json.Encoder()
_SPECIAL = ',"\r\n'


def frame(payload: bytes, rows: int, columns: Optional[list[str]] = None, carried: int = 0) -> bytes:
    """The bytes of one frame."""
    return _json.encode(asdict(Frame(rows, len(payload), columns or [], carried))) + b"\n" + payload


class CsvEncoder:
    """Rows of CSV: true and false, numbers as JSON writes them, lists and dicts as JSON, nothing for what is null."""

    def __init__(self, result: ResultFormat) -> None:
        self._result = result

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        known = carried(self._result, records, first, stop)
        found = predicted(piece, first, stop)
        columns = [_texts(column) for column in (*known.values(), *found.values())]
        return frame(_csv_rows(columns), stop - first, [*known, *found], len(known))

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        known = {} if item is None else carried(self._result, records, item, item + 1)
        columns = [_texts(column) for column in known.values()]
        return frame(_csv_rows(columns), 1, list(known), len(known))


class FileEncoder:
    """A file for each record: bytes as they are, text in UTF-8, or the file that the model wrote (a pathlib.Path)."""

    def rows(self, records: Records, piece: Piece, first: int, stop: int) -> bytes:
        predictions = listed(piece.returned)[first - piece.first : stop - piece.first]
        return b"".join([frame(_file_bytes(prediction), 1) for prediction in predictions])

    def failed(self, records: Records, item: Optional[int]) -> bytes:
        return frame(b"", 0)


def _file_bytes(prediction: Any) -> bytes:
    if isinstance(prediction, (bytes, bytearray, memoryview)):
        return bytes(prediction)
    if isinstance(prediction, str):
        return prediction.encode()
    if isinstance(prediction, os.PathLike):
        with open(prediction, "rb") as file:
            return file.read()
    raise TypeError(
        f"the model returned a {type(prediction).__name__}; for the result type file it has to return bytes, text or "
        "the pathlib.Path of a file that it wrote"
    )


def carried(result: ResultFormat, records: Records, first: int, stop: int) -> dict[str, list[Any]]:
    """Columns of the input that stand beside the predictions of the items [first, stop)."""
    if result.form == "aligned" and not result.keys:
        return {}
    if result.form == "aligned":
        return dict(zip(result.keys, records.carried(result.keys, first, stop)))
    fields = records.fields(first, stop)
    return _columns_of([each if isinstance(each, dict) else {"input": each} for each in fields])


def predicted(piece: Piece, first: int, stop: int) -> dict[str, Any]:
    """Columns of the predictions of the items [first, stop): those of a frame or the keys of dicts, or `prediction`.

    A column is a list, or whatever the model's frame has. Raises ValueError for two columns of one name.
    """
    returned, low, high = piece.returned, first - piece.first, stop - piece.first
    columns = _own_columns(returned)
    if columns is None:
        return _of_rows(listed(returned)[low:high])
    found: dict[str, Any] = {}
    for name, column in columns:
        if name in found:
            raise ValueError(f"the model returned two columns with the name {name!r}")
        found[name] = getattr(column, "iloc", column)[low:high]
    return found


def _own_columns(returned: Any) -> Optional[list[tuple[str, Any]]]:
    """(name, column) of what has columns of its own; None of anything else."""
    if isinstance(returned, dict):
        return [(str(name), column) for name, column in returned.items()]
    if hasattr(returned, "get_columns"):  # polars
        return [(column.name, column) for column in returned.get_columns()]
    if hasattr(returned, "column_names") or hasattr(returned, "schema"):  # pyarrow: Table, RecordBatch
        return list(zip(returned.schema.names, returned.columns))
    if hasattr(returned, "columns") and hasattr(returned, "iloc"):  # pandas; by place, as names may be there twice
        return [(str(name), returned.iloc[:, place]) for place, name in enumerate(returned.columns)]
    if getattr(getattr(returned, "dtype", None), "kind", "O") in "biuf" and hasattr(returned, "ndim"):  # NumPy
        return [(PREDICTION, returned)]
    return None


def _of_rows(predictions: list[Any]) -> dict[str, Any]:
    """Columns in the order in which they are first seen; None is a row without any."""
    kinds = set(map(type, predictions)) - {type(None)}
    if dict not in kinds:
        return {PREDICTION: predictions} if kinds else {}
    if kinds == {dict}:
        return _columns_of(predictions)
    rows = [each if each is None or type(each) is dict else {PREDICTION: each} for each in predictions]
    return _columns_of(rows)


def _columns_of(rows: list[Any]) -> dict[str, list[Any]]:
    """Columns of dicts and None."""
    present = [row for row in rows if row]
    names = list(present[0]) if present else []
    if len(names) < len(set().union(*present)):  # as they are first seen
        names = list(dict.fromkeys(name for row in present for name in row))
    if not all(type(name) is str for name in names):
        return _columns_of([row and {str(name): value for name, value in row.items()} for row in rows])
    if len(present) == len(rows):
        return {name: [row.get(name) for row in rows] for name in names}
    return {name: [row.get(name) if row else None for row in rows] for name in names}


def column_list(column: Any) -> list[Any]:
    """A column of whatever kind as a list."""
    if type(column) is list:
        return column
    if hasattr(column, "iloc"):  # pandas, whose NaN means that a value is missing
        return [None if missing else value for value, missing in zip(column.tolist(), column.isna().tolist())]
    if hasattr(column, "to_list"):  # polars
        return list(column.to_list())
    return listed(column)


def _csv_rows(columns: list[list[str]]) -> bytes:
    if not columns:
        return b""
    fields = [list(map(_quoted, column)) if _is_special("".join(column)) else column for column in columns]
    # A blank line is no row to most readers.
    rows = map(",".join, zip(*fields)) if len(fields) > 1 else [field or '""' for field in fields[0]]
    return ("\n".join(rows) + "\n").encode()


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _is_special(text) else text


def _is_special(text: str) -> bool:
    return any(character in text for character in _SPECIAL)


def _texts(column: Any) -> list[str]:
    """What CSV tells of each value."""
    values = column_list(column)
    kinds = set(map(type, values))
    if kinds == {str}:
        return values
    if kinds == {int} or (kinds == {float} and all(map(math.isfinite, values))):
        try:
            return _json.encode(values)[1:-1].decode().split(",")  # all at once, several times as fast as one by one
        except OverflowError:  # integers of more than 64 bits
            pass
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    if type(value) is str:
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))  # of an enumeration, too
    if isinstance(value, float):
        if math.isfinite(value):
            return _json.encode(float(value)).decode()
        return "NaN" if math.isnan(value) else str(float(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    plain = to_plain(value)
    if isinstance(plain, (dict, list, tuple)):
        return _json.encode(plain).decode()
    return _text(plain) if plain is not value else str(plain)


def to_plain(value: Any) -> Any:
    """A value of JSON's kinds (dict, list, str, int, float, bool, None). Raises TypeError for what cannot be one."""
    return msgspec.to_builtins(value, enc_hook=_plain, str_keys=True)


def _plain(value: Any) -> Any:
    for method in ("tolist", "as_py", "item", "to_dict"):
        convert = getattr(value, method, None)
        if convert is not None:
            return convert()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Iterable):
        return list(value)
    kind: type[Any] = type(value)
    raise TypeError(f"a prediction holds a {kind.__module__}.{kind.__qualname__}, which cannot be written")
