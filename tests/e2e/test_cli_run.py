"""`tidemill run` as people use it: a process, its exit status, what it prints where. Nothing of it is imported here."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TIDEMILL = Path(sys.executable).parent / "tidemill"
MODEL = """\
class Model:
    def load(self):
        self.words = {"good": 1, "great": 2, "bad": -1}

    def predict(self, batch):
        return [sum(self.words.get(word, 0) for word in record["text"].split()) for record in batch]
"""
SLOW = """\
import time

class Model:
    def load(self):
        pass

    def predict(self, batch):
        time.sleep(0.005 * len(batch))
        return [record["n"] for record in batch]
"""
LOADS_NOTHING = """\
class Model:
    def load(self):
        print("looking for weights")
        raise OSError("no weights")

    def predict(self, batch):
        return batch
"""
REVIEWS = '{"text": "a good day"}\n{"text": "bad, really bad"}\n\n{"text": "great"}\n'


class Place:
    """A folder of its own with a home of its own, as a new user has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir()
        self.env = {
            "HOME": str(folder / "home"),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "COLUMNS": "100",
        }

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def listing(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if "__pycache__" not in path.parts)

    def tidemill(self, *arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TIDEMILL, *arguments],
            cwd=self.folder,
            env=self.env | env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str, status: int = 0) -> Any:
        done = self.tidemill(*arguments, "--json")
        assert done.returncode == status, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("model/batch/model_service.py", MODEL)
    made.write("in/reviews.jsonl", REVIEWS)
    return made


