"""`tidemill run`: a task without a server, in one process with its instances as children. `tidemill.run` is `run` here.

Imports neither FastAPI, SQLAlchemy nor pydantic: it has to start in a moment.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidemill.engines.children import Children
from tidemill.local.opening import open_run
from tidemill.local.progress import RunProgress
from tidemill.local.result import Result
from tidemill.local.runner import LocalRun
from tidemill.ports.clock import SystemClock
from tidemill.settings import Settings, load_settings
from tidemill.wire.taskfile import TaskFile, dump_task, parse_task
from tidemill.wire.taskyaml import read_task

__all__ = ["Result", "RunProgress", "run"]


def run(
    task: TaskFile | Mapping[str, Any] | str | Path,
    *,
    resume: bool = False,
    progress: Callable[[RunProgress], None] | None = None,
    settings: Settings | None = None,
    children: Children | None = None,
    **overrides: Any,
) -> Result:
    """Runs a task on this machine and returns what became of it.

    task: a task, a mapping of its keys, or the path of a task file. Relative paths start from the file's folder,
    otherwise from the current one. overrides: keys of the task, over those of `task` (`run("t.yaml", output="o/")`).
    resume: go on with the unfinished run in the output folder; where there is none, begin.
    progress: called a few times a second. settings: those in force by default (`tidemill.toml`, TIDEMILL_*).
    children: what the command line has started ahead; closed here.

    Raises Refused (InvalidValue, NotFound, OutputTaken …) for a request that is wrong, before anything is started. A
    run that fails or is stopped raises nothing: its Result says so. Ctrl-C stops it in order; a second one at once.
    """
    clock = SystemClock()
    began = clock.monotonic()
    if settings is None:
        settings = load_settings(None, os.environ).settings
    children = children or Children()
    try:
        opened = open_run(
            _task(task, overrides),
            settings,
            base=Path.cwd(),
            resume=resume,
            now_s=clock.now(),
            scratch=children.root,
        )
        return LocalRun(opened, settings, clock, children, began=began, progress=progress or _silent).run()
    finally:
        children.close()


def _task(task: TaskFile | Mapping[str, Any] | str | Path, overrides: Mapping[str, Any]) -> TaskFile:
    if isinstance(task, TaskFile):
        return parse_task({**dump_task(task), **overrides}) if overrides else task
    if isinstance(task, Mapping):
        return parse_task({**task, **overrides})
    return read_task(task, overrides, repository=False)


def _silent(_: RunProgress) -> None:
    return
