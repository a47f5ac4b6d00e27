"""The quick parser of `tidemill run` is a shortcut, not a second grammar: what it reads, Typer reads the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import given
from hypothesis import strategies as st

from tidemill.cli import run as run_module
from tidemill.cli.app import app
from tidemill.cli.options import FLAG_NAMES, RUN_SWITCHES, TASK_OPTIONS, RunRequest, parse_run, task_values
from tidemill.cli.reference import documents
from tidemill.domain.errors import InvalidValue
from tidemill.wire.schema import documented_fields
from tidemill.wire.taskfile import TaskFile

ROOT: Any = typer.main.get_command(app)
USAGE_ERRORS = (typer.BadParameter.__mro__[1], typer.Exit)  # Typer names the second of them only
VALUES = st.sampled_from(["x", "a/b/", "-5", "K=V", "K=a=b", "4Gi", "", "流 失", "--model"])
FLAGS = st.sampled_from(
    [*(o.flag for o in TASK_OPTIONS), "-m", "-i", "-o", "-n", *RUN_SWITCHES, "--config", "-f", "--bogus"]
)
ARGUMENTS = st.lists(
    st.one_of(
        st.tuples(FLAGS, VALUES).map(list),
        st.tuples(FLAGS, VALUES).map(lambda pair: [f"{pair[0]}={pair[1]}"]),
        FLAGS.map(lambda flag: [flag]),
        st.sampled_from(["task.yaml", "-", "--", "--help"]).map(lambda word: [word]),
    ),
    max_size=4,
).map(lambda groups: [word for group in groups for word in group])


def by_typer(arguments: list[str]) -> RunRequest | None:
    """The request that Typer makes of the arguments; None if it refuses them or shows help."""
    seen: list[RunRequest] = []
    before = run_module.run_command

    def remember(request: RunRequest) -> int:
        seen.append(request)
        return 0

    run_module.run_command = remember
    try:
        ROOT.main(["run", *arguments], standalone_mode=False, prog_name="tidemill")
    except USAGE_ERRORS:
        return None
    finally:
        run_module.run_command = before
    return seen[0] if seen else None


def meaning(request: RunRequest) -> tuple[object, ...]:
    try:
        values: object = task_values(request.task)
    except InvalidValue as error:
        values = str(error)
    return (request.file, values, request.resume, request.json, request.quiet, request.config)


@given(ARGUMENTS)
def test_what_the_quick_parser_reads_typer_reads_the_same(arguments: list[str]) -> None:
    quick = parse_run(arguments)
    if quick is None:
        return  # Typer's turn
    slow = by_typer(arguments)
    assert slow is not None, arguments
    assert meaning(quick) == meaning(slow)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["task.yaml"],
        ["task.yaml", "--resume", "--json", "-q"],
        ["--model", "m", "-i", "in/", "--output=out/", "--tag", "a=b", "--tag", "c=d", "--replace"],
        ["--priority", "-5"],
        ["-f", "task.yaml", "--config=x.toml"],
    ],
)
def test_what_people_write_goes_the_quick_way(arguments: list[str]) -> None:
    assert parse_run(arguments) is not None
    assert by_typer(arguments) is not None


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["--bogus"], ["a", "b"], ["--model"], ["--resume=1"], ["--mod", "m"]]
)
def test_the_rest_is_left_to_typer(arguments: list[str]) -> None:
    assert parse_run(arguments) is None


def test_every_option_sets_a_key_that_exists() -> None:
    keys = {field.key for field in documented_fields(TaskFile)}
    assert {option.key for option in TASK_OPTIONS} <= keys
    assert set(FLAG_NAMES) - keys == {"input", "output"}


def test_pairs_without_an_equals_sign_are_refused() -> None:
    with pytest.raises(InvalidValue) as caught:
        task_values({"env": ["A"]})
    assert caught.value.field == "--env"


def commands(found: Any, path: str = "tidemill") -> dict[str, Any]:
    inner = {f"{path} {name}": each for name, each in getattr(found, "commands", {}).items()}
    return {path: found} | {key: value for name, each in inner.items() for key, value in commands(each, name).items()}


def test_the_verbs() -> None:
    verbs = {
        name.removeprefix("tidemill").strip()
        for name, found in commands(ROOT).items()
        if not hasattr(found, "commands")
    }
    tasks = "create list show watch logs events stop resume delete results errors receipt instances"
    assert verbs == {
        *("run", "serve", "schema", "config show", "diff", "replay"),
        *(f"task {verb}" for verb in tasks.split()),
        *(f"model {verb}" for verb in ("import", "list", "show", "delete")),
        *(f"object {verb}" for verb in ("put", "get", "list", "delete")),
        *(f"receipt {verb}" for verb in ("verify", "key")),
        *(f"environment {verb}" for verb in ("list", "clear")),
    }


@pytest.mark.parametrize("name", sorted(commands(ROOT)))
def test_every_command_and_option_says_what_it_is(name: str) -> None:
    found = commands(ROOT)[name]
    assert len(found.help.strip()) > 15
    for parameter in found.params:
        assert parameter.help or parameter.name == "help", f"{name} {parameter.name}"
    if not hasattr(found, "commands") and name != "tidemill schema":
        assert "--json" in {flag for parameter in found.params for flag in parameter.opts}


def test_the_references_are_current() -> None:
    root = Path(__file__).parents[2]
    for name, text in documents().items():
        assert (root / name).read_text(encoding="utf-8") == text, "run `python -m tidemill.cli.reference`"


def test_completion_is_offered() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from tidemill.cli import main; main()"],
        env={"_TIDEMILL_COMPLETE": "complete_bash", "COMP_WORDS": "tidemill ta", "COMP_CWORD": "1", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "task" in done.stdout, done.stderr
