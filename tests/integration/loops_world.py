"""The controllers over a real store and real folders, an engine in memory, and a clock that the test holds.

Loops do not run by themselves: `step` does what one look of a loop finds to do, so that a test says what happens when.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.engine import FakeEngine
from tidemill.coordination.coordinator import CoordinatorSettings
from tidemill.domain.ids import AccountId, InstanceId, RegionName, TaskId, new_task_id
from tidemill.domain.life import Reason
from tidemill.environments.builders import Builders
from tidemill.environments.finding import open_environments
from tidemill.loops.context import Context
from tidemill.loops.leases import WorkLease, WorkLeases
from tidemill.loops.loop import Handler
from tidemill.loops.place import PlaceLoop
from tidemill.loops.plan import PlanLoop
from tidemill.loops.publish import PublishLoop
from tidemill.loops.reconcile import ReconcileLoop
from tidemill.loops.release import ReleaseLoop
from tidemill.objects.region import open_region
from tidemill.planning.check import check_task
from tidemill.ports.clock import Clock
from tidemill.ports.engine import Resources
from tidemill.ports.objects import Objects
from tidemill.publishing.signing import SERVER, Signer
from tidemill.services.checks import dump_checked
from tidemill.services.regions import Region
from tidemill.services.runner import Runner
from tidemill.services.runs import NewRun, create_task, locked_run, output_uri, request_stop, resume_task
from tidemill.services.tokens import Tokens
from tidemill.settings import BucketSection, EnvironmentsSection, LimitsSection
from tidemill.store.base import Store
from tidemill.store.events import list_events
from tidemill.store.migrate import migrate
from tidemill.store.records import EventRow, InstanceRow, Owner, RunRow, TaskRow
from tidemill.store.runs import get_run, list_instances
from tidemill.store.tasks import get_task
from tidemill.wire.taskfile import dump_task, parse_task
from tidemill_runtime.contract import CONTRACT_VERSION, Commit, Counts, Cursor, Fault, Lease, Orders, Report

OWNER = Owner(AccountId("acme"), RegionName("local"), "ann")


class HeldClock(Clock):
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


@dataclass
class World:
    """One server's controllers. `another` is a second server over the same store, engine and folders."""

    folder: Path
    store: Store
    clock: HeldClock
    engine: FakeEngine
    objects: Objects
    name: str = "one"
    limits: LimitsSection = LimitsSection()
    swept: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        regions = {"local": Region("local", self.objects, self.engine, ("data",))}
        self.tokens = Tokens(b"key", 3600.0)
        self.context = Context(
            store=self.store,
            clock=self.clock,
            regions=regions,
            limits=self.limits,
            tokens=self.tokens,
            runner_url=lambda region: "http://127.0.0.1:1",
            builders=Builders(open_environments(EnvironmentsSection(), self.folder, isolated=True)),
            make_folder=lambda digest: self.folder / digest,
            sign=Signer(self.folder / "receipt-key.pem", SERVER).sign,
            started=self.clock.now(),
            closing=threading.Event(),
        )
        self.leases = WorkLeases(self.store, self.clock, self.name)
        self.runner = Runner(self.store, regions, self.tokens, self.clock, CoordinatorSettings())
        self.plan = PlanLoop(self.context)
        self.place = PlaceLoop(self.context)
        self.reconcile = ReconcileLoop(self.context)
        self.publish = PublishLoop(self.context)
        self.release = ReleaseLoop(self.context, lambda: self.swept.append("packages"))

    def another(self, name: str = "two") -> World:
        return World(self.folder, self.store, self.clock, self.engine, self.objects, name)

    # doing

    def task(self, lines: int = 3, **keys: Any) -> TaskId:
        """A task over one object with so many records, or as `keys` of the task file say."""
        number = len(list(self.folder.glob("in*")))
        source = self.folder / f"in{number}"
        source.mkdir()
        (source / "a.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(lines)))
        asked = {"name": f"task{number}", "model": "m", "input": f"{source}/", "output": f"{self.folder}/out{number}/"}
        spec = parse_task({**asked, "resources": {"cpu": 1, "memory": "256Mi"}, **keys})
        checked = check_task(spec, self.objects, base=None, local_paths=True)
        task = new_task_id(int(self.clock.now() * 1000) + number)
        values = {"name": spec.name, "spec": dump_task(spec), "tags": {}, "output": str(checked.output)}
        with self.store.write() as tx:
            create_task(tx, OWNER, task, values, self._new_run(spec, checked), self.clock.now() + number / 1000)
        return task

    def _new_run(self, spec: Any, checked: Any) -> NewRun:
        return NewRun(
            instances=spec.instances,
            priority=spec.priority,
            deadline=None if spec.deadline is None else self.clock.now() + spec.deadline,
            checked=dump_checked(checked),
            claim=output_uri(OWNER.region, checked.output),
            model_path=str(self.folder),
        )

    def resume(self, task: TaskId) -> None:
        row = self.row(task)
        spec = parse_task(row.spec)
        checked = check_task(spec, self.objects, base=None, local_paths=True, owner=task)
        with self.store.write() as tx:
            locked = get_task(tx, task, lock=True)
            assert locked is not None
            resume_task(tx, OWNER, locked, self._new_run(spec, checked), self.clock.now())

    def step(self, handler: Handler, *, errors: bool = False) -> list[str]:
        """What one look of a loop does; the subjects. errors: they are told to the handler, as the loop would."""
        done = []
        for subject in handler.due().subjects:
            with self.leases.hold(subject, handler.name) as lease:
                if lease is None:
                    continue
                done.append(subject)
                try:
                    handler.work(subject, lease)
                except Exception as error:
                    if not errors:
                        raise
                    handler.failed(subject, error, 1)
        return done

    def placed(self, **keys: Any) -> TaskId:
        """A task whose instances run."""
        task = self.task(**keys)
        self.step(self.plan)
        self.step(self.place)
        return task

    def report(self, instance: str, **values: Any) -> Orders:
        report = Report(CONTRACT_VERSION, instance, values.pop("state", "running"), **values)
        return self.runner.report(self.tokens.issue(InstanceId(instance), self.clock.now()), report)

    def compute(self, instance: str, failed: int = 0) -> Orders:
        """The instance does all that there is to lease, and is told that nothing is left."""
        orders = self.report(instance, want=4)
        while orders.leases:
            commits = [self.made(lease, failed) for lease in orders.leases]
            orders = self.report(instance, commits=commits, want=4)
        return orders

    def made(self, lease: Lease, failed: int = 0) -> Commit:
        """A part for a lease of one object, and its commit. failed: so many of the first records."""
        stop = lease.stop if lease.stop > 0 else lease.objects[0].size
        at, records = 0, []
        for line in Path(lease.objects[0].get.location).read_bytes().splitlines(keepends=True):
            if lease.start <= at < stop:
                records.append(line.rstrip())
            at += len(line)
        data = b"".join(b"null\n" if n < failed else line + b"\n" for n, line in enumerate(records))
        error = {"object": 0, "fault": "model_error", "type": "ValueError", "message": "poison", "traceback": ""}
        error |= {"attempts": 1, "input": None, "fingerprint": "f"}
        errors = b"".join(json.dumps({**error, "position": n}).encode() + b"\n" for n in range(failed))
        target = Path(lease.part.put.location)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data + errors)
        return Commit(
            split=lease.split,
            fence=lease.fence,
            part=lease.part.name,
            begin=lease.cursor,
            end=Cursor(len(lease.objects), 0),
            done=True,
            data_bytes=len(data),
            errors_bytes=len(errors),
            index_bytes=0,
            sha256=hashlib.sha256(data + errors).hexdigest(),
            counts=Counts(len(records), len(records) - failed, failed),
        )

    def fault(self, instance: str, kind: str, message: str = "it is so") -> None:
        self.report(instance, state="stopping", fault=Fault(kind, message))

    def stop(self, task: TaskId, reason: Reason = Reason.STOPPED_BY_USER) -> None:
        with self.store.write() as tx:
            request_stop(tx, locked_run(tx, self.row(task).run), reason, "", self.clock.now(), actor="ann")

    # seeing

    def row(self, task: TaskId) -> TaskRow:
        with self.store.read() as tx:
            found = get_task(tx, task)
        assert found is not None
        return found

    def run(self, task: TaskId) -> RunRow:
        with self.store.read() as tx:
            found = get_run(tx, self.row(task).run)
        assert found is not None
        return found

    def instances(self, task: TaskId) -> list[InstanceRow]:
        with self.store.read() as tx:
            return list_instances(tx, self.row(task).run)

    def events(self, task: TaskId) -> list[EventRow]:
        with self.store.read() as tx:
            return list_events(tx, task, limit=1000)

    def lease(self, subject: str, loop: str) -> WorkLease:
        """One that its owner has lost meanwhile."""
        return WorkLease(subject, loop, "nobody.0")


def open_world(url: str, folder: Path, capacity: Resources | None = None) -> World:
    store = Store(url)
    migrate(store)
    objects = open_region({"data": BucketSection()}, folder / "data", local_paths=True, retry_s=0.1)
    return World(folder, store, HeldClock(), FakeEngine(capacity or Resources(4000, 4 << 30)), objects)
