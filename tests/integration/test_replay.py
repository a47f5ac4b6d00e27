"""One record of a finished task again: the same reader, model and encoder, and what the task left beside it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import select
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import S3Bucket
from tests.integration.environments_world import OFFLINE, package, wheel
from tests.integration.local_world import World
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.replaying.replay import Asked, Replayed, Verdict, replay
from tidemill.replaying.task import AskedFor
from tidemill.settings import BucketSection
from tidemill.wire.kinds import Secret
from tidemill.wire.taskfile import parse_task

DIVIDES = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            return [self.one(record["x"]) for record in batch]
        def one(self, x):
            tenth = 10 / x
            return {"tenth": tenth}
"""
MENDED = DIVIDES.replace("10 / x", "10 / x if x else 0.0")
Again = Callable[..., Replayed]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def again(world: World) -> Again:
    def again(record: str | None = None, **asked: Any) -> Replayed:
        return replay(Asked(str(world.root / "out"), record, **asked), world.settings)

    return again


@pytest.fixture
def divided(world: World) -> World:
    world.model(DIVIDES).numbers("in/a.jsonl", [1, 0, 4]).file("in/b.jsonl", '{"x": 2}\n\n{"x": 5}\nnone\n')
    assert world.run(tolerance=1.0).failed == 2
    return world


def test_a_record_that_failed_fails_the_same_at_the_same_place(divided: World, again: Again) -> None:
    for asked in ({"record": "a.jsonl:2"}, {"record": "a.jsonl line 2"}, {"error": 1}, {"record": "errors[1]"}):
        found = again(**asked)
        assert (found.verdict, found.place, found.input) == (Verdict.FAILS_THE_SAME, "a.jsonl:2", '{"x": 0}')
        assert found.failure is not None
        assert found.stored_failure is not None
        assert found.failure["traceback"] == found.stored_failure["traceback"]
        assert 'File "batch/model_service.py", line 7, in one' in found.failure["traceback"]
        assert not found.good


def test_a_record_that_cannot_be_read(divided: World, again: Again) -> None:
    found = again("b.jsonl:4")
    assert (found.verdict, found.input) == (Verdict.FAILS_THE_SAME, "none")
    assert found.failure is not None
    assert found.failure["fault"] == "decode_error"


def test_mended_code_is_tried(divided: World, again: Again) -> None:
    divided.model(MENDED, folder="mended")
    for folder in ("mended", "mended/batch"):
        found = again(error=1, code=str(divided.root / folder))
        assert (found.verdict, found.prediction, found.good) == (Verdict.RECOVERED, {"tenth": 0.0}, True)
        assert found.stored_failure is not None
        assert "mended/batch" in found.notes[0]


def test_code_that_would_not_be_called_is_refused(divided: World, again: Again) -> None:
    divided.file("other/helper.py", "")
    with pytest.raises(InvalidValue, match=r"no model_service\.py"):
        again(error=1, code=str(divided.root / "other"))


def test_good_records_are_the_same_also_after_blank_lines(divided: World, again: Again) -> None:
    for record, expected in (("a.jsonl:3", 2.5), ("b.jsonl:3", 2.0)):
        found = again(record)
        assert (found.verdict, found.prediction, found.notes) == (Verdict.SAME, {"tenth": expected}, [])
        assert found.stored is not None
        assert found.stored.prediction == {"tenth": expected}
        assert found.memory_bytes > 1 << 20
        assert set(found.seconds) == {"load_s", "predict_s"}


def test_numbers_that_moved_differ(divided: World, again: Again) -> None:
    divided.model(DIVIDES.replace("10 / x", "10 / x + 1e-3"), folder="other")
    other = str(divided.root / "other")
    assert again("a.jsonl:3", code=other).verdict is Verdict.DIFFERS
    near = again("a.jsonl:3", code=other, tolerance=0.01)
    assert near.verdict is Verdict.SAME
    assert near.apart == pytest.approx(1e-3)
    divided.model(DIVIDES.replace("10 / x", "10 / (x - 4)"), folder="other")
    assert again("a.jsonl:3", code=other).verdict is Verdict.FAILS_NOW


@pytest.mark.parametrize(
    ("record", "error", "words"),
    [
        ("a.jsonl:4", NotFound, "has 3 records: there is no number 4"),
        ("b.jsonl:2", InvalidValue, "blank line"),
        ("errors[3]", NotFound, "no failed record 3: 2 records failed"),
        ("c.jsonl:1", NotFound, "read no object 'c.jsonl'"),
        ("3", InvalidValue, "2 objects"),
        ("a.jsonl", InvalidValue, "names no record"),
        ("a.jsonl:0", InvalidValue, "counted from 1"),
    ],
)
def test_what_is_no_record_has_its_own_words(
    divided: World, again: Again, record: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words.replace("[", r"\[")):
        again(record)


