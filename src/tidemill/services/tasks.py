"""Tasks, as the doors ask for them: create, find, follow, stop, resume, delete. What they make is in
`services.results`.
"""

from __future__ import annotations

from collections.abc import Sequence

from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InvalidValue, NotFound
from tidemill.domain.ids import AccountId, InstanceId, RegionName, TaskId
from tidemill.domain.life import FINAL, INSTANCE_FINAL, Reason, TaskStatus
from tidemill.domain.location import parse_location
from tidemill.domain.plan import NOTES
from tidemill.ports.clock import Clock
from tidemill.publishing.claims import release_claim
from tidemill.services.access import Actor
from tidemill.services.lookup import latest_run, own_task
from tidemill.services.making import TaskMaking
from tidemill.services.queries import TaskQuery, decode_cursor, encode_cursor
from tidemill.services.regions import Regions, find_region
from tidemill.services.runs import locked_run, request_stop
from tidemill.services.task_views import (
    Standing,
    event_view,
    instance_view,
    progress_view,
    run_view,
    task_summary,
    task_view,
)
from tidemill.store.base import Store, Tx
from tidemill.store.events import list_events, message_of
from tidemill.store.journal import SqlJournal
from tidemill.store.plans import delete_plans
from tidemill.store.records import InstanceRow, RunRow, TaskRow
from tidemill.store.runs import kept_instances, list_instances, list_runs, set_run
from tidemill.store.tasks import TaskFilter, count_tasks, delete_task, list_tasks
from tidemill.wire.requests import ResumeRequest
from tidemill.wire.taskfile import TaskFile
from tidemill.wire.views import (
    DeletedView,
    EventView,
    InstanceView,
    LogView,
    Page,
    ProgressView,
    RunView,
    TaskSummary,
    TaskView,
)
from tidemill_runtime.contract import Counts


