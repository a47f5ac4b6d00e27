"""What a package is, found without running any of it: a class, a model of a known library, a function, or a command.

The control plane calls `inspect_package` when a model is imported and before a task starts, the worker calls it to
know what to load, so that both always agree. Standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from tidemill_runtime.models.commands import read_command
from tidemill_runtime.models.declared import (
    COMMAND_KINDS,
    FILE,
    KINDS,
    PackageError,
    check_options,
    declared_kind,
    read_declared,
)
from tidemill_runtime.models.inspect import ENTRY, find_class, find_entry, find_function

if TYPE_CHECKING:
    from tidemill_runtime.contract import Command

__all__ = ["KINDS", "PackageError", "PackageInfo", "inspect_package"]

MLMODEL = "MLmodel"
_BY_SUFFIX = {
    ".onnx": "onnx",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".model": "lightgbm",
}
_LIGHTGBM_HEAD = b"tree"
"""The first line of a model that LightGBM saved as text."""


class PackageInfo(NamedTuple):
    """kind: one of KINDS. entry: absolute path of the file that is loaded (service: the Python file; mlflow: its
    MLmodel); of a function `module:function`; of lines and http the command as a shell would read it.

    class_name: service: the class in the entry that is the model. line: of the class or function, 0 if not known.
    requirements: absolute path of the package's requirements.txt, None if it has none.
    options: what `tidemill.json` says beside the kind; `command` is a `contract.Command`, whoever gave it.
    """

    kind: str
    entry: str
    class_name: str
    line: int
    requirements: Optional[str]
    options: dict[str, Any]

    @property
    def file(self) -> Optional[str]:
        """The entry where it is a file, else None."""
        return None if self.kind == "function" or self.kind in COMMAND_KINDS else self.entry


def inspect_package(
    model: Optional[str],
    code: Optional[str] = None,
    function: Optional[str] = None,
    command: Optional[Command] = None,
) -> PackageInfo:
    """What is called of a model's folder, a code folder (which comes first) and what the task itself names.

    function, command: the task's own; they win over the package's. Raises PackageError.
    """
    folders = [folder for folder in (code, model) if folder]
    path, values = read_declared(folders)
    if function is not None:
        kind: Optional[str] = "function"
        values = {"function": function, **{key: values[key] for key in ("batch",) if key in values}}
    elif command is not None:
        kind = command.protocol
    else:
        kind = declared_kind(values)
    requirements = _requirements(folders)
    if kind in COMMAND_KINDS:
        return _command(path, values, kind, command, requirements)
    if kind == "function":
        return _function(folders, path, values, requirements)
    if kind is None:
        kind, entry = _found(model, code, folders, path, values)
    else:
        entry = _of_kind(kind, model, code, folders, path, values)
    name, line = find_class(entry) if kind == "service" else ("", 0)
    return PackageInfo(kind, entry, name, line, requirements, check_options(path, values, kind))


def _requirements(folders: list[str]) -> Optional[str]:
    for folder in reversed(folders):  # the model's own first
        path = os.path.join(folder, "requirements.txt")
        if os.path.isfile(path):
            return path
    return None


def _command(
    path: Optional[str], values: dict[str, Any], kind: str, given: Optional[Command], needs: Optional[str]
) -> PackageInfo:
    """given: the task's own command."""
    if given is None:
        if "command" not in values:
            raise PackageError("bad_file", f'{FILE}: kind {kind!r} needs a "command"', path)
        given = read_command(values["command"])
        if given.protocol != kind:
            raise PackageError("bad_file", f"{FILE}: kind {kind!r} contradicts protocol {given.protocol!r}", path)
        check_options(path, values, kind)
    return PackageInfo(kind, shlex.join(given.run), "", 0, needs, {"command": given})


def _function(folders: list[str], path: Optional[str], values: dict[str, Any], needs: Optional[str]) -> PackageInfo:
    name = values.get("function", "")
    module, mark, attribute = name.partition(":")
    if not mark or not all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")]):
        raise PackageError("no_function", f"{name!r} is no function; write it like module:function", path)
    file = find_module(folders, module)
    line = 0
    if file is not None:
        line = find_function(file, module, attribute)
    elif needs is None and not _installed(module):
        looked = " and ".join(folders) or "what is installed"
        raise PackageError("no_function", f"there is no module {module!r} (looked in {looked})", path)
    return PackageInfo("function", name, "", line, needs, check_options(path, values, "function"))


