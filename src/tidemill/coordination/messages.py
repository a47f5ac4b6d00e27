"""The contract's messages as a coordinator reads and writes them: reports from JSON, orders to JSON.

Written out by hand: a generic converter costs more at the start of `tidemill run` than all messages of a short run.
Reports come from instances, which run users' code, so nothing in them is taken on trust.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidemill.domain.errors import InvalidValue
from tidemill_runtime.contract import (
    FATAL_FAULTS,
    Access,
    Commit,
    Counts,
    Cursor,
    Fault,
    Held,
    Lease,
    Manifest,
    Orders,
    Report,
)

_STATES = ("starting", "loading", "running", "stopping")
_LIST_MAX = 100_000
_TEXT_MAX = 64 * 1024
_NUMBER_MAX = 2**53
_WAITING_MAX = 2000


def read_report(text: bytes) -> Report:
    """The report in a line of JSON. Raises InvalidValue naming what is wrong with it."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise InvalidValue(f"a report is JSON: {error}.", field="report") from error
    if not isinstance(values, dict):
        raise InvalidValue("a report is a JSON object.", field="report")
    state = _text(values, "state")
    if state not in _STATES:
        raise InvalidValue(f"{state!r} is not a state of an instance.", field="state")
    fault = values.get("fault")
    tuning = values.get("tuning") or {}
    return Report(
        version=_count(values, "version"),
        instance=_text(values, "instance"),
        state=state,
        commits=[_commit(each) for each in _list(values, "commits")],
        held=[Held(_count(each, "split"), _count(each, "fence")) for each in _list(values, "held")],
        want=_count(values, "want", 0),
        pending=_counts(values.get("pending") or {}),
        memory_bytes=_count(values, "memory_bytes", 0),
        seconds=_seconds(values.get("seconds") or {}),
        tuning=tuning if isinstance(tuning, dict) else {},
        waiting=str(values.get("waiting") or "")[:_WAITING_MAX],
        fault=None if fault is None else _fault(fault),
    )


def check_report(report: Report) -> None:
    """Raises InvalidValue for a report of the right types whose values no instance says: accounts that do not add up,
    numbers and texts that no journal takes.
    """
    if len(report.commits) > _LIST_MAX or len(report.held) > _LIST_MAX:
        raise InvalidValue(f"more than {_LIST_MAX} commits or leases at once.", field="report")
    _bounded("want", report.want, report.memory_bytes, *(n for held in report.held for n in (held.split, held.fence)))
    _adds_up("pending", report.pending)
    for commit in report.commits:
        cursors = (commit.begin.object, commit.begin.offset, commit.end.object, commit.end.offset)
        sizes = (commit.data_bytes, commit.errors_bytes, commit.index_bytes)
        _bounded("commits", commit.split, commit.fence, *cursors, *sizes)
        _adds_up("commits.counts", commit.counts)
        if not (commit.part.isprintable() and commit.sha256.isprintable()):
            raise InvalidValue("it is no name.", field="commits.part")


def _adds_up(field: str, counts: Counts) -> None:
    _bounded(field, counts.inputs, counts.ok, counts.failed, counts.skipped)
    if counts.inputs != counts.ok + counts.failed + counts.skipped:
        raise InvalidValue(f"{counts} does not add up.", field=field)


def _bounded(field: str, *values: int) -> None:
    for value in values:
        if not 0 <= value <= _NUMBER_MAX:
            raise InvalidValue(f"{value} is not a whole number from 0 to {_NUMBER_MAX}.", field=field)


