"""The process that replays a record: started as an instance is, with a request for one record in place of leases.

Used by `replay`. It answers on a pipe of its own, as its standard streams are the model's, or pdb's.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tidemill.engines.children import Children

_END_WITHIN_S = 10.0
"""How long it may take to end after its answer, or after it was told to."""


class ReplayChildren(Children):
    """Children that are told what to replay at their start, by a file in their folder."""

    def replay(self, request: dict[str, Any], *, debug: bool, timeout_s: float | None) -> dict[str, Any]:
        """The answer to a request (`tidemill_runtime.replay`). debug: let pdb have the terminal. timeout_s: how long
        the prediction may take.

        A process that dies, or has to be killed, is an answer too: {"state": "killed", "fault", "how", "predicting"}.
        """
        folder = Path(self.root) / "replay"
        (folder / "scratch").mkdir(mode=0o700, parents=True)
        file = folder / "request.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(request))
        ours, theirs = os.pipe()
        try:
            process = self._start(file, theirs, debug=debug)
        finally:
            os.close(theirs)
        with os.fdopen(ours, "rb", buffering=0) as answers, _interrupts(process, debug=debug):
            return _heard(process, answers.fileno(), None if debug else timeout_s)

    def _start(self, request: Path, fd: int, *, debug: bool) -> subprocess.Popen[bytes]:
        python = f"{self._venv}/bin/python" if self._venv else sys.executable
        sys.stdout.flush()
        return subprocess.Popen(
            [python, "-P", "-m", "tidemill_runtime.replay", str(request), str(fd)],
            cwd=request.parent / "scratch",
            env={**self._environment(), **_terminal(debug=debug)},
            stdin=None if debug else subprocess.DEVNULL,
            stdout=None if debug else 2,  # what the model prints is not the answer
            pass_fds=[fd, *self._hold],
            start_new_session=not debug,
        )


def _terminal(*, debug: bool) -> dict[str, str]:
    names = ("TERM", "COLUMNS", "LINES", "INPUTRC") if debug else ()
    return {name: os.environ[name] for name in names if name in os.environ}


@contextmanager
def _interrupts(process: subprocess.Popen[bytes], *, debug: bool) -> Iterator[None]:
    """Ctrl-C is pdb's while it has the terminal. Whatever happens, the process is gone afterwards."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN) if debug else None
    try:
        yield
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(0 if sys.exc_info()[0] is not None else _END_WITHIN_S)
        process.kill()
        process.wait()
        if debug:
            signal.signal(signal.SIGINT, before)


def _heard(process: subprocess.Popen[bytes], fd: int, timeout_s: float | None) -> dict[str, Any]:
    rest, predicting = b"", False
    give_up_at: float | None = None
    while True:
        left_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
        if not select.select([fd], [], [], left_s)[0]:
            process.kill()
            return _killed("timeout", f"it took longer than {timeout_s:g} s", predicting)
        data = os.read(fd, 1 << 16)
        if not data:
            code = process.wait()
            how = f"the process was killed by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
            return _killed("out_of_memory" if code == -signal.SIGKILL else "crash", how, predicting)
        *lines, rest = (rest + data).split(b"\n")
        for message in map(json.loads, lines):
            if message["event"] == "answer":
                answer: dict[str, Any] = message
                return answer
            predicting = message["event"] == "predicting"
            give_up_at = time.monotonic() + timeout_s if predicting and timeout_s is not None else None


def _killed(fault: str, how: str, predicting: bool) -> dict[str, Any]:
    return {"state": "killed", "fault": fault, "how": how, "predicting": predicting, "memory_bytes": 0}
