"""The model repository: versions of models, made from packages, checked before any task can use them.

A version is written down as CREATING, checked without a transaction, and then READY or FAILED with the reason; what
a dying server leaves CREATING is checked again at its next start (`finish_creating`).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tidemill.domain.errors import Conflict, InvalidValue, NotFound, TidemillError
from tidemill.domain.ids import VersionId, new_model_id, new_version_id
from tidemill.domain.life import FINAL, TaskStatus
from tidemill.domain.package import SIZE_ADVICE_BYTES
from tidemill.domain.references import LATEST, ModelReference
from tidemill.ports.clock import Clock
from tidemill.services.access import Actor
from tidemill.services.packages import Packages
from tidemill.services.queries import decode_cursor, encode_cursor
from tidemill.store.base import Store, Tx
from tidemill.store.models_tables import VersionStatus, model_versions, models
from tidemill.store.tables import tasks
from tidemill.wire.package_views import ModelView, PackageView, VersionView
from tidemill.wire.quantities import format_bytes
from tidemill.wire.requests import ModelPatch, VersionRequest
from tidemill.wire.taskfile import TaskFile, check_name
from tidemill.wire.views import DeletedView, Page
from tidemill_runtime.contract import Command
from tidemill_runtime.models.inspect import ENTRY
from tidemill_runtime.models.kinds import PackageError, PackageInfo, inspect_package

ENTRY_BYTES_MAX = 4 * 1024 * 1024
"""No model_service.py that people wrote is larger; a larger one would keep the parser busy for long."""


@dataclass(frozen=True)
class ResolvedModel:
    """What a reference meant when the task was created. reference: by number."""

    version: VersionId
    reference: str
    digest: str
    warnings: tuple[str, ...]


class Models:
    def __init__(self, store: Store, packages: Packages, clock: Clock) -> None:
        self._store = store
        self._packages = packages
        self._clock = clock

    # making

    def create_version(self, actor: Actor, region: str, name: str, asked: VersionRequest) -> VersionView:
        """A new version, checked: READY, or FAILED with the reason. The model is made with its first version."""
        check_name(name, field="name")
        if asked.archive is not None:
            package = self._packages.create_from_archive(actor, asked.archive)
        else:
            package = self._packages.get(actor, asked.package or "")
        now = self._clock.now()
        version = new_version_id(int(now * 1000))
        with self._store.write() as tx:
            self._packages.require(tx, actor, package.digest)  # again: a sweep may have been here
            model, number = self._next_number(tx, actor, region, name, now)
            tx.execute(
                sa.insert(model_versions).values(
                    id=version,
                    account=actor.account,
                    region=region,
                    actor=actor.user,
                    model=model,
                    number=number,
                    status=VersionStatus.CREATING,
                    description=asked.description,
                    labels=asked.labels,
                    package=package.digest,
                    size_bytes=package.size_bytes,
                    files=len(package.files),
                    warnings=_size_advice(package.size_bytes),
                    created=now,
                )
            )
        self._check(version, package.digest)
        with self._store.read() as tx:
            return _version_view(self._version_row(tx, actor, region, ModelReference(name, number)))

    def _next_number(self, tx: Tx, actor: Actor, region: str, name: str, now: float) -> tuple[str, int]:
        values = {
            "id": new_model_id(int(now * 1000)),
            "account": actor.account,
            "region": region,
            "actor": actor.user,
            "name": name,
            "labels": {},
            "last_number": 1,
            "created": now,
            "updated": now,
        }
        insert = tx.insert(models).values(values)
        counted = insert.on_conflict_do_update(
            index_elements=["account", "region", "name"],
            set_={"last_number": models.c.last_number + 1, "updated": now},
        ).returning(models.c.id, models.c.last_number)
        made = tx.execute(counted).one()
        return made.id, made.last_number

    def finish_creating(self) -> int:
        """Checks the versions that an earlier server left CREATING; how many. For the start of a server."""
        creating = sa.select(model_versions.c.id, model_versions.c.package).where(
            model_versions.c.status == VersionStatus.CREATING
        )
        with self._store.read() as tx:
            left = tx.execute(creating).all()
        for version in left:
            self._check(version.id, version.package)
        return len(left)

    def _check(self, version: str, digest: str) -> None:
        """Looks into the package, without a transaction, and writes down what was found."""
        found: dict[str, Any] = {"status": VersionStatus.READY}
        try:
            folder = self._packages.materialise(digest)
            found |= _inspected(folder)
        except TidemillError as error:
            found = {"status": VersionStatus.FAILED, "reason": str(error)}
        with self._store.write() as tx:
            tx.execute(
                sa.update(model_versions)
                .where(model_versions.c.id == version, model_versions.c.status == VersionStatus.CREATING)
                .values(found)
            )

    # reading

    def resolve(self, tx: Tx, actor: Actor, region: str, reference: ModelReference, *, field: str) -> ResolvedModel:
        """The version that a task is to use; it cannot be deleted before the transaction ends.

        Raises NotFound or Conflict (not READY), naming `field`.
        """
        try:
            row = self._version_row(tx, actor, region, reference, lock=True)
        except NotFound as error:
            raise NotFound(error.message, field=field, remedy=error.remedy) from None
        shown = f"{reference.name}@{row.number}"
        if row.status == VersionStatus.FAILED:
            raise Conflict(f"{shown} cannot be used: {row.reason}", field=field, remedy="Import a repaired version.")
        if row.status == VersionStatus.CREATING:
            raise Conflict(f"{shown} is still being checked.", field=field, remedy="Try again in a moment.")
        return ResolvedModel(VersionId(row.id), shown, row.package, tuple(row.warnings))

    def list(
        self, actor: Actor, region: str, name_contains: str | None, limit: int, cursor: str | None
    ) -> Page[ModelView]:
        """Models by name."""
        mine = (models.c.account == actor.account) & (models.c.region == region)
        if name_contains:
            mine &= models.c.name.contains(name_contains, autoescape=True)
        query = _models().where(mine).order_by(models.c.name).limit(limit + 1)
        if cursor:
            query = query.where(models.c.name > decode_cursor(cursor, [str])[0])
        with self._store.read() as tx:
            rows = tx.execute(query).all()
            total = tx.execute(sa.select(sa.func.count()).select_from(models).where(mine)).scalar_one()
        return Page[ModelView](
            items=[_model_view(row) for row in rows[:limit]],
            next_cursor=encode_cursor(rows[limit - 1].name) if len(rows) > limit else None,
            total=total,
        )

    def get(self, actor: Actor, region: str, name: str) -> ModelView:
        with self._store.read() as tx:
            return _model_view(self._model_row(tx, actor, region, name))

    def versions(self, actor: Actor, region: str, name: str, limit: int, cursor: str | None) -> Page[VersionView]:
        """The versions of a model, newest first."""
        with self._store.read() as tx:
            model = self._model_row(tx, actor, region, name)
            query = _versions().where(model_versions.c.model == model.id).order_by(model_versions.c.number.desc())
            if cursor:
                query = query.where(model_versions.c.number < decode_cursor(cursor, [int])[0])
            rows = tx.execute(query.limit(limit + 1)).all()
        return Page[VersionView](
            items=[_version_view(row) for row in rows[:limit]],
            next_cursor=encode_cursor(rows[limit - 1].number) if len(rows) > limit else None,
            total=model.versions,
        )

    def version(self, actor: Actor, region: str, reference: ModelReference) -> VersionView:
        with self._store.read() as tx:
            return _version_view(self._version_row(tx, actor, region, reference))

    def files(self, actor: Actor, region: str, reference: ModelReference) -> PackageView:
        """What a version is made of."""
        return self._packages.get(actor, self.version(actor, region, reference).package)

    # changing

    def change(self, actor: Actor, region: str, name: str, patch: ModelPatch) -> ModelView:
        values = {key: value for key in ("description", "labels") if (value := getattr(patch, key)) is not None}
        with self._store.write() as tx:
            row = self._model_row(tx, actor, region, name)
            tx.execute(sa.update(models).where(models.c.id == row.id).values(**values, updated=self._clock.now()))
            return _model_view(self._model_row(tx, actor, region, name))

    def delete(self, actor: Actor, region: str, name: str) -> DeletedView:
        """Removes a model with all its versions. Raises Conflict naming the task that uses one."""
        with self._store.write() as tx:
            row = self._model_row(tx, actor, region, name)
            locked = sa.select(model_versions.c.id, model_versions.c.number).where(model_versions.c.model == row.id)
            found = tx.execute(locked.order_by(model_versions.c.number).with_for_update()).all()
            self._refuse_used(tx, actor, region, {version.id: f"{name}@{version.number}" for version in found})
            tx.execute(sa.delete(models).where(models.c.id == row.id))
        removed = [f"version {name}@{version.number}" for version in found]
        return DeletedView(id=row.id, removed=[f"model {name}", *removed])

    def delete_version(self, actor: Actor, region: str, reference: ModelReference) -> DeletedView:
        """Removes one version; its number is not given again. Raises Conflict naming the task that uses it."""
        with self._store.write() as tx:
            row = self._version_row(tx, actor, region, reference, lock=True)
            shown = f"{reference.name}@{row.number}"
            self._refuse_used(tx, actor, region, {row.id: shown})
            tx.execute(sa.delete(model_versions).where(model_versions.c.id == row.id))
        return DeletedView(id=row.id, removed=[f"version {shown}"])

    def _refuse_used(self, tx: Tx, actor: Actor, region: str, versions: dict[str, str]) -> None:
        unfinished = [status for status in TaskStatus if status not in FINAL]
        using = sa.select(tasks.c.id, tasks.c.name, tasks.c.model_version).where(
            tasks.c.account == actor.account,
            tasks.c.region == region,
            tasks.c.status.in_(unfinished),
            tasks.c.model_version.in_(versions),
        )
        user = tx.execute(using.limit(1)).one_or_none()
        if user is not None:
            raise Conflict(
                f"{versions[user.model_version]} is used by the task {user.name!r} ({user.id}).",
                remedy="Stop it, or wait for its end.",
            )

    # rows

    def _model_row(self, tx: Tx, actor: Actor, region: str, name: str) -> sa.Row[Any]:
        mine = (models.c.account == actor.account) & (models.c.region == region) & (models.c.name == name)
        row = tx.execute(_models().where(mine)).one_or_none()
        if row is None:
            raise NotFound(
                f"no model {name[:80]!r}.", field="model", remedy="`tidemill model list` shows those there are."
            )
        return row

    def _version_row(
        self, tx: Tx, actor: Actor, region: str, reference: ModelReference, *, lock: bool = False
    ) -> sa.Row[Any]:
        query = _versions().where(
            models.c.account == actor.account, models.c.region == region, models.c.name == reference.name
        )
        if reference.number is not None:
            query = query.where(model_versions.c.number == reference.number)
        elif reference.alias == LATEST:
            query = query.where(model_versions.c.status == VersionStatus.READY)
        else:
            raise NotFound(f"no version {reference}.", field="model", remedy="Write NAME, NAME@2 or NAME@latest.")
        query = query.order_by(model_versions.c.number.desc()).limit(1)
        row = tx.execute(query.with_for_update(of=model_versions) if lock else query).one_or_none()
        if row is None:
            self._model_row(tx, actor, region, reference.name)
            raise NotFound(
                f"no version {reference}." if reference.number else f"no version of {reference.name!r} is READY.",
                field="model",
                remedy=f"`tidemill model show {reference.name}` shows those there are.",
            )
        return row


def check_callable(model: Path | None, code: Path | None, task: TaskFile | None = None) -> PackageInfo:
    """What is called of a model's and a code's folder, or the function or command that a task names. Raises
    InvalidValue with file and line where there is nothing.
    """
    if task is not None and task.command is not None:
        return _find_callable(model, code, task.function, task.command.contract())
    return _find_known(model, code, task.function if task is not None else None)


@lru_cache(maxsize=256)  # packages never change, and a refusal is not kept
def _find_known(model: Path | None, code: Path | None, function: str | None) -> PackageInfo:
    return _find_callable(model, code, function, None)


def _find_callable(model: Path | None, code: Path | None, function: str | None, command: Command | None) -> PackageInfo:
    field = "function" if function is not None else "model" if code is None else "code"
    for folder in (model, code):
        for place in () if folder is None else (folder / "batch" / ENTRY, folder / ENTRY):
            if place.is_file() and place.stat().st_size > ENTRY_BYTES_MAX:
                raise InvalidValue(f"{ENTRY} is larger than {format_bytes(ENTRY_BYTES_MAX)}.", field=field)
    try:
        return inspect_package(str(model) if model else None, str(code) if code else None, function, command)
    except PackageError as error:
        message = error.message
        for folder in (model, code):
            message = message.replace(f"{folder}/", "") if folder is not None else message
        line = f" (line {error.line})" if error.line and "line" not in message else ""
        raise InvalidValue(f"{message}{line}.", field=field, remedy="Repair it, and import it again.") from error
    except (RecursionError, MemoryError) as error:
        raise InvalidValue(f"{ENTRY} is nested too deeply to be read.", field=field) from error


def _inspected(folder: Path) -> dict[str, Any]:
    info = check_callable(folder, None)
    entry = info.entry if info.file is None else Path(info.file).relative_to(folder).as_posix()
    return {
        "format": info.kind,
        "entry": f"{entry}:{info.class_name}" if info.class_name else entry,
        "requirements": info.requirements is not None,
    }


def _size_advice(size_bytes: int) -> list[str]:
    if size_bytes <= SIZE_ADVICE_BYTES:
        return []
    return [f"The package has {format_bytes(size_bytes)}; more than 16 GB takes long to fetch and to load."]


def _models() -> sa.Select[Any]:
    of_model = model_versions.c.model == models.c.id
    latest = (
        sa.select(sa.func.max(model_versions.c.number))
        .where(of_model, model_versions.c.status == VersionStatus.READY)
        .scalar_subquery()
    )
    count = sa.select(sa.func.count()).select_from(model_versions).where(of_model).scalar_subquery()
    return sa.select(models, latest.label("latest"), count.label("versions"))


def _versions() -> sa.Select[Any]:
    return sa.select(model_versions, models.c.name).join(models, models.c.id == model_versions.c.model)


def _model_view(row: sa.Row[Any]) -> ModelView:
    return ModelView(
        id=row.id,
        name=row.name,
        region=row.region,
        description=row.description,
        labels=row.labels,
        versions=row.versions,
        latest=row.latest,
        created_at=_utc(row.created),
        updated_at=_utc(row.updated),
        created_by=row.actor,
    )


def _version_view(row: sa.Row[Any]) -> VersionView:
    return VersionView(
        id=row.id,
        model=row.name,
        number=row.number,
        reference=f"{row.name}@{row.number}",
        status=row.status,
        reason=row.reason,
        description=row.description,
        labels=row.labels,
        package=row.package,
        size_bytes=row.size_bytes,
        files=row.files,
        format=row.format,
        entry=row.entry,
        requirements=row.requirements,
        warnings=list(row.warnings),
        created_at=_utc(row.created),
        created_by=row.actor,
    )


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
