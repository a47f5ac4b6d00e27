"""The instances of one run: started, answered, replaced within `retries`, told to end. Driven by `runner`'s loop.

One thread does all of it: the kernel ends an instance with the thread that started it.
"""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tidemill.coordination.coordinator import Coordinator, Wish
from tidemill.coordination.messages import read_report, write_orders
from tidemill.domain.errors import InvalidValue, StorageUnavailable, TidemillError
from tidemill.domain.life import Reason, TaskStatus
from tidemill.domain.verdict import may_retry, reason_of_fault
from tidemill.engines import logs
from tidemill.local.ending import End, end_of
from tidemill.local.instances import Instance
from tidemill.ports.clock import Clock
from tidemill.ports.journal import Journal
from tidemill_runtime.contract import EXIT_DONE, FATAL_FAULTS, Counts, Fault, Report

FLUSH_WITHIN_S = 30.0
"""How long an instance may take to commit what it has computed, before it is killed."""
CLOSE_WITHIN_S = 5.0
"""How long it may take to end when there is nothing left to do."""
STORAGE_WITHIN_S = 300.0
"""How long a storage that does not answer is waited for before the run stops."""
_RETRY_EVERY_S = 1.0
_LOG_BYTES_MAX = 64 << 20
_LOG_LOOK_EVERY_S = 2.0
_BACKOFF_MOST_S = 30.0


@dataclass
class _Unanswered:
    """A report that could not be answered, because the storage did not answer. since, again: monotonic seconds."""

    report: Report
    since: float
    again: float


