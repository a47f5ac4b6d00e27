"""Writing one part: the predictions of a lease, then its errors, then its index, with a digest of all. Used by the
worker.

A part is held in memory up to a few megabytes and in a file after that; it gets its name only when it is whole. Its
target may not be known when it is begun: after a commit in the middle of a split, work goes on before the next lease
has come.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import os
import re
import time
from typing import TYPE_CHECKING, Any, Optional

import msgspec

from tidemill_runtime.faults import FatalError
from tidemill_runtime.suspicion import Failure
from tidemill_runtime.waits import Wait

if TYPE_CHECKING:
    from tidemill_runtime.contract import PartTarget

HELD_BYTES = 4 * 1024 * 1024
INPUT_KEPT_BYTES = 16 * 1024
TEXT_KEPT = 4000
DISK_FULL_PATIENCE_S = 15.0
"""How long a full disk is waited for before the instance gives up and the run says why it stands still."""

_encode = msgspec.json.Encoder().encode


class _Segment:
    __slots__ = ("data_bytes", "failed", "inputs", "ok", "skipped")

    def __init__(self) -> None:
        self.data_bytes = self.inputs = self.ok = self.failed = self.skipped = 0

    def counts(self) -> dict[str, int]:
        return {"inputs": self.inputs, "ok": self.ok, "failed": self.failed, "skipped": self.skipped}


class PartWriter:
    """One part. beside: a folder on the disk that the part will be renamed within, or the instance's scratch folder."""

    def __init__(self, beside: str) -> None:
        self._path = os.path.join(beside, f".part-{os.getpid()}-{time.monotonic_ns():x}.tmp")
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._fd: Optional[int] = None
        self._digest = hashlib.sha256()
        self._segments: dict[int, _Segment] = {}
        self._errors: list[bytes] = []
        self.total = _Segment()
        self.seconds = 0.0

    @property
    def empty(self) -> bool:
        return not self.total.inputs

    def position(self, index: int) -> int:
        """How many rows of this object the part has: the position of the next."""
        segment = self._segments.get(index)
        return segment.inputs if segment else 0

    def add(self, index: int, data: bytes, *, ok: int, failed: int = 0, skipped: int = 0) -> None:
        """Rows of the split's object `index`, in order: what they leave in the result, and what became of them."""
        segment = self._segments.get(index)
        if segment is None:
            segment = self._segments[index] = _Segment()
        for each in (segment, self.total):
            each.data_bytes += len(data)
            each.inputs += ok + failed + skipped
            each.ok += ok
            each.failed += failed
            each.skipped += skipped
        self._append(data)

    def error(self, index: int, position: int, failure: Failure, raw: Optional[bytes]) -> None:
        self._errors.append(_encode(error_record(index, position, failure, raw)) + b"\n")

    def finish(self, target: PartTarget, with_index: bool) -> dict[str, Any]:
        """Puts the part in its place and returns what its commit says of it. Raises FatalError(staging_failed)."""
        errors = b"".join(self._errors)
        index = b""
        if with_index:
            lines = [
                {"object": number, "data_bytes": each.data_bytes, "counts": each.counts()}
                for number, each in self._segments.items()
            ]
            index = b"".join(_encode(line) + b"\n" for line in lines)
        for piece in (errors, index):
            if piece:
                self._append(piece)
        if self._fd is not None or self._held_bytes:
            self._place(target)
        return {
            "part": target.name,
            "data_bytes": self.total.data_bytes,
            "errors_bytes": len(errors),
            "index_bytes": len(index),
            "sha256": self._digest.hexdigest(),
            "counts": self.total.counts(),
            "seconds": self.seconds,
        }

    def discard(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
            os.unlink(self._path)

    def _append(self, data: bytes) -> None:
        self._digest.update(data)
        self._held.append(data)
        self._held_bytes += len(data)
        if self._held_bytes > HELD_BYTES:
            self._spill()

    def _spill(self) -> None:
        if self._fd is None:
            self._fd = _patiently(
                lambda: os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            )
        _write_all(self._fd, memoryview(b"".join(self._held)))
        self._held = []
        self._held_bytes = 0

    def _place(self, target: PartTarget) -> None:
        if target.put.kind == "path":
            self._spill()
            assert self._fd is not None
            os.close(self._fd)
            self._fd = None
            _patiently(lambda: os.rename(self._path, target.put.location))
            return
        from tidemill_runtime.remote import put_object  # urllib3 costs 0.1 s, and local output does without

        if self._fd is None:
            put_object(target, b"".join(self._held), self._held_bytes)
            return
        self._spill()
        os.close(self._fd)
        self._fd = None
        with open(self._path, "rb") as file:
            put_object(target, file, os.fstat(file.fileno()).st_size)
        os.unlink(self._path)


def _write_all(fd: int, view: memoryview) -> None:
    at = 0
    while at < len(view):
        at += _patiently(lambda: os.write(fd, view[at:]))  # noqa: B023 (called at once)


def _patiently(write: Any) -> Any:
    """Does it again while the disk is full, for a while: somebody may make room."""
    give_up_at = time.monotonic() + DISK_FULL_PATIENCE_S
    pause_s = 0.1
    with Wait() as wait:
        while True:
            try:
                return write()
            except OSError as error:
                words = f"a part could not be written: {error}"
                if error.errno not in (errno.ENOSPC, errno.EDQUOT) or time.monotonic() > give_up_at:
                    raise FatalError("staging_failed", words, evidence=str(error)) from error
                wait.again(words)
            time.sleep(pause_s)
            pause_s = min(5.0, pause_s * 2)


def error_record(index: int, position: int, failure: Failure, raw: Optional[bytes]) -> dict[str, Any]:
    """The contract's ErrorRecord."""
    record: dict[str, Any] = {
        "object": index,
        "position": position,
        "fault": failure.fault,
        "type": failure.type,
        "message": failure.message[:TEXT_KEPT],
        "traceback": failure.traceback[-TEXT_KEPT:],
        "attempts": failure.attempts,
        "input": None,
        "input_truncated": False,
        "input_base64": False,
        "fingerprint": fingerprint(failure),
    }
    if raw is not None:
        kept = raw[:INPUT_KEPT_BYTES]
        record["input_truncated"] = len(kept) < len(raw) or failure.fault == "too_long"
        try:
            record["input"] = kept.decode()
        except UnicodeDecodeError as error:
            if record["input_truncated"] and error.start > len(kept) - 4:
                record["input"] = kept[: error.start].decode()
            else:
                record["input"] = base64.b64encode(kept).decode()
                record["input_base64"] = True
    return record


def fingerprint(failure: Failure) -> str:
    """The same for failures that have the same cause: class, place in the code, and the message without its numbers."""
    places = re.findall(r'File "([^"]+)", line (\d+)', failure.traceback)
    place = ":".join(places[-1]) if places else ""
    message = re.sub(r"0x[0-9a-f]+|\d+|'[^']*'|\"[^\"]*\"", "#", failure.message[:300])
    return hashlib.sha256(f"{failure.fault}\x00{failure.type}\x00{place}\x00{message}".encode()).hexdigest()[:12]
