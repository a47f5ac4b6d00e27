"""Reading a task file from YAML (or JSON), with flags over it. Called by the CLI and by `tidemill.run`.

Our YAML is plainer than YAML 1.1, so that files read as people write them: a plain value is text until its field says
what it is (`name: 2024`, `env: {TIME: 12:30}`, `tags: {debug: no}` mean what they show), and a key given twice is
refused. Relative paths in a file start from the file's folder; those of flags start from the current one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.domain.errors import InvalidValue, NotFound, TooLarge
from tidemill.domain.references import is_folder
from tidemill.wire.sections import Section, field_types, optional_inner
from tidemill.wire.taskfile import NAME_MAX, TaskFile, dump_task, parse_task

FILE_BYTES_MAX = 1_000_000
"""A task file is written by people; a larger file is something else."""
PATH_KEYS = ("input.path", "output.path", "only_new.since", "model", "code")


@dataclass(frozen=True)
class Document:
    """What a file says, not validated yet. lines: dotted key → line, from 1. base: folder of relative paths."""

    data: dict[str, Any]
    lines: Mapping[str, int]
    base: Path
    label: str


def read_task(
    source: str | os.PathLike[str] | Mapping[str, Any] | TaskFile | None,
    flags: Mapping[str, object] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
    repository: bool = True,
) -> TaskFile:
    """The task of a source, with `flags` (dotted key → value) over it, paths made absolute.

    source: a file ("-": standard input), or the keys of a task.

    flag_names: dotted key → what to call it in a message. repository: whether a plain word may name a model's entry
    there; without a repository it is a folder. A task without a name is called after its model and input.
    Raises InvalidValue, UnknownKey and NotFound naming the line or the flag.
    """
    document = _document(source)
    data = document.data
    for key in PATH_KEYS:
        _make_absolute(data, key, document.base, repository)
    for key, value in (flags or {}).items():
        _put(data, key, value)
        for path_key in PATH_KEYS:
            if path_key == key or path_key.startswith(f"{key}."):
                _make_absolute(data, path_key, Path.cwd(), repository)
    if data.get("name") is None and "name" not in document.lines:
        data["name"] = default_name(data)
    try:
        return parse_task(data)
    except InvalidValue as error:
        raise _placed(error, document, flags or {}, flag_names or {}) from None


def _document(source: str | os.PathLike[str] | Mapping[str, Any] | TaskFile | None) -> Document:
    if isinstance(source, str | os.PathLike):
        return read_document(source)
    keys = dump_task(source) if isinstance(source, TaskFile) else source or {}
    return Document({str(key): value for key, value in keys.items()}, {}, Path.cwd(), "")


def read_document(file: str | os.PathLike[str]) -> Document:
    """A file's mapping. Raises NotFound, TooLarge, or InvalidValue naming the line."""
    if str(file) == "-":
        return parse_document(sys.stdin.read(FILE_BYTES_MAX + 1), "standard input", Path.cwd())
    path = Path(file)
    try:
        with path.open(encoding="utf-8") as opened:
            text = opened.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise NotFound(f"no file {str(file)!r}.", remedy="Check the path of the task file.") from None
    except IsADirectoryError:
        raise InvalidValue(f"{str(file)!r} is a folder.", remedy="Give a task file, or --model and --input.") from None
    except UnicodeDecodeError as error:
        raise InvalidValue(f"{str(file)!r} is not UTF-8 (byte {error.start}).", remedy="Save it as UTF-8.") from None
    except OSError as error:
        raise InvalidValue(f"{str(file)!r} cannot be read: {error.strerror}.") from error
    return parse_document(text, str(file), path.absolute().parent)


def parse_document(text: str, label: str, base: Path) -> Document:
    """The mapping that a YAML text holds (JSON, where `label` ends in .json); `label` names it in messages."""
    if len(text) > FILE_BYTES_MAX:
        raise TooLarge(f"{label} is larger than {FILE_BYTES_MAX} bytes.", remedy="Is it a task file?")
    data, lines = _from_json(text, label) if label.endswith(".json") else _from_yaml(text, label)
    if data is None:
        raise InvalidValue("is empty.", field=label, remedy="Start with `model:`, `input:` and `output:`.")
    if not isinstance(data, dict):
        raise InvalidValue("is not a mapping of keys to values.", field=label, remedy="Start with `model: ./model`.")
    return Document({str(key): value for key, value in data.items()}, lines, base, label)


def _from_json(text: str, label: str) -> tuple[object, dict[str, int]]:
    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                raise InvalidValue(f"key {key!r} is given twice.", field=label, remedy="Keep one of them.")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique), {}
    except json.JSONDecodeError as error:
        raise InvalidValue(f"{error.msg}.", field=f"{label}, line {error.lineno}", remedy="Write it as JSON.") from None
    except RecursionError:
        raise InvalidValue("is nested too deeply.", field=label) from None


