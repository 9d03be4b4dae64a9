"""What the server counts, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foretell.generate import Usage

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_GAUGES = {  # fields of an engine's stats()
    "running": "Replies that are being generated.",
    "waiting": "Requests that wait for their turn.",
    "cache_used": "Share of the KV cache that is in use.",
    "cached_tokens": "Prompt tokens that were not computed, since an earlier prompt began alike.",
    "guessed_tokens": "Generated tokens that took no step of their own, since they were guessed from the text before.",
    "preemptions": "Replies that gave up their place for others and were computed again.",
}


class Metrics:
    """Counters of one server, in a registry of its own. engines: the loaded ones, by model, asked when read."""

    def __init__(self, engines: Callable[[], Mapping[str, Any]], traffic: Callable[[], Mapping[str, int]]) -> None:
        self._registry = registry = CollectorRegistry()
        registry.register(_Gauges(engines, traffic))
        self._requests = Counter("foretell_requests", "Answered requests.", ("route", "status"), registry=registry)
        self._latency = Histogram(
            "foretell_request_seconds", "From a request to the end of its answer.", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._first = Histogram(
            "foretell_first_token_seconds", "From a request to the first piece of its stream.", ("route",),
            buckets=_SECONDS, registry=registry,
        )  # fmt: skip
        self._tokens = Counter("foretell_tokens", "Tokens read and written.", ("model", "kind"), registry=registry)

    def answered(self, route: str, status: int, seconds: float, first: float | None) -> None:
        """first: seconds to the first piece of a stream, None for an answer in one piece."""
        self._requests.labels(route, status).inc()
        self._latency.labels(route).observe(seconds)
        if first is not None:
            self._first.labels(route).observe(first)

    def used(self, model: str, usage: Usage) -> None:
        self._tokens.labels(model, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(model, "completion").inc(usage.completion_tokens)

    def text(self) -> bytes:
        """All of it, in the text format 0.0.4."""
        return generate_latest(self._registry)


class _Gauges(Collector):
    def __init__(self, engines: Callable[[], Mapping[str, Any]], traffic: Callable[[], Mapping[str, int]]) -> None:
        self._engines, self._traffic = engines, traffic

    def collect(self) -> Iterator[GaugeMetricFamily]:
        calls = GaugeMetricFamily("foretell_calls", "Calls at the server, by state.", labels=("state",))
        for state, count in self._traffic().items():
            calls.add_metric((state,), count)
        yield calls
        stats = {name: engine.stats() for name, engine in self._engines().items() if hasattr(engine, "stats")}
        for field, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"foretell_engine_{field}", text, labels=("model",))
            for name, found in stats.items():
                if (value := getattr(found, field, None)) is not None:
                    gauge.add_metric((name,), value)
            yield gauge
