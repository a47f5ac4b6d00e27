"""`tidemill run`: a task without a server. Imports neither Typer nor anything of the server's stack: it has to start
quickly.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from tidemill.cli.ending import Ending, group_failures, tell
from tidemill.cli.options import FLAG_NAMES, RunRequest, task_values
from tidemill.cli.output import EXIT_INTERRUPTED, Output
from tidemill.cli.progress import make_progress
from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, TidemillError
from tidemill.engines.children import Children
from tidemill.local import run
from tidemill.settings import load_settings
from tidemill.wire.taskyaml import read_task


def run_command(request: RunRequest, children: Children | None = None) -> int:
    """Runs the task; the exit status. children: with one that was started ahead."""
    out = Output(json=request.json, quiet=request.quiet)
    try:
        return _run(request, out, children)
    except TidemillError as error:
        return out.refusal(error)
    except KeyboardInterrupt:
        out.note("Interrupted before anything was started.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED


def _run(request: RunRequest, out: Output, children: Children | None) -> int:
    values = task_values(request.task)
    if request.file is None and not values:
        raise InvalidValue(
            "no task is given.",
            remedy="Give a task file, or --model DIR --input PATH --output DIR. `tidemill run --help` has examples.",
        )
    settings = load_settings(Path(request.config) if request.config else None, os.environ).settings
    task = read_task(request.file, values, flag_names=FLAG_NAMES, repository=False)
    with make_progress(quiet=request.quiet) as progress:
        result = run(task, resume=request.resume, progress=progress.update, settings=settings, children=children)
    end = Ending(
        id=result.id,
        name=task.name,
        status=result.status,
        reason=result.reason,
        explanation=result.explanation,
        inputs=result.inputs,
        ok=result.ok,
        failed=result.failed,
        skipped=result.skipped,
        output=result.output,
        seconds=result.seconds,
        log=result.log,
        tuning=result.tuning,
    )
    status = tell(out, end, group_failures(result.errors()) if result.failed else ())
    if result.failed and result.succeeded:
        out.note(f"Every failed record, with its traceback: {result.output.rstrip('/')}/{layout.ERRORS}")
    if result.resumable:
        out.note(f"What was committed is kept. To go on: {resume_command(sys.argv[1:])}")
    return status


def resume_command(arguments: list[str]) -> str:
    """The command that goes on with this run."""
    kept = [argument for argument in arguments if argument != "--resume"]
    return shlex.join(["tidemill", *kept, "--resume"])
