"""What pydantic finds wrong with a request, in our words: the dotted name, the value, the remedy, the nearest known
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tidemill.domain.errors import InvalidValue, UnknownKey


def first_error(error: ValidationError, model: type[BaseModel]) -> InvalidValue:
    """The first finding of validating `model`."""
    return explain(error.errors()[0], model)


def explain(found: Mapping[str, Any], model: type[BaseModel] | None) -> InvalidValue:
    """One finding of pydantic (an item of `ValidationError.errors()`). model: what was validated, if it is known."""
    parts = [str(part) for part in found["loc"]]
    path = ".".join(parts)
    if found["type"] == "extra_forbidden":
        known = _keys_at(model, parts[:-1]) if model else []
        return UnknownKey.among(parts[-1], known, where=".".join(parts[:-1]))
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        field = ".".join(part for part in (path, cause.field or "") if part)
        return type(cause)(cause.message, field=field or None, remedy=cause.remedy)
    if found["type"] == "missing":
        return InvalidValue("is required.", field=path, remedy="Add it.")
    value = repr(found.get("input"))
    return InvalidValue(f"{value[:80]} is not allowed: {found['msg']}.", field=path or None)


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