class Tasks:
    def __init__(self, store: Store, clock: Clock, regions: Regions, making: TaskMaking) -> None:
        self._store = store
        self._clock = clock
        self._regions = regions
        self._making = making

    # changing

    def create(self, actor: Actor, task: TaskFile, key: str | None) -> TaskView:
        """The new task, or the one that was made under this idempotency key by the same request."""
        made = self._making.create(actor, task, key)
        return made if isinstance(made, TaskView) else self.get(actor, made)

    def stop(self, actor: Actor, task: TaskId) -> TaskView:
        """Asks for the end of a task. Raises Conflict for one that has ended otherwise than by being stopped."""
        with self._store.write() as tx:
            row = own_task(tx, actor, task, lock=True)
            if row.status in FINAL and row.status is not TaskStatus.STOPPED:
                raise Conflict(f"the task is {row.status}; there is nothing to stop.", field="task")
            run = locked_run(tx, row.run)
            request_stop(tx, run, Reason.STOPPED_BY_USER, "", self._clock.now(), actor=actor.user)
        return self.get(actor, task)

    def resume(self, actor: Actor, task: TaskId, change: ResumeRequest) -> TaskView:
        """A new run that computes what is missing."""
        self._making.resume(actor, task, change)
        return self.get(actor, task)

    def delete(self, actor: Actor, task: TaskId) -> DeletedView:
        """Removes a task that has ended, its staging first. Raises Conflict for one that has not. May be repeated."""
        with self._store.write() as tx:
            row = own_task(tx, actor, task, lock=True)
            if row.status not in FINAL:
                raise Conflict(f"the task is {row.status}.", field="task", remedy="Stop it, and wait for its end.")
            runs = list_runs(tx, task)
            for run in runs:  # from here on it cannot be resumed; if this is cut short, the sweep goes on with it
                if run.sweep_at is not None:
                    set_run(tx, run.id, {"sweep_at": 0.0})
            kept = [instance for run in runs for instance in kept_instances(tx, run.id)]
        self._remove_staging(row, kept)
        delete_plans(self._store, task)
        with self._store.write() as tx:
            row = own_task(tx, actor, task, lock=True)
            delete_task(tx, row)
        return DeletedView(
            id=task,
            removed=[f"task {row.name}", f"{len(runs)} runs with their history" if len(runs) > 1 else "its history"],
            kept=[f"the results in {row.output}"] if row.status is TaskStatus.SUCCEED else [f"what is in {row.output}"],
        )

    def _remove_staging(self, row: TaskRow, kept: Sequence[InstanceId]) -> None:
        region = find_region(self._regions, row.region)
        region.engine.forget(kept)
        output = parse_location(row.output, field="output").as_folder()
        region.objects.delete_below(output.child(layout.task_folder(row.id)))
        release_claim(region.objects, output, row.id)

    # reading

    def get(self, actor: Actor, task: TaskId) -> TaskView:
        with self._store.read() as tx:
            row = own_task(tx, actor, task)
            run = latest_run(tx, row)
            instances = list_instances(tx, run.id)
            standing = self._standing(tx, row, run)
            note = message_of(tx, row.id, run.id, NOTES)
        return task_view(row, run, instances, standing.counts, note, self._clock.now())

    def list(self, actor: Actor, query: TaskQuery, limit: int, cursor: str | None) -> Page[TaskSummary]:
        """A page, and how many match in all."""
        account, region = AccountId(actor.account), RegionName(query.region or "")
        find_region(self._regions, region)
        wanted = _filter(query)
        after = None
        if cursor:
            value, last = decode_cursor(cursor, [float, str])
            after = (value, str(last))
        with self._store.read() as tx:
            rows = list_tasks(
                tx,
                account,
                region,
                wanted,
                sort=query.order_by,
                descending=query.descending,
                after=after,
                limit=limit + 1,
            )
            total = count_tasks(tx, account, region, wanted)
            shown = [task_summary(row, self._counts(tx, row)) for row in rows[:limit]]
        more = len(rows) > limit
        key = (getattr(rows[limit - 1], query.order_by), rows[limit - 1].id) if more else ()
        return Page[TaskSummary](items=shown, next_cursor=encode_cursor(*key) if more else None, total=total)

    def progress(self, actor: Actor, task: TaskId) -> ProgressView:
        with self._store.read() as tx:
            return self._progress(tx, own_task(tx, actor, task))

    def follow(self, actor: Actor, task: TaskId, after: int, limit: int) -> tuple[ProgressView, Sequence[EventView]]:
        """Where the task is, and its events with an id above `after`: at the end of a task all of them."""
        with self._store.read() as tx:
            progress = self._progress(tx, own_task(tx, actor, task))  # first, so that no event of the end is missing
            return progress, [event_view(event) for event in list_events(tx, task, after=after, limit=limit)]

    def _progress(self, tx: Tx, row: TaskRow) -> ProgressView:
        run = latest_run(tx, row)
        instances = list_instances(tx, run.id)
        return progress_view(row, run, instances, self._standing(tx, row, run), self._clock.now())

    def runs(self, actor: Actor, task: TaskId) -> Page[RunView]:
        """Newest first."""
        now = self._clock.now()
        with self._store.read() as tx:
            own_task(tx, actor, task)
            found = list_runs(tx, task)
        return Page[RunView](items=[run_view(run, now) for run in reversed(found)], total=len(found))

    def instances(
        self, actor: Actor, task: TaskId, run: str | None, limit: int, cursor: str | None
    ) -> Page[InstanceView]:
        """Of one run or of all, the newest run first."""
        skip = int(decode_cursor(cursor, [int])[0]) if cursor else 0
        if skip < 0:
            raise InvalidValue("is not a cursor of this list.", field="cursor", remedy="Use `next_cursor` of a page.")
        with self._store.read() as tx:
            own_task(tx, actor, task)
            runs = [each for each in reversed(list_runs(tx, task)) if run is None or each.id == run]
            if run is not None and not runs:
                raise NotFound(f"no run {run[:80]!r} of this task.", field="run")
            found = [instance for each in runs for instance in list_instances(tx, each.id)]
        shown = found[skip : skip + limit]
        more = skip + limit < len(found)
        return Page[InstanceView](
            items=[instance_view(each) for each in shown],
            next_cursor=encode_cursor(skip + limit) if more else None,
            total=len(found),
        )

    def events(self, actor: Actor, task: TaskId, after: int, limit: int) -> Page[EventView]:
        """Events with an id above `after`, oldest first."""
        with self._store.read() as tx:
            own_task(tx, actor, task)
            found = list_events(tx, task, after=after, limit=limit + 1)
        more = len(found) > limit
        return Page[EventView](
            items=[event_view(event) for event in found[:limit]],
            next_cursor=str(found[limit - 1].id) if more else None,
        )

    def logs(self, actor: Actor, task: TaskId, instance: str | None, offset: int, limit_bytes: int) -> LogView:
        """What an instance printed, from a byte on; negative counts from what there is now."""
        with self._store.read() as tx:
            row = own_task(tx, actor, task)
            chosen = _choose(list_runs(tx, task), tx, instance)
        engine = find_region(self._regions, row.region).engine
        if offset < 0:
            size = engine.logs(chosen.id, 2**62, 0)[1]
            offset = max(0, min(size, 2**62) + offset)
        data, after = engine.logs(chosen.id, offset, limit_bytes)
        ended = chosen.status in INSTANCE_FINAL and len(data) < limit_bytes
        if not ended:
            whole = _whole_characters(data)
            after -= len(data) - len(whole)
            data = whole
        return LogView(
            instance=chosen.id,
            offset=after - len(data),
            next_offset=after,
            text=data.decode("utf-8", "replace"),
            ended=ended,
        )

    def _counts(self, tx: Tx, row: TaskRow) -> Counts | None:
        """Of committed work, for a task that is under way; its row has them once it has ended."""
        if row.status in FINAL or row.status is TaskStatus.INIT:
            return None
        return self._standing(tx, row, latest_run(tx, row)).counts

    def _standing(self, tx: Tx, row: TaskRow, run: RunRow) -> Standing:
        if run.status in FINAL or run.plan is None:
            return Standing(run.counts, run.splits_done, run.bytes_done, run.splits, run.bytes)
        totals = SqlJournal(self._store, run.id).totals_in(tx)
        return Standing(totals.counts, totals.splits_done, totals.bytes_done, totals.splits, totals.bytes)


