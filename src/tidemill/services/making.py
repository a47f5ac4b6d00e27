"""Making tasks, and new runs of them. Everything that can be known is checked before anything is written.

Storage and packages are looked at first, without a transaction; then one transaction checks again what may have changed
meanwhile, and writes task, run, claim and event together. Used by `services.tasks`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.domain.errors import Conflict, InvalidValue
from tidemill.domain.ids import AccountId, RegionName, TaskId, new_task_id
from tidemill.domain.life import RESUMABLE
from tidemill.domain.location import Location, parse_location
from tidemill.domain.references import ModelReference, parse_model, parse_package
from tidemill.environments.requirements import read_requirements
from tidemill.planning.check import Checked, check_task
from tidemill.planning.only_new import check_same_model
from tidemill.planning.wanted import check_wanted
from tidemill.ports.clock import Clock
from tidemill.publishing.publisher import check_result_format
from tidemill.services.access import Actor, check_allowed
from tidemill.services.checks import dump_checked
from tidemill.services.earlier import at_folder_of, check_still_there, earlier_task
from tidemill.services.lookup import latest_run, own_task
from tidemill.services.models import Models, check_callable
from tidemill.services.packages import Packages
from tidemill.services.regions import Region, Regions, find_region
from tidemill.services.runs import NewRun, create_task, resume_task
from tidemill.services.task_views import new_task_view, spec_of
from tidemill.store.base import Store, Tx
from tidemill.store.events import add_event
from tidemill.store.records import Owner, TaskRow
from tidemill.store.tasks import find_idempotent
from tidemill.wire.quantities import format_bytes
from tidemill.wire.requests import ResumeRequest
from tidemill.wire.taskfile import TaskFile, dump_task
from tidemill.wire.views import TaskView


@dataclass(frozen=True)
class _Program:
    """What a task runs: shown is the model as people see it. Digests of packages, None where there is none."""

    shown: str | None
    version: str | None
    model: str | None
    code: str | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Ready:
    """A task that was found to be good."""

    task: TaskFile
    region: Region
    program: _Program
    folders: dict[str, str]
    checked: Checked
    kind: str
    claim: str
    model_path: Path | None
    code_path: Path | None


class TaskMaking:
    """Creates tasks and new runs of them."""

    def __init__(self, store: Store, clock: Clock, regions: Regions, models: Models, packages: Packages) -> None:
        self._store = store
        self._clock = clock
        self._regions = regions
        self._models = models
        self._packages = packages

    def create(self, actor: Actor, task: TaskFile, key: str | None) -> TaskView | TaskId:
        """The new task; or the id of the one that was made under this idempotency key by the same request.

        Raises Conflict for a key that stands for another request, OutputTaken, and Refused of all kinds.
        """
        account, region = AccountId(actor.account), RegionName(task.region)
        spec = dump_task(task)
        digest = _request_digest(spec)
        if key is not None:
            with self._store.read() as tx:
                before = _made_before(find_idempotent(tx, account, region, key), digest)
            if before is not None:
                return before
        ready = self._check(actor, task)
        owner = Owner(account, region, actor.user)
        columns = {**_columns(ready), "spec": spec, "idempotency_key": key, "idempotency_digest": digest}
        with self._store.write() as tx:
            if key is not None:
                tx.serialise(f"idempotency {account} {region} {key}")
                before = _made_before(find_idempotent(tx, account, region, key), digest)
                if before is not None:
                    return before
            if ready.program != self._program(tx, actor, task, ready.folders):
                raise Conflict(f"{task.model!r} has changed meanwhile.", field="model", remedy="Try again.")
            now = round(self._clock.now(), 6)  # as it is shown, so that filters by what is shown are exact
            made = new_task_id(int(now * 1000))
            new = self._new_run(ready, now)
            create_task(tx, owner, made, columns, new, now)
            for warning in ready.program.warnings:
                _warn(tx, owner, made, warning, now)
        return new_task_view(made, owner, task, columns, now, new.deadline, ready.kind)

    def resume(self, actor: Actor, task: TaskId, change: ResumeRequest) -> None:
        """A new run of a stopped or failed task, that computes what is missing.

        Raises Conflict where that cannot be, and what `create` raises.
        """
        with self._store.read() as tx:
            row = own_task(tx, actor, task)
            spec = spec_of(row, latest_run(tx, row))
        check_resumable(row)
        given = {field: value for field in vars(change) if (value := getattr(change, field)) is not None}
        wanted = spec.replace(**given)
        if change.deadline is None:
            wanted = wanted.replace(deadline=None)  # it counted from the creation
        ready = self._check(actor, wanted, owner=task, packages=(row.model_digest, row.code_digest))
        with self._store.write() as tx:
            row = own_task(tx, actor, task, lock=True)
            check_resumable(row)
            now = round(self._clock.now(), 6)
            owner = Owner(AccountId(actor.account), row.region, actor.user)
            resume_task(tx, owner, row, self._new_run(ready, now, dump_task(wanted)), now)

    # before anything is written

    def _folders(self, actor: Actor, task: TaskFile) -> dict[str, str]:
        """Packages of `model` and `code` where they are folders of the server's own machine: field → digest."""
        found = {}
        for field in ("model", "code"):
            text = getattr(task, field)
            if text is not None and text.startswith(("/", "file://")):
                location = parse_location(text, field=field)
                check_allowed(actor, location, field=field)
                found[field] = self._packages.create_from_folder(actor, Path(location.key), field=field)
        return found

    def _check(
        self,
        actor: Actor,
        task: TaskFile,
        *,
        owner: TaskId | None = None,
        packages: tuple[str | None, str | None] | None = None,
    ) -> _Ready:
        """owner: the task that may own the output folder already. packages: model and code of a run before, which
        stay.
        """
        region = find_region(self._regions, task.region)
        _check_supported(task)
        _check_resources(task, region)
        folders = {} if packages else self._folders(actor, task)
        with self._store.read() as tx:
            program = _Program(None, None, *packages) if packages else self._program(tx, actor, task, folders)
            earlier = earlier_task(tx, actor, task)
        placed = at_folder_of(task, earlier)
        checked = check_task(placed, region.objects, base=None, local_paths=actor.operator, owner=owner)
        check_still_there(checked, earlier)
        check_same_model(region.objects, checked.since, model_sha256=program.model, code_sha256=program.code)
        check_result_format(checked.formats.result)
        model_path = self._packages.materialise(program.model) if program.model else None
        code_path = self._packages.materialise(program.code) if program.code else None
        info = check_callable(model_path, code_path, task)
        check_wanted(info, region.objects, checked)
        read_requirements(model_path, code_path)
        claim = _claim_uri(region, checked.output)
        return _Ready(task, region, program, folders, checked, info.kind, claim, model_path, code_path)

    def _program(self, tx: Tx, actor: Actor, task: TaskFile, folders: Mapping[str, str]) -> _Program:
        """What the task's references mean; what they mean stays as long as the transaction (if it writes)."""
        code = folders.get("code")  # what was just made of a folder needs no second look
        if task.code is not None and code is None:
            code = parse_package(task.code, field="code").digest
            self._packages.require(tx, actor, code, field="code")
        if task.model is None or "model" in folders:
            return _Program(task.model, None, folders.get("model"), code)
        named = parse_model(task.model, field="model")
        if isinstance(named, ModelReference):
            found = self._models.resolve(tx, actor, task.region, named, field="model")
            return _Program(found.reference, found.version, found.digest, code, found.warnings)
        self._packages.require(tx, actor, named.digest, field="model")
        return _Program(str(named), None, named.digest, code)

    def _new_run(self, ready: _Ready, now: float, spec: dict[str, Any] | None = None) -> NewRun:
        task = ready.task
        return NewRun(
            instances=task.instances,
            priority=task.priority,
            deadline=None if task.deadline is None else now + task.deadline,
            checked=dump_checked(ready.checked, kind=ready.kind),
            claim=ready.claim,
            model_path=None if ready.model_path is None else str(ready.model_path),
            code_path=None if ready.code_path is None else str(ready.code_path),
            spec=spec,
        )


