"""`tidemill object …`: inputs into the server's buckets, results out of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill.cli.commands import Call, HelpfulGroup, command
from tidemill.cli.times import local
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.wire.quantities import format_bytes

if TYPE_CHECKING:
    from tidemill.wire.package_views import ObjectView

app = typer.Typer(
    cls=HelpfulGroup, no_args_is_help=True, help="Objects of the server's buckets: put, get, list, delete."
)

Address = Annotated[str, typer.Argument(metavar="ADDRESS", help="cos://bucket/path; a folder ends in /.")]


@command(app, "put")
def put(
    call: Call,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A file, or a folder with all that is in it.")],
    address: Address,
) -> None:
    r"""Upload a file or a folder.

    \b
    tidemill object put ./in/ cos://data/in/
    tidemill object put customers.csv cos://data/in/
    """
    path = Path(source)
    if path.is_dir():
        folder = address.rstrip("/") + "/"
        pairs = [
            (file, folder + file.relative_to(path).as_posix()) for file in sorted(path.rglob("*")) if file.is_file()
        ]
        if not pairs:
            raise InvalidValue(f"{source!r} has no files.", field="SOURCE", remedy="Give a folder with files in it.")
    elif path.is_file():
        pairs = [(path, address + path.name if address.endswith("/") else address)]
    else:
        raise NotFound(f"no file or folder {source!r}.", field="SOURCE", remedy="Check the path.")
    views: list[ObjectView] = []
    for file, target in pairs:
        views.append(call.client.objects.put(target, file))
        call.out.note(f"{file} → {target}")
    call.out.document([view.model_dump(mode="json") for view in views])
    call.out.line(f"Uploaded {len(views):,} object{'' if len(views) == 1 else 's'} ({_total(views)}) to {address}")


@command(app, "get")
def get(
    call: Call,
    address: Address,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="File or folder; the current folder if left out.")
    ] = ".",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
) -> None:
    r"""Download an object, or with a / at the end all that is below a folder.

    \b
    tidemill object get cos://data/out/ ./out/
    """
    to = Path(target)
    if address.endswith("/"):
        found = list(call.client.objects.all(address))
        if not found:
            raise NotFound(f"nothing lies below {address}.", field="ADDRESS", remedy="See tidemill object list.")
        pairs = [(view.location, file_below(to, view.name)) for view in found]
    else:
        name = address.rpartition("/")[2]
        pairs = [(address, to / name if to.is_dir() or target.endswith("/") else to)]
    taken = next((file for _, file in pairs if file.exists()), None)
    if taken is not None and not force:
        raise Conflict(f"{str(taken)!r} is there already.", field="TARGET", remedy="Add --force to replace files.")
    for location, file in pairs:
        file.parent.mkdir(parents=True, exist_ok=True)
        call.client.objects.get(location, file)
        call.out.note(f"{location} → {file}")
    call.out.document([{"location": location, "file": str(file)} for location, file in pairs])
    call.out.line(f"Downloaded {len(pairs):,} object{'' if len(pairs) == 1 else 's'} to {target}")


@command(app, "list")
def list_(call: Call, address: Address) -> None:
    """Objects below a folder, by name."""
    found = list(call.client.objects.all(address))
    call.out.document([view.model_dump(mode="json") for view in found])
    rows = [(view.name, format_bytes(view.size_bytes), local(view.modified_at)) for view in found]
    call.out.table(["OBJECT", "SIZE", "CHANGED"], rows, empty=f"Nothing lies below {address}.")


@command(app, "delete")
def delete(
    call: Call, address: Address, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False
) -> None:
    """Delete an object, or with a / at the end all that is below a folder."""
    folder = address.endswith("/")
    call.confirm(f"Delete {'everything below ' if folder else ''}{address}?", yes)
    gone = call.client.objects.delete(address, recursive=folder)
    call.out.document(gone.model_dump(mode="json"))
    call.out.line(f"Deleted {', '.join(gone.removed) or 'nothing: it was not there'}.")


def file_below(folder: Path, name: str) -> Path:
    """The file of an object's name. Raises InvalidValue for a name that leads out of the folder."""
    parts = name.split("/")
    if any(part in ("", ".", "..") or os.sep in part for part in parts):
        raise InvalidValue(f"{name!r} cannot be a file's name here.", field="ADDRESS", remedy="Fetch it by itself.")
    return folder.joinpath(*parts)


def _total(views: list[ObjectView]) -> str:
    return format_bytes(sum(view.size_bytes for view in views))