def _filter(query: TaskQuery) -> TaskFilter:
    tags = dict(tag.split(":", 1) for tag in query.tags if ":" in tag)
    return TaskFilter(
        statuses=query.statuses,
        name=query.name,
        name_part=query.name_contains,
        model=query.model,
        tags=tags,
        tag_keys=[tag for tag in query.tags if ":" not in tag],
        created_from=None if query.created_after is None else query.created_after.timestamp(),
        created_until=None if query.created_before is None else query.created_before.timestamp(),
    )


def _whole_characters(data: bytes) -> bytes:
    """The bytes without a UTF-8 character that is cut off at their end; all of them, if nothing else were left."""
    for back in range(1, min(4, len(data))):
        lead = data[-back]
        if lead >= 0xC0:  # begins a character of 2, 3 or 4 bytes
            length = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return data[:-back] if length > back and len(data) > back else data
        if lead < 0x80:
            break
    return data


def _choose(runs: Sequence[RunRow], tx: Tx, instance: str | None) -> InstanceRow:
    """The instance of this id, or the newest. Raises NotFound."""
    for run in reversed(runs):
        found = [each for each in list_instances(tx, run.id) if instance is None or each.id == instance]
        if found:
            return max(found, key=lambda each: each.created)
    if instance is not None:
        raise NotFound(f"no instance {instance[:80]!r} of this task.", field="instance")
    raise NotFound("no instance was started yet.", field="instance", remedy="Wait until the task is placed.")
