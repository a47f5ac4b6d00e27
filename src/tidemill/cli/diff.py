"""`tidemill diff`: what changed between the predictions of two tasks, or of a task and what was expected."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.commands import Call
from tidemill.cli.output import EXIT_FAILED, EXIT_OK, counted
from tidemill.cli.task_app import task_of

if TYPE_CHECKING:
    from tidemill.comparing.report import Example, Report

_LABELS = 12
_VALUE_MAX = 120


def diff(
    call: Call,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="Output folder, task, or file of expected values.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The same, to be compared with it.")],
    on: Annotated[
        list[str] | None, typer.Option("--on", metavar="KEY", help="Join by this key of the results; repeatable.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option("--tolerance", metavar="NUMBER", help="Numbers no further apart are the same.")
    ] = 0.0,
    examples: Annotated[int, typer.Option("--examples", metavar="COUNT", min=0, help="Records to show.")] = 10,
) -> int:
    r"""Compare the predictions of two tasks, record by record.

    \b
    tidemill diff ./out-1/ ./out-2/
    tidemill diff batch-… batch-…  --tolerance 1e-6
    tidemill diff expected.csv ./out/ --on id

    Records are joined by their place in the input, or by --on. Exit status: 0 the same, 1 they differ, 2 refused.
    """
    from tidemill.comparing.diff import diff as compare  # reads storage itself; not needed by other commands

    report = compare(
        _place(call, before, "BEFORE"),
        _place(call, after, "AFTER"),
        on=tuple(on or ()),
        tolerance=tolerance,
        examples=examples,
        settings=call.loaded.settings,
    )
    call.out.document(report.to_json())
    _show(call, report)
    return EXIT_OK if report.equal else EXIT_FAILED


def _place(call: Call, named: str, field: str) -> str:
    """A folder or file as it is; the output folder of a task."""
    task = task_of(call, named, field)
    return named if task is None else str(call.client.tasks.get(task).output)


def _show(call: Call, report: Report) -> None:
    out = call.out
    out.line(f"before  {report.before}")
    out.line(f"after   {report.after}")
    out.line()
    share = f" ({report.changed / report.compared:.2%})" if report.compared else ""
    out.line(
        f"{counted(report.compared, 'record')} compared: {report.same:,} the same, {report.changed:,} changed{share}"
    )
    for count, what in (
        (report.failed_before, "failed before, have a prediction now"),
        (report.failed_after, "had a prediction, fail now"),
        (report.failed_both, "failed in both"),
        (report.only_before, "are in BEFORE only"),
        (report.only_after, "are in AFTER only"),
        (report.repeated, "have a key that was there already, and were left out"),
    ):
        if count:
            out.line(f"  {count:,} {what}")
    _show_fields(call, report.to_json()["fields"])
    _show_examples(call, "The first that differ" if report.largest else "Examples", report.examples)
    if report.largest and report.largest != report.examples:
        _show_examples(call, "The furthest apart", report.largest)


def _show_fields(call: Call, fields: dict[str, dict[str, Any]]) -> None:
    numbers = [(name, found["numbers"]) for name, found in fields.items() if "numbers" in found]
    if numbers:
        call.out.line()
        columns = ["NUMBERS", "CHANGED", "MEAN", "P50", "P90", "P99", "MAX"]
        rows = [
            (name, found["changed"], *(f"{found[key]:.4g}" for key in ("mean", "p50", "p90", "p99", "max")))
            for name, found in numbers
        ]
        call.out.table(columns, rows)
    labels = [
        (name, pair["before"], pair["after"], pair["count"])
        for name, found in fields.items()
        for pair in found.get("labels", ())[:_LABELS]
    ]
    if labels:
        call.out.line()
        call.out.table(["LABELS", "BEFORE", "AFTER", "CHANGED"], labels)
    for name, found in fields.items():
        if found.get("other_kinds"):
            call.out.line(f"{name}: {counted(found['other_kinds'], 'value')} of another kind or length")


def _show_examples(call: Call, title: str, examples: list[Example]) -> None:
    if not examples:
        return
    call.out.line()
    rows = [
        (each.place if each.key is None else f"{each.key}", _text(each.before), _text(each.after)) for each in examples
    ]
    call.out.line(f"{title}:")
    call.out.table(["RECORD", "BEFORE", "AFTER"], rows)


def _text(value: Any) -> str:
    text = "(failed)" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_MAX else text[: _VALUE_MAX - 1] + "…"