def test_another_model_is_refused_unless_it_is_given_in_words(divided: World, again: Again) -> None:
    divided.model(MENDED)
    with pytest.raises(Conflict, match="is not the model that the task ran") as refused:
        again(error=1)
    assert "--model" in (refused.value.remedy or "")
    found = again(error=1, model=str(divided.root / "model"))
    assert found.verdict is Verdict.RECOVERED
    assert "is not the model that the task ran" in found.notes[0]
    with pytest.raises(NotFound, match="no folder"):
        again(error=1, model=str(divided.root / "nowhere"))


def test_an_input_that_changed_is_said(divided: World, again: Again) -> None:
    divided.numbers("in/a.jsonl", [1, 10, 4])
    found = again("a.jsonl:2")
    assert (found.input_changed, found.verdict, found.prediction) == (True, Verdict.RECOVERED, {"tenth": 1.0})
    assert "written again" in found.notes[0]
    (divided.root / "in" / "a.jsonl").unlink()
    with pytest.raises(NotFound, match="is gone"):
        again("a.jsonl:2")


def test_a_matrix_and_compressed_lines_where_there_is_one_object(world: World, again: Again) -> None:
    world.model("""
        import numpy as np
        class Model:
            def load(self): return True
            def predict(self, batch: np.ndarray): return batch.sum(axis=1)
    """)
    lines = "".join(json.dumps({"a": n, "b": n / 7}) + "\n" for n in range(1000))
    world.file("in/a.jsonl.gz", gzip.compress(lines.encode()))
    assert world.run().failed == 0
    found = again("778")
    assert (found.place, found.verdict, found.prediction) == ("a.jsonl.gz:778", Verdict.SAME, 777 + 777 / 7)


@pytest.mark.parametrize("result", ["jsonl", "csv", "parquet"])
def test_rows_of_csv_with_line_breaks_and_results_of_every_kind(world: World, again: Again, result: str) -> None:
    world.model("""
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [self.one(**record) for record in batch]
            def one(self, n, text): return {"words": len(text.split()), "share": 1 / n}
    """)
    world.file("in/a.csv", 'n,text\n1,"one\ntwo"\n0,bad\n3,"a ""b""\nc"\n')
    assert world.run(tolerance=1.0, format={"type": "csv", "result": {"type": result, "keys": ["n"]}}).failed == 1
    found = again("a.csv:3")
    assert (found.verdict, found.prediction) == (Verdict.SAME, {"words": 3, "share": 1 / 3})
    assert again("a.csv:2").verdict is Verdict.FAILS_THE_SAME
    assert again("a.csv row 1").verdict is Verdict.SAME


def test_rows_of_parquet(world: World, again: Again) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    world.model(DIVIDES).file("in/a.parquet", b"")
    parquet.write_table(pyarrow.table({"x": [2, 0, 5]}), world.root / "in" / "a.parquet", row_group_size=1)
    assert world.run(tolerance=1.0).failed == 1
    assert again("3").prediction == {"tenth": 2.0}
    assert again("3").verdict is Verdict.SAME
    assert again("2").verdict is Verdict.FAILS_THE_SAME
    with pytest.raises(NotFound, match="has 3 rows"):
        again("4")


def test_a_whole_file(world: World, again: Again) -> None:
    world.model("""
        from pathlib import Path
        class Model:
            def load(self): return True
            def predict(self, batch: list[Path]): return [int(path.read_text()) for path in batch]
    """)
    world.file("in/1.img", "1").file("in/2.img", "two").file("in/3.img", "3")
    assert world.run(tolerance=1.0, format="file").failed == 1
    assert (again("3.img").verdict, again("3.img").prediction) == (Verdict.SAME, 3)
    found = again(error=1)
    assert (found.place, found.verdict) == ("2.img", Verdict.FAILS_THE_SAME)


def test_results_that_are_files_are_compared_by_their_bytes(world: World, again: Again) -> None:
    world.model("""
        class Model:
            def load(self): return True
            def predict(self, batch: list[bytes]): return [each.upper() for each in batch]
    """)
    world.file("in/1.img", "one")
    assert world.run(format={"type": "file", "result": "file"}).failed == 0
    found = again("1.img")
    assert (found.verdict, found.prediction["bytes"]) == (Verdict.SAME, 3)


