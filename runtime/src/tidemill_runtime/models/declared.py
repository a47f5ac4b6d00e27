"""`tidemill.json` at a package's root: says what the package is where its files do not, and options of its kind.

Read by `kinds` without running anything of the package. Standard library only. A kind's options are named here once,
each with its type; whoever adds an option to an adapter adds it to KEYS.
"""

from __future__ import annotations

import json
import os
from typing import Any, Optional

from tidemill_runtime.models.commands import PROTOCOLS, read_command

FILE = "tidemill.json"
BYTES_MAX = 64 * 1024
"""A larger one is none that a person wrote."""

KINDS = ("service", "mlflow", "onnx", "sklearn", "lightgbm", "function", "lines", "http")
COMMAND_KINDS = PROTOCOLS
"""What a `command` can be: its `protocol` says which."""

_ARTIFACT = ("mlflow", "onnx", "sklearn", "lightgbm")
_BATCHES = ("record", "dict", "str", "bytes", "path", "numpy", "pandas", "polars", "arrow")

KEYS: dict[str, tuple[type, tuple[str, ...]]] = {
    "kind": (str, KINDS),
    "file": (str, _ARTIFACT),
    "columns": (list, ("onnx", "sklearn", "lightgbm")),
    "batch": (str, ("sklearn", "function")),
    "method": (str, ("sklearn",)),
    "outputs": (list, ("onnx",)),
    "function": (str, ("function",)),
    "command": (dict, COMMAND_KINDS),
}
"""Every key: the type of its value, and the kinds that it is for."""

_VALUES: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "method": ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform"),
    "batch": _BATCHES,
}
_TYPE_WORDS = {
    str: "a text",
    dict: "an object",
    list: "a list of texts",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


class PackageError(Exception):
    """The package holds no model that could be called.

    kind: "no_entry" | "syntax_error" | "no_class" | "no_function" | "several" | "bad_file".
    file: absolute path, where one is to blame; line: in it, from 1.
    """

    def __init__(self, kind: str, message: str, file: Optional[str] = None, line: Optional[int] = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.file = file
        self.line = line


def read_declared(folders: list[str]) -> tuple[Optional[str], dict[str, Any]]:
    """(path, values) of the first folder that has a tidemill.json; (None, {}) if none has. Raises PackageError."""
    for folder in folders:
        path = os.path.join(folder, FILE)
        if os.path.isfile(path):
            return os.path.abspath(path), _read(path)
    return None, {}


def declared_kind(values: dict[str, Any]) -> Optional[str]:
    """The kind that the values say or imply; None leaves it to the files."""
    if "kind" in values:
        return str(values["kind"])
    if "function" in values:
        return "function"
    if "command" in values:
        return str(values["command"]["protocol"])
    return None


def check_options(path: Optional[str], values: dict[str, Any], kind: str) -> dict[str, Any]:
    """The options among the values. Raises PackageError for one that this kind does not have."""
    options = {key: value for key, value in values.items() if key != "kind"}
    for key in options:
        if kind not in KEYS[key][1]:
            raise PackageError(
                "bad_file", f"{FILE}: {key!r} is for {' and '.join(KEYS[key][1])}, and this is {kind}", path
            )
    return options


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(BYTES_MAX + 1)
        if len(data) > BYTES_MAX:
            raise PackageError("bad_file", f"{FILE} is larger than {BYTES_MAX // 1024} KiB", path)
        values = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        message = f"{FILE} line {error.lineno} is no JSON: {error.msg}"
        raise PackageError("bad_file", message, path, error.lineno) from None
    except (UnicodeDecodeError, RecursionError, OSError) as error:
        raise PackageError("bad_file", f"{FILE} cannot be read: {error}", path) from None
    if not isinstance(values, dict):
        raise PackageError("bad_file", f'{FILE} has to hold one object, like {{"kind": "onnx"}}', path)
    for key, value in values.items():
        _check(path, key, value)
    return values


def _check(path: str, key: str, value: Any) -> None:
    if key not in KEYS:
        from difflib import get_close_matches  # only where something is wrong

        near = get_close_matches(key, KEYS, 1, 0.5)
        hint = f"; did you mean {near[0]!r}?" if near else f"; it may have {', '.join(KEYS)}"
        raise PackageError("bad_file", f"{FILE}: unknown key {key!r}{hint}", path)
    wanted = KEYS[key][0]
    good = isinstance(value, wanted) and (wanted is bool or not isinstance(value, bool))
    if good and wanted is list:
        good = bool(value) and all(isinstance(each, str) for each in value)
    if not good:
        raise PackageError("bad_file", f"{FILE}: {key!r} has to be {_TYPE_WORDS[wanted]}, not {value!r}", path)
    if key == "command":
        try:
            read_command(value)
        except ValueError as error:
            raise PackageError("bad_file", f"{FILE}: 'command' {error}", path) from None
    allowed = _VALUES.get(key)
    if allowed is not None and value not in allowed:
        raise PackageError("bad_file", f"{FILE}: {key!r} is one of {', '.join(allowed)}, not {value!r}", path)
