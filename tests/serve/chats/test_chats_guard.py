"""Who gets to what: everybody to their own alone, from this server's own page, under its own name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chatkit import Person, Place, bad, chatting
from storekit import add_user

from foretell.serve.accounts import sessions
from foretell.serve.chats.api import api_routes
from foretell.serve.chats.door import Door
from foretell.serve.gateway import Gateway
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tiers import Tiers
from foretell.serve.store import Store
from foretell.serve.web.site import Site

TIERS = Tiers.model_validate({"prices": {"*": {"prompt": 1.0, "completion": 1.0}}, "tiers": {"free": {}}})


def join(store: Store, name: str, **values: object) -> tuple[str, str]:
    """A new user, and the session of one who is logged in."""
    user = add_user(store, f"{name}@example.org", **values)
    return user, sessions.begin(store, user, "127.0.0.1")


@pytest.fixture
def served(store: Store) -> Iterator[Place]:
    """With accounts."""
    with chatting(store, gateway=Gateway(store, Limits(store, TIERS))) as found:
        yield found


@pytest.fixture
def ada(served: Place) -> Person:
    return served.person(join(served.store, "ada")[1])


@pytest.fixture
def eve(served: Place) -> Person:
    return served.person(join(served.store, "eve")[1])


def paths(conversation: str, message: str, image: str) -> list[tuple[str, str, object]]:
    """Every route that names a thing, with a body that would do."""
    return [
        ("GET", f"/conversations/{conversation}", None),
        ("PATCH", f"/conversations/{conversation}", {"title": "mine"}),
        ("DELETE", f"/conversations/{conversation}", None),
        ("GET", f"/conversations/{conversation}/export", None),
        ("POST", f"/conversations/{conversation}/say", {"text": "hi"}),
        ("POST", f"/messages/{message}/again", {}),
        ("POST", f"/messages/{message}/stop", {}),
        ("GET", f"/messages/{message}/stream", None),
        ("POST", f"/messages/{message}/rate", {"rating": 1}),
        ("POST", f"/messages/{message}/prefer", {"over": message}),
        ("GET", f"/images/{image}", None),
    ]


def test_the_walk_names_every_route(served: Place) -> None:
    named = {path.partition("?")[0] for _, path, _ in paths("{id}", "{id}", "{id}")}
    routes = {route.path.removeprefix("/chat") for route in api_routes(served.chats, Door(Site(served.store), True))}
    assert {path for path in routes if "{" in path} == named


def test_anothers_things_are_not_there(served: Place, ada: Person, eve: Person) -> None:
    image = ada.image()["id"]
    conversation = ada.begin(title="private")
    reply = ada.talk(conversation, "a secret", images=[image])["id"]
    for (method, path, body), (_, nowhere, _) in zip(
        paths(conversation, reply, image), paths("conv_0", "msg_0", "img_0"), strict=True
    ):
        theirs, nothing = eve.ask(method, path, body), eve.ask(method, nowhere, body)
        assert bad(theirs) == bad(nothing) == (404, "not_found"), (method, path)
        assert theirs.json() == nothing.json(), "it must not tell that there is one"
    mine = eve.begin()
    for body in ({"text": "x", "parent": reply}, {"text": "x", "images": [image]}):
        assert bad(eve.ask("POST", f"/conversations/{mine}/say", body)) == (404, "not_found")
    assert bad(eve.ask("PATCH", f"/conversations/{mine}", {"tip": reply})) == (404, "not_found")
    own = eve.talk(mine, "x")["id"]
    assert bad(eve.ask("POST", f"/messages/{own}/prefer", {"over": reply})) == (404, "not_found")
    assert eve.get("/conversations", search="secret")["items"] == []
    assert eve.get("/export") == [eve.get(f"/conversations/{mine}/export")]
    assert bad(eve.ask("GET", "/conversations", params={"before": conversation})) == (404, "not_found")
    found = ada.get(f"/conversations/{conversation}")
    assert found["title"] == "private" and found["messages"][-1]["rating"] == 0


def test_who_is_not_logged_in_gets_nothing(served: Place) -> None:
    nobody = served.person()
    for method, path, body in [*paths("a", "b", "c"), ("GET", "/state", None), ("GET", "/conversations", None)]:
        assert bad(nobody.ask(method, path, body)) == (401, "not_logged_in")
    page = nobody.http.get("/c/conv_1")
    assert page.status_code == 303 and page.headers["location"] == "/log-in?next=/c/conv_1"
    assert nobody.http.get("/").headers["location"] == "/log-in"


@pytest.mark.parametrize("status", ["suspended", "banned"])
def test_who_may_not_call_may_not_chat(served: Place, status: str) -> None:
    person = served.person(join(served.store, "ada", status=status)[1])
    assert bad(person.ask("GET", "/conversations")) == (403, f"account_{status}")
    assert person.http.get("/").headers["location"] == "/account"


def test_a_session_that_has_ended(served: Place, ada: Person) -> None:
    sessions.end(served.store, str(ada.http.cookies["foretell"]))
    assert bad(ada.ask("GET", "/conversations")) == (401, "not_logged_in")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"x-foretell-token": ""},
        {"x-foretell-token": "0" * 64},
    ],
)
def test_what_another_page_sends_is_not_taken(served: Place, ada: Person, headers: dict[str, str]) -> None:
    for method, path in (("POST", "/conversations"), ("POST", "/import"), ("POST", "/images")):
        assert bad(ada.ask(method, path, {}, headers=headers)) == (403, "forged_request")
    assert ada.get("/conversations")["items"] == []


def test_anothers_token_is_not_taken(served: Place, ada: Person, eve: Person) -> None:
    refused = ada.ask("POST", "/conversations", {}, headers={"x-foretell-token": eve.token})
    assert bad(refused) == (403, "forged_request")


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_page_reads_nothing(served: Place, ada: Person, site: str) -> None:
    assert bad(ada.ask("GET", "/export", headers={"sec-fetch-site": site})) == (403, "forged_request")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1:8000", ""])
def test_a_name_that_leads_here_by_a_trick(chat: Place, person: Person, host: str) -> None:
    """A page of evil.example whose name now leads to this machine is of one origin with nothing here."""
    for path in ("/", "/c/x", "/chat/state", "/chat/export"):
        found = person.http.get(path, headers={"host": host})
        assert found.status_code in (400, 421), path
    sent = person.ask("POST", "/conversations", {}, headers={"host": host, "origin": f"http://{host}"})
    assert sent.status_code in (400, 421)


def test_the_page_and_its_answers_are_locked_down(chat: Place, person: Person) -> None:
    page = person.http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "connect-src 'self'" in policy
    assert page.headers["x-frame-options"] == "DENY" and page.headers["cache-control"] == "no-store"
    answer = person.ask("GET", "/conversations")
    for response in (page, answer, person.ask("GET", "/conversations/none")):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in response.headers
    cookie = page.headers.get("set-cookie", "") or chat.person().http.get("/").headers.get("set-cookie", "")
    fresh = chat.person()
    assert fresh.http.cookies.get("foretell-visitor") or "HttpOnly" in cookie


def test_after_a_log_in_the_chat_page_is_shown(served: Place, ada: Person) -> None:
    page = ada.http.get("/")
    assert page.status_code == 200 and ada.token
    assert ada.get("/state")["user"] == {"name": "ada@example.org", "tier": "free"}