def _warn(tx: Tx, owner: Owner, task: TaskId, warning: str, now: float) -> None:
    name = "task.warning"
    add_event(tx, owner, task, kind="task", subject=task, name=name, message=warning, warning=True, now=now)


def _columns(ready: _Ready) -> dict[str, Any]:
    task, program = ready.task, ready.program
    return {
        "name": task.name,
        "description": task.description,
        "tags": dict(task.tags),
        "output": str(ready.checked.output),
        "model": program.shown or task.shown_model,
        "model_version": program.version,
        "model_digest": program.model,
        "code_digest": program.code,
    }


def check_resumable(row: TaskRow) -> None:
    """Raises Conflict for a task that is not stopped and has not failed."""
    if row.status not in RESUMABLE:
        raise Conflict(
            f"the task is {row.status}.", field="task", remedy="Only stopped and failed tasks can be resumed."
        )


def _claim_uri(region: Region, folder: Location) -> str:
    """The one name of an output folder, however it is written: a real path, or region, bucket and key. Ends in `/`."""
    access = region.objects.grant_read(folder, 60.0)
    if access.kind == "path":
        return "file:" + os.path.realpath(access.location).rstrip("/") + "/"
    return f"bucket:{region.name}/{folder.bucket}/{folder.key}"


def _check_supported(task: TaskFile) -> None:
    """What a task may ask for only where there is something to give it."""
    if task.image is not None:
        raise InvalidValue(
            f"{task.image!r} needs a container engine, and this server has none.",
            field="image",
            remedy="Leave it out: the task then runs in the server's own Python.",
        )
    if task.secrets:
        raise InvalidValue(
            f"there is no secret {task.secrets[0]!r}.",
            field="secrets",
            remedy="This server stores no secrets; use env.",
        )


