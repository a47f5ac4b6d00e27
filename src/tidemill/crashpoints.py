"""Points of a task's life at which a test may stop the server dead, to see that nothing is lost or doubled.

The places that matter call `reach` with their name; it does nothing unless TIDEMILL_CRASH_AT names them. Tests in
tests/e2e start a server with

    TIDEMILL_CRASH_AT=NAME or NAME#3     the point, and which passing of it (the first, if not said)
    TIDEMILL_CRASH_HOW=kill or pause     SIGKILL of the server itself (the default), or wait there
    TIDEMILL_CRASH_FILE=PATH             made when the point is reached: the test asserts that it was; a paused server
                                         goes on when the file is removed

Standard library only: called from every layer, and a run without a server passes such points too.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

POINTS = {
    "plan.claimed": "the output folder is claimed, nothing is planned",
    "plan.listed": "the input is listed, its splits are not stored",
    "plan.stored": "the splits are stored, no instance is placed",
    "place.recorded": "the instance's row is stored, the engine has not heard of it",
    "place.launched": "the engine has launched it, the row does not say so",
    "runner.received": "a report with a commit is here (its part is uploaded), nothing of it is stored",
    "runner.committed": "the commit is stored, the instance has no answer",
    "reconcile.observed": "an instance is seen to have ended, nothing is stored",
    "publish.assembling": "a unit's splits are all committed, its result is not in place",
    "publish.result": "one of a unit's results is in place, the unit's manifest is not",
    "publish.assembled": "a unit's result is in place, the journal does not say so",
    "publish.unit": "the journal says that a unit is published",
    "finish.released": "the instances are released, errors and receipt are not written",
    "finish.merging": "earlier results are taken over, or some of them, errors and receipt are not written",
    "finish.errors": "errors.jsonl is in place, the receipt is not",
    "finish.receipt": "the receipt is written, the marker is not",
    "finish.marked": "the marker is written, the task is not SUCCEED",
    "release.forgotten": "the instances are forgotten, staging is not removed",
    "release.swept": "staging is removed, nothing is stored of that",
}
"""Every point by name, and what has happened there and what has not."""

_at, _, _nth = os.environ.get("TIDEMILL_CRASH_AT", "").partition("#")
_how = os.environ.get("TIDEMILL_CRASH_HOW", "kill")
_file = os.environ.get("TIDEMILL_CRASH_FILE", "")
_left = int(_nth or 1)
_counting = threading.Lock()
if _at and _at not in POINTS:
    raise ValueError(f"TIDEMILL_CRASH_AT: {_at!r} is no crash point. Known: {', '.join(POINTS)}.")


def reach(name: str) -> None:
    """The caller is at the point `name` of POINTS."""
    if name == _at:
        _crash()


def _crash() -> None:
    global _left  # noqa: PLW0603 - counts passings of one point in this process
    with _counting:
        _left -= 1
        if _left != 0:
            return
    reached = Path(_file) if _file else None
    if reached is not None:
        reached.write_text(_at)
    if _how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while reached is not None and reached.exists():
        time.sleep(0.005)
