"""The parent process of an instance: light, single-threaded, the only one that speaks to the coordinator.

It forks the workers before anything else, so that they load the model at once; hands them leases; tells the coordinator
of their commits; replaces a worker that crashed, hung or grew too large, and so finds the record that did it. It never
imports the user's code, NumPy or the like: forking stays cheap and safe for as long as the instance lives.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Optional

from tidemill_runtime import board as boards
from tidemill_runtime import wire
from tidemill_runtime.account import Account
from tidemill_runtime.board import Board
from tidemill_runtime.channel import Channel, CoordinatorGone, connect
from tidemill_runtime.faults import FatalError, log, write_exit
from tidemill_runtime.leases import LeaseBook
from tidemill_runtime.pipe import LinePipe
from tidemill_runtime.pool import Pool, Worker
from tidemill_runtime.process import die_with_parent
from tidemill_runtime.tuning import THREAD_VARIABLES, Crew
from tidemill_runtime.watch import Watch

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest

TICK_S = 0.25
"""How often memory and time limits are looked at."""
FLUSH_PATIENCE_S = 20.0
LAST_WORDS_S = 10.0
"""How long the last report may take to be answered when the instance has to end."""
CLOSE_PATIENCE_S = 2.0
QUICK_SPLIT_S = 1.0
"""Leases are fetched ahead while splits take no longer. A slow one that waits here might be another instance's work."""


def main(arguments: list[str]) -> int:
    """The instance's exit status: one of the contract's."""
    if len(arguments) != 1:
        log("usage: python -m tidemill_runtime <manifest.json>, or - to be told on standard input")
        return 2
    if arguments[0] == "-":
        text = sys.stdin.buffer.readline()
        if not text:
            return wire.EXIT_ORPHANED  # there is nothing to run after all
        manifest = wire.parse_manifest(text)
        folder = os.path.dirname(manifest.scratch)
    else:
        manifest = wire.read_manifest(arguments[0])
        folder = os.path.dirname(os.path.abspath(arguments[0]))
    if manifest.die_with_parent:
        die_with_parent(os.getppid())
    agent = Agent(manifest)
    code = agent.run()
    write_exit(folder, code, agent.fault)
    return code