def find_module(folders: list[str], module: str) -> Optional[str]:
    """The absolute path of a module's source in the first folder that has it; None where it is installed, if at
    all.
    """
    parts = module.split(".")
    for folder in folders:
        for place in (os.path.join(folder, *parts) + ".py", os.path.join(folder, *parts, "__init__.py")):
            if os.path.isfile(place):
                return os.path.abspath(place)
    return None


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _found(
    model: Optional[str], code: Optional[str], folders: list[str], path: Optional[str], values: dict[str, Any]
) -> tuple[str, str]:
    """(kind, entry) by the files alone. Raises PackageError."""
    if "file" in values:
        entry = _named_file(path, values)
        return _kind_of(entry, path), entry
    try:
        return "service", find_entry(model, code)
    except PackageError:
        for place in _places(folders):
            if os.path.isfile(os.path.join(place, MLMODEL)):
                return "mlflow", os.path.abspath(os.path.join(place, MLMODEL))
        candidates = _candidates(folders)
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise _several([entry for _, entry in candidates]) from None
        if not folders:
            raise
        raise PackageError(
            "no_entry",
            f"the model has no {ENTRY}, {MLMODEL}, *.onnx, *.joblib, *.pkl or LightGBM text model (looked in "
            f"{' and '.join(folders)}); put one there, or say in {FILE} what it is",
        ) from None


def _of_kind(
    kind: str,
    model: Optional[str],
    code: Optional[str],
    folders: list[str],
    path: Optional[str],
    values: dict[str, Any],
) -> str:
    """The entry of a package whose kind is said. Raises PackageError."""
    if kind == "service":
        return find_entry(model, code)
    if "file" in values:
        return _named_file(path, values)
    if kind == "mlflow":
        for place in _places(folders):
            if os.path.isfile(os.path.join(place, MLMODEL)):
                return os.path.abspath(os.path.join(place, MLMODEL))
        raise PackageError("no_entry", f"there is no {MLMODEL} in {' or '.join(folders)}", path)
    fitting = [entry for found, entry in _candidates(folders) if found == kind]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise _several(fitting)
    raise PackageError("no_entry", f"there is no {kind} model in {' or '.join(folders)}", path)


def _named_file(path: Optional[str], values: dict[str, Any]) -> str:
    assert path is not None
    folder = os.path.dirname(path)
    entry = os.path.normpath(os.path.join(folder, values["file"]))
    if entry != folder and not entry.startswith(
        os.path.join(folder, "")
    ):  # it would be part of no digest, and on no server
        raise PackageError(
            "bad_file", f"{FILE}: {values['file']!r} leads out of the package; put the file into it", path
        )
    if os.path.isdir(entry):
        entry = os.path.join(entry, MLMODEL)
    if not os.path.isfile(entry):
        raise PackageError("no_entry", f"{FILE}: there is no file {values['file']!r} beside it", path)
    return entry


def _kind_of(entry: str, path: Optional[str]) -> str:
    """The kind of a file that tidemill.json names without one."""
    if os.path.basename(entry) == MLMODEL:
        return "mlflow"
    if os.path.basename(entry) == ENTRY:
        return "service"
    kind = _BY_SUFFIX.get(os.path.splitext(entry)[1].lower())
    if kind is None:
        raise PackageError("bad_file", f'{FILE}: say with "kind" what {os.path.basename(entry)!r} is', path)
    return kind


def _places(folders: list[str]) -> list[str]:
    """Where models lie: at the top of each folder, or in its folder `model`."""
    return [place for folder in folders for place in (folder, os.path.join(folder, "model"))]


def _candidates(folders: list[str]) -> list[tuple[str, str]]:
    """(kind, absolute path) of the models in the first place that has any, by name."""
    for place in _places(folders):
        try:
            names = sorted(os.listdir(place))
        except OSError:
            continue
        found = []
        for name in names:
            kind = _BY_SUFFIX.get(os.path.splitext(name)[1].lower())
            entry = os.path.abspath(os.path.join(place, name))
            if kind and os.path.isfile(entry) and (kind != "lightgbm" or _is_lightgbm(entry)):
                found.append((kind, entry))
        if found:
            return found
    return []


def _is_lightgbm(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(16).split(b"\n")[0].rstrip(b"\r") == _LIGHTGBM_HEAD
    except OSError:
        return False


def _several(entries: list[str]) -> PackageError:
    names = [os.path.basename(entry) for entry in entries]
    return PackageError(
        "several",
        f"there are several models: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}; "
        f'say in {FILE} which one is meant, like {{"file": "{names[0]}"}}',
    )
