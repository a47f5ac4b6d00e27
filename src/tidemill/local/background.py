"""What a run does beside its loop, on threads: publishing what is ready, and reading the model for its digest."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tidemill.domain.errors import StorageFull, Temporary
from tidemill.local.models import digest_of
from tidemill.publishing.publisher import Publisher

_BATCH_UNITS = 64
_PAUSE_S = 1.0
"""Between two batches while the run computes: each ends with a sync of the disk."""
_RETRIES = 300


class BackgroundPublisher:
    """Publishes units as they get ready, until `stop`.

    failure: why it had to give up. wake: called when there is news.
    """

    def __init__(self, publisher: Publisher, wake: Callable[[], None]) -> None:
        self._publisher = publisher
        self._wake = wake
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._stop = threading.Event()
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tidemill-publisher", daemon=True)
        self._thread.start()

    def poke(self, *, last: bool) -> None:
        """There is something to publish. last: nothing is computed any more, so it need not be gathered."""
        if last:
            self._hurry.set()
        self._work.set()

    def stop(self) -> None:
        """Ends after the batch in hand. May be called again."""
        self._stop.set()
        self._hurry.set()
        self._work.set()
        self._thread.join()

    def _run(self) -> None:
        failures = 0
        while True:
            self._work.wait()
            if self._stop.is_set():
                return
            self._work.clear()
            try:
                while not self._stop.is_set() and self._publisher.publish_ready(_BATCH_UNITS):
                    self._wake()
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is, the run has to hear of it
                failures += 1
                if isinstance(error, StorageFull) or not isinstance(error, Temporary) or failures > _RETRIES:
                    self.failure = error
                    self._wake()
                    return
            if not self._stop.is_set():
                # After a failure of the storage it is tried again after the same pause, hurry or not.
                (threading.Event() if failures else self._hurry).wait(_PAUSE_S)
            if failures:
                self._work.set()


class Digests:
    """Digests of the model's folders, computed while they load: large models take seconds to read."""

    def __init__(self, folders: list[Path]) -> None:
        self._found: list[str] | None = None
        self._thread = threading.Thread(target=self._run, args=(folders,), name="tidemill-digest", daemon=True)
        self._thread.start()

    @property
    def ready(self) -> list[str] | None:
        return self._found

    def wait(self) -> list[str]:
        """In the order of the folders; empty where a file could not be read (the instance says more about it)."""
        self._thread.join()
        return self._found or []

    def _run(self, folders: list[Path]) -> None:
        try:
            self._found = [digest_of(folder) for folder in folders]
        except OSError:
            self._found = []
