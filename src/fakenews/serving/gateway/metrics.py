"""What the gateway counts, for Prometheus."""

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

_LATENCY = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
_TENTHS = tuple(number / 10 for number in range(1, 11))
_DIFFERENCES = (0.001, 0.005, 0.01, 0.05, 0.1, 0.2, 0.5, 1)

# When each was made, as a metric beside each: nobody asks, and it doubles the answer.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.requests = Counter(
            "fakenews_requests", "Requests answered", ["path", "status"], registry=r
        )
        self.latency = Histogram(
            "fakenews_request_seconds",
            "From a request's arrival to its answer",
            ["path"],
            buckets=_LATENCY,
            registry=r,
        )
        self.predictions = Counter(
            "fakenews_predictions",
            "Texts answered",
            ["route", "model_version", "label", "unsure"],
            registry=r,
        )
        self.item_errors = Counter(
            "fakenews_item_errors", "Texts that could not be answered", ["code"], registry=r
        )
        self.score = Histogram(
            "fakenews_score",
            "Probability of the positive class (of several, of the most probable)",
            ["model_version"],
            buckets=_TENTHS,
            registry=r,
        )
        self.waiting = Gauge(
            "fakenews_queue_items", "Texts that wait", ["model_version"], registry=r
        )
        self.batch = Histogram(
            "fakenews_batch_items", "Texts of a batch", buckets=_SIZES, registry=r
        )
        self.upstream = Histogram(
            "fakenews_upstream_seconds",
            "From a text's queueing to the model's answer",
            ["route"],
            buckets=_LATENCY,
            registry=r,
        )
        self.upstream_errors = Counter(
            "fakenews_upstream_errors", "Failures of the model server", ["kind"], registry=r
        )
        self.cache = Counter(
            "fakenews_cache", "Texts looked for in the cache", ["result"], registry=r
        )
        self.canary_share = Gauge(
            "fakenews_canary_share", "Share of requests sent to a canary", registry=r
        )
        self.canary_fallbacks = Counter(
            "fakenews_canary_fallbacks",
            "Requests that the champion answered instead",
            registry=r,
        )
        self.canary_aborts = Counter("fakenews_canary_aborts", "Canaries given up", registry=r)
        self.shadow = Counter("fakenews_shadow", "Copies to a shadow", ["result"], registry=r)
        self.shadow_difference = Histogram(
            "fakenews_shadow_difference",
            "Between a shadow's probability of the champion's label and the champion's",
            buckets=_DIFFERENCES,
            registry=r,
        )
        self.not_logged = Counter(
            "fakenews_log_failures", "Predictions that were not logged, or lost", registry=r
        )
        self.feedback = Counter("fakenews_feedback", "Feedback stored", ["verdict"], registry=r)
        self.ready = Gauge("fakenews_ready", "Whether requests are answered", registry=r)

    def render(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self.registry)
