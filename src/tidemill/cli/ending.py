"""How the end of a task is told: the one JSON document, the summary for people, the exit status.

Shared by `run` and `task create --wait`, so that both say the same.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tidemill.cli.output import EXIT_FAILED, EXIT_OK, Output, counted, printable, styled
from tidemill.domain.life import Reason, explain
from tidemill.domain.tuning import sentences
from tidemill.wire.quantities import format_seconds

GROUPS_SHOWN = 3
GROUPED_MAX = 20_000
"""Failures that are looked at for the summary: the causes of more are the same, and reading them takes its time."""
MESSAGE_MAX = 160
_NOTHING_TO_SAY = explain(Reason.FINISHED)
PHASES = ("queue", "environment", "start", "load", "predict", "publish")


@dataclass(frozen=True)
class Ending:
    """What became of a task. seconds: by phase. log: where what the instances printed can be read, if anywhere.
    tuning: the choices that were made, as instances report them.
    """

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
    log: str | None = None
    tuning: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failures:
    """Failed records of one cause. example: the first of them, as in errors.jsonl."""

    count: int
    example: Mapping[str, Any]


def tell(out: Output, end: Ending, failures: Sequence[Failures] = ()) -> int:
    """Prints it; the exit status: 0 only for SUCCEED. failures: by cause, the most frequent first."""
    good = end.status == "SUCCEED"
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
            "tuning": dict(end.tuning),
            **({} if good else {"log": end.log}),
        }
    )
    colour = "1;32" if good and not end.failed else "1;33" if good or end.status == "STOPPED" else "1;31"
    total = end.seconds.get("total", sum(end.seconds.get(phase, 0.0) for phase in PHASES))
    headline = f"{end.status} WITH {failed_records(end.failed).upper()}" if good and end.failed else end.status
    out.line(f"{styled(sys.stdout, headline, colour)}  {end.name}  {end.id}")
    if not good or end.failed or end.explanation != _NOTHING_TO_SAY:
        out.line("  " + end.explanation.replace("\n", "\n  "))
    accounted = f"{end.inputs:,} = {end.ok:,} ok + {end.failed:,} failed + {end.skipped:,} skipped"
    spent = ", ".join(f"{phase} {format_seconds(end.seconds[phase])}" for phase in PHASES if end.seconds.get(phase))
    out.line(f"  records  {accounted}")
    out.line(f"  time     {format_seconds(total)}{f' ({spent})' if spent else ''}")
    for number, choice in enumerate(sentences(end.tuning)):
        out.line(f"  {'' if number else 'tuning':<7}  {printable(choice)}")
    out.line(f"  output   {end.output}")
    if end.log and not good:
        out.line(f"  log      {end.log}")
    if end.failed:
        _tell_failures(out, failures)
    if out.json and good and end.failed:
        out.warn(f"{headline}. {end.explanation}")
    return EXIT_OK if good else EXIT_FAILED


def _tell_failures(out: Output, failures: Sequence[Failures]) -> None:
    for group in failures[:GROUPS_SHOWN]:
        place, what = place_of(group.example), what_failed(group.example)
        out.line(f"  failed   {place}: {what}" if group.count == 1 else f"  failed   {group.count:,} × {what}")
        if group.count > 1:
            out.line(f"           the first: {place}")
    if len(failures) > GROUPS_SHOWN:
        out.line(f"           … and {counted(len(failures) - GROUPS_SHOWN, 'more cause')}")


def group_failures(failures: Iterable[Mapping[str, Any]]) -> list[Failures]:
    """The first of many failures by cause, the most frequent first. failures: lines of errors.jsonl."""
    counts: dict[str, int] = {}
    examples: dict[str, Mapping[str, Any]] = {}
    for failure in islice(failures, GROUPED_MAX):
        cause = failure.get("fingerprint") or f"{failure['type']}: {failure['message']}"
        counts[cause] = counts.get(cause, 0) + 1
        examples.setdefault(cause, failure)
    return [Failures(counts[cause], examples[cause]) for cause in sorted(counts, key=lambda each: -counts[each])]


def place_of(failure: Mapping[str, Any]) -> str:
    """`reviews.jsonl line 3`."""
    at = next((f" {key} {failure[key]}" for key in ("line", "row") if failure.get(key) is not None), "")
    return printable(f"{failure['object']}{at}")


def what_failed(failure: Mapping[str, Any]) -> str:
    """`KeyError: 'text'`, on one line; `MemoryError` alone where there is no message."""
    message = printable(failure["message"])
    return (f"{failure['type']}: {message}" if message else str(failure["type"]))[:MESSAGE_MAX]


def failed_records(count: int) -> str:
    """`3 failed records`."""
    return counted(count, "failed record")
