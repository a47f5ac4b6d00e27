"""`tidemill config show` and `tidemill schema`."""

from __future__ import annotations

import json
import sys

import typer

from tidemill.cli.commands import DATA, URL, Call, HelpfulGroup, command
from tidemill.cli.output import is_utf8, write
from tidemill.settings import FILE_NAME, flat
from tidemill.wire.schema import task_schema

app = typer.Typer(cls=HelpfulGroup, no_args_is_help=True, help="Settings: what is in force, and whence.")


@command(app, "show", server=False, overrides={"data": "data", "url": "client.url"}, more=[DATA, URL])
def show(call: Call, **_: object) -> None:
    """Every setting that is in force, and where it comes from.

    Secrets are masked. A variable is the dotted key in capitals: server.port is TIDEMILL_SERVER__PORT.
    """
    loaded = call.loaded
    settings = dict(flat(loaded.settings))
    call.out.document(
        {
            "file": str(loaded.file) if loaded.file else None,
            "settings": {key: {"value": value, "from": loaded.origins[key]} for key, value in settings.items()},
        }
    )
    rows = [
        (key, "(none)" if value is None else json.dumps(value, ensure_ascii=False), loaded.origins[key])
        for key, value in settings.items()
    ]
    call.out.table(["SETTING", "VALUE", "FROM"], rows)
    call.out.note(
        f"File: {loaded.file}" if loaded.file else f"No file: neither ./{FILE_NAME} nor ~/.config/tidemill/{FILE_NAME}."
    )


def schema() -> None:
    r"""The JSON Schema of task files, for editors.

    \b
    tidemill schema > task.schema.json
    # then, as the first line of a task file:
    # yaml-language-server: $schema=task.schema.json
    """
    write(sys.stdout, json.dumps(task_schema(), indent=2, ensure_ascii=not is_utf8(sys.stdout)) + "\n")
