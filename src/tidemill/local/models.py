"""A model on this machine: is it a folder with a class that can be called, and which bytes is it?

Called by `opening` before anything starts.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.package import PackageFile, is_ignored, package_digest
from tidemill.wire.taskfile import TaskFile
from tidemill_runtime.models.kinds import PackageError, PackageInfo, inspect_package


@dataclass(frozen=True)
class LocalModel:
    """model, code: absolute folders. info: what is called of them."""

    model: Path | None
    code: Path | None
    info: PackageInfo

    @property
    def function(self) -> str | None:
        """`module:function` where it is one that is called."""
        return self.info.entry if self.info.kind == "function" else None

    @property
    def named(self) -> str | None:
        """The function or the command, where it is one that is called."""
        return self.info.entry if self.info.file is None else None

    @property
    def command(self) -> dict[str, Any] | None:
        """What is said of the command, where it is one."""
        command = self.info.options.get("command")
        return None if command is None else dict(vars(command))

    def folders(self) -> list[Path]:
        return [folder for folder in (self.model, self.code) if folder is not None]


def check_model(task: TaskFile, base: Path) -> LocalModel:
    """What `run` is to run. base: the folder that relative paths start from.

    Raises InvalidValue or NotFound, naming the file and line where there is one, before anything starts.
    """
    if task.image is not None:
        raise InvalidValue(
            f"{task.image!r} is a container image, which `tidemill run` does not start.",
            field="image",
            remedy="Leave it out, or create the task on a server with a container engine.",
        )
    if task.secrets:
        raise InvalidValue(
            "`tidemill run` has no store of secrets.", field="secrets", remedy="Give them in `env`, or use a server."
        )
    if task.resources.gpu:
        raise InvalidValue(
            "`tidemill run` does not share out GPUs.", field="resources.gpu", remedy="Leave it out, or use a server."
        )
    model = _folder(task.model, "model", base) if task.model is not None else None
    code = _folder(task.code, "code", base) if task.code is not None else None
    command = task.command.contract() if task.command is not None else None
    try:
        info = inspect_package(str(model) if model else None, str(code) if code else None, task.function, command)
    except PackageError as error:
        line = f", line {error.line}" if error.line else ""
        place = f" ({error.file}{line})" if error.file else ""
        field = "function" if task.function else "model" if model else "code"
        raise InvalidValue(f"{error.message}{place}.", field=field) from error
    return LocalModel(model, code, info)


def stamp_of(folders: list[Path]) -> str:
    """Changes with any write to the folders' files that the file system can tell; reads none of them."""
    seen = [
        [str(folder), path, found.st_size, found.st_mtime_ns, found.st_ino]
        for folder in folders
        for path, found in _files(folder)
    ]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()


def digest_of(folder: Path) -> str:
    """The digest of a package folder (`domain.package`): reads all of it."""
    return package_digest(
        PackageFile(path, _sha256(folder / path), found.st_size, bool(found.st_mode & 0o100))
        for path, found in _files(folder)
    )


def _folder(text: str, field: str, base: Path) -> Path:
    path = (base / Path(text).expanduser()).absolute()
    if path.is_dir():
        return path
    if path.exists():
        raise InvalidValue(f"{text!r} is a file.", field=field, remedy="Give the folder that holds it.")
    if field == "model" and "/" not in text:
        raise InvalidValue(
            f"{text!r} is no folder here, and `tidemill run` has no model repository.",
            field=field,
            remedy="Give a folder like ./model, or create the task on a server (`tidemill task create`).",
        )
    raise NotFound(f"there is no folder {text!r}.", field=field, remedy="Check the path.")


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    for top, folders, names in os.walk(folder):
        inner = Path(top).relative_to(folder)
        folders[:] = sorted(name for name in folders if not is_ignored(name))
        for name in sorted(names):
            path = (inner / name).as_posix()
            if not is_ignored(path) and (folder / path).is_file():
                yield path, (folder / path).stat()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
