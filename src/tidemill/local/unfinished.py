"""What an earlier `tidemill run` left in an output folder, and whether this one may go on with it.

Called by `opening`, and by `runner` at the end.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InputChanged
from tidemill.domain.location import Location
from tidemill.domain.plan import Earlier, Plan, load_plan
from tidemill.local.journal import FileJournal
from tidemill.local.models import LocalModel, digest_of, stamp_of
from tidemill.local.place import journal_path, noted_task
from tidemill.objects.listing import name_order, paired, read_listing
from tidemill.planning.check import Checked
from tidemill.planning.plan import listed_inputs
from tidemill.ports.objects import Objects
from tidemill.publishing.claims import read_claim, release_claim
from tidemill.publishing.merging import result_names

_NAMED = 3


def find_unfinished(objects: Objects, output: Location, home: Path) -> str | None:
    """The task that owns the folder, if it was begun by `tidemill run` on this machine and is not finished."""
    noted = noted_task(home)
    owner = read_claim(objects, output) if noted is not None else None
    return owner.task if owner is not None and owner.task == noted else None


def forget(objects: Objects, output: Location, home: Path, task: str) -> None:
    """Removes what an unfinished run left: results that it has published already, and what `clear` removes."""
    journal = FileJournal.open_(journal_path(home, task), run="")
    if journal is not None:
        for unit in journal.units_published():
            lines = objects.read(output.child(layout.unit_manifest(task, unit.unit))).splitlines()
            objects.delete(output.child(json.loads(line)["name"]) for line in lines)
        for since in filter(None, [plan_of(journal).since]):
            if since.earlier.merged:
                objects.delete(output.child(name) for name in result_names(objects, since.earlier.folder))
        journal.close()
    clear(objects, output, home, task)


def clear(objects: Objects, output: Location, home: Path, task: str) -> None:
    """Removes what a run needed beside its results, and last its claim."""
    objects.delete_below(output.child(layout.task_folder(task)))
    shutil.rmtree(home / task, ignore_errors=True)
    release_claim(objects, output, task)


def header_of(checked: Checked, plan: Plan, model: LocalModel, stamp: str) -> dict[str, Any]:
    """What a journal has to know for `check_same` to compare, and for `plan_of` to read."""
    return {
        "plan": asdict(plan),
        "data": _data(checked),
        "model": [str(folder) for folder in model.folders()],
        "function": model.function,
        "command": model.command,
        "stamp": stamp,
    }


def plan_of(journal: FileJournal) -> Plan:
    return load_plan(journal.header["plan"])


def check_same(journal: FileJournal, objects: Objects, checked: Checked, model: LocalModel) -> None:
    """Raises Conflict or InputChanged, saying what differs, unless this run would compute the same as that before."""
    before, now = journal.header["data"], _data(checked)
    for key in before:
        if before[key] != now.get(key):
            raise _differs(f"it was begun with {key} {_shown(before[key])}, now it is {_shown(now.get(key))}", key)
    _check_model(journal, model)
    plan = plan_of(journal)
    sizes = ((each.name, each.size, each.etag) for each in read_listing(objects, plan.input.listing))
    found = ((each.name, each.size, each.etag) for each in listed_inputs(objects, checked))
    changed = list(islice(_differences(sizes, found), _NAMED + 1))
    if changed:
        more = " and others" if len(changed) > _NAMED else ""
        raise InputChanged(
            f"the input is not what it was when the run began: {', '.join(changed[:_NAMED])}{more}.",
            field="input.path",
            remedy="Restore it, or start anew with output.if_exists: replace.",
        )


def _check_model(journal: FileJournal, model: LocalModel) -> None:
    if journal.header.get("function") != model.function:
        raise _differs(f"it was begun with {journal.header.get('function') or 'no function'}", "function")
    if journal.header.get("command") != model.command:
        raise _differs("the command is not the one that it was begun with", "command")
    folders = model.folders()
    if stamp_of(folders) == journal.header["stamp"]:
        return
    digests = journal.notes.get("digests")
    if digests is None or [digest_of(folder) for folder in folders] != digests:
        raise _differs("the model is not the one that it was begun with", "model")


def _differs(what: str, field: str) -> Conflict:
    return Conflict(
        f"the unfinished run cannot be gone on with: {what}.",
        field=field,
        remedy="Restore it, or start anew with output.if_exists: replace.",
    )


def _data(checked: Checked) -> dict[str, Any]:
    formats = checked.formats
    return {
        "input.path": str(checked.input),
        "input.include": list(checked.include),
        "input.exclude": list(checked.exclude),
        "format": dict(vars(formats.input)),
        "format.result": dict(vars(formats.result)),
        "only_new": None if checked.since is None else _told(checked.since),
    }


def _told(since: Earlier) -> dict[str, str]:
    output = "merged" if since.merged else "delta"
    return {"since": str(since.folder), "output": output, "receipt": since.receipt_sha256}


def _shown(value: Any) -> str:
    return str(value)[:200]


_Row = tuple[str, int, str]


def _differences(before: Iterator[_Row], now: Iterator[_Row]) -> Iterator[str]:
    """Names that changed, in words."""
    for old, new in paired(before, now, lambda row: name_order(row[0])):
        if old is None:
            assert new is not None
            yield f"{new[0]!r} is new"
        elif new is None:
            yield f"{old[0]!r} is gone"
        elif old != new:
            yield f"{old[0]!r} was rewritten"
