"""What the command prints: one JSON document or plain text and tables on standard output, everything else on standard
error.

Rich is imported where a table or a live view is drawn, never before: it takes as long as half of `tidemill run`'s
start.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TextIO

from tidemill.domain.errors import TidemillError

WHOLE_COLUMNS = ("ID", "STATUS", "RECORDS", "SIZE", "VERSION", "CREATED", "STARTED", "ENDED", "CHANGED")
"""Columns that are not broken into lines, however narrow the terminal."""
EXIT_OK, EXIT_FAILED, EXIT_REFUSED, EXIT_INTERRUPTED = 0, 1, 2, 130
"""0 succeeded, 1 the task failed or was stopped (or something broke), 2 the request was refused, 130 Ctrl-C."""


class Output:
    """Where one command prints. json: one document on standard output. quiet: no progress and no notes."""

    def __init__(self, *, json: bool = False, quiet: bool = False) -> None:
        self.json = json
        self.quiet = quiet

    def document(self, value: object) -> None:
        """The JSON document of `--json`; nothing otherwise."""
        if self.json:
            write(sys.stdout, json.dumps(value, ensure_ascii=not is_utf8(sys.stdout), indent=2) + "\n")

    def line(self, text: str = "") -> None:
        """A line of the answer; nothing under `--json`."""
        if not self.json:
            write(sys.stdout, text + "\n")

    def text(self, text: str) -> None:
        """Text of a log, as it is; nothing under `--json`."""
        if not self.json:
            write(sys.stdout, text)

    def note(self, text: str) -> None:
        """A line for people, on standard error."""
        if not self.quiet:
            write(sys.stderr, text + "\n")

    def warn(self, text: str) -> None:
        """A line that must be seen."""
        write(sys.stderr, styled(sys.stderr, text, "1;33") + "\n")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Rows as a table as wide as the terminal; whole rows where there is none. Nothing under `--json`."""
        if self.json:
            return
        listed = [[_cell(value) for value in row] for row in rows]
        if not listed:
            self.note(empty)
            return
        from rich.cells import cell_len
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        terminal = sys.stdout.isatty()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        for index, name in enumerate(columns):
            cells = [row[index] for row in listed]
            whole = name in WHOLE_COLUMNS
            width = max(cell_len(text) for text in [name, *cells]) if whole else len(name)
            justify: Literal["left", "right"] = "right" if all(map(_is_number, cells)) else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=whole, min_width=width)
        for row in listed:
            table.add_row(*(Text(value, style=_style(value)) for value in row))
        Console(file=sys.stdout, width=None if terminal else 10_000, highlight=False, markup=False).print(table)

    def pairs(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values below each other; empty values are left out."""
        shown = [(name, _cell(value)) for name, value in pairs if value not in (None, "", {}, [])]
        width = max((len(name) for name, _ in shown), default=0)
        for name, value in shown:
            first, *more = value.splitlines() or [""]
            self.line(f"{name:<{width}}  {first}")
            for following in more:
                self.line(f"{'':<{width}}  {following}")

    def refusal(self, error: TidemillError) -> int:
        """Says what went wrong and what to do; the exit status that it means."""
        refused = error.status < 500
        if self.json:
            told = {"code": error.code, "message": error.message, "field": error.field, "remedy": error.remedy}
            self.document({"error": told})
        label = "refused" if refused else "error"
        text = f"{error.field}: {error.message}" if error.field else error.message
        write(sys.stderr, styled(sys.stderr, f"{label}:", "1;31") + f" {text}\n")
        if error.remedy:
            write(sys.stderr, f"         {error.remedy}\n" if refused else f"       {error.remedy}\n")
        return EXIT_REFUSED if refused else EXIT_FAILED


_STYLES = {
    "SUCCEED": "green",
    "READY": "green",
    "FAILED": "red",
    "SUBMIT_FAILED": "red",
    "STOPPED": "yellow",
    "STOPPING": "yellow",
    "RUNNING": "cyan",
    "STARTING": "cyan",
}


def _style(value: str) -> str:
    return "bold yellow" if value.startswith("SUCCEED,") else _STYLES.get(value, "")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key}={inner}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(str(inner) for inner in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _is_number(text: str) -> bool:
    return not text or text.replace(",", "").replace(".", "", 1).isdigit()


def is_utf8(stream: TextIO) -> bool:
    """Whether it can show all characters."""
    return (getattr(stream, "encoding", "") or "").lower().replace("-", "") == "utf8"


def styled(stream: TextIO, text: str, code: str) -> str:
    """Text in a terminal's colour, unless it is none or NO_COLOR is set (https://no-color.org)."""
    return f"\x1b[{code}m{text}\x1b[0m" if stream.isatty() and not os.environ.get("NO_COLOR") else text


def write(stream: TextIO, text: str) -> None:
    """Writes what the stream can show; other characters as escapes."""
    try:
        stream.write(text)
    except UnicodeEncodeError:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def counted(count: int, noun: str) -> str:
    """`1 record`, `2,000 records`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def printable(text: Any) -> str:
    """Text of others (records, messages) on one line, without characters that drive a terminal."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in str(text))
