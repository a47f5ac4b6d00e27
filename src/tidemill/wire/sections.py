"""Sections: frozen dataclasses that are read from YAML, TOML, JSON and variables, and say what is wrong in our words.

The task file and the settings are made of them. They are not pydantic models because `tidemill run` reads both, and
importing pydantic takes as long as the whole start may take (docs/adr/0010-sections.md). The JSON API takes them as
field types all the same: `Section.__get_pydantic_core_schema__`.

A field's annotation says how it is read: str, int, float, bool, Literal, Path, a Section, `X | None`, list[str],
dict[str, X], and Annotated with a `Kind` (own notation) or with `Range` or `Length`. Text is taken for numbers and
truth values, as variables and our YAML give it. The string below a field is its documentation.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from tidemill.domain.errors import InvalidValue, UnknownKey
from tidemill.wire.kinds import Kind, Length, Range, Secret


@dataclass(frozen=True, kw_only=True)
class Section:
    """Base of all. A subclass may offer short forms and may check what its fields cannot say one by one."""

    noun: ClassVar[str] = "section"

    @classmethod
    def short_forms(cls, data: object) -> object:
        """What a value of another shape means (`format: csv` is `format: {type: csv}`); others as they are."""
        return data

    def check(self) -> None:
        """Raises InvalidValue, with `field` relative to this section."""

    def replace(self, **changes: object) -> Self:
        return dataclasses.replace(self, **changes)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> Any:
        """Lets a pydantic model (of the JSON API) have a field of this type."""
        from pydantic_core import core_schema  # only where pydantic is there already

        return core_schema.no_info_plain_validator_function(
            lambda value: value if isinstance(value, cls) else read(cls, value),
            serialization=core_schema.plain_serializer_function_ser_schema(dump),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, core: object, handler: object) -> Any:
        from tidemill.wire.schema import json_schema  # a generator of documents, not needed to read one

        return json_schema(cls)


T = TypeVar("T", bound="Section")


def read(cls: type[T], data: object, where: str = "") -> T:
    """The section that `data` describes; `where` is the dotted name of it, for messages.

    Raises InvalidValue or UnknownKey for the first thing that is wrong.
    """
    try:
        data = cls.short_forms(data)
    except InvalidValue as error:
        raise _at(where, error) from None
    if not isinstance(data, Mapping):
        raise InvalidValue(
            f"{_shown(data)} is not a {cls.noun} of keys and values.",
            field=where or None,
            remedy=f"Known keys: {', '.join(field_types(cls))}.",
        )
    hints = field_types(cls)
    for key in data:
        if key not in hints:
            raise UnknownKey.among(str(key), hints, where=where)
    values = {}
    for field in dataclasses.fields(cls):
        place = f"{where}.{field.name}" if where else field.name
        if field.name in data:
            values[field.name] = _value(hints[field.name], data[field.name], place)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise InvalidValue("is required.", field=place, remedy="Add it.")
    section = cls(**values)
    try:
        section.check()
    except InvalidValue as error:
        raise _at(where, error) from None
    return section


def dump(section: Section) -> dict[str, Any]:
    """The section as JSON values that `read` gives back as the same section. Secrets are masked."""
    found = {}
    for name, dumper in _dumpers(type(section)):
        value = getattr(section, name)
        found[name] = value if value is None or dumper is None else dumper(value)
    return found


_FIELD_TYPES: dict[type[Section], dict[str, Any]] = {}


def field_types(cls: type[Section]) -> dict[str, Any]:
    """The fields of a section with their annotations, in order."""
    if cls not in _FIELD_TYPES:
        hints = get_type_hints(cls, include_extras=True)
        _FIELD_TYPES[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return _FIELD_TYPES[cls]


def optional_inner(kind: Any) -> Any:
    """X of `X | None`, and None of anything else."""
    if get_origin(kind) in (Union, types.UnionType):
        inner = [arg for arg in get_args(kind) if arg is not type(None)]
        if len(inner) < len(get_args(kind)):
            return inner[0] if len(inner) == 1 else Union[tuple(inner)]  # noqa: UP007 - built from values
    return None


def _at(where: str, error: InvalidValue) -> InvalidValue:
    field = ".".join(part for part in (where, error.field or "") if part)
    return type(error)(error.message, field=field or None, remedy=error.remedy)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _value(kind: Any, value: object, where: str) -> object:
    origin = get_origin(kind)
    if origin is Annotated:
        return _annotated(kind, value, where)
    inner = optional_inner(kind)
    if inner is not None:
        return None if value is None else _value(inner, value, where)
    if isinstance(kind, type) and issubclass(kind, Section):
        return value if isinstance(value, kind) else read(kind, {} if value is None else value, where)
    if value is None:
        raise InvalidValue("has no value.", field=where, remedy="Give one, or leave the key out.")
    if origin is Literal:
        return _choice(get_args(kind), value, where)
    if origin is list:
        items = value if isinstance(value, list | tuple) else [value]
        return [_value(get_args(kind)[0], item, f"{where}.{index}") for index, item in enumerate(items)]
    if origin is dict:
        if not isinstance(value, Mapping):
            raise InvalidValue(f"{_shown(value)} is not a mapping of keys to values.", field=where)
        return {
            _text(str(key), where): _value(get_args(kind)[1], item, f"{where}.{key}") for key, item in value.items()
        }
    return _SCALARS[kind](value, where)


def _annotated(kind: Any, value: object, where: str) -> object:
    base, mark = get_args(kind)[:2]
    if isinstance(mark, Kind):
        if not isinstance(value, int | float | str):
            raise InvalidValue(f"{_shown(value)} is not allowed.", field=where, remedy="Give a number or a text.")
        try:
            return mark.parse(value)
        except InvalidValue as error:
            raise InvalidValue(error.message, field=where, remedy=error.remedy) from None
    found: Any = _value(base, value, where)
    if isinstance(mark, Range) and not mark.low <= found <= mark.high:
        low, high = (f"{int(end):,}" if end == int(end) else f"{end:g}" for end in (mark.low, mark.high))
        raise InvalidValue(f"{_shown(found)} is out of range.", field=where, remedy=f"Write {low} to {high}.")
    if isinstance(mark, Length) and not mark.low <= len(found) <= mark.high:
        bounds = f"{mark.low}" if mark.low == mark.high else f"{mark.low} to {mark.high}"
        raise InvalidValue(f"has {len(found)} characters.", field=where, remedy=f"Use {bounds}.")
    return found


def _choice(choices: tuple[str, ...], value: object, where: str) -> str:
    if isinstance(value, str) and value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.6)
    remedy = f"Did you mean {near[0]!r}?" if near else f"Choose one of: {', '.join(choices)}."
    raise InvalidValue(f"{_shown(value)} is not known.", field=where, remedy=remedy)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InvalidValue(f"{_shown(value)} is not text.", field=where, remedy="Write a text, in quotes.")
    if "\0" in value:
        raise InvalidValue("contains a NUL character.", field=where, remedy="Remove it.")
    if any(0xD800 <= ord(char) <= 0xDFFF for char in value):
        raise InvalidValue("contains half a surrogate pair.", field=where, remedy="Write it in UTF-8.")
    return value


def _whole(value: object, where: str) -> int:
    try:
        if isinstance(value, int | str) and not isinstance(value, bool):
            return int(value)
        if isinstance(value, float) and value.is_integer():
            return int(value)
    except ValueError:
        pass
    raise InvalidValue(f"{_shown(value)} is not a whole number.", field=where, remedy="Write it like 4.")


def _number(value: object, where: str) -> float:
    try:
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            found = float(value)
            if found - found == 0:  # neither NaN nor infinite
                return found
    except (ValueError, OverflowError):
        pass
    raise InvalidValue(f"{_shown(value)} is not a number.", field=where, remedy="Write it like 4 or 0.5.")


_TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def _truth(value: object, where: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUTH:
        return _TRUTH[value.lower()]
    raise InvalidValue(f"{_shown(value)} is neither true nor false.", field=where, remedy="Write true or false.")


_SCALARS: dict[Any, Callable[[object, str], object]] = {
    str: _text,
    int: _whole,
    float: _number,
    bool: _truth,
    Path: lambda value, where: value if isinstance(value, Path) else Path(_text(value, where)),
    Secret: lambda value, where: value if isinstance(value, Secret) else Secret(_text(value, where)),
}


_Dumper = Callable[[Any], Any]
_DUMPERS: dict[type[Section], list[tuple[str, _Dumper | None]]] = {}


def _dumpers(cls: type[Section]) -> list[tuple[str, _Dumper | None]]:
    """How each field is dumped, found out once: every task that is created is dumped twice. None: as it is."""
    if cls not in _DUMPERS:
        _DUMPERS[cls] = [(name, _dumper(kind)) for name, kind in field_types(cls).items()]
    return _DUMPERS[cls]


def _dumper(kind: Any) -> _Dumper | None:
    inner = optional_inner(kind)
    if inner is not None:
        return _dumper(inner)
    origin = get_origin(kind)
    if origin is Annotated:
        base, mark = get_args(kind)[:2]
        return mark.dump if isinstance(mark, Kind) else _dumper(base)
    if origin is list:
        return list
    if origin is dict:
        item = _dumper(get_args(kind)[1])
        return dict if item is None else lambda found: {key: item(value) for key, value in found.items()}
    if isinstance(kind, type) and issubclass(kind, Section):
        return dump
    if kind is Secret:
        return lambda _: "********"
    return str if kind is Path else None
