"""Tasks over HTTP, as far as nothing has to run: what is checked at creation, lists, idempotency, stop, delete,
watch."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api_world import STRANGER, USER, World, open_world
from tidemill.domain.errors import Conflict, InvalidValue, NotFound, OutputTaken, TidemillError, UnknownKey
from tidemill.domain.ids import RunId, TaskId
from tidemill.domain.life import Reason, TaskStatus
from tidemill.services.life import change_status
from tidemill.services.runs import finish, locked_run, new_instance
from tidemill.store.runs import insert_instances, set_run
from tidemill.wire.views import ProgressView


@pytest.fixture
def world(tmp_path: Path, database_url: str) -> Iterator[World]:
    with open_world(tmp_path / "data", database_url) as made:
        made.put_input()
        with made.client() as client:
            client.models.import_("doubler", made.put_model())
        yield made


def end(world: World, task: str, status: TaskStatus, reason: Reason = Reason.NONE) -> None:
    """Takes a task through its life to a final state."""
    way = {
        TaskStatus.SUCCEED: [TaskStatus.STARTING, TaskStatus.RUNNING],
        TaskStatus.FAILED: [],
        TaskStatus.STOPPED: [TaskStatus.STOPPING],
    }[status]
    with world.store.write() as tx:
        run = locked_run(tx, RunId(f"{task}-r1"))
        for number, step in enumerate(way):
            run = change_status(tx, run, step, now=run.created + number)
        finish(tx, run, status, reason, "", run.created + 5, totals=None, sweep_at=run.created + 1e6)


def test_create_and_get(world: World) -> None:
    with world.client() as client:
        task = client.tasks.create(world.task(name="一月", tags={"team": "growth"}, resources={"cpu": "500m"}))
        assert (task.status, task.model, task.reason, task.run.number) == ("INIT", "doubler@1", "", 1)
        assert task.spec.resources.cpu == 500
        assert task.output == "cos://data/out/"
        assert task.model_digest == client.models.version("doubler").package
        progress = client.tasks.progress(task.id)
        assert (progress.phase, progress.splits_total, progress.instances) == ("planning", None, 1)
        assert [run.id for run in client.tasks.runs(task.id)] == [f"{task.id}-r1"]
        assert [event.name for event in client.tasks.events(task.id)] == ["task.created", "run.status"]
        assert not list(client.tasks.instances(task.id))
        assert not list(client.tasks.results(task.id))
        assert not list(client.tasks.errors(task.id))
        with pytest.raises(Conflict, match="no receipt"):
            client.tasks.receipt(task.id)
        with pytest.raises(NotFound, match="no instance"):
            list(client.tasks.logs(task.id))


REFUSED: list[tuple[dict[str, Any], type[TidemillError], str]] = [
    ({"name": "-x"}, InvalidValue, "name"),
    ({"inptu": "x"}, UnknownKey, "inptu"),
    ({"resources": {"cpus": 1}}, UnknownKey, "resources.cpus"),
    ({"region": "nowhere"}, InvalidValue, "region"),
    ({"model": "nobody"}, NotFound, "model"),
    ({"model": "doubler@7"}, NotFound, "model"),
    ({"model": "doubler@0"}, InvalidValue, "model"),
    ({"model": "doubler@champion"}, NotFound, "model"),
    ({"model": "sha256:" + "0" * 64}, NotFound, "model"),
    ({"model": "./somewhere"}, InvalidValue, "model"),
    ({"code": "doubler"}, InvalidValue, "code"),
    ({"image": "python:3"}, InvalidValue, "image"),
    ({"command": "sh run.sh"}, InvalidValue, "command"),
    ({"secrets": ["token"]}, InvalidValue, "secrets"),
    ({"input": "cos://data/missing/"}, InvalidValue, "input.path"),
    ({"input": "cos://other/in/"}, InvalidValue, "input.path"),
    ({"input": "relative/"}, InvalidValue, "input.path"),
    ({"input": {"path": "cos://data/in/", "include": ["*.csv"]}}, InvalidValue, "input.include"),
    ({"output": "cos://data/in/sub/"}, InvalidValue, "output.path"),
    ({"output": "cos://data/full/"}, OutputTaken, "output.path"),
    ({"resources": {"cpu": 1000}}, InvalidValue, "resources.cpu"),
    ({"resources": {"memory": "1Ti"}}, InvalidValue, "resources.memory"),
    ({"resources": {"gpu": 1}}, InvalidValue, "resources.gpu"),
    ({"instances": 3, "resources": {"cpu": 1}}, InvalidValue, "resources.cpu"),
    ({"format": {"type": "jsonl", "result": "file"}}, InvalidValue, "format.result.type"),
    ({"tolerance": "200%"}, InvalidValue, "tolerance"),
    ({"description": "a\0b"}, InvalidValue, "description"),
]


def test_what_is_refused_names_its_field(world: World) -> None:
    world.put_input("full/old.jsonl", "1\n")
    with world.http() as http:
        for change, kind, field in REFUSED:
            answer = http.post("/api/v1/tasks", json=world.task(**change))
            problem = answer.json()
            assert answer.headers["content-type"] == "application/problem+json", change
            found = (problem.get("field"), problem["status"], problem["code"])
            assert found == (field, answer.status_code, kind.code), (change, problem)
            assert problem["remedy"], change
    with world.client() as client:
        assert client.tasks.list().total == 0, "nothing may be created"


def test_plain_paths_are_for_the_operator(world: World, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"x": 1}\n')
    model = str(world.put_model("other"))
    here = {"input": f"{tmp_path}/in/", "output": f"{tmp_path}/out/"}
    with world.client() as root, world.http(USER) as user:
        assert user.post("/api/v1/tasks", json=world.task(**here)).status_code == 403
        assert user.post("/api/v1/tasks", json=world.task(model=model)).status_code == 403
        assert root.tasks.create(world.task(**here, model=model)).output == f"{tmp_path}/out/"
        with world.http() as http:  # by the server's own hands
            made = http.post("/api/v1/tasks", json=world.task(model=model, output="cos://data/other/")).json()
    assert made["model"] == model


def test_local_model_and_code_folders_are_uploaded(world: World, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "model_service.py").write_text(
        "class Mine:\n    def load(self): ...\n    def predict(self, batch: list): ...\n"
    )
    with world.client(USER) as client:
        task = client.tasks.create(world.task(model=str(world.put_model("local")), code=str(code)))
        assert task.model is not None
        assert task.model.startswith("sha256:")
        assert task.code_digest == client.packages.upload_folder(code).digest
        (code / "model_service.py").write_text("class Broken(:\n")
        with pytest.raises(InvalidValue, match="line 1") as raised:
            client.tasks.create(world.task(output="cos://data/2/", code=str(code)))
        assert raised.value.field == "code"


def test_output_is_claimed(world: World) -> None:
    with world.client() as client:
        first = client.tasks.create(world.task(output="cos://data/a/b/"))
        for taken in ("cos://data/a/b/", "s3://data/a/b", "cos://data/a/", "cos://data/a/b/c/", f"{world.bucket}/a/b/"):
            with pytest.raises(OutputTaken, match=first.id):
                client.tasks.create(world.task(output=taken))
        client.tasks.create(world.task(output="cos://data/a/bb/"))
        end(world, first.id, TaskStatus.FAILED)
        client.tasks.create(world.task(output="cos://data/a/b/"))


def test_idempotency(world: World) -> None:
    with world.client() as client:
        first = client.tasks.create(world.task(), idempotency_key="k")
        assert client.tasks.create(world.task(), idempotency_key="k").id == first.id
        with pytest.raises(Conflict, match=first.id):
            client.tasks.create(world.task(name="another"), idempotency_key="k")
        with pytest.raises(OutputTaken):
            client.tasks.create(world.task(), idempotency_key="l")
        assert client.tasks.list().total == 1


def test_idempotency_of_many_at_once(world: World) -> None:
    made: list[str] = []

    def create() -> None:
        with world.client() as client:
            made.append(client.tasks.create(world.task(), idempotency_key="same").id)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1


def test_lists(world: World) -> None:
    with world.client() as client:
        made = [
            client.tasks.create(
                world.task(
                    name=f"{'even' if n % 2 == 0 else 'odd'}-{n}",
                    output=f"cos://data/o{n}/",
                    tags={"n": str(n), "all": "y"},
                )
            )
            for n in range(7)
        ]
        ids = [task.id for task in made]
        assert [task.id for task in client.tasks.list().items] == ids[::-1]
        assert [task.id for task in client.tasks.list(order="asc").items] == ids
        assert [task.id for task in client.tasks.list(name="odd-3").items] == [ids[3]]
        assert client.tasks.list(name_contains="ven-").total == 4
        assert client.tasks.list(name_contains="%").total == 0
        assert [task.id for task in client.tasks.list(tag=["n:4"]).items] == [ids[4]]
        assert client.tasks.list(tag=["all", "n:4"]).total == 1
        assert client.tasks.list(tag=["all:n"]).total == 0
        assert client.tasks.list(model="doubler").total == client.tasks.list(model="doubler@1").total == 7
        assert client.tasks.list(model="doubl").total == client.tasks.list(model="doubler@2").total == 0
        end(world, ids[2], TaskStatus.SUCCEED)
        assert [task.id for task in client.tasks.list(status=["SUCCEED"]).items] == [ids[2]]
        assert client.tasks.list(status=["INIT", "SUCCEED"]).total == 7
        assert client.tasks.list(created_after=made[5].created_at).total == 2
        assert client.tasks.list(created_before=made[5].created_at).total == 5
        assert client.tasks.list(order_by="updated").items[0].id == ids[2]


def test_pages_stay_where_they_are(world: World) -> None:
    with world.client() as client:
        ids = [client.tasks.create(world.task(output=f"cos://data/p{n}/")).id for n in range(6)]
        first = client.tasks.list(limit=2)
        late = client.tasks.create(world.task(output="cos://data/late/")).id
        end(world, ids[5], TaskStatus.FAILED)
        client.tasks.delete(ids[5])
        end(world, ids[4], TaskStatus.FAILED)
        client.tasks.delete(ids[4])
        second = client.tasks.list(limit=2, cursor=first.next_cursor)
        third = client.tasks.list(limit=2, cursor=second.next_cursor)
        seen = [task.id for page in (first, second, third) for task in page.items]
        assert seen == ids[::-1]
        assert third.next_cursor is None
        assert [task.id for task in client.tasks.all(limit=2)] == [late, *ids[3::-1]]
        for bad in ("x", "bm8", f"{first.next_cursor}a", "WzFd", "W251bGwsMV0", "\u4e2d"):
            with pytest.raises(InvalidValue) as raised:
                client.tasks.list(cursor=bad)
            assert raised.value.field == "cursor"


def test_other_accounts_see_nothing(world: World) -> None:
    with world.client() as client, world.client(STRANGER) as stranger, world.client(USER) as user:
        task = client.tasks.create(world.task()).id
        assert user.tasks.get(task).created_by == "root"
        assert stranger.tasks.list().total == 0
        with pytest.raises(NotFound) as missing:
            stranger.tasks.get("batch-0000000000000000")
        for look in (
            stranger.tasks.get, stranger.tasks.stop, stranger.tasks.resume, stranger.tasks.delete,
            stranger.tasks.progress, stranger.tasks.receipt, stranger.tasks.runs, stranger.tasks.error_groups,
            lambda one: list(stranger.tasks.events(one)), lambda one: list(stranger.tasks.watch(one)),
            lambda one: list(stranger.tasks.logs(one)), lambda one: list(stranger.tasks.results(one)),
            lambda one: list(stranger.tasks.instances(one)),
        ):  # fmt: skip
            with pytest.raises(NotFound) as raised:
                look(task)
            assert str(raised.value).replace(task, "batch-0000000000000000") == str(missing.value)


def test_stop_resume_delete(world: World) -> None:
    with world.client() as client:
        task = client.tasks.create(world.task(deadline="1h")).id
        with pytest.raises(Conflict, match="INIT"):
            client.tasks.delete(task)
        with pytest.raises(Conflict, match="INIT"):
            client.tasks.resume(task)
        client.tasks.stop(task)
        client.tasks.stop(task)
        asked = [event for event in client.tasks.events(task) if event.name == "run.stop_requested"]
        assert [(event.actor, event.reason) for event in asked] == [("root", "stopped_by_user")]
        end(world, task, TaskStatus.STOPPED, Reason.STOPPED_BY_USER)
        client.tasks.stop(task)
        resumed = client.tasks.resume(task, {"instances": 2, "tolerance": "5%", "resources": {"cpu": 1}})
        assert (resumed.status, resumed.runs, resumed.instances, resumed.spec.tolerance) == ("INIT", 2, 2, 0.05)
        assert resumed.spec.deadline is None
        assert resumed.deadline_at is None
        assert client.tasks.list(status=["INIT"]).total == 1
        with pytest.raises(Conflict):
            client.tasks.resume(task)


def test_delete(world: World) -> None:
    with world.client() as client:
        task = client.tasks.create(world.task(tags={"a": "b"}))
        staged = world.bucket / "out" / "_tidemill" / task.id / "parts" / "x"
        staged.parent.mkdir(parents=True)
        staged.write_text("part")
        result = world.bucket / "out" / "result"
        result.write_text("kept")
        end(world, task.id, TaskStatus.SUCCEED)
        with pytest.raises(Conflict, match="SUCCEED"):
            client.tasks.stop(task.id)
        gone = client.tasks.delete(task.id)
        assert gone.removed[0] == "task t"
        assert gone.kept == ["the results in cos://data/out/"]
        assert not staged.exists()
        assert result.exists()
        with pytest.raises(NotFound):
            client.tasks.get(task.id)
        assert client.tasks.list().total == 0
        client.models.delete("doubler")


def test_watch_tells_until_the_end(world: World) -> None:
    with world.client() as client:
        task = client.tasks.create(world.task()).id
        seen: list[ProgressView] = []
        begun = threading.Event()

        def follow() -> None:
            with world.client() as other:
                for view in other.tasks.watch(task):
                    seen.append(view)
                    begun.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert begun.wait(10)
        end(world, task, TaskStatus.SUCCEED)
        thread.join(10)
        assert not thread.is_alive()
        assert (seen[0].phase, seen[-1].phase, seen[-1].status) == ("planning", "finished", "SUCCEED")
        assert seen[-1].final
        assert client.wait(task).status == "SUCCEED"


def test_watch_goes_on_after_a_break(world: World) -> None:
    with world.client() as client:
        task = client.tasks.create(world.task()).id
        end(world, task, TaskStatus.SUCCEED)
        events = list(client.tasks.events(task))
    with world.http() as http:
        whole = http.get(f"/api/v1/tasks/{task}/watch")
        assert whole.headers["content-type"].startswith("text/event-stream")
        assert [line for line in whole.text.splitlines() if line.startswith("event: ")] == [
            *["event: event"] * len(events), "event: progress", "event: end",
        ]  # fmt: skip
        rest = http.get(f"/api/v1/tasks/{task}/watch", headers={"Last-Event-ID": str(events[-2].id)}).text
        assert rest.count("event: event") == 1
        assert f'"id":{events[-1].id},' in rest
        none = http.get(f"/api/v1/tasks/{task}/watch", headers={"Last-Event-ID": str(events[-1].id)}).text
        assert "event: event" not in none
        assert http.get(f"/api/v1/tasks/{task}/watch", headers={"Last-Event-ID": "x"}).status_code == 422
        assert http.get("/api/v1/tasks/batch-none/watch").status_code == 404


def test_logs(world: World) -> None:
    with world.client() as client:
        task = TaskId(client.tasks.create(world.task()).id)
        with world.store.write() as tx:
            set_run(tx, RunId(f"{task}-r1"), {"millicores": 1000, "memory_bytes": 1 << 30})
            row = new_instance(locked_run(tx, RunId(f"{task}-r1")), 0, 1, 1.0)
            row |= {"millicores": 1000, "memory_limit_bytes": 1 << 30}
            insert_instances(tx, [row])
        text = "loaded 模型\nhalf a li".encode()
        world.engine.write(row["id"], text)
        pieces = list(client.tasks.logs(task))
        assert "".join(piece.text for piece in pieces) == "loaded 模型\nhalf a li"
        world.engine.write(row["id"], b"ne \xff\n")
        more = list(client.tasks.logs(task, instance=row["id"], offset=pieces[-1].next_offset))
        assert "".join(piece.text for piece in more) == "ne \ufffd\n"
        assert "".join(_pieces(world, task, 9)) == "loaded 模型\nhalf a line \ufffd\n"
        assert [instance.id for instance in client.tasks.instances(task)] == [row["id"]]
        with pytest.raises(NotFound):
            list(client.tasks.logs(task, instance="another"))


def _pieces(world: World, task: str, limit_bytes: int) -> Iterator[str]:
    """The log in small pieces, characters cut in two among them."""
    offset = 0
    with world.http() as http:
        while True:
            piece = http.get(f"/api/v1/tasks/{task}/logs", params={"offset": offset, "limit_bytes": limit_bytes}).json()
            if piece["next_offset"] == offset:
                return
            offset = piece["next_offset"]
            yield piece["text"]
