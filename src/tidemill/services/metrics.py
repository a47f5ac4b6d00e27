"""Prometheus metrics: what is counted as it happens, and what is asked of the store when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tidemill.domain.life import TaskStatus
from tidemill.services.regions import Regions
from tidemill.store.base import Store
from tidemill.store.runs import taken_resources
from tidemill.store.tasks import counts_by_status


class _StoreCollector(Collector):
    def __init__(self, store: Store, regions: Regions) -> None:
        self._store = store
        self._regions = regions

    def describe(self) -> list[Metric]:
        return []  # nothing is asked of the store when this is registered

    def collect(self) -> Iterator[Metric]:
        with self._store.read() as tx:
            counts = counts_by_status(tx)
            millicores, memory_bytes = taken_resources(tx)
        tasks = GaugeMetricFamily("tidemill_tasks", "Tasks by status.", labels=["status"])
        for status in TaskStatus:
            tasks.add_metric([status], counts.get(status, 0))
        yield tasks
        capacity = GaugeMetricFamily("tidemill_capacity_cores", "Cores that instances may use.", labels=["region"])
        memory = GaugeMetricFamily(
            "tidemill_capacity_memory_bytes", "Memory that instances may use.", labels=["region"]
        )
        for name, region in self._regions.items():
            has = region.engine.capacity()
            capacity.add_metric([name], has.millicores / 1000)
            memory.add_metric([name], has.memory_bytes)
        yield capacity
        yield memory
        yield GaugeMetricFamily("tidemill_taken_cores", "Cores that living instances were given.", millicores / 1000)
        yield GaugeMetricFamily("tidemill_taken_memory_bytes", "Memory that living instances were given.", memory_bytes)


def make_metrics(store: Store, regions: Regions) -> CollectorRegistry:
    """A registry of this server's own; loops may add theirs."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_StoreCollector(store, regions))
    return registry
