"""From options to a process: every part of a server, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from starlette.routing import BaseRoute

from foretell.loading import Model
from foretell.serve.app import create_app
from foretell.serve.calls import Server
from foretell.serve.fetch import ImageFetcher
from foretell.serve.gate import StaticGate
from foretell.serve.limits.prices import ImageRule
from foretell.serve.metrics import Metrics
from foretell.serve.models import Models
from foretell.serve.reviews.tally import Tally
from foretell.serve.run import Process
from foretell.serve.traffic import Traffic
from foretell.serve.upstream import Upstream

if TYPE_CHECKING:
    from foretell.serve.web.site import Site


@dataclass(frozen=True)
class Accounts:
    """How a server with accounts is set up. database: a file of SQLite or a URL of PostgreSQL. tiers: YAML of what each
    tier may use. policy, lexicon, strikes: YAML of the usage policy, of the words that its rules look for, and of the
    strike ladder. classifier: trained on reviewers' labels. None of these: what comes with the package. moderate:
    whether what is said is held against the policy. base_url: where people reach the pages. first: told the token of
    the one-time link for the first administrator. chat: whether there is the chat page."""

    database: str
    tiers: Path | None = None
    policy: Path | None = None
    lexicon: Path | None = None
    strikes: Path | None = None
    classifier: Path | None = None
    moderate: bool = True
    sign_up: Literal["open", "invite", "closed"] = "invite"
    base_url: str | None = None
    first: Callable[[str], None] = lambda token: None
    chat: bool = True


_BUSY = 0.25  # of the calls that may wait: then adaptive caps are at their floor


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
    accounts: Accounts | None = None,
    behind_proxy: bool = False,
    log_calls: bool = False,
    chats: str | None = None,
) -> Process:
    """A server that is ready to run. chats: without accounts, the database of the one user's chat page; None: there is
    none. Raises GenerationError for names that clash or lead nowhere, and StoreError and
    RecipeError for accounts that cannot be had."""
    front = Upstream(upstream, upstream_key, aliases) if upstream else None
    models = Models(refs, load, aliases={} if front else aliases, adapters=adapters)
    traffic = Traffic(max_waiting)
    known = (lambda: front.known) if front is not None else (lambda: set(models.names))
    tally = Tally()
    metrics = Metrics(lambda: models.engines, traffic.counts, known, tally)
    parts = Server(models, ImageFetcher(), traffic, metrics, StaticGate(key), upstream=front)
    if accounts is not None:
        server, routes = _with_accounts(parts, accounts, tally)
    else:
        server, routes = (parts, []) if chats is None else _with_chats(parts, chats)
    app = create_app(server, routes, log_calls)
    return Process(
        app, server, host=host, port=port, drain_seconds=drain_seconds, started=started, behind_proxy=behind_proxy
    )


def _with_accounts(server: Server, asked: Accounts, tally: Tally) -> tuple[Server, list[BaseRoute]]:
    from foretell.safety.classifier import load_classifier
    from foretell.safety.moderation import Moderation
    from foretell.safety.policy import SCORED, load_policy
    from foretell.safety.rules import load_lexicon
    from foretell.safety.strikes import Ladder, load_ladder
    from foretell.serve.accounts.waitlist import first_link
    from foretell.serve.door import Door
    from foretell.serve.gateway import Gateway
    from foretell.serve.limits.limits import Limits
    from foretell.serve.limits.tiers import PACKAGED, load_tiers
    from foretell.serve.migrations import prepare
    from foretell.serve.moderating import Moderating
    from foretell.serve.store import Store
    from foretell.serve.web.routes import web_routes
    from foretell.serve.web.site import Site

    tiers = load_tiers(asked.tiers or PACKAGED)
    policy = load_policy(asked.policy) if asked.policy is not None else load_policy()
    lexicon = load_lexicon(asked.lexicon) if asked.lexicon is not None else load_lexicon()
    classifier = load_classifier(asked.classifier) if asked.classifier is not None else load_classifier()
    moderation = Moderation(policy, lexicon, classifier) if asked.moderate else None
    ladder = load_ladder(asked.strikes) if asked.strikes is not None else Ladder()
    server.metrics.judges(policy.categories)
    store = Store(asked.database)
    prepare(store)
    traffic = server.traffic
    limits = Limits(
        store, tiers,
        load=lambda: min(traffic.waiting / max(_BUSY * traffic.max_waiting, 1), 1.0),
        reached=server.metrics.capped,
    )  # fmt: skip
    gateway = Gateway(store, limits, moderation, ladder, metrics=server.metrics, tally=tally)
    site = Site(
        store,
        base_url=asked.base_url,
        sign_up=asked.sign_up,
        home="/" if asked.chat else "/account",
        limits=limits,
        ladder=gateway.ladder,
        labels=SCORED,
        glance=lambda: (
            ("Calls", traffic.active, "being answered"),
            ("Queue", traffic.waiting, f"of {traffic.max_waiting} wait for a first token"),
            ("Load", f"{limits.load:.0%}", "of all servers, over the last minute"),
        ),
    )
    if (token := first_link(store)) is not None:
        asked.first(token)
    moderator = Moderating(moderation) if moderation is not None else None
    whole = replace(server, gate=Door(store), gateway=gateway, moderator=moderator)
    routes: list[BaseRoute] = [*web_routes(site)]
    if asked.chat:
        whole, found = _chats(whole, site, True)
        routes = [*found, *routes]
    whole.metrics.serves(getattr(route, "path", "") for route in routes)
    return whole, routes


def _with_chats(server: Server, database: str) -> tuple[Server, list[BaseRoute]]:
    """For whoever sits at this machine: without accounts, limits and moderation."""
    from foretell.serve.migrations import upgrade
    from foretell.serve.store import Store
    from foretell.serve.web.site import Site

    store = Store(database)
    upgrade(store)  # nobody else looks after it
    whole, routes = _chats(server, Site(store), False)
    whole.metrics.serves(getattr(route, "path", "") for route in routes)
    return whole, routes


def _chats(server: Server, site: Site, accounts: bool) -> tuple[Server, list[BaseRoute]]:
    from foretell.serve.chats.door import Door
    from foretell.serve.chats.messages import cut_dead
    from foretell.serve.chats.parts import Chats
    from foretell.serve.chats.routes import chat_routes
    from foretell.serve.chats.sight import Sight

    cut_dead(site.store)
    rule = server.gateway.limits.tiers.images if server.gateway is not None else ImageRule()
    chats = Chats.of(server, site.store, Sight(None if server.upstream else server.models, rule))
    return replace(server, replies=chats.replies), [*chat_routes(chats, Door(site, accounts))]
