"""Uploading folders and archives, content-addressed: what the server has already is not sent."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidemill.client.connection import LONG_ANSWER_S, Connection
from tidemill.domain.errors import NotFound
from tidemill.domain.package import PackageFile
from tidemill.objects.folders import scan_folder
from tidemill.wire.package_views import BlobsView, BlobView, PackageView

CHUNK_BYTES = 1024 * 1024
ASK_AT_ONCE = 5_000


@dataclass(frozen=True)
class UploadProgress:
    """bytes, files: of what has to be sent; skipped_bytes: what the server had already."""

    bytes_done: int
    bytes: int
    files_done: int
    files: int
    skipped_bytes: int


OnUpload = Callable[[UploadProgress], None]


class PackagesClient:
    """`client.packages`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def upload_folder(
        self, folder: str | os.PathLike[str], *, progress: OnUpload | None = None, field: str = "folder"
    ) -> PackageView:
        """Uploads a local folder as a package; only the files that the server lacks are sent.

        Raises NotFound and InvalidValue naming `field` for a folder that cannot be a package.
        """
        path = Path(folder)
        files = scan_folder(path, field=field)
        sources = {file.sha256: file for file in files}
        missing = self.missing(list(sources))
        wanted = [sources[sha256] for sha256 in missing]
        state = _State(wanted, sum(file.size for file in files) - sum(file.size for file in wanted), progress)
        state.tell()
        for file in wanted:
            self._upload(path / file.path, file.sha256, state)
            state.file_done()
        body = {"files": [vars(file) for file in files]}
        return self._connection.post("/api/v1/packages", PackageView, body, again=True, answer_s=LONG_ANSWER_S)

    def upload_file(self, file: str | os.PathLike[str], *, progress: OnUpload | None = None) -> str:
        """Uploads one file as a blob (an archive, for example); its sha256."""
        path = Path(file)
        if not path.is_file():
            raise NotFound(f"there is no file {str(path)!r}.", field="file", remedy="Check the path.")
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.missing([sha256]):
            state = _State([PackageFile(path.name, sha256, path.stat().st_size)], 0, progress)
            self._upload(path, sha256, state)
            state.file_done()
        return sha256

    def get(self, digest: str) -> PackageView:
        """The files of a package."""
        return self._connection.get(f"/api/v1/packages/{digest}", PackageView)

    def missing(self, digests: list[str]) -> list[str]:
        """Those of these blobs that the server lacks."""
        found: list[str] = []
        for first in range(0, len(digests), ASK_AT_ONCE):
            body = {"sha256": digests[first : first + ASK_AT_ONCE]}
            found += self._connection.post("/api/v1/blobs/missing", BlobsView, body, again=True).missing
        return found

    def _upload(self, path: Path, sha256: str, state: _State) -> None:
        def content() -> Iterator[bytes]:
            state.begin()
            return read_chunks(path, state.sent)

        self._connection.put(f"/api/v1/blobs/{sha256}", BlobView, content, size=path.stat().st_size)


class _State:
    """How far an upload is. A file that is sent again is counted once."""

    def __init__(self, files: list[PackageFile], skipped_bytes: int, progress: OnUpload | None) -> None:
        self._bytes = sum(file.size for file in files)
        self._files = len(files)
        self._skipped_bytes = skipped_bytes
        self._progress = progress
        self._done_bytes = self._file_bytes = self._done_files = 0

    def begin(self) -> None:
        self._file_bytes = 0

    def sent(self, count: int) -> None:
        self._file_bytes += count
        self.tell()

    def file_done(self) -> None:
        self._done_bytes += self._file_bytes
        self._file_bytes = 0
        self._done_files += 1
        self.tell()

    def tell(self) -> None:
        if self._progress is not None:
            done = self._done_bytes + self._file_bytes
            self._progress(UploadProgress(done, self._bytes, self._done_files, self._files, self._skipped_bytes))


def read_chunks(path: Path, sent: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
    """A file in pieces; `sent` is told of each."""
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
            sent(len(chunk))
