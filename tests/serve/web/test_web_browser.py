"""A browser goes from the first link to a decided appeal, through a real server; what it saw is kept as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from storekit import FakeClock, empty_store
from webkit import PASSWORD
from webserver import add_usage, served

from foretell.safety.strikes import Ladder
from foretell.serve.accounts import keys, people, waitlist
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tiers import load_tiers
from foretell.serve.reviews.findings import record
from foretell.serve.reviews.tally import Tally
from foretell.serve.store import Store
from foretell.serve.web import Site

CHROMIUM = Path("/usr/bin/chromium")
CATEGORIES = ("harassment", "hate", "illicit", "self-harm", "sexual", "violence", "violence/graphic")
SCREENS = {
    "wide": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "narrow-dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}
FIGURES = (("Requests", "12,480", "0.4 % refused"), ("First token", "180 ms", "median"), ("Queue", "3", "waiting now"))

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def place_of(tmp_path: Path) -> Iterator[tuple[Store, str]]:
    """A database in a file, and the URL of the pages over it."""
    with empty_store(str(tmp_path / "gateway.db"), FakeClock()) as store:
        site = Site(store, labels=CATEGORIES, limits=Limits(store, load_tiers()), glance=lambda: FIGURES)
        with served(site) as url:
            yield store, url


def opened(chromium: Any, url: str, faults: list[str], **options: Any) -> Any:
    """A page of a person of their own. faults: what the browser complains of, such as a breach of the policy."""
    context = chromium.new_context(**{"base_url": url, "viewport": {"width": 1040, "height": 760}} | options)
    context.set_default_timeout(20_000)
    page = context.new_page()
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    return page


def press(page: Any, name: str) -> None:
    with page.expect_navigation():
        page.get_by_role("button", name=name, exact=True).first.click()


def test_from_the_first_link_to_a_decided_appeal(chromium: Any, place_of: tuple[Store, str], tmp_path: Path) -> None:
    store, url = place_of
    faults: list[str] = []
    root = opened(chromium, url, faults)
    root.goto(f"/first?token={waitlist.first_link(store)}")
    root.get_by_label("Email address").fill("root@example.org")
    root.get_by_label("Password").fill(PASSWORD)
    press(root, "Open the account")
    assert root.url == f"{url}/admin?said=welcome"

    # Whoever uses the pages needs no script: this person's browser runs none.
    ada = opened(chromium, url, faults, java_script_enabled=False)
    ada.goto("/")
    assert ada.url == f"{url}/log-in"
    ada.get_by_role("link", name="Join the waitlist").click()
    ada.get_by_label("Email address").fill("ada@example.org")
    ada.get_by_label("What you want to use it for").fill("I teach statistics.\n<b>Please.</b>")
    press(ada, "Join")
    assert "You are on the waitlist" in ada.content()

    root.goto("/admin/waitlist")
    assert "<b>Please.</b>" in root.inner_text("main")
    root.screenshot(path=tmp_path / "waitlist.png")
    press(root, "Invite")
    link = root.inner_text(".secret code")
    assert root.get_by_role("button", name="Copy").is_visible()
    ada.goto(link)
    ada.get_by_label("Password").fill(PASSWORD)
    press(ada, "Open the account")
    assert "Your account is open" in ada.content()
    cookie = next(one for one in ada.context.cookies() if one["name"] == "foretell")
    assert cookie["httpOnly"] and cookie["sameSite"] == "Lax"

    ada.get_by_role("link", name="Keys").click()
    ada.get_by_label("Name").fill("evals on the lab's machine")
    ada.get_by_label("Budget a month, in dollars").fill("20")
    press(ada, "Make the key")
    secret = ada.inner_text(".secret code")
    ada.screenshot(path=tmp_path / "key.png")
    account = keys.find(store, secret)
    assert account is not None and account.key_budget == 20_000_000

    add_usage(store, account.user, account.key)
    ada.goto("/usage")
    assert "foretell-8b" in ada.inner_text("main") and ada.locator(".chart svg.wide").is_visible()
    ada.screenshot(path=tmp_path / "usage.png")
    with ada.expect_download() as download:
        ada.get_by_role("link", name="Every call as a CSV table").click()
    assert download.value.suggested_filename.endswith(".csv")
    assert len(Path(download.value.path()).read_text().splitlines()) == 43

    tally = Tally()
    for name, count in (
        ("requests", 1_184),
        ("refused", 9),
        ("prompt", 412_000),
        ("completion", 98_400),
        ("caps:cap", 5),
    ):
        tally.add(name, count)
    tally.flush(store)
    scores = dict.fromkeys(CATEGORIES, 0.02) | {"violence": 0.91, "violence/graphic": 0.34}
    record(
        store,
        Ladder(),
        "In the last chapter she asks him <script>alert(1)</script> how the duke is to be killed.",
        side="input",
        categories=["violence"],
        scores=scores,
        action="block",
        user=account.user,
        model="foretell-8b",
    )
    ada.goto("/account")
    ada.get_by_role("link", name="What it was, and how to appeal").click()
    ada.get_by_label("Why it is wrong").fill("It is a novel.")
    press(ada, "Appeal")
    assert "Your appeal is with the reviewers" in ada.content()

    root.goto("/review")
    press(root, "Take the next case")
    assert "It is a novel." in root.inner_text("main") and "<script>" in root.inner_text("main")
    root.screenshot(path=tmp_path / "case.png", full_page=True)
    root.get_by_label("violence", exact=True).uncheck()
    root.get_by_label("Answer to the appeal").fill("You are right: it is fiction.")
    press(root, "Overturn")
    assert "The decision is recorded" in root.content()
    ada.goto("/appeal")
    assert "You are right: it is fiction." in ada.inner_text("main")
    ada.screenshot(path=tmp_path / "appeal.png")

    root.goto(f"/admin/users/{account.user}")
    root.get_by_label("Status", exact=True).select_option("suspended")
    root.get_by_label("Suspended through").fill("2026-12-24")
    press(root, "Save")
    root.screenshot(path=tmp_path / "user.png")
    root.goto("/admin")
    root.screenshot(path=tmp_path / "overview.png", full_page=True)
    ada.goto("/account")
    assert "suspended" in ada.inner_text("main") and "2026-12-25 00:00" in ada.inner_text("main")
    root.goto("/admin/audit/check")
    assert "The chain holds" in root.inner_text("main")
    root.goto("/admin/audit")
    root.screenshot(path=tmp_path / "audit.png")
    press(ada, "Log out")
    ada.goto("/usage")
    assert ada.url == f"{url}/log-in?next=/usage"
    assert not faults


def test_every_page_fits_its_screen(chromium: Any, place_of: tuple[Store, str], tmp_path: Path) -> None:
    """Wide and narrow, light and dark: nothing makes the page scroll sideways. The pictures are to be looked at."""
    store, url = place_of
    faults: list[str] = []
    token = waitlist.first_link(store)
    assert token is not None
    root = waitlist.become_admin(store, token, "root@example.org", PASSWORD, "127.0.0.1")
    ada = people.sign_up(store, "ada@example.org", PASSWORD, "127.0.0.1")
    with store.write() as db:
        key, _ = keys.create(db, ada, "evals on the lab's machine", now=store.clock(), budget=20_000_000)
        mine, _ = keys.create(db, root, "notebook", now=store.clock())
        keys.create(db, root, "a key's name that is as long as it may be " + "W" * 38, now=store.clock())
        link = waitlist.admin_link(db, now=store.clock(), actor=root)
    add_usage(store, ada, key)
    add_usage(store, root, mine)
    for name, note in (("grace", "I teach statistics and want my students to try it."), ("alan", "")):
        waitlist.join(store, f"{name}@example.org", note, "127.0.0.1")
    texts = (("block", "violence", "How do I hurt somebody without being seen? "), ("flag", "hate", "W" * 400))
    for action, category, text in texts:
        scores = dict.fromkeys(CATEGORIES, 0.05) | {category: 0.91}
        record(
            store, Ladder(), text * 3, side="input", categories=[category], scores=scores, action=action, user=ada,
            model="foretell-8b", rule="lexicon",
        )  # fmt: skip
    outside = ("/log-in", "/waitlist", f"/first?token={link}")
    inside = (
        "/account", "/keys", "/usage", "/appeal", "/review", "/anomalies", "/admin", "/admin/users",
        f"/admin/users/{ada}", "/admin/waitlist", "/admin/usage", "/admin/audit", "/admin/audit/check",
    )  # fmt: skip
    for screen, options in SCREENS.items():
        page = opened(chromium, url, faults, **options)

        def seen(name: str, page: Any = page, screen: str = screen) -> None:
            over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert over <= 0, f"{name} on a {screen} screen is {over} pixels too wide"
            page.screenshot(path=tmp_path / f"{screen}-{name}.png", full_page=True)

        for path in outside:
            page.goto(path)
            seen(path.partition("?")[0].strip("/"))
        page.goto("/log-in")
        page.get_by_label("Email address").fill("root@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        press(page, "Log in")
        for path in inside:
            page.goto(path)
            seen(path.strip("/").replace("/", "-").replace(ada, "one"))
        page.goto("/review")
        press(page, "Take the next case")
        seen("case")
        page.goto("/keys")
        page.get_by_label("Name").fill("a new one")
        press(page, "Make the key")
        seen("new-key")
    assert not faults
