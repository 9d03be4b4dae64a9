"""Accounts by their pages: ways in, passwords, keys, what an admin sets, the waitlist, the audit log."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from storekit import DAY, MINUTE, FakeClock
from webkit import ORIGIN, PASSWORD, Browser, Read, enter, join

from foretell.serve.accounts import audit, keys, people, waitlist
from foretell.serve.accounts.tables import users
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tiers import load_tiers
from foretell.serve.reviews.tally import Tally
from foretell.serve.store import Store
from foretell.serve.web import Site

Visitor = Callable[..., Browser]
HOSTILE = "\"><script>alert('x')</script>&<b>"


def secret_of(text: str) -> str:
    found = re.search(r'class="secret"><code>([^<]+)</code>', text)
    assert found, Read(text).text
    return found[1]


def test_an_open_server_takes_whoever_signs_up(visitor: Visitor) -> None:
    browser = visitor()
    found = browser.submit("/sign-up", email=" Ada@Example.org ", password=PASSWORD)
    assert found.headers["location"] == "/log-in?said=opened"
    assert "log in" in Read(browser.get(found.headers["location"]).text).text
    enter(browser, "ada@example.org")
    text = Read(browser.get("/account").text).text
    assert "ada@example.org" in text and "user" in text and "active" in text


def test_nobody_can_ask_who_has_an_account(store: Store, visitor: Visitor) -> None:
    """Signing up, logging in and the waitlist answer alike for an address that is known and one that is not."""
    join(store, "ada@example.org")
    told = []
    for email in ("ada@example.org", "eve@example.org"):
        browser, site = visitor(), Site(store, base_url=ORIGIN, sign_up="invite")
        asking = visitor(site)
        up = browser.submit("/sign-up", email=email, password="an other passphrase")
        waits = asking.submit("/waitlist", email=email, note="")
        wrong = browser.submit("/log-in", email=email, password="not this one either")
        words = Read(wrong.text).text
        told.append((up.status_code, up.headers["location"], waits.headers["location"], wrong.status_code, words))
    assert told[0] == told[1] and told[0][3] == 401
    assert enter(visitor(), "ada@example.org").session, "signing up again changed the password"


def test_guesses_are_slowed_and_told_when_to_go_on(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    join(store, "ada@example.org")
    browser = visitor()
    answers = [browser.submit("/log-in", email="ada@example.org", password=f"wrong {i}") for i in range(7)]
    assert [found.status_code for found in answers] == [401] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) >= 1 and "Try again in" in Read(answers[-1].text).text
    right = browser.submit("/log-in", email="ada@example.org", password=PASSWORD)
    assert right.status_code == 429, "a guess that is right came through while guesses are slowed"
    clock.advance(3600)
    enter(browser, "ada@example.org")


@pytest.mark.parametrize("sign_up", ["open", "invite", "closed"])
def test_the_ways_in_are_those_of_the_setting(store: Store, visitor: Visitor, sign_up: str) -> None:
    browser = visitor(Site(store, base_url=ORIGIN, sign_up=sign_up))  # type: ignore[arg-type]
    assert browser.get("/sign-up").status_code == (200 if sign_up == "open" else 404)
    assert browser.get("/waitlist").status_code == (200 if sign_up == "invite" else 404)
    token = Read(browser.get("/log-in").text).forms[0].fields["form"][0]
    sent = browser.post("/sign-up", {"form": token, "email": "grace@example.org", "password": PASSWORD})
    assert sent.status_code == (303 if sign_up == "open" else 404)
    assert browser.post("/waitlist", {"form": token, "email": "a@example.org"}).status_code == (
        303 if sign_up == "invite" else 404
    )


def test_from_the_waitlist_to_an_account(store: Store, visitor: Visitor) -> None:
    limits = Limits(store, load_tiers())
    site = Site(store, base_url=ORIGIN, sign_up="invite", limits=limits)
    join(store, "root@example.org", role="admin")
    asking, root = visitor(site), enter(visitor(site), "root@example.org")
    assert (
        asking.submit("/waitlist", email="eve@example.org", note=HOSTILE).headers["location"].endswith("said=waiting")
    )
    shown = root.get("/admin/waitlist").text
    assert "eve@example.org" in shown and HOSTILE not in shown and HOSTILE in " ".join(Read(shown).words)
    entry = next(form.action for form in Read(shown).forms if form.action.startswith("/admin/waitlist/"))
    assert root.submit("/admin/waitlist", entry, tier="no such").status_code == 400
    tier = sorted(limits.tiers.tiers)[0]
    link = secret_of(root.submit("/admin/waitlist", entry, tier=tier).text)
    assert link.startswith(f"{ORIGIN}/join?token=")
    path = link.removeprefix(ORIGIN)
    assert asking.submit(path, "/join", password="short").status_code == 400
    done = asking.submit(path, "/join", password=PASSWORD)
    assert done.headers["location"] == "/account?said=welcome" and asking.session
    assert tier in Read(asking.get("/account").text).text
    assert visitor(site).get(path).status_code == 404, "a link that was used is good still"
    assert "eve@example.org" in root.get("/admin/waitlist?all=yes").text
    assert "eve@example.org" not in root.get("/admin/waitlist").text


def test_the_first_admin_comes_by_a_link_that_works_once(site: Site, store: Store, visitor: Visitor) -> None:
    token = waitlist.first_link(store)
    browser = visitor()
    assert browser.get("/first?token=guessed").status_code == 404
    found = browser.submit(f"/first?token={token}", "/first", email="root@example.org", password=PASSWORD)
    assert found.headers["location"] == "/admin?said=welcome"
    assert browser.get("/admin").status_code == 200
    assert visitor().get(f"/first?token={token}").status_code == 404


def test_a_new_password_ends_every_other_session(store: Store, visitor: Visitor) -> None:
    join(store, "ada@example.org")
    here, there = enter(visitor(), "ada@example.org"), enter(visitor(), "ada@example.org")
    before = here.session
    assert here.submit("/account", current="not it", password="another passphrase").status_code == 401
    assert there.get("/account").status_code == 200
    done = here.submit("/account", current=PASSWORD, password="another passphrase")
    assert done.headers["location"] == "/account?said=password" and here.session != before
    assert here.get("/account").status_code == 200 and there.get("/account").status_code == 303


def test_a_forgotten_password_is_set_by_an_admins_link(store: Store, visitor: Visitor) -> None:
    ada = join(store, "ada@example.org")
    join(store, "root@example.org", role="admin")
    root = enter(visitor(), "root@example.org")
    page = f"/admin/users/{ada}"
    link = secret_of(root.submit(page, f"{page}/link").text)
    browser = visitor()
    assert "Choose a password" in browser.get(link.removeprefix(ORIGIN)).text
    browser.submit(link.removeprefix(ORIGIN), "/join", password="another passphrase")
    assert browser.get("/account").status_code == 200


def test_a_key_is_shown_once_and_works_until_it_is_revoked(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    ada = join(store, "ada@example.org")
    browser = enter(visitor(), "ada@example.org")
    shown = browser.submit("/keys", name=HOSTILE, scopes=["inference"], budget="7.50", expires="2026-12-31")
    secret = secret_of(shown.text)
    assert shown.headers["cache-control"] == "no-store" and "<script>alert" not in shown.text
    found = keys.find(store, secret)
    assert found and found.user == ada and found.key_budget == 7_500_000 and found.scopes == {"inference"}
    listed = browser.get("/keys").text
    assert secret not in listed and f"…{secret[-4:]}" in listed and "<script>alert" not in listed and "$7.50" in listed
    key = found.key
    clock.advance((1_798_761_600_000 - clock.now) / 1000 - 1)  # the last second of 2026
    assert keys.find(store, secret)
    browser = enter(visitor(), "ada@example.org")
    assert browser.submit("/keys", f"/keys/{key}/revoke").headers["location"] == "/keys?said=revoked"
    assert keys.find(store, secret) is None
    assert "revoked" in browser.get("/keys").text


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("name", "", "empty"),
        ("name", "x" * 81, "81"),
        ("name", "two\nlines", "one line"),
        ("scopes", ["admin"], "not one of the choices"),
        ("budget", "much", "not an amount"),
        ("budget", "-1", "between 0"),
        ("budget", "NaN", "between 0"),
        ("expires", "tomorrow", "not a day"),
        ("expires", "2020-01-01", "expired already"),
        ("expires", "9999-12-31", "too far"),
    ],
)
def test_a_form_that_is_filled_in_wrongly_says_why_and_keeps_the_rest(
    store: Store, visitor: Visitor, field: str, value: str | list[str], why: str
) -> None:
    join(store, "ada@example.org")
    browser = enter(visitor(), "ada@example.org")
    given: dict[str, str | list[str]] = {"name": "mine", "budget": "12.5", "expires": "2027-01-31", field: value}
    found = browser.submit("/keys", **given)
    assert found.status_code == 400 and why in Read(found.text).text
    again = next(form for form in Read(found.text).forms if form.action == "/keys")
    kept = "budget" if field != "budget" else "name"
    assert again.fields[kept] == [given[kept]]
    with store.read() as db:
        assert keys.of_user(db) == []


def test_anothers_key_is_not_there(store: Store, visitor: Visitor) -> None:
    """Nor can it be told from one that nobody has."""
    join(store, "ada@example.org")
    eve = join(store, "eve@example.org")
    with store.write() as db:
        key, secret = keys.create(db, eve, "hers", now=store.clock())
    browser = enter(visitor(), "ada@example.org")
    token = Read(browser.get("/keys").text).forms[0].fields["form"][0]
    answers = [browser.post(f"/keys/{one}/revoke", {"form": token}) for one in (key, "key_000000000000000000000000")]
    assert [found.status_code for found in answers] == [404, 404]
    told = [answers[0].text.replace(key, "KEY"), answers[1].text.replace("key_000000000000000000000000", "KEY")]
    assert told[0] == told[1]
    assert browser.get(f"/usage?key={key}").status_code == 404
    assert browser.get(f"/usage.csv?key={key}").status_code == 404
    for path in (f"/admin/users/{eve}", f"/admin/users/{eve}/usage", f"/admin/users/{eve}/usage.csv"):
        assert browser.get(path).status_code == 403
    assert keys.find(store, secret) is not None


def test_a_suspended_account_makes_no_keys_but_ends_them(store: Store, visitor: Visitor) -> None:
    ada = join(store, "ada@example.org", status="suspended")
    with store.write() as db:
        key, _ = keys.create(db, ada, "mine", now=store.clock())
    browser = enter(visitor(), "ada@example.org")
    shown = browser.get("/keys").text
    assert "makes no keys" in shown
    token = Read(shown).forms[0].fields["form"][0]
    assert browser.post("/keys", {"form": token, "name": "x", "scopes": "inference"}).status_code == 400
    assert browser.post(f"/keys/{key}/revoke", {"form": token}).status_code == 303
    assert "/appeal" in Read(browser.get("/account").text).links


def test_an_admin_finds_a_user_and_sets_what_differs(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    ada = join(store, "ada@example.org")
    for i in range(60):
        join(store, f"p{i:02}@example.org")
    join(store, "root@example.org", role="admin")
    root = enter(visitor(), "root@example.org")
    first = Read(root.get("/admin/users").text)
    more = next(link for link in first.links if "after=" in link)
    assert "p55@example.org" not in first.text and "p55@example.org" in Read(root.get(more).text).text
    assert "ada@example.org" in root.get("/admin/users?find=ADA").text
    assert "No such account" in root.get("/admin/users?find=%25").text
    page = f"/admin/users/{ada}"
    fields = {"role": "reviewer", "status": "suspended", "until": "2026-12-01", "budget": "20", "images": "no"}
    assert root.submit(page, reason="it spams", **fields).headers["location"] == f"{page}?said=saved"
    with store.read() as db:
        person = people.find(db, ada, store.clock())
        done = [event.action for event in audit.events(db, subject=ada)]
    assert person and (person.role, person.status, person.budget) == ("reviewer", "suspended", 20_000_000)
    assert person.images is False and person.status_until == 1_796_169_600_000  # the end of 1 December 2026, UTC
    assert sorted(done) == ["user.budget", "user.images", "user.role", "user.status"]
    root.submit(page, budget="20.0")
    with store.read() as db:
        assert len(audit.events(db, subject=ada)) == 4, "what did not differ was set again"
    assert root.submit(page, until="2020-01-01").status_code == 400


def test_an_admin_cannot_lock_themselves_out(store: Store, visitor: Visitor) -> None:
    me = join(store, "root@example.org", role="admin")
    join(store, "other@example.org", role="admin")
    root = enter(visitor(), "root@example.org")
    for change in ({"role": "user"}, {"status": "banned"}, {"status": "suspended"}):
        found = root.submit(f"/admin/users/{me}", **change)
        assert found.status_code == 400 and "lock yourself out" in found.text
    assert root.get("/admin").status_code == 200


def test_names_that_would_be_markup_are_text_everywhere(store: Store, visitor: Visitor) -> None:
    join(store, "root@example.org", role="admin")
    eve = join(store, "x@example.org")
    with store.write() as db:
        db.execute(users.update().where(users.c.id == eve).values(email=HOSTILE, tier="<i>"))
        keys.create(db, eve, HOSTILE, now=store.clock())
        audit.append(db, HOSTILE, "<img src=x>", HOSTILE, {HOSTILE: HOSTILE}, now=store.clock())
    root = enter(visitor(), "root@example.org")
    for path in ("/admin/users", f"/admin/users/{eve}", f"/admin/users/{eve}/usage", "/admin/audit"):
        text = root.get(path).text
        assert "<script>alert" not in text and "<img" not in text and "<i>" not in text and "<b>" not in text, path
        assert "<script>alert('x')</script>" in "".join(Read(text).words), path


def test_the_audit_log_is_shown_and_its_chain_checked(store: Store, visitor: Visitor) -> None:
    join(store, "root@example.org", role="admin")
    root = enter(visitor(), "root@example.org")
    with store.write() as db:
        for i in range(130):
            audit.append(db, "shell", "key.revoke", f"key_{i}", {"user": f"user_{i}"}, now=store.clock())
    first = Read(root.get("/admin/audit?action=key.").text)
    older = next(link for link in first.links if "before=" in link)
    assert "key_129" in first.text and "key_7 " not in first.text and "key_7 " in Read(root.get(older).text).text
    assert "key_5" in root.get("/admin/audit?about=key_5").text
    checked = Read(root.get("/admin/audit/check").text).text
    assert "The chain holds" in checked
    with store.write() as db:
        from foretell.serve.accounts.tables import audit as table

        db.execute(table.update().where(table.c.seq == 50).values(subject="key_x"))
    broken = Read(root.get("/admin/audit/check").text).text
    assert "broken" in broken and "row 50" in broken


def test_the_overview_counts(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    site = Site(store, base_url=ORIGIN, glance=lambda: [("Queue", "3", "waiting now")])
    join(store, "root@example.org", role="admin")
    ada = join(store, "ada@example.org", status="banned")
    with store.write() as db:
        keys.create(db, ada, "mine", now=store.clock())
    waitlist.join(store, "w@example.org", "", "203.0.113.9")
    tally = Tally()
    for name, count in (("requests", 1234), ("refused", 7), ("prompt", 2_500_000), ("caps:cap", 3)):
        tally.add(name, count)
    tally.flush(store)
    text = Read(enter(visitor(site), "root@example.org").get("/admin").text).text
    assert "Accounts 2 1 banned" in text and "On the waitlist 1" in text and "Keys 1" in text
    assert "Queue 3 waiting now" in text
    assert "Calls answered 1,234 1,234 of them refused 7 7" in text and "Tokens read 2.5 M" in text
    assert "Limit reached: messages in a window 3 3" in text


def test_a_session_ends_by_itself(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    join(store, "ada@example.org")
    browser = enter(visitor(), "ada@example.org")
    clock.advance(10 * MINUTE / 1000)
    assert browser.get("/account").status_code == 200
    clock.advance(40 * DAY / 1000)
    assert browser.get("/account").status_code == 303