class Crew:
    """start: starts the instance of an index and attempt. wish: what is wanted of all instances.

    failure: set when the run has to end. replaced: how many instances were. tuning: as reported last.
    """

    def __init__(self, start: Callable[[int, int], Instance], count: int, retries: int, clock: Clock) -> None:
        self._start = start
        self._retries = retries
        self._clock = clock
        self._coordinator: Coordinator | None = None
        self._journal: Journal | None = None
        self._unanswered: dict[str, _Unanswered] = {}
        self._due: dict[int, tuple[int, float]] = {}  # index → the next attempt, and when
        self._ending_since: float | None = None
        self._logs_at = clock.monotonic()
        self.selector = selectors.DefaultSelector()
        self.members: list[Instance] = []
        self.wish = Wish.WORK
        self.failure: End | None = None
        self._refused = ""  # the storage's words while it does not answer us
        self.replaced = 0
        self.first_report_at: float | None = None
        self.first_running_at: float | None = None
        self.tuning: dict[str, Any] = {}
        for index in range(count):
            self._add(index, 1)

    def connect(self, coordinator: Coordinator, journal: Journal) -> None:
        """From now on reports are answered. Until then they wait in the sockets, while the models load."""
        self._coordinator = coordinator
        self._journal = journal

    @property
    def over(self) -> bool:
        return not self.members and not self._due

    @property
    def paused(self) -> str:
        """What is waited for, here or in an instance, and in which words; "" while all get on."""
        return self._refused or next((member.waiting for member in self.members if member.waiting), "")

    @property
    def pending(self) -> Counts:
        return sum((member.pending for member in self.members), Counts())

    @property
    def running(self) -> int:
        return sum(member.state == "running" for member in self.members)

    def turn(self, timeout_s: float) -> None:
        """Waits for something to do, up to `timeout_s`, and does it."""
        for key, events in self.selector.select(timeout_s):
            if isinstance(key.data, Instance):
                if events & selectors.EVENT_WRITE:
                    self._flush(key.data)
                if events & selectors.EVENT_READ:
                    self._hear(key.data)
        now = self._clock.monotonic()
        for member in list(self.members):
            waiting = self._unanswered.get(member.id)
            if waiting is not None and now >= waiting.again:
                self._answer(member, waiting.report)
            if member.closed or member.process.poll() is not None:
                self._bury(member)
        self._replace(now)
        self._enforce(now)
        if now > self._logs_at + _LOG_LOOK_EVERY_S:
            self._logs_at = now
            for member in self.members:
                logs.bound(member.log, _LOG_BYTES_MAX)

    def end(self, wish: Wish) -> None:
        """Has all instances end: FLUSH commits first, STOP does not wait."""
        if self.wish is Wish.WORK:
            self._ending_since = self._clock.monotonic()
            for member in self.members:
                member.ask_to_end()
        if wish is Wish.STOP:
            for member in self.members:
                member.kill()
        self.wish = wish

    def dismiss(self) -> None:
        """Nothing is left to do: instances end by themselves at their next report; those that do not are killed."""
        if self._ending_since is None:
            self._ending_since = self._clock.monotonic()
        self._due.clear()

    def close(self) -> None:
        """Kills what is left. May be called again."""
        for member in self.members:
            member.close()
        self.members.clear()
        self._due.clear()
        self.selector.close()

    def _add(self, index: int, attempt: int) -> None:
        member = self._start(index, attempt)
        self.members.append(member)
        self.selector.register(member.socket, selectors.EVENT_READ, member)

    def _hear(self, member: Instance) -> None:
        lines = member.received()
        for line in lines or ():
            try:
                report = read_report(line)
            except InvalidValue as error:
                self._fail(End(TaskStatus.FAILED, Reason.INTERNAL, f"An instance sent what is no report: {error}"))
                return
            if self.first_report_at is None:
                self.first_report_at = self._clock.monotonic()
            member.state, member.pending, member.seconds = report.state, report.pending, report.seconds
            self.tuning = report.tuning or self.tuning
            member.waiting = report.waiting
            if report.state == "running" and self.first_running_at is None:
                self.first_running_at = self._clock.monotonic()
            member.fault = report.fault or member.fault
            self._answer(member, report)
        if lines is None and not member.closed:
            member.closed = True
            self.selector.unregister(member.socket)

    def _answer(self, member: Instance, report: Report) -> None:
        assert self._coordinator is not None
        now = self._clock.monotonic()
        try:
            orders = self._coordinator.answer(report, self.wish)
        except StorageUnavailable as error:
            waiting = self._unanswered.setdefault(member.id, _Unanswered(report, now, now))
            waiting.again = now + _RETRY_EVERY_S
            self._refused = str(error)
            if now - waiting.since > STORAGE_WITHIN_S:
                self._fail(end_of(error))
            return
        except (TidemillError, OSError) as error:
            self._fail(end_of(error))
            return
        self._unanswered.pop(member.id, None)
        if not self._unanswered:
            self._refused = ""
        member.send(write_orders(orders))
        self._watch_writing(member)

    def _flush(self, member: Instance) -> None:
        member.flush()
        self._watch_writing(member)

    def _watch_writing(self, member: Instance) -> None:
        if not member.closed:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if member.wants_to_send else 0)
            self.selector.modify(member.socket, events, member)

    def _bury(self, member: Instance) -> None:
        """Takes the last words of an instance that ended, and replaces it if it may be."""
        assert self._journal is not None
        self._hear(member)
        if not member.closed:
            self.selector.unregister(member.socket)
        self._unanswered.pop(member.id, None)
        self.members.remove(member)
        member.close()
        self._journal.release_instance(member.id)
        fault = member.fault or _told_fault(member)
        code = member.process.returncode
        if (code == EXIT_DONE and fault is None) or self._ending_since is not None or self.failure is not None:
            return
        if fault is not None and _is_full(fault):
            self._fail(End(TaskStatus.STOPPED, Reason.DISK_FULL, _evidence(member, fault)))
            return
        if may_retry(fault) and member.attempt <= self._retries:
            self.replaced += 1
            wait_s = min(_BACKOFF_MOST_S, 0.1 * 4 ** (member.attempt - 1))
            self._due[member.index] = (member.attempt + 1, self._clock.monotonic() + wait_s)
            return
        self._fail(End(TaskStatus.FAILED, reason_of_fault(fault), _evidence(member, fault)))

    def _replace(self, now: float) -> None:
        """Starts what is due."""
        if self.wish is not Wish.WORK:
            self._due.clear()
        for index, (attempt, at) in list(self._due.items()):
            if now >= at:
                del self._due[index]
                self._add(index, attempt)

    def _enforce(self, now: float) -> None:
        if self._ending_since is None:
            return
        within_s = CLOSE_WITHIN_S if self.wish is Wish.WORK else FLUSH_WITHIN_S
        if now - self._ending_since > within_s:
            for member in self.members:
                member.kill()

    def _fail(self, end: End) -> None:
        if self.failure is None:
            self.failure = end


def _told_fault(member: Instance) -> Fault | None:
    """What an instance wrote down because it could not say it."""
    try:
        told = json.loads((member.log.parent / "exit.json").read_text())["fault"]
        kind = told["kind"] if told["kind"] in FATAL_FAULTS else "internal"
        return Fault(kind, str(told["message"]), str(told["evidence"]), str(told["traceback"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_full(fault: Fault) -> bool:
    """Whether a part could not be written for want of space: the next instance would fare no better."""
    return fault.kind == "staging_failed" and os.strerror(errno.ENOSPC) in f"{fault.message} {fault.evidence}"


def _evidence(member: Instance, fault: Fault | None) -> str:
    if fault is not None:
        return fault.message if fault.evidence in fault.message else f"{fault.message} ({fault.evidence})"
    code = member.process.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = logs.evidence(member.log).splitlines()[-1:]
    return f"{member.id} {how}{': ' + last[0] if last else ''}."
