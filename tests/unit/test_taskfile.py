from __future__ import annotations

import contextlib
import json
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue, NotFound, TooLarge, UnknownKey
from tidemill.wire.schema import documented_fields, task_schema
from tidemill.wire.taskfile import NAME_MAX, TaskFile, check_name, dump_task, parse_task
from tidemill.wire.taskyaml import default_name, read_task
from tidemill_runtime.contract import Command

LEAST: dict[str, Any] = {"name": "a", "model": "churn@2", "input": "cos://data/in/", "output": "cos://data/out/"}


def write(folder: Path, text: str) -> Path:
    file = folder / "task.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


# --- the task ---------------------------------------------------------------------------------------------------------


def test_defaults() -> None:
    task = parse_task(LEAST)
    assert (task.region, task.instances, task.retries, task.tolerance, task.priority) == ("local", 1, 3, 0.01, 0)
    assert task.format.type == "auto"
    assert task.format.max_record == 16 * 2**20
    assert task.deadline is None
    assert task.output.if_exists == "refuse"


def test_short_forms_become_values() -> None:
    task = parse_task(
        LEAST
        | {
            "format": "csv",
            "command": {"run": "sh 'run me.sh' -v", "protocol": "lines", "load_timeout": "2m"},
            "deadline": "2h",
            "record_timeout": "30s",
            "tolerance": "2.5%",
            "resources": {"cpu": "500m", "memory": "4Gi"},
            "instances": "3",
            "env": {"A": 1, "B": True, "C": "x"},
            "input": {"path": "cos://data/in/", "include": "*.csv"},
        }
    )
    assert task.format.type == "csv"
    assert task.command is not None
    assert task.command.run == ["sh", "run me.sh", "-v"]
    assert task.command.contract() == Command(["sh", "run me.sh", "-v"], "lines", load_timeout_s=120.0)
    assert (task.deadline, task.record_timeout, task.tolerance) == (7200, 30, 0.025)
    assert (task.resources.cpu, task.resources.memory) == (500, 4 * 2**30)
    assert task.instances == 3
    assert task.env == {"A": "1", "B": "true", "C": "x"}
    assert task.input.include == ["*.csv"]


FULL = LEAST | {
    "name": "流失-2026",
    "format": {"type": "csv", "header": False, "columns": ["a"], "max_record": "1Mi", "result": {"keys": ["id"]}},
    "resources": {"cpu": 0.1, "memory": "64Mi", "gpu": 0.5},
    "tolerance": 1.0,
    "deadline": 0.1,
    "batch": {"size": 7},
    "tags": {"团队": "风控"},
}


@pytest.mark.parametrize("data", [LEAST, FULL, LEAST | {"tolerance": 0.07}, LEAST | {"tolerance": 5}])
def test_dumping_gives_a_document_that_reads_back_as_the_same_task(data: dict[str, Any]) -> None:
    task = parse_task(data)
    dumped = json.loads(json.dumps(dump_task(task)))
    assert parse_task(dumped) == task
    assert dump_task(parse_task(dumped)) == dumped
    jsonschema.validate(dumped, task_schema())


@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"name": "_a"}, "name", "_a"),
        ({"name": "a b"}, "name", "a b"),
        ({"name": "a\n"}, "name", "Use Chinese"),
        ({"name": "x" * (NAME_MAX + 1)}, "name", "at most 60"),
        ({"name": ""}, "name", "''"),
        ({"name": None}, "name", "no value"),
        ({"name": ["a"]}, "name", "not text"),
        ({"model": None}, "model", "required"),
        ({"input": ""}, "input.path", "0 characters"),
        ({"input": ["a", "b"]}, "input", "Known keys: path"),
        ({"input": {}}, "input.path", "required"),
        ({"format": "cvs"}, "format.type", "'csv'"),
        ({"format": {"delimiter": ";;"}}, "format.delimiter", "2 characters"),
        ({"format": {"header": "maybe"}}, "format.header", "true or false"),
        ({"instances": 0}, "instances", "1 to 10,000"),
        ({"instances": 1.5}, "instances", "whole number"),
        ({"instances": True}, "instances", "whole number"),
        ({"instances": "many"}, "instances", "whole number"),
        ({"resources": {"cpu": 0}}, "resources.cpu", "0.1 and 1024"),
        ({"resources": {"cpu": "2 cores"}}, "resources.cpu", "500m"),
        ({"resources": {"memory": "4 apples"}}, "resources.memory", "4Gi"),
        ({"resources": {"memory": "1Ki"}}, "resources.memory", "64Mi"),
        ({"resources": {"gpu": float("nan")}}, "resources.gpu", "not a number"),
        ({"deadline": "0"}, "deadline", "90s"),
        ({"deadline": "soon"}, "deadline", "2h"),
        ({"record_timeout": 0}, "record_timeout", "90s"),
        ({"tolerance": "200%"}, "tolerance", "100%"),
        ({"command": {"run": "sh 'x", "protocol": "lines"}}, "command.run", "quotation"),
        ({"command": {"run": [], "protocol": "lines"}}, "command.run", "empty"),
        ({"command": "sh x"}, "command", "protocol"),
        ({"command": {"run": "sh x"}}, "command.protocol", "required"),
        ({"command": {"run": "sh x", "protocol": "lines", "port": 80}}, "command.port", "http"),
        ({"command": {"run": "sh x", "protocol": "http", "answer": "json"}}, "command.answer", "lines"),
        ({"command": {"run": "sh x", "protocol": "http", "predict": "p"}}, "command.predict", "Begin it with /"),
        ({"command": {"run": "x", "protocol": "http"}, "function": "a:b"}, "command", "function"),
        ({"command": {"run": "x", "protocol": "http", "port": 80}, "batch": {"processes": 2}}, "batch.processes", "80"),
        ({"env": {"TIDEMILL_X": "1"}}, "env", "TIDEMILL_X"),
        ({"env": {"A-B": "1"}}, "env", "A-B"),
        ({"env": {"A": ["x"]}}, "env.A", "not text"),
        ({"env": ["A=1"]}, "env", "mapping"),
        ({"tags": {str(n): "" for n in range(51)}}, "tags", "50"),
        ({"secrets": [3]}, "secrets.0", "not text"),
        ({"output": {"path": "x", "if_exists": "overwrite"}}, "output.if_exists", "refuse, replace"),
        ({"description": "x" * 1025}, "description", "1024"),
        ({"model": "a\0b"}, "model", "NUL"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], field: str, word: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse_task(LEAST | change)
    assert caught.value.field == field
    assert word in str(caught.value)


