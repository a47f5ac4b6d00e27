"""Instances that are started before it is known what they run: they wait, and do not outlive who started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tidemill.engines.children import Children

PARENT = """
    import sys, time
    from tidemill.engines.children import Children
    children = Children()
    children.start_ahead()
    print(children._ahead.process.pid, flush=True)
    time.sleep(600)
"""


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return True


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Children:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    return Children()


def test_what_was_not_needed_ends_and_leaves_nothing(children: Children, tmp_path: Path) -> None:
    children.start_ahead()
    assert children._ahead is not None
    pid = children._ahead.process.pid
    assert b"hush" not in Path(f"/proc/{pid}/environ").read_bytes()
    assert os.stat(children.root).st_mode & 0o077 == 0
    children.close()
    children.close()
    assert gone(pid)
    assert list(tmp_path.iterdir()) == []


def test_it_dies_with_a_parent_that_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PARENT)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    assert gone(pid)


def test_the_first_that_is_started_is_the_one_ahead(children: Children) -> None:
    children.start_ahead()
    assert children._ahead is not None
    pid = children._ahead.process.pid
    first, second = children.start("one"), children.start("two")
    assert (first.process.pid, second.process.pid == pid) == (pid, False)
    assert sorted(os.listdir(children.root)) == ["one", "two"]
    for child in (first, second):
        assert Path(child.scratch).is_dir()
        child.tell(b"not a manifest\n")
        assert child.process.wait(30) not in (0, None)
        assert Path(child.folder, "log").read_text()
        child.socket.close()
    children.close()
