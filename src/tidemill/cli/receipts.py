"""`tidemill receipt …`: whether results are still what their receipt says, and the key that this server signs by."""

from __future__ import annotations

from typing import Annotated

import typer

from tidemill.cli.commands import Call, HelpfulGroup, command
from tidemill.cli.output import EXIT_FAILED, EXIT_OK, counted
from tidemill.cli.task_app import task_of
from tidemill.wire.quantities import format_bytes

app = typer.Typer(
    cls=HelpfulGroup,
    no_args_is_help=True,
    help="Receipts: check results against them, show the key they are signed by.",
)

_SHOWN = 20


@command(app, "verify")
def verify(
    call: Call,
    target: Annotated[str, typer.Argument(metavar="FOLDER", help="Output folder, or a task's id or name.")],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Public key, or its id, that must have signed.")
    ] = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Do not compare the input with its listing.")] = False,
) -> int:
    r"""Check an output folder against its receipt, down to the last byte.

    \b
    tidemill receipt verify ./out/
    tidemill receipt verify cos://data/out/ --key 3f2a9c0d11e85b77
    tidemill receipt verify batch-…            the task's folder, signed by its server's key

    Exit status: 0 all is as the receipt says, 1 something differs, 2 there is no receipt.
    """
    from tidemill.local.verifying import verify as verify_folder  # reads storage itself: no server is needed

    folder = target
    if task := task_of(call, target, "FOLDER"):
        folder = call.client.tasks.get(task).output
        key = key or call.client.server().receipt_key
    found = verify_folder(folder, key=key, check_input=not no_input, settings=call.loaded.settings)
    differences = [{"name": each.name, "what": each.what} for each in found.differences]
    call.out.document(
        {
            "folder": folder,
            "task": found.task,
            "good": found.good,
            "signed_by": found.holder,
            "key": found.key,
            "key_given": key is not None,
            "objects": found.objects,
            "bytes": found.bytes,
            "input_checked": found.input_checked,
            "differences": differences,
        }
    )
    for each in found.differences[:_SHOWN]:
        call.out.line(f"{each.name}: {each.what}")
    if len(found.differences) > _SHOWN:
        call.out.line(f"… and {len(found.differences) - _SHOWN:,} more (--json lists all)")
    if found.differences:
        call.out.line(f"NOT what the receipt of {found.task} says: {counted(len(found.differences), 'difference')}.")
        return EXIT_FAILED
    whose = "the server" if found.holder == "server" else "a laptop, not a server"
    call.out.line(
        f"As the receipt of {found.task} says: {counted(found.objects, 'result')}, {format_bytes(found.bytes)}."
    )
    call.out.line(f"Signed by the key {found.key} of {whose}.")
    if key is None:
        call.out.note("Whose key that is was not checked: give the one that you expect with --key.")
    if not no_input and not found.input_checked:
        call.out.note("The input could not be looked at from here; its listing was checked, the objects were not.")
    return EXIT_OK


@command(app, "key")
def key(call: Call) -> None:
    """The public key that the server signs receipts by."""
    from tidemill.publishing.signing import key_id  # only here: the rest needs no cryptography

    public = call.client.server().receipt_key
    call.out.document({"key": key_id(public), "public_key": public, "algorithm": "ed25519"})
    call.out.pairs([("key", key_id(public)), ("public key", public), ("algorithm", "ed25519")])
