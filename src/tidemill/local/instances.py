"""Instances of `tidemill run`: children of this process, each at the other end of a socket. Used by `runner` alone.

They die with their parent, also when it is killed: the kernel tells them (on Linux), and their socket closes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.coordination.messages import write_manifest
from tidemill_runtime.contract import Counts, Fault, Manifest

_PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES"),
    *("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME"),
    *("SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What an instance gets of the user's own environment: where programs, libraries and caches are. No keys."""
_LAST_MOMENTS_S = 1.0


@dataclass
class Instance:
    """One instance and what it said last.

    state: as in its reports; "" before the first. closed: it will say no more.
    """

    id: str
    index: int
    attempt: int
    process: subprocess.Popen[bytes]
    socket: socket.socket
    log: Path
    state: str = ""
    pending: Counts = Counts()
    seconds: dict[str, float] = field(default_factory=dict)
    fault: Fault | None = None
    closed: bool = False
    _unread: bytes = b""
    _unsent: bytes = b""

    def received(self) -> list[bytes] | None:
        """Whole lines that have come; None when the other end is closed."""
        lines: list[bytes] = []
        while True:
            try:
                chunk = self.socket.recv(1 << 18)
            except BlockingIOError:
                return lines
            except OSError:
                return lines or None
            if not chunk:
                return lines or None
            *whole, self._unread = (self._unread + chunk).split(b"\n")
            lines += whole

    def send(self, line: bytes) -> None:
        """Sends as much as goes now; `flush` sends the rest when the socket takes it again."""
        self._unsent += line
        self.flush()

    @property
    def wants_to_send(self) -> bool:
        return bool(self._unsent)

    def flush(self) -> None:
        with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            while self._unsent:
                sent = self.socket.send(self._unsent)
                self._unsent = self._unsent[sent:]

    def ask_to_end(self) -> None:
        """SIGTERM: it commits what it has computed, and ends."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to it and everything in its session's group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Waits for it if it is about to end (its socket is closed), and kills what there is of it and its workers."""
        if self.closed:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_LAST_MOMENTS_S)
        self.kill()
        self.process.wait()
        self.socket.close()


def start_instance(
    manifest: Manifest, folder: Path, socket_pair: tuple[socket.socket, socket.socket]
) -> subprocess.Popen[bytes]:
    """Starts an instance in its own folder and session. The second socket is the child's end, and is closed here."""
    ours, theirs = socket_pair
    scratch = Path(manifest.scratch)
    scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "manifest.json"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(write_manifest(manifest))
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tidemill_runtime", str(path)],
            cwd=scratch,
            env=_environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
    theirs.close()
    ours.setblocking(False)
    return process


def _environment(scratch: Path) -> dict[str, str]:
    """The task's own `env` travels in the manifest."""
    passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed_on, "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1"}