def _from_yaml(text: str, label: str) -> tuple[object, dict[str, int]]:
    import yaml  # takes as long as the rest of the start: only where there is a file

    from tidemill.wire.plainyaml import PlainLoader, line_numbers

    try:
        loader = PlainLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        return loader.construct_document(node), line_numbers(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"{label}, line {mark.line + 1}" if mark else label
        remedy = "Keep one of them." if "already" in str(error.problem) else "Write it as YAML."
        raise InvalidValue(f"{error.problem or error.context}.", field=line, remedy=remedy) from None
    except yaml.YAMLError as error:
        raise InvalidValue(f"{str(error).splitlines()[0]}.", field=label, remedy="Write it as YAML.") from None
    except RecursionError:
        raise InvalidValue("is nested too deeply.", field=label) from None


def default_name(data: Mapping[str, Any]) -> str:
    """A name for a task that was given none: its model and its input."""
    source = data.get("input")
    source = source.get("path") if isinstance(source, Mapping) else source
    words = [str(data.get(key) or "").rstrip("/").rpartition("/")[2] for key in ("model", "code")]
    words.append(_first_word(data.get("command")))
    words = [next((word for word in words if word), "task"), str(source or "").rstrip("/").rpartition("/")[2]]
    stems = [word.partition("@")[0].lstrip(".").partition(".")[0] for word in words]
    name = "-".join(re.sub(r"[^0-9A-Za-z_\-\u4e00-\u9fff]+", "-", stem).strip("-_") for stem in stems)
    return name.strip("-")[:NAME_MAX].rstrip("-_") or "task"


def _first_word(command: object) -> str:
    run = command.get("run") if isinstance(command, Mapping) else None
    words = run.split() if isinstance(run, str) else run if isinstance(run, list) else []
    return str(words[0]).rpartition("/")[2] if words else ""


def resolve_path(text: str, base: Path) -> str:
    """An absolute path of a plain one (its final slash kept); addresses with a scheme are left as they are."""
    if not text or "://" in text:
        return text
    expanded = os.path.expanduser(text)  # noqa: PTH111 - a Path would lose the slash at the end
    joined = os.path.normpath(os.path.join(base, expanded))  # noqa: PTH118 - the same
    folder = expanded.endswith(("/", "/.", "/..")) or expanded in (".", "..")
    return joined.rstrip("/") + "/" if folder else joined


def _make_absolute(data: dict[str, Any], key: str, base: Path, repository: bool) -> None:
    above, _, last = key.rpartition(".")
    inner = data.get(above) if above else data
    if above and isinstance(inner, str | Mapping):
        inner = data[above] = {last: inner} if isinstance(inner, str) else dict(inner)  # the caller's stays as it is
    value = inner.get(last) if isinstance(inner, MutableMapping) else None
    value = os.fspath(value) if isinstance(value, os.PathLike) else value
    if isinstance(inner, MutableMapping) and isinstance(value, str):
        if key in ("model", "only_new.since") and repository and not is_folder(value):
            return
        path = resolve_path(value, base)
        inner[last] = path if above else path.rstrip("/") or path


def _put(data: dict[str, Any], key: str, value: object) -> None:
    """Sets a dotted key; short forms on the way are spelled out first."""
    section: type[Section] = TaskFile
    inner: Any = data
    *above, last = key.split(".")
    for part in above:
        kind = field_types(section)[part]
        kind = optional_inner(kind) or kind
        if isinstance(kind, type) and issubclass(kind, Section):
            section = kind
            try:
                spelled = kind.short_forms(inner.get(part) or {})
            except InvalidValue as error:
                raise InvalidValue(error.message, field=part, remedy=error.remedy) from None
            inner[part] = dict(spelled) if isinstance(spelled, Mapping) else {}
        else:
            inner[part] = dict(inner.get(part) or {})
        inner = inner[part]
    inner[last] = value


def _placed(
    error: InvalidValue, document: Document, flags: Mapping[str, object], flag_names: Mapping[str, str]
) -> InvalidValue:
    """The same error, saying which flag or line holds the value."""
    field = error.field or ""
    key = next((key for key in flags if field == key or field.startswith(f"{key}.")), None)
    if key is not None:
        return type(error)(error.message, field=flag_names.get(key, field), remedy=error.remedy)
    if not document.label:
        if error.message == "is required." and field in flag_names:
            return type(error)(error.message, field=flag_names[field], remedy="Give it, or a task file.")
        return error
    line = next((document.lines[part] for part in _prefixes(field) if part in document.lines), None)
    place = f"{document.label}, line {line}" if line else document.label
    return type(error)(f"{error.message} ({place})", field=error.field, remedy=error.remedy)


def _prefixes(field: str) -> list[str]:
    parts = field.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