@pytest.fixture
def slow(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.write("model/batch/model_service.py", SLOW)
    made.write("in/numbers.jsonl", "".join(f'{{"n": {n}}}\n' for n in range(1000)))
    return made


def until(look: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


RUN = ("run", "--model", "model", "--input", "in/", "--output", "out/")


def test_a_first_run_says_what_came_of_it(place: Place) -> None:
    done = place.tidemill(*RUN)
    assert done.returncode == 0, done.stderr
    assert (place.folder / "out/reviews.jsonl.out.jsonl").read_text().split() == ["1", "-1", "2"]
    assert "SUCCEED" in done.stdout
    assert "4 = 3 ok + 0 failed + 1 skipped" in done.stdout
    assert "model-in" in done.stdout
    assert "predicting" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_json_is_one_object_on_standard_output(place: Place) -> None:
    end = place.json(*RUN)
    assert set(end) == {
        "id",
        "status",
        "reason",
        "explanation",
        "inputs",
        "ok",
        "failed",
        "skipped",
        "output",
        "seconds",
        "tuning",
    }
    assert (end["status"], end["reason"]) == ("SUCCEED", "finished")
    assert (end["inputs"], end["ok"], end["failed"], end["skipped"]) == (4, 3, 0, 1)
    assert end["output"] == f"{place.folder}/out/"
    assert set(end["seconds"]) == {"queue", "environment", "start", "load", "predict", "publish", "total"}


def test_a_place_that_is_not_there_is_named(place: Place) -> None:
    for arguments, field in ((("receipt", "verify", "out"), "FOLDER"), (("diff", "in", "out"), "AFTER")):
        done = place.tidemill(*arguments)
        assert done.returncode == 2
        assert f"refused: {field}: there is no folder or file 'out' here" in " ".join(done.stderr.split())


def test_quiet_says_nothing_on_the_side(place: Place) -> None:
    done = place.tidemill(*RUN, "--quiet", "--json")
    assert done.stderr == ""
    json.loads(done.stdout)


def test_a_file_with_flags_over_it(place: Place) -> None:
    place.write("jobs/task.yaml", "name: 评论\nmodel: ../model\ninput: ../in/\noutput: ../out/\ntolerance: 0\n")
    end = place.json("run", "jobs/task.yaml", "--output", "elsewhere")
    assert end["output"] == f"{place.folder}/elsewhere/"
    assert "评论" in place.tidemill("run", "-f", "jobs/task.yaml").stdout
    stdin = "model: model\ninput: in/\noutput: out-3\n"
    assert place.tidemill("run", "-", stdin=stdin).returncode == 0


def test_success_with_failed_records_is_said_loudly(place: Place) -> None:
    place.write("in/reviews.jsonl", REVIEWS + '{"no": "text"}\n')
    done = place.tidemill(*RUN, "--tolerance", "50%")
    assert done.returncode == 0
    assert "SUCCEED WITH 1 FAILED RECORD" in done.stdout
    assert "reviews.jsonl line 5: KeyError: 'text'" in done.stdout
    done = place.tidemill("run", "--model", "model", "--input", "in/", "--output", "o2", "--tolerance", "1", "--json")
    assert json.loads(done.stdout)["reason"] == "finished_with_failed_records"
    assert "SUCCEED WITH 1 FAILED RECORD" in done.stderr


def test_a_failed_task_is_exit_status_1_and_says_why(place: Place) -> None:
    place.write("in/reviews.jsonl", REVIEWS + '{"no": "text"}\n')
    done = place.tidemill(*RUN)
    assert done.returncode == 1
    assert "FAILED" in done.stdout and "KeyError: 'text'" in done.stdout
    assert "--resume" in done.stderr
    end = place.json(*RUN, "--resume", status=1)
    assert (end["status"], end["reason"]) == ("FAILED", "too_many_failed_records")


def refused(place: Place, *arguments: str, **env: str) -> str:
    """What is said about a request that is refused; it leaves nothing behind."""
    before = place.listing()
    done = place.tidemill(*arguments, **env)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("refused: "), done.stderr
    assert "Traceback" not in done.stderr
    assert place.listing() == before
    return done.stderr


def test_a_run_that_failed_names_its_log_and_keeps_it(place: Place) -> None:
    place.write("model/batch/model_service.py", LOADS_NOTHING)
    done = place.tidemill(*RUN)
    assert done.returncode == 1
    (log,) = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith("  log ")]
    text = Path(log).read_text()
    assert "looking for weights" in text
    assert "OSError: no weights" in text
    assert "Loading the model failed: the model could not be loaded: OSError: no weights." in done.stdout
    assert Path(place.json(*RUN, status=1)["log"]).read_text()


def test_failed_records_are_grouped_by_cause(place: Place) -> None:
    lines = ["{}", '{"text": 7}', *['{"text": "good"}'] * 300, "{}", "{}"]
    place.write("in/reviews.jsonl", "\n".join(lines) + "\n")
    done = place.tidemill(*RUN, "--tolerance", "10%")
    assert done.returncode == 0, done.stderr
    told = done.stdout[done.stdout.index("  failed ") :].splitlines()
    assert told[0] == "  failed   3 × KeyError: 'text'"
    assert told[1] == "           the first: reviews.jsonl line 1"
    assert told[2].startswith("  failed   reviews.jsonl line 2: AttributeError: ")
    assert f"{place.folder}/out/errors.jsonl" in done.stderr


def test_no_task(place: Place) -> None:
    assert "--model DIR --input PATH" in refused(place, "run")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--input", "nothing/"), ["input", "nothing"]),
        (("--input", "empty/"), ["input", "empty"]),
        (("--output", "taken"), ["output", "taken", "replace"]),
        (("--output", "in/out"), ["output", "input"]),
        (("--output", "/proc/out"), ["output", "/proc"]),
        (("--model", "nothing"), ["model", "nothing"]),
        (("--model", "no-entry"), ["model", "model_service.py"]),
        (("--model", "syntax"), ["model", "model_service.py", "line 2"]),
        (("--model", "no-class"), ["model", "class"]),
        (("--name", "_a"), ["--name", "'_a'"]),
        (("--memory", "4 apples"), ["--memory", "4Gi"]),
        (("--cpu", "0"), ["--cpu", "0.1"]),
        (("--instances", "0"), ["--instances", "1 to 10,000"]),
        (("--format", "cvs"), ["--format", "'csv'"]),
        (("--tolerance", "200%"), ["--tolerance", "100%"]),
        (("--deadline", "soon"), ["--deadline", "2h"]),
        (("--env", "A"), ["--env", "KEY=VALUE"]),
        (("--region", "mars"), ["mars"]),
        (("--config", "nothing.toml"), ["nothing.toml"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_refused_before_anything_starts(
    place: Place, arguments: tuple[str, ...], words: list[str]
) -> None:
    (place.folder / "empty").mkdir()
    place.write("taken/results.csv", "a\n")
    place.write("no-entry/readme.txt", "x")
    place.write("syntax/batch/model_service.py", "class Model:\n    def load(self:\n")
    place.write("no-class/batch/model_service.py", "x = 1\n")
    said = refused(place, *RUN, *arguments)
    for word in words:
        assert word in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: model\nmodel: other\n", ["line 2", "'model'", "line 1"]),
        ("model: model\ninput: in/\noutput: out/\nfromat: csv\n", ["line 4", "'format'"]),
        ("model: [\n", ["task.yaml"]),
        ("", ["empty"]),
    ],
)
def test_a_bad_task_file_is_refused(place: Place, text: str, words: list[str]) -> None:
    place.write("task.yaml", text)
    said = refused(place, "run", "task.yaml")
    for word in words:
        assert word in said


def test_a_bad_setting_is_refused(place: Place) -> None:
    assert "TIDEMILL_SERVER__PRT" in refused(place, *RUN, TIDEMILL_SERVER__PRT="1")


def test_a_refusal_in_json(place: Place) -> None:
    done = place.tidemill(*RUN, "--instances", "0", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"] == {
        "code": "invalid_value",
        "message": "0 is out of range.",
        "field": "--instances",
        "remedy": "Write 1 to 10,000.",
    }


def test_what_typer_refuses_is_exit_status_2_too(place: Place) -> None:
    done = place.tidemill("run", "--bogus")
    assert done.returncode == 2
    assert "--bogus" in done.stderr
    assert place.tidemill("bogus").returncode == 2


def test_a_finished_output_is_kept_unless_it_is_to_be_replaced(place: Place) -> None:
    assert place.tidemill(*RUN).returncode == 0
    refused(place, *RUN)
    place.write("in/reviews.jsonl", '{"text": "great"}\n')
    assert place.tidemill(*RUN, "--replace").returncode == 0
    assert (place.folder / "out/reviews.jsonl.out.jsonl").read_text() == "2\n"


def test_resume_begins_where_there_is_nothing_to_resume(place: Place) -> None:
    assert place.tidemill(*RUN, "--resume").returncode == 0


def in_terminal(place: Place, *arguments: str, when: Callable[[bytes], bool]) -> tuple[str, int]:
    """Runs in a real terminal and presses Ctrl-C as soon as `when` says so of the screen; the screen and the status."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(place.folder)
        os.execve(TIDEMILL, [str(TIDEMILL), *arguments], place.env)
    screen, pressed = b"", False
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline, screen.decode(errors="replace")
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:  # the terminal closes with its last process
                break
        if not pressed and when(screen):
            os.write(terminal, b"\x03")
            pressed = True
    _, status = os.waitpid(process, 0)
    os.close(terminal)
    return screen.decode(errors="replace"), os.waitstatus_to_exitcode(status)


def test_ctrl_c_in_a_terminal_stops_cleanly_and_resume_goes_on(slow: Place) -> None:
    plain = ("run", "--model", "model", "--input", "in/", "--output", "out/")
    screen, status = in_terminal(slow, *plain, when=lambda seen: b"records/s" in seen)
    assert status == 1
    assert "predicting" in screen
    assert "STOPPED" in screen
    assert "tidemill run --model model --input in/ --output out/ --resume" in screen
    assert not (slow.folder / "out/_SUCCESS").exists()
    assert "unfinished" in slow.tidemill(*plain).stderr

    end = slow.json(*plain, "--resume")
    assert (end["status"], end["inputs"]) == ("SUCCEED", 1000)
    assert (slow.folder / "out/numbers.jsonl.out.jsonl").read_text().split() == [str(n) for n in range(1000)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_it_like_ctrl_c_without_a_terminal(slow: Place, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [TIDEMILL, *RUN, "--json"],
        cwd=slow.folder,
        env=slow.env | {"TIDEMILL_LIMITS__COMMIT_EVERY_S": "0.1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(slow.folder.glob("out/_tidemill/*/parts/*")), "a commit")
    process.send_signal(number)
    out, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert json.loads(out)["reason"] == "interrupted"
    assert "--resume" in said


def test_kill_leaves_nothing_running(slow: Place) -> None:
    process = subprocess.Popen([TIDEMILL, *RUN], cwd=slow.folder, env=slow.env, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("predicting"):
            break
    mine = children(process.pid)
    assert mine
    process.kill()
    process.communicate()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in mine), "instances that end with their parent")


def children(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in listed.read_text().split()]
    return found + [grandchild for child in found for grandchild in children(child)]


def test_the_import_of_run_is_light() -> None:
    heavy = ["typer", "rich", "yaml", "pydantic", "httpx", "fastapi", "sqlalchemy", "uvicorn", "alembic"]
    code = f"""
import sys
import tidemill.cli, tidemill.cli.options, tidemill.cli.run
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
