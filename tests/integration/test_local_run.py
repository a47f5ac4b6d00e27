"""`tidemill run` with real instances: what comes out, and what is refused before anything starts."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.conftest import S3Bucket
from tests.integration.local_world import GATED, World, source
from tidemill.domain.errors import InvalidValue, NotFound, OutputTaken, Refused, TidemillError
from tidemill.domain.life import Reason, TaskStatus
from tidemill.engines.machine import machine_resources
from tidemill.local import run
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_folder_in_predictions_out_and_nothing_left(world: World) -> None:
    world.model().numbers("in/a.jsonl", range(3000)).numbers("in/b/c.jsonl", range(5))
    result = world.run()
    assert (result.status, result.reason) == (TaskStatus.SUCCEED, Reason.FINISHED)
    assert (result.inputs, result.ok, result.failed, result.skipped) == (3005, 3005, 0, 0)
    assert world.read("a.jsonl.out.jsonl") == [2 * x for x in range(3000)]
    assert list(result.results()) == ["a.jsonl.out.jsonl", "b/c.jsonl.out.jsonl"]
    assert list(result.predictions()) == [2 * x for x in [*range(3000), *range(5)]]
    assert list(result.errors()) == []
    assert world.left_over() == []
    assert not result.resumable
    assert set(result.seconds) == {"queue", "environment", "start", "load", "predict", "publish", "total"}
    assert sum(result.seconds.values()) == pytest.approx(2 * result.seconds["total"])
    phases = list(dict.fromkeys(each.phase for each in world.shown))
    assert phases[0] == "planning" and phases[-1] == "finished"
    assert world.shown[-1].share == 1.0


def test_the_receipt_accounts_for_everything(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1, "bad", *range(300)])
    world.model(source("return r['x'] + 1"))
    result = world.run(tolerance=5)
    receipt = json.loads((world.root / "out/receipt.json").read_bytes())
    assert receipt["task"] == result.id
    assert receipt["counts"] == {"inputs": 302, "ok": 301, "failed": 1, "skipped": 0}
    assert len(receipt["model_sha256"]) == len(receipt["input"]["listing_sha256"]) == 64
    assert receipt["input"]["objects"] == 1
    assert set(receipt["phases_s"]) == {"queue", "environment", "start", "load", "predict", "publish"}


def test_poison_records_are_told_apart_and_named(world: World) -> None:
    world.model().numbers("in/a.jsonl", ["x" if n in (7, 1500) else n for n in range(2000)])
    world.file("in/b.jsonl", '{"x": 1}\nnot json\n\n{"x": 2}\n')
    world.model(DOUBLE_STRICT)
    result = world.run()
    assert (result.status, result.reason) == (TaskStatus.SUCCEED, Reason.FINISHED_WITH_FAILED_RECORDS)
    assert result.headline == "SUCCEED WITH 3 FAILED RECORDS"
    assert (result.inputs, result.failed, result.skipped) == (2004, 3, 1)
    assert world.read("a.jsonl.out.jsonl")[6:9] == [12, None, 16]
    assert world.read("b.jsonl.out.jsonl") == [2, None, 4]
    errors = list(result.errors())
    assert [(e["object"], e["line"], e["fault"]) for e in errors] == [
        ("a.jsonl", 8, "model_error"),
        ("a.jsonl", 1501, "model_error"),
        ("b.jsonl", 2, "decode_error"),
    ]
    assert "poison" in errors[0]["message"] and "model_service.py" in errors[0]["traceback"]
    page = result._repr_html_()
    assert "3 FAILED RECORDS" in page and "a.jsonl line 8" in page


DOUBLE_STRICT = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            if any(isinstance(r["x"], str) for r in batch): raise ValueError("poison <here>")
            return [r["x"] * 2 for r in batch]
"""


def test_names_as_people_have_them(world: World) -> None:
    names = ["一 二.jsonl", "100%.jsonl", "a#b.jsonl", "c+d.jsonl", "sub folder/e f.jsonl", "q?.jsonl", "e=m&c.jsonl"]
    world.model()
    for at, name in enumerate(names):
        world.numbers(f"in/{name}", [at])
    world.file("in/empty.jsonl", b"")
    world.file("in/_SUCCESS", b"").file("in/.hidden", b"x").file("in/_logs/x.jsonl", b"x")
    result = world.run()
    assert result.ok == len(names)
    for at, name in enumerate(names):
        assert world.read(f"{name}.out.jsonl") == [2 * at]
    assert world.read("empty.jsonl.out.jsonl") == []
    assert len(list(result.results())) == len(names) + 1


