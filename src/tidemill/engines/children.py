"""Instances that are children of this process, in a scratch folder of its own: what `tidemill run` places its work in.

They are told what they run on their standard input, so that the first can be started before that is known: Python and
the runtime load in it while this process imports what it needs to read the task. Imports next to nothing for the same
reason.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

PASSED_ON = (
    *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ"),
    *("PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CONDA_PREFIX", "CUDA_VISIBLE_DEVICES"),
    *("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME"),
    *("SSL_CERT_FILE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
"""What an instance gets of the user's own environment: where programs, libraries and caches are. No keys."""

_PREFIX = "tidemill-run-"


@dataclass
class Child:
    """A process that waits for its manifest. folder: its own, with `scratch` and `log`. fd: its end of the socket."""

    process: subprocess.Popen[bytes]
    socket: socket.socket
    fd: int
    folder: str

    @property
    def scratch(self) -> str:
        return f"{self.folder}/scratch"

    def tell(self, manifest: bytes) -> None:
        """Lets it begin."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead already: its parent will see
            self.process.stdin.write(manifest)
            self.process.stdin.close()


class Children:
    """Starts them; `close` removes the folder. Everything from one thread: they die with the one that starts them.

    A process that is killed leaves its folder, and with its life the lock on it: whoever closes after it removes it.
    """

    def __init__(self) -> None:
        self._beside = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - what lies there is made for us alone
        name = os.urandom(6).hex()
        made = f"{self._beside}/tidemill.{name}"
        os.mkdir(made, 0o700)
        self._lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.root = f"{self._beside}/{_PREFIX}{name}"
        os.rename(made, self.root)  # locked by the time that others look for it
        self._ahead: Child | None = None
        self._venv: str | None = None
        self._hold: list[int] = []

    def use(self, venv: str | os.PathLike[str], hold: int) -> None:
        """From now on they are started by the Python of that environment; one ahead ends.

        hold: a descriptor that keeps the environment there, which each of them inherits.
        """
        self._venv, self._hold = str(venv), [hold]
        self._end_ahead()

    def start_ahead(self) -> None:
        """Starts the one that the next `start` takes."""
        self._ahead = self._spawn("ahead")

    def start(self, name: str) -> Child:
        """A child in a folder of that name."""
        child = self._ahead or self._spawn(name)
        self._ahead = None
        folder = f"{self.root}/{name}"
        if child.folder != folder:
            os.rename(child.folder, folder)
            child.folder = folder
        return child

    def close(self) -> None:
        """May be called again. Those that were started have been ended before; one ahead ends here."""
        self._end_ahead()
        if self._lock >= 0:
            shutil.rmtree(self.root, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1
            self._sweep()

    def _end_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.process.kill()
            self._ahead.process.communicate()
            self._ahead.socket.close()
            shutil.rmtree(self._ahead.folder, ignore_errors=True)
            self._ahead = None

    def _sweep(self) -> None:
        """Removes what killed processes of this user have left."""
        for name in os.listdir(self._beside):
            folder = f"{self._beside}/{name}"
            if not name.startswith(_PREFIX):
                continue
            with suppress(OSError):  # another's, at work, or gone meanwhile
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
                try:
                    if os.fstat(fd).st_uid == os.geteuid():
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(fd)

    def _spawn(self, name: str) -> Child:
        folder = f"{self.root}/{name}"
        os.makedirs(f"{folder}/scratch", 0o700)
        ours, theirs = socket.socketpair()
        python = f"{self._venv}/bin/python" if self._venv else sys.executable
        with open(f"{folder}/log", "ab") as log, theirs:
            process = subprocess.Popen(
                [python, "-P", "-m", "tidemill_runtime", "-"],
                cwd=f"{folder}/scratch",
                env=self._environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno(), *self._hold],
                start_new_session=True,
            )
            fd = theirs.fileno()
        ours.setblocking(False)
        return Child(process, ours, fd, folder)

    def _environment(self) -> dict[str, str]:
        passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        if self._venv:
            passed |= {"VIRTUAL_ENV": self._venv, "PATH": f"{self._venv}/bin:{passed.get('PATH', os.defpath)}"}
        return {"PYTHONUNBUFFERED": "1", **passed}