def test_one_result_for_all_cannot_be_compared(world: World, again: Again) -> None:
    world.model(DIVIDES).numbers("in/a.jsonl", [1, 2])
    assert world.run(format={"result": {"layout": "single"}}).failed == 0
    found = again("2")
    assert (found.verdict, found.prediction, found.good) == (Verdict.NOT_COMPARED, {"tenth": 5.0}, True)


@pytest.mark.parametrize(
    ("statement", "fault"), [("os._exit(9)", "crash"), ("time.sleep(60)", "timeout")], ids=["crash", "timeout"]
)
def test_a_record_that_kills_its_process(world: World, again: Again, statement: str, fault: str) -> None:
    world.model(f"""
        import os, time
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [{statement} if r["x"] == 2 else r["x"] for r in batch]
    """).numbers("in/a.jsonl", [1, 2, 3])
    assert world.run(tolerance=1.0, record_timeout=0.5).failed == 1
    found = again("2")
    assert found.failure is not None
    assert (found.verdict, found.failure["fault"]) == (Verdict.FAILS_THE_SAME, fault)
    assert again("3").verdict is Verdict.SAME


def test_a_model_that_does_not_load(divided: World, again: Again) -> None:
    divided.model(DIVIDES.replace("return True", "raise OSError('no weights')"), folder="broken")
    found = again("a.jsonl:1", code=str(divided.root / "broken"))
    assert found.failure is not None
    assert (found.verdict, found.failure["fault"]) == (Verdict.FAILS_NOW, "model_load_failed")
    assert "no weights" in found.failure["message"]


def test_a_command_that_reads_lines(world: World, again: Again) -> None:
    world.file(
        "code/half.py",
        """
import json, sys
for line in sys.stdin:
    print(10 // json.loads(line)["x"], flush=True)
""",
    )
    world.numbers("in/a.jsonl", [1, 0, 5])
    command = {"run": [sys.executable, "half.py"], "protocol": "lines"}
    assert world.run(tolerance=1.0, model=None, code=str(world.root / "code"), command=command).failed == 1
    assert (again("3").verdict, again("3").prediction) == (Verdict.SAME, 2)
    failed = again("2")
    assert failed.failure is not None
    assert failed.stored_failure is not None
    assert (failed.good, failed.failure["fault"]) == (False, failed.stored_failure["fault"])
    world.file("fixed/half.py", "import sys\nfor line in sys.stdin: print(7, flush=True)\n")
    assert again("2", code=str(world.root / "fixed")).prediction == 7


def test_a_function_and_what_it_imports(world: World, again: Again) -> None:
    world.file("code/own.py", "import other\ndef twice(x: dict): return other.factor() * x['x']\n")
    world.file("code/other.py", "def factor(): return 2\n").numbers("in/a.jsonl", [1, "a"])
    assert world.run(tolerance=1.0, model=None, code=str(world.root / "code"), function="own:twice").failed == 0
    assert (again("2").verdict, again("2").prediction) == (Verdict.SAME, "aa")
    world.file("fixed/other.py", "def factor(): return 3\n")
    found = again("2", code=str(world.root / "fixed"))
    assert (found.verdict, found.prediction) == (Verdict.DIFFERS, "aaa")


def test_between_buckets(world: World, s3: S3Bucket) -> None:
    key = Secret(s3.secret)
    world.bucket(
        "lake",
        BucketSection(
            url=f"s3://{s3.bucket}", endpoint=s3.endpoint, access_key=s3.key, secret_key=key, region=s3.region
        ),
    )
    for name, data in (("in/a.jsonl", b'{"x": 2}\n{"x": 0}\n'), ("in/b.jsonl", b'{"x": 5}\n')):
        s3.client.put_object(s3.bucket, name, io.BytesIO(data), len(data))
    world.model(DIVIDES)
    assert world.run(tolerance=1.0, input="cos://lake/in/", output="cos://lake/out/").failed == 1
    found = [replay(Asked("cos://lake/out/", f"{name}:1"), world.settings) for name in ("a.jsonl", "b.jsonl")]
    assert [(each.verdict, each.prediction, each.input_changed) for each in found] == [
        (Verdict.SAME, {"tenth": 5.0}, False),
        (Verdict.SAME, {"tenth": 2.0}, False),
    ]
    assert replay(Asked("cos://lake/out/", error=1), world.settings).verdict is Verdict.FAILS_THE_SAME


