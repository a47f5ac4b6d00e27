"""The Python client of a Tidemill server: `tidemill.Client`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tidemill.client.connection import Connection, find_credentials
from tidemill.client.models import ModelsClient
from tidemill.client.objects import ObjectsClient
from tidemill.client.packages import PackagesClient
from tidemill.client.tasks import TasksClient
from tidemill.domain.errors import Temporary
from tidemill.wire.views import ProgressView, ServerView, TaskSummary, TaskView

OnProgress = Callable[[ProgressView], None]


class Client:
    """Speaks to a server. Safe for threads. Close it, or use it in a `with`.

        client = tidemill.Client()
        version = client.models.import_("churn", "./model")
        task = client.tasks.create({"name": "july", "model": "churn", "input": "cos://data/in/", "output": "cos://data/out/"})
        task = client.wait(task, progress=True)

    url, secret_id, secret_key: the server and the credential; credentials: a file with the latter two; data: the
    data folder of a server on this machine. What is not given is taken from TIDEMILL_URL, TIDEMILL_SECRET_ID,
    TIDEMILL_SECRET_KEY, then from tidemill.toml, then from the server that runs on this machine.

    Raises the errors of `tidemill.domain.errors`, the same as the server: Refused for a request that is wrong
    (field, remedy), Temporary for what may go away by itself, after several tries.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        secret_id: str | None = None,
        secret_key: str | None = None,
        credentials: str | os.PathLike[str] | None = None,
        data: str | os.PathLike[str] | None = None,
    ) -> None:
        self._connection = Connection(find_credentials(url, secret_id, secret_key, credentials, data))
        self.packages = PackagesClient(self._connection)
        self.models = ModelsClient(self._connection, self.packages)
        self.objects = ObjectsClient(self._connection)
        self.tasks = TasksClient(self._connection, self.packages)

    @property
    def url(self) -> str:
        return self._connection.url

    def server(self) -> ServerView:
        """What the server is and has."""
        return self._connection.get("/api/v1/server", ServerView)

    def wait(
        self,
        task: str | TaskSummary,
        *,
        progress: bool | OnProgress = False,
        timeout_s: float | None = None,
    ) -> TaskView:
        """Waits until a task has ended; what it is then.

        progress: True prints one line that is kept up to date; a function is called with each ProgressView.
        Raises TimeoutError after timeout_s; the task goes on.
        """
        name = task if isinstance(task, str) else task.id
        show = progress if callable(progress) else _line if progress else _quiet
        last: ProgressView | None = None
        for last in self.tasks.watch(name, timeout_s=timeout_s):
            show(last)
        if last is None or not last.final:
            raise TimeoutError(f"{name} has not ended within {timeout_s:g} s.")
        return self.tasks.get(name)

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _repr_html_(self) -> str:
        try:
            return self.server()._repr_html_()
        except Temporary as error:
            return f"{self!r}: {error}"


def _quiet(view: ProgressView) -> None:
    """Shows nothing."""


def _line(view: ProgressView) -> None:
    """Progress as one line that is written over, in terminals and notebooks alike."""
    parts = [f"{view.phase}", f"{view.share:.0%}", f"{view.counts.inputs:,} records"]
    if view.records_per_s:
        parts.append(f"{view.records_per_s:,.0f}/s")
    if view.eta_s is not None:
        parts.append(f"{view.eta_s:.0f} s left")
    if view.counts.failed:
        parts.append(f"{view.counts.failed:,} failed")
    sys.stderr.write("\r" + " · ".join(parts).ljust(78) + ("\n" if view.final else ""))
    sys.stderr.flush()
