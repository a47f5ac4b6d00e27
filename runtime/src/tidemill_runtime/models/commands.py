"""A command of the user's own as a model: what may be said about one, and what all of them are started with.

The task file's `command` and that of a package's tidemill.json have the same keys. Read by `declared` and `kinds`
(standard library only), and by the adapters `lines` and `http`.
"""

from __future__ import annotations

import os
import shlex
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional, cast

from tidemill_runtime import wire

if TYPE_CHECKING:
    from tidemill_runtime.contract import Command, Manifest

PROTOCOLS = ("lines", "http")

_BOTH = PROTOCOLS
_LINES, _HTTP = ("lines",), ("http",)
KEYS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "run": ((str, list), _BOTH),
    "protocol": (PROTOCOLS, _BOTH),
    "load_timeout": ((int, float), _BOTH),
    "lifetime": (("auto", "run", "batch"), _LINES),
    "answer": (("auto", "json", "text"), _LINES),
    "port": ((int,), _HTTP),
    "health": ((str,), _HTTP),
    "predict": ((str,), _HTTP),
    "content_type": ((str,), _HTTP),
    "accept": ((str,), _HTTP),
    "key": ((str,), _HTTP),
    "records": (("many", "one"), _HTTP),
    "connections": ((int,), _HTTP),
    "max_request": ((int,), _HTTP),
}
"""Each key: the types of its value or the words that it may be, and the protocols that it is for."""

_UNITS: dict[str, str] = {"load_timeout": "load_timeout_s", "max_request": "max_request_bytes"}
_WORDS = {str: "a text", list: "a list of words", int: "a whole number", float: "a number"}


def read_command(values: Any) -> Command:
    """The command of a tidemill.json. Raises ValueError, in words, for the first thing that is wrong."""
    if not isinstance(values, dict):
        raise ValueError(  # noqa: TRY004 - as what is wrong inside of it
            'has to be an object with "run" and "protocol", like {"run": "python predict.py", "protocol": "lines"}'
        )
    for key in ("run", "protocol"):
        if key not in values:
            raise ValueError(f"needs {key!r}; it has {', '.join(values) or 'nothing'}")
    for key, value in values.items():
        _check(key, value, values["protocol"])
    words = shlex.split(values["run"]) if isinstance(values["run"], str) else values["run"]
    if not words or not all(isinstance(word, str) for word in words):
        raise ValueError("'run' has to be a text or a list of words, and not empty")
    found: dict[str, Any] = dict(wire.DEFAULTS["Command"])
    for key, value in values.items():
        found[_UNITS.get(key) or key] = value
    found["run"] = list(words)
    return cast("Command", SimpleNamespace(**found))


def _check(key: str, value: Any, protocol: Any) -> None:
    if key not in KEYS:
        raise ValueError(f"has the unknown key {key!r}; it may have {', '.join(KEYS)}")
    kind, protocols = KEYS[key]
    if isinstance(kind[0], str):
        if value not in kind:
            raise ValueError(f"{key!r} is one of {', '.join(kind)}, not {value!r}")
    elif not isinstance(value, kind) or isinstance(value, bool):
        words = " or ".join(_WORDS[each] for each in kind)
        raise ValueError(f"{key!r} has to be {words}, not {value!r}")  # noqa: TRY004
    if isinstance(value, (int, float)) and value <= 0:
        raise ValueError(f"{key!r} has to be more than 0, not {value!r}")
    if protocol in PROTOCOLS and protocol not in protocols:
        raise ValueError(f"{key!r} is for the protocol {protocols[0]}, and this is {protocol}")


def environment(manifest: Manifest, port: Optional[int] = None) -> dict[str, str]:
    """All of a command's environment: this process's, and where the model and the port are, under the names by which
    programs look for them, SageMaker's containers among them.
    """
    found = {"PYTHONUNBUFFERED": "1", **os.environ, "SAGEMAKER_BATCH": "true"}
    if manifest.model:
        found["TIDEMILL_MODEL"] = found["SM_MODEL_DIR"] = manifest.model
    if manifest.code:
        found["TIDEMILL_CODE"] = manifest.code
    cores = str(max(1, manifest.millicores // 1000))
    for name in ("MODEL_SERVER_WORKERS", "SAGEMAKER_MODEL_SERVER_WORKERS"):
        found.setdefault(name, cores)
    if port is not None:
        for name in ("TIDEMILL_PORT", "PORT", "SAGEMAKER_BIND_TO_PORT"):
            found[name] = str(port)
    return found


def filled_in(words: list[str], manifest: Manifest, port: Optional[int] = None) -> list[str]:
    """The words with {model}, {code} and {port} in them replaced; other braces stay as they are."""
    known = {"{model}": manifest.model, "{code}": manifest.code, "{port}": None if port is None else str(port)}
    found = list(words)
    for name, value in known.items():
        if value is not None:
            found = [word.replace(name, value) for word in found]
    return found
