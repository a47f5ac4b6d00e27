"""The task file: what a user asks for, in the one form that `run`, the JSON API, the CLI and the Python API share.

A `TaskFile` is validated and canonical: short forms (`4Gi`, `90s`, `10%`) have become bytes, seconds and shares, and dumping
it gives a document that validates to itself. The JSON Schema for editors is generated from it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    field_validator,
    model_validator,
)

from tidemill.domain.errors import InvalidValue, TidemillError, UnknownKey
from tidemill.wire.quantities import parse_bytes, parse_millicores, parse_seconds, parse_share

NAME_PATTERN = r"^[0-9A-Za-z\u4e00-\u9fff][0-9A-Za-z_\-\u4e00-\u9fff]*$"
NAME_MAX = 60
"""At most 60 characters: Chinese, letters, digits, `_`, `-`; the first Chinese, a letter or a digit (TI-ONE's rule)."""

# Dumped in a form that reads back as the same value: thousandths with their `m`, shares with their `%`.
Bytes = Annotated[int, BeforeValidator(lambda v: parse_bytes(v, field=""), json_schema_input_type=int | str)]
Seconds = Annotated[float, BeforeValidator(lambda v: parse_seconds(v, field=""), json_schema_input_type=float | str)]
Millicores = Annotated[
    int,
    BeforeValidator(lambda v: parse_millicores(v, field=""), json_schema_input_type=float | str),
    PlainSerializer(lambda v: f"{v}m", return_type=str, when_used="json-unless-none"),
]
Share = Annotated[
    float | int,
    BeforeValidator(lambda v: parse_share(v, field=""), json_schema_input_type=float | int | str),
    PlainSerializer(lambda v: f"{v * 100:.12g}%" if isinstance(v, float) else v, return_type=int | str, when_used="json"),
]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class InputSection(Section):
    path: str
    """Folder (ends in `/`, or exists) or object: cos://bucket/path/, s3://…, file:///…, or a plain path."""
    include: list[str] = []
    """Patterns of names below the folder to take (`*.jsonl`, `2026/**`); all, if none is given."""
    exclude: list[str] = []
    """Patterns of names to leave out."""


class OutputSection(Section):
    path: str
    """Folder for the results."""
    if_exists: Literal["refuse", "replace"] = "refuse"
    """What to do when the folder holds other results: refuse, or replace objects of the same name."""


class ResultSection(Section):
    type: Literal["jsonl", "csv", "parquet", "text"] = "jsonl"
    form: Literal["auto", "aligned", "joined", "named"] = "auto"
    """auto: `named` where a file is the record, else `aligned`."""
    keys: list[str] = []
    """Input columns to carry into the result."""
    layout: Literal["auto", "per_object", "parts", "single"] = "auto"
    """auto: numbered parts where a file is the record, else one result object per input object."""


class FormatSection(Section):
    type: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "file"] = "auto"
    compression: Literal["auto", "none", "gzip", "zstd"] = "auto"
    delimiter: str | None = Field(None, min_length=1, max_length=1)
    quote: str = Field('"', min_length=1, max_length=1)
    header: bool = True
    encoding: str = "utf-8"
    columns: list[str] | None = None
    """Columns that the model gets; all, if not given."""
    max_record: Bytes = 16 * 1024 * 1024
    """A longer record is an error of that record."""
    result: ResultSection = ResultSection()


class ResourcesSection(Section):
    cpu: Millicores | None = None
    """Cores of each instance (`2`, `0.5`, `500m`), kept as thousandths. Not given: what the engine has, shared by the instances."""
    memory: Bytes | None = None
    """Memory of each instance (`4Gi`)."""
    gpu: float = Field(0, ge=0, le=64)
    """Cards of each instance."""
    gpu_type: str | None = None

    @field_validator("cpu")
    @classmethod
    def _cpu(cls, value: int | None) -> int | None:
        if value is not None and not 100 <= value <= 1_024_000:
            raise InvalidValue(f"{value / 1000:g} cores is out of range.", remedy="Write between 0.1 and 1024.")
        return value

    @field_validator("memory")
    @classmethod
    def _memory(cls, value: int | None) -> int | None:
        if value is not None and not 64 * 2**20 <= value <= 2**44:
            raise InvalidValue(f"{value} bytes of memory is out of range.", remedy="Write between 64Mi and 16Ti.")
        return value


class BatchSection(Section):
    size: int | None = Field(None, ge=1, le=10_000_000)
    """Records in a mini-batch."""
    processes: int | None = Field(None, ge=1, le=1024)
    threads: int | None = Field(None, ge=1, le=1024)