def _check_resources(task: TaskFile, region: Region) -> None:
    """Raises InvalidValue for what the engine could never give, even if nothing else ran."""
    capacity = region.engine.capacity()
    wanted = task.resources
    if wanted.gpu * 100 * task.instances > capacity.gpu_percent:
        raise InvalidValue(
            f"{wanted.gpu * task.instances:g} cards are asked for, the engine has {capacity.gpu_percent / 100:g}.",
            field="resources.gpu",
            remedy="Ask for fewer." if capacity.gpu_percent else "Leave it out.",
        )
    if (wanted.cpu or 0) * task.instances > capacity.millicores:
        raise InvalidValue(
            f"{task.instances} × {(wanted.cpu or 0) / 1000:g} cores are asked for, the engine has "
            f"{capacity.millicores / 1000:g}.",
            field="resources.cpu",
            remedy="Ask for less, or for fewer instances.",
        )
    if (wanted.memory or 0) * task.instances > capacity.memory_bytes:
        raise InvalidValue(
            f"{task.instances} × {format_bytes(wanted.memory or 0)} are asked for, the engine has "
            f"{format_bytes(capacity.memory_bytes)}.",
            field="resources.memory",
            remedy="Ask for less, or for fewer instances.",
        )


def _request_digest(spec: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()


def _made_before(row: TaskRow | None, digest: str) -> TaskId | None:
    """The task of an earlier request with this key. Raises Conflict if that was another request."""
    if row is None:
        return None
    if row.idempotency_digest != digest:
        raise Conflict(
            f"this key stands for another request, which made the task {row.id}.",
            field="Idempotency-Key",
            remedy="Use a new key for a new task.",
        )
    return row.id
