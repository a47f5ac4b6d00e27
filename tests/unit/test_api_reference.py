"""The written API is the API."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from tidemill.api.app import bare_app
from tidemill.api.examples import EXAMPLES
from tidemill.api.reference import documents

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", sorted(documents()))
def test_it_is_current(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == documents()[name], "run `python -m tidemill.api.reference`"


def test_each_operation_has_one_example() -> None:
    described = bare_app().openapi()["paths"]
    assert {each["operationId"] for methods in described.values() for each in methods.values()} == set(EXAMPLES)


def test_examples_are_what_they_describe() -> None:
    described = bare_app().openapi()
    checked = 0
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            contents = [response.get("content", {}) for response in operation["responses"].values()]
            contents.append(operation.get("requestBody", {}).get("content", {}))
            for kind, content in ((kind, content) for each in contents for kind, content in each.items()):
                if "example" in content and kind == "application/json":
                    schema = {**content["schema"], "components": described["components"]}
                    Draft202012Validator(schema).validate(content["example"])
                    checked += 1
            assert operation["responses"], f"{method} {path}"
    assert checked > len(EXAMPLES) / 2
