"""All use cases of a server in one object: what the doors are given. Built by `bootstrap`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from tidemill.services.access import Access
from tidemill.services.models import Models
from tidemill.services.objects import ObjectAccess
from tidemill.services.packages import Packages
from tidemill.services.results import Results
from tidemill.services.tasks import Tasks
from tidemill.wire.views import ServerView
from tidemill_runtime.contract import Orders, Report


@dataclass(frozen=True)
class Services:
    """report: answers one report of an instance, given its token. problems: why the server is not ready, in words; nothing
    if it is. closing: whether the server is about to end, so that long answers should. default_region: for requests that
    name none."""

    access: Access
    tasks: Tasks
    results: Results
    models: Models
    packages: Packages
    objects: ObjectAccess
    report: Callable[[str, Report], Orders]
    about: Callable[[], ServerView]
    problems: Callable[[], list[str]]
    closing: Callable[[], bool]
    metrics: CollectorRegistry
    default_region: str

    def region(self, name: str | None) -> str:
        """The region that a request means. (Unknown ones are found out where they are used.)"""
        return name or self.default_region
