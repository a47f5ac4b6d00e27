"""`tidemill run` that is killed or interrupted, and what its next run makes of it. What dies are real processes."""

from __future__ import annotations

import signal
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.conftest import S3Bucket
from tests.integration.local_world import DOUBLE, GATED, World, source, until

COUNT = 400
SLOW = """
    import os, time
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            time.sleep(0.01 * len(batch))
            with open(os.environ["GATE"] + ".seen", "a") as seen: seen.writelines("%d\\n" % r["x"] for r in batch)
            return [r["x"] * 2 for r in batch]
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path).model(GATED)
    made.numbers("in/a.jsonl", range(COUNT // 2)).numbers("in/b/c.jsonl", range(COUNT // 2, COUNT))
    return made


@pytest.fixture
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of the same task when nothing happens to it."""
    world = World(tmp_path_factory.mktemp("undisturbed")).model(DOUBLE)
    world.numbers("in/a.jsonl", range(COUNT // 2)).numbers("in/b/c.jsonl", range(COUNT // 2, COUNT))
    assert world.run().ok == COUNT
    return world.results()


def gated(world: World, **changes: object) -> dict[str, object]:
    return {"env": {"GATE": str(world.gate)}, "batch": {"size": 4}, **changes}


def finished(world: World, result: dict[str, object], undisturbed: dict[str, bytes]) -> None:
    assert (result["status"], result["ok"]) == ("SUCCEED", COUNT), result
    assert world.results() == undisturbed
    assert world.left_over() == []
    assert list((world.root / "scratch").iterdir()) == []


def test_an_instance_that_is_killed_is_replaced_and_nothing_shows(world: World, undisturbed: dict[str, bytes]) -> None:
    with world.process(**gated(world)) as running:
        first = running.agent()
        world.open_gate(150)
        until(lambda: len(world.seen()) >= 100, "a hundred records")
        first.kill()
        world.open_gate(COUNT)
        finished(world, running.result(), undisturbed)


def test_a_worker_that_is_killed_from_outside_shows_neither(world: World, undisturbed: dict[str, bytes]) -> None:
    with world.process(**gated(world)) as running:
        agent = running.agent()
        world.open_gate(100)
        until(lambda: len(world.seen()) >= 50, "fifty records")
        agent.children()[0].kill()
        world.open_gate(COUNT)
        finished(world, running.result(), undisturbed)


def test_killed_with_everything_it_goes_on_where_it_was(world: World, undisturbed: dict[str, bytes]) -> None:
    world.model(SLOW)
    with world.process(**gated(world)) as running:
        until(lambda: len(world.seen()) >= 200, "two hundred records")
        running.signal(signal.SIGKILL)
        until(lambda: not running.family(), "that its instances die with it")
    before = len(world.seen())
    with world.process(resume=True, **gated(world)) as again:
        finished(world, again.result(), undisturbed)
    # Two seconds of work were done, and parts are committed every 200 ms: most of it is not done again.
    assert len(world.seen()) - before < COUNT - 100
    assert sorted(set(world.seen())) == list(range(COUNT))


@pytest.mark.kill
@pytest.mark.parametrize("records", [0, 1, 60, 250, COUNT])
def test_killed_again_and_again_at_other_moments(world: World, undisturbed: dict[str, bytes], records: int) -> None:
    for times in range(3):
        with world.process(resume=times > 0, **gated(world)) as running:
            running.agent()
            world.open_gate(records)
            until(lambda: len(set(world.seen())) >= records, f"{records} records")
            running.signal(signal.SIGKILL)
            until(lambda: not running.family(), "that its instances die with it")
    world.open_gate(COUNT)
    with world.process(resume=True, **gated(world)) as last:
        finished(world, last.result(), undisturbed)


def test_ctrl_c_commits_what_is_computed_and_resume_computes_the_rest(
    world: World, undisturbed: dict[str, bytes]
) -> None:
    world.model(SLOW)
    with world.process(**gated(world)) as running:
        until(lambda: len(world.seen()) >= 100, "a hundred records")
        running.signal(signal.SIGINT)
        stopped = running.result()
        assert running.process.returncode == 0
        assert not running.family()
    assert (stopped["status"], stopped["reason"], stopped["resumable"]) == ("STOPPED", "interrupted", True)
    before = len(world.seen())
    assert before >= 100
    assert 0 <= before - stopped["ok"] <= 4  # at most the mini-batch in hand
    assert stopped["ok"] < COUNT
    with world.process(resume=True, **gated(world)) as again:
        finished(world, again.result(), undisturbed)
    assert len(world.seen()) - before == COUNT - stopped["ok"]


def test_a_second_ctrl_c_does_not_wait(world: World) -> None:
    with world.process(**gated(world)) as running:
        world.open_gate(50)
        until(lambda: len(world.seen()) >= 50, "fifty records")
        running.signal(signal.SIGINT)
        running.signal(signal.SIGTERM)
        stopped = running.result()
    assert stopped["status"] == "STOPPED"
    assert not running.family()


def test_ctrl_c_before_the_model_has_loaded(world: World) -> None:
    world.model(source("return 1", load="time.sleep(600)"))
    with world.process() as running:
        until(lambda: running.agent().children(), "a worker")
        running.signal(signal.SIGINT)
        stopped = running.result()
    assert (stopped["status"], stopped["ok"], stopped["resumable"]) == ("STOPPED", 0, False)
    assert not running.family()


def test_what_was_interrupted_at_once_begins_anew(world: World, undisturbed: dict[str, bytes]) -> None:
    with world.process(**gated(world)) as running:
        running.agent()
        running.signal(signal.SIGINT)
        assert running.result()["ok"] == 0
    world.open_gate(COUNT)
    with world.process(resume=True, **gated(world)) as again:
        finished(world, again.result(), undisturbed)


def test_two_instances_and_one_is_killed_often(world: World, undisturbed: dict[str, bytes]) -> None:
    world.model(SLOW)
    with world.process(**gated(world, instances=2, retries=5, resources={"cpu": "500m", "memory": "1Gi"})) as running:
        for records in (40, 120, 200):
            victim = running.agent()
            until(lambda enough=records: len(set(world.seen())) >= enough, f"{records} records")
            victim.kill()
            until(lambda gone=victim: not gone.is_running() or gone.status() == psutil.STATUS_ZOMBIE, "its end")
        finished(world, running.result(), undisturbed)


def lake(s3: S3Bucket, endpoint: str) -> dict[str, str]:
    """Variables that declare the bucket `lake` of the region."""
    section = {
        "URL": f"s3://{s3.bucket}",
        "ENDPOINT": endpoint,
        "ACCESS_KEY": s3.key,
        "SECRET_KEY": s3.secret,
        "REGION": s3.region,
    }
    return {f"TIDEMILL_REGIONS__LOCAL__BUCKETS__LAKE__{key}": value for key, value in section.items()}


def in_bucket(s3: S3Bucket, undisturbed: dict[str, bytes]) -> None:
    """The results are in the bucket's folder `out`, and nothing of the run is left beside them."""
    names = [seen.object_name or "" for seen in s3.client.list_objects(s3.bucket, "out/", recursive=True)]
    found = {name.removeprefix("out/"): s3.client.get_object(s3.bucket, name).read() for name in names}
    assert {name: found[name] for name in undisturbed} == undisturbed
    assert not any("_tidemill" in name for name in names)


def test_killed_between_buckets(world: World, s3: S3Bucket, undisturbed: dict[str, bytes]) -> None:
    world.model(SLOW)
    task = gated(world, output="s3://lake/out")
    with world.process(variables=lake(s3, s3.endpoint), **task) as running:
        until(lambda: len(world.seen()) >= 150, "a hundred and fifty records")
        running.signal(signal.SIGKILL)
        until(lambda: not running.family(), "that its instances die with it")
    with world.process(variables=lake(s3, s3.endpoint), resume=True, **task) as again:
        assert again.result()["ok"] == COUNT
    in_bucket(s3, undisturbed)


class Tap(BaseHTTPRequestHandler):
    """Hands requests on to the store, or answers 503 while it is shut."""

    protocol_version = "HTTP/1.1"
    store = ""
    shut = False
    refused = 0

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, text = 503, {}, b""
        if type(self).shut:
            type(self).refused += 1
        else:
            connection = HTTPConnection(self.store)
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            status, headers, text = answer.status, dict(answer.getheaders()), answer.read()
            connection.close()
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header(
            "Content-Length", headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(text))
        )
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET  # noqa: N815 - http.server asks for these names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's
        return


def test_a_storage_that_is_away_for_a_while_costs_nothing(
    world: World, s3: S3Bucket, undisturbed: dict[str, bytes]
) -> None:
    world.model(SLOW)
    handler = type("Handler", (Tap,), {"store": urlsplit(s3.endpoint).netloc})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as tap:
        tap.daemon_threads = True
        tap.block_on_close = False
        threading.Thread(target=tap.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        endpoint = f"http://127.0.0.1:{tap.server_port}"
        with world.process(variables=lake(s3, endpoint), **gated(world, output="s3://lake/out")) as running:
            until(lambda: len(world.seen()) >= 100, "a hundred records")
            handler.shut = True
            until(lambda: handler.refused >= 5, "five refused requests")
            handler.shut = False
            result = running.result()
        assert (result["status"], result["ok"]) == ("SUCCEED", COUNT), result
        tap.shutdown()
    in_bucket(s3, undisturbed)
