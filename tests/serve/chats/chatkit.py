"""A chat page's server for tests, and a browser without a screen that speaks its API as the page does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from typing import Any

import httpx
from PIL import Image
from servekit import Live, Stub, make_server, running

from foretell.serve.chats.door import Door
from foretell.serve.chats.parts import Chats
from foretell.serve.chats.routes import chat_routes
from foretell.serve.chats.sight import Sight
from foretell.serve.door import Door as ApiDoor
from foretell.serve.gateway import Gateway
from foretell.serve.store import Store
from foretell.serve.web.routes import web_routes
from foretell.serve.web.site import Site


@dataclass
class Place:
    """A running server, and what is behind it."""

    live: Live
    store: Store
    chats: Chats
    stubs: dict[str, Stub]
    people: list[Person] = field(default_factory=list)

    def person(self, session: str | None = None) -> Person:
        """Whoever opens the page. session: of who is logged in."""
        self.people.append(Person(self.live.url, session))
        return self.people[-1]

    def release(self) -> None:
        """Let replies that hold "wait" go on."""
        for stub in self.stubs.values():
            self.live.on_loop(stub.release.set)


class Person:
    """url: of the server. Everything that changes something carries the page's token and origin."""

    def __init__(self, url: str, session: str | None = None) -> None:
        self.url = url
        self.http = httpx.Client(base_url=url, verify=False, timeout=30)
        if session is not None:
            self.http.cookies.set("foretell", session)
        page = self.http.get("/")
        found = re.search(r'name="foretell-token" content="(\w+)"', page.text)
        self.token = found[1] if found else ""

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = {"origin": self.url, "x-foretell-token": self.token, **more.pop("headers", {})}
        if body is not None:
            more["json"] = body
        return self.http.request(method, f"/chat{path}", headers=headers, **more)

    def get(self, path: str, **query: Any) -> Any:
        return good(self.ask("GET", path, params=query))

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        return good(self.ask("POST", path, {} if body is None else body, **more))

    def begin(self, **settings: Any) -> str:
        """The id of a new conversation."""
        return str(self.post("/conversations", settings)["id"])

    def say(self, conversation: str, text: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
        return dict(self.post(f"/conversations/{conversation}/say", {"parent": parent, "text": text, **more}))

    def talk(self, conversation: str, text: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
        """The reply, once it has ended."""
        said = self.say(conversation, text, parent, **more)
        return self.done(said["replies"][0]["id"])

    def events(self, message: str) -> Iterator[dict[str, Any]]:
        with self.http.stream("GET", f"/chat/messages/{message}/stream") as response:
            assert response.status_code == 200, response.read()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    def done(self, message: str) -> dict[str, Any]:
        """A message, once it has ended; what was streamed of it is what was kept."""
        blocks: dict[int, str] = {}
        count = 0
        for event in self.events(message):
            if "done" in event:
                found = dict(event["done"])
                if blocks and found["status"] != "refused":
                    assert [blocks[i] for i in range(count)] == found["blocks"]
                return found
            blocks |= {int(i): html for i, html in event["blocks"].items()}
            count = event["count"]
        raise AssertionError("the stream ended before its message did")

    def image(self, size: tuple[int, int] = (8, 6), name: str = "a.png", kind: str = "PNG") -> dict[str, Any]:
        sent = self.ask("POST", "/images", params={"name": name}, content=png(size, kind))
        return dict(good(sent))


def png(size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind)
    return buffer.getvalue()


def good(response: httpx.Response) -> Any:
    assert response.status_code < 300, (response.status_code, response.text)
    return response.json() if response.content else None


def bad(response: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is in OpenAI's form."""
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    return response.status_code, error["code"]


@contextmanager
def chatting(
    store: Store,
    reply: Callable[[Any], str] | None = None,
    *,
    gateway: Gateway | None = None,
    models: Sequence[str] = ("big", "small"),
    stubs: Mapping[str, Stub] | None = None,
    drain_seconds: float = 5.0,
    **parts: Any,
) -> Iterator[Place]:
    """A server with the chat page. gateway: with accounts."""
    found = dict(stubs) if stubs is not None else {name: Stub(reply) for name in models}
    site = Site(store, limits=gateway.limits if gateway is not None else None)
    if gateway is not None:
        parts |= {"gate": ApiDoor(store), "gateway": gateway}
    server = make_server(found, **parts)
    chats = Chats.of(server, store, Sight(None if server.upstream else server.models))
    routes = chat_routes(chats, Door(site, gateway is not None))
    routes += web_routes(site) if gateway is not None else []
    with running(replace(server, replies=chats.replies), drain_seconds, routes) as live:
        place = Place(live, store, chats, found)
        yield place
        if drain_seconds:  # else what is still written is to be cut
            place.release()
        for person in place.people:
            person.http.close()
