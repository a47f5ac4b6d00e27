"""`tidemill.run`: a task without a server, from Python. The same as `tidemill run`, with arguments for flags."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict, Unpack

from tidemill.local import Result, RunProgress
from tidemill.local import run as run_local
from tidemill.settings import load_settings
from tidemill.wire.taskfile import TaskFile
from tidemill.wire.taskyaml import read_task

__all__ = ["Result", "RunProgress", "TaskKeys", "run"]


class TaskKeys(TypedDict, total=False):
    """The keys of a task file, as arguments. docs/reference/taskfile.md says what each means."""

    name: str
    description: str
    region: str
    model: str | os.PathLike[str]
    code: str | os.PathLike[str]
    function: str
    command: str | list[str] | Mapping[str, Any]
    env: Mapping[str, str]
    input: str | os.PathLike[str] | Mapping[str, Any]
    output: str | os.PathLike[str] | Mapping[str, Any]
    only_new: str | os.PathLike[str] | Mapping[str, Any]
    format: str | Mapping[str, Any]
    resources: Mapping[str, Any]
    instances: int
    deadline: float | str
    retries: int
    record_timeout: float | str
    tolerance: float | str
    batch: Mapping[str, int]
    tags: Mapping[str, str]


def run(
    task: str | os.PathLike[str] | Mapping[str, Any] | TaskFile | None = None,
    *,
    resume: bool = False,
    progress: bool | Callable[[RunProgress], None] = True,
    config: str | os.PathLike[str] | None = None,
    **keys: Unpack[TaskKeys],
) -> Result:
    """Runs a task here and returns when it has ended.

    task: a task file, a mapping with its keys, or nothing; `keys` go over it. Relative paths in a file start from its
    folder, all others from the current one.
    resume: go on with what an interrupted run of the same task committed; begin afresh where there is nothing.
    progress: True shows it (a bar in a terminal or notebook), False shows nothing; a function gets a `RunProgress` a
    few times a second.
    config: settings file; by default ./tidemill.toml or ~/.config/tidemill/tidemill.toml, if there is one.

    A task that fails or is stopped (Ctrl-C) is a result with that status: look at `result.status`. Raises
    `tidemill.domain.errors.Refused` if the request is wrong; nothing has been started then.

        result = tidemill.run(model="model", input="in/", output="out/")
    """
    settings = load_settings(Path(config) if config else None, os.environ).settings
    wanted = read_task(task, {key: _plain(value) for key, value in keys.items()}, repository=False)
    if callable(progress):
        return run_local(wanted, resume=resume, progress=progress, settings=settings)
    from tidemill.cli.progress import make_progress  # a view; not needed by those who bring their own

    with make_progress(quiet=not progress) as view:
        return run_local(wanted, resume=resume, progress=view.update, settings=settings)


def _plain(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
