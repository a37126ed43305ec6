"""Metrics of the server, in Prometheus' format."""

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        ours: Any = {"namespace": "cifar_onnx", "registry": registry}
        self.requests = Counter("requests", "Requests answered", ["route", "code"], **ours)
        self.seconds = Histogram(
            "request_seconds", "From a request's headers to its answer", ["route"], buckets=_SECONDS, **ours
        )
        self.batch = Histogram("batch_size", "Pictures that ran together", buckets=_BATCHES, **ours)
        self.in_flight = Gauge("requests_in_flight", "Requests not yet answered", **ours)
        self.model = Info("model", "The model that is served", **ours)

    def text(self) -> bytes:
        """All of them."""
        return generate_latest(self._registry)
