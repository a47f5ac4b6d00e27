from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_type_hints

import pytest

import tidemill
from tidemill.running import TaskKeys
from tidemill.wire.sections import field_types
from tidemill.wire.taskfile import TaskFile


def test_all_is_there_and_documented() -> None:
    assert tidemill.__all__ == ["Client", "Result", "__version__", "diff", "run", "verify"]
    assert dir(tidemill) == tidemill.__all__
    for name in ("Client", "Result", "run"):
        assert len(getattr(tidemill, name).__doc__) > 100
    with pytest.raises(AttributeError, match="clinet"):
        _ = tidemill.clinet  # type: ignore[attr-defined]


def test_the_version_is_the_packages() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert tidemill.__version__ == project["version"]


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import tidemill; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert imported == {"tidemill"}


def test_run_takes_every_key_of_a_task_that_makes_sense_here() -> None:
    left_out = {"image", "secrets", "priority"}  # of servers alone
    assert set(get_type_hints(TaskKeys)) == set(field_types(TaskFile)) - left_out
