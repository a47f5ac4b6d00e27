"""Packages of an account: taking them in, naming them by digest, making them folders, and removing what nobody uses.

Called by the API (uploads), `services.models` (imports), `services.tasks` (code) and the place loop (`materialise`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tidemill.domain.errors import NotFound, TooLarge
from tidemill.domain.ids import AccountId
from tidemill.domain.life import FINAL
from tidemill.domain.package import PackageFile, check_package
from tidemill.objects.folders import folder_stamp, scan_folder
from tidemill.ports.clock import Clock
from tidemill.services.access import Actor
from tidemill.store.archives import read_archive, without_wrapper
from tidemill.store.base import Store, Tx
from tidemill.store.blobs import Blobs, BlobWriter, check_sha256
from tidemill.store.models_tables import model_versions
from tidemill.store.packages_tables import packages
from tidemill.store.tables import runs, tasks
from tidemill.wire.package_views import FileEntry, PackageView

UNUSED_S = 24 * 3600.0
"""Uploads that no package needs, and packages that nothing uses, are kept this long: the next try needs no upload."""


USED_EVERY_S = 3600.0
"""How exactly it is noted when a package was last asked for."""
_FOLDERS_KNOWN = 64
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class _Folder:
    """A folder that was made a package, as long as no sweep can have taken it."""

    stamp: str
    digest: str
    until: float


class Packages:
    """limit_bytes, limit_files: of one package, unpacked."""

    def __init__(self, store: Store, blobs: Blobs, clock: Clock, *, limit_bytes: int, limit_files: int) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._limit_bytes = limit_bytes
        self._limit_files = limit_files
        self._folders: dict[tuple[AccountId, Path], _Folder] = {}

    def blob_size(self, sha256: str) -> int:
        """Bytes of a blob that is here. Raises NotFound."""
        size = self._blobs.size(sha256)
        if size is None:
            raise NotFound(f"no blob {sha256}.", field="sha256", remedy="Upload it.")
        return size

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of `digests` that have to be uploaded."""
        return [sha256 for sha256 in dict.fromkeys(digests) if self._blobs.size(sha256) is None]

    def upload(self, sha256: str, size: int | None) -> BlobWriter:
        """What receives a blob. size: as announced. Raises InvalidValue, TooLarge."""
        check_sha256(sha256)
        return self._blobs.writer(sha256, size=size)

    def create(self, actor: Actor, files: Iterable[PackageFile]) -> PackageView:
        """A package of blobs that are here. The same files give the same package."""
        listed = check_package(files)
        self._check_limits(listed)
        digest = self._blobs.put_package(listed)
        now = self._clock.now()
        with self._store.read() as tx:
            mine = (packages.c.account == actor.account) & (packages.c.digest == digest)
            used = tx.execute(sa.select(packages.c.used).where(mine)).scalar_one_or_none()
        if used is not None and used > now - USED_EVERY_S:
            return package_view(digest, listed)  # known and safe from a sweep: nothing to write
        with self._store.write() as tx:
            values = {
                "digest": digest,
                "account": actor.account,
                "region": "",
                "actor": actor.user,
                "size_bytes": sum(file.size for file in listed),
                "files": len(listed),
                "created": now,
                "used": now,
            }
            insert = tx.insert(packages).values(values)
            tx.execute(insert.on_conflict_do_update(index_elements=["account", "digest"], set_={"used": now}))
        return package_view(digest, listed)

    def create_from_archive(self, actor: Actor, sha256: str) -> PackageView:
        """The package that an uploaded archive holds. Raises InvalidValue or TooLarge naming what is wrong in it."""
        self.blob_size(sha256)
        found: list[PackageFile] = []
        for member in read_archive(self._blobs.path(sha256), limit_bytes=self._limit_bytes):
            digest, size = self._store_member(member.content)
            found.append(PackageFile(member.path, digest, size, member.executable))
        return self.create(actor, without_wrapper(found))

    def create_from_folder(self, actor: Actor, folder: Path, *, field: str) -> str:
        """The digest of the package that a folder of this machine is. Read again only if something in it was written.

        Raises NotFound, InvalidValue, TooLarge naming `field`.
        """
        stamp = folder_stamp(folder, field=field)
        known = self._folders.get((actor.account, folder))
        if known is not None and known.stamp == stamp and known.until > self._clock.now():
            return known.digest
        files = scan_folder(folder, field=field)
        for file in files:
            if self._blobs.size(file.sha256) is None:
                self._blobs.put(read_chunks(folder / file.path), file.sha256)
        digest = self.create(actor, files).digest
        while len(self._folders) >= _FOLDERS_KNOWN:
            self._folders.pop(next(iter(self._folders)), None)
        self._folders[actor.account, folder] = _Folder(stamp, digest, self._clock.now() + USED_EVERY_S)
        return digest

    def _store_member(self, content: Iterator[bytes]) -> tuple[str, int]:
        with self._blobs.unnamed_writer() as writer:
            for chunk in content:
                writer.write(chunk)
            size = writer.finish()
        return writer.sha256, size

    def _check_limits(self, files: list[PackageFile]) -> None:
        size = sum(file.size for file in files)
        if size > self._limit_bytes:
            raise TooLarge(
                f"the package has {size} bytes, {self._limit_bytes} are allowed.",
                field="files",
                remedy="Leave data out, or ask the operator for a higher limits.package_bytes.",
            )
        if len(files) > self._limit_files:
            raise TooLarge(
                f"the package has {len(files)} files, {self._limit_files} are allowed.",
                field="files",
                remedy="Leave data out, or ask the operator for a higher limits.package_files.",
            )

    def get(self, actor: Actor, digest: str) -> PackageView:
        """Raises NotFound, also for another account's."""
        with self._store.read() as tx:
            self.require(tx, actor, digest)
        return package_view(digest, self._blobs.package_files(digest))

    def require(self, tx: Tx, actor: Actor, digest: str, *, field: str = "package") -> sa.Row[Any]:
        """The row of a package that the actor may use. Raises InvalidValue or NotFound."""
        check_sha256(digest, field=field)
        row = tx.execute(
            sa.select(packages).where(packages.c.account == actor.account, packages.c.digest == digest)
        ).one_or_none()
        if row is None:
            raise NotFound(f"no package {digest}.", field=field, remedy="Upload it first.")
        return row

    def materialise(self, digest: str) -> Path:
        """A package as a read-only folder, shared by all who use it. Takes as long as the files take at first."""
        return self._blobs.materialise(digest)

    def sweep(self) -> list[str]:
        """Removes packages that no model and no task uses, then blobs that no package needs; what was removed, in
        words.
        """
        unused = (packages.c.used < self._clock.now() - UNUSED_S) & ~sa.exists().where(
            model_versions.c.package == packages.c.digest
        )
        unused &= packages.c.digest.not_in(_needed_by_runs())
        with self._store.write() as tx:
            tx.execute(sa.delete(packages).where(unused))
        return self._blobs.sweep(self._digests, older_than_s=UNUSED_S)

    def _digests(self) -> list[str]:
        with self._store.read() as tx:
            return list(tx.execute(sa.select(packages.c.digest).distinct()).scalars())


def _needed_by_runs() -> sa.CompoundSelect[Any]:
    """Digests of what runs need that are not over, or that may still be resumed."""
    of_runs = tasks.join(runs, runs.c.task == tasks.c.id)
    alive = sa.or_(runs.c.status.not_in(FINAL), runs.c.sweep_at.is_not(None))
    return sa.union(
        *(
            sa.select(column).select_from(of_runs).where(alive, column.is_not(None))
            for column in (tasks.c.model_digest, tasks.c.code_digest)
        )
    )


def read_chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def package_view(digest: str, files: Sequence[PackageFile]) -> PackageView:
    entries = [
        FileEntry(path=file.path, sha256=file.sha256, size=file.size, executable=file.executable) for file in files
    ]
    return PackageView(digest=digest, size_bytes=sum(file.size for file in files), files=entries)