def test_the_environment_that_the_requirements_ask_for(world: World, again: Again) -> None:
    model = """
        import sys
        import first
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [[first.VERSION, sys.prefix, 1 / r["x"]] for r in batch]
    """
    folder = package(world.root / "model", f"{OFFLINE}first==1.0\n", textwrap.dedent(model))
    wheel(folder / "wheels", "first")
    world.numbers("in/a.jsonl", [1, 0])
    assert world.run(tolerance=1.0).failed == 1
    found = again("1")
    assert (found.verdict, found.prediction[0], found.notes) == (Verdict.SAME, "1.0", [])
    assert str(world.settings.data) in found.prediction[1]
    (folder / "requirements.txt").write_text(f"{OFFLINE}first>=1.0\n")
    notes = again("1", model=str(folder)).notes
    assert "is not the model" in notes[0]
    assert "environment of requirements is not the one" in notes[1]


def test_variables_have_no_values_in_the_receipt(world: World, again: Again, monkeypatch: pytest.MonkeyPatch) -> None:
    world.model("""
        import os
        class Model:
            def load(self): return True
            def predict(self, batch: list[dict]): return [os.environ["FACTOR"] for r in batch]
    """).numbers("in/a.jsonl", [1])
    assert world.run(env={"FACTOR": "hunter2"}).failed == 0
    assert "hunter2" not in (world.root / "out" / "receipt.json").read_text()
    monkeypatch.delenv("FACTOR", raising=False)
    lost = again("1")
    assert lost.verdict is Verdict.FAILS_NOW
    assert "without the variables FACTOR" in lost.notes[0]
    assert again("1", env={"FACTOR": "hunter2"}).verdict is Verdict.SAME
    told = AskedFor("t", parse_task(world.task(env={"FACTOR": "hunter2"})))
    assert again("1", task=told).verdict is Verdict.SAME
    monkeypatch.setenv("FACTOR", "hunter2")
    assert again("1").verdict is Verdict.SAME


def test_a_folder_without_results(world: World, again: Again) -> None:
    with pytest.raises(NotFound, match=r"no receipt\.json"):
        again("1")


def test_a_task_that_failed_is_replayed_by_what_was_asked_for(world: World, again: Again) -> None:
    world.model(DIVIDES).numbers("in/a.jsonl", [1, 0]).numbers("in/b.jsonl", [4]).numbers("in/c.txt", [0])
    asked = {"input": {"path": f"{world.root}/in/", "include": ["*.jsonl"]}}
    assert not world.run(tolerance=0, **asked).succeeded
    failed = {"object": "a.jsonl", "line": 2, "fault": "model_error"}
    task = AskedFor("t", parse_task(world.task(**asked)), errors=lambda: [failed])
    assert again("b.jsonl:1", task=task).verdict is Verdict.NOT_COMPARED
    found = again(error=1, task=task)
    assert found.failure is not None
    assert (found.place, found.failure["type"], found.good) == ("a.jsonl:2", "ZeroDivisionError", False)
    assert again("a.jsonl:2", task=replace(task, errors=tuple)).verdict is Verdict.FAILS
    with pytest.raises(NotFound, match="read no object"):
        again("c.txt:1", task=task)
    world.file("task.json", json.dumps(world.task(**asked)))
    done = subprocess.run(
        [sys.executable, "-m", "tidemill", "replay", str(world.root / "task.json"), "b.jsonl:1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "has not succeeded" in done.stderr) == (0, True)


def _command(world: World, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tidemill", "replay", str(world.root / "out"), *arguments]


def test_the_command_prints_one_document_and_exits_by_what_it_found(divided: World) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        done = subprocess.run(_command(divided, *arguments), capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    code, out = run("--error", "1", "--json")
    assert (code, json.loads(out)["verdict"]) == (1, "fails_the_same")
    code, out = run("a.jsonl:3")
    assert code == 0
    assert 'stored  {"tenth": 2.5}' in out
    assert run("a.jsonl:3", "--pdb")[0] == 2  # nobody is there to be asked


def test_the_debugger_opens_where_the_model_raises(divided: World) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execvpe(sys.executable, _command(divided, "--error", "1", "--pdb"), {**os.environ, "TERM": "dumb"})
    heard = _hear(terminal, "(Pdb) ")
    assert "ZeroDivisionError" in heard
    assert "tenth = 10 / x" in heard
    os.write(terminal, b"p 'x is', x\n")
    assert "('x is', 0)" in _hear(terminal, "(Pdb) ")
    os.write(terminal, b"q\n")
    assert "It FAILS as it did in the task." in _hear(terminal, "in the task.")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    os.close(terminal)


def _hear(terminal: int, until: str, within_s: float = 60.0) -> str:
    heard, deadline = "", time.monotonic() + within_s
    while until not in heard:
        assert select.select([terminal], [], [], deadline - time.monotonic())[0], heard
        heard += os.read(terminal, 4096).decode()
    return heard
