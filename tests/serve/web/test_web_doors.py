"""Who gets in where: every route walked, forms from elsewhere, cookies, headers, hosts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import httpx
import pytest
from servekit import Stub, make_server
from starlette.routing import Route
from storekit import add_user
from webkit import ORIGIN, PASSWORD, Browser, Read, enter, join

from foretell.errors import GenerationError
from foretell.serve.app import create_app
from foretell.serve.door import Door
from foretell.serve.store import Store
from foretell.serve.web import Site, pages, web_routes

Visitor = Callable[..., Browser]
OPEN = {"/", "/log-in", "/sign-up", "/waitlist", "/join", "/first", "/static/{name}"}
REVIEWER = ("/review", "/anomalies")


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "nothing_000", path)


def walk(site: Site) -> list[tuple[str, str]]:
    return [
        (method, route.path) for route in web_routes(site) for method in sorted(route.methods or ()) if method != "HEAD"
    ]


def who(path: str) -> str:
    """Who may use a path, said here a second time: a page that is declared too openly fails the walk."""
    if path in OPEN:
        return "anyone"
    if path.startswith("/admin"):
        return "admin"
    return "reviewer" if path.startswith(REVIEWER) else "user"


def test_every_route_is_of_the_table_and_says_who_may_use_it(site: Site) -> None:
    declared = {page.path: page.who for page in pages()}
    assert len(declared) == len(pages()), "two pages have one path"
    for _, path in walk(site):
        assert declared.get(path, "anyone") == who(path), path
    assert all(isinstance(route, Route) and route.methods for route in web_routes(site))


@pytest.mark.parametrize("role", ["anyone", "user", "reviewer", "admin", "suspended reviewer", "banned admin"])
def test_every_route_turns_away_who_may_not(site: Site, store: Store, visitor: Visitor, role: str) -> None:
    browser = visitor()
    rank = 0
    if role != "anyone":
        standing, _, name = role.rpartition(" ")
        join(store, f"{name}@example.org", role=name, status=standing or "active")
        enter(browser, f"{name}@example.org")
        rank = 1 if standing else ["anyone", "user", "reviewer", "admin"].index(name)
    token = Read(browser.get("/account").text if rank else browser.get("/log-in").text).forms[0].fields["form"][0]
    for method, path in walk(site):
        if path == "/log-out":
            continue
        # A form with its right token, so that nothing but the permission stands in its way.
        found = browser.get(filled(path)) if method == "GET" else browser.post(filled(path), {"form": token})
        allowed = rank >= ["anyone", "user", "reviewer", "admin"].index(who(path))
        if allowed:
            assert found.status_code in (200, 303, 400, 404, 409), (method, path, found.status_code)
            assert not found.headers.get("location", "").startswith("/log-in?"), (method, path)
        elif rank == 0:
            assert found.status_code == 303 and found.headers["location"].startswith("/log-in"), (method, path)
        else:
            assert found.status_code == 403, (method, path, found.status_code)


def test_every_form_needs_its_token_and_its_origin(site: Site, store: Store, visitor: Visitor) -> None:
    join(store, "root@example.org", role="admin")
    browser, other = visitor(), visitor()
    enter(browser, "root@example.org")
    token = Read(browser.get("/account").text).forms[0].fields["form"][0]
    strange = Read(other.get("/log-in").text).forms[0].fields["form"][0]
    for method, path in walk(site):
        if method != "POST" or path == "/log-out":
            continue
        at = filled(path)
        for data in ({}, {"form": ""}, {"form": strange}, {"form": token[:-1]}, {"form": "é"}):
            assert browser.post(at, data).status_code == 403, (path, data)
        for headers in (
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": ORIGIN + ".evil.example"},
            {"origin": ORIGIN.replace("https", "http")},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"referer": "https://evil.example/" + ORIGIN},
            {},
        ):
            assert browser.post(at, {"form": token}, headers=headers).status_code == 403, (path, headers)
        for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
            headers = {"origin": ORIGIN, "content-type": kind}
            sent = browser.post(at, content=f"form={token}", headers=headers)
            assert sent.status_code == 403, (path, kind)
    assert browser.post("/log-out", {"form": strange}).status_code == 403 and browser.get("/account").status_code == 200


def test_a_form_larger_than_any_of_ours_is_not_read(visitor: Visitor) -> None:
    browser = visitor()
    token = Read(browser.get("/log-in").text).forms[0].fields["form"][0]
    assert browser.post("/log-in", {"form": token, "email": "x" * 70_000}).status_code == 403
    assert browser.post("/log-in", {"form": token, **{f"f{i}": "" for i in range(200)}}).status_code == 403
    bad = {"origin": ORIGIN, "content-type": "application/x-www-form-urlencoded"}
    assert browser.post("/log-in", content=f"form={token}&email=%ff%fe", headers=bad).status_code == 403


def test_headers_of_every_answer(site: Site, store: Store, visitor: Visitor) -> None:
    join(store, "root@example.org", role="admin")
    browser = visitor()
    enter(browser, "root@example.org")
    for method, path in walk(site):
        if method == "GET" and not path.startswith("/static"):
            headers = browser.get(filled(path)).headers
            policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
            assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'", path
            assert "unsafe" not in headers["content-security-policy"] and policy["form-action"] == "'self'", path
            assert headers["cache-control"] == "no-store", path
            assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY", path
            assert headers["referrer-policy"] == "same-origin", path


def test_pages_hold_nothing_that_the_policy_forbids(site: Site, store: Store, visitor: Visitor) -> None:
    """No script or style in the page, no event handlers, and nothing from elsewhere."""
    join(store, "root@example.org", role="admin")
    browser = visitor()
    enter(browser, "root@example.org")
    for path in ("/account", "/keys", "/usage", "/appeal", "/review", "/admin", "/admin/users", "/admin/audit"):
        read = Read(browser.get(path).text)
        for tag, given in read.tags:
            assert tag not in ("style", "iframe", "object", "base", "img"), path
            assert not any(name.startswith("on") or name == "style" for name in given), path
            if tag in ("script", "link") and given.get("rel") != "icon":
                address = given.get("src") or given.get("href") or ""
                found = browser.get(address)
                assert address.startswith("/static/") and found.status_code == 200, address
                assert "immutable" in found.headers["cache-control"]
        assert all(link.startswith(("/", "#", "?")) for link in read.links), path


def test_cookies_over_https(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    browser = visitor()
    first = browser.get("/log-in").headers["set-cookie"]
    assert first.startswith("__Host-foretell-visitor=")
    found = browser.submit("/log-in", email="ada@example.org", password=PASSWORD)
    ours = next(c for c in found.headers.get_list("set-cookie") if c.startswith("__Host-foretell="))
    for one in (first, ours):
        parts = [part.strip() for part in one.split(";")]
        assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(parts) and "Domain" not in one
    ended = next(c for c in found.headers.get_list("set-cookie") if c.startswith("__Host-foretell-visitor="))
    assert "Max-Age=0" in ended


def test_cookies_on_this_machine_need_no_https(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    site = Site(store, base_url=None)
    browser = visitor(site, origin="http://127.0.0.1:8123")
    found = browser.submit("/log-in", email="ada@example.org", password=PASSWORD)
    assert found.status_code == 303
    ours = next(c for c in found.headers.get_list("set-cookie") if c.startswith("foretell="))
    assert "HttpOnly" in ours and "SameSite=Lax" in ours and "Secure" not in ours
    assert browser.get("/account").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.8:8000", "[::2]", "]", ""])
def test_another_name_of_this_machine_is_refused(store: Store, visitor: Visitor, host: str) -> None:
    """Else a page of that name could be made to resolve here and read what is shown."""
    browser = visitor(Site(store), origin="http://localhost:8000")
    assert browser.get("/log-in", headers={"host": "localhost:8000"}).status_code == 200
    assert browser.get("/log-in", headers={"host": "[::1]:8000"}).status_code == 200
    assert browser.get("/log-in", headers={"host": host}).status_code == 421


def test_only_the_address_that_was_set_is_served(visitor: Visitor) -> None:
    assert visitor().get("/log-in", headers={"host": "other.example"}).status_code == 421


@pytest.mark.parametrize(
    ("base_url", "host", "origin"),
    [
        ("https://Gate.example:443/", "gate.example", "https://gate.example"),
        ("https://gate.example", "GATE.example:443", "https://gate.example"),
        ("https://gate.example:8443", "gate.example:8443", "https://gate.example:8443"),
        ("https://gate.example:8443", "gate.example", None),
        ("https://gate.example", "gate.example:80", None),
        ("https://gate.example", "user@gate.example", None),
        ("http://localhost:8000", "127.0.0.1:8000", None),
        (None, "LOCALHOST:8000", "http://localhost:8000"),
        (None, "[::1]:80", "http://[::1]"),
        (None, "127.0.0.1:x", None),
    ],
)
def test_hosts_are_compared_as_browsers_write_them(
    store: Store, base_url: str | None, host: str, origin: str | None
) -> None:
    assert Site(store, base_url=base_url).origin(host) == origin


def test_the_whole_application_asks_who_comes(site: Site, store: Store) -> None:
    """Every route of the server as it runs, the API's too: without a key or a session nothing answers but the few that
    are named here."""
    routes = web_routes(site)
    server = make_server({"demo": Stub()}, gate=Door(store))
    app = create_app(server, routes)
    walked = {(method, route.path) for route in app.routes for method in route.methods or ()}  # type: ignore[attr-defined]
    assert {(method, route.path) for route in routes for method in route.methods or ()} < walked

    async def walk_it() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
            for method, path in sorted(walked):
                found = await client.request(method, filled(path), headers={"origin": ORIGIN})
                if path in ("/health", "/ready", "/openapi.json"):
                    assert found.status_code in (200, 405), path
                elif path.startswith("/v1") or path == "/metrics":
                    assert found.status_code == 401, (method, path)
                elif path in OPEN:
                    assert found.status_code in (200, 303, 403, 404), (method, path)
                else:
                    assert found.status_code in (303, 403), (method, path)

    asyncio.run(walk_it())


@pytest.mark.parametrize(
    "url", ["http://example.org", "http://10.0.0.1:8000", "https://a.example/x", "a.example", "ftp://a"]
)
def test_an_address_that_passwords_must_not_travel_to(store: Store, url: str) -> None:
    with pytest.raises(GenerationError, match="address"):
        Site(store, base_url=url)


def test_a_session_begins_anew_at_log_in_and_ends_at_log_out(store: Store, visitor: Visitor) -> None:
    """Fixation: whatever secret a browser was given before, none of it is worth anything after."""
    join(store, "ada@example.org")
    browser, thief = visitor(), visitor()
    browser.cookies.set("__Host-foretell", "chosen-by-somebody-else", domain="pages.example", path="/")
    browser.get("/log-in")
    enter(browser, "ada@example.org")
    first = browser.session
    assert first and first != "chosen-by-somebody-else"
    thief.cookies.set("__Host-foretell", "chosen-by-somebody-else", domain="pages.example", path="/")
    assert thief.get("/account").status_code == 303
    token = Read(browser.get("/log-in").text).forms[0].fields["form"][0]
    sent = {"form": token, "email": "ada@example.org", "password": PASSWORD}
    assert browser.post("/log-in", sent).status_code == 303
    second = browser.session
    assert second and second != first
    thief.cookies.set("__Host-foretell", first, domain="pages.example", path="/")
    assert thief.get("/account").status_code == 303, "the session before a log-in lives on"
    assert browser.submit("/account", "/log-out").headers["location"] == "/log-in?said=out"
    thief.cookies.set("__Host-foretell", second, domain="pages.example", path="/")
    assert thief.get("/account").status_code == 303 and browser.get("/account").status_code == 303


def test_after_log_in_one_is_where_one_wanted_to_be_and_nowhere_else(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    wanted = visitor()
    found = wanted.get("/usage")
    assert found.headers["location"] == "/log-in?next=/usage"
    sent = wanted.submit("/log-in?next=/usage", email="ada@example.org", password=PASSWORD)
    assert sent.headers["location"] == "/usage"
    for bad in (
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/x\r\nset-cookie:a=b",
    ):
        browser = visitor()
        browser.get("/log-in")
        token = Read(browser.get("/log-in").text).forms[0].fields["form"][0]
        data = {"form": token, "email": "ada@example.org", "password": PASSWORD, "next": bad}
        assert browser.post("/log-in", data).headers["location"] == "/account", bad


def test_a_database_that_is_gone_is_told_and_no_more(
    store: Store, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foretell.errors import StoreError

    browser = visitor()
    add_user(store)

    def gone(self: Store) -> None:
        raise StoreError("The database secret-place does not answer (locked).")

    monkeypatch.setattr(Store, "read", gone)
    monkeypatch.setattr(Store, "write", gone)
    browser.cookies.set("__Host-foretell", "x" * 43, domain="pages.example", path="/")
    found = browser.get("/account")
    assert found.status_code == 503 and "secret-place" not in found.text and "try again" in found.text