def test_one_object_and_a_choice_of_objects(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1]).numbers("in/b.jsonl", [2]).numbers("in/deep/c.jsonl", [3])
    assert world.run(input=str(world.root / "in/a.jsonl")).ok == 1
    assert list(world.results()) == ["a.jsonl.out.jsonl", "errors.jsonl"]
    chosen = {"path": str(world.root / "in"), "include": ["*.jsonl"], "exclude": ["b.*"]}
    result = world.run(input=chosen, output=str(world.root / "out2"))
    assert list(result.results()) == ["a.jsonl.out.jsonl", "deep/c.jsonl.out.jsonl"]


def test_files_as_records_and_several_instances(world: World) -> None:
    world.model(source("return len(open(path, 'rb').read())", "path: str"))
    for number in range(150):
        world.file(f"in/{number:03d}.png", b"\x89PNG" + b"x" * number)
    result = world.run(instances=2)
    assert result.ok == 150
    assert list(result.results()) == ["part-00000.jsonl"]
    assert world.read("part-00000.jsonl") == [
        {"path": f"{number:03d}.png", "prediction": number + 4} for number in range(150)
    ]


def test_csv_text_and_compressed_input(world: World) -> None:
    world.model(source("return [int(r['a']) + int(r['b']) for r in batch]", "batch: list[dict]"))
    world.file("in/t.csv", "a;b\n1;2\n3;4\n")
    assert world.run().ok == 2
    assert world.read("t.csv.out.jsonl") == [3, 7]
    world.model()
    world.file("zip/t.jsonl.gz", gzip.compress(b'{"x": 4}\n{"x": 5}\n'))
    assert world.run(input=str(world.root / "zip"), output=str(world.root / "out2")).ok == 2
    world.model(source("return [len(t) for t in batch]", "batch: list[str]"))
    world.file("txt/t.txt", "ab\nabc\n")
    result = world.run(input=str(world.root / "txt"), output=str(world.root / "out3"))
    assert list(result.predictions()) == [2, 3]


def test_a_model_that_always_fails_ends_the_run_early_and_says_why(world: World) -> None:
    world.model(source("raise KeyError('colour')", "batch: list[dict]"))
    world.numbers("in/a.jsonl", range(200_000))
    result = world.run()
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.MODEL_ALWAYS_FAILS)
    assert "KeyError: 'colour'" in result.explanation
    errors = list(result.errors())
    assert len(errors) == result.failed
    assert {(error["object"], error["type"]) for error in errors} == {("a.jsonl", "KeyError")}
    assert [error["line"] for error in errors][:100] == list(range(1, 101))
    assert result.inputs < 500
    assert not result.resumable
    assert not (world.root / "out/_SUCCESS").exists()
    world.model()  # mended, it begins anew, with or without --resume
    again = world.run(resume=True)
    assert again.status is TaskStatus.SUCCEED and again.id != result.id


def test_few_records_that_all_fail_are_a_failure_too(world: World) -> None:
    world.model(source("1 / 0")).numbers("in/a.jsonl", [1, 2])
    result = world.run(tolerance="100%")
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.MODEL_ALWAYS_FAILS)


def test_tolerance_decides_and_a_higher_one_goes_on(world: World) -> None:
    world.model(DOUBLE_STRICT).numbers("in/a.jsonl", ["bad" if n % 20 == 0 else n for n in range(1000)])
    result = world.run()
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.TOO_MANY_FAILED_RECORDS)
    assert "poison" in result.explanation
    assert result.resumable
    assert len(list(result.errors())) == 50
    resumed = world.run(resume=True, tolerance="5%")
    assert (resumed.status, resumed.failed, resumed.id) == (TaskStatus.SUCCEED, 50, result.id)
    assert world.left_over() == []


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (source("return 1", load="return False"), Reason.MODEL_LOAD_FAILED),
        (source("return 1", load="raise OSError('no weights')"), Reason.MODEL_LOAD_FAILED),
        (source("return 1", head="import no_such_module_at_all"), Reason.MISSING_MODULE),
    ],
)  # fmt: skip
def test_models_that_do_not_load(world: World, model: str, reason: Reason) -> None:
    world.model(model).numbers("in/a.jsonl", [1])
    result = world.run()
    assert (result.status, result.reason) == (TaskStatus.FAILED, reason)
    assert result.inputs == 0 and not result.resumable


