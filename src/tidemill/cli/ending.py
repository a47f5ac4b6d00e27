"""How the end of a task is told: the one JSON document, the summary for people, the exit status.

Shared by `run` and `task create --wait`, so that both say the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.cli.output import EXIT_FAILED, EXIT_OK, Output, styled
from tidemill.wire.quantities import format_seconds

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


def tell(out: Output, end: Ending) -> int:
    """Prints it; the exit status: 0 only for SUCCEED."""
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
    if out.json and good and end.failed:
        out.warn(f"{headline}. {end.explanation}")
    return EXIT_OK if good else EXIT_FAILED


def failed_records(count: int) -> str:
    """`3 failed records`."""
    return f"{count:,} failed record{'' if count == 1 else 's'}"
