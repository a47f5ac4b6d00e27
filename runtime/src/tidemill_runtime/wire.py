"""The contract's messages as an instance reads and writes them; used by the agent and the workers.

Building the contract's dataclasses costs 40 ms at every start, more than all else that the agent does. So a message
that comes in becomes a namespace with the same attributes (typed as the contract's class for the checker), and one that
goes out is a dict with the contract's keys. A test holds every message and default here against `contract`.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional, cast

if TYPE_CHECKING:
    from tidemill_runtime import contract

CONTRACT_VERSION = 1

EXIT_DONE = 0
EXIT_FATAL = 3
EXIT_ORPHANED = 4
EXIT_STOPPED = 5

DEFAULTS: dict[str, dict[str, Any]] = {
    "InputFormat": {
        "compression": "none",
        "delimiter": ",",
        "quote": '"',
        "header": True,
        "encoding": "utf-8",
        "columns": None,
        "max_record_bytes": 16 * 1024 * 1024,
    },
    "ResultFormat": {"type": "jsonl", "form": "aligned", "keys": [], "layout": "per_object", "extension": ""},
    "Channel": {"url": "", "token": "", "fd": -1},
    "Pins": {"batch_size": None, "processes": None, "threads": None},
    "Command": {
        "load_timeout_s": 600.0,
        "lifetime": "auto",
        "answer": "auto",
        "port": None,
        "health": "/ping",
        "predict": "/invocations",
        "content_type": "application/json",
        "accept": None,
        "key": None,
        "records": "many",
        "connections": None,
        "max_request_bytes": 6 * 1024 * 1024,
    },
    "Manifest": {
        "record_timeout_s": None,
        "commit_every_s": 5.0,
        "orphan_after_s": 3600.0,
        "die_with_parent": False,
        "pins": {},
        "hints": {},
        "env": {},
        "function": None,
    },
    "Access": {"headers": {}},
    "Orders": {"leases": [], "refused": [], "report_every_s": 2.0, "token": None},
}
"""What a coordinator may leave out, by class of the contract."""

ZERO_COUNTS = {"inputs": 0, "ok": 0, "failed": 0, "skipped": 0}


def read_manifest(path: str) -> contract.Manifest:
    """Raises OSError, ValueError or KeyError where the file is no manifest."""
    with open(path, "rb") as file:
        return parse_manifest(file.read())


def parse_manifest(text: bytes) -> contract.Manifest:
    """Raises ValueError or KeyError where the text is no manifest."""
    values = json.loads(text)
    manifest = _filled("Manifest", values)
    manifest.channel = _filled("Channel", values["channel"])
    manifest.input = _filled("InputFormat", values["input"])
    manifest.result = _filled("ResultFormat", values["result"])
    if manifest.command is not None:
        manifest.command = _filled("Command", values["command"])
    manifest.pins = _filled("Pins", values.get("pins") or {})
    manifest.hints = {machine: _filled("Pins", hint) for machine, hint in (values.get("hints") or {}).items()}
    return cast("contract.Manifest", manifest)


def read_orders(text: bytes) -> dict[str, Any]:
    """The orders as a dict with every key; leases stay as they came, since the agent only hands them on."""
    values = json.loads(text)
    return {**DEFAULTS["Orders"], **values}


def read_lease(values: dict[str, Any]) -> contract.Lease:
    """A lease of what `read_orders` left as it came."""
    lease = SimpleNamespace(**values)
    lease.objects = [_input_object(each) for each in values["objects"]]
    lease.cursor = SimpleNamespace(**values["cursor"])
    lease.part = SimpleNamespace(**values["part"])
    lease.part.put = _filled("Access", values["part"]["put"])
    return cast("contract.Lease", lease)


def _input_object(values: dict[str, Any]) -> SimpleNamespace:
    found = SimpleNamespace(**values)
    found.get = _filled("Access", values["get"])
    return found


def fault(kind: str, message: str, evidence: str = "", traceback: str = "") -> dict[str, Any]:
    """The contract's Fault."""
    return {"kind": kind, "message": message, "evidence": evidence, "traceback": traceback}


def report(
    instance: str,
    state: str,
    *,
    commits: list[dict[str, Any]],
    held: list[dict[str, Any]],
    want: int,
    pending: dict[str, int],
    memory_bytes: int,
    seconds: dict[str, float],
    tuning: dict[str, Any],
    waiting: str,
    fault: Optional[dict[str, Any]],
) -> dict[str, Any]:
    """The contract's Report."""
    return {
        "version": CONTRACT_VERSION,
        "instance": instance,
        "state": state,
        "commits": commits,
        "held": held,
        "want": want,
        "pending": pending,
        "memory_bytes": memory_bytes,
        "seconds": seconds,
        "tuning": tuning,
        "waiting": waiting,
        "fault": fault,
    }


def dumps(message: dict[str, Any]) -> bytes:
    """One line of JSON with its newline."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def loads(line: bytes) -> dict[str, Any]:
    """What `dumps` wrote."""
    return cast("dict[str, Any]", json.loads(line))


def _filled(kind: str, values: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(**{**DEFAULTS[kind], **values})
