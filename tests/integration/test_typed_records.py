"""Models that want records of a type of their own: `predict(self, batch: list[Line])`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.local_world import World

LINES = """
    from __future__ import annotations
    {head}
    class Model:
        def predict(self, batch: list[Line]):
            assert all(type(line) is Line for line in batch), batch
            if any(line.text == "poison" for line in batch): raise RuntimeError("poison")
            return [{{"id": line.id, "length": len(line.text)}} for line in batch]
"""
KINDS = {
    "struct": "import msgspec\n    class Line(msgspec.Struct):\n        id: int\n        text: str",
    "dataclass": "import dataclasses\n    @dataclasses.dataclass\n    class Line:\n        id: int\n        text: str",
}
RECORDS = [
    {"id": 1, "text": "one", "other": [1, {"x": None}]},
    {"id": 2, "text": "两 two"},
    {"id": "3", "text": "a number as text"},
    {"text": "no id"},
    {"id": 5, "text": "poison"},
    {"id": 6, "text": ""},
]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_records_are_of_the_models_own_type(world: World, kind: str) -> None:
    world.model(LINES.format(head=KINDS[kind]))
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in RECORDS)
    world.file("in/a.jsonl", text + "\n{broken\n" + "[7]\n")
    result = world.run(tolerance=20)
    assert (result.ok, result.failed, result.skipped) == (3, 5, 1)
    expected = [{"id": 1, "length": 3}, {"id": 2, "length": 5}, None, None, None, {"id": 6, "length": 0}, None, None]
    assert world.read("a.jsonl.out.jsonl") == expected
    errors = {error["line"]: (error["fault"], error["message"]) for error in result.errors()}
    assert errors[3] == (
        "decode_error",
        "Expected `int`, got `str` - at `$.id`" if kind != "named_tuple" else errors[3][1],
    )
    assert errors[4][0] == errors[8][0] == errors[9][0] == "decode_error"
    assert errors[5] == ("model_error", "poison")


def test_what_results_carry_is_as_the_line_says_it(world: World) -> None:
    world.model(LINES.format(head=KINDS["struct"]))
    world.file("in/a.jsonl", '{"id": 1, "text": "one", "other": [1, 2]}\n{"id": 2, "text": "poison", "other": 7}\n')
    assert world.run(tolerance=1, format={"result": {"keys": ["other"]}}).ok == 1
    assert world.read("a.jsonl.out.jsonl")[0] == {"other": [1, 2], "prediction": {"id": 1, "length": 3}}


def test_rows_of_a_csv_become_records_too(world: World) -> None:
    world.model(LINES.format(head=KINDS["dataclass"]))
    world.file("in/a.csv", "id,text,other\n1,one,x\n2,two,y\nthree,3,z\n4,four,w\n")
    result = world.run(tolerance=1)
    assert world.read("a.csv.out.jsonl") == [
        {"id": 1, "length": 3},
        {"id": 2, "length": 3},
        None,
        {"id": 4, "length": 4},
    ]
    assert [error["fault"] for error in result.errors()] == ["decode_error"]
