"""Tasks of a server that compute only what is new: since a task by id or name, or a folder; what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.live import MODEL, USER, Live, live_server
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.ids import AccountId
from tidemill.services.earlier import earlier_task
from tidemill.store.base import Store, sqlite_url
from tidemill.wire.taskfile import parse_task


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with live_server(tmp_path_factory.mktemp("only-new") / "data") as made:
        with made.client(made.root) as client:
            client.models.import_("doubler", made.put_model())
        yield made


class Place:
    """Inputs and outputs of one test, below a prefix of their own."""

    def __init__(self, live: Live, prefix: str) -> None:
        self.live, self.prefix = live, prefix

    def put(self, name: str, *values: int) -> None:
        text = "".join(f'{{"x": {value}}}\n' for value in values)
        with self.live.client() as client:
            client.objects.put(f"cos://data/{self.prefix}/in/{name}", text.encode())

    def task(self, out: str, since: str | None = None, output: str = "delta", **changes: Any) -> dict[str, Any]:
        only_new = {} if since is None else {"only_new": {"since": since, "output": output}}
        places = {"input": f"cos://data/{self.prefix}/in/", "output": f"cos://data/{self.prefix}/{out}/"}
        return self.live.task(name=f"{self.prefix}-task", tolerance="50%", **places, **only_new, **changes)

    def run(self, out: str, since: str | None = None, output: str = "delta", **changes: Any) -> Any:
        with self.live.client() as client:
            made = client.tasks.create(self.task(out, since, output, **changes))
            seen = client.wait(made.id)
            assert seen.status == "SUCCEED", seen.explanation
            return seen

    def results(self, out: str) -> dict[str, list[Any]]:
        folder = self.live.data / "buckets/data" / self.prefix / out
        return {
            path.name: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(folder.glob("*.out.jsonl"))
        }


def test_from_one_success_to_the_next(live: Live) -> None:
    place = Place(live, "chain")
    place.put("a.jsonl", 1, 13)
    place.put("b.jsonl", 2)
    first = place.run("one")
    place.put("b.jsonl", 3)
    place.put("c.jsonl", 4)
    second = place.run("two", first.id)
    assert place.results("two") == {"b.jsonl.out.jsonl": [6], "c.jsonl.out.jsonl": [8]}
    assert f"Since {first.id}: 1 object new, 1 changed, 1 unchanged, 0 deleted" in second.explanation
    third = place.run("three", "chain-task")  # the last success of that name is the second
    assert (place.results("three"), third.counts.inputs) == ({}, 0)
    assert f"Nothing is new since {second.id}" in third.explanation
    with live.client() as client:
        assert "run.only_new" in [event.name for event in client.tasks.events(third.id)]
        assert not list(client.tasks.instances(third.id))
    merged = place.run("four", f"cos://data/{place.prefix}/one/", "merged")
    assert place.results("four") == {
        "a.jsonl.out.jsonl": [2, None],
        "b.jsonl.out.jsonl": [6],
        "c.jsonl.out.jsonl": [8],
    }
    assert (merged.counts.inputs, merged.counts.failed) == (4, 1)
    with live.client() as client:
        assert [each.object for each in client.tasks.errors(merged.id)] == ["a.jsonl"]
        receipt = client.tasks.receipt(merged.id)
    assert (receipt.since["task"], receipt.since["output"]) == (first.id, "merged")


def test_what_cannot_be_counted_from(live: Live, tmp_path: Path) -> None:
    place = Place(live, "refused")
    place.put("a.jsonl", 1)
    first = place.run("one")
    with live.client() as client:
        for since, error, match in (
            ("no-such-task", NotFound, "no task is called 'no-such-task'"),
            ("cos://data/nowhere/", NotFound, "there is no folder"),
            ("cos://data/refused/in/", NotFound, "no finished results"),
            ("/tmp/", Exception, "operator|own machine"),
        ):
            with pytest.raises(error, match=match):
                client.tasks.create(place.task("two", since))
        with pytest.raises(InvalidValue, match="contains the output"):
            client.tasks.create(place.task("one", first.id))
        running = client.tasks.create(place.task("slow", priority=-1, instances=1, resources={"cpu": 4}))
        with pytest.raises(Conflict, match="has no finished results"):
            client.tasks.create(place.task("two", running.id))
        client.wait(running.id)
        with live.client(live.root) as root:
            root.models.import_("other", live.put_model("other", "# another\n" + MODEL))
        with pytest.raises(Conflict, match="another model"):
            client.tasks.create(place.task("two", first.id, "merged", model="other"))


def test_another_accounts_task_is_not_there(live: Live) -> None:
    place = Place(live, "account")
    place.put("a.jsonl", 1)
    first = place.run("one")
    store = Store(sqlite_url(live.data / "store.db"))
    try:
        stranger = replace(USER.actor, account=AccountId("stranger"))
        for since in (first.id, first.name):
            task = parse_task({**place.task("two", since), "model": "m"})
            with store.read() as tx, pytest.raises(NotFound, match="no task is called"):
                earlier_task(tx, stranger, task)
        with store.read() as tx:
            assert earlier_task(tx, USER.actor, parse_task(place.task("two", first.id))).id == first.id
    finally:
        store.close()
