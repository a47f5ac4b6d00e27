"""`tidemill environment …`: what the requirements of models were installed into, on this machine."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from tidemill.cli.commands import DATA, Call, HelpfulGroup, command
from tidemill.cli.times import ago
from tidemill.domain.errors import NotFound
from tidemill.environments.cache import Cache, Kept
from tidemill.environments.finding import open_cache
from tidemill.wire.quantities import format_bytes

_ASKED_LETTERS = 48

app = typer.Typer(
    cls=HelpfulGroup, no_args_is_help=True, help="What requirements of models are installed into: list, clear."
)


@command(app, "list", server=False, overrides={"data": "data"}, more=[DATA])
def list_(call: Call, **_: object) -> None:
    """Those in the data folder, the last used first."""
    kept = _cache(call).entries()[::-1]
    call.out.document([_document(each) for each in kept])
    rows = [
        (
            each.environment.digest,
            len(each.environment.packages),
            format_bytes(each.environment.size_bytes),
            "now" if each.in_use else ago(datetime.fromtimestamp(each.used, UTC)),
            _asked(each),
        )
        for each in kept
    ]
    call.out.table(
        ["ENVIRONMENT", "PACKAGES", "SIZE", "USED", "REQUIREMENTS"],
        rows,
        empty="None yet. A model with a requirements.txt gets one when it is run first.",
    )


@command(app, "clear", server=False, overrides={"data": "data"}, more=[DATA])
def clear(
    call: Call,
    environment: Annotated[
        list[str] | None, typer.Argument(metavar="ENVIRONMENT", help="Those that begin so. Not given: all.")
    ] = None,
    **_: object,
) -> None:
    r"""Remove environments that nobody uses now. The next run of their models installs them anew.

    \b
    tidemill environment clear            all, so that unpinned requirements get their newest versions
    tidemill environment clear 7a680bb1
    """
    cache = _cache(call)
    known = [each.environment.digest for each in cache.entries()]
    wanted = [digest for digest in known if not environment or digest.startswith(tuple(environment))]
    for begin in environment or ():
        if not any(digest.startswith(begin) for digest in known):
            raise NotFound(f"there is no environment {begin!r}.", remedy="See `tidemill environment list`.")
    gone, kept = cache.clear(wanted)
    call.out.document({"removed": gone, "in_use": kept})
    call.out.line(f"{len(gone)} removed." if gone or not kept else "Nothing was removed.")
    for digest in kept:
        call.out.note(f"{digest} is in use.")


def _cache(call: Call) -> Cache:
    settings = call.loaded.settings
    return open_cache(settings.environments, settings.data)


def _document(each: Kept) -> dict[str, object]:
    made = each.environment
    return {
        "digest": made.digest,
        "folder": str(made.folder),
        "requirements": list(made.requirements),
        "packages": made.packages,
        "size_bytes": made.size_bytes,
        "seconds": made.seconds,
        "created_at": datetime.fromtimestamp(made.created, UTC).isoformat(),
        "used_at": datetime.fromtimestamp(each.used, UTC).isoformat(),
        "in_use": each.in_use,
    }


def _asked(each: Kept) -> str:
    text = ", ".join(line for line in each.environment.requirements if not line.startswith("-"))
    return text if len(text) <= _ASKED_LETTERS else f"{text[: _ASKED_LETTERS - 1]}…"
