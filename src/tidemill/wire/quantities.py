"""Quantities as people write them: `4Gi`, `500m`, `90s`, `10%`. Used by the task file, the settings and the CLI."""

from __future__ import annotations

import re

from tidemill.domain.errors import InvalidValue

_SIZE = {
    "": 1,
    "b": 1,
    "k": 10**3,
    "kb": 10**3,
    "m": 10**6,
    "mb": 10**6,
    "g": 10**9,
    "gb": 10**9,
    "t": 10**12,
    "tb": 10**12,
    "ki": 2**10,
    "kib": 2**10,
    "mi": 2**20,
    "mib": 2**20,
    "gi": 2**30,
    "gib": 2**30,
    "ti": 2**40,
    "tib": 2**40,
}
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DIGITS = r"[0-9]{1,18}(?:\.[0-9]{1,18})?"
_NUMBER = re.compile(rf"\s*({_DIGITS})\s*([a-zA-Z%]*)\s*")
_TIMES = re.compile(rf"({_DIGITS})\s*([a-zA-Z]+)")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _split(value: float | str) -> tuple[float, str] | None:
    """Number and unit, or None if that is neither a number of at least 0 nor a number with a unit."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return (value, "") if 0 <= value < 1e18 else None
    match = _NUMBER.fullmatch(str(value))
    return (float(match[1]), match[2].lower()) if match else None


def parse_bytes(value: float | str, *, field: str) -> int:
    """Bytes of `4Gi` (binary), `4G` or `4GB` (decimal) or a plain number of bytes."""
    found = _split(value)
    if found is None or found[1] not in _SIZE:
        raise InvalidValue(f"{_shown(value)} is not a size.", field=field, remedy="Write it like 512Mi, 4Gi or 4GB.")
    return int(found[0] * _SIZE[found[1]])


def parse_seconds(value: float | str, *, field: str) -> float:
    """Seconds of `90s`, `15m`, `2h`, `1d`, `1h30m`, `500ms` or a plain number of seconds."""
    plain = _split(value)
    if plain is not None and plain[1] == "":
        return plain[0]
    text = re.sub(r"\s+", "", str(value))
    pieces = _TIMES.findall(text)
    if isinstance(value, bool) or not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise InvalidValue(f"{_shown(value)} is not a duration.", field=field, remedy="Write it like 90s, 15m or 2h.")
    if any(unit.lower() not in _SECONDS for _, unit in pieces):
        raise InvalidValue(f"{_shown(value)} has an unknown unit.", field=field, remedy="Units: ms, s, m, h, d.")
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in pieces)


def parse_millicores(value: float | str, *, field: str) -> int:
    """Thousandths of a core of `2`, `0.5`, `"500m"`."""
    found = _split(value)
    if found is None or found[1] not in ("", "m"):
        raise InvalidValue(
            f"{_shown(value)} is not a number of cores.", field=field, remedy="Write it like 2, 0.5 or 500m."
        )
    return round(found[0]) if found[1] == "m" else round(found[0] * 1000)


def parse_share(value: float | str, *, field: str) -> float | int:
    """`10%`, `0.1` and the float 0.1 as 0.1 (a share), a whole number as itself (a count)."""
    if isinstance(value, float) and 0 <= value <= 1:
        return value
    found = _split(value)
    if found is None or found[1] not in ("", "%"):
        raise InvalidValue(
            f"{_shown(value)} is neither a share nor a count.", field=field, remedy="Write it like 1% or 20."
        )
    if found[1] == "%":
        if found[0] > 100:
            raise InvalidValue(f"{_shown(value)} is more than all.", field=field, remedy="Write at most 100%.")
        return found[0] / 100
    if found[0] != int(found[0]):
        if found[0] < 1:
            return found[0]
        raise InvalidValue(
            f"{_shown(value)} is neither a share nor a count.", field=field, remedy="Write it like 1% or 20."
        )
    return int(found[0])


def format_bytes(size: float) -> str:
    """`1.4 GiB` of a number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError("unreachable")


def format_seconds(seconds: float) -> str:
    """`0.42 s`, `12.3 s`, `4 min 05 s`, `2 h 03 min`."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"
