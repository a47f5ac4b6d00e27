"""How single values of a section are read: our notations (`4Gi`, `90s`, `10%`), ranges, lengths, secrets.

Put into an `Annotated` beside the type; `sections` reads by them, `schema` describes them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from tidemill.wire.quantities import parse_bytes, parse_millicores, parse_seconds, parse_share


@dataclass(frozen=True, eq=False)  # by identity: annotations have to be hashable
class Kind:
    """A notation of its own: `parse` raises InvalidValue; `dump` gives JSON that `parse` reads back; `schema`
    describes it.
    """

    noun: str
    parse: Callable[[Any], object]
    schema: Mapping[str, object]
    dump: Callable[[Any], object] = lambda value: value

    def __get_pydantic_core_schema__(self, source: object, handler: object) -> Any:
        """Lets a pydantic model (of the JSON API) have a field in this notation."""
        from pydantic_core import core_schema  # only where pydantic is there already

        return core_schema.no_info_plain_validator_function(
            self.parse, serialization=core_schema.plain_serializer_function_ser_schema(self.dump)
        )

    def __get_pydantic_json_schema__(self, core: object, handler: object) -> dict[str, object]:
        return dict(self.schema)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both allowed."""

    low: float
    high: float


@dataclass(frozen=True)
class Length:
    """Characters of a text, from `low` to `high`."""

    low: int
    high: int


class Secret:
    """A value that must not appear in a log, a listing or a traceback."""

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "'********'"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def _text_or_number(*kinds: str, pattern: str) -> dict[str, object]:
    return {"anyOf": [*({"type": kind, "minimum": 0} for kind in kinds), {"type": "string", "pattern": pattern}]}


_NUMBER = r"[0-9]+(\.[0-9]+)?"
Bytes = Annotated[
    int,
    Kind(
        "size",
        functools.partial(parse_bytes, field=""),
        _text_or_number("integer", pattern=rf"^\s*{_NUMBER}\s*([kKmMgGtT][iI]?)?[bB]?\s*$"),
    ),
]
Seconds = Annotated[
    float,
    Kind(
        "duration",
        functools.partial(parse_seconds, field=""),
        _text_or_number("number", pattern=rf"^\s*({_NUMBER}\s*(ms|s|m|min|h|d)?\s*)+$"),
    ),
]
Millicores = Annotated[
    int,
    Kind(
        "cores",
        functools.partial(parse_millicores, field=""),
        _text_or_number("number", pattern=rf"^\s*{_NUMBER}\s*m?\s*$"),
        lambda millicores: f"{millicores}m",
    ),
]
Share = Annotated[
    float | int,
    Kind(
        "share or count",
        functools.partial(parse_share, field=""),
        _text_or_number("number", pattern=rf"^\s*{_NUMBER}\s*%?\s*$"),
        lambda share: "100%" if isinstance(share, float) and share == 1 else share,
    ),
]
