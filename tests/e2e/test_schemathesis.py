"""Generated requests against a whole server: never a 5xx, every answer as described; and each operation works.

The requests come from OpenAPI. A part of them is aimed at things that are there, so that they get further than a 404.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CHECKS, load_all_checks

from tests.conftest import PROFILE
from tests.e2e.harness import until
from tests.e2e.live import USER, Live, live_server
from tidemill.api.app import bare_app
from tidemill.api.examples import EXAMPLES

EXAMPLES_EACH = 15 if PROFILE == "ci" else 300
schema = schemathesis.openapi.from_dict(bare_app().openapi())
load_all_checks()
CHECKED = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
    )
]
AUTHORIZATION = {"Authorization": f"Bearer {USER.secret_id}.{USER.secret_key}"}
ABC = hashlib.sha256(b"abc").hexdigest()


@dataclass
class Target:
    """A server with something of everything. fresh makes what an operation uses up."""

    live: Live
    done: str
    package: str
    package_size: int
    made: int = 0

    def fresh_task(self, **changes: Any) -> str:
        self.made += 1
        with self.live.client() as client:
            return client.tasks.create(self.live.task(output=f"cos://data/fresh{self.made}/", **changes)).id

    def stopped_task(self) -> str:
        task = self.fresh_task(input="cos://data/slow/")
        with self.live.client() as client:
            client.tasks.stop(task)
            return client.wait(task, timeout_s=60).id

    def fresh_model(self) -> str:
        self.made += 1
        with self.live.client() as client:
            return client.models.import_(f"fresh{self.made}", self.live.put_model()).model


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with live_server(tmp_path_factory.mktemp("schemathesis") / "data") as live:
        live.put_input("in")
        live.put_input("slow", files=1, lines=400, seconds=0.05)
        with live.client() as client:
            version = client.models.import_("doubler", live.put_model())
            client.packages.upload_file(live.put_model() / "batch" / "model_service.py")
            done = client.wait(client.tasks.create(live.task()), timeout_s=60)
            assert done.status == "SUCCEED"
        size = (live.data / "blobs/sha256" / version.package[:2] / version.package).stat().st_size
        yield Target(live, done.id, version.package, size)


GOOD: dict[str, Callable[[Target], dict[str, Any]]] = {
    "create_task": lambda t: {"json": t.live.task(output="cos://data/created/")},
    "delete_task": lambda t: {"task": t.stopped_task()},
    "stop_task": lambda t: {"task": t.fresh_task(input="cos://data/slow/")},
    "resume_task": lambda t: {"task": t.stopped_task(), "json": {"instances": 2}},
    "download_result": lambda t: {"task": t.done, "name": "0.jsonl.out.jsonl"},
    "change_model": lambda t: {"name": "doubler", "json": {"description": "x"}},
    "delete_model": lambda t: {"name": t.fresh_model()},
    "create_version": lambda t: {"name": "doubler", "json": {"package": t.package}},
    "delete_version": lambda t: {"name": t.fresh_model(), "version": "1"},
    "find_missing_blobs": lambda t: {"json": {"sha256": [ABC]}},
    "upload_blob": lambda t: {"sha256": ABC, "content": b"abc"},
    "find_blob": lambda t: {"sha256": t.package},
    "create_package": lambda t: {"json": {"files": [{"path": "a", "sha256": t.package, "size": t.package_size}]}},
    "get_package": lambda t: {"digest": t.package},
    "list_objects": lambda t: {"path": "cos://data/in/"},
    "delete_objects": lambda t: {"path": "cos://data/nothing/", "recursive": "true"},
    "download_object": lambda t: {"path": "cos://data/in/0.jsonl"},
    "upload_object": lambda t: {"path": "cos://data/up/x", "content": b"abc"},
}
"""What makes each operation succeed: its parameters and body. Others need a finished task or a model and no more."""
USUAL = {"task": lambda t: t.done, "name": lambda t: "doubler", "version": lambda t: "1"}


@pytest.mark.parametrize("operation", sorted(EXAMPLES))
def test_every_operation_succeeds(target: Target, operation: str) -> None:
    described = schema.find_operation_by_id(operation)
    given = GOOD.get(operation, lambda _: {})(target)
    body = {key: given.pop(key) for key in ("json", "content") if key in given}
    path = described.path
    for name, value in {**{key: make(target) for key, make in USUAL.items()}, **given}.items():
        if f"{{{name}}}" in path:
            path = path.replace(f"{{{name}}}", value)
            given.pop(name, None)
    with target.live.http() as http:
        answer = http.request(described.method, path, params=given, **body)
    assert answer.is_success, answer.text


@schema.parametrize()
@settings(max_examples=EXAMPLES_EACH, suppress_health_check=list(HealthCheck), deadline=None)
def test_no_request_breaks_it(target: Target, case: schemathesis.Case) -> None:
    chance = random.Random(repr((case.path_parameters, case.query, case.body)))
    operation = case.operation.definition.raw["operationId"]
    if not operation.startswith("delete_"):
        for container in (case.path_parameters, case.query):
            for name, known in _known(target).items():
                if container and name in container and chance.random() < 0.5:
                    container[name] = chance.choice(known)
    case.headers = {**(case.headers or {}), **AUTHORIZATION}
    case.call_and_validate(base_url=target.live.url, checks=CHECKED, timeout=60)


def _known(target: Target) -> dict[str, list[str]]:
    return {
        "task": [target.done],
        "name": ["doubler", "0.jsonl.out.jsonl"],
        "version": ["1", "latest"],
        "sha256": [ABC, target.package],
        "digest": [target.package],
        "path": ["cos://data/in/", "cos://data/in/0.jsonl", "cos://data/"],
        "region": ["local"],
    }


def test_the_server_is_still_well(target: Target) -> None:
    with target.live.client() as client:
        task = client.tasks.create(target.live.task(output="cos://data/after/"))
        assert client.wait(task, timeout_s=60).status == "SUCCEED"
        until(lambda: client.server().engine == "process", "an answer")
