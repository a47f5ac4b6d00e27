"""Instances that are children of this process, in a scratch folder of its own: what `tidemill run` places its work in.

They are told what they run on their standard input, so that the first can be started before that is known: Python and
the runtime load in it while this process imports what it needs to read the task. Imports next to nothing for the same
reason.
"""

from __future__ import annotations

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
    """Starts them; `close` removes the folder. Everything from one thread: they die with the one that starts them."""

    def __init__(self) -> None:
        self.root = f"{os.environ.get('TMPDIR') or '/tmp'}/tidemill-{os.urandom(6).hex()}"  # noqa: S108 - made for us alone
        os.mkdir(self.root, 0o700)
        self._ahead: Child | None = None

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
        if self._ahead is not None:
            self._ahead.process.kill()
            self._ahead.process.communicate()
            self._ahead.socket.close()
            self._ahead = None
        shutil.rmtree(self.root, ignore_errors=True)

    def _spawn(self, name: str) -> Child:
        folder = f"{self.root}/{name}"
        os.makedirs(f"{folder}/scratch", 0o700)
        ours, theirs = socket.socketpair()
        with open(f"{folder}/log", "ab") as log, theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tidemill_runtime", "-"],
                cwd=f"{folder}/scratch",
                env={"PYTHONUNBUFFERED": "1", **{name: os.environ[name] for name in PASSED_ON if name in os.environ}},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            fd = theirs.fileno()
        ours.setblocking(False)
        return Child(process, ours, fd, folder)
