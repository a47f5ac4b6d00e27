"""`tidemill replay`: one record of a finished task again, alone and here; with a debugger, or with other code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.commands import Call
from tidemill.cli.output import EXIT_FAILED, EXIT_OK, printable
from tidemill.cli.task_app import task_of
from tidemill.domain.errors import InvalidValue
from tidemill.wire.quantities import format_bytes
from tidemill.wire.taskyaml import read_task

if TYPE_CHECKING:
    from tidemill.replaying.replay import Replayed
    from tidemill.replaying.task import AskedFor

_SHOWN_MAX = 2000
_SAID = {
    "same": "The same prediction as the task's.",
    "differs": "ANOTHER prediction than the task's.",
    "not_compared": "It has a prediction, which cannot be compared.",
    "recovered": "It failed in the task, and has a prediction now.",
    "fails_the_same": "It FAILS as it did in the task.",
    "fails_otherwise": "It FAILS, in another way than in the task.",
    "fails": "It FAILS.",
    "fails_now": "It FAILS, and had a prediction in the task.",
}


def replay(
    call: Call,
    task: Annotated[str, typer.Argument(metavar="TASK", help="Output folder, task file, or a task's id or name.")],
    record: Annotated[
        str | None,
        typer.Argument(metavar="RECORD", help="OBJECT:LINE, LINE where there is one object, OBJECT for a whole file."),
    ] = None,
    error: Annotated[
        int | None, typer.Option("--error", metavar="N", help="The N-th record that failed, from 1, instead.")
    ] = None,
    pdb: Annotated[bool, typer.Option("--pdb", help="Open Python's debugger where the model raises.")] = False,
    with_: Annotated[
        str | None, typer.Option("--with", metavar="CODE_DIR", help="Try this code: it goes before the package's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="DIR", help="The model, where it is not the task's own.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", metavar="KEY=VALUE", help="Environment variable; repeatable.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", metavar="NUMBER", help="Numbers no further apart are the same. Default: 1e-6."),
    ] = None,
) -> int:
    r"""Run one record of a task again, alone and on this machine.

    \b
    tidemill replay ./out/ reviews.jsonl:3
    tidemill replay ./out/ --error 1 --pdb      stop where the first failed record fails
    tidemill replay ./out/ --error 1 --with ./fixed/
    tidemill replay task.yaml reviews.jsonl:3   also of a task that has no results
    tidemill replay batch-… scan-17.png --model ./churn/

    Same model, code, environment and reader as in the task; the prediction is compared with the stored one.
    Exit status: 0 the same, or a prediction where it failed; 1 it fails or differs; 2 refused.
    """
    from tidemill.replaying.replay import TOLERANCE, Asked, check_debug  # reads storage itself
    from tidemill.replaying.replay import replay as run_again

    if pdb:
        check_debug(json=call.out.json)
    folder, asked_for = _task(call, task)
    replayed = run_again(
        Asked(
            folder,
            record,
            error,
            model=model,
            code=with_,
            env=dict(map(_pair, env or ())),
            task=asked_for,
            tolerance=TOLERANCE if tolerance is None else tolerance,
            debug=pdb,
        ),
        call.loaded.settings,
        call.out.note,
    )
    call.out.document(replayed.to_json())
    _show(call, replayed)
    return EXIT_OK if replayed.good else EXIT_FAILED


def _task(call: Call, named: str) -> tuple[str, AskedFor | None]:
    """The output folder of a task, and what it was asked to do, where that is known without the folder."""
    from tidemill.replaying.task import AskedFor  # as above

    if Path(named).is_file():
        spec = read_task(named, repository=False)
        return spec.output.path, AskedFor(spec.name, spec)
    found = task_of(call, named, "TASK")
    if found is None:
        return named, None
    view = call.client.tasks.get(found)

    def errors() -> Iterator[dict[str, Any]]:
        return (error.model_dump() for error in call.client.tasks.errors(found))

    return view.output, AskedFor(view.id, view.spec, view.model_digest, view.code_digest, errors)


def _pair(text: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name:
        raise InvalidValue(f"{text!r} is no variable.", field="--env", remedy="Write KEY=VALUE.")
    return name, value


def _show(call: Call, replayed: Replayed) -> None:
    out, stored = call.out, replayed.stored
    for note in replayed.notes:
        out.note(f"note: {note}")
    out.pairs(
        [
            ("record", replayed.place),
            ("input", None if replayed.input is None else printable(replayed.input[:_SHOWN_MAX])),
            ("stored", _then(replayed)),
            ("now", _failed(replayed.failure) if replayed.failure else _value(replayed.prediction)),
            ("time", ", ".join(f"{name[:-2]} {spent:.3g} s" for name, spent in replayed.seconds.items())),
            ("memory", format_bytes(replayed.memory_bytes) if replayed.memory_bytes else None),
        ]
    )
    if replayed.failure is not None and replayed.failure["traceback"]:
        out.line()
        for line in replayed.failure["traceback"].rstrip().splitlines():
            out.line(printable(line))
    out.line()
    out.line(_SAID[replayed.verdict.value] + (f" ({replayed.apart:.2g} apart)" if replayed.apart else ""))
    if stored is not None and not stored.known:
        out.note(f"Not compared: {stored.why}.")


def _then(replayed: Replayed) -> str | None:
    if replayed.stored_failure is not None:
        return _failed(replayed.stored_failure)
    stored = replayed.stored
    return _value(stored.prediction) if stored is not None and stored.known else None


def _failed(failure: dict[str, Any]) -> str:
    kind = f"{failure['type']}: " if failure["type"] else ""
    return f"failed ({failure['fault']}): {kind}{printable(failure['message'])[:_SHOWN_MAX]}"


def _value(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"
