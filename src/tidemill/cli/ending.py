"""How the end of a task is told: the one JSON document, the summary for people, the exit status.

Shared by `run` and `task create --wait`, so that both say the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tidemill.cli.output import EXIT_FAILED, EXIT_OK, Output, printable, styled
from tidemill.wire.quantities import format_seconds

FAILURES_SHOWN = 3
MESSAGE_MAX = 160
PHASES = ("queue", "start", "load", "predict", "publish")


@dataclass(frozen=True)
class Ending:
    """What became of a task. seconds: by phase."""

    id: str
    name: str
    status: str
    reason: str
    explanation: str
    inputs: int
    ok: int
    failed: int
    skipped: int
    output: str
    seconds: Mapping[str, float]


def tell(out: Output, end: Ending, failures: Iterable[Mapping[str, Any]] = ()) -> int:
    """Prints it; the exit status: 0 only for SUCCEED. failures: of records, as in errors.jsonl; the first are shown."""
    out.document(
        {
            "id": end.id,
            "status": end.status,
            "reason": end.reason,
            "explanation": end.explanation,
            "inputs": end.inputs,
            "ok": end.ok,
            "failed": end.failed,
            "skipped": end.skipped,
            "output": end.output,
            "seconds": {phase: round(seconds, 6) for phase, seconds in end.seconds.items()},
        }
    )
    good = end.status == "SUCCEED"
    colour = "1;32" if good and not end.failed else "1;33" if good or end.status == "STOPPED" else "1;31"
    total = end.seconds.get("total", sum(end.seconds.get(phase, 0.0) for phase in PHASES))
    headline = f"{end.status} WITH {failed_records(end.failed).upper()}" if good and end.failed else end.status
    out.line(f"{styled(sys.stdout, headline, colour)}  {end.name}  {end.id}")
    if not good or end.failed:
        out.line(f"  {end.explanation}")
    accounted = f"{end.inputs:,} = {end.ok:,} ok + {end.failed:,} failed + {end.skipped:,} skipped"
    spent = ", ".join(f"{phase} {format_seconds(end.seconds[phase])}" for phase in PHASES if end.seconds.get(phase))
    out.line(f"  records  {accounted}")
    out.line(f"  time     {format_seconds(total)}{f' ({spent})' if spent else ''}")
    out.line(f"  output   {end.output}")
    if end.failed and not out.json:
        _tell_failures(out, failures, end.failed)
    if out.json and good and end.failed:
        out.warn(f"{headline}. {end.explanation}")
    return EXIT_OK if good else EXIT_FAILED


def _tell_failures(out: Output, failures: Iterable[Mapping[str, Any]], count: int) -> None:
    shown = list(islice(failures, FAILURES_SHOWN))
    for failure in shown:
        out.line(f"  failed   {place_of(failure)}: {what_failed(failure)}")
    if shown and count > len(shown):
        out.line(f"           … and {count - len(shown):,} more")


def place_of(failure: Mapping[str, Any]) -> str:
    """`reviews.jsonl line 3`."""
    at = next((f" {key} {failure[key]}" for key in ("line", "row") if failure.get(key) is not None), "")
    return printable(f"{failure['object']}{at}")


def what_failed(failure: Mapping[str, Any]) -> str:
    """`KeyError: 'text'`, on one line."""
    message = printable(failure["message"])
    return f"{failure['type']}: {message}"[:MESSAGE_MAX]


def failed_records(count: int) -> str:
    """`3 failed records`."""
    return f"{count:,} failed record{'' if count == 1 else 's'}"