@pytest.mark.parametrize(
    ("change", "field", "near"),
    [
        ({"inputs": 1}, "inputs", "'input'"),
        ({"input": {"path": "x", "includes": []}}, "input.includes", "'include'"),
        ({"format": {"result": {"typ": "csv"}}}, "format.result.typ", "'type'"),
        ({"zzz": 1}, "zzz", "Known keys: batch"),
        ({3: 1}, "3", "Known keys"),
    ],
)
def test_unknown_keys_come_with_the_nearest_known_one(change: dict[Any, Any], field: str, near: str) -> None:
    with pytest.raises(UnknownKey) as caught:
        parse_task(LEAST | change)
    assert caught.value.field == field
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["a", "1", "流失", "churn-2_b", "流" * NAME_MAX])
def test_good_names(name: str) -> None:
    check_name(name)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda s: st.lists(s, max_size=3)))
def test_any_value_anywhere_is_read_or_refused(value: object) -> None:
    for key in documented_fields(TaskFile):
        data: dict[str, Any] = json.loads(json.dumps(LEAST | {"input": {"path": "x"}, "output": {"path": "x"}}))
        inner = data
        *above, last = key.key.split(".")
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
        try:
            task = parse_task(data)
        except InvalidValue:
            continue
        assert parse_task(dump_task(task)) == task


# --- the schema for editors -------------------------------------------------------------------------------------------


def test_every_key_is_documented() -> None:
    for field in documented_fields(TaskFile):
        assert field.doc, field.key


