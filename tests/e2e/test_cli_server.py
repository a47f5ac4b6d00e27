"""`tidemill serve` and the verbs that speak to it, in a home of their own."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tidemill.cli import main

TIDEMILL = Path(sys.executable).parent / "tidemill"
MODEL = """\
import os
import time

class Model:
    def load(self):
        print("the model says hello")

    def predict(self, batch):
        for record in batch:
            if "slow_while" in record and os.path.exists(record["slow_while"]):
                time.sleep(0.02)
        return [record["n"] * 2 for record in batch]
"""


@dataclass(frozen=True)
class Done:
    """Exit status and what was printed where."""

    returncode: Any
    stdout: str
    stderr: str


class Shell:
    """Commands of a new user; `data` is where the server keeps its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "home").mkdir(parents=True)
        self.data = folder / "home/.local/share/tidemill"
        self.env = {"HOME": str(folder / "home"), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}

    def serve(self, *arguments: str) -> subprocess.Popen[str]:
        server = subprocess.Popen(
            [TIDEMILL, "serve", "--port", "0", *arguments],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 30
        while not (self.data / "server.json").exists():
            assert server.poll() is None and time.monotonic() < deadline, server.stderr
            time.sleep(0.02)
        return server

    def __call__(self, *arguments: str, status: int = 0, **env: str) -> Done:
        """One command, called in this process: a new one costs most of a second."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, self.env | env, clear=True),
            mock.patch.object(sys, "argv", ["tidemill", *arguments]),
        ):
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                with pytest.raises(SystemExit) as ended:
                    main()
        done = Done(ended.value.code, out.getvalue(), err.getvalue())
        assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
        return done

    def process(self, *arguments: str) -> Done:
        """The same in a process of its own."""
        done = subprocess.run(
            [TIDEMILL, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def json(self, *arguments: str, status: int = 0) -> Any:
        return json.loads(self(*arguments, "--json", status=status).stdout)


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A server with a model and an input in its bucket. The tests share it."""
    made = Shell(tmp_path_factory.mktemp("cli"))
    made.data.mkdir(parents=True, mode=0o755)  # as `tidemill run` leaves it
    (made.folder / "model/batch").mkdir(parents=True)
    (made.folder / "model/batch/model_service.py").write_text(MODEL)
    (made.folder / "in").mkdir()
    (made.folder / "in/数 字.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(50)) + '{"m": 1}\n')
    server = made.serve()
    made("model", "import", "double", "model")
    made("object", "put", "in/", "cos://data/in/")
    yield made
    server.terminate()
    out, said = server.communicate(timeout=30)
    assert server.returncode == 0, said
    assert "secret_key" not in out + said
    assert not (made.data / "server.json").exists()


@pytest.fixture(scope="module")
def finished(shell: Shell) -> dict[str, Any]:
    (shell.folder / "task.yaml").write_text(
        "name: 翻倍\nmodel: ./model\ninput: cos://data/in/\noutput: cos://data/out/\n"
        "tolerance: 5%\ntags: {team: 风控}\n"
    )
    end: dict[str, Any] = shell.json("task", "create", "-f", "task.yaml", "--wait")
    return end


def test_create_and_wait_ends_with_the_object_that_run_ends_with(shell: Shell, finished: dict[str, Any]) -> None:
    by_run = shell.json("run", "task.yaml", "--input", "in/", "--output", "out-run")
    assert set(finished) == set(by_run)
    assert {key: finished[key] for key in ("status", "reason", "inputs", "ok", "failed", "skipped")} == {
        "status": "SUCCEED",
        "reason": "finished_with_failed_records",
        "inputs": 51,
        "ok": 50,
        "failed": 1,
        "skipped": 0,
    }
    assert set(finished["seconds"]) == {"queue", "environment", "start", "load", "predict", "publish", "total"}


def test_failed_records_are_said_loudly_wherever_the_task_is_shown(shell: Shell, finished: dict[str, Any]) -> None:
    assert "SUCCEED, 1 FAILED" in shell("task", "list").stdout
    shown = shell("task", "show", "翻倍")
    assert "SUCCEED WITH 1 FAILED RECORD" in shown.stdout
    assert "errors.jsonl" in shown.stderr
    assert "SUCCEED WITH 1 FAILED RECORD" in shell("task", "watch", finished["id"]).stdout


def test_an_input_that_is_not_cut_is_said_where_the_task_is_shown(shell: Shell) -> None:
    lines = b"".join(b'{"n": %d, "text": "%s"}\n' % (n, os.urandom(1500).hex().encode()) for n in range(15_000))
    (shell.folder / "packed-in").mkdir()
    (shell.folder / "packed-in/a.jsonl.gz").write_bytes(gzip.compress(lines, 1))
    shell("task", "create", "--model", "double", "--input", "packed-in/", "--output", "out-gz/", "-n", "gz", "--wait")
    note = "The input runs whole in a single process: gzip cannot be cut."
    assert note in shell("task", "show", "gz").stdout
    assert shell.json("task", "show", "gz")["note"] == note


def test_every_view_in_json(shell: Shell, finished: dict[str, Any]) -> None:
    task = finished["id"]
    assert shell.json("task", "list", "--tag", "team:风控")[0]["id"] == task
    assert shell.json("task", "show", task)["spec"]["name"] == "翻倍"
    assert shell.json("task", "events", task)[0]["name"] == "task.created"
    assert shell.json("task", "instances", task)[0]["status"] == "ENDED"
    assert [each["name"] for each in shell.json("task", "results", task)] == [
        "数 字.jsonl.out.jsonl",
        "errors.jsonl",
        "receipt.json",
        "_SUCCESS",
    ]
    assert shell.json("task", "errors", task)[0]["count"] == 1
    assert shell.json("task", "errors", task, "--all")[0]["line"] == 51
    assert shell.json("task", "receipt", task)["counts"]["ok"] == 50
    assert "the model says hello" in shell.json("task", "logs", task)["text"]
    assert shell.json("model", "show", "double")["version_list"][0]["reference"] == "double@1"
    assert shell.json("model", "list")[0]["name"] == "double"
    assert shell.json("object", "list", "cos://data/in/")[0]["name"] == "数 字.jsonl"


def test_a_receipt_is_checked_by_task_and_by_folder(shell: Shell, finished: dict[str, Any]) -> None:
    task, out = finished["id"], shell.data / "buckets/data/out"
    key = shell.json("receipt", "key")["key"]
    found = shell.json("receipt", "verify", task)
    assert (found["good"], found["signed_by"], found["key"], found["key_given"]) == (True, "server", key, True)
    assert f"Signed by the key {key} of the server." in shell("receipt", "verify", "cos://data/out/").stdout
    result = out / "数 字.jsonl.out.jsonl"
    whole = result.read_bytes()
    result.write_bytes(whole.replace(b"4", b"5", 1))
    try:
        told = shell("receipt", "verify", task, status=1).stdout
        assert ("its content was changed" in told, "NOT what" in told) == (True, True)
    finally:
        result.write_bytes(whole)
    shell("receipt", "verify", "in/", status=2)


def test_every_view_for_people(shell: Shell, finished: dict[str, Any]) -> None:
    task = finished["id"]
    assert "the model says hello" in shell("task", "logs", task).stdout
    errors = shell("task", "errors", "翻倍").stdout
    assert "KeyError: 'n'" in errors and "数 字.jsonl line 51" in errors and '{"m": 1}' in errors
    assert "数 字.jsonl line 51" in shell("task", "errors", task, "--all").stdout
    assert "SUCCEED" in shell("task", "events", task).stdout
    assert "ENDED" in shell("task", "instances", task).stdout
    assert "\n0\n2\n4\n" in shell("task", "results", task, "--preview", "3").stdout
    assert '"ok": 50' in shell("task", "receipt", task).stdout
    assert "double@1" in shell("model", "list").stdout


def test_tables_align_also_with_chinese_names(shell: Shell, finished: dict[str, Any]) -> None:
    lines = shell("task", "list").stdout.splitlines()
    column = lines[0].index("STATUS")
    row = next(line for line in lines if "翻倍" in line)
    assert row.index("SUCCEED") == column - 2  # two characters that are two columns wide each


def test_fetching_results(shell: Shell, finished: dict[str, Any]) -> None:
    shell("task", "results", finished["id"], "--fetch", "fetched")
    assert (shell.folder / "fetched/数 字.jsonl.out.jsonl").read_text().split()[:3] == ["0", "2", "4"]
    shell("object", "get", "cos://data/out/", "got/")
    assert (shell.folder / "got/_SUCCESS").read_bytes() == (shell.folder / "fetched/_SUCCESS").read_bytes()
    assert "--force" in shell("object", "get", "cos://data/out/", "got/", status=2).stderr
    shell("object", "get", "cos://data/in/数 字.jsonl", "one.jsonl")
    assert (shell.folder / "one.jsonl").read_bytes() == (shell.folder / "in/数 字.jsonl").read_bytes()


def test_stop_resume_and_delete(shell: Shell) -> None:
    flag = shell.folder / "flag"
    flag.touch()
    (shell.folder / "slow").mkdir()
    lines = [json.dumps({"n": n, "slow_while": str(flag)}) for n in range(4000)]
    (shell.folder / "slow/a.jsonl").write_text("\n".join(lines) + "\n")
    flags = ["--model", "double", "--input", "slow/", "--output", "slow-out", "--name", "slow", "--batch-size", "5"]
    task = shell("task", "create", *flags).stdout.strip()
    watched = subprocess.Popen(
        [TIDEMILL, "task", "watch", task], cwd=shell.folder, env=shell.env, stderr=subprocess.PIPE, text=True
    )
    assert watched.stderr is not None
    for line in watched.stderr:
        if line.startswith("predicting"):
            break
    watched.send_signal(signal.SIGINT)  # ends the watching, not the task
    assert "The task goes on" in watched.communicate(timeout=30)[1]
    assert watched.returncode == 130
    assert shell.json("task", "show", task)["status"] == "RUNNING"
    assert "RUNNING" in shell("task", "delete", task, "--yes", status=2).stderr

    assert "resume" in shell("task", "stop", task, "--wait").stderr
    assert shell.json("task", "show", task)["status"] == "STOPPED"
    flag.unlink()
    end = shell.json("task", "resume", "slow", "--instances", "2", "--wait")
    assert (end["status"], end["inputs"]) == ("SUCCEED", 4000)
    assert shell.json("task", "show", task)["runs"] == 2

    assert "--yes" in shell("task", "delete", task, status=2).stderr
    shell("task", "delete", task, "--yes")
    shell("task", "show", task, status=2)
    assert (shell.folder / "slow-out/_SUCCESS").exists()


def test_a_failed_task_is_exit_status_1(shell: Shell) -> None:
    flags = ["--model", "double", "--input", "cos://data/in/", "--output", "cos://data/failed/", "--tolerance", "0"]
    done = shell("task", "create", *flags, "--wait", status=1)
    assert "FAILED" in done.stdout and "KeyError: 'n'" in done.stdout
    assert "task resume" in done.stderr


def test_a_model_comes_also_as_an_archive(shell: Shell) -> None:
    with zipfile.ZipFile(shell.folder / "model.zip", "w") as archive:
        archive.write(shell.folder / "model/batch/model_service.py", "batch/model_service.py")
    assert shell.json("model", "import", "packed", "model.zip")["status"] == "READY"
    with zipfile.ZipFile(shell.folder / "evil.zip", "w") as archive:
        archive.writestr("../../evil.py", MODEL)
    refused = shell("model", "import", "packed", "evil.zip", status=2)
    assert "'../../evil.py'" in refused.stderr
    assert shell.json("model", "show", "packed")["versions"] == 1


def test_a_folder_that_is_written_like_a_name_is_pointed_out(shell: Shell) -> None:
    refused = shell("task", "create", "--model", "model", "--input", "in/", "--output", "out-name/", status=2)
    assert "no model 'model'" in refused.stderr
    assert "write ./model" in refused.stderr


def test_a_model_that_is_none_is_told_at_once(shell: Shell) -> None:
    (shell.folder / "broken/batch").mkdir(parents=True)
    (shell.folder / "broken/batch/model_service.py").write_text("class Model:\n    def load(self:\n")
    done = shell("model", "import", "broken", "broken", status=1)
    assert "FAILED" in done.stdout and "line 2" in done.stderr
    shell("model", "delete", "broken", "--yes")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("task", "create"), ["-f FILE"]),
        (("task", "create", "-f", "nothing.yaml"), ["nothing.yaml"]),
        (("task", "create", "--model", "nothing", "--input", "cos://data/in/", "--output", "o"), ["model", "nothing"]),
        (("task", "create", "--model", "double@9", "--input", "cos://data/in/", "--output", "o"), ["double@9"]),
        (
            ("task", "create", "--model", "double", "--input", "cos://data/no/", "--output", "o"),
            ["input", "cos://data/no/"],
        ),
        (("task", "create", "--model", "double", "--input", "cos://mars/in/", "--output", "o"), ["mars"]),
        (("task", "create", "--model", "double", "--input", "in/", "--output", "in/out"), ["output"]),
        (("task", "create", "--model", "double", "--input", "in/", "--output", "o", "--cpu", "1000"), ["cpu"]),
        (("task", "create", "--model", "double", "--input", "in/", "--output", "o", "--name", "_"), ["--name"]),
        (("task", "show", "nothing"), ["nothing", "task list"]),
        (("task", "show", "batch-0000000000000000"), ["batch-0000000000000000"]),
        (("task", "list", "--status", "BUSY"), ["BUSY"]),
        (("task", "list", "--data", "elsewhere"), ["tidemill serve"]),
        (("task", "list", "--url", "http://127.0.0.1:9"), ["127.0.0.1:9"]),
        (("model", "import", "x", "nothing"), ["nothing"]),
        (("model", "import", "_x", "model"), ["_x"]),
        (("model", "show", "nothing"), ["nothing"]),
        (("object", "put", "nothing", "cos://data/x"), ["nothing"]),
        (("object", "get", "cos://data/nothing"), ["nothing"]),
        (("object", "list", "ftp://x/"), ["ftp"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, tuple) else None,
)
def test_refusals_say_what_to_do(shell: Shell, arguments: tuple[str, ...], words: list[str]) -> None:
    unreachable = "elsewhere" in arguments or "--url" in arguments
    done = shell(*arguments, status=1 if unreachable else 2)
    assert re.match(r"refused: |error: ", done.stderr), done.stderr
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""


def test_a_wrong_credential_is_refused(shell: Shell) -> None:
    done = shell("task", "list", status=2, TIDEMILL_SECRET_ID="a", TIDEMILL_SECRET_KEY="b")
    assert "credential" in done.stderr


def test_what_a_server_keeps_is_nobody_elses(shell: Shell) -> None:
    assert shell.data.stat().st_mode & 0o777 == 0o700


def test_a_second_server_on_the_same_folder_is_refused(shell: Shell) -> None:
    done = shell("serve", "--port", "0", status=2)
    assert "already works in" in done.stderr and "--data" in done.stderr
    assert (shell.data / "server.json").exists()


def test_a_port_that_is_taken_is_refused(shell: Shell) -> None:
    port = json.loads((shell.data / "server.json").read_text())["url"].rpartition(":")[2]
    assert "--port" in shell("serve", "--port", port, "--data", "other", status=2).stderr


def test_config_show_says_whence(shell: Shell) -> None:
    (shell.folder / "my.toml").write_text("[server]\nport = 7500\n")
    shown = shell.json("config", "show", "--config", "my.toml")
    assert shown["settings"]["server.port"] == {"value": 7500, "from": str(shell.folder / "my.toml")}
    line = next(
        line
        for line in shell("config", "show", TIDEMILL_SERVER__PORT="7600").stdout.splitlines()
        if "server.port" in line
    )
    assert line.split() == ["server.port", "7600", "TIDEMILL_SERVER__PORT"]


def test_exit_statuses_and_streams_of_a_real_process(shell: Shell, finished: dict[str, Any]) -> None:
    good = shell.process("task", "show", finished["id"], "--json")
    assert (good.returncode, json.loads(good.stdout)["id"], "errors.jsonl" in good.stderr) == (0, finished["id"], True)
    refused = shell.process("task", "show", "nothing", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "not_found"
    assert refused.stderr.startswith("refused: TASK: ")


def test_the_schema_and_the_version(shell: Shell) -> None:
    assert json.loads(shell("schema").stdout)["required"] == ["name", "input", "output"]
    assert re.fullmatch(r"tidemill \d+\.\d+\.\d+\n", shell("--version").stdout)


def test_a_pipe_that_closes_is_no_error(shell: Shell, finished: dict[str, Any]) -> None:
    command = f"{TIDEMILL} task receipt {finished['id']} | head -1"
    done = subprocess.run(["bash", "-c", command], env=shell.env, capture_output=True, text=True, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
