"""Hostile text in every place of the chat page that shows text: nothing runs, nothing is loaded, nothing is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import pytest
from attacks import ATTACKS
from chatbrowser import Tab, browsing, chart, said, slow_browser
from chatserver import chatting
from servekit import Live, Stub

from foretell.generate import Request, Result, Usage

pytestmark = slow_browser
# What the page itself never puts into a message.
FOREIGN = (
    "script, iframe, object, embed, style, link, meta, base, form, input, textarea, select, svg, math, video, audio,"
    " template, dialog, img, [style], [id], [name], [onerror], [onload], [onclick], [onfocus], [popover], [autofocus]"
)
CALL = """async ([method, path, body]) => {
  const { call } = await import(document.querySelector('link[rel=modulepreload][href$="/api.js"]').href);
  return call(method, path, body);
}"""


class Pieces(Stub):
    """Repeats what it is told, in pieces that fall anywhere, also inside a tag."""

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        (request,) = requests
        text, at, step = said(request), 0, 1
        while at < len(text):
            yield Result(text[at : at + step], (at,), None, None, (), 0, 0, True)
            at, step = at + step, step % 7 + 1
            await asyncio.sleep(0.001)
        yield Result(text, (), "stop", Usage(1, max(at, 1), 0), (), 0, 0)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with chatting({"demo": Pieces()}, tmp_path_factory.mktemp("chats")) as server:
        yield server


@pytest.fixture
def tab(live: Live) -> Iterator[Tab]:
    with browsing(live.url) as opened:
        yield opened
        assert not opened.faults


def call(page: Any, method: str, path: str, body: object = None) -> Any:
    return page.evaluate(CALL, [method, path, body])


def check(page: Any) -> None:
    found = page.evaluate(f"""() => [...document.querySelectorAll(".blocks :is({FOREIGN}), .said *, #list li > a *")]
        .map((one) => one.outerHTML)""")
    assert not found
    links = page.evaluate("[...document.querySelectorAll('.blocks a')].map((a) => [a.protocol, a.rel, a.target])")
    for protocol, rel, target in links:
        assert protocol in ("http:", "https:", "mailto:")
        assert {"noreferrer", "noopener", "nofollow"} <= set(rel.split()) and target == "_blank"


def test_the_corpus_is_large_enough() -> None:
    assert len(set(ATTACKS)) == len(ATTACKS) >= 60


def test_in_messages_streamed_in_awkward_pieces(tab: Tab) -> None:
    page = tab.open()
    for begin in range(0, len(ATTACKS), 8):
        page.get_by_role("button", name="New chat").first.click()
        page.fill("#text", "\n\n".join(ATTACKS[begin : begin + 8]))
        page.locator("#text").press("Enter")
        page.wait_for_url("**/c/*")
        tab.done()
        check(page)
        page.reload()
        tab.ready()
        check(page)
        # Every tag and link of the page can be touched.
        for link in page.locator(".blocks a").all():
            link.hover()
            link.focus()


def test_each_alone_as_message_and_title(tab: Tab) -> None:
    page = tab.open()
    for attack in ATTACKS:
        made = call(page, "POST", "conversations", {"title": attack, "system": attack})
        call(page, "POST", f"conversations/{made['id']}/say", {"parent": None, "text": attack, "images": []})
        page.goto(f"/c/{made['id']}")
        tab.ready()
        tab.done()
        check(page)
        shown = page.locator(".said").inner_text()
        # What a person wrote is shown as it was written, less what cannot be shown.
        assert shown.split() == attack.replace("\x00", "").split() or "\ufffd" in shown
        page.locator("#settings").click()
        system = page.get_by_role("textbox", name="System message").input_value()
        assert system.replace("\ufffd", "").split() == attack.replace("\x00", "").split()
        page.keyboard.press("Escape")


def test_in_the_names_of_images(tab: Tab) -> None:
    page = tab.open()
    for begin in range(0, len(ATTACKS), 12):
        files = [chart(f"{attack}.png") for attack in ATTACKS[begin : begin + 12]]
        page.get_by_role("button", name="New chat").first.click()
        page.evaluate(
            """async ([names, data]) => {
              const held = new DataTransfer();
              for (const name of names) held.items.add(new File([new Uint8Array(data)], name, { type: "image/png" }));
              dispatchEvent(new DragEvent("drop", { dataTransfer: held, bubbles: true, cancelable: true }));
            }""",
            [[one["name"] for one in files], list(files[0]["buffer"])],
        )
        tab.see(page.locator("#pictures li:not(.loading)"), len(files))
        assert page.locator("#pictures script, #pictures .name *").count() == 0
        page.fill("#text", "Look")
        page.locator("#text").press("Enter")
        page.wait_for_url("**/c/*")
        tab.done()
        assert page.locator(".images img").count() == len(files)
        page.locator(".images button").first.click()
        page.locator("dialog img").wait_for()
        assert page.locator("dialog h2 *").count() == 0
        page.keyboard.press("Escape")


def test_a_page_of_another_site_gets_nothing(live: Live) -> None:
    """A browser tells where a call comes from, and the token is on the page alone."""
    http = live.http
    page = http.get("/")
    assert page.status_code == 200
    token = page.text.partition('name="foretell-token" content="')[2].partition('"')[0]
    good = {"origin": live.url, "x-foretell-token": token}
    assert http.post("/chat/conversations", json={}, headers=good).status_code == 201
    for bad in ({"origin": "https://evil.example"}, {"x-foretell-token": "wrong"}, {"origin": "null"}):
        assert http.post("/chat/conversations", json={}, headers={**good, **bad}).status_code == 403
    assert http.get("/", headers={"host": "evil.example"}).status_code == 421
    assert http.get("/chat/state", headers={"sec-fetch-site": "cross-site"}).status_code == 403
