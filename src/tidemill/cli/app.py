"""The Typer application: every command by its name, help texts with examples."""

from __future__ import annotations

from typing import Annotated

import typer

import tidemill
from tidemill.cli import config, model, object, serve, task
from tidemill.cli.commands import CONFIG, JSON, QUIET, option, task_parameters
from tidemill.cli.options import RunRequest

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["--help", "-h"]},
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidemill {tidemill.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Batch prediction: a folder in, predictions out, everything released.

    \b
    tidemill run --model ./model --input ./in/ --output ./out/     without a server
    tidemill serve                                                 a server on this machine
    tidemill task create -f task.yaml --wait                       a task on it

    Exit status: 0 succeeded, 1 the task failed or was stopped, 2 the request was refused.
    """
