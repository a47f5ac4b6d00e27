"""The scratch folder of `tidemill run`: nothing of it is left for long, also where its process was killed."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tidemill.engines.children import Children

HOLD = "from tidemill.engines.children import Children; c = Children(); print(c.root, flush=True); input()"


def test_a_closed_one_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    children = Children()
    child = children.start("one")
    child.process.kill()
    child.process.communicate()
    child.socket.close()
    children.close()
    children.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_one_leaves_is_removed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "tidemill-servers.x").mkdir()  # somebody else's
    held = [
        subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = []
    for process in held:
        assert process.stdout is not None
        folders.append(Path(process.stdout.readline().strip()))
    killed, alive = held
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert all(folder.is_dir() for folder in folders)
    Children().close()
    assert [folder.is_dir() for folder in folders] == [False, True]
    alive.communicate("\n")
    Children().close()
    assert [each.name for each in tmp_path.iterdir()] == ["tidemill-servers.x"]
