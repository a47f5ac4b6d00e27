"""What `--help` shows, of every command."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tidemill.cli.app import app
from tidemill.cli.output import counted
from tidemill.cli.progress import progress_line
from tidemill.local import RunProgress
from tidemill_runtime.contract import Counts


def commands() -> Iterator[list[str]]:
    def walk(found: Any, path: list[str]) -> Iterator[list[str]]:
        yield path
        for name, inner in getattr(found, "commands", {}).items():
            yield from walk(inner, [*path, name])

    return walk(typer.main.get_command(app), [])


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_options_name_what_they_take_and_not_its_type(path: list[str]) -> None:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    for word in ("<bool>", "<str>", "<int>", "<float>", "<path>", "list["):
        assert word not in done.output


def test_one_is_no_plural() -> None:
    assert [counted(count, "record") for count in (0, 1, 2000)] == ["0 records", "1 record", "2,000 records"]
    assert "1 record " in progress_line(RunProgress("t", "predicting", counts=Counts(1, 1)))
