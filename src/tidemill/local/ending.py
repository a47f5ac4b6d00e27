"""How a run ended, where its time went, and what is kept of it when it has to be looked into. Used by `runner`."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tidemill.domain import ids
from tidemill.domain.errors import InputChanged, OutputTaken, PartDamaged, StorageFull, TidemillError
from tidemill.domain.life import Reason, TaskStatus
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.receipt import Receipt
from tidemill.local.journal import FileJournal
from tidemill.local.opening import Opened
from tidemill.local.result import PHASES
from tidemill.planning.check import input_account
from tidemill.planning.only_new import made_with
from tidemill.ports.objects import Objects
from tidemill.wire.taskfile import TaskFile
from tidemill.wire.taskpublic import dump_public

_KEPT_LOG_BYTES = 1 << 20
_MESSAGE_MAX = 500


@dataclass(frozen=True)
class End:
    """detail: what is known beyond the reason's own words."""

    status: TaskStatus
    reason: Reason
    detail: str = ""


@dataclass
class Timeline:
    """Moments of a run, monotonic seconds; None where it did not get that far. installing: since when its requirements
    were installed.
    """

    began: float
    spawned: float | None = None
    reported: float | None = None
    running: float | None = None
    computed: float | None = None
    installing: float | None = None

    def seconds(self, now: float) -> dict[str, float]:
        """Wall time by phase; together they are the total. What was not reached took no time."""
        moments = [self.began, self.installing, self.spawned, self.reported, self.running, self.computed, now]
        known = [moment if moment is not None else now for moment in moments]
        ordered = [min(known[at:]) for at in range(len(known))]  # a resumed run may have nothing to compute
        spent = {phase: ordered[at + 1] - ordered[at] for at, phase in enumerate(PHASES)}
        return {**spent, "total": now - self.began}


def end_of(error: Exception) -> End:
    """What an error that nobody could deal with means for the run."""
    if isinstance(error, StorageFull):
        return End(TaskStatus.STOPPED, Reason.DISK_FULL, str(error))
    reason = Reason.STORAGE_FAILED
    if isinstance(error, PartDamaged):
        reason = Reason.RESULT_DAMAGED
    elif isinstance(error, InputChanged):
        reason = Reason.INPUT_CHANGED
    elif isinstance(error, OutputTaken):
        reason = Reason.OUTPUT_TAKEN
    elif not isinstance(error, TidemillError | OSError):
        reason = Reason.INTERNAL
    return End(TaskStatus.FAILED, reason, str(error))


def first_error(journal: FileJournal, objects: Objects, parts: Location) -> str:
    """The first failed record that is committed, in words; nothing where there is none to be read."""
    for part in journal.all_parts():
        if part.errors_bytes:
            with suppress(TidemillError, ValueError, KeyError):
                text = objects.read(parts.child(part.name), part.data_bytes, part.data_bytes + part.errors_bytes)
                error = json.loads(text.partition(b"\n")[0])
                return f"The first: {error['type']}: {str(error['message'])[:_MESSAGE_MAX]}"
    return ""


def keep_logs(scratch: Path, folder: Path) -> Path | None:
    """Copies the logs of instances to where the run is resumed from; of a long one the end. Where they are: a file, or
    the folder of several; None where nothing was printed.
    """
    kept = []
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        for log in scratch.glob("*/log"):
            target = folder / f"{log.parent.name}.log"
            with log.open("rb") as source, target.open("wb") as copy:
                source.seek(max(0, log.stat().st_size - _KEPT_LOG_BYTES))
                shutil.copyfileobj(source, copy)
            if target.stat().st_size:
                kept.append(target)
    return kept[0] if len(kept) == 1 else folder if kept else None


def receipt_of(
    opened: Opened,
    plan: Plan,
    digests: list[str],
    seconds: dict[str, float],
    *,
    created: float,
    finished: float,
    replaced: int,
) -> Receipt:
    """The receipt of a run that succeeded, but for what the publisher fills in. created, finished: since the epoch."""
    task = opened.task
    checked = opened.checked
    model_sha256, code_sha256 = digests_by_kind(task, digests)
    return Receipt(
        task=opened.id,
        run=opened.run,
        name=task.name,
        status=TaskStatus.SUCCEED,
        actor=user_name(),
        region=task.region,
        input=input_account(checked, plan),
        created=created,
        finished=finished,
        phases_s={phase: spent for phase, spent in seconds.items() if phase in PHASES},
        instances=opened.instances,
        retries=replaced,
        runs=tuple(ids.run_id(opened.id, number) for number in range(1, opened.number + 1)),
        model=task.shown_model,
        model_sha256=model_sha256,
        code_sha256=code_sha256,
        environment={"python": ".".join(map(str, sys.version_info[:3])), **_digest(opened)},
        packages=opened.environment.packages,
        spec=dump_public(task),
        made_with=made_with(task, checked.formats),
        since=plan.since.account if plan.since else None,
    )


def digests_by_kind(task: TaskFile, digests: list[str]) -> tuple[str | None, str | None]:
    """Those of model and code, None where a task has no such folder. digests: of its folders, in order."""
    found = dict(zip(("model", "code") if task.model else ("code",), digests, strict=False))
    return found.get("model"), found.get("code")


def _digest(opened: Opened) -> dict[str, str]:
    return {"digest": opened.environment.digest} if opened.environment.digest else {}


def user_name() -> str:
    """Who runs this process, for the receipt."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return str(os.getuid())
