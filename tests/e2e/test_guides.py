"""What README and guides say works: their commands parse, their files read, and the first task runs as it is
written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tidemill.cli.app import app
from tidemill.wire.taskfile import parse_task
from tidemill.wire.taskyaml import parse_document

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs" / "guides").rglob("*.md")])
MODEL_PAGES = sorted((ROOT / "docs" / "guides" / "models").glob("*.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND: Any = typer.main.get_command(app)
BIN = str(Path(sys.executable).parent)


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(page.read_text(encoding="utf-8")) if found == language]


def every(language: str) -> list[Any]:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(blocks(page, language))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        link = target[0] or target[1]
        if "://" not in link:
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("text", every("sh"))
def test_commands_exist_with_their_options(text: str) -> None:
    for line in re.sub(r"<<'EOF'.*?^EOF$", "", text, flags=re.MULTILINE | re.DOTALL).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] != ["tidemill"]:
            continue
        words = words[1 : next((index for index, word in enumerate(words) if word.startswith(">")), None)]
        command = COMMAND
        while hasattr(command, "commands"):
            name, words = words[0], words[1:]
            command = command.commands[name]
        command.make_context("tidemill", words)


@pytest.mark.parametrize("text", every("yaml"))
def test_task_files_are_good(text: str) -> None:
    least = {"name": "a", "model": "m", "input": "in/", "output": "out/"}
    parse_task(least | parse_document(text, "task.yaml", Path("/")).data)


@pytest.mark.parametrize("text", every("python"))
def test_python_is_good(text: str) -> None:
    compile(text, "guide", "exec")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a new user, with a server as `tidemill serve` starts it, but for the port."""
    env = {"HOME": str(tmp_path / "home"), "PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    data = tmp_path / "home/.local/share/tidemill"
    Path(env["HOME"]).mkdir()
    server = subprocess.Popen(
        ["tidemill", "serve", "--port", "0"], env=env, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 30
        while not (data / "server.json").exists():
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield env
    finally:
        server.terminate()
        server.wait(30)


def test_the_first_task_goes_as_it_is_written(tmp_path: Path, home: dict[str, str]) -> None:
    page = (ROOT / "docs/guides/first-task.md").read_text(encoding="utf-8")
    said = ""
    for language, text in FENCE.findall(page):
        if text.strip() == "tidemill serve":
            continue  # the fixture has
        if language == "yaml":
            (tmp_path / "task.yaml").write_text(text)
            continue
        command = [sys.executable, "-"] if language == "python" else ["bash", "-eu"]
        done = subprocess.run(command, input=text, cwd=tmp_path, env=home, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        said += done.stdout
    assert said.count("SUCCEED WITH 1 FAILED RECORD") == 3
    assert said.count("SUCCEED, 1 FAILED") == 1  # in the list
    assert "1\n-1\nnull\n2\n" in said
    assert "KeyError" in said
    for output in ("out", "out-2", "out-3", "out-server"):
        assert (tmp_path / output / "_SUCCESS").exists()


def test_the_task_of_the_readme_goes_as_it_is_written(tmp_path: Path) -> None:
    text = next(text for text in blocks(ROOT / "README.md", "sh") if "model_service.py" in text)
    env = {"HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    done = subprocess.run(
        ["bash", "-eu"], input=text, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("11\n4\n")
    assert len(text.strip().splitlines()) == 5


@pytest.mark.parametrize("page", MODEL_PAGES, ids=lambda page: page.stem)
def test_each_way_to_bring_a_model_goes_as_it_is_written(tmp_path: Path, page: Path) -> None:
    """Python whose first line names a file is that file, other Python is run; `text` is what was printed last."""
    env = {"HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
    said, runs = "", 0
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        named = re.match(r"# (\S+\.\w+)\n", text)
        if named is not None or language == "yaml":
            path = tmp_path / (named[1] if named is not None else "task.yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        elif language == "text":
            assert said.endswith(text)
        elif language in ("sh", "python"):
            command = [sys.executable, "-W", "ignore", "-"] if language == "python" else ["bash", "-eu"]
            done = subprocess.run(
                command, input=text, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            said = done.stdout
            runs += "tidemill run" in text
    assert runs > 0
