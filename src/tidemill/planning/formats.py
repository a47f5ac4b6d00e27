"""What the input is and how results are written: `format` of a task, with every "auto" resolved.

Decided from the names and the first bytes of the first objects, so that a wrong format is refused before anything
starts. Called by `check`.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InvalidValue
from tidemill.domain.splits import Cut, Layout
from tidemill.planning.cutting import cut_of
from tidemill.publishing.publisher import check_result_format
from tidemill_runtime.contract import InputFormat, ResultFormat

if TYPE_CHECKING:
    from tidemill.wire.taskfile import FormatSection, ResultSection

PEEK_BYTES = 64 * 1024
"""How much of the beginning of an object is looked at."""

_TYPE_OF_EXTENSION = {
    **dict.fromkeys(("jsonl", "ndjson", "jsonlines"), "jsonl"),
    "csv": "csv",
    **dict.fromkeys(("tsv", "tab"), "tsv"),
    **dict.fromkeys(("parquet", "pq"), "parquet"),
    **dict.fromkeys(("txt", "text"), "text"),
    **dict.fromkeys(
        ("bmp", "dcm", "gif", "heic", "jpeg", "jpg", "nii", "png", "ppm", "svg", "tif", "tiff", "webp"), "file"
    ),
    **dict.fromkeys(("avi", "flv", "mkv", "mov", "mp4", "mpg", "webm"), "file"),
    **dict.fromkeys(("flac", "m4a", "mp3", "ogg", "opus", "wav", "weba"), "file"),
    **dict.fromkeys(("doc", "docx", "htm", "html", "pdf", "ppt", "pptx", "rtf", "xls", "xlsx", "xml"), "file"),
    **dict.fromkeys(("h5", "mat", "npy", "npz", "zip"), "file"),
}
_COMPRESSION_OF_EXTENSION = {"gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd"}
_COMPRESSION_OF_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_COLUMN_TYPES = ("jsonl", "csv", "parquet")
_KNOWN = "jsonl, csv, tsv, parquet, text, file"


@dataclass(frozen=True)
class Kind:
    """What a name alone tells of an object; None where it tells nothing."""

    type: str | None
    compression: str


@dataclass(frozen=True)
class Sample:
    """One of the first objects. head: its first PEEK_BYTES, empty if only its name is known."""

    name: str
    head: bytes


@dataclass(frozen=True)
class Formats:
    """by_name: what every object's name has to tell, or else the folder is mixed; None where the task says the type.
    uncut: why large objects run whole, empty where they are cut.
    """

    input: InputFormat
    result: ResultFormat
    cut: Cut
    layout: Layout
    by_name: Kind | None
    uncut: str = ""


def kind_of_name(name: str) -> Kind:
    """What the extensions of a name tell: `a.csv.gz` is ("csv", "gzip"), `scan.nii.gz` a file of its own kind."""
    parts = name.rpartition("/")[2].lower().split(".")[1:]
    compression = "none"
    if parts and parts[-1] in _COMPRESSION_OF_EXTENSION:
        compression = _COMPRESSION_OF_EXTENSION[parts.pop()]
    kind = _TYPE_OF_EXTENSION.get(parts[-1]) if parts else None
    return Kind(kind, "none" if kind == "file" else compression)


def check_same_kind(first: str, other: str) -> None:
    """Raises InvalidValue if two names tell of different formats."""
    one, two = kind_of_name(first), kind_of_name(other)
    if one.type == two.type and one.compression != two.compression:
        raise _mixed_compressions(first, other)
    if one != two:
        raise InvalidValue(
            f"the input mixes formats: {first!r} and {other!r}.",
            field="format",
            remedy="Choose some of them with input.include, or set `format` (`file` hands over whole files).",
        )


def _mixed_compressions(one: str, two: str) -> InvalidValue:
    return InvalidValue(
        f"the input mixes compressions: {one!r} and {two!r}.",
        field="format.compression",
        remedy="Choose some of them with input.include, and run the others by themselves.",
    )


def resolve(section: FormatSection, samples: Sequence[Sample]) -> Formats:
    """The formats of a task. samples: some of its first objects, at least one; those that were read come first.

    Raises InvalidValue naming the field.
    """
    first = samples[0]
    by_name: Kind | None = None
    if section.type == "auto":
        for sample in samples[1:]:
            check_same_kind(first.name, sample.name)
        by_name = kind_of_name(first.name)
        kind = _detect_type(by_name, first)
    else:
        kind = section.type
    compression = _compression(section, kind, samples)
    head = _plain_head(first, compression)
    input_format = InputFormat(
        type="csv" if kind == "tsv" else kind,
        compression=compression,
        delimiter=_delimiter(section, kind, head),
        quote=section.quote,
        header=section.header,
        encoding=_encoding(section, kind),
        columns=list(section.columns) if section.columns is not None else None,
        max_record_bytes=section.max_record,
    )
    _check_columns(section, input_format, head)
    result = _result(section, input_format)
    heads = (sample.head for sample in samples)
    cut, uncut = cut_of(input_format, heads, whole=section.split == "whole")
    return Formats(input_format, result, cut, Layout(result.layout), by_name, uncut)


def _detect_type(named: Kind, sample: Sample) -> str:
    if named.type is not None:
        return named.type
    head = sample.head
    if any(head.startswith(magic) for magic, _ in _COMPRESSION_OF_MAGIC):
        head = _plain_head(sample, next(c for magic, c in _COMPRESSION_OF_MAGIC if head.startswith(magic))) or b"\0"
    if head.startswith(b"PAR1"):
        return "parquet"
    if _first_json_line(head) is not None:
        return "jsonl"
    if sample.name.lower().endswith(".json") and head.lstrip()[:1] in (b"{", b"["):
        raise InvalidValue(
            f"{sample.name!r} is one JSON document, not a line of JSON for each record.",
            field="format.type",
            remedy="Write one record a line (`jq -c '.[]'`), or set `format: file` to hand over whole files.",
        )
    if head and _is_binary(head):
        return "file"
    raise InvalidValue(
        f"cannot tell the format of {sample.name!r}.",
        field="format.type",
        remedy=f"Set it: one of {_KNOWN} (`text`: each line is a record; `file`: each object is).",
    )


def _compression(section: FormatSection, kind: str, samples: Sequence[Sample]) -> str:
    wanted: str = section.compression
    if kind in ("file", "parquet"):
        if wanted not in ("auto", "none"):
            raise InvalidValue(
                f"{wanted!r} does not go with {kind}.", field="format.compression", remedy="Leave it out."
            )
        return "none"
    found: dict[str, str] = {}
    for sample in samples:
        magic = next((c for mark, c in _COMPRESSION_OF_MAGIC if sample.head.startswith(mark)), "none")
        found.setdefault(magic if sample.head else kind_of_name(sample.name).compression, sample.name)
    if wanted == "auto" and len(found) > 1:
        one, two = list(found.values())[:2]
        raise _mixed_compressions(one, two)
    if wanted == "auto":
        return next(iter(found))
    for magic, name in found.items():
        if magic != wanted:
            raise InvalidValue(
                f"{name!r} is {'not compressed' if magic == 'none' else magic}, not {wanted}.",
                field="format.compression",
                remedy="Leave it out to have it detected.",
            )
    return wanted


def _plain_head(sample: Sample, compression: str) -> bytes:
    """The beginning of the data, uncompressed; empty where that cannot be had cheaply (zstd)."""
    if compression == "none":
        return sample.head
    if compression == "gzip":
        import zlib  # only where there is something to unpack

        try:
            return zlib.decompressobj(wbits=31).decompress(sample.head, PEEK_BYTES)
        except zlib.error as error:
            raise InvalidValue(f"{sample.name!r} is damaged gzip data: {error}.", field="input.path") from error
    return b""


def _delimiter(section: FormatSection, kind: str, head: bytes) -> str:
    if kind not in ("csv", "tsv"):
        if section.delimiter is not None:
            raise InvalidValue(f"{section.delimiter!r} does not go with {kind}.", field="format.delimiter")
        return ","
    if section.delimiter is not None:
        if section.delimiter in ("\n", "\r", section.quote) or ord(section.delimiter) > 127:
            raise InvalidValue(
                f"{section.delimiter!r} cannot separate fields.", field="format.delimiter", remedy="Use , ; | or a tab."
            )
        return section.delimiter
    if kind == "tsv":
        return "\t"
    line = head.split(b"\n", 1)[0].decode("latin-1")
    outside = "".join(line.split(section.quote)[::2])
    return "," if "," in outside else max(",;\t|", key=outside.count)


def _encoding(section: FormatSection, kind: str) -> str:
    try:
        name = codecs.lookup(section.encoding).name
    except LookupError as error:
        raise InvalidValue(
            f"{section.encoding!r} is not an encoding.", field="format.encoding", remedy="Write utf-8 or gb18030."
        ) from error
    if kind not in ("csv", "tsv") and name != "utf-8":
        raise InvalidValue(
            f"{section.encoding!r} is supported for csv alone.", field="format.encoding", remedy="Convert it to UTF-8."
        )
    return section.encoding


def _check_columns(section: FormatSection, found: InputFormat, head: bytes) -> None:
    """Columns and keys that cannot be, and those that the first records do not have."""
    keys = list(section.result.keys)
    for field, names in (("format.columns", found.columns), ("format.result.keys", keys)):
        if not names:
            if names is not None and field == "format.columns":
                raise InvalidValue("no columns.", field=field, remedy="Name some, or leave it out to take all.")
            continue
        if found.type not in _COLUMN_TYPES:
            raise InvalidValue(f"{found.type} has no columns.", field=field, remedy="Leave it out.")
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise InvalidValue(f"{repeated!r} is there twice.", field=field, remedy="Name each column once.")
        if field == "format.result.keys" and "prediction" in names:
            raise InvalidValue("'prediction' is the prediction's own key.", field=field, remedy="Leave it out.")
        known = _known_columns(found, head)
        missing = [name for name in names if known and name not in known]
        if missing:
            shown = ", ".join(repr(name) for name in list(known)[:20])
            raise InvalidValue(f"the input has no column {missing[0]!r}.", field=field, remedy=f"It has {shown}.")


def _known_columns(found: InputFormat, head: bytes) -> list[str]:
    """The columns that the first records show; none where they cannot be told cheaply."""
    if found.type == "csv" and head:
        line = head.decode(found.encoding, "replace").lstrip("\ufeff").splitlines()[:1]
        row = next(csv.reader(line, delimiter=found.delimiter, quotechar=found.quote), [])
        return row if found.header else [str(at) for at in range(len(row))]
    if found.type == "jsonl":
        columns: dict[str, None] = {}
        for record in map(_json_object, head.split(b"\n")[:-1]):
            columns.update(dict.fromkeys(record or ()))
        return list(columns)
    return []


def _result(section: FormatSection, found: InputFormat) -> ResultFormat:
    wanted = section.result
    files = found.type == "file"
    if wanted.type == "file":
        return _result_files(wanted, found)
    form = wanted.form if wanted.form != "auto" else "named" if files and wanted.type != "text" else "aligned"
    layout = wanted.layout if wanted.layout != "auto" else "parts" if files else "per_object"
    if wanted.extension is not None:
        raise InvalidValue(
            "goes with the result type file alone.", field="format.result.extension", remedy="Leave it out."
        )
    if form == "joined" and files:
        raise InvalidValue(
            "a file cannot be joined to its prediction.", field="format.result.form", remedy="Use named or aligned."
        )
    if form == "named" and not files:
        raise InvalidValue("named results are for whole files.", field="format.result.form", remedy="Use aligned.")
    if layout == "per_object" and files:
        raise InvalidValue(
            f"one object of {wanted.type} for each file is not supported.",
            field="format.result.layout",
            remedy="Use parts or single; with the result type file, what the model returns for a file is an object.",
        )
    if wanted.type == "text" and (form != "aligned" or wanted.keys):
        raise InvalidValue(
            "text holds predictions alone.",
            field="format.result.form" if form != "aligned" else "format.result.keys",
            remedy="Use jsonl, or leave it out.",
        )
    resolved = ResultFormat(type=wanted.type, form=form, keys=list(wanted.keys), layout=layout)
    check_result_format(resolved)
    return resolved


def _result_files(wanted: ResultSection, found: InputFormat) -> ResultFormat:
    """Results that are files: the bytes that the model returned, and nothing beside them."""
    if found.type != "file":
        raise InvalidValue(
            f"a file for each record is for whole files, not for {found.type}.",
            field="format.result.type",
            remedy="Use jsonl, csv or parquet, or set format.type to file.",
        )
    if wanted.form not in ("auto", "aligned") or wanted.keys:
        raise InvalidValue(
            "files hold predictions alone.",
            field="format.result.keys" if wanted.keys else "format.result.form",
            remedy="Leave it out.",
        )
    if wanted.layout not in ("auto", "per_object"):
        raise InvalidValue(
            "each file is an object of its own.", field="format.result.layout", remedy="Leave it out, or use jsonl."
        )
    return ResultFormat(type="file", layout="per_object", extension=wanted.extension or "")


def _first_json_line(head: bytes) -> dict[str, Any] | None:
    line = head.lstrip().split(b"\n", 1)[0]
    return _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | None:
    if not line.lstrip().startswith(b"{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _is_binary(head: bytes) -> bool:
    if b"\0" in head:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return True
    return False