@pytest.mark.parametrize(
    "good", [LEAST, FULL, LEAST | {"command": {"run": "sh x", "protocol": "lines"}, "env": {"A": 1}, "format": "csv"}]
)
def test_the_schema_accepts_what_we_accept(good: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(task_schema())
    jsonschema.validate(good, task_schema())


@pytest.mark.parametrize(
    "bad", [{"inputs": 1}, {"name": "_a"}, {"format": "cvs"}, {"deadline": "soon"}, {"instances": 0}]
)
def test_the_schema_refuses_what_we_refuse(bad: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(LEAST | bad, task_schema())


def test_a_task_can_be_a_field_of_a_pydantic_model() -> None:
    class Holder(pydantic.BaseModel):
        task: TaskFile

    holder = Holder.model_validate({"task": FULL})
    assert holder.task == parse_task(FULL)
    assert Holder.model_validate_json(holder.model_dump_json()) == holder
    with pytest.raises(pydantic.ValidationError, match="Did you mean 'input'"):
        Holder.model_validate({"task": {"inputs": 1}})
    assert Holder.model_json_schema()["properties"]["task"]["required"] == ["name", "input", "output"]


# --- the file ---------------------------------------------------------------------------------------------------------


def test_plain_values_mean_what_they_show(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        """\
        name: 2024
        model: ./m
        input: in/
        output: out
        instances: 010
        env: {TIME: 12:30, VERSION: 1.10, ANSWER: no, EMPTY: }
        tags: {day: 2026-01-31, nothing: ~}
        format:
        """,
    )
    task = read_task(file)
    assert task.name == "2024"
    assert task.env == {"TIME": "12:30", "VERSION": "1.10", "ANSWER": "no", "EMPTY": ""}
    assert task.tags == {"day": "2026-01-31", "nothing": ""}
    assert task.instances == 10
    assert task.format.type == "auto"


def test_paths_start_from_the_file_and_those_of_flags_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", "/home/ada")
    file = write(tmp_path, "model: ./模型/\ninput: {path: ../in/}\noutput: ~/out\n")
    task = read_task(file, {"output.path": "results"})
    assert task.model == str(tmp_path / "模型")
    assert task.input.path == f"{tmp_path.parent}/in/"
    assert task.output.path == str(here / "results")
    assert read_task(file).output.path == "/home/ada/out"


def test_a_plain_word_is_an_entry_of_the_repository_where_there_is_one(tmp_path: Path) -> None:
    file = write(tmp_path, "model: churn\ninput: cos://data/a b/#1%\noutput: o\n")
    assert read_task(file).model == "churn"
    assert read_task(file, repository=False).model == str(tmp_path / "churn")
    assert read_task(file).input.path == "cos://data/a b/#1%"


def test_flags_override_the_file_also_its_short_forms(tmp_path: Path) -> None:
    file = write(tmp_path, "model: m\ninput: in/\noutput: out\nformat: csv\ntags: {a: 1, b: 2}\n")
    flags = {"format.type": "text", "input.include": ["*.txt"], "tags": {"b": "3"}, "resources.memory": "1Gi"}
    task = read_task(file, flags)
    assert task.format.type == "text"
    assert task.input.path == f"{tmp_path}/in/"
    assert task.input.include == ["*.txt"]
    assert task.tags == {"b": "3"}
    assert task.resources.memory == 2**30


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"model": "/x/churn", "input": "/y/2026-01/"}, "churn-2026-01"),
        ({"model": "churn@2", "input": {"path": "cos://data/客户.csv.gz"}}, "churn-客户"),
        ({"model": "m" * 80, "input": "x"}, "m" * NAME_MAX),
        ({"model": "_ _", "input": "/"}, "task"),
        ({}, "task"),
    ],
)
def test_a_task_without_a_name_is_called_after_model_and_input(data: dict[str, Any], name: str) -> None:
    assert default_name(data) == name
    check_name(name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: m\nmodel: b\n", ["line 2", "'model'", "line 1 already"]),
        ("model: m\ninput:\n  path: a\n  path: b\n", ["line 4", "'path'", "line 3 already"]),
        ("model: m\ninput: x\noutput: y\nfromat: csv\n", ["line 4", "'format'"]),
        ("model: m\ninput: x\noutput: y\nformat:\n  type: cvs\n", ["line 5", "format.type", "'csv'"]),
        ("model: m\n\tinput: x\n", ["line 2", "\\t"]),
        ("", ["empty", "input:"]),
        ("just text", ["not a mapping"]),
        ("[" * 3000, ["nested too deeply"]),
        ("model: !!python/object/apply:os.system [x]\n", ["line 1", "python"]),
        ("model: a\n---\nmodel: b\n", ["another document"]),
        ("a: &a [*a]\n", ["unknown key 'a'"]),
        ("env: &a {A: *a}\nmodel: m\ninput: x\noutput: y\n", ["env.A"]),
        ("model: m\ninput: x\n", ["output", "required"]),
        ("name: \x00", ["special characters"]),
    ],
)
def test_a_bad_file_is_refused_with_the_line(tmp_path: Path, text: str, words: list[str]) -> None:
    file = tmp_path / "task.yaml"
    file.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        read_task(file)
    assert "task.yaml" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_wrong_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    file = write(tmp_path, "model: m\ninput: in/\noutput: out\n")
    with pytest.raises(InvalidValue) as caught:
        read_task(file, {"instances": "0"}, flag_names={"instances": "--instances"})
    assert caught.value.field == "--instances"


def test_a_wrong_value_in_a_mapping_is_named_in_full() -> None:
    with pytest.raises(InvalidValue) as caught:
        read_task(None, {"model": "./m", "input": "in/", "output": "out/", "batch": {"size": 0}}, repository=False)
    assert (caught.value.field, caught.value.remedy) == ("batch.size", "Write 1 to 10,000,000.")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing"):
        read_task(tmp_path / "nothing.yaml")
    with pytest.raises(InvalidValue, match="folder"):
        read_task(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff")
    with pytest.raises(InvalidValue, match="UTF-8"):
        read_task(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_text("#" * 1_000_001)
    with pytest.raises(TooLarge):
        read_task(tmp_path / "large.yaml")


def test_json_is_read_too(tmp_path: Path) -> None:
    file = tmp_path / "task.json"
    file.write_text(json.dumps(LEAST | {"instances": 4, "format": {"header": False}}))
    task = read_task(file)
    assert (task.instances, task.format.header) == (4, False)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"model": "a",\n"model": "b"}', ["'model'", "twice"]),
        ('{"model": "a",\n}', ["line 2"]),
        ("[]", ["not a mapping"]),
        ("null", ["empty"]),
        ("[" * 100_000, ["nested too deeply"]),
        ('{"inptu": 1}', ["unknown key", "'input'", "task.json"]),
    ],
)
def test_bad_json_is_refused(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "task.json").write_text(text)
    with pytest.raises(InvalidValue) as caught:
        read_task(tmp_path / "task.json")
    for word in words:
        assert word in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    from tidemill.wire.taskyaml import parse_document

    with contextlib.suppress(InvalidValue):
        parse_document(text, "task.yaml", Path("/"))
