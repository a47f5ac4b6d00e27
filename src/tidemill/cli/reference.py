"""Made documents: docs/reference/{cli,settings,taskfile}.md and schemas/task.schema.json.

`python -m tidemill.cli.reference` writes them.

A test compares them with what is in the repository, so that they are never out of date.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tidemill.cli.app import app
from tidemill.settings import Settings
from tidemill.wire.schema import documented_fields, task_schema
from tidemill.wire.sections import Section
from tidemill.wire.taskfile import TaskFile

_HOW = "<!-- Made by `python -m tidemill.cli.reference`. Do not edit. -->\n\n"

_COMMANDS = """\
Every command takes `--help`. `--json` prints one JSON document on standard output; everything else that is said goes to
standard error. Exit status: 0 succeeded, 1 the task failed or was stopped (or something broke), 2 the request was
refused, 130 Ctrl-C. Shell completion: `tidemill --install-completion`.
"""
_SETTINGS = """\
# Settings

One file, `tidemill.toml`: the one that `--config` (or `TIDEMILL_CONFIG`) names, else the one in the current folder,
else `~/.config/tidemill/tidemill.toml`. Over it go variables: `server.port` is `TIDEMILL_SERVER__PORT`; those that
users of a server set most have short names, `TIDEMILL_URL`, `TIDEMILL_CREDENTIALS`, `TIDEMILL_SECRET_ID` and
`TIDEMILL_SECRET_KEY`. Over those go flags of the command line. Unknown keys are refused. `tidemill config show` prints
what is in force, and whence.

```toml
[server]
port = 7500

[regions.local.buckets.sales]        # cos://sales/… in a task
url = "s3://company-sales"
endpoint = "https://cos.ap-guangzhou.myqcloud.com"
access_key = "AKID…"                 # the other half: TIDEMILL_REGIONS__LOCAL__BUCKETS__SALES__SECRET_KEY
path_style = false
```

"""
_TASKFILE = """\
# The task file

YAML (or JSON). The same file goes to `tidemill run`, `tidemill task create -f` and the JSON API. Unknown keys and keys
given twice are refused. Relative paths start from the file's folder. For completion and checks in an editor, write the
schema down (`tidemill schema > task.schema.json`) and begin the file with `# yaml-language-server:
$schema=task.schema.json`.

```yaml
name: churn-july
model: ./model
input: ./in/
output: ./out/
```

`input`, `output`, `format` and `format.result` may be one text: their first key. Sizes are written like `512Mi`,
`4Gi`, `4GB`; durations like `90s`, `15m`, `1h30m`; cores like `2`, `0.5`, `500m`; shares like `1%`.

"""


def documents() -> dict[str, str]:
    """Path below the repository → text."""
    return {
        "docs/reference/cli.md": _HOW + "# The command line\n\n" + "\n".join(_commands()),
        "docs/reference/settings.md": _HOW + _SETTINGS + _fields(Settings),
        "docs/reference/taskfile.md": _HOW + _TASKFILE + _fields(TaskFile),
        "src/tidemill/schemas/task.schema.json": json.dumps(task_schema(), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> None:
    """Writes them below the current folder."""
    for name, text in documents().items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}\n")


def _commands() -> Iterator[str]:
    yield _COMMANDS
    root: Any = typer.main.get_command(app)
    for path, found in _walk("tidemill", root):
        yield f"## `{path}`\n"
        yield f"{_markdown(found.help or '')}\n"
        rows = [_row(parameter) for parameter in found.params if parameter.name != "help" and not parameter.hidden]
        if rows:
            yield "| | | |\n|---|---|---|"
            yield from rows
            yield ""


def _walk(path: str, found: Any) -> Iterator[tuple[str, Any]]:
    yield path, found
    for name, inner in sorted(getattr(found, "commands", {}).items()):
        yield from _walk(f"{path} {name}", inner)


def _row(parameter: Any) -> str:
    metavar = "" if getattr(parameter, "is_flag", False) else (parameter.metavar or "").strip("[]")
    if parameter.param_type_name == "argument":
        name, metavar = f"`{metavar}`", "" if parameter.required else "optional"
    else:
        name = ", ".join(f"`{flag}`" for flag in parameter.opts)
    return f"| {name} | {metavar} | {_escaped(parameter.help or '')} |"


def _markdown(text: str) -> str:
    """A help text: paragraphs after a backspace are code."""
    paragraphs = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = [line.rstrip() for line in paragraph.splitlines()]
        if lines and lines[0].strip(" ") == "\b":
            paragraphs.append("```sh\n" + "\n".join(_as_comment(line.strip()) for line in lines[1:]) + "\n```")
        else:
            paragraphs.append(" ".join(line.strip() for line in lines))
    return "\n\n".join(paragraphs)


def _as_comment(line: str) -> str:
    """`command   what it does` with the explanation as a comment."""
    found = re.fullmatch(r"(\S.*?)(\s{3,})(\S.*)", line)
    return f"{found[1]}{found[2]}# {found[3]}" if found else line


def _fields(cls: type[Section]) -> str:
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for field in documented_fields(cls):
        default = "required" if field.required else _default(field.default)
        rows.append(f"| `{field.key}` | {_escaped(field.type)} | {default} | {_escaped(field.doc)} |")
    return "\n".join(rows) + "\n"


def _default(value: object) -> str:
    if value in (None, "", [], {}):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`".replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main()
