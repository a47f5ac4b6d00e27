"""The user's command as a worker sees it: started and started anew, ended, and what it said last. Used by lines, http.

Behind it stands a `keeper`, which ends all that the command has started when the worker is gone.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import time
from typing import Any, NamedTuple, Optional

from tidemill_runtime.faults import FatalError
from tidemill_runtime.models import keeper

END_PATIENCE_S = 10.0
"""How long a command may take to end after SIGTERM, before it is killed."""
STARTS_IN_VAIN = 3
"""A command that ends so often before it did anything is not started again."""
_TRACE_LINES = 40


class Ended(NamedTuple):
    """How a command ended: exit status (negative for a signal), and the end of what it wrote to its standard error."""

    status: int
    said: str

    @property
    def how(self) -> str:
        return f"died of signal {-self.status}" if self.status < 0 else f"exited with status {self.status}"

    @property
    def last_line(self) -> str:
        lines = self.said.strip().splitlines()
        return lines[-1].strip() if lines else ""

    @property
    def words(self) -> str:
        """How it ended; and its last words, which of one that was killed say nothing about it."""
        return f"{self.how}: {self.last_line}" if self.last_line and self.status > 0 else self.how

    @property
    def trace(self) -> str:
        return "\n".join(self.said.strip().splitlines()[-_TRACE_LINES:])


class Program:
    """words: the command; folder: its working directory; env: all of its environment. Makes the keeper, so it is to be
    made while the worker has one thread. pid: of the running command, 0 if there is none.
    """

    def __init__(self, words: list[str], folder: str, env: dict[str, str], patience_s: float = END_PATIENCE_S) -> None:
        self.pid = 0
        self._words = words
        self._patience_s = patience_s
        self._heard = bytearray()
        self._ended: Optional[Ended] = None
        self._sock, theirs = socket.socketpair()
        self._keeper = os.fork()
        if self._keeper == 0:
            os.dup2(theirs.fileno(), 3)
            os.closerange(4, min(65536, os.sysconf("SC_OPEN_MAX")))
            theirs.detach()
            self._sock.detach()
            os.set_inheritable(3, False)
            keeper.keep(socket.socket(fileno=3), words, folder, env, patience_s)
        theirs.close()

    def start(self, stdin: int, stdout: Optional[int] = None) -> None:
        """Starts the command on these descriptors, which are closed here. stdout: None for the log.

        Raises FatalError if it cannot be started.
        """
        assert not self.pid
        given = [stdin] if stdout is None else [stdin, stdout]
        try:
            socket.send_fds(self._sock, [keeper.START], given)
        except OSError:
            raise _no_keeper() from None
        finally:
            for fd in given:
                os.close(fd)
        answer = self._hear(None)
        assert answer is not None
        if "failed" in answer:
            raise FatalError(
                "model_not_found",
                f"the command {self._words[0]!r} cannot be started: {answer['failed']}",
                evidence=answer["failed"],
            )
        self.pid, self._ended = answer["pid"], None

    def ended(self, wait_s: float = 0.0) -> Optional[Ended]:
        """How it ended; None if it has not, within the time. Once it was told, no more is said until a new start."""
        if not self.pid:
            return self._ended
        answer = self._hear(wait_s)
        if answer is None:
            return None
        self.pid, self._ended = 0, Ended(answer["status"], answer["said"])
        return self._ended

    def stop(self) -> Optional[Ended]:
        """Ends it, and what it started: SIGTERM, and SIGKILL when its time is over. Returns how it ended."""
        if self.pid and self.ended() is None:
            try:
                self._sock.sendall(keeper.END)
            except OSError:
                raise _no_keeper() from None
            return self.ended(self._patience_s + 30.0)
        return self._ended

    def close(self) -> None:
        """Ends it, and the keeper."""
        self.stop()
        self._sock.close()
        os.waitpid(self._keeper, 0)

    def _hear(self, wait_s: Optional[float]) -> Optional[dict[str, Any]]:
        give_up_at = None if wait_s is None else time.monotonic() + wait_s
        while b"\n" not in self._heard:
            left_s = None if give_up_at is None else max(0.0, give_up_at - time.monotonic())
            if not select.select([self._sock], [], [], left_s)[0]:
                return None
            piece = self._sock.recv(65536)
            if not piece:
                raise _no_keeper()
            self._heard += piece
        line, _, rest = bytes(self._heard).partition(b"\n")
        self._heard = bytearray(rest)
        found: dict[str, Any] = json.loads(line)
        return found


def _no_keeper() -> FatalError:
    return FatalError("internal", "the process that keeps the command was killed")


def find_program(word: str, folders: list[str], path: str) -> str:
    """The first word of a command as it can be started: a program of the package's folders (`serve`, `./serve`) or of
    PATH. Raises FatalError.
    """
    if os.path.isabs(word):
        return word
    for folder in folders:
        place = os.path.join(folder, word)
        if os.path.isfile(place) and os.access(place, os.X_OK):
            return os.path.abspath(place)
    found = shutil.which(word, path=path) if "/" not in word else None
    if found is not None:
        return found
    for folder in folders:
        if os.path.isfile(os.path.join(folder, word)):
            message = f"{word!r} of the package may not be executed; set its mode (chmod +x {word})"
            raise FatalError("model_not_found", message, evidence=os.path.join(folder, word))
    looked = " and ".join([*folders, "PATH"])
    raise FatalError("model_not_found", f"there is no command {word!r} (looked in {looked})", evidence=word)
