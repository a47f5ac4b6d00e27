"""What columns a model wants, as far as its files say without being loaded, checked against the input's first records.

MLflow keeps a signature, LightGBM the names of its features, and `tidemill.json` may name columns; nothing of the
libraries is imported. Called by the server's services and by `tidemill run`, before anything starts.
"""

from __future__ import annotations

import csv
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InvalidValue
from tidemill.planning.check import Checked, first_inputs
from tidemill.planning.formats import PEEK_BYTES
from tidemill.ports.objects import Objects
from tidemill_runtime.contract import InputFormat

if TYPE_CHECKING:
    from tidemill_runtime.models.kinds import PackageInfo

_FILE_BYTES_MAX = 4 * 1024 * 1024
"""No MLmodel, and no head of a LightGBM model, is larger; one that is goes unchecked."""
_RECORDS = 200
_UNNAMED = re.compile(r"Column_\d+")
"""What LightGBM calls the columns of a model that was trained on a matrix."""
_MLFLOW_TYPES = {
    **dict.fromkeys(("double", "float"), "a number"),
    **dict.fromkeys(("integer", "long"), "a whole number"),
    "string": "a text",
    "boolean": "true or false",
}
_FITS: Mapping[str, Callable[[Any], bool]] = {
    "a number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "a whole number": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "a text": lambda value: isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
}


@dataclass(frozen=True)
class Wanted:
    """One column. type: a key of _FITS, empty where any will do. required: False where a record may go without."""

    name: str
    type: str = ""
    required: bool = True


def check_wanted(info: PackageInfo, objects: Objects, checked: Checked) -> None:
    """Raises InvalidValue if the first records have not got a column that the model wants, or in none of them the type.

    One bad record among good ones is no reason: it will be that record's error.
    """
    wanted = wanted_columns(info)
    if not wanted or checked.formats.input.type not in ("jsonl", "csv", "parquet"):
        return
    records = _first_records(objects, checked)
    there = list(dict.fromkeys(name for record in records for name in record))
    if not there:
        return
    chosen = checked.formats.input.columns
    same = _underlined if info.kind == "lightgbm" else str
    known = {same(name): name for name in there}
    for column in wanted:
        name = known.get(same(column.name))
        if name is None:
            if not column.required:
                continue
            raise InvalidValue(
                f"the model wants the column {column.name!r}, and the input's first records do not have it.",
                field="input.path",
                remedy=f"They have {_listed(there)}; rename it there, or give the model that fits them.",
            )
        if chosen is not None and name not in chosen:
            if column.required:
                raise InvalidValue(
                    f"the model wants the column {name!r}.", field="format.columns", remedy="Add it, or leave them out."
                )
            continue
        values = [record[name] for record in records if record.get(name) is not None]
        # Of CSV the reader alone says whether 007 is a text.
        known_type = column.type if checked.formats.input.type != "csv" or "number" in column.type else ""
        if known_type and values and not any(map(_FITS[known_type], values)):
            raise InvalidValue(
                f"the model wants {column.type} in the column {name!r}, and the input's first records have "
                f"{values[0]!r:.60}.",
                field="input.path",
                remedy="Convert the column, or give the model that fits it.",
            )


def wanted_columns(info: PackageInfo) -> list[Wanted]:
    """The columns that a model wants by name; none where its files do not say."""
    if "columns" in info.options:
        return [Wanted(name) for name in info.options["columns"]]
    if info.kind == "mlflow":
        return _of_signature(Path(info.entry))
    if info.kind == "lightgbm":
        return _of_booster(Path(info.entry))
    return []


