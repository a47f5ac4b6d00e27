"""Environments for a server's loops: asked for again and again, built beside them by a few threads.

The loop `place` asks at each look and never waits. Nothing is stored: after a restart it asks again, and what was
half-built is built anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.domain.errors import EnvironmentFailed
from tidemill.domain.ids import RunId
from tidemill.environments.cache import Cancelled, Environment
from tidemill.environments.finding import Environments, Need

_WORKERS = 2
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class State:
    """How far the environment of a run is. One of: nothing to wait for (environment None: our own Python, which has
    `own`, if anything was asked for), `doing` (being built), `failed`.
    """

    environment: Environment | None = None
    own: dict[str, str] | None = None
    doing: str = ""
    failed: EnvironmentFailed | None = None


@dataclass
class _Job:
    """One build. runs: those that want it, and that hear of its failure."""

    need: Need
    runs: set[RunId]
    doing: str = "waiting for another installation"
    over: bool = False
    failed: EnvironmentFailed | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


class Builders:
    """done: called from a builder's thread when one has ended, however."""

    def __init__(self, environments: Environments) -> None:
        self.done: Callable[[], None] = lambda: None
        self._environments = environments
        self._lock = threading.Lock()
        self._needs: dict[RunId, Need | None] = {}
        self._jobs: dict[str, _Job] = {}
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="tidemill-environment")

    def ask(self, run: RunId, *packages: Path | None) -> State:
        """How it stands with the environment of these package folders; begins to build one that is missing.

        A failure is told to the runs that had asked by then; another one that asks later tries again. Raises
        InvalidValue for requirements that cannot be read.
        """
        with self._lock:
            known, need = run in self._needs, self._needs.get(run)
        if not known:
            need = self._environments.need(*packages)
            with self._lock:
                self._needs[run] = need
        if need is None or need.own is not None:
            return State(own=None if need is None else need.own)
        with self._lock:
            job = self._jobs.get(need.digest)
            if job is not None and not job.over:
                job.runs.add(run)
                return State(doing=job.doing)
            if job is not None and job.failed is not None and run in job.runs:
                return State(failed=job.failed)
        found = self._environments.cache.find(need.digest)
        if found is not None:
            return State(environment=found)
        job = _Job(need, {run})
        with self._lock:
            self._jobs[need.digest] = job
        self._workers.submit(self._build, job)
        return State(doing=job.doing)

    def lock_of(self, environment: Environment) -> Path:
        """What who uses it holds a shared lock on."""
        return self._environments.cache.lock_of(environment.digest)

    def keep(self, runs: Collection[RunId]) -> None:
        """Ends what none of these runs wants any more: builds, and what is remembered."""
        wanted = set(runs)
        with self._lock:
            self._needs = {run: need for run, need in self._needs.items() if run in wanted}
            for digest, job in list(self._jobs.items()):
                job.runs &= wanted
                if not job.runs:
                    job.cancelled.set()
                    if job.over:
                        del self._jobs[digest]

    def sweep(self) -> None:
        """What killed builders have left goes, and the least recently used over the limit. Returns at once."""
        self._workers.submit(self._environments.cache.sweep, time.time())

    def stop(self) -> None:
        """Ends what is being built; another server builds it anew."""
        with self._lock:
            for job in self._jobs.values():
                job.cancelled.set()
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _build(self, job: _Job) -> None:
        def tell(doing: str) -> None:
            job.doing = doing

        try:
            if not job.cancelled.is_set():
                self._environments.provide(job.need, cancelled=job.cancelled.is_set, tell=tell)
        except Cancelled:
            pass
        except EnvironmentFailed as error:
            job.failed = error
            _log.warning("environment %s could not be built; all of it is in %s", job.need.digest, error.log)
        except Exception as error:  # noqa: BLE001 - whatever it is, the runs that wait have to hear of it
            _log.exception("environment %s could not be built", job.need.digest)
            job.failed = EnvironmentFailed(f"{type(error).__name__}: {error}")
        finally:
            job.over = True
            self.done()
