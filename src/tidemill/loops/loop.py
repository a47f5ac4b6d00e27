"""One controller: a thread that looks for subjects with something to do, and workers that do it.

A loop is woken when something was written that concerns it, and looks by itself from time to time. A subject that fails
is tried again after a growing pause; it never holds up the others, and no error ends the loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from tidemill.domain.errors import Temporary
from tidemill.loops.leases import LeaseLost, WorkLease, WorkLeases
from tidemill.ports.clock import Clock

_log = logging.getLogger(__name__)
_BACKOFF_FIRST_S, _BACKOFF_MOST_S = 0.5, 30.0
LOOKS_APART_S = 0.03
"""Between one look and the next, however often the loop is woken: hundreds of tasks may be created in a second, and one
look sees them all. The first after a quiet time comes at once."""


@dataclass(frozen=True)
class Due:
    """What there is to do now, and when to look again at the latest."""

    subjects: Sequence[str]
    again_s: float


class Handler(Protocol):
    """What one loop does. name: as `Tx.wake` and the leases call it. workers: subjects that are worked on at a time."""

    name: str
    workers: int

    def due(self) -> Due:
        """Looks; changes nothing but what may be changed any number of times."""

    def work(self, subject: str, lease: WorkLease) -> None:
        """Does what there is to do, as far as it can be done now."""

    def failed(self, subject: str, error: Exception, failures: int) -> None:
        """Told of each failure; failures counts those in a row."""

    def recovered(self, subject: str) -> None:
        """Told of the first success after a failure."""


@dataclass
class _Trouble:
    failures: int = 0
    not_before: float = 0.0


class Loop:
    """error: why the last look failed, None if it did not."""

    def __init__(self, handler: Handler, leases: WorkLeases, clock: Clock) -> None:
        self.handler = handler
        self._leases = leases
        self._clock = clock
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._look_again = False  # a subject was busy when it was due
        self._busy: set[str] = set()
        self._trouble: dict[str, _Trouble] = {}
        self._lock = threading.Lock()
        self._workers = ThreadPoolExecutor(handler.workers, thread_name_prefix=f"tidemill-{handler.name}")
        self._thread = threading.Thread(target=self._run, name=f"tidemill-{handler.name}-loop", daemon=True)
        self.error: str | None = None

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Looks again at once."""
        self._woken.set()

    def stop(self) -> None:
        """Ends after the work in hand."""
        self._closing.set()
        self._woken.set()
        self._thread.join()
        self._workers.shutdown(wait=True, cancel_futures=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        again_s = 0.0
        failures = 0
        not_before = 0.0
        while not self._closing.is_set():
            self._woken.wait(again_s)
            self._closing.wait(max(0.0, not_before - self._clock.monotonic()))
            not_before = self._clock.monotonic() + LOOKS_APART_S
            self._woken.clear()
            if self._closing.is_set():
                return
            try:
                due = self.handler.due()
                failures, self.error = 0, None
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may find it gone
                failures += 1
                self.error = str(error)
                again_s = backoff_s(failures)
                report_failure(self.handler.name, "", error)
                continue
            again_s = min(due.again_s, self._begin(due.subjects))

    def _begin(self, subjects: Sequence[str]) -> float:
        """Hands subjects to the workers; in how many seconds the next of those that failed may be tried."""
        now = self._clock.monotonic()
        next_s = float("inf")
        for subject in subjects:
            with self._lock:
                wait_s = self._trouble.get(subject, _Trouble()).not_before - now
                if subject in self._busy:
                    self._look_again = True
                    continue
                if wait_s > 0:
                    next_s = min(next_s, wait_s)
                    continue
                self._busy.add(subject)
            self._workers.submit(self._work, subject)
        with self._lock:
            wanted = set(subjects)
            for subject in [known for known in self._trouble if known not in wanted and known not in self._busy]:
                del self._trouble[subject]
        return next_s

    def _work(self, subject: str) -> None:
        try:
            with self._leases.hold(subject, self.handler.name) as lease:
                if lease is not None and not self._closing.is_set():
                    self.handler.work(subject, lease)
            if self._succeeded(subject):
                self.handler.recovered(subject)
        except LeaseLost:
            _log.info("%s: somebody else works on %s", self.handler.name, subject)
        except Exception as error:  # noqa: BLE001 - one failing subject is one failing subject
            self._failed(subject, error)
        finally:
            with self._lock:
                self._busy.discard(subject)
                look_again, self._look_again = self._look_again, False
            if look_again:
                self._woken.set()

    def _succeeded(self, subject: str) -> bool:
        with self._lock:
            return self._trouble.pop(subject, None) is not None

    def _failed(self, subject: str, error: Exception) -> None:
        with self._lock:
            trouble = self._trouble.setdefault(subject, _Trouble())
            trouble.failures += 1
            trouble.not_before = self._clock.monotonic() + backoff_s(trouble.failures)
            failures = trouble.failures
        report_failure(self.handler.name, subject, error)
        try:
            self.handler.failed(subject, error, failures)
        except Exception as another:  # noqa: BLE001 - as above
            report_failure(self.handler.name, subject, another)


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures in a row."""
    return min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** min(failures - 1, 10))


def report_failure(loop: str, subject: str, error: Exception) -> None:
    """Into the log: as a warning what may go away by itself."""
    if isinstance(error, Temporary):
        _log.warning("%s %s: %s", loop, subject, error)
    else:
        _log.error("%s %s failed", loop, subject, exc_info=error)
