"""The agent's worker processes: forking them, speaking to them, measuring and killing them. Used by the agent alone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
from typing import Any, Callable, Optional

from tidemill_runtime import memory, wire
from tidemill_runtime.board import Board
from tidemill_runtime.pipe import Closed, LinePipe

Life = Callable[[LinePipe, Board, int], int]
"""What a worker process does with its ends of socket and board, and with so many threads; returns its exit status."""


class Worker:
    """One worker process as the agent sees it.

    split, ticket: what it works on, None and 0 if nothing; since: from when on, monotonic seconds. killed_for: the
    fault that the agent killed it for. silent: nothing more will come from it. retiring: it is to end.
    """

    def __init__(self, pid: int, pipe: LinePipe, board: Board, threads: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.board = board
        self.threads = threads
        self.loaded = False
        self.split: Optional[int] = None
        self.ticket = 0
        self.since = 0.0
        self.silent = False
        self.retiring = False
        self.killed_for: Optional[str] = None
        self.memory_bytes = 0

    def tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(Closed):  # its death is seen when its socket is read
            self.pipe.send(wire.dumps(message))

    def kill(self) -> None:
        """SIGKILL for it and for what it started; of what has a keeper, that one sees to it."""
        for pid in memory.killable(self.pid):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def heard(self) -> list[dict[str, Any]]:
        """What it said since, without waiting."""
        try:
            if self.pipe.wants_to_write:
                self.pipe.flush()
            return [wire.loads(line) for line in self.pipe.lines()]
        except Closed:
            self.silent = True
            return []

    def retire(self) -> None:
        """Has it commit what is computed; then it is told to close."""
        self.retiring = True
        self.tell({"type": "flush"})

    def free(self, ticket: int) -> None:
        """It is done with what it was given under this ticket."""
        if ticket == self.ticket:
            self.split, self.ticket = None, 0


class Pool:
    """life: what a forked worker does. close_in_child: descriptors of the agent that a worker must not hold open."""

    def __init__(self, life: Life, close_in_child: Callable[[], None]) -> None:
        self._life = life
        self._close_in_child = close_in_child
        self.workers: list[Worker] = []

    def fork(self, threads: int) -> Worker:
        ours, theirs = socket.socketpair()
        board = Board()
        pid = os.fork()
        if pid == 0:
            self._become_worker(ours, theirs, board, threads)
        theirs.close()
        worker = Worker(pid, LinePipe(ours), board, threads)
        self.workers.append(worker)
        return worker

    def _become_worker(self, ours: socket.socket, theirs: socket.socket, board: Board, threads: int) -> None:
        """Never returns. Sockets of the agent are closed here, or a worker would hide its death from the others."""
        status = wire.EXIT_ORPHANED
        try:
            ours.close()
            for other in self.workers:
                other.pipe.close()
            self._close_in_child()
            status = self._life(LinePipe(theirs), board, threads)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def dead(self) -> list[tuple[Worker, int]]:
        """Workers that ended since, with their exit status (negative for a signal); they are no longer in the pool."""
        found = []
        for worker in list(self.workers):
            pid, status = os.waitpid(worker.pid, os.WNOHANG)
            if pid:
                self.workers.remove(worker)
                found.append((worker, os.waitstatus_to_exitcode(status)))
        return found

    def measure(self) -> int:
        """Memory of all workers and what they started, and of the agent; each worker's own is kept with it."""
        for worker in self.workers:
            worker.memory_bytes = sum(map(memory.resident_bytes, memory.family(worker.pid)))
        return sum(worker.memory_bytes for worker in self.workers) + memory.resident_bytes(os.getpid())

    def measure_exactly(self) -> int:
        for worker in self.workers:
            worker.memory_bytes = sum(map(memory.exact_bytes, memory.family(worker.pid)))
        return sum(worker.memory_bytes for worker in self.workers) + memory.exact_bytes(os.getpid())

    def kill_all(self) -> None:
        for worker in self.workers:
            worker.kill()
        for worker in self.workers:
            os.waitpid(worker.pid, 0)
        self.workers.clear()
