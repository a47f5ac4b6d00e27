"""Which model, code and variables a replay uses: those of the task, unless the user gives others. Used by `replay`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.references import is_folder
from tidemill.local.models import digest_of
from tidemill.replaying.task import Task
from tidemill_runtime.models.inspect import ENTRY
from tidemill_runtime.models.kinds import PackageError, inspect_package


@dataclass(frozen=True)
class UsedModel:
    """model, code: absolute folders. env: of the model, besides what it gets anyway. notes: what is not as it was in
    the run, in words.
    """

    model: Path | None
    code: Path | None
    env: dict[str, str]
    notes: list[str]


def find_model(
    task: Task, *, model: str | None, code: str | None, given: Mapping[str, str], known: Mapping[str, str]
) -> UsedModel:
    """model: `--model`. code: `--with`, which takes the place of the task's code folder. given: `--env`. known: values
    of the task's variables from elsewhere.

    Raises NotFound where a folder is not to be had, Conflict where one is not what the task ran, and nobody said that
    it need not be.
    """
    spec, notes = task.spec, list[str]()
    said = model is not None or code is not None
    if spec.image is not None:
        raise InvalidValue(
            f"the task ran in the image {spec.image!r}, and containers are not replayed.",
            field="TASK",
            remedy="Run the record as a task of its own.",
        )
    used = _folder(model, "--model") if model is not None else _of_task(spec.model, "model", "--model DIR")
    over = _code_in(_folder(code, "--with")) if code is not None else None
    below = _of_task(spec.code, "code", "--with DIR") if over is None or _is_there(spec.code) else None
    if used is not None:
        notes += _compared(used, task.model_sha256, "model", said=said)
    if below is not None and (over is None or used is None):
        notes += _compared(below, task.code_sha256, "code", said=over is not None)
    if over is not None:
        notes.append(f"with the code in {over}")
    if used is None and over is not None:
        used = below  # the task had nothing but code: the other code goes before it
    if over is not None:
        _check_is_called(task, used, over)
    return UsedModel(used, over or below, _variables(task, given, known, notes), notes)


def _folder(text: str, field: str) -> Path:
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise NotFound(f"there is no folder {text!r}.", field=field, remedy="Give the folder that holds it.")
    return path


def _code_in(folder: Path) -> Path:
    """The folder itself, or its `batch` where it is laid out as a model package is: a copy of one can be mended."""
    inner = folder / "batch"
    return inner if (inner / ENTRY).is_file() and not (folder / ENTRY).is_file() else folder


def _check_is_called(task: Task, model: Path | None, code: Path) -> None:
    """Raises InvalidValue where the code is not what would be called: then the model alone would be tried."""
    command = task.spec.command.contract() if task.spec.command is not None else None
    try:
        info = inspect_package(str(model) if model else None, str(code), task.spec.function, command)
    except PackageError as error:
        raise InvalidValue(f"{error.message}.", field="--with") from error
    if info.kind == "service" and not Path(info.entry).is_relative_to(code):
        raise InvalidValue(
            f"{code} has no {ENTRY}, so that nothing in it would be called.",
            field="--with",
            remedy=f"Copy {info.entry} there, with what it imports, and mend the copy.",
        )


def _of_task(named: str | None, what: str, remedy: str) -> Path | None:
    if named is None:
        return None
    if _is_there(named):
        return Path(named)
    if is_folder(named):
        raise NotFound(f"the task's {what} {named!r} is not on this machine.", field=what, remedy=f"Give it: {remedy}.")
    raise NotFound(
        f"the task's {what} {named!r} is kept by a server, which does not hand it out.",
        field=what,
        remedy=f"Give the folder that it was made from: {remedy}. It is compared with what the task ran.",
    )


def _is_there(named: str | None) -> bool:
    return named is not None and is_folder(named) and Path(named).is_dir()


def _compared(folder: Path, sha256: str | None, what: str, *, said: bool) -> list[str]:
    """What is to be said of a folder. Raises Conflict if it is another than the task ran, and that was not said."""
    if sha256 is None or (now := digest_of(folder)) == sha256:
        return []
    if not said:
        option = "--model" if what == "model" else "--with"
        raise Conflict(
            f"{folder} is not the {what} that the task ran: its digest is {now[:12]}, the receipt says {sha256[:12]}.",
            field=what,
            remedy=f"Replay with it as it is now: {option} {folder}. Or bring back what the task ran.",
        )
    return [f"{folder} is not the {what} that the task ran"]


def _variables(task: Task, given: Mapping[str, str], known: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """Values of the task's variables and secrets: of those that were given, else from the server, else our own."""
    names = [*task.spec.env, *task.spec.secrets]
    found = dict(given)
    for name in names:
        value = given.get(name, known.get(name, os.environ.get(name)))
        if value is not None:
            found[name] = value
    missing = [name for name in names if name not in found]
    if missing:
        notes.append(f"without the variables {', '.join(missing)}: no receipt has values; give them with --env")
    return found