def write_orders(orders: Orders) -> bytes:
    """One line of JSON with its newline."""
    return _line(
        {
            "directive": orders.directive,
            "leases": [_lease(lease) for lease in orders.leases],
            "refused": [{"split": each.split, "fence": each.fence} for each in orders.refused],
            "report_every_s": orders.report_every_s,
            "token": orders.token,
        }
    )


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as the JSON file that an instance is started with."""
    values = dict(vars(manifest))
    for part in ("channel", "input", "result", "pins"):
        values[part] = vars(values[part])
    values["command"] = None if manifest.command is None else vars(manifest.command)
    values["hints"] = {machine: vars(hint) for machine, hint in manifest.hints.items()}
    return _line(values)


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _lease(lease: Lease) -> dict[str, Any]:
    return {
        "split": lease.split,
        "fence": lease.fence,
        "objects": [
            {
                "ordinal": each.ordinal,
                "name": each.name,
                "size": each.size,
                "etag": each.etag,
                "get": _access(each.get),
            }
            for each in lease.objects
        ],
        "start": lease.start,
        "stop": lease.stop,
        "cursor": {"object": lease.cursor.object, "offset": lease.cursor.offset},
        "part": {"name": lease.part.name, "put": _access(lease.part.put)},
    }


def _access(access: Access) -> dict[str, Any]:
    return {"kind": access.kind, "location": access.location, "headers": access.headers}


def _commit(values: Mapping[str, Any]) -> Commit:
    done = values.get("done")
    if not isinstance(done, bool):
        raise InvalidValue(f"{done!r} is neither true nor false.", field="commits.done")
    return Commit(
        split=_count(values, "split"),
        fence=_count(values, "fence"),
        part=_text(values, "part"),
        begin=_cursor(values, "begin"),
        end=_cursor(values, "end"),
        done=done,
        data_bytes=_count(values, "data_bytes"),
        errors_bytes=_count(values, "errors_bytes"),
        index_bytes=_count(values, "index_bytes"),
        sha256=_text(values, "sha256"),
        counts=_counts(values.get("counts")),
        seconds=_seconds({"commit": values.get("seconds", 0.0)})["commit"],
    )


def _cursor(values: Mapping[str, Any], key: str) -> Cursor:
    inner = values.get(key)
    if not isinstance(inner, dict):
        raise InvalidValue(f"{inner!r} is not a cursor.", field=key)
    return Cursor(_count(inner, "object"), _count(inner, "offset"))


def _counts(values: object) -> Counts:
    if not isinstance(values, dict):
        raise InvalidValue(f"{values!r} is not an account.", field="counts")
    counts = Counts(*(_count(values, key, 0) for key in ("inputs", "ok", "failed", "skipped")))
    if counts.inputs != counts.ok + counts.failed + counts.skipped:
        raise InvalidValue(f"{values!r} does not add up.", field="counts")
    return counts


def _fault(values: object) -> Fault:
    if not isinstance(values, dict):
        raise InvalidValue(f"{values!r} is not a fault.", field="fault")
    kind = _text(values, "kind")
    return Fault(
        kind=kind if kind in FATAL_FAULTS else "internal",
        message=str(values.get("message", ""))[:_TEXT_MAX],
        evidence=str(values.get("evidence", ""))[:_TEXT_MAX],
        traceback=str(values.get("traceback", ""))[:_TEXT_MAX],
    )


def _count(values: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidValue(f"{value!r} is not a whole number from 0 on.", field=key)
    return value


def _text(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or len(value) > _TEXT_MAX:
        raise InvalidValue(f"{str(value)[:80]!r} is not a text.", field=key)
    return value


def _list(values: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    value = values.get(key, [])
    if not isinstance(value, list) or len(value) > _LIST_MAX or any(not isinstance(each, dict) for each in value):
        raise InvalidValue(f"{str(value)[:80]} is not a list of objects.", field=key)
    return value


def _seconds(values: object) -> dict[str, float]:
    if not isinstance(values, dict):
        raise InvalidValue(f"{values!r} is not a mapping of phases to seconds.", field="seconds")
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
            raise InvalidValue(f"{value!r} is not a time in seconds.", field=f"seconds.{key}")
    return {str(key): float(value) for key, value in values.items()}
