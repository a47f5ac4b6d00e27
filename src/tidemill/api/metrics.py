"""What the doors count: requests by route and status, and how long they took. Used by `gate`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram

_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0)


class RequestMetrics:
    """registry: where the server's other metrics are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "tidemill_http_requests", "Requests answered.", ["method", "route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "tidemill_http_seconds",
            "Seconds until the answer was sent.",
            ["route"],
            buckets=_BUCKETS_S,
            registry=registry,
        )

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """route: its template; what has none shares one, so that nobody can make labels without end."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "OTHER"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)
