"""What all controllers are given, and what several of them need: a run's task file, its journal, its pauses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tidemill.domain.errors import StorageFull, Temporary
from tidemill.domain.ids import RunId
from tidemill.domain.life import FINAL, PAUSED, Reason
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.receipt import Receipt
from tidemill.environments.builders import Builders
from tidemill.planning.check import Checked
from tidemill.ports.clock import Clock
from tidemill.ports.objects import Objects
from tidemill.services.checks import load_checked
from tidemill.services.life import explain_run
from tidemill.services.regions import Region, Regions, find_region
from tidemill.services.runs import locked_run
from tidemill.services.tokens import Tokens
from tidemill.settings import LimitsSection
from tidemill.store.base import Store, Tx
from tidemill.store.journal import SqlJournal
from tidemill.store.plans import get_plan
from tidemill.store.records import RunRow, TaskRow
from tidemill.store.runs import get_run
from tidemill.store.tasks import get_task
from tidemill.wire.taskfile import TaskFile, parse_task


class Pauses:
    """Why runs do not get on, by run and loop. In memory: who is paused after a restart finds out again."""

    def __init__(self) -> None:
        self._known: dict[RunId, dict[str, tuple[Reason, str]]] = {}
        self._lock = threading.Lock()

    def set(self, run: RunId, loop: str, why: tuple[Reason, str] | None) -> tuple[Reason, str] | None:
        """Notes or takes back one loop's reason; what is to be shown of the run then."""
        with self._lock:
            known = self._known.setdefault(run, {})
            known.pop(loop, None)
            if why is not None:
                known[loop] = why
            if not known:
                del self._known[run]
            return next(iter(known.values()), None)


@dataclass(frozen=True)
class Context:
    """runner_url: where the instances of a region find the server. builders: of the environments of models.
    make_folder: a package, by its digest, as a folder. sign: puts the server's signature on a receipt. started: when
    the server came up; closing: whether it is about to end.
    """

    store: Store
    clock: Clock
    regions: Regions
    limits: LimitsSection
    tokens: Tokens
    runner_url: Callable[[Region], str]
    builders: Builders
    make_folder: Callable[[str], Path]
    sign: Callable[[Receipt], Receipt]
    started: float
    closing: threading.Event = field(default_factory=threading.Event)
    pauses: Pauses = field(default_factory=Pauses)

    def known(self, rows: Sequence[RunRow]) -> list[RunRow]:
        """Those of regions that are declared: the others wait until theirs is again, and hold up nobody."""
        return [row for row in rows if row.region in self.regions]

    def pause(self, run: RunId, loop: str, error: Exception | None) -> None:
        """Shows that a loop cannot get on with a run because of what may go away by itself; None: it gets on again."""
        why = None if error is None else (pause_reason(error), str(error))
        with self.store.write() as tx:
            self.pause_in(tx, locked_run(tx, run), loop, why)

    def pause_in(self, tx: Tx, run: RunRow, loop: str, why: tuple[Reason, str] | None) -> None:
        """The same in a transaction that has the run locked."""
        shown = self.pauses.set(run.id, loop, why)
        if run.status in FINAL:
            return
        if shown is not None:
            explain_run(tx, run, *shown, self.clock.now())
        elif run.reason in PAUSED:
            explain_run(tx, run, Reason.NONE, "", self.clock.now())


def pause_reason(error: Exception) -> Reason:
    """Which pause a temporary error is."""
    return Reason.PAUSED_DISK_FULL if isinstance(error, StorageFull) else Reason.PAUSED_STORAGE


def is_temporary(error: Exception) -> bool:
    """Whether it may go away by itself, so that the run waits for that."""
    return isinstance(error, Temporary)


@dataclass(frozen=True)
class Job:
    """A run with all that is known of it. Read at one moment; who writes reads again."""

    context: Context
    task: TaskRow
    run: RunRow
    region: Region
    plan: Plan | None

    @classmethod
    def load(cls, context: Context, run: RunId) -> Job | None:
        """None for a run that is gone."""
        with context.store.read() as tx:
            row = get_run(tx, run)
            task = None if row is None else get_task(tx, row.task)
            plan = None if row is None or row.plan is None else get_plan(tx, row.plan)
        if row is None or task is None:
            return None
        return cls(context, task, row, find_region(context.regions, row.region), plan)

    @cached_property
    def spec(self) -> TaskFile:
        """The task file as this run takes it."""
        return parse_task(self.run.spec or self.task.spec)

    @cached_property
    def checked(self) -> Checked:
        assert self.run.checked is not None, "a run has been checked from its first transaction on"
        return load_checked(self.run.checked)

    @property
    def objects(self) -> Objects:
        return self.region.objects

    @property
    def output(self) -> Location:
        return self.checked.output

    @property
    def journal(self) -> SqlJournal:
        return SqlJournal(self.context.store, self.run.id, clock=self.context.clock)
