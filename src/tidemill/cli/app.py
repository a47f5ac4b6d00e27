"""The Typer application: every command by its name, help texts with examples."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import tidemill
from tidemill.cli import config, environments, models, objects, receipts, serve, task_app
from tidemill.cli import outcomes as _outcomes  # noqa: F401 - adds its commands to the group
from tidemill.cli import tasks as _tasks  # noqa: F401 - the same
from tidemill.cli.commands import Call, HelpfulCommand, HelpfulGroup, command, help_text, option, task_parameters
from tidemill.cli.diff import diff
from tidemill.cli.options import RunRequest
from tidemill.cli.replay import replay

app = typer.Typer(
    cls=HelpfulGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidemill {tidemill.__version__}")
        raise typer.Exit


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    r"""Batch prediction: a folder in, predictions out, everything released.

    \b
    tidemill run --model ./model --input ./in/ --output ./out/
    tidemill serve                              a server on this machine
    tidemill task create -f task.yaml --wait    a task on it

    Exit status: 0 succeeded, 1 the task failed or was stopped, 2 the request was refused.
    """


app.callback(help=help_text(root))(root)

_RUN_OPTIONS = [
    option("resume", bool, "--resume", default=False, help="Go on with what an interrupted run committed."),
    option("file", str | None, "--file", "-f", help="The task file, as TASK_FILE.", metavar="FILE", hidden=True),
]


@command(app, "run", server=False, more=[*_RUN_OPTIONS, *task_parameters()], raw=True)
def run(
    call: Call,
    task_file: Annotated[str | None, typer.Argument(metavar="TASK_FILE", help="The task; flags go over it.")] = None,
    **given: Any,
) -> int:
    r"""Run a task here, without a server: model, input, output, done.

    \b
    tidemill run --model ./model --input ./in/ --output ./out/
    tidemill run task.yaml
    tidemill run task.yaml --output ./out-2/    flags go over the file
    tidemill run task.yaml --resume             after an interruption

    Ctrl-C stops it cleanly and keeps what is committed. Exit status: 0 succeeded, 1 failed or stopped, 2 refused.
    """
    from tidemill.cli.run import run_command  # the quick way in; it starts nothing of Typer

    return run_command(
        RunRequest(
            file=task_file if task_file is not None else given["file"],
            task=given,
            resume=given["resume"],
            json=call.out.json,
            quiet=call.out.quiet,
            config=call.config,
        )
    )


serve.register(app)
app.add_typer(task_app.app, name="task")
app.add_typer(models.app, name="model")
app.add_typer(objects.app, name="object")
app.add_typer(receipts.app, name="receipt")
command(app, "diff")(diff)
command(app, "replay")(replay)
app.add_typer(environments.app, name="environment")
app.add_typer(config.app, name="config")
app.command("schema", cls=HelpfulCommand, help=help_text(config.schema))(config.schema)