class _Ended(Exception):
    """The instance is over. code: its exit status."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Agent:
    """One instance. fault: why it could not go on, after `run`."""

    def __init__(self, manifest: Manifest) -> None:
        self.fault: Optional[dict[str, Any]] = None
        self._pid = os.getpid()
        self._manifest = manifest
        self._book = LeaseBook()
        self._commits: list[dict[str, Any]] = []
        self._reported: dict[str, Any] = {}
        self._report_every_s = 2.0
        self._report_at = 0.0
        self._news = True
        self._answered_at = time.monotonic()
        self._stopping_since: Optional[float] = None
        self._stop_asked = False
        self._flushing: dict[int, Worker] = {}
        self._split_s: deque[float] = deque(maxlen=8)
        self._terminated = False
        self._wake_read, self._wake_write = socket.socketpair()

    def run(self) -> int:
        try:
            self._start()
            while True:
                self._turn()
        except _Ended as ended:
            return ended.code
        except CoordinatorGone as gone:
            log(f"{gone}; stopping")
            return wire.EXIT_ORPHANED
        except FatalError as error:
            self.fault = error.fault()
            return wire.EXIT_FATAL
        except Exception as error:  # a defect of ours: it is to be found in exit.json too
            import traceback

            self.fault = wire.fault("internal", f"{type(error).__name__}: {error}", str(error), traceback.format_exc())
            log(self.fault["traceback"])
            return wire.EXIT_FATAL
        finally:
            if hasattr(self, "_pool"):
                self._pool.kill_all()

    def _start(self) -> None:
        manifest = self._manifest
        if manifest.version != wire.CONTRACT_VERSION:
            raise FatalError(
                "contract_version",
                f"the manifest has contract version {manifest.version}, this runtime has {wire.CONTRACT_VERSION}; "
                "install the same release of tidemill-runtime",
            )
        self._hear_signals()
        os.environ.update(manifest.env)
        self._channel: Channel = connect(manifest.channel)
        self._pool = Pool(self._life, self._close_in_child)
        self._watch = Watch(self._pool, self._book, manifest.memory_bytes)
        self._crew = Crew(self._pool, self._watch, self._book, manifest)
        self._account = Account(self._pool)
        self._crew.start()
        self._report()

    def _hear_signals(self) -> None:
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_terminate)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # wakes the loop
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the coordinator decides

    def _on_terminate(self, *_: object) -> None:
        self._terminated = True

    def _life(self, pipe: LinePipe, board: Board, threads: int) -> int:
        from tidemill_runtime.worker import run_worker  # in the worker alone

        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, str(threads))
        return run_worker(pipe, board, self._manifest, self._pid, self._crew.size)

    def _close_in_child(self) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._wake_read.close()
        self._wake_write.close()
        self._channel.close()

    def _turn(self) -> None:
        self._wait()
        for worker in list(self._pool.workers):
            self._hear(worker)
        for worker, status in self._pool.dead():
            self._hear(worker)
            self._bury(worker, status)
        self._hear_coordinator()
        if self._terminated and self._stopping_since is None:
            self._flush()
        self._fail(self._watch.look())
        if self._stopping_since is None:
            self._crew.look()
        self._hand_out()
        self._end_if_over()
        self._report()

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        if self._channel.fileno() >= 0:
            poll.register(self._channel.fileno(), select.POLLIN)
        for worker in self._pool.workers:
            if not worker.silent:
                poll.register(worker.pipe, select.POLLIN | (select.POLLOUT if worker.pipe.wants_to_write else 0))
        due_s = TICK_S if self._channel.sending else min(TICK_S, self._report_at - time.monotonic())
        poll.poll(max(0.0, min(due_s, self._channel.due_s())) * 1000)
        with contextlib.suppress(BlockingIOError):
            self._wake_read.recv(4096)

    # -- workers

    def _hear(self, worker: Worker) -> None:
        for message in worker.heard():
            kind = message["type"]
            if kind == "loaded":
                worker.loaded = True
                self._news = self._news or not self._account.loaded
                self._account.load_took(message["load_s"])
                self._crew.loaded(worker, message["load_s"])
            elif kind == "tuned":
                self._crew.tuned(message)
            elif kind == "commit":
                self._commits.append(message["commit"])
                self._watch.progress()
                self._book.committed(message["commit"], message["move"])
                if message["commit"]["done"]:
                    self._split_s.append(time.monotonic() - worker.since)
                    worker.free(message["ticket"])
            elif kind == "dropped":
                worker.free(message["ticket"])
            elif kind == "flushed":
                self._flushing.pop(worker.pid, None)
                if worker.retiring:
                    self._let_go(worker)
            elif kind == "fault":
                self._fail(message["fault"])

    def _let_go(self, worker: Worker) -> None:
        """It has committed what it had: another goes on with the rest of its split."""
        lease = self._book.get(worker.split)
        if lease is not None and lease.ticket == worker.ticket:
            self._book.put_back(lease)
        worker.free(worker.ticket)
        worker.tell({"type": "close"})

    def _bury(self, worker: Worker, status: int) -> None:
        self._account.bury(worker)
        self._flushing.pop(worker.pid, None)
        expected = self._crew.buried(worker)
        if self.fault is not None or self._stopping_since is not None:
            return
        if not expected:
            self._fail(self._watch.died(worker, status))
        if len(self._pool.workers) < self._crew.wanted:
            self._crew.fork()

    def _hand_out(self) -> None:
        if self._stopping_since is not None or self.fault is not None:
            return
        for worker in self._pool.workers:
            if worker.split is None and self._crew.may_work(worker):
                lease = self._book.next()
                if lease is None:
                    return
                worker.split, worker.ticket, worker.since = lease.split, lease.ticket, time.monotonic()
                worker.tell(lease.message(self._watch.most))

    # -- coordinator

    def _hear_coordinator(self) -> None:
        orders = self._channel.receive()
        if orders is None:
            if time.monotonic() - self._answered_at > self._manifest.orphan_after_s:
                raise CoordinatorGone(f"no answer from the coordinator for {self._manifest.orphan_after_s:.0f} s")
            return
        self._answered_at = time.monotonic()
        self._report_every_s = orders["report_every_s"]
        self._report_at = self._answered_at + self._report_every_s
        answered, self._reported = self._reported, {}
        if answered["fault"] is not None:
            raise _Ended(wire.EXIT_FATAL)
        directive = orders["directive"]
        if directive == "stop":
            raise _Ended(wire.EXIT_STOPPED)
        if directive == "flush" and self._stopping_since is None:
            self._flush()
        if self._stopping_since is not None:
            if self._terminated and not self._flushing and not self._commits and answered["state"] == "stopping":
                raise _Ended(wire.EXIT_STOPPED)
            return
        for held in orders["refused"]:
            lease = self._book.get(held["split"])
            if lease is not None and lease.fence == held["fence"]:
                self._drop(held["split"])
        self._take(orders["leases"], {each["split"] for each in answered["commits"] if not each["done"]})
        if directive == "finish" and not self._commits and not len(self._book):
            self._close()

    def _take(self, leases: list[dict[str, Any]], continued: set[int]) -> None:
        for values in leases:
            split = values["split"]
            known = self._book.get(split)
            if known is not None and known.awaiting:
                going_on = self._book.go_on(values)
                if going_on is not None:
                    self._worker_on(going_on.ticket).tell(going_on.message(self._watch.most))
            else:
                self._drop(split)
                self._book.take(values)
            continued.discard(split)
        for split in continued:  # accepted, but the rest was given to another, or refused
            lease = self._book.get(split)
            if lease is not None and lease.awaiting:
                self._drop(split)

    def _drop(self, split: int) -> None:
        lease = self._book.forget(split)
        if lease is not None and lease.ticket:
            self._worker_on(lease.ticket).tell({"type": "drop", "ticket": lease.ticket})

    def _worker_on(self, ticket: int) -> Worker:
        return next(worker for worker in self._pool.workers if worker.ticket == ticket)

    def _report(self) -> None:
        if self._channel.sending:
            return
        if not (self._commits or self._news or time.monotonic() >= self._report_at):
            return
        self._news = False
        commits, self._commits = self._commits, []
        open_for_work = self._stopping_since is None and self.fault is None
        self._reported = wire.report(
            self._manifest.instance,
            self._state(),
            commits=commits,
            held=self._book.renewals(),
            want=self._want() if open_for_work else 0,
            pending=self._account.pending(),
            memory_bytes=self._watch.memory_bytes,
            seconds=self._account.seconds(),
            tuning=self._crew.tuning(),
            waiting=self._account.waiting(),
            fault=self.fault,
        )
        self._channel.send(self._reported)

    def _want(self) -> int:
        """A lease for each worker without one; one more for each where splits are quick, so that nobody waits."""
        ahead = self._watch.processes if self._split_s and max(self._split_s) < QUICK_SPLIT_S else 0
        return max(0, self._crew.idle() + ahead - self._book.queued)

    def _state(self) -> str:
        if self._stopping_since is not None or self.fault is not None:
            return "stopping"
        if self._account.loaded:
            return "running"
        loading = any(worker.board.phase().phase >= boards.LOADING for worker in self._pool.workers)
        return "loading" if loading else "starting"

    # -- endings

    def _fail(self, fault: Optional[dict[str, Any]]) -> None:
        """The instance cannot go on: says so, with what was committed, and ends when that is answered."""
        if fault is None or self.fault is not None:
            return
        log(f"{fault['kind']}: {fault['message']}\n{fault['traceback']}".rstrip())
        self.fault = fault
        self._stopping_since = self._stopping_since or time.monotonic()
        self._news = True
        for worker in self._pool.workers:
            worker.kill()

    def _flush(self) -> None:
        """Has the workers commit what is computed; nothing new is begun."""
        self._stopping_since = time.monotonic()
        self._news = True
        for worker in self._pool.workers:
            if worker.loaded:
                self._flushing[worker.pid] = worker
                worker.tell({"type": "flush"})

    def _end_if_over(self) -> None:
        if self._stopping_since is None:
            return
        stopping_s = time.monotonic() - self._stopping_since
        if self.fault is not None and stopping_s > LAST_WORDS_S:
            raise _Ended(wire.EXIT_FATAL)
        if self._flushing and stopping_s > FLUSH_PATIENCE_S:
            self._flushing.clear()
        if self._terminated and stopping_s > FLUSH_PATIENCE_S + LAST_WORDS_S:
            raise _Ended(wire.EXIT_STOPPED)
        if self._terminated and not self._flushing and not self._stop_asked:
            self._stop_asked = True
            self._news = True

    def _close(self) -> None:
        """All is done: lets the workers close their models, within reason."""
        for worker in self._pool.workers:
            worker.tell({"type": "close"})
        give_up_at = time.monotonic() + CLOSE_PATIENCE_S
        while self._pool.workers and time.monotonic() < give_up_at:
            select.select([self._wake_read], [], [], 0.01)
            self._pool.dead()
        raise _Ended(wire.EXIT_DONE)
