"""Named points at which a test can have a process killed. Passed by publishing, the loops and the server's doors.

A kill is SIGKILL by the process itself, so that it falls between two chosen steps. Without TIDEMILL_CRASH_AT a point
costs one comparison. Not a setting: nothing but tests sets it.

    TIDEMILL_CRASH_AT=publish.result        the first time that point is passed
    TIDEMILL_CRASH_AT=publish.result:3      the third time
    TIDEMILL_CRASH_MARK=/path               a file that gets the point's name just before, to assert that it was reached
    TIDEMILL_CRASH_HOW=pause                wait there instead, until the mark is removed (others are killed meanwhile)
"""

from __future__ import annotations

import os
import signal
import time
from threading import Lock

_target, _, _nth = os.environ.get("TIDEMILL_CRASH_AT", "").partition(":")
_passes_left = int(_nth or 1)
_lock = Lock()


def crashpoint(name: str) -> None:
    """Kills this process if the environment says so for `name`."""
    if name == _target:
        _count_down(name)


def _count_down(name: str) -> None:
    global _passes_left
    with _lock:
        _passes_left -= 1
        if _passes_left > 0:
            return
        mark = os.environ.get("TIDEMILL_CRASH_MARK")
        if mark:
            with open(mark, "a", encoding="utf-8") as file:
                file.write(name + "\n")
        if mark and os.environ.get("TIDEMILL_CRASH_HOW") == "pause":
            while os.path.exists(mark):
                time.sleep(0.005)
            return
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()  # never goes on, however late the signal comes