def _of_signature(path: Path) -> list[Wanted]:
    import yaml  # only where there is a signature to be read

    if path.stat().st_size > _FILE_BYTES_MAX:
        return []
    try:
        document = yaml.safe_load(path.read_bytes())
        inputs = json.loads(document["signature"]["inputs"])
    except (yaml.YAMLError, ValueError, KeyError, TypeError):
        return []  # without a signature; what cannot be read at all is said when it is loaded
    found = []
    for each in inputs if isinstance(inputs, list) else []:
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            return []
        required = bool(each.get("required", True)) and not each.get("optional")
        found.append(Wanted(each["name"], _MLFLOW_TYPES.get(str(each.get("type")), ""), required))
    return found


def _of_booster(path: Path) -> list[Wanted]:
    with path.open("rb") as file:
        head = file.read(_FILE_BYTES_MAX)
    lines = dict(
        line.partition("=")[::2] for line in head.partition(b"\nTree=")[0].decode("utf-8", "replace").split("\n")
    )
    names, infos = lines.get("feature_names", "").split(), lines.get("feature_infos", "").split()
    if len(names) != len(infos) or all(_UNNAMED.fullmatch(name) for name in names):
        return []
    return [Wanted(name, "a number" if info.startswith("[") else "") for name, info in zip(names, infos, strict=True)]


def _first_records(objects: Objects, checked: Checked) -> list[dict[str, Any]]:
    """Records of the first object that has any bytes; of Parquet one, with values that stand for the types."""
    inputs = first_inputs(objects, checked.input, list(checked.include), list(checked.exclude))
    first = next((each for each in inputs if each.size), None)
    if first is None:
        return []
    place, found = checked.input_folder.child(first.name), checked.formats.input
    if found.type == "parquet":
        return _of_parquet(objects.read(place, max(0, first.size - PEEK_BYTES), first.size))
    data = objects.read(place, 0, min(PEEK_BYTES, first.size))
    whole = first.size <= PEEK_BYTES
    if found.compression == "gzip":
        try:
            data, whole = zlib.decompressobj(31).decompress(data, PEEK_BYTES), False
        except zlib.error:
            return []
    elif found.compression != "none":
        return []
    if not whole:
        data = data[: data.rfind(b"\n") + 1]
    records = _json_records(data) if found.type == "jsonl" else _csv_records(data, found)
    return list(islice(records, _RECORDS))


def _json_records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.split(b"\n"):
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _csv_records(data: bytes, found: InputFormat) -> Iterator[dict[str, Any]]:
    text = io.StringIO(data.decode(found.encoding, "replace").removeprefix("\ufeff"), newline="")
    rows = csv.reader(text, delimiter=found.delimiter, quotechar=found.quote)
    names: list[str] | None = next(rows, None) if found.header else None
    for row in rows:
        if row:
            yield dict(zip(names or map(str, range(len(row))), map(_csv_value, row), strict=False))


def _csv_value(text: str) -> Any:
    """A field as what it could be: number, truth or text; None for an empty one."""
    if not text:
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _of_parquet(tail: bytes) -> list[dict[str, Any]]:
    """One record of the columns and types that the footer tells; none where it is larger than what was read."""
    try:
        import pyarrow as arrow  # type: ignore[import-untyped]  # takes long, and only such input needs it
        from pyarrow import parquet
    except ImportError:
        return []
    length = int.from_bytes(tail[-8:-4], "little") + 8
    if tail[-4:] != b"PAR1" or length > len(tail):
        return []
    schema = parquet.read_schema(arrow.BufferReader(b"PAR1" + tail[-length:]))
    samples: list[tuple[Callable[[Any], bool], Any]] = [
        (arrow.types.is_boolean, True),
        (arrow.types.is_integer, 1),
        (arrow.types.is_floating, 1.5),
        (arrow.types.is_decimal, 1.5),
        (arrow.types.is_string, "text"),
        (arrow.types.is_large_string, "text"),
    ]
    return [{field.name: next((value for fits, value in samples if fits(field.type)), None) for field in schema}]


def _underlined(name: str) -> str:
    return name.replace(" ", "_")  # as LightGBM writes them


def _listed(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:10]) + (", …" if len(names) > 10 else "")
