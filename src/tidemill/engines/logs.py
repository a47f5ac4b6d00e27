"""The log file of an instance: read from an offset, its end as evidence, its size kept within bounds.

Used by the process engine. An instance appends to the file itself, with no pipe through the server, so that it can
write while no server runs. Offsets stay true when the middle of a flood is given back to the file system.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path

_HEAD_KEPT_BYTES = 1 << 20
_EVIDENCE_BYTES = 4096
_EVIDENCE_LINES = 20
_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2
_BLOCK_BYTES = 4096


def read(path: Path, offset: int, limit_bytes: int) -> tuple[bytes, int]:
    """What stands from `offset` on, and the offset after it. Holes are left out; no file is an empty one."""
    try:
        with path.open("rb") as file:
            try:
                start = os.lseek(file.fileno(), offset, os.SEEK_DATA)
                stop = min(os.lseek(file.fileno(), start, os.SEEK_HOLE), start + limit_bytes)
            except OSError as error:
                if error.errno == errno.ENXIO:  # at or behind the end
                    return b"", offset
                raise
            data = os.pread(file.fileno(), stop - start, start)
            return data, start + len(data)
    except FileNotFoundError:
        return b"", offset


def evidence(path: Path) -> str:
    """The last lines."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _EVIDENCE_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
        return "\n".join(lines[-_EVIDENCE_LINES:]).strip()
    return ""


def bound(path: Path, limit_bytes: int) -> None:
    """Gives the middle of a file that takes more than `limit_bytes` back, where the file system can do that."""
    with contextlib.suppress(OSError):
        seen = path.stat()
        if seen.st_blocks * 512 <= limit_bytes:
            return
        stop = (seen.st_size - limit_bytes // 2) // _BLOCK_BYTES * _BLOCK_BYTES
        head = min(_HEAD_KEPT_BYTES, limit_bytes // 4) // _BLOCK_BYTES * _BLOCK_BYTES
        with path.open("r+b") as file:
            fallocate = ctypes.CDLL(None, use_errno=True).fallocate
            fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
            fallocate(file.fileno(), _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE, head, max(0, stop - head))
