"""What the C library knows and Python does not: death with the parent, orphans, the allocator. Used by agent, worker
and keeper.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when the thread that forked it ends; at once if `parent` is gone already.

    The signal follows the parent's thread, not its process: only a single-threaded parent may be relied on.
    """
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # not Linux: the closed socket ends a worker at its next mini-batch
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def take_name(name: str) -> None:
    """How this process is called in /proc and by ps, at most 15 characters of it."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def keep_freed_memory() -> None:
    """Tells glibc not to give freed memory back after every mini-batch.

    With its defaults a loop that decodes block after block spends most of its time in page faults (2.5 to 4 times
    slower).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_MMAP_THRESHOLD, 32 * 1024 * 1024)
    mallopt(_M_TRIM_THRESHOLD, 256 * 1024 * 1024)


def adopt_orphans() -> None:
    """From now on this process is the parent of whatever below it loses its own, so that all of it can be found."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: what leaves its process group is not found
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
