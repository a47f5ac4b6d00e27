"""What `tidemill run` does before it starts anything.

It refuses what is wrong, takes the output folder, and finds what to go on with.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from tidemill.domain import ids
from tidemill.domain.errors import InvalidValue, NotFound, OutputTaken, StorageDenied, StorageUnavailable, TidemillError
from tidemill.domain.location import parse_location
from tidemill.engines.machine import machine_resources
from tidemill.local.environment import RunEnvironment, look_at
from tidemill.local.journal import FileJournal
from tidemill.local.models import LocalModel, check_model
from tidemill.local.place import FolderLock, home_of, journal_path, noted_scratch
from tidemill.local.unfinished import check_same, clear, find_unfinished, forget
from tidemill.objects.environment import where_looked_for
from tidemill.objects.region import open_region
from tidemill.planning.check import Checked, check_task, locate_output, naming
from tidemill.planning.wanted import check_wanted
from tidemill.ports.engine import Resources
from tidemill.ports.objects import Objects
from tidemill.publishing.claims import check_output, claim
from tidemill.publishing.publisher import read_marker
from tidemill.settings import Settings
from tidemill.wire.quantities import format_bytes
from tidemill.wire.taskfile import TaskFile
from tidemill_runtime.contract import InputFormat

_CHECK_RETRY_S = 3.0
"""How long a storage that does not answer is tried while somebody waits to see whether the run starts."""
_RUN_RETRY_S = 10.0


@dataclass(frozen=True)
class Opened:
    """A task that may start: the folder is claimed and locked. number: of this run of the task, from 1.

    journal: of the run that this one goes on with, None if it begins. replace: whether objects in the output folder may
    be replaced. instances, resources: how many this machine can hold, and what each may use.
    environment: what the model needs, not installed yet.
    """

    task: TaskFile
    objects: Objects
    model: LocalModel
    checked: Checked
    home: Path
    lock: FolderLock
    id: ids.TaskId
    number: int
    journal: FileJournal | None
    replace: bool
    instances: int
    resources: Resources
    environment: RunEnvironment

    @property
    def run(self) -> ids.RunId:
        return ids.run_id(self.id, self.number)

    @property
    def folder(self) -> Path:
        """Of the journal and logs; it is there from the plan until nothing is left to be resumed."""
        return journal_path(self.home, self.id).parent


def open_run(task: TaskFile, settings: Settings, *, base: Path, resume: bool, now_s: float, scratch: str) -> Opened:
    """Raises Refused in all its kinds, and leaves nothing behind then. scratch: the folder of this run's instances."""
    try:
        return _open_run(task, settings, base, resume=resume, now_s=now_s, scratch=scratch)
    except (NotFound, StorageDenied, StorageUnavailable) as error:
        whereabouts = _whereabouts(error.field, task, settings)
        if whereabouts is None:
            raise
        later = " Nothing was started; try again later." if isinstance(error, StorageUnavailable) else ""
        raise type(error)(error.message, field=error.field, remedy=whereabouts + later) from error


def _open_run(task: TaskFile, settings: Settings, base: Path, *, resume: bool, now_s: float, scratch: str) -> Opened:
    objects = _open_objects(task, settings, _CHECK_RETRY_S)
    model = check_model(task, base)
    environment = look_at(settings, model.model, model.code)
    instances, resources = share_machine(task, machine_resources())
    output = locate_output(task, base=str(base), local_paths=True)
    with naming("output.path"):
        home = home_of(objects, output, settings.data)
        owner = find_unfinished(objects, output, home)
    checked = check_task(task, objects, base=str(base), local_paths=True, owner=owner)
    check_wanted(model.info, objects, checked)
    _check_readers(checked.formats.input)
    lock = FolderLock(home, output)
    try:
        left_over = noted_scratch(home)
        if left_over is not None:
            shutil.rmtree(left_over, ignore_errors=True)
        # What is found under the lock stays as it is.
        owner = find_unfinished(objects, output, home)
        journal = _unfinished(owner, task, objects, checked, model, home, resume=resume) if owner else None
        if owner is not None and journal is not None:
            task_id, number = ids.TaskId(owner), int(journal.notes.get("runs", 1)) + 1
            journal.begin_run(ids.run_id(task_id, number), number)
            lock.note(task_id, scratch)
        else:
            task_id, number = ids.new_task_id(int(now_s * 1000)), 1
            lock.note(task_id, scratch)
            claim(objects, output, task_id, ids.run_id(task_id, number))
        replace = task.output.if_exists == "replace" or owner is not None
        patient = _open_objects(task, settings, _RUN_RETRY_S)
        return Opened(
            task,
            patient,
            model,
            checked,
            home,
            lock,
            task_id,
            number,
            journal,
            replace,
            instances,
            resources,
            environment,
        )
    except BaseException:
        with suppress(TidemillError):  # the error that brought us here is the one to tell
            left = find_unfinished(objects, output, home)
            lock.release(remove=left is None)
        lock.release(remove=False)
        raise


