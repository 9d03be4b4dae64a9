"""From options to a process: every part of a server, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from foretell.loading import Model
from foretell.serve.app import create_app
from foretell.serve.calls import Server
from foretell.serve.fetch import ImageFetcher
from foretell.serve.gate import StaticGate
from foretell.serve.metrics import Metrics
from foretell.serve.models import Models
from foretell.serve.run import Process
from foretell.serve.traffic import Traffic
from foretell.serve.upstream import Upstream


def build(
    refs: Mapping[str, str],
    load: Callable[[str], Model],
    *,
    aliases: Mapping[str, str],
    adapters: Mapping[str, str],
    key: str | None,
    upstream: str | None,
    upstream_key: str | None,
    max_waiting: int,
    host: str,
    port: int,
    drain_seconds: float,
    started: Callable[[str], None],
) -> Process:
    """A server that is ready to run. Raises GenerationError for names that clash or lead nowhere."""
    front = Upstream(upstream, upstream_key, aliases) if upstream else None
    models = Models(refs, load, aliases={} if front else aliases, adapters=adapters)
    traffic = Traffic(max_waiting)
    metrics = Metrics(lambda: models.engines, traffic.counts)
    server = Server(models, ImageFetcher(), traffic, metrics, StaticGate(key), upstream=front)
    app = create_app(server)
    return Process(app, server, host=host, port=port, drain_seconds=drain_seconds, started=started)
