"""A task from its file to its results, in one process with its instances as children: what `tidemill run` does.

The order is made for a quick start: what can be refused is refused first, then the instances are started, and while
Python and the model load in them, the input is listed and planned. Results are published while the rest is computed.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tidemill.coordination.coordinator import Coordinator, CoordinatorSettings, Wish
from tidemill.coordination.messages import write_manifest
from tidemill.domain import ids, layout
from tidemill.domain.errors import EnvironmentFailed, StorageUnavailable, TidemillError
from tidemill.domain.life import Reason, TaskStatus, explain
from tidemill.domain.plan import how_finished
from tidemill.domain.receipt import Receipt
from tidemill.domain.tuning import shown
from tidemill.domain.verdict import Standing, pause_of, verdict
from tidemill.engines.children import Children
from tidemill.local.background import BackgroundPublisher, Digests
from tidemill.local.crew import STORAGE_WITHIN_S, Crew
from tidemill.local.ending import End, Timeline, digests_by_kind, end_of, first_error, keep_logs, receipt_of
from tidemill.local.habits import habits_of
from tidemill.local.instances import Instance
from tidemill.local.interrupts import Interrupts
from tidemill.local.journal import FileJournal
from tidemill.local.launching import manifest_of
from tidemill.local.models import stamp_of
from tidemill.local.opening import Opened
from tidemill.local.place import journal_path
from tidemill.local.progress import Display, RunProgress
from tidemill.local.result import Result, finished_errors
from tidemill.local.unfinished import clear, forget, header_of, plan_of
from tidemill.planning.only_new import check_same_model
from tidemill.planning.plan import make_plan, processes_of
from tidemill.ports.clock import Clock
from tidemill.publishing.publisher import Finished, Publisher
from tidemill.publishing.signing import LAPTOP, LAPTOP_KEY_FILE, Signer
from tidemill.settings import Settings
from tidemill_runtime.contract import Counts

_TURN_S = 0.1
_RETRY_EVERY_S = 1.0
_REPORT_EVERY_S = 1.0
_LEASE_TTL_S = 1e9
"""A local instance that dies is seen at once: no lease ever expires, however the clock is set meanwhile."""


class _Interrupted(Exception):
    """The user asked for an end while the input was being planned."""


class LocalRun:
    """One run of a task whose folder is taken. `run` may be called once. began: monotonic seconds of the request."""

    def __init__(
        self,
        opened: Opened,
        settings: Settings,
        clock: Clock,
        children: Children,
        *,
        began: float,
        progress: Callable[[RunProgress], None],
    ) -> None:
        self._opened = opened
        self._task = opened.task
        self._settings = settings
        self._clock = clock
        self._created = clock.now()
        self._times = Timeline(began)
        self._display = Display(progress, opened.id, opened.instances)
        self._end: End | None = None
        self._note = ""
        self._children = children
        self._cleared = False
        self._habits = habits_of(settings.data, opened.model.folders(), opened.model.named)

    def run(self) -> Result:
        """Runs the task to its end, whatever that is. Raises what makes it impossible to plan."""
        opened = self._opened
        try:
            with Interrupts() as self._interrupts:
                return self._run()
        finally:
            opened.environment.close()
            opened.lock.release(remove=self._cleared)

    def _run(self) -> Result:
        opened = self._opened
        if opened.environment.digest is not None:
            result = self._install()
            if result is not None:
                return result
        self._show("planning")
        crew = self._crew = Crew(self._start, opened.instances, self._task.retries, self._clock)
        self._times.spawned = self._clock.monotonic()
        self._digests = Digests(opened.model.folders())
        log = None
        try:
            result = self._to_the_end()
        finally:
            crew.close()
            if not self._cleared:
                log = keep_logs(Path(self._children.root), opened.folder / "logs")
        return result if log is None or result.succeeded else replace(result, log=str(log))

    def _to_the_end(self) -> Result:
        journal = self._planned()
        if journal is None:
            return self._result(End(TaskStatus.STOPPED, Reason.INTERRUPTED, "Nothing was computed yet."), None)
        try:
            self._compute(journal)
            return self._finish(journal)
        finally:
            journal.close()

    def _install(self) -> Result | None:
        """Has the model's requirements at hand; the end of the run if that cannot be."""
        self._times.installing = self._clock.monotonic()
        self._show("installing")
        log = ""
        try:
            if self._opened.environment.install(
                self._children,
                cancelled=lambda: self._asked_to_end() is not None,
                tell=lambda doing: self._show("installing", told=doing),
            ):
                return None
            end = self._asked_to_end()
            assert end is not None, "that is what it was cancelled for"
        except EnvironmentFailed as error:
            end, log = End(TaskStatus.FAILED, Reason.ENVIRONMENT_FAILED, error.message), error.log
        except BaseException:
            self._leave()
            raise
        self._end = end
        kept = self._leave()
        return replace(self._result(end, None), log=log, resumable=kept)

    def _leave(self) -> bool:
        """Before anything is started: gives the output folder back, but for what an earlier run has committed there."""
        opened = self._opened
        if opened.journal is not None:
            opened.journal.close()
            return True
        with suppress(TidemillError):  # what brought us here is what has to be told
            forget(opened.objects, opened.checked.output, opened.home, opened.id)
            self._cleared = True
        return False

    def _start(self, index: int, attempt: int) -> Instance:
        """Starts one instance; called by the crew."""
        opened = self._opened
        instance = ids.instance_id(opened.run, index, attempt)
        child = self._children.start(instance)
        manifest = manifest_of(opened, self._settings, instance, child, self._habits.hints())
        child.tell(write_manifest(manifest))
        return Instance(instance, index, attempt, child)

    def _planned(self) -> FileJournal | None:
        """The journal of the run, planned now unless it goes on with one; None if the user had enough of waiting."""
        opened = self._opened
        if opened.journal is not None:
            self._plan = plan_of(opened.journal)
            self._note = self._plan.note
            return opened.journal

        def tick(_: int) -> None:
            if self._interrupts.count:
                raise _Interrupted

        try:
            since = opened.checked.since
            if since is not None and since.merged:
                model_sha256, code_sha256 = digests_by_kind(self._task, self._digests.wait())
                check_same_model(opened.objects, since, model_sha256=model_sha256, code_sha256=code_sha256)
            stamp = stamp_of(opened.model.folders())
            processes = processes_of(self._task, opened.instances, opened.resources.millicores)
            self._plan, splits = make_plan(opened.objects, opened.checked, opened.id, processes=processes, tick=tick)
            self._note = self._plan.note
            header = header_of(opened.checked, self._plan, opened.model, stamp)
            opened.folder.mkdir(parents=True, exist_ok=True)
            path = journal_path(opened.home, opened.id)
            return FileJournal.create(path, header, splits, run=opened.run)
        except BaseException as error:
            self._leave()
            if isinstance(error, _Interrupted):
                return None
            raise

    def _compute(self, journal: FileJournal) -> None:
        """Until every split is done, every instance gone and every unit published; or until the run has to end."""
        opened, crew = self._opened, self._crew
        output = opened.checked.output
        coordinator = Coordinator(
            journal,
            opened.objects,
            self._plan,
            input=opened.checked.input_folder,
            parts=output.child(layout.parts_folder(opened.id)),
            clock=self._clock,
            settings=CoordinatorSettings(_LEASE_TTL_S, self._settings.limits.grant_ttl_s, _REPORT_EVERY_S),
            instances=opened.instances,
        )
        self._publisher = Publisher(
            journal,
            opened.objects,
            self._plan,
            output,
            opened.id,
            opened.checked.formats.result,
            sign=self._sign,
            replace=opened.replace,
        )
        if not self._plan.splits:  # nothing is new: what was started ahead ends with the crew
            return
        crew.connect(coordinator, journal)
        crew.selector.register(self._interrupts, selectors.EVENT_READ, None)
        background = BackgroundPublisher(self._publisher, self._interrupts.wake)
        noted = False
        try:
            while not self._is_over(journal, background):
                crew.turn(_TURN_S)
                self._interrupts.drain()
                if not noted and self._digests.ready is not None:
                    journal.note(digests=self._digests.ready)
                    noted = True
                self._decide(journal, background)
                self._show_progress(journal)
        finally:
            background.stop()

    def _is_over(self, journal: FileJournal, background: BackgroundPublisher) -> bool:
        if self._end is not None:
            return self._crew.over
        totals = journal.totals()
        computed = totals.splits_done == totals.splits
        if computed and self._times.computed is None:
            self._times.computed = self._clock.monotonic()
            self._crew.dismiss()
        if totals.units_published < totals.units:
            if journal.units_ready(1):
                background.poke(last=computed)
            return False
        return computed and self._crew.over

    def _decide(self, journal: FileJournal, background: BackgroundPublisher) -> None:
        """Whether the run has to end before its time."""
        crew = self._crew
        if self._interrupts.count > 1:
            crew.end(Wish.STOP)
        if self._end is not None:
            return
        self._end = self._reason_to_end(journal, background)
        if self._end is not None:
            crew.end(Wish.FLUSH)

    def _reason_to_end(self, journal: FileJournal, background: BackgroundPublisher) -> End | None:
        asked = self._asked_to_end()
        if asked is not None:
            return asked
        if background.failure is not None:
            return end_of(background.failure)
        if self._crew.failure is not None:
            return self._crew.failure
        totals = journal.totals()
        standing = Standing(
            totals.counts, self._crew.pending, totals.bytes, totals.bytes_done, totals.splits_done == totals.splits
        )
        reason = verdict(standing, self._task.tolerance)
        return End(TaskStatus.FAILED, reason) if reason is not None else None

    def _asked_to_end(self) -> End | None:
        if self._interrupts.count:
            return End(TaskStatus.STOPPED, Reason.INTERRUPTED)
        deadline_s = self._task.deadline
        if deadline_s is not None and self._clock.monotonic() - self._times.began > deadline_s:
            return End(TaskStatus.STOPPED, Reason.DEADLINE)
        return None

    def _finish(self, journal: FileJournal) -> Result:
        opened = self._opened
        if self._end is None:
            self._show("publishing", journal)
            try:
                finished = self._publish_last()
            except TidemillError as error:
                self._end = end_of(error)
            else:
                with suppress(TidemillError):  # the results stand; what is left is cleared by the next run here
                    clear(opened.objects, opened.checked.output, opened.home, opened.id)
                    self._cleared = True
                reason, detail = how_finished(finished.counts, self._plan)
                return self._result(End(TaskStatus.SUCCEED, reason, detail), journal, finished.counts)
        if self._end.reason in (Reason.MODEL_ALWAYS_FAILS, Reason.TOO_MANY_FAILED_RECORDS):
            parts = opened.checked.output.child(layout.parts_folder(opened.id))
            self._end = End(self._end.status, self._end.reason, first_error(journal, opened.objects, parts))
        with suppress(TidemillError):  # where the disk is full, what is there has to do
            journal.note(ended={"status": self._end.status, "reason": self._end.reason, "detail": self._end.detail})
        return self._result(self._end, journal)

    def _publish_last(self) -> Finished:
        """errors.jsonl, receipt and marker; again while the storage does not answer, within reason."""
        receipt = receipt_of(
            self._opened,
            self._plan,
            self._digests.wait(),
            self._seconds(),
            created=self._created,
            finished=self._clock.now(),
            replaced=self._crew.replaced,
        )
        give_up_at = self._clock.monotonic() + STORAGE_WITHIN_S
        while True:
            try:
                return self._publisher.finish(receipt)
            except StorageUnavailable:
                if self._clock.monotonic() > give_up_at or self._interrupts.count:
                    raise
                self._crew.selector.select(_RETRY_EVERY_S)  # of its sockets none is left but that of the signals
                self._interrupts.drain()

    def _sign(self, receipt: Receipt) -> Receipt:
        """By this user's own key, which says no more than that it was made here."""
        data = self._settings.data
        data.mkdir(parents=True, exist_ok=True)
        return Signer(data / LAPTOP_KEY_FILE, LAPTOP).sign(receipt)

    # -- telling

    def _seconds(self) -> dict[str, float]:
        if self._times.spawned is not None:
            self._times.reported = self._crew.first_report_at
            self._times.running = self._crew.first_running_at
        return self._times.seconds(self._clock.monotonic())

    def _result(self, end: End, journal: FileJournal | None, counts: Counts | None = None) -> Result:
        """counts: of finished results; otherwise those of what is committed."""
        opened = self._opened
        output = opened.checked.output
        succeeded = end.status is TaskStatus.SUCCEED
        tuning = self._crew.tuning if journal is not None else {}
        if succeeded:
            self._habits.keep(tuning)
        totals = journal.totals() if journal is not None else None

        def errors() -> Iterator[bytes]:
            return finished_errors(opened.objects, output) if succeeded else self._publisher.errors()

        self._show("finished", journal)
        return Result(
            id=opened.id,
            status=end.status,
            reason=end.reason,
            explanation=explain(end.reason, end.detail),
            counts=counts or (totals.counts if totals is not None else Counts()),
            output=str(output),
            seconds=self._seconds(),
            tuning=shown(tuning),
            resumable=not succeeded and totals is not None and totals.counts.ok > 0,
            _objects=opened.objects,
            _folder=output,
            _result_type=opened.checked.formats.result.type,
            _errors=errors if journal is not None else None,
        )

    def _show_progress(self, journal: FileJournal) -> None:
        crew = self._crew
        if self._end is not None:
            phase = "stopping"
        elif self._times.computed is not None:
            phase = "publishing"
        elif crew.first_running_at is not None:
            phase = "predicting"
        else:
            phase = "loading" if crew.first_report_at is not None else "starting"
        self._show(phase, journal)

    def _show(self, phase: str, journal: FileJournal | None = None, told: str = "") -> None:
        paused = self._crew.paused if journal is not None and self._end is None else ""
        reason = self._end.reason if self._end is not None else pause_of(paused) if paused else Reason.NONE
        self._display.show(
            self._clock.monotonic(),
            phase,
            totals=journal.totals() if journal is not None else None,
            pending=self._crew.pending if journal is not None else Counts(),
            running=self._crew.running if journal is not None else 0,
            reason=reason,
            explanation=explain(reason, paused) if paused else told or self._note,
        )
