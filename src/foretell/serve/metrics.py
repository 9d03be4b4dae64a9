"""What the server counts, in Prometheus' form. Labels are of closed sets: nothing that callers make up becomes one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from itertools import product
from typing import Any, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from foretell.errors import StoreError
from foretell.generate import Usage
from foretell.safety.policy import SCORED

OTHER = "other"
"""Stands for every value that is not known."""
REPLY = "/chat/reply"
"""As replies of the chat page are counted, of which each goes the way of a call."""
ROUTES = (
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/moderations", "/v1/models", "/v1/usage",
    "/v1/models/{model:path}", "/health", "/ready", "/metrics", "/openapi.json", REPLY, "none",
)  # fmt: skip
STATUSES = frozenset(
    (*(str(status.value) for status in HTTPStatus), "499", "0")
)  # the caller hung up; nothing was answered
SIDES = ("input", "output")
ACTIONS = ("flag", "refuse", "block")
LIMITS = ("requests", "tokens", "streams", "cap", "quota", "budget", "key_budget", "tier_budget")  # as limits.standing
STEPS = ("warned", "suspended", "banned")
WORK = ("account", "reserve", "settle", "review", "page")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_GAUGES = {  # fields of an engine's stats()
    "running": "Replies that are being generated.",
    "waiting": "Requests that wait for their turn.",
    "cache_used": "Share of the KV cache that is in use.",
    "cached_tokens": "Prompt tokens that were not computed, since an earlier prompt began alike.",
    "guessed_tokens": "Generated tokens that took no step of their own, since they were guessed from the text before.",
    "preemptions": "Replies that gave up their place for others and were computed again.",
}


class Counts(Protocol):
    """What also keeps counts for the admin page: a `reviews.tally.Tally`."""

    def add(self, name: str, count: int = 1) -> None: ...


class Metrics:
    """Counters of one server, in a registry of its own.

    engines: the loaded ones, by model, asked when read. models: other names that may be labels, such as those that an
    upstream told; whatever else calls name counts as "other". tally: is told of what the admin page shows.
    """

    def __init__(
        self,
        engines: Callable[[], Mapping[str, Any]],
        traffic: Callable[[], Mapping[str, int]],
        models: Callable[[], Collection[str]] = tuple,
        tally: Counts | None = None,
    ) -> None:
        self._engines, self._models, self._tally = engines, models, tally
        self._routes, self._categories = set(ROUTES), set[str]()
        self._registry = registry = CollectorRegistry()
        registry.register(_Gauges(engines, traffic))

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"foretell_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, label: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
            return Histogram(f"foretell_{name}", text, (label,), buckets=buckets, registry=registry)

        self._requests = counter("requests", "Answered requests.", "route", "status")
        self._latency = histogram("request_seconds", "From a request to the end of its answer.", "route")
        self._first = histogram("first_token_seconds", "From a request to the first piece of its stream.", "route")
        self._tokens = counter(
            "tokens", "Tokens read and written; image and cached are of the prompt's.", "model", "kind"
        )
        self._rate = histogram("tokens_per_second", "Tokens of one call a second, while it wrote.", "model", _RATES)
        self._findings = counter("findings", "Texts that moderation flagged.", "side", "category", "action")
        self._caps = counter("caps_reached", "Calls refused, by the limit that held longest.", "limit")
        self._strikes = counter("strikes", "Strikes, by what the account came to.", "step")
        self._moderation = histogram("moderation_seconds", "Moderation of one text.", "side", _SHORT)
        self._store = histogram("store_seconds", "Work on the database.", "work", _SHORT)
        self._failures = counter("store_failures", "Times that the database did not answer.", "work")
        self._cases = Gauge("foretell_cases_waiting", "Cases that a reviewer is to decide.", registry=registry)
        self._oldest = Gauge("foretell_oldest_case_seconds", "Since when the oldest waits.", registry=registry)
        # From the start, since a rate is not seen of what appears with its first count.
        for limit in LIMITS:
            self._caps.labels(limit)
        for step in STEPS:
            self._strikes.labels(step)
        for work in WORK:
            self._failures.labels(work)
        self.judges(SCORED)

    def serves(self, routes: Iterable[str]) -> None:
        """Routes beside those of the API, as they are written in the application: /keys/{id}, never a caller's path."""
        self._routes |= set(routes)

    def judges(self, categories: Iterable[str]) -> None:
        """Categories beside those of OpenAI's schema: those of the policy."""
        for category in {*categories} - self._categories:
            for side, action in product(SIDES, ACTIONS):
                self._findings.labels(side, category, action)
            self._categories.add(category)

    def answered(self, route: str, status: int, seconds: float, first: float | None) -> None:
        """first: seconds to the first piece of a stream, None for an answer in one piece."""
        route = _known(route, self._routes)
        self._requests.labels(route, _known(str(status), STATUSES)).inc()
        self._latency.labels(route).observe(seconds)
        if first is not None:
            self._first.labels(route).observe(first)
        if route.startswith(("/v1/", REPLY)):
            self._told("requests")
            self._told("errors" if status >= 500 else "refused" if status >= 400 else "", 1)

    def used(self, model: str, usage: Usage) -> None:
        name = self._model(model)
        self._tokens.labels(name, "prompt").inc(usage.prompt_tokens)
        self._tokens.labels(name, "completion").inc(usage.completion_tokens)
        self._tokens.labels(name, "image").inc(usage.image_tokens)
        self._tokens.labels(name, "cached").inc(usage.cached_tokens)
        self._told("prompt", usage.prompt_tokens)
        self._told("completion", usage.completion_tokens)

    def wrote(self, model: str, tokens: int, seconds: float) -> None:
        """A call's replies, of so many tokens, in so many seconds from their first one on."""
        if tokens and seconds > 0:
            self._rate.labels(self._model(model)).observe(tokens / seconds)

    def flagged(self, side: str, categories: Iterable[str], action: str) -> None:
        for category in categories:
            labels = (_known(side, SIDES), _known(category, self._categories), _known(action, ACTIONS))
            self._findings.labels(*labels).inc()

    def capped(self, limit: str) -> None:
        """A call was refused for this limit, of `limits.standing.KINDS`."""
        limit = _known(limit, LIMITS)
        self._caps.labels(limit).inc()
        self._told(f"caps:{limit}")

    def struck(self, step: str) -> None:
        self._strikes.labels(_known(step, STEPS)).inc()

    def queued(self, cases: int, oldest_seconds: float) -> None:
        """How many cases wait for a reviewer, and how long the oldest has; for a call now and then."""
        self._cases.set(cases)
        self._oldest.set(oldest_seconds)

    @contextmanager
    def moderating(self, side: str) -> Iterator[None]:
        """While a text is looked at."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._moderation.labels(_known(side, SIDES)).observe(time.perf_counter() - began)

    @contextmanager
    def storing(self, work: str) -> Iterator[None]:
        """While the database is at work. work: one of WORK."""
        began, work = time.perf_counter(), _known(work, WORK)
        try:
            yield
        except StoreError:
            self._failures.labels(work).inc()
            raise
        finally:
            self._store.labels(work).observe(time.perf_counter() - began)

    def text(self) -> bytes:
        """All of it, in the text format 0.0.4."""
        return generate_latest(self._registry)

    def _model(self, name: str) -> str:
        return name if name in self._engines() or name in self._models() else OTHER

    def _told(self, name: str, count: int = 1) -> None:
        if self._tally is not None and name:
            self._tally.add(name, count)


def _known(value: str, values: Collection[str]) -> str:
    return value if value in values else OTHER


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
