"""The task file: what a user asks for, in the one form that `run`, the JSON API, the CLI and the Python API share.

A `TaskFile` is validated and canonical: short forms (`4Gi`, `90s`, `10%`) have become bytes, seconds and shares, and
dumping it gives a document that reads back to itself. schemas/task.schema.json (for editors) and
docs/reference/taskfile.md are made from this module. Reading YAML is `taskyaml`'s business.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from tidemill.domain.errors import InvalidValue
from tidemill.wire.kinds import Bytes, Length, Millicores, Range, Seconds, Share
from tidemill.wire.sections import Section, dump, read
from tidemill_runtime.contract import Command

NAME_PATTERN = r"^[0-9A-Za-z\u4e00-\u9fff][0-9A-Za-z_\-\u4e00-\u9fff]*$"
NAME_MAX = 60
"""At most 60 characters: Chinese, letters, digits, `_`, `-`; the first Chinese, a letter or a digit (TI-ONE's rule)."""
TAGS_MAX, TAG_KEY_MAX, TAG_VALUE_MAX = 50, 127, 255

Character = Annotated[str, Length(1, 1)]
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, kw_only=True)
class InputSection(Section):
    """What to predict. `input: PATH` is short for `input: {path: PATH}`."""

    path: Annotated[str, Length(1, 4096)]
    """Folder (ends in `/`, or exists) or object: cos://bucket/path/, s3://…, file:///…, or a plain path."""
    include: list[str] = field(default_factory=list)
    """Patterns of names below the folder to take (`*.jsonl`, `2026/**`); all, if none is given."""
    exclude: list[str] = field(default_factory=list)
    """Patterns of names to leave out."""

    @classmethod
    def short_forms(cls, data: object) -> object:
        return {"path": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class OutputSection(Section):
    """Where the results go. `output: PATH` is short for `output: {path: PATH}`."""

    path: Annotated[str, Length(1, 4096)]
    """Folder for the results."""
    if_exists: Literal["refuse", "replace"] = "refuse"
    """What to do when the folder holds other results: refuse, or replace objects of the same name."""

    @classmethod
    def short_forms(cls, data: object) -> object:
        return {"path": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class ResultSection(Section):
    """How predictions are written. `result: TYPE` is short for `result: {type: TYPE}`."""

    type: Literal["jsonl", "csv", "parquet", "text", "file"] = "jsonl"
    """Format of the result objects. file: what the model returns for a whole file is an object of its own."""
    form: Literal["auto", "aligned", "joined", "named"] = "auto"
    """aligned: line n is the prediction of record n. joined: the record with the key `prediction` added. named:
    {"path", "prediction"}. auto: `named` where a file is the record, else `aligned`."""
    keys: list[str] = field(default_factory=list)
    """Input columns to carry into the result."""
    layout: Literal["auto", "per_object", "parts", "single"] = "auto"
    """auto: numbered parts where a file is the record, else one result object per input object."""
    extension: Annotated[str, Length(2, 20)] | None = None
    """file: takes the place of the input's extension (`.png`: `a.jpg` becomes `a.png`). Not given: `a.jpg.out`."""

    @classmethod
    def short_forms(cls, data: object) -> object:
        return {"type": data} if isinstance(data, str) else data

    def check(self) -> None:
        if self.extension is not None and not re.fullmatch(r"\.[0-9A-Za-z_.-]*[0-9A-Za-z_-]", self.extension):
            raise InvalidValue(
                f"{self.extension!r} is not an extension.", field="extension", remedy="Write it like .png or .tar.gz."
            )


@dataclass(frozen=True, kw_only=True)
class FormatSection(Section):
    """How records lie in the input. `format: TYPE` is short for `format: {type: TYPE}`."""

    type: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "file"] = "auto"
    """jsonl, csv, tsv and text have a record per line, parquet one per row; with file each object is one record, and
    the model gets its path. auto: by the names of the input objects."""
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    """auto: by the names of the input objects."""
    delimiter: Character | None = None
    """csv: the character between fields. Not given: a comma (tsv: a tab)."""
    quote: Character = '"'
    """csv: the character around fields."""
    header: bool = True
    """csv: whether the first line of each object has the names of the columns."""
    encoding: str = "utf-8"
    """csv: how the text is encoded."""
    columns: list[str] | None = None
    """Columns that the model gets; all, if not given."""
    max_record: Bytes = 16 * 1024 * 1024
    """A longer record is an error of that record (`16Mi`)."""
    split: Literal["auto", "whole"] = "auto"
    """auto: large objects are cut into ranges, so that several processes share them, where the format allows it. whole:
    never; needed for csv with line breaks inside quotes, if that was not seen."""
    result: ResultSection = ResultSection()

    @classmethod
    def short_forms(cls, data: object) -> object:
        return {"type": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class ResourcesSection(Section):
    """What each instance may use."""

    cpu: Millicores | None = None
    """Cores of each instance (`2`, `0.5`, `500m`). Not given: what the engine has, shared by the instances."""
    memory: Bytes | None = None
    """Memory of each instance (`4Gi`). Not given: what the engine has, shared by the instances."""
    gpu: Annotated[float, Range(0, 64)] = 0.0
    """Cards of each instance."""
    gpu_type: str | None = None
    """Kind of card."""

    def check(self) -> None:
        if self.cpu is not None and not 100 <= self.cpu <= 1_024_000:
            raise InvalidValue(
                f"{self.cpu / 1000:g} cores is out of range.", field="cpu", remedy="Write between 0.1 and 1024."
            )
        if self.memory is not None and not 64 * 2**20 <= self.memory <= 2**44:
            raise InvalidValue(
                f"{self.memory} bytes is out of range.", field="memory", remedy="Write between 64Mi and 16Ti."
            )


@dataclass(frozen=True, kw_only=True)
class BatchSection(Section):
    """What to fix instead of leaving it to be measured."""

    size: Annotated[int, Range(1, 10_000_000)] | None = None
    """Records in a mini-batch."""
    processes: Annotated[int, Range(1, 1024)] | None = None
    """Processes in an instance."""
    threads: Annotated[int, Range(1, 1024)] | None = None
    """Threads that numeric libraries may use in each process."""


_OF_LINES = ("lifetime", "answer")
_OF_HTTP = ("port", "health", "predict", "content_type", "accept", "key", "records", "connections", "max_request")


@dataclass(frozen=True, kw_only=True)
class CommandSection(Section):
    """A command that is the model: a program over lines, or a server that it starts. No shell reads it."""

    noun: ClassVar[str] = "command"

    run: list[str]
    """The command: a text, which is split into words, or a list of words. It runs in the code folder, else in the
    model's. `{model}`, `{code}` and `{port}` in it are replaced."""
    protocol: Literal["lines", "http"]
    """lines: records are lines on its standard input, predictions lines on its standard output. http: it starts a
    server that is asked over HTTP, as containers made for SageMaker are."""
    load_timeout: Seconds = 600.0
    """How long it may take until it reads its first line, or its server is healthy."""
    lifetime: Literal["auto", "run", "batch"] = "auto"
    """lines: run starts it once for all records, batch anew for each mini-batch. auto: once, and anew where it turns
    out to answer only at the end of its input."""
    answer: Literal["auto", "json", "text"] = "auto"
    """lines: what a line of it is. auto: JSON where it is JSON, else text."""
    port: Annotated[int, Range(1, 65535)] | None = None
    """http: the port that the server listens on. Not given: a free one, told in PORT, SAGEMAKER_BIND_TO_PORT and
    `{port}`."""
    health: Annotated[str, Length(1, 1000)] = "/ping"
    """http: the path that answers 200 once the server is ready."""
    predict: Annotated[str, Length(1, 1000)] = "/invocations"
    """http: the path that mini-batches are posted to."""
    content_type: Annotated[str, Length(3, 200)] = "application/json"
    """http: how records are sent: application/json (a list), application/jsonlines, text/csv, text/plain; any other has
    one record in each request."""
    accept: Annotated[str, Length(1, 200)] | None = None
    """http: the type of answer that is asked for. Not given: the content type."""
    key: Annotated[str, Length(1, 200)] | None = None
    """http: the name that the list of records has in a JSON object, like `instances`. Not given: a bare list."""
    records: Literal["many", "one"] = "many"
    """http: how many records a request has."""
    connections: Annotated[int, Range(1, 1024)] | None = None
    """http: requests under way at once. Not given: the instance's cores."""
    max_request: Bytes = 6 * 1024 * 1024
    """http: the largest body of a request (`6Mi`)."""

    @classmethod
    def short_forms(cls, data: object) -> object:
        if isinstance(data, str | list):
            raise InvalidValue(
                "has no protocol.",
                remedy="Write command: {run: ..., protocol: lines} (or http), so that it is known how to speak to it.",
            )
        if isinstance(data, Mapping) and isinstance(data.get("run"), str):
            try:
                return {**data, "run": shlex.split(data["run"])}
            except ValueError as error:
                raise InvalidValue(f"{error}.", field="run", remedy="Close the quotation.") from None
        return data

    def check(self) -> None:
        if not self.run or not self.run[0]:
            raise InvalidValue("is empty.", field="run", remedy="Give a command.")
        if self.load_timeout == 0:
            raise InvalidValue("0 s is not enough.", field="load_timeout", remedy="Write it like 90s or 15m.")
        if self.max_request == 0:
            raise InvalidValue("0 bytes hold no record.", field="max_request", remedy="Write it like 6Mi.")
        for key in ("health", "predict"):
            if not getattr(self, key).startswith("/"):
                raise InvalidValue(f"{getattr(self, key)!r} is no path.", field=key, remedy="Begin it with /.")
        for key in _OF_HTTP if self.protocol == "lines" else _OF_LINES:
            if getattr(self, key) != getattr(CommandSection, key):
                other = "http" if self.protocol == "lines" else "lines"
                raise InvalidValue(f"is for the protocol {other}.", field=key, remedy="Leave it out.")

    def contract(self) -> Command:
        """What an instance is told."""
        values = {name: value for name, value in vars(self).items() if name not in ("load_timeout", "max_request")}
        return Command(**values, load_timeout_s=self.load_timeout, max_request_bytes=self.max_request)


@dataclass(frozen=True, kw_only=True)
class OnlyNewSection(Section):
    """Computes only what is new since an earlier run. `only_new: SINCE` is short for `only_new: {since: SINCE}`."""

    since: Annotated[str, Length(1, 4096)]
    """Folder with the results of an earlier run; on a server also a task's id, or a name: the last task of that name
    that succeeded."""
    output: Literal["delta", "merged"] = "delta"
    """delta: results of new and changed objects alone. merged: those of unchanged objects, too, taken over."""

    @classmethod
    def short_forms(cls, data: object) -> object:
        return {"since": data} if isinstance(data, str) else data


@dataclass(frozen=True, kw_only=True)
class TaskFile(Section):
    """A task, as asked for."""

    noun: ClassVar[str] = "task"

    name: str
    """Letters, digits, Chinese, `_`, `-`; at most 60. The first is Chinese, a letter or a digit."""
    description: Annotated[str, Length(0, 1024)] = ""
    """What it is for."""
    region: str = "local"
    """Where it runs: a region of the server's settings."""
    model: str | None = None
    """Repository entry (`churn@2`, `churn`) or a folder (`./model`)."""
    image: str | None = None
    """Container image; needs a container engine."""
    code: str | None = None
    """Folder whose files go before the model package's code."""
    function: Annotated[str, Length(3, 400)] | None = None
    """A function to call instead, as `module:function`: of the folder, or installed."""
    command: CommandSection | None = None
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of the instances."""
    secrets: list[str] = field(default_factory=list)
    """Names of stored secrets, put into the environment. Never their values."""
    input: InputSection
    output: OutputSection
    only_new: OnlyNewSection | None = None
    format: FormatSection = FormatSection()
    resources: ResourcesSection = ResourcesSection()
    instances: Annotated[int, Range(1, 10_000)] = 1
    """How many instances share the work."""
    priority: Annotated[int, Range(-100, 100)] = 0
    """Higher goes first."""
    deadline: Seconds | None = None
    """Time after creation (`2h`) at which the task is stopped, keeping what is committed."""
    retries: Annotated[int, Range(0, 100)] = 3
    """How often an instance that dies is replaced."""
    record_timeout: Seconds | None = None
    """Longest time that one record may take (`30s`)."""
    tolerance: Share = 0.01
    """Failed records that are still a success: a share (`1%`) or a count (`20`)."""
    batch: BatchSection = BatchSection()
    tags: dict[str, str] = field(default_factory=dict)
    """For finding tasks again; at most 50."""

    @property
    def shown_model(self) -> str | None:
        """What it runs, for people: the model, the image, the function, or the command as a shell would read it."""
        return self.model or self.image or self.function or (shlex.join(self.command.run) if self.command else None)

    @classmethod
    def short_forms(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            return data
        data = dict(data)
        for key in ("env", "tags"):
            if isinstance(data.get(key), Mapping):
                data[key] = {str(name): _scalar(value) for name, value in data[key].items()}
        return data

    def check(self) -> None:
        check_name(self.name, field="name")
        for name in self.env:
            if not _ENV_NAME.fullmatch(name) or name.startswith("TIDEMILL_"):
                raise InvalidValue(
                    f"{name!r} cannot be set.", field="env", remedy="Use letters, digits and _; not TIDEMILL_…."
                )
        long = any(not k or len(k) > TAG_KEY_MAX or len(v) > TAG_VALUE_MAX for k, v in self.tags.items())
        if long or len(self.tags) > TAGS_MAX:
            raise InvalidValue(
                "too many or too long.",
                field="tags",
                remedy=f"At most {TAGS_MAX}; keys up to {TAG_KEY_MAX} characters, values up to {TAG_VALUE_MAX}.",
            )
        for key in ("deadline", "record_timeout"):
            if getattr(self, key) == 0:
                raise InvalidValue("0 s is not a time to come.", field=key, remedy="Write it like 90s, 15m or 2h.")
        if not (self.model or self.image or self.code or self.function or self.command):
            raise InvalidValue(
                "is required.", field="model", remedy="Give a folder or an entry of the model repository."
            )
        if self.command is not None:
            self._check_command(self.command)

    def _check_command(self, command: CommandSection) -> None:
        if self.function is not None:
            raise InvalidValue("there is a function too.", field="command", remedy="Leave one of the two out.")
        if command.port is not None and (self.batch.processes or 1) > 1:
            raise InvalidValue(
                f"{self.batch.processes} processes start a server each, and all on port {command.port}.",
                field="batch.processes",
                remedy="Leave it out, or have the server take its port from PORT and leave command.port out.",
            )


def check_name(value: str, *, field: str = "") -> None:
    """Raises InvalidValue unless `value` is a good name of a task or model."""
    if len(value) > NAME_MAX or not re.fullmatch(NAME_PATTERN.strip("^$"), value):
        raise InvalidValue(
            f"{value[:80]!r} is not a good name.",
            field=field or None,
            remedy=f"Use Chinese, letters, digits, _ and -, at most {NAME_MAX}, starting with none of _ and -.",
        )


def _scalar(value: object) -> object:
    """JSON's numbers and truth values as the text that was meant; anything else is left to be refused."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return str(value) if isinstance(value, int | float) else value


def parse_task(data: Mapping[str, Any]) -> TaskFile:
    """A validated task. Raises InvalidValue or UnknownKey for the first thing that is wrong, by its dotted name."""
    return read(TaskFile, data)


def dump_task(task: TaskFile) -> dict[str, Any]:
    """The task as JSON values; `parse_task` of it is the same task."""
    return dump(task)
