"""What a model wants is compared with the input's first records before anything starts, without loading it."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from tests.integration.local_world import World
from tidemill.domain.errors import InvalidValue
from tidemill.planning.wanted import Wanted, wanted_columns
from tidemill_runtime.models.kinds import inspect_package

SIGNATURE = [
    {"type": "double", "name": "age", "required": True},
    {"type": "long", "name": "months", "required": True},
    {"type": "string", "name": "plan", "required": False},
]
BOOSTER = "tree\nversion=v4\nfeature_names=the_age plan\nfeature_infos=[0:9] 0:1:2\n\nTree=0\n"
GOOD = {"age": 1.5, "months": 2, "plan": "pro"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "model").mkdir()
    return World(tmp_path)


def mlflow(world: World, signature: list[dict[str, Any]] = SIGNATURE) -> None:
    document = {"flavors": {}, "signature": {"inputs": json.dumps(signature), "outputs": None}}
    (world.root / "model" / "MLmodel").write_text(yaml.safe_dump(document))


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def refusal(world: World, **changes: Any) -> str:
    """What `run` says; nothing was started."""
    with pytest.raises(InvalidValue) as caught:
        world.run(**changes)
    assert not (world.root / "out").exists() or not list((world.root / "out").iterdir())
    return str(caught.value)


def test_a_column_that_is_not_there(world: World) -> None:
    mlflow(world)
    world.file("in/a.jsonl", lines([{"Age": 1.5, "months": 2}] * 3))
    said = refusal(world)
    assert "the model wants the column 'age'" in said and "'Age', 'months'" in said


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", lines([{**GOOD, "age": "old"}] * 2), "wants a number in the column 'age'"),
        ("a.jsonl", lines([{**GOOD, "months": 1.5}] * 2), "wants a whole number in the column 'months'"),
        ("a.jsonl", lines([{**GOOD, "plan": 1}] * 2), "wants a text in the column 'plan'"),
        ("a.jsonl.gz", gzip.compress(lines([{**GOOD, "age": "old"}] * 2).encode(), mtime=0), "'age'"),
        ("a.csv", "age,months\nold,1\n", "wants a number in the column 'age'"),
        ("a.csv", "months\n1\n", "the column 'age'"),
    ],
)
def test_a_type_that_no_record_has(world: World, name: str, data: str | bytes, words: str) -> None:
    mlflow(world)
    world.file(f"in/{name}", data)
    assert words in refusal(world)


def test_parquet_is_known_by_its_footer(world: World) -> None:
    mlflow(world)
    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"age": ["old"], "months": [1]}), data)
    world.file("in/a.parquet", data.getvalue())
    assert "wants a number in the column 'age'" in refusal(world)


def test_columns_that_the_task_leaves_out(world: World) -> None:
    mlflow(world)
    world.file("in/a.jsonl", lines([GOOD]))
    assert "format.columns" in refusal(world, format={"columns": ["age"]})


def test_what_a_booster_wants(world: World) -> None:
    (world.root / "model" / "m.txt").write_text(BOOSTER)
    assert wanted_columns(inspect_package(str(world.root / "model"))) == [Wanted("the_age", "a number"), Wanted("plan")]
    world.file("in/a.csv", "the age,Plan\n1,2\n")  # LightGBM writes a blank as an underscore
    assert "the column 'plan'" in refusal(world)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("MLmodel", "flavors: {}\n"),
        ("MLmodel", ": no yaml: ["),
        ("MLmodel", 'signature: {inputs: \'[{"type": "tensor"}]\'}\n'),
        ("m.txt", "tree\nfeature_names=Column_0 Column_1\nfeature_infos=[0:1] [0:1]\n\nTree=0\n"),
        ("m.onnx", ""),
    ],
)
def test_models_that_do_not_say(world: World, file: str, text: str) -> None:
    (world.root / "model" / file).write_text(text)
    assert wanted_columns(inspect_package(str(world.root / "model"))) == []
