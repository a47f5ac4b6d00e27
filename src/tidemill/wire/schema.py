"""JSON Schema and documentation of sections, from their annotations and the strings below their fields.

Called by the generators of schemas/task.schema.json and docs/reference, and by the JSON API for its OpenAPI document;
never to read a section.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from tidemill.wire.kinds import Kind, Length, Range, Secret
from tidemill.wire.sections import Section, field_types, optional_inner
from tidemill.wire.taskfile import NAME_MAX, NAME_PATTERN, TaskFile

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_SHORT_STRINGS = ("InputSection", "OutputSection", "FormatSection", "ResultSection")
"""Sections that may be written as one text: their first field."""


@dataclass(frozen=True)
class DocumentedField:
    """One line of a reference: dotted key, type in words, default as JSON value (None: no default), documentation."""

    key: str
    type: str
    default: Any
    required: bool
    doc: str


def task_schema() -> dict[str, Any]:
    """The schema of a task file, as it is shipped."""
    schema = json_schema(TaskFile)
    schema["properties"]["name"] |= {"pattern": NAME_PATTERN, "maxLength": NAME_MAX, "minLength": 1}
    command = schema["properties"]["command"]["anyOf"][0]["properties"]
    words = {key: command["run"][key] for key in ("type", "items")}
    command["run"] = {"anyOf": [{"type": "string"}, words], "description": command["run"]["description"]}
    for key in ("env", "tags"):
        schema["properties"][key]["additionalProperties"] = {"type": ["string", "number", "boolean"]}
    return {"$schema": SCHEMA_DIALECT, "title": "Tidemill task", **schema}


def json_schema(cls: type[Section]) -> dict[str, Any]:
    """The schema of one section; those inside it are written out."""
    docs = field_docs(cls)
    properties: dict[str, Any] = {}
    required = []
    for field in dataclasses.fields(cls):
        schema = _type_schema(field_types(cls)[field.name])
        if docs[field.name]:
            schema["description"] = docs[field.name]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            required.append(field.name)
        elif field.default is not dataclasses.MISSING and not isinstance(field.default, Section):
            schema["default"] = _default(cls, field)
        properties[field.name] = schema
    schema = {
        "type": "object",
        "description": class_doc(cls),
        "properties": properties,
        "additionalProperties": False,
    }
    return schema | ({"required": required} if required else {})


def documented_fields(cls: type[Section], above: str = "") -> Iterator[DocumentedField]:
    """Every field below a section, sections inside it included, in order."""
    docs = field_docs(cls)
    for field in dataclasses.fields(cls):
        kind = field_types(cls)[field.name]
        inner, name = _section_of(kind, field.name)
        if inner is not None:
            yield from documented_fields(inner, f"{above}{name}.")
            continue
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        default = None if required else _default(cls, field)
        yield DocumentedField(above + field.name, type_words(kind), default, required, docs[field.name])


def class_doc(cls: type[Section]) -> str:
    """What a section is, on one line."""
    return " ".join((cls.__doc__ or "").split())


def field_docs(cls: type[Section]) -> dict[str, str]:
    """The string below each field of a section, on one line; a section's own documentation where the field has none."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            said = following.value if isinstance(following, ast.Expr) else None
            docs[statement.target.id] = " ".join(str(said.value).split()) if isinstance(said, ast.Constant) else ""
    for name, kind in field_types(cls).items():
        if not docs[name] and isinstance(kind, type) and issubclass(kind, Section):
            docs[name] = class_doc(kind)
    return docs


def type_words(kind: Any) -> str:
    """The type as people say it."""
    inner = optional_inner(kind)
    if inner is not None:
        return type_words(inner)
    if get_origin(kind) is Annotated:
        base, mark = get_args(kind)[:2]
        if isinstance(mark, Kind):
            return mark.noun
        return f"{type_words(base)}, {mark.low:g} to {mark.high:g}" if isinstance(mark, Range) else type_words(base)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {type_words(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"mapping to {type_words(get_args(kind)[1])}"
    return {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", Secret: "secret"}[
        kind
    ]


def _section_of(kind: Any, name: str) -> tuple[type[Section] | None, str]:
    if get_origin(kind) is dict:
        return _section_of(get_args(kind)[1], f"{name}.NAME")
    kind = optional_inner(kind) or kind
    return (kind, name) if isinstance(kind, type) and issubclass(kind, Section) else (None, name)


def _default(cls: type[Section], field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    kind = field_types(cls)[field.name]
    mark = get_args(kind)[1] if get_origin(kind) is Annotated else None
    return mark.dump(field.default) if isinstance(mark, Kind) else field.default


def _type_schema(kind: Any) -> dict[str, Any]:
    inner = optional_inner(kind)
    if inner is not None:
        return {"anyOf": [_type_schema(inner), {"type": "null"}]}
    if isinstance(kind, type) and issubclass(kind, Section):
        schema = json_schema(kind)
        if kind.__name__ in _SHORT_STRINGS:
            return {"anyOf": [_type_schema(next(iter(field_types(kind).values()))), schema]}
        return schema
    if get_origin(kind) is Annotated:
        return _marked_schema(*get_args(kind)[:2])
    if get_origin(kind) is Literal:
        return {"type": "string", "enum": list(get_args(kind))}
    if get_origin(kind) is list:
        return {"type": "array", "items": _type_schema(get_args(kind)[0])}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _type_schema(get_args(kind)[1])}
    return {
        "type": {str: "string", Path: "string", Secret: "string", int: "integer", float: "number", bool: "boolean"}[
            kind
        ]
    }


def _marked_schema(base: Any, mark: object) -> dict[str, Any]:
    if isinstance(mark, Kind):
        return dict(mark.schema)
    schema = _type_schema(base)
    if isinstance(mark, Range):
        return schema | {"minimum": mark.low, "maximum": mark.high}
    if isinstance(mark, Length):
        return schema | {"minLength": mark.low, "maxLength": mark.high}
    return schema
