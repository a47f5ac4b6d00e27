"""`tidemill model …`: the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli.commands import Call, HelpfulGroup, command
from tidemill.cli.times import ago
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.wire.quantities import format_bytes

app = typer.Typer(cls=HelpfulGroup, no_args_is_help=True, help="The model repository: import, list, show, delete.")

Name = Annotated[str, typer.Argument(metavar="MODEL", help="A model, like churn; or one version, like churn@2.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@command(app, "import")
def import_(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the model; a new one, or one that gets a version.")
    ],
    package: Annotated[
        str,
        typer.Argument(
            metavar="PACKAGE", help="Folder (or tar or zip archive) with batch/model_service.py and what it reads."
        ),
    ],
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="What is new in this version.")
    ] = "",
    label: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="For finding it again.")
    ] = None,
) -> int:
    r"""Import a package as a new version. What the server has already is not sent again.

    \b
    tidemill model import churn ./model-dir
    """
    if not Path(package).exists():
        raise NotFound(f"there is nothing at {package!r}.", field="PACKAGE", remedy="Check the path.")
    labels = dict(_pair(text) for text in label or [])
    version = call.client.models.import_(name, package, description=description, labels=labels)
    call.out.document(version.model_dump(mode="json"))
    files = f"{version.files} file{'' if version.files == 1 else 's'}, {format_bytes(version.size_bytes)}"
    call.out.line(f"{version.reference}  {version.status}  {files}")
    for warning in version.warnings:
        call.out.warn(f"warning: {warning}")
    if version.status == "FAILED":
        call.out.warn(version.reason)
        return 1
    call.out.note(
        f"Use it: tidemill task create --model {version.reference} --input cos://data/in/ --output cos://data/out/"
    )
    return 0


@command(app, "list")
def list_(call: Call) -> None:
    """Models of the repository, by name."""
    models = list(call.client.models.all())
    call.out.document([model.model_dump(mode="json") for model in models])
    rows = [
        (m.name, m.versions, f"{m.name}@{m.latest}" if m.latest else "none is ready", ago(m.updated_at)) for m in models
    ]
    call.out.table(
        ["MODEL", "VERSIONS", "LATEST", "CHANGED"],
        rows,
        empty="No models yet. Import one: tidemill model import NAME PACKAGE",
    )


@command(app, "show")
def show(call: Call, name: Name) -> None:
    """A model and its versions; or one version, as NAME@NUMBER."""
    model, _, number = name.partition("@")
    found = call.client.models.get(model)
    versions = [v for v in call.client.models.versions(model) if not number or str(v.number) == number]
    call.out.document({**found.model_dump(mode="json"), "version_list": [v.model_dump(mode="json") for v in versions]})
    call.out.pairs(
        [("name", found.name), ("id", found.id), ("description", found.description), ("labels", found.labels)]
    )
    call.out.line()
    rows = [
        (
            v.reference,
            v.status,
            format_bytes(v.size_bytes),
            v.format,
            v.entry,
            ago(v.created_at),
            v.reason or v.description,
        )
        for v in versions
    ]
    call.out.table(["VERSION", "STATUS", "SIZE", "KIND", "ENTRY", "CREATED", ""], rows, empty="It has no such version.")


@command(app, "delete")
def delete(call: Call, name: Name, yes: Yes = False) -> None:
    """Delete a model with all its versions; or one version, as NAME@NUMBER."""
    model, _, number = name.partition("@")
    call.confirm(f"Delete {'version ' + number + ' of ' if number else ''}model {model}?", yes)
    gone = call.client.models.delete_version(model, int(number)) if number else call.client.models.delete(model)
    call.out.document(gone.model_dump(mode="json"))
    call.out.line(f"Deleted {name}: {', '.join(gone.removed)}.")


def _pair(text: str) -> tuple[str, str]:
    key, mark, value = text.partition("=")
    if not mark:
        raise InvalidValue(f"{text!r} is no pair.", field="--label", remedy="Write it like KEY=VALUE.")
    return key, value
