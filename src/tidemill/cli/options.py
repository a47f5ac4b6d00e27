"""The options that describe a task, once for `tidemill run` and `tidemill task create`, for Typer and for the quick
parser.

Each sets a key of the task file. Imports nothing that takes time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.domain.errors import InvalidValue


@dataclass(frozen=True)
class TaskOption:
    """One option. key: dotted key of the task file. kind: how it is read.

    kinds: "value"; "many" (may be given again: a list); "pairs" (KEY=VALUE, may be given again: a mapping);
    "set" (a switch that sets the key to `value`).
    """

    flag: str
    key: str
    help: str
    metavar: str = "TEXT"
    short: str = ""
    kind: str = "value"
    value: str = ""
    panel: str = "Task"

    @property
    def parameter(self) -> str:
        """Name of the parameter in Python."""
        return self.flag.removeprefix("--").replace("-", "_")


TASK_OPTIONS = (
    TaskOption("--model", "model", "Model package: a folder; on a server also an entry like churn@2.", "MODEL", "-m"),
    TaskOption(
        "--function", "function", "Call this function of the model's folder: module:function.", "MODULE:FUNCTION"
    ),
    TaskOption("--command", "command.run", "Command that is the model: python predict.py.", "WORDS"),
    TaskOption("--protocol", "command.protocol", "How the command is spoken to: lines or http.", "PROTOCOL"),
    TaskOption("--input", "input.path", "Folder or file to predict, or cos://bucket/path/.", "PATH", "-i"),
    TaskOption("--output", "output.path", "Folder for the results.", "PATH", "-o"),
    TaskOption("--name", "name", "Name of the task. Default: made from model and input.", "NAME", "-n"),
    TaskOption("--description", "description", "What the task is for."),
    TaskOption("--format", "format.type", "jsonl, csv, tsv, parquet, text or file. Default: by the names.", "FORMAT"),
    TaskOption(
        "--include", "input.include", "Take only inputs of this pattern, like '*.jsonl'.", "PATTERN", kind="many"
    ),
    TaskOption("--exclude", "input.exclude", "Leave out inputs of this pattern.", "PATTERN", kind="many"),
    TaskOption(
        "--replace", "output.if_exists", "Replace results that lie in the output folder.", kind="set", value="replace"
    ),
    TaskOption(
        "--only-new",
        "only_new.since",
        "Compute only what is new since earlier results: their folder; on a server also a task's id or name.",
        "SINCE",
    ),
    TaskOption(
        "--only-new-output", "only_new.output", "delta: results of new objects alone; merged: all results.", "MODE"
    ),
    TaskOption("--instances", "instances", "How many instances share the work.", "N", panel="Compute"),
    TaskOption("--cpu", "resources.cpu", "Cores of each instance: 2, 0.5, 500m.", "CORES", panel="Compute"),
    TaskOption("--memory", "resources.memory", "Memory of each instance: 4Gi.", "SIZE", panel="Compute"),
    TaskOption("--batch-size", "batch.size", "Records in a mini-batch. Default: measured.", "N", panel="Compute"),
    TaskOption("--env", "env", "Environment variable of the instances.", "KEY=VALUE", kind="pairs", panel="Compute"),
    TaskOption("--tolerance", "tolerance", "Failed records that are still a success: 1%, 20.", "SHARE", panel="Life"),
    TaskOption("--deadline", "deadline", "Stop after this time: 2h.", "TIME", panel="Life"),
    TaskOption("--record-timeout", "record_timeout", "Longest time for one record: 30s.", "TIME", panel="Life"),
    TaskOption("--retries", "retries", "How often an instance that dies is replaced.", "N", panel="Life"),
    TaskOption("--priority", "priority", "Higher goes first, from -100 to 100.", "N", panel="Life"),
    TaskOption("--tag", "tags", "Tag, for finding the task again.", "KEY=VALUE", kind="pairs", panel="Life"),
    TaskOption("--region", "region", "Where it runs. Default: local.", "REGION", panel="Life"),
)
BY_FLAG: Mapping[str, TaskOption] = {
    name: option for option in TASK_OPTIONS for name in (option.flag, option.short) if name
}
FLAG_NAMES: Mapping[str, str] = {option.key: option.flag for option in TASK_OPTIONS} | {
    "input": "--input",
    "output": "--output",
}


def task_values(given: Mapping[str, object]) -> dict[str, object]:
    """Dotted key → value of the options that were given (by parameter name; None, False and [] are not given).

    Raises InvalidValue for a pair without `=`.
    """
    values: dict[str, object] = {}
    for option in TASK_OPTIONS:
        value = given.get(option.parameter)
        if value is None or value is False or value == []:
            continue
        if option.kind == "set":
            values[option.key] = option.value
        elif option.kind == "pairs":
            assert isinstance(value, list)
            values[option.key] = dict(_pair(option.flag, text) for text in value)
        else:
            values[option.key] = value
    return values


def _pair(flag: str, text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark or not key:
        raise InvalidValue(f"{text!r} is no pair.", field=flag, remedy="Write it like KEY=VALUE.")
    return key, value


@dataclass(frozen=True)
class RunRequest:
    """What `tidemill run` was asked. task: by parameter name, as `task_values` takes it."""

    file: str | None
    task: Mapping[str, object]
    resume: bool = False
    json: bool = False
    quiet: bool = False
    config: str | None = None


RUN_SWITCHES = {"--resume": "resume", "--json": "json", "--quiet": "quiet", "-q": "quiet"}
RUN_VALUES = {"--config": "config", "--file": "file", "-f": "file"}


def parse_run(arguments: list[str]) -> RunRequest | None:
    """The request, or None where Typer should look: at `--help`, at anything unknown, incomplete or abbreviated.

    Typer takes a fifth of a second to import, half of what `tidemill run` may take to its first record.
    """
    task: dict[str, object] = {}
    plain: dict[str, object] = {}
    rest = iter(arguments)
    for argument in rest:
        name, mark, attached = argument.partition("=")
        if name in RUN_SWITCHES and not mark:
            plain[RUN_SWITCHES[name]] = True
            continue
        option = BY_FLAG.get(name)
        if option is not None and option.kind == "set" and not mark:
            task[option.parameter] = True
            continue
        if not argument.startswith("-") and "file" not in plain:
            plain["file"] = argument
            continue
        if (option is None and name not in RUN_VALUES) or (mark and not name.startswith("--")):
            return None
        value = attached if mark else next(rest, None)
        if value is None or (option is not None and option.kind == "set"):
            return None
        if option is None:
            if RUN_VALUES[name] in plain:
                return None
            plain[RUN_VALUES[name]] = value
        elif option.kind in ("many", "pairs"):
            task.setdefault(option.parameter, []).append(value)  # type: ignore[attr-defined]
        else:
            task[option.parameter] = value
    return RunRequest(task=task, **{"file": None, **plain})  # type: ignore[arg-type]
