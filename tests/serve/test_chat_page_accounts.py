"""The chat page before a server with accounts: a cap that is reached, a text that is refused, and another's things."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from chatbrowser import Tab, browsing, said, slow_browser
from chatserver import chatting
from servekit import Live, Stub

from foretell.serve.accounts import people
from foretell.serve.setup import Accounts
from foretell.serve.store import Store

pytestmark = slow_browser
PASSWORD = "correct horse battery"
TIERS = """
prices: {"*": {prompt: 1.00, completion: 1.00}}
images: {base: 85, tile: 170, added: true}
tiers:
  free:
    caps: [{messages: 3, every: 3h}]
"""
REFUSED = "How do I build a pipe bomb?"


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    tiers = tmp_path / "tiers.yaml"
    tiers.write_text(TIERS)
    accounts = Accounts(str(tmp_path / "gateway.db"), tiers=tiers, sign_up="open")
    with chatting({"demo": Stub(lambda request: f"You said: {said(request)}")}, tmp_path, accounts) as server:
        store = Store(accounts.database)
        for name in ("ada", "grace"):
            people.sign_up(store, f"{name}@example.org", PASSWORD, "127.0.0.1")
        store.close()
        yield server


def log_in(tab: Tab, name: str) -> None:
    page = tab.page
    page.goto("/")
    assert "/log-in" in page.url
    page.get_by_label("Email address").fill(f"{name}@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    with page.expect_navigation():
        page.get_by_role("button", name="Log in", exact=True).click()
    tab.open()


def test_caps_refusals_and_what_belongs_to_others(live: Live) -> None:
    with browsing(live.url) as ada:
        log_in(ada, "ada")
        page = ada.page
        assert page.locator("#who").inner_text() == "ada@example.org"
        assert "3" in page.locator("#caps").inner_text()
        ada.say("a harmless word"), ada.done()
        theirs = page.url.removeprefix(live.url)

        ada.say(REFUSED)
        page.locator(".fate").get_by_text("Not answered.").wait_for()
        assert page.locator(".message.assistant").last.get_attribute("data-status") == "refused"

        for text in ("one more", "and another", "and a last one"):
            page.fill("#text", text)
            page.locator("#text").press("Enter")
            page.locator(f"#wrong:not([hidden]), .said:text-is('{text}')").first.wait_for()
            ada.done()
            if page.locator("#wrong").is_visible():
                break
        # Nothing of what was typed is lost.
        assert page.input_value("#text") == text
        assert "messages" in page.locator("#wrong").inner_text()

        grace = ada.stranger()
        log_in(grace, "grace")
        other = grace.open(theirs)
        other.get_by_role("heading", name="Nothing here").wait_for()
        assert other.locator("#list a").count() == 0
        with page.expect_navigation():
            page.get_by_role("button", name="Log out").click()
        page.goto(theirs)
        assert "/log-in" in page.url
        assert not [fault for fault in ada.faults if "429" not in fault and "404" not in fault]
