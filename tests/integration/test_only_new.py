"""Runs that compute only what is new since earlier results: deltas, merged views, and what is refused."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import S3Bucket
from tests.integration.local_world import DOUBLE, GATED, World, until
from tidemill.domain.errors import Conflict, InvalidValue, NotFound, Refused
from tidemill.domain.location import Location, parse_location
from tidemill.local import Result
from tidemill.objects.region import open_region
from tidemill.publishing.verifying import verify
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret

COUNTING = (
    DOUBLE.replace("def one(self, record):", "def one(self, record):\n            self.count(record)")
    + """
        def count(self, record):
            import os
            with open(os.environ["SEEN"], "a") as seen: seen.write(str(record["x"]) + "\\n")
"""
)


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


class Runs(World):
    """Runs over `in`, each into a folder of its own, with a model that notes what it is asked."""

    def into(self, out: str, since: str | None = None, output: str = "delta", **changes: Any) -> Result:
        only_new = {} if since is None else {"only_new": {"since": str(self.root / since), "output": output}}
        env = {"SEEN": str(self.root / f"{out}.seen")}
        asked = {"output": str(self.root / out), "env": env, "tolerance": "90%", **only_new}
        result = self.run(**{**asked, **changes})
        assert result.succeeded, result.explanation
        return result

    def asked(self, out: str) -> list[int]:
        path = self.root / f"{out}.seen"
        return sorted(map(int, path.read_text().split())) if path.exists() else []

    def made(self, out: str) -> dict[str, list[Any]]:
        """The results in a folder."""
        found = (self.root / out).glob("*.out.jsonl")
        return {
            path.name[: -len(".out.jsonl")]: [json.loads(line) for line in path.read_text().splitlines()]
            for path in sorted(found)
        }

    def receipt(self, out: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.root / out / "receipt.json").read_bytes())
        return found

    def names(self, path: str) -> list[str]:
        return [each["name"] for each in lines(self.root / path)]

    def verified(self, out: str) -> list[str]:
        objects = open_region({}, self.root, local_paths=True)
        found = verify(objects, Location("file", None, f"{self.root / out}/"))
        return [f"{each.name}: {each.what}" for each in found.differences]


@pytest.fixture
def world(tmp_path: Path) -> Runs:
    made = Runs(tmp_path)
    made.model(COUNTING)
    made.numbers("in/a.jsonl", [1, 2]).numbers("in/b.jsonl", [3, "x", 4]).numbers("in/b.a.jsonl", [5])
    made.numbers("in/c.jsonl", [6]).numbers("in/sub/d.jsonl", [7])
    (tmp_path / "in/c.jsonl").write_text('{"y": 6}\n')
    made.into("one")
    made.numbers("in/a.jsonl", [1, 2, 8]).numbers("in/e.jsonl", [9])
    (tmp_path / "in/sub/d.jsonl").unlink()
    return made


def test_a_delta_has_what_is_new_and_changed(world: Runs) -> None:
    result = world.into("two", "one")
    assert world.asked("two") == [1, 2, 8, 9]
    assert world.made("two") == {"a.jsonl": [2, 4, 16], "e.jsonl": [18]}
    assert "1 object new, 1 changed, 3 unchanged, 1 deleted" in result.explanation
    assert result.counts.inputs == 4
    since = world.receipt("two")["since"]
    assert (since["new"], since["changed"], since["unchanged"], since["deleted"]) == (1, 1, 3, 1)
    assert since["task"] == world.receipt("one")["task"]
    assert world.names("two/_inputs.jsonl") == ["a.jsonl", "b.a.jsonl", "b.jsonl", "c.jsonl", "e.jsonl"]
    assert world.names("two/_deleted.jsonl") == ["sub/d.jsonl"]
    assert world.verified("two") == []


def test_a_third_run_counts_from_the_second(world: Runs) -> None:
    world.into("two", "one")
    world.numbers("in/f.jsonl", [10])
    world.into("three", "two")
    assert world.asked("three") == [10]
    assert world.made("three") == {"f.jsonl": [20]}


def test_a_merged_view_is_what_one_run_over_all_would_make(world: Runs) -> None:
    world.into("two", "one", "merged")
    assert world.asked("two") == [1, 2, 8, 9]
    world.into("all")
    assert world.made("two") == world.made("all")
    for name in ("errors.jsonl", "_inputs.jsonl"):
        assert (world.root / "two" / name).read_bytes() == (world.root / "all" / name).read_bytes()
    lists = [(world.root / out / "_SUCCESS").read_bytes().partition(b"\n")[2] for out in ("two", "all")]
    assert lists[0] == lists[1]
    assert world.receipt("two")["counts"] == world.receipt("all")["counts"]
    assert world.verified("two") == []
    world.numbers("in/f.jsonl", [10])
    (world.root / "in/b.jsonl").unlink()
    result = world.into("three", "two", "merged")
    assert world.asked("three") == [10]
    assert list(world.made("three")) == ["a.jsonl", "b.a.jsonl", "c.jsonl", "e.jsonl", "f.jsonl"]
    assert result.counts.failed == world.receipt("three")["counts"]["failed"] == 1
    assert [each["object"] for each in result.errors()] == ["c.jsonl"]
    assert world.verified("three") == []


def test_nothing_new_computes_nothing(world: Runs) -> None:
    world.into("two", "one", "merged")
    result = world.into("three", "two")
    assert "Nothing is new since" in result.explanation
    assert (result.counts.inputs, world.made("three"), world.verified("three")) == (0, {}, [])
    world.into("four", "two", "merged")
    assert (world.made("four"), world.asked("four"), world.verified("four")) == (world.made("two"), [], [])


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_taken_over(world: Runs, kind: str) -> None:
    world.into("old", format={"result": kind})
    world.numbers("in/f.jsonl", [10])
    world.into("new", "old", "merged", format={"result": kind})
    assert world.asked("new") == [10]
    assert len(list((world.root / "new").glob(f"*.out.{kind}"))) == 6
    assert world.verified("new") == []


def test_files_of_their_own_are_taken_over_also_where_some_failed(world: Runs) -> None:
    world.model("""
        class Model:
            def load(self): return True
            def predict(self, path):
                text = open(path, "rb").read()
                if b"y" in text: raise ValueError("bad")
                return text.upper()
    """)
    form = {"type": "file", "result": {"type": "file", "layout": "per_object"}}
    world.into("old", format=form)
    world.file("in/bb.jsonl", "q")
    world.into("new", "old", "merged", format=form)
    assert (world.root / "new/bb.jsonl.out").read_bytes() == b"Q"
    assert world.receipt("new")["counts"] == {"inputs": 6, "ok": 5, "failed": 1, "skipped": 0}
    assert [json.loads(line)["object"] for line in (world.root / "new/errors.jsonl").read_text().splitlines()] == [
        "c.jsonl"
    ]
    assert world.verified("new") == []


def refused(
    world: Runs, error: type[Refused], match: str, since: str = "one", output: str = "merged", **changes: Any
) -> None:
    with pytest.raises(error, match=match):
        world.into("two", since, output, **changes)
    assert not list((world.root / "two").glob("*"))


def test_what_cannot_be_counted_from_is_refused(world: Runs) -> None:
    (world.root / "empty").mkdir()
    refused(world, NotFound, "there is no folder", since="nowhere")
    refused(world, NotFound, "no finished results", since="empty")
    with pytest.raises(InvalidValue, match="contains the output"):
        world.run(output=str(world.root / "one"), only_new=str(world.root / "one"))
    (world.root / "one/_inputs.jsonl").write_text("")
    refused(world, Conflict, "receipt beside it", output="delta")
    (world.root / "one/_inputs.jsonl").unlink()
    refused(world, NotFound, "_inputs.jsonl", output="delta")
    with (world.root / "one/receipt.json").open("a") as receipt:
        receipt.write(" ")
    refused(world, InvalidValue, "receipt.json", output="delta")


def test_what_cannot_be_merged_is_refused(world: Runs) -> None:
    refused(world, Conflict, "another format.result than", format={"result": "csv"})
    refused(world, InvalidValue, "layout single cannot be merged", format={"result": {"layout": "single"}})
    world.into("delta", "one")
    refused(world, InvalidValue, "holds a delta: 3 objects", since="delta")
    world.file("model/batch/more.py", "# another")
    refused(world, Conflict, "another model")
    world.into("three", "one")  # a delta may be of another model
    assert world.asked("three") == [1, 2, 8, 9]


def test_earlier_results_that_went_meanwhile(world: Runs) -> None:
    (world.root / "one/b.jsonl.out.jsonl").write_text("short")
    with pytest.raises(AssertionError, match="has 5 bytes, not"):
        world.into("two", "one", "merged")
    assert not (world.root / "two/_SUCCESS").exists()


def test_a_killed_run_goes_on_with_its_listing(world: Runs) -> None:
    world.model(GATED)
    world.open_gate(100)
    env = {"GATE": str(world.gate)}
    world.into("old", env=env)
    world.numbers("in/e.jsonl", [9]).numbers("in/f.jsonl", range(10, 40))
    world.open_gate(20)
    keys = {"env": env, "output": str(world.root / "new"), "tolerance": "90%"}
    keys["only_new"] = {"since": str(world.root / "old"), "output": "merged"}
    Path(f"{world.gate}.seen").unlink()
    with world.process(**keys) as process:
        until(lambda: len(world.seen()) >= 8, "some records")
        until(lambda: list((world.root / "new").rglob("parts/*")), "a part")
        process.signal(signal.SIGKILL)
        process.process.wait(30)
    world.open_gate(100)
    result = world.run(resume=True, **keys)
    assert result.succeeded, result.explanation
    world.into("all", env=env)
    assert world.made("new") == world.made("all")
    assert world.verified("new") == []


@pytest.mark.parametrize(
    ("point", "resume"),
    [(point, resume) for point in ("finish.merging", "finish.errors", "finish.receipt") for resume in (True, False)],
)
def test_a_merge_that_was_killed_is_finished(world: Runs, point: str, resume: bool) -> None:
    keys = {"env": {"SEEN": str(world.root / "two.seen")}, "output": str(world.root / "two"), "tolerance": "90%"}
    keys["only_new"] = {"since": str(world.root / "one"), "output": "merged"}
    with world.process(variables={"TIDEMILL_CRASH_AT": point}, **keys) as process:
        assert process.process.wait(60) == -signal.SIGKILL
    assert (world.root / "two/b.jsonl.out.jsonl").exists()
    if not resume:
        (world.root / "in/b.jsonl").unlink()
        keys["output"] = {"path": keys["output"], "if_exists": "replace"}
    result = world.run(resume=resume, **keys)
    assert result.succeeded, result.explanation
    assert list(world.made("two")) == [
        "a.jsonl", "b.a.jsonl", *(["b.jsonl"] if resume else []), "c.jsonl", "e.jsonl"
    ]  # fmt: skip
    assert world.verified("two") == []


@pytest.mark.parametrize("output", ["delta", "merged"])
def test_in_a_bucket(tmp_path: Path, s3: S3Bucket, output: str) -> None:
    section = BucketSection(
        url=f"s3://{s3.bucket}", endpoint=s3.endpoint, access_key=s3.key, secret_key=Secret(s3.secret), region=s3.region
    )
    world = Runs(tmp_path)
    world.bucket("data", section).model(COUNTING)
    objects = open_region({"data": section}, tmp_path, local_paths=True)

    def put(name: str, values: list[int]) -> None:
        text = "".join(json.dumps({"x": value}) + "\n" for value in values)
        objects.put(parse_location(f"cos://data/in/{name}", field="test"), text.encode())

    def run(out: str, since: str | None = None) -> list[str]:
        only_new = {"since": f"cos://data/{since}/", "output": output} if since else None
        env = {"SEEN": str(tmp_path / f"{out}.seen")}
        result = world.run(input="cos://data/in/", output=f"cos://data/{out}/", env=env, only_new=only_new)
        assert result.succeeded, result.explanation
        place = parse_location(f"cos://data/{out}/", field="test")
        assert verify(objects, place).good
        return [each.name for each in objects.list(place) if each.name.endswith(".out.jsonl")]

    put("a.jsonl", [1])
    put("b.jsonl", [2])
    run("one")
    put("b.jsonl", [3])
    put("c.jsonl", [4])
    found = run("two", "one")
    assert world.asked("two") == [3, 4]
    fresh = ["b.jsonl.out.jsonl", "c.jsonl.out.jsonl"]
    assert found == (fresh if output == "delta" else ["a.jsonl.out.jsonl", *fresh])
    assert run("three", "two") == ([] if output == "delta" else found)
    assert world.asked("three") == []
