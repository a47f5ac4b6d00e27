"""`make demo`'s own part, in a folder of its own: with a terminal and without, twice, and interrupted."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = [sys.executable, "-m", "tidemill.demo"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("demo")
    (folder / "home").mkdir()
    # This must not disturb it.
    (folder / "tidemill.toml").write_text("[server]\nport = 1\n[client]\nurl = 'http://127.0.0.1:9'\n")
    return folder


def environment(place: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"HOME": str(place / "home"), "PATH": path, "LANG": "C.UTF-8", "TERM": "xterm", "TIDEMILL_SERVER__PRT": "1"}


def processes_of(place: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # gone by now
            continue
        if str(place) in words and path.parent.name != str(os.getpid()):
            found.append(words)
    return found


def test_interrupted_in_a_terminal_it_leaves_nothing_running(place: Path) -> None:
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(place)
        os.execve(DEMO[0], DEMO, environment(place))
    screen, pressed = b"", False
    deadline = time.monotonic() + 100
    while True:
        assert time.monotonic() < deadline, screen.decode(errors="replace")
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                screen += os.read(terminal, 65536)
            except OSError:  # the terminal closes with its last process
                break
        if not pressed and b"instances" in screen.partition(b"goes by itself")[2]:
            assert processes_of(place)
            os.write(terminal, b"\x03")
            pressed = True
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert "nothing is left running" in screen.decode(errors="replace")
    assert processes_of(place) == []


def test_it_can_be_run_again_and_tells_the_whole_story_without_a_terminal(place: Path) -> None:
    assert (place / ".demo").exists()  # of the run before
    done = subprocess.run(
        DEMO, cwd=place, env=environment(place), capture_output=True, text=True, check=False, timeout=110
    )
    told = " ".join(done.stdout.split())
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (
        "20,000 records in 8 files, 3 broken",
        "SUCCEED WITH 3 FAILED RECORDS",
        "2 of 2 instances released",
        "First predictions",
        "digits-2.jsonl line 1200",
        "digits-5.jsonl line 641",
        "digits-7.jsonl line 2106",
        "20,000 = 19,997 ok + 3 failed + 0 skipped",
        "Where time went",
        "Try next",
    ):
        assert words in told
    for phase in ("queue", "start", "load", "predict", "publish"):
        assert f" {phase} " in told
    assert "predicting" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert processes_of(place) == []

    # What it says to try next works.
    again = next(line for line in done.stdout.splitlines() if " run --model" in line)
    tried = subprocess.run(
        ["bash", "-c", again], cwd=place, env={**environment(place), "TIDEMILL_SERVER__PRT": ""}, check=False
    )
    assert tried.returncode in (0, 2)
