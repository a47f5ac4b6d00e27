"""Which names below an input folder a task takes: `input.include` and `input.exclude`. Used by `check` and `plan`.

As in .gitignore: a pattern without `/` is matched against the last part of a name, wherever it lies; one with `/`
against the whole name from the input folder on, where `*` stays within one part and `**` crosses them. `logs/` means
all below it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue


def selector(include: Sequence[str], exclude: Sequence[str]) -> Callable[[str], bool]:
    """A test of names: is it an input at all (`layout.is_input`), included, and not excluded?

    Raises InvalidValue naming the pattern that cannot be one.
    """
    wanted = [_compile(pattern, "input.include") for pattern in include]
    unwanted = [_compile(pattern, "input.exclude") for pattern in exclude]

    def takes(name: str) -> bool:
        if not layout.is_input(name):
            return False
        if wanted and not any(matches(name) for matches in wanted):
            return False
        return not any(matches(name) for matches in unwanted)

    return takes


def _compile(pattern: str, field: str) -> Callable[[str], object]:
    if not pattern or pattern.startswith("/") or "//" in pattern:
        raise InvalidValue(
            f"{pattern!r} is not a pattern of names below the input folder.",
            field=field,
            remedy="Write it like *.jsonl or 2026/**.",
        )
    try:
        compiled = re.compile(_regex(pattern if not pattern.endswith("/") else pattern + "**"), re.DOTALL)
    except re.error as error:
        raise InvalidValue(f"{pattern!r} is not a pattern: {error}.", field=field) from error
    if "/" in pattern:
        return compiled.fullmatch
    return lambda name: compiled.fullmatch(name.rpartition("/")[2])


def _regex(pattern: str) -> str:
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        if pattern.startswith("**/", at) and (at == 0 or pattern[at - 1] == "/"):
            out.append("(?:[^/]+/)*")
            at += 3
        elif pattern.startswith("**", at):
            out.append(".*")
            at += 2
        elif char == "[" and (stop := pattern.find("]", at + 2)) > 0:
            inner = pattern[at + 1 : stop].replace("\\", "\\\\").replace("[", "\\[")
            out.append("[" + ("^" + inner[1:] if inner.startswith("!") else inner) + "]")
            at = stop + 1
        else:
            out.append({"*": "[^/]*", "?": "[^/]"}.get(char) or re.escape(char))
            at += 1
    return "".join(out)
