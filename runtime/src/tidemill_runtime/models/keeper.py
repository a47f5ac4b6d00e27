"""The keeper: a small process between a worker and the user's command, so that nothing of the command outlives either.

A worker that is killed cannot end what it started, and a command may be a script that starts servers, which start
workers. The kernel tells nobody but the parent of a death, and gives orphans to the next reaper above. So the keeper is
both: parent of the command and reaper of all below it. When its socket says that the worker is gone, by whatever end,
it kills all of them. When the command itself ends, what it left running is killed too, as in a container.

It is forked from the worker while that loads its model (`child` does it), and never imports anything more. Messages to
it are single bytes, START with two descriptors; from it lines of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from typing import Any, NoReturn, Optional

from tidemill_runtime import memory
from tidemill_runtime.process import adopt_orphans, die_with_parent, take_name

START, END = b"s", b"e"
SAID_KEPT_BYTES = 8 * 1024
"""How much of the end of what the command said is kept, to be told when it ends."""

_KILL_PATIENCE_S = 5.0
_PIECE_BYTES = 64 * 1024


def keep(sock: socket.socket, words: list[str], folder: str, env: dict[str, str], patience_s: float) -> NoReturn:
    """The keeper's whole life, in a process of its own. patience_s: between SIGTERM and SIGKILL."""
    try:
        _Keeper(sock, words, folder, env, patience_s).run()
    finally:
        os._exit(0)


class _Keeper:
    def __init__(
        self, sock: socket.socket, words: list[str], folder: str, env: dict[str, str], patience_s: float
    ) -> None:
        self._sock = sock
        self._words = words
        self._folder = folder
        self._env = env
        self._patience_s = patience_s
        self._program: Optional[subprocess.Popen[bytes]] = None
        self._said = bytearray()
        self._log, self._log_write = -1, -1
        self._kill_at: Optional[float] = None
        self._wake, wake_write = socket.socketpair()
        for end in (self._wake, wake_write):
            end.setblocking(False)
        self._wake_write = wake_write

    def run(self) -> None:
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):  # a handler, unlike SIG_IGN, is not inherited
            signal.signal(number, lambda *_: None)
        adopt_orphans()
        take_name(memory.KEEPER)
        try:
            while self._turn():
                pass
        finally:
            self._kill_all()

    def _turn(self) -> bool:
        """Waits for something and does it; False when the worker is gone."""
        poll = select.poll()
        for fd in (self._sock.fileno(), self._wake.fileno(), self._log):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        left_s = None if self._kill_at is None else max(0.0, self._kill_at - time.monotonic())
        for fd, _ in poll.poll(None if left_s is None else left_s * 1000):
            if fd == self._log:
                self._relay()
            elif fd == self._wake.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
            elif not self._hear():
                return False
        if self._kill_at is not None and time.monotonic() >= self._kill_at and self._program is not None:
            self._kill_at = None
            self._program.kill()
        self._reap()
        return True

    def _hear(self) -> bool:
        message, given, _, _ = socket.recv_fds(self._sock, 1, 2)
        if message == START:
            self._start(*given)
        elif message == END and self._program is not None:
            self._program.terminate()
            self._kill_at = time.monotonic() + self._patience_s
        return bool(message)

    def _start(self, stdin: int, stdout: int = -1) -> None:
        """stdout: not given, it goes where the standard error goes, to the log."""
        self._said.clear()
        self._log, log_write = os.pipe()
        os.set_blocking(self._log, False)
        here = os.getpid()
        try:
            self._program = subprocess.Popen(
                self._words,
                cwd=self._folder,
                env=self._env,
                stdin=stdin,
                stdout=log_write if stdout < 0 else stdout,
                stderr=log_write,
                start_new_session=True,  # Ctrl-C of a terminal is the coordinator's to decide on
                preexec_fn=lambda: die_with_parent(here),  # noqa: PLW1509 - this process has one thread
            )
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._close_log()
            self._tell({"failed": f"{type(error).__name__}: {error}"})
        else:
            self._tell({"pid": self._program.pid})
        finally:
            for fd in (stdin, stdout, log_write):
                if fd >= 0:
                    os.close(fd)

    def _reap(self) -> None:
        program = self._program
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if program is not None and pid == program.pid:
                program.returncode = os.waitstatus_to_exitcode(status)
                self._program, self._kill_at = None, None
                self._kill_all(program.pid)
                while self._relay():
                    pass
                self._close_log()
                said = bytes(self._said).decode("utf-8", "replace")
                self._tell({"status": program.returncode, "said": said})

    def _relay(self) -> bool:
        """What the command says, on to the instance's log; False if there is nothing now."""
        try:
            piece = os.read(self._log, _PIECE_BYTES) if self._log >= 0 else b""
        except BlockingIOError:
            return False
        if not piece:
            self._close_log()
            return False
        self._said += piece
        del self._said[:-SAID_KEPT_BYTES]
        with contextlib.suppress(OSError):  # a full disk: the log is short of something, the run goes on
            os.write(2, piece)
        return True

    def _close_log(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1

    def _kill_all(self, group: Optional[int] = None) -> None:
        """SIGKILL for all below this process, until nothing is left. group: that of a command that has ended."""
        group = group or (self._program.pid if self._program is not None else None)
        if group is not None:
            with contextlib.suppress(OSError):
                os.killpg(group, signal.SIGKILL)
        give_up_at = time.monotonic() + _KILL_PATIENCE_S
        while True:
            below = memory.family(os.getpid())[1:]
            for pid in below:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            try:
                pid, _ = os.waitpid(-1, 0 if below else os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:  # there is one that the kernel did not list while others ended
                if time.monotonic() > give_up_at:
                    return
                time.sleep(0.001)

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the worker is gone: the next turn sees it
            self._sock.sendall(json.dumps(message).encode() + b"\n")
