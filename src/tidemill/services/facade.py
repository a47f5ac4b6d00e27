"""All use cases of a server in one object: what the doors are given. `assemble` is called by `bootstrap`, and by
tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry

import tidemill
from tidemill.domain.errors import TidemillError
from tidemill.ports.clock import Clock
from tidemill.services.access import Access, Credential
from tidemill.services.making import TaskMaking
from tidemill.services.metrics import make_metrics
from tidemill.services.models import Models
from tidemill.services.objects import ObjectAccess
from tidemill.services.packages import Packages
from tidemill.services.regions import Regions
from tidemill.services.results import Results
from tidemill.services.tasks import Tasks
from tidemill.settings import LimitsSection
from tidemill.store.base import Store
from tidemill.store.blobs import Blobs
from tidemill.wire.views import ServerView
from tidemill_runtime.contract import Orders, Report


@dataclass(frozen=True)
class Services:
    """report: answers one report of an instance, given its token. receipt_key: the public key that receipts are signed
    by, in base64. problems: why the server is not ready, in words;
    nothing if it is. closing: whether the server is about to end, so that long answers should. default_region: for
    requests that name none.
    """

    access: Access
    tasks: Tasks
    results: Results
    models: Models
    packages: Packages
    objects: ObjectAccess
    regions: Regions
    report: Callable[[str, Report], Orders]
    problems: Callable[[], list[str]]
    closing: Callable[[], bool]
    metrics: CollectorRegistry
    default_region: str
    receipt_key: str

    def region(self, name: str | None) -> str:
        """The region that a request means. Unknown ones are found out where they are used."""
        return name or self.default_region

    def about(self) -> ServerView:
        """What this server is and has."""
        region = self.regions[self.default_region]
        capacity = region.engine.capacity()
        return ServerView(
            version=tidemill.__version__,
            region=region.name,
            regions=sorted(self.regions),
            engine=region.engine.name,
            capacity_millicores=capacity.millicores,
            capacity_memory_bytes=capacity.memory_bytes,
            buckets={name: sorted(each.buckets) for name, each in self.regions.items()},
            receipt_key=self.receipt_key,
        )


def assemble(
    store: Store,
    regions: Regions,
    clock: Clock,
    data: Path,
    limits: LimitsSection,
    credentials: Iterable[Credential],
    *,
    report: Callable[[str, Report], Orders],
    receipt_key: str,
    problems: Callable[[], list[str]] = list,
    closing: Callable[[], bool] = lambda: False,
) -> Services:
    """data: the server's data folder, for packages. problems: of the loops; the store is asked here."""
    blobs = Blobs(data, limit_bytes=limits.package_bytes)
    packages = Packages(store, blobs, clock, limit_bytes=limits.package_bytes, limit_files=limits.package_files)
    models = Models(store, packages, clock)

    def all_problems() -> list[str]:
        try:
            store.check()
        except TidemillError as error:
            return [error.message, *problems()]
        return problems()

    return Services(
        access=Access(credentials),
        tasks=Tasks(store, clock, regions, TaskMaking(store, clock, regions, models, packages)),
        results=Results(store, regions),
        models=models,
        packages=packages,
        objects=ObjectAccess(regions, limit_bytes=limits.upload_bytes),
        regions=regions,
        report=report,
        problems=all_problems,
        closing=closing,
        metrics=make_metrics(store, regions),
        default_region="local" if "local" in regions else min(regions),
        receipt_key=receipt_key,
    )
