"""What the pages are given, what a handler is told of a visit, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from foretell.errors import ForetellError, GenerationError
from foretell.measure.machine import is_loopback
from foretell.pages import Html
from foretell.safety.strikes import Ladder
from foretell.serve.accounts.account import DEFAULT_TIER, Account
from foretell.serve.limits.limits import Limits
from foretell.serve.store import Store

HEADERS = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # no-referrer would make browsers send forms with "Origin: null".
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every page with forms, beside its Content-Security-Policy."""
SignUp = Literal["open", "invite", "closed"]
Who = Literal["anyone", "user", "reviewer", "admin"]


def _nothing() -> Sequence[tuple[str, object, object]]:
    return ()


@dataclass(frozen=True)
class Site:
    """The pages' settings. base_url: where people reach them, https://host; None where it is this machine alone, by
    whatever loopback name and port.

    sign_up: who may open an account: all, the invited, nobody. home: where a log-in leads. limits: of the server, for
    what is left of them and for its tiers. ladder: what strikes lead to. labels: the categories a reviewer may choose
    from. glance: figures of the running server, (label, value, what it means).
    Raises GenerationError for a base_url that a password must not travel to.
    """

    store: Store
    title: str = "Foretell"
    base_url: str | None = None
    sign_up: SignUp = "invite"
    home: str = "/account"
    limits: Limits | None = None
    ladder: Ladder = field(default_factory=Ladder)
    labels: Sequence[str] = ()
    glance: Callable[[], Iterable[tuple[str, object, object]]] = _nothing

    def __post_init__(self) -> None:
        if self.base_url is None:
            return
        parts = urlsplit(self.base_url)
        if _origin(self.base_url) is None:
            raise GenerationError(f"The pages' address {self.base_url} should be a scheme and a host, as https://host.")
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise GenerationError(
                f"The pages' address {self.base_url} is not https, so passwords would travel in the clear. Put a proxy "
                "with TLS in front and give its https:// address."
            )

    @property
    def tiers(self) -> tuple[str, ...]:
        """Those that an admin may give."""
        return (DEFAULT_TIER,) if self.limits is None else tuple(self.limits.tiers.tiers)

    @property
    def secure(self) -> bool:
        """Whether cookies are for https alone."""
        return self.base_url is not None and self.base_url.startswith("https://")

    def origin(self, host: str) -> str | None:
        """The pages' own origin, where `host` (a Host header) names it; None for another host."""
        if self.base_url is not None:
            own = _origin(self.base_url)
            return own if own == _origin(f"{urlsplit(self.base_url).scheme}://{host}") else None
        found = _origin(f"http://{host}")
        return found if found is not None and is_loopback(urlsplit(found).hostname or "") else None


def _origin(url: str) -> str | None:
    """The origin of a URL as browsers write it: in small letters, without the scheme's usual port; None for none."""
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not name or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        return None
    name = f"[{name}]" if ":" in name else name
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{name}" if port in (None, usual) else f"{parts.scheme}://{name}:{port}"


@dataclass(frozen=True)
class Visit:
    """One request. account: whose session it is. session: the cookie's secret. token: to be sent back by every form.
    origin: of the pages, for links in what is sent to people. problem: why a form was not taken; it is shown again."""

    site: Site
    account: Account | None
    session: str | None
    token: str
    origin: str
    address: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)
    problem: str = ""

    @property
    def caller(self) -> Account:
        """Who is logged in; for pages that are not for anyone."""
        assert self.account is not None, "a page for anyone asked who is logged in"
        return self.account

    def given(self, name: str, default: str = "") -> str:
        """What a form's field held when it was sent."""
        return self.form.get(name, (default,))[0]


@dataclass(frozen=True)
class Reply:
    """What is answered. session: a new session's secret to be set as the cookie, "" to end it, None to leave it."""

    body: Html | bytes | Iterable[bytes] = b""
    status: int = 200
    location: str | None = None
    session: str | None = None
    download: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Visit], Reply]


@dataclass(frozen=True)
class Page:
    """A route and who may use it. A post that fails for what was filled in is answered by its `get`, or by `back`."""

    path: str
    who: Who
    get: Handler | None = None
    post: Handler | None = None
    back: Handler | None = None


class FormError(ForetellError):
    """A form is filled in wrongly; the message is for who filled it in."""


class NotFound(ForetellError):
    """There is no such thing, or it belongs to somebody else: which of both is not told."""


def go(location: str, *, session: str | None = None) -> Reply:
    """To another page, by GET."""
    return Reply(status=303, location=location, session=session)


def may(account: Account | None, who: Who) -> bool:
    """Whether an account may use a page. Suspended and banned people still see their own account, to appeal."""
    if who == "anyone":
        return True
    if account is None:
        return False
    if who == "user":
        return True
    if account.status not in ("active", "warned"):
        return False
    return account.role == "admin" or account.role == who