def share_machine(task: TaskFile, machine: Resources) -> tuple[int, Resources]:
    """How many instances are started and what each may use: those that were asked for, as far as the machine goes.

    Raises InvalidValue if it cannot hold a single one.
    """
    asked = task.resources
    if asked.cpu is not None and asked.cpu > machine.millicores:
        raise InvalidValue(
            f"{asked.cpu / 1000:g} cores are more than this machine has ({machine.millicores / 1000:g}).",
            field="resources.cpu",
            remedy="Ask for fewer, or leave it out to use all.",
        )
    if asked.memory is not None and asked.memory > machine.memory_bytes:
        raise InvalidValue(
            f"{format_bytes(asked.memory)} are more than this machine has ({format_bytes(machine.memory_bytes)}).",
            field="resources.memory",
            remedy="Ask for less, or leave it out to use all.",
        )
    count = task.instances
    if asked.cpu is not None:
        count = min(count, machine.millicores // asked.cpu)
    if asked.memory is not None:
        count = min(count, machine.memory_bytes // asked.memory)
    cpu = asked.cpu or max(100, machine.millicores // count)
    return count, Resources(cpu, asked.memory or machine.memory_bytes // count)


def _check_readers(found: InputFormat) -> None:
    """Raises InvalidValue if what reads the format is not installed. Instances run by this very Python."""
    needed = "pyarrow" if found.type == "parquet" else "zstandard" if found.compression == "zstd" else None
    if needed is not None and find_spec(needed) is None:
        extra = "parquet" if needed == "pyarrow" else "zstd"
        raise InvalidValue(
            f"{found.type if needed == 'pyarrow' else 'zstd'} is read by {needed}, which is not installed.",
            field="format",
            remedy=f"Install it: pip install 'tidemill-runtime[{extra}]'.",
        )


def _open_objects(task: TaskFile, settings: Settings, retry_s: float) -> Objects:
    if task.region not in settings.regions:
        known = ", ".join(sorted(settings.regions))
        raise InvalidValue(f"there is no region {task.region!r}.", field="region", remedy=f"Declared are: {known}.")
    buckets = settings.regions[task.region].buckets
    return open_region(buckets, settings.data, local_paths=True, environment_buckets=True, retry_s=retry_s)


def _whereabouts(field: str | None, task: TaskFile, settings: Settings) -> str | None:
    """Where the bucket that a field of the task names was looked for, if only the environment describes it."""
    places = {"input.path": task.input.path, "output.path": task.output.path}
    bucket = parse_location(places[field], field=field, base="/").bucket if field in places else None
    declared = settings.regions[task.region].buckets if task.region in settings.regions else {}
    return None if bucket is None or bucket in declared else where_looked_for(bucket)


def _unfinished(
    owner: str, task: TaskFile, objects: Objects, checked: Checked, model: LocalModel, home: Path, *, resume: bool
) -> FileJournal | None:
    """The journal of an unfinished run to go on with; None where all of it was cleared away to begin anew."""
    output = checked.output
    marker = read_marker(objects, output)
    if marker is not None and marker["task"] == owner and not (resume and journal_path(home, owner).exists()):
        clear(objects, output, home, owner)  # it was killed when all was done but that
        check_output(objects, output, if_exists=task.output.if_exists)
        return None
    replaces = task.output.if_exists == "replace" and not resume
    journal = None if replaces else FileJournal.open_(journal_path(home, owner), run="")
    totals = journal.totals() if journal is not None else None
    if journal is None or totals is None or not totals.counts.ok:
        # Nothing was predicted that is worth keeping: with a mended model this is a new beginning, not a resumption.
        if journal is not None:
            journal.close()
        forget(objects, output, home, owner)
        return None
    try:
        if not resume:
            raise OutputTaken(
                f"{output} holds an unfinished run, {totals.splits_done} of {totals.splits} splits done.",
                field="output.path",
                remedy="Go on with it (--resume), replace it (--replace, or output.if_exists: replace), or delete the "
                "folder.",
            )
        check_same(journal, objects, checked, model)
    except BaseException:
        journal.close()
        raise
    return journal
