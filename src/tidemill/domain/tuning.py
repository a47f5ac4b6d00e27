"""What instances found out about running a model: a start for the next run with it, and words for people.

Reports carry it (`contract.Report.tuning`); instances run users' code, so nothing in it is taken on trust.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidemill_runtime.contract import Pins

_MACHINE_MAX = 500
_MOST = 1_000_000
_KEPT = ("batch_size", "processes", "threads")


def model_key(model: str | None, code: str | None, function: str | None) -> str | None:
    """What tells a model from others and from itself after a change: digests of its packages. None without any."""
    return " ".join((model or "-", code or "-", function or "-")) if model or code else None


def measured(tuning: Mapping[str, Any]) -> tuple[str, Pins] | None:
    """The machine, and what was measured on it; None where nothing was."""
    machine, kept = tuning.get("machine"), tuning.get("keep")
    if not isinstance(machine, str) or not isinstance(kept, dict):
        return None
    if not machine.isprintable() or not 0 < len(machine) <= _MACHINE_MAX:
        return None
    pins = pins_of(kept)
    return None if pins == Pins() else (machine, pins)


def pins_of(values: Mapping[str, Any]) -> Pins:
    """As far as they are sensible numbers."""
    return Pins(**{name: _number(values.get(name)) for name in _KEPT})


def joined(before: Pins, now: Pins) -> Pins:
    """What is known after a run that need not have measured all of it."""
    return Pins(now.batch_size or before.batch_size, now.processes or before.processes, now.threads or before.threads)


def sentences(tuning: Mapping[str, Any]) -> list[str]:
    """The choices with their reasons, one by one: `4,096 records a call (measured: …)`."""
    found = []
    for name, one, many in (
        ("batch_size", "record a call", "records a call"),
        ("processes", "process", "processes"),
        ("threads", "thread each", "threads each"),
    ):
        number, why = _number(tuning.get(name)), tuning.get(f"{name}_why")
        if number is not None:
            reason = f" ({why})" if isinstance(why, str) and why else ""
            found.append(f"{number:,} {one if number == 1 else many}{reason}")
    return found


def shown(tuning: Mapping[str, Any]) -> dict[str, Any]:
    """What people and programs are told of it: the choices, why, and the machine; not what the next run begins with."""
    found: dict[str, Any] = {}
    for name in _KEPT:
        if (number := _number(tuning.get(name))) is not None:
            found[name] = number
        if isinstance(why := tuning.get(f"{name}_why"), str):
            found[f"{name}_why"] = why
    if isinstance(machine := tuning.get("machine"), str):
        found["machine"] = machine
    return found


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST else None
