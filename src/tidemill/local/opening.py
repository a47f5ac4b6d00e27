"""What `tidemill run` does before it starts anything.

It refuses what is wrong, takes the output folder, and finds what to go on with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tidemill.domain import ids
from tidemill.domain.errors import InvalidValue, OutputTaken
from tidemill.local.journal import FileJournal
from tidemill.local.models import LocalModel, check_model
from tidemill.local.place import FolderLock, home_of, journal_path
from tidemill.local.unfinished import check_same, find_unfinished, forget
from tidemill.objects.region import open_region
from tidemill.planning.check import Checked, check_task, locate_output, naming
from tidemill.ports.objects import Objects
from tidemill.publishing.claims import claim
from tidemill.settings import Settings
from tidemill.wire.taskfile import TaskFile


@dataclass(frozen=True)
class Opened:
    """A task that may start: the folder is claimed and locked. number: of this run of the task, from 1.

    journal: of the run that this one goes on with, None if it begins. replace: whether objects in the output folder may
    be replaced.
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

    @property
    def run(self) -> ids.RunId:
        return ids.run_id(self.id, self.number)

    @property
    def folder(self) -> Path:
        """Of the journal and logs; it is there from the plan until nothing is left to be resumed."""
        return journal_path(self.home, self.id).parent


def open_run(task: TaskFile, settings: Settings, *, base: Path, resume: bool, now_s: float) -> Opened:
    """Raises Refused in all its kinds, and leaves nothing behind then."""
    objects = _open_objects(task, settings)
    model = check_model(task, base)
    output = locate_output(task, base=str(base), local_paths=True)
    with naming("output.path"):
        home = home_of(objects, output, settings.data)
    owner = find_unfinished(objects, output, home)
    checked = check_task(task, objects, base=str(base), local_paths=True, owner=owner)
    lock = FolderLock(home, output)
    try:
        # What is found under the lock stays as it is.
        owner = find_unfinished(objects, output, home)
        journal = _unfinished(owner, task, objects, checked, model, home, resume=resume) if owner else None
        replace = task.output.if_exists == "replace" or owner is not None
        if owner is not None and journal is not None:
            number = int(journal.notes.get("runs", 1)) + 1
            journal.begin_run(ids.run_id(ids.TaskId(owner), number), number)
            lock.note(owner)
            return Opened(task, objects, model, checked, home, lock, ids.TaskId(owner), number, journal, replace)
        fresh = ids.new_task_id(int(now_s * 1000))
        lock.note(fresh)
        claim(objects, output, fresh, ids.run_id(fresh, 1))
        return Opened(task, objects, model, checked, home, lock, fresh, 1, None, replace)
    except BaseException:
        lock.release(remove=owner is None)
        raise


def _open_objects(task: TaskFile, settings: Settings) -> Objects:
    if task.region not in settings.regions:
        known = ", ".join(sorted(settings.regions))
        raise InvalidValue(f"there is no region {task.region!r}.", field="region", remedy=f"Declared are: {known}.")
    buckets = settings.regions[task.region].buckets
    return open_region(buckets, settings.data, local_paths=True, environment_buckets=True)


def _unfinished(
    owner: str, task: TaskFile, objects: Objects, checked: Checked, model: LocalModel, home: Path, *, resume: bool
) -> FileJournal | None:
    """The journal of an unfinished run to go on with; None where all of it was cleared away to begin anew."""
    output = checked.output
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
                remedy="Go on with it (--resume), replace it (output.if_exists: replace), or delete the folder.",
            )
        check_same(journal, objects, checked, model)
    except BaseException:
        journal.close()
        raise
    return journal
