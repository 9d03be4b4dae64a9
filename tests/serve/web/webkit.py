"""A browser without a screen for the pages: keeps cookies, reads forms as they are drawn, and sends them back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.applications import Starlette
from storekit import add_user

from foretell.serve.accounts import passwords
from foretell.serve.store import Store
from foretell.serve.web import Site, web_routes

ORIGIN = "https://pages.example"
PASSWORD = "correct horse battery"


@dataclass
class Form:
    action: str
    fields: dict[str, list[str]] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)


class Read(HTMLParser):
    """The parts of a page that tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._select = self._area = ""
        self._options: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        name, value = given.get("name") or "", given.get("value") or ""
        if tag == "form":
            self.forms.append(Form(given.get("action") or ""))
        elif tag == "a":
            self.links.append(given.get("href") or "")
        elif tag == "input" and self.forms and name:
            if given.get("type") != "checkbox" or "checked" in given:
                self.forms[-1].fields.setdefault(name, []).append(value)
        elif tag == "button" and self.forms and name:
            self.forms[-1].buttons.append((name, value))
        elif tag == "textarea":
            self._area = name
            self.forms[-1].fields[name] = [""]
        elif tag == "select":
            self._select, self._options = name, []
        elif tag == "option":
            self._options.append((value, "selected" in given))

    def handle_endtag(self, tag: str) -> None:
        if tag == "select":
            chosen = [value for value, on in self._options if on] or [value for value, _ in self._options[:1]]
            self.forms[-1].fields[self._select] = chosen
        elif tag == "textarea":
            self._area = ""

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self._area:
            self.forms[-1].fields[self._area][0] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


class Browser:
    """One person. site: what they visit; cookies are theirs alone."""

    def __init__(self, site: Site, *, origin: str = ORIGIN, address: str = "203.0.113.7") -> None:
        self.site, self.origin = site, origin
        app = Starlette(routes=web_routes(site))
        transport = httpx.ASGITransport(app, client=(address, 40000))
        self._client = httpx.AsyncClient(transport=transport, base_url=origin)
        self._runner = asyncio.Runner()

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()

    @property
    def cookies(self) -> httpx.Cookies:
        return self._client.cookies

    @property
    def session(self) -> str | None:
        secure = self.origin.startswith("https")
        return self.cookies.get("__Host-foretell" if secure else "foretell")

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self._runner.run(self._client.get(path, **more))

    def post(
        self, path: str, data: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """As a browser sends a form of its own page, unless `headers` says otherwise."""
        sent = {"origin": self.origin} if headers is None else dict(headers)
        return self._runner.run(self._client.post(path, data=data, headers=sent, **more))

    def submit(
        self,
        page: str,
        action: str | None = None,
        /,
        *,
        press: tuple[str, str] | None = None,
        **fields: str | Sequence[str],
    ) -> httpx.Response:
        """Load a page, fill in its form for `action` (a page's own, if not told), and send it."""
        shown = self.get(page)
        assert shown.status_code == 200, (page, shown.status_code, shown.text[:300])
        action = action or page.partition("?")[0]
        forms = [form for form in Read(shown.text).forms if form.action.partition("?")[0] == action]
        assert forms, f"{page} has no form for {action}: {[form.action for form in Read(shown.text).forms]}"
        data: dict[str, Any] = {**forms[0].fields}
        for name, value in fields.items():
            assert name in data or name in ("scopes", "labels", "categories"), (
                f"the form has no field {name}: {list(data)}"
            )
            data[name] = value
        if press:
            data[press[0]] = press[1]
        return self.post(forms[0].action, data)


@cache
def hashed_password() -> str:
    return passwords.hashed(PASSWORD)


def join(store: Store, email: str, **values: object) -> str:
    """The id of a new user whose password is PASSWORD."""
    return add_user(store, email, password=hashed_password(), **values)


def enter(browser: Browser, email: str) -> Browser:
    """Log in, as a person does."""
    found = browser.submit("/log-in", email=email, password=PASSWORD)
    assert found.status_code == 303 and browser.session, Read(found.text).text
    return browser
