# ruff: noqa: INP001 - a script, no package
"""Draws docs/images/demo.svg from a real run of `make demo`: `.venv/bin/python docs/images/draw.py`, in the
repository.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from tidemill.demo import main

COLUMNS = 104


def draw(target: Path) -> int:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print("[green]$[/] make demo", highlight=False)
    status = main(Path(".demo").absolute(), console, picture=True)
    svg = console.export_svg(title="make demo", theme=MONOKAI, unique_id="demo")
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)  # nothing is fetched to look at a picture
    target.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(draw(Path(__file__).with_name("demo.svg")))