def test_an_instance_that_crashes_is_replaced_and_then_given_up(world: World) -> None:
    world.model(source("return 1", head="os.kill(os.getppid(), signal.SIGKILL)"))
    world.numbers("in/a.jsonl", [1])
    result = world.run(retries=1)
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.CRASHED)
    assert "SIGKILL" in result.explanation


def test_a_deadline_stops_and_keeps(world: World) -> None:
    world.model(source("time.sleep(0.02); return r['x']"))
    world.numbers("in/a.jsonl", range(300))
    result = world.run(deadline="1.5s")
    assert (result.status, result.reason) == (TaskStatus.STOPPED, Reason.DEADLINE)
    assert 0 < result.ok < 300
    assert result.resumable
    with pytest.raises(OutputTaken, match="unfinished run"):
        world.run()
    resumed = world.run(resume=True)
    assert (resumed.status, resumed.ok, resumed.id) == (TaskStatus.SUCCEED, 300, result.id)
    assert json.loads((world.root / "out/receipt.json").read_bytes())["runs"] == [f"{result.id}-r1", f"{result.id}-r2"]


def test_an_unfinished_run_can_be_replaced(world: World) -> None:
    world.model(source("time.sleep(0.02); return r['x']"))
    world.numbers("in/a.jsonl", range(300)).numbers("in/b.jsonl", [1])
    first = world.run(deadline="1s")
    (world.root / "in/a.jsonl").unlink()
    again = world.run(output={"path": str(world.root / "out"), "if_exists": "replace"})
    assert (again.status, again.ok) == (TaskStatus.SUCCEED, 1)
    assert again.id != first.id
    assert list(world.results()) == ["b.jsonl.out.jsonl", "errors.jsonl"]


def test_what_changed_since_is_named(world: World) -> None:
    world.model(source("time.sleep(0.02); return r['x']"))
    world.numbers("in/a.jsonl", range(300)).numbers("in/b.jsonl", range(10))
    assert world.run(deadline="1s").resumable
    before = (world.root / "in/b.jsonl").stat()
    world.numbers("in/b.jsonl", range(11)).numbers("in/c.jsonl", [1])
    with pytest.raises(TidemillError, match=r"'b\.jsonl' was rewritten, 'c\.jsonl' is new"):
        world.run(resume=True)
    (world.root / "in/c.jsonl").unlink()
    (world.root / "in/b.jsonl").unlink()
    with pytest.raises(TidemillError, match=r"'b\.jsonl' is gone"):
        world.run(resume=True)
    assert before.st_size
    with pytest.raises(TidemillError, match=r"format.result"):
        world.run(resume=True, format={"result": {"form": "joined"}})


def test_another_model_is_told_from_a_copy_of_the_same(world: World) -> None:
    world.model(source("time.sleep(0.02); return r['x']"))
    world.numbers("in/a.jsonl", range(200))
    assert world.run(deadline="1s").resumable
    entry = world.root / "model/batch/model_service.py"
    before = entry.read_text()
    entry.write_text(before + "# other\n")
    with pytest.raises(TidemillError, match="the model is not the one"):
        world.run(resume=True)
    entry.write_text(before)  # as new a file, but with the same bytes
    assert world.run(resume=True).ok == 200


def test_an_input_that_changes_while_it_is_read_ends_the_run(world: World) -> None:
    world.model(
        """
        import os
        class Model:
            def load(self):
                os.utime(os.environ["VICTIM"], (1, 1))
                return True
            def predict(self, r: dict): return 1
        """
    )
    world.numbers("in/a.jsonl", range(10)).numbers("in/b.jsonl", range(10))
    result = world.run(env={"VICTIM": str(world.root / "in/b.jsonl")})
    assert (result.status, result.reason) == (TaskStatus.FAILED, Reason.INPUT_CHANGED)
    assert "b.jsonl" in result.explanation


def test_other_results_are_not_overwritten_unless_asked_to(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1])
    world.run()
    with pytest.raises(OutputTaken, match=r"output\.path: .*holds other objects"):
        world.run()
    with pytest.raises(OutputTaken):
        world.run(resume=True)
    world.numbers("in/a.jsonl", [5])
    assert world.run(output={"path": str(world.root / "out"), "if_exists": "replace"}).ok == 1
    assert world.read("a.jsonl.out.jsonl") == [10]