class TaskFile(Section):
    """A task, as asked for."""

    name: str = Field(max_length=NAME_MAX)
    """Letters, digits, Chinese, `_`, `-`; at most 60."""
    description: str = Field("", max_length=1024)
    region: str = "local"
    model: str | None = None
    """Repository entry (`churn@2`, `churn@champion`) or a folder (`./model`)."""
    image: str | None = None
    """Container image; needs a container engine."""
    code: str | None = None
    """Folder whose files go before the model package's code."""
    command: list[str] | None = None
    """The user's own start command (a string is split into words)."""
    env: dict[str, str] = {}
    secrets: list[str] = []
    """Names of stored secrets, put into the environment."""
    input: InputSection
    output: OutputSection
    format: FormatSection = FormatSection()
    resources: ResourcesSection = ResourcesSection()
    instances: int = Field(1, ge=1, le=10_000)
    priority: int = Field(0, ge=-100, le=100)
    """Higher goes first."""
    deadline: Seconds | None = None
    """Seconds after creation (`2h`) at which the task is stopped, keeping what is committed."""
    retries: int = Field(3, ge=0, le=100)
    """How often an instance that dies is replaced."""
    record_timeout: Seconds | None = None
    """Longest time that one record may take."""
    tolerance: Share = 0.01
    """Failed records that are still a success: a share (`1%`) or a count (`20`)."""
    batch: BatchSection = BatchSection()
    """What to fix instead of leaving it to be measured."""
    tags: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, data: Any) -> Any:
        """`input: path`, `output: path`, `format: csv` and `command: "sh run.sh"` are short for sections and lists."""
        if not isinstance(data, Mapping):
            raise InvalidValue("a task is a mapping of keys to values.", remedy="Start with `name:` and `input:`.")
        data = dict(data)
        for key, inner in (("input", "path"), ("output", "path"), ("format", "type")):
            if isinstance(data.get(key), str):
                data[key] = {inner: data[key]}
        if isinstance(data.get("command"), str):
            import shlex  # only here, and rarely

            data["command"] = shlex.split(data["command"])
        for key in ("env", "tags"):
            if isinstance(data.get(key), Mapping):
                data[key] = {str(k): _scalar(v) for k, v in data[key].items()}
        return data

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        check_name(value)
        return value

    @field_validator("tags")
    @classmethod
    def _tags(cls, value: dict[str, str]) -> dict[str, str]:
        if len(value) > 50 or any(not k or len(k) > 127 or len(v) > 255 for k, v in value.items()):
            raise InvalidValue("too many or too long tags.", remedy="At most 50; keys up to 127, values up to 255.")
        return value

    @field_validator("env")
    @classmethod
    def _env(cls, value: dict[str, str]) -> dict[str, str]:
        for key in value:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) or key.startswith("TIDEMILL_"):
                raise InvalidValue(f"{key!r} cannot be set.", remedy="Use letters, digits and _; not TIDEMILL_….")
        return value

    @field_validator("deadline", "record_timeout")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and value <= 0:
            raise InvalidValue(f"{value:g} s is not a time to come.", remedy="Write it like 90s, 15m or 2h.")
        return value

    @model_validator(mode="after")
    def _something_to_run(self) -> TaskFile:
        if self.model is None and self.image is None and self.code is None:
            raise InvalidValue("nothing to run.", remedy="Give `model` (or `image`, or `code` with `command`).")
        return self


def check_name(value: str, *, field: str = "") -> None:
    """Raises InvalidValue unless `value` is a good name of a task or model."""
    if len(value) > NAME_MAX or not re.match(NAME_PATTERN, value):
        raise InvalidValue(
            f"{value[:80]!r} is not a good name.",
            field=field or None,
            remedy="Use Chinese, letters, digits, _ and -, at most 60, starting with Chinese, a letter or a digit.",
        )


def _scalar(value: object) -> object:
    """YAML's numbers as the text that was meant; anything else is left for validation to refuse."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def parse_task(data: Mapping[str, Any]) -> TaskFile:
    """A validated task. Raises InvalidValue or UnknownKey for the first thing that is wrong, by its dotted name."""
    try:
        return TaskFile.model_validate(data)
    except ValidationError as error:
        raise first_error(error, TaskFile) from error


def first_error(error: ValidationError, model: type[BaseModel]) -> TidemillError:
    """The first finding of pydantic in our words."""
    found = error.errors()[0]
    path = ".".join(str(part) for part in found["loc"])
    if found["type"] == "extra_forbidden":
        *above, key = [str(part) for part in found["loc"]]
        return UnknownKey.among(key, _keys_at(model, above), where=".".join(above))
    cause = found.get("ctx", {}).get("error")
    if isinstance(cause, InvalidValue):
        return InvalidValue(cause.message, field=path or cause.field, remedy=cause.remedy)
    if found["type"] == "missing":
        return InvalidValue("is required.", field=path, remedy="Add it.")
    value = repr(found.get("input"))
    return InvalidValue(f"{value[:80]} is not allowed: {found['msg']}.", field=path)


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return list(model.model_fields)
