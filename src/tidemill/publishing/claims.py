"""Who owns an output folder, and whether results may be written to it. Used where tasks are created and ended."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tidemill.domain import layout
from tidemill.domain.errors import InvalidValue, NotFound, OutputTaken
from tidemill.domain.location import Location
from tidemill.domain.receipt import canonical
from tidemill.ports.objects import Objects

NAME_PART_BYTES_MAX = 255
NAME_BYTES_MAX = 1024
"""What file systems allow for one part of a path, and S3 for a whole key."""
_ATTEMPTS = 5


@dataclass(frozen=True)
class Claim:
    """What claim.json says: the task that owns the folder, and the run of it that wrote the claim."""

    task: str
    run: str


def check_output(objects: Objects, output: Location, *, if_exists: str, task: str | None = None) -> None:
    """Whether the results of a new task, or of `task` again, may be written below `output`. Nothing is written.

    if_exists: "refuse" or "replace". Raises OutputTaken if another task owns the folder, or if it holds objects (hidden
    ones aside) and they are not to be replaced. Whether it can be written to is for `planning.check` to say.
    """
    if not output.is_folder and objects.head(output) is not None:
        raise InvalidValue(f"{output} is an object, not a folder.", field="output", remedy="Name a folder.")
    owner = read_claim(objects, output)
    if owner is not None and owner.task == task:
        return
    if owner is not None:
        raise _owned(output, owner)
    if if_exists != "replace":
        found = next((info.name for info in objects.list(output) if _is_result(info.name)), None)
        if found is not None:
            raise OutputTaken(
                f"{output} holds other objects, {found!r} among them.",
                field="output",
                remedy="Name another folder, or replace what is there: --replace, or output.if_exists: replace.",
            )


def check_result_name(name: str) -> None:
    """Raises InvalidValue if no store could hold a result of this name; asked for each input before anything runs."""
    encoded = name.encode("utf-8", "surrogatepass")
    longest = max(map(len, encoded.split(b"/")))
    if longest > NAME_PART_BYTES_MAX or len(encoded) > NAME_BYTES_MAX:
        raise InvalidValue(
            f"the result {name[:80]!r}… would have a name of {max(longest, len(encoded))} bytes.",
            field="input",
            remedy=f"Rename the input: at most {NAME_PART_BYTES_MAX} bytes in each part of a path.",
        )


def claim(objects: Objects, output: Location, task: str, run: str) -> None:
    """Makes `task` the owner of the folder. Repeating it, or a later run of the task, is no error.

    Raises OutputTaken naming the owner. One of many contenders wins.
    """
    where = output.child(layout.CLAIM)
    for _ in range(_ATTEMPTS):
        if objects.create(where, canonical({"task": task, "run": run})):
            return
        owner = read_claim(objects, output)
        if owner is None:
            continue  # it was released between the two looks
        if owner.task != task:
            raise _owned(output, owner)
        return
    raise OutputTaken(f"{output} is claimed and released by others all the time.", field="output")


def release_claim(objects: Objects, output: Location, task: str) -> None:
    """Gives the folder up, if `task` still owns it. Repeating it is no error."""
    owner = read_claim(objects, output)
    if owner is not None and owner.task == task:
        objects.delete([output.child(layout.CLAIM)])


def read_claim(objects: Objects, output: Location) -> Claim | None:
    """The folder's claim, or None."""
    try:
        text = objects.read(output.child(layout.CLAIM))
    except NotFound:
        return None
    try:
        values = json.loads(text)
        return Claim(str(values["task"]), str(values["run"]))
    except (ValueError, KeyError, TypeError):
        return Claim("an unknown task (claim.json cannot be read)", "")


def _is_result(name: str) -> bool:
    return not name.startswith(layout.STAGING) and not name.rpartition("/")[2].startswith(".")


def _owned(output: Location, owner: Claim) -> OutputTaken:
    return OutputTaken(
        f"{output} belongs to {owner.task}.",
        field="output",
        remedy=f"Name another folder or wait for that task to end (if there is none such, delete {layout.CLAIM}).",
    )