def test_a_run_that_was_killed_when_all_was_done_is_cleared_up_after(world: World) -> None:
    """The marker stands, the claim and the journal too; what stands is never computed or overwritten again."""
    world.model().numbers("in/a.jsonl", [1])
    crash = {"TIDEMILL_CRASH_AT": "finish.marked"}
    for resume in (False, True):
        with world.process(variables=crash) as dying:
            assert dying.process.wait(60) == -signal.SIGKILL
        assert (world.root / "out/_SUCCESS").exists()
        before = world.results()
        if resume:
            assert world.run(resume=True).status is TaskStatus.SUCCEED
        else:
            with pytest.raises(OutputTaken, match="holds other objects"):
                world.run()
        assert world.left_over() == []
        assert world.results() == before
        shutil.rmtree(world.root / "out")


def test_instances_are_as_many_as_the_machine_holds(world: World) -> None:
    world.model().numbers("in/a.jsonl", range(10))
    cores = machine_resources().millicores // 1000
    assert world.run(instances=1000, resources={"cpu": cores}).ok == 10
    assert {each.instances for each in world.shown} == {1}


def test_a_servers_claim_is_respected(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1]).file("out/_tidemill/claim.json", '{"task":"batch-x","run":"batch-x-r1"}')
    for resume in (False, True):
        with pytest.raises(OutputTaken, match="batch-x"):
            world.run(resume=resume)
    assert world.left_over() == ["claim.json"]


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"input": "nowhere/"}, InvalidValue, "input.path: there is no folder"),
        ({"input": "nowhere.jsonl"}, InvalidValue, "input.path: there is nothing at"),
        ({"input": "void"}, InvalidValue, "is empty"),
        ({"input": "marks/"}, InvalidValue, "begin with `_` or `.`"),
        ({"input": "zeros/"}, InvalidValue, "every object is empty"),
        ({"input": {"path": "in/", "include": ["*.csv"]}}, InvalidValue, "input.include: of 1 objects"),
        ({"input": {"path": "in/", "exclude": ["*"]}}, InvalidValue, "input.exclude: of 1 objects"),
        ({"input": {"path": "in/a.jsonl", "include": ["*"]}}, InvalidValue, "one object"),
        ({"output": "in/out"}, InvalidValue, "output.path: .* lies inside the input"),
        ({"output": "."}, InvalidValue, "output.path: .* has the input .* inside"),
        ({"output": "in"}, InvalidValue, "output.path: .* is the input itself"),
        ({"output": "link/out"}, InvalidValue, "lies inside the input"),
        ({"output": "in/a.jsonl/out"}, TidemillError, "output.path"),
        ({"output": "ftp://x/y"}, InvalidValue, "scheme 'ftp'"),
        ({"input": "mixed/"}, InvalidValue, r"format: the input mixes formats: 'a\.jsonl' and 'b\.csv'"),
        ({"input": "riddle/"}, InvalidValue, r"format\.type: cannot tell the format of 'x\.log'"),
        ({"input": "document.json"}, InvalidValue, "one JSON document"),
        ({"format": {"columns": ["y"]}}, InvalidValue, r"format\.columns: the input has no column 'y'. It has 'x'"),
        ({"format": {"result": {"keys": ["prediction"]}}}, InvalidValue, "own key"),
        ({"format": {"result": {"type": "file"}}}, InvalidValue, "format.result.type"),
        ({"model": "churn@2"}, InvalidValue, "no model repository"),
        ({"model": "./nowhere"}, NotFound, "model: there is no folder"),
        ({"model": "in/"}, InvalidValue, "model: the model has no model_service.py"),
        ({"model": "broken"}, InvalidValue, r"model_service.py, line 2"),
        ({"model": "classless"}, InvalidValue, "no class"),
        ({"image": "python:3"}, InvalidValue, "image: "),
        ({"secrets": ["token"]}, InvalidValue, "secrets: "),
        ({"resources": {"gpu": 1}}, InvalidValue, r"resources\.gpu"),
        ({"command": "sh run.sh"}, InvalidValue, "command: "),
        ({"resources": {"cpu": 1000}}, InvalidValue, r"resources\.cpu: 1000 cores are more than"),
        ({"resources": {"memory": "8Ti"}}, InvalidValue, r"resources\.memory: 8192.0 GiB are more than"),
        ({"region": "mars"}, InvalidValue, "region: there is no region 'mars'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_before_anything_starts(
    world: World, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], error: type[TidemillError], told: str
) -> None:
    world.model().numbers("in/a.jsonl", [1]).file("zeros/a.jsonl", b"").file("marks/_SUCCESS", b"")
    world.numbers("mixed/a.jsonl", [1]).file("mixed/b.csv", "a,b\n1,2\n").file("riddle/x.log", "hello\n")
    world.file("document.json", '{\n "a": 1\n}\n').model("def f(:\n", "broken").model("x = 1\n", "classless")
    world.file("broken/batch/model_service.py", "class Model:\n    def load(self: return\n")
    (world.root / "void").mkdir()
    (world.root / "link").symlink_to(world.root / "in")
    monkeypatch.chdir(world.root)
    with pytest.raises(error, match=told):
        world.run(**changes)
    assert not list(world.root.glob("**/_tidemill"))
    assert issubclass(error, Refused) or error is TidemillError


