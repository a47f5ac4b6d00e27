"""Texts that no database holds, sent to each place that takes one; and what the log says of an error inside."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api_world import World, open_world

LOOKS = (
    *("tasks?name=%00", "tasks?name_contains=%00", "tasks?tag=a:%00", "tasks?model=%00", "tasks/%00"),
    *("tasks/%00/events", "models?name_contains=%00", "models/%00", "models/m/versions/%00"),
    *("objects?path=cos://data/%00", "packages/%00"),
)
ASKED: tuple[dict[str, Any], ...] = (
    {"description": "a\0"},
    {"description": "\udc80"},
    {"tags": {"a": "\0"}},
    {"env": {"A": "\0"}},
    {"env": {"A": "\udc80"}},
    {"command": "x \0"},
    {"name": "\0"},
    {"model": "\0"},
    {"deadline": 1e300},
)


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with open_world(tmp_path / "data", database_url) as made:
        with made.client() as client:
            client.models.import_("doubler", made.put_model())
        made.put_input()
        yield made


def test_no_text_is_an_error_inside(world: World) -> None:
    as_json = {"Content-Type": "application/json"}
    with world.http() as http:
        said = {look: http.get(f"/api/v1/{look}").status_code for look in LOOKS}
        for number, change in enumerate(ASKED):
            body = json.dumps(world.task(output=f"cos://data/out{number}/", **change))
            said[str(change)] = http.post("/api/v1/tasks", content=body, headers=as_json).status_code
        for text in ("a\0", "\udc80"):
            body = json.dumps({"description": text})
            said[f"model {text!r}"] = http.patch("/api/v1/models/doubler", content=body, headers=as_json).status_code
        assert {what: status for what, status in said.items() if status >= 500} == {}
        assert http.get("/api/v1/tasks").status_code == 200


def test_an_error_inside_is_logged_at_once_and_without_keys(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(type(world.services.tasks), "list", broken)
    began = time.monotonic()
    with world.http() as http, caplog.at_level(logging.ERROR):
        assert http.get("/api/v1/tasks").status_code == 500
    logged = caplog.text + "".join(capfd.readouterr())
    assert "a defect" in logged
    assert "tasks.py" in logged
    assert world.root.secret_key not in logged
    assert time.monotonic() - began < 10