def test_an_output_that_cannot_be_written(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1]).file("wall", b"")
    with pytest.raises(TidemillError, match=r"output\.path"):
        world.run(output=str(world.root / "wall/out"))


def test_two_runs_at_once_cannot_meet(world: World) -> None:
    world.model(GATED).numbers("in/a.jsonl", range(10))
    with world.process(env={"GATE": str(world.gate)}) as first:
        first.agent()
        for resume in (False, True):
            with pytest.raises(OutputTaken, match=f"process {first.process.pid}"):
                world.run(resume=resume, env={"GATE": str(world.gate)})
        world.open_gate(10)
        assert first.result()["ok"] == 10


def test_the_environment_is_small_and_has_what_the_task_gives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("TIDEMILL_CLIENT__SECRET_KEY", "hush")
    world.model(source("return [dict(os.environ)]"))
    world.numbers("in/a.jsonl", [1])
    result = world.run(env={"COLOUR": "blau"})
    ((seen,),) = list(result.predictions())
    assert seen["COLOUR"] == "blau" and seen["PATH"] == os.environ["PATH"]
    assert "hush" not in str(seen)


def test_from_bucket_to_bucket(world: World, s3: S3Bucket) -> None:
    section = BucketSection(
        url=f"s3://{s3.bucket}", endpoint=s3.endpoint, access_key=s3.key, secret_key=Secret(s3.secret), region=s3.region
    )
    world.bucket("lake", section).model()
    for name, values in (("in/一 %#+.jsonl", range(2000)), ("in/deep/b.jsonl", [7]), ("in/empty.jsonl", [])):
        data = "".join(json.dumps({"x": value}) + "\n" for value in values).encode()
        s3.client.put_object(s3.bucket, name, io.BytesIO(data), len(data))
    result = world.run(input="cos://lake/in/", output="cos://lake/out/")
    assert (result.status, result.ok) == (TaskStatus.SUCCEED, 2001)
    assert list(result.results()) == ["deep/b.jsonl.out.jsonl", "empty.jsonl.out.jsonl", "一 %#+.jsonl.out.jsonl"]
    assert list(result.predictions()) == [14, *(2 * x for x in range(2000))]
    names = {seen.object_name for seen in s3.client.list_objects(s3.bucket, "out/", recursive=True)}
    assert not any("_tidemill" in str(name) for name in names)
    with pytest.raises(OutputTaken):
        world.run(input="cos://lake/in/", output="s3://lake/out/")
    assert not list((world.root / "data").glob("runs/*/*"))
    mixed = world.run(input="cos://lake/in/", output=str(world.root / "out"))
    assert mixed.ok == 2001


def test_overrides_and_task_files(world: World) -> None:
    world.model().numbers("in/a.jsonl", [1])
    world.file("task.yaml", "name: t\nmodel: model\ninput: in/\noutput: out\n")
    assert run(world.root / "task.yaml", settings=world.settings).output == str(world.root / "out") + "/"
    result = run(world.root / "task.yaml", settings=world.settings, output=str(world.root / "out2"))
    assert result.output == str(world.root / "out2") + "/"
    assert json.dumps(result.to_json())
