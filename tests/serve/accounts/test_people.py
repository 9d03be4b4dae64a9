"""Users: what is taken as one, what is changed of them, and that an admin is left."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from storekit import DAY, FakeClock, add_user, at_once

from foretell.errors import RequestError
from foretell.serve.accounts import audit, passwords, people
from foretell.serve.accounts.people import clean_email
from foretell.serve.accounts.slowing import SlowedError
from foretell.serve.accounts.tables import users
from foretell.serve.store import Store

PASSWORD = "correct horse battery"


def test_signing_up_makes_a_user(store: Store, clock: FakeClock) -> None:
    id = people.sign_up(store, " Ada@Example.ORG ", PASSWORD, "192.0.2.1", tier="plus")
    with store.read() as db:
        found = people.named(db, "ADA@example.org", clock())
        assert found == people.find(db, id, clock()) == people.named(db, id, clock())
        assert (found.email, found.role, found.tier, found.status) == ("ada@example.org", "user", "plus", "active")
        assert found.can_log_in and found.created == clock()
        row = db.execute(sa.select(users)).one()
        assert PASSWORD not in str(row) and "192.0.2.1" not in str(row)
        assert passwords.is_right(row.password, PASSWORD)
        (event,) = audit.events(db)
        assert (event.actor, event.action, event.subject) == (id, "user.create", id)
        assert "ada" not in str(event)


def test_two_of_one_address_at_once(store: Store) -> None:
    made = at_once(6, lambda n: people.sign_up(store, ("ada@example.org", "ADA@example.org")[n % 2], PASSWORD, f"a{n}"))
    assert sum(isinstance(each, str) for each in made) == 1
    assert [(e.status, e.code) for e in made if isinstance(e, RequestError)] == [(409, "email_taken")] * 5
    with store.read() as db:
        assert len(people.listing(db)) == len(audit.events(db)) == 1


def test_many_accounts_from_one_address_are_slowed(store: Store, clock: FakeClock) -> None:
    for number in range(30):
        people.sign_up(store, f"u{number}@example.org", PASSWORD, "192.0.2.1")
    with pytest.raises(SlowedError) as error:
        people.sign_up(store, "more@example.org", PASSWORD, "192.0.2.1")
    people.sign_up(store, "other@example.org", PASSWORD, "192.0.2.2")
    clock.advance(error.value.retry_after)
    people.sign_up(store, "more@example.org", PASSWORD, "192.0.2.1")


@pytest.mark.parametrize(
    ("email", "cleaned"),
    [
        ("a@b", "a@b"), ("A.b+c@Sub.Example.org", "a.b+c@sub.example.org"),
        ("straße@example.org", "strasse@example.org"),
        ("ａda@example.org", "ada@example.org"), ("jose\u0301@example.org", "josé@example.org"),
    ],
)  # fmt: skip
def test_an_address_is_stored_in_one_way(email: str, cleaned: str) -> None:
    assert clean_email(email) == cleaned == clean_email(cleaned)


@pytest.mark.parametrize(
    "email",
    ["", "ada", "@example.org", "ada@", "a@b@c", "a b@c", "a\n@b", "a\0@b", "a@-b", "a@.b", "a@b..c", "<a@b>", "a,b@c",
     "x" * 251 + "@b.c", "a@b\u200b", "\udcff@b"],
)  # fmt: skip
def test_what_is_no_address_is_refused(email: str) -> None:
    with pytest.raises(RequestError, match="no e-mail address"):
        clean_email(email)


@pytest.mark.parametrize(
    ("password", "told"),
    [
        ("short", "10 to 256 letters; this one has 5"),
        ("x" * 257, "this one has 257"),
        ("aaaaabbbbbcccc", "repeats few"),
        ("ada@example.org", "much like the e-mail"),
        ("lovelace-12", "much like the e-mail"),
    ],
)
def test_a_poor_password_is_refused(store: Store, password: str, told: str) -> None:
    email = "lovelace@example.org" if "lovelace" in password else "ada@example.org"
    with pytest.raises(RequestError, match=told) as error:
        people.sign_up(store, email, password, "192.0.2.1")
    assert error.value.status == 400 and password not in str(error.value)


def test_a_short_name_within_a_password_is_no_likeness(store: Store) -> None:
    assert people.sign_up(store, "c@example.org", PASSWORD, "192.0.2.1")


def test_a_password_is_the_same_however_it_is_composed() -> None:
    stored = passwords.hashed("pässwörter-1")
    assert passwords.is_right(stored, "pa\u0308sswo\u0308rter-1")
    assert not passwords.is_right(stored, "passworter-1")
    assert not passwords.is_right("no hash", "x") and not passwords.is_right(None, "x")
    assert not passwords.is_dated(stored)


def test_what_ships_takes_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """At least what OWASP asks of argon2id: 19 MiB and two passes."""
    monkeypatch.undo()
    assert passwords.hasher().memory_cost >= 19 * 1024 and passwords.hasher().time_cost >= 2
    assert passwords.hashed("x" * 300).startswith("$argon2id$")


def test_changes_are_made_and_logged(store: Store, clock: FakeClock) -> None:
    id, now = add_user(store), clock()
    with store.write() as db:
        people.set_role(db, id, "reviewer", now=now, actor="shell")
        people.set_tier(db, id, "plus", now=now, actor="shell")
        people.set_budget(db, id, 25_000_000, now=now, actor="shell")
        people.set_images(db, id, True, now=now, actor="shell")
        people.set_status(db, id, "suspended", now=now, actor="user_r", until=now + DAY, reason="spam")
        found = people.named(db, id, now)
        assert (found.role, found.tier, found.budget, found.images) == ("reviewer", "plus", 25_000_000, True)
        assert (found.status, found.status_until) == ("suspended", now + DAY)
        assert people.named(db, id, now + DAY).status == "warned"
        newest, *rest = audit.events(db, subject=id)
        assert (newest.actor, newest.action) == ("user_r", "user.status")
        assert newest.details == {
            "status": "suspended", "status_until": now + DAY, "status_before": "active", "status_until_before": None,
            "reason": "spam",
        }  # fmt: skip
        assert [event.action for event in rest] == ["user.images", "user.budget", "user.tier", "user.role"]
        people.set_status(db, id, "active", now=now, actor="shell")
        assert people.named(db, id, now).status_until is None


@pytest.mark.parametrize(
    ("change", "values", "status"),
    [
        (people.set_role, ("owner",), 400), (people.set_tier, ("no tier",), 400), (people.set_tier, ("",), 400),
        (people.set_budget, (-1,), 400), (people.set_budget, (10**16,), 400), (people.set_status, ("gone",), 400),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(store: Store, change: object, values: tuple[object], status: int) -> None:
    id = add_user(store)
    for user, expected in ((id, status), ("user_none", 404)):
        given = values if user == id else ({"owner": "user", "gone": "banned"}.get(str(values[0]), values[0]),)
        if user != id and change in (people.set_tier, people.set_budget):
            given = ("plus",) if change is people.set_tier else (5,)
        with pytest.raises(RequestError) as error, store.write() as db:
            change(db, user, *given, now=store.clock(), actor="shell")  # type: ignore[operator]
        assert error.value.status == expected


def test_a_suspension_ends_later_than_now(store: Store, clock: FakeClock) -> None:
    id = add_user(store)
    for status, until in (("suspended", clock()), ("banned", clock() + DAY)):
        with pytest.raises(RequestError, match="Only a suspension has an end"), store.write() as db:
            people.set_status(db, id, status, now=clock(), actor="shell", until=until)  # type: ignore[arg-type]


def test_the_last_admin_stays(store: Store, clock: FakeClock) -> None:
    ada = add_user(store, "ada@example.org", role="admin", password="x")
    add_user(store, "new@example.org", role="admin")  # who has no password yet
    with store.write() as db:
        for change, value in ((people.set_role, "user"), (people.set_status, "banned")):
            with pytest.raises(RequestError, match="only admin who can log in") as error:
                change(db, ada, value, now=clock(), actor="shell")  # type: ignore[operator]
            assert error.value.status == 409
        people.set_status(db, ada, "warned", now=clock(), actor="shell")
    bob = add_user(store, "bob@example.org", role="admin", password="x")

    def demote(number: int) -> None:
        with store.write() as db:
            people.set_role(db, (ada, bob)[number], "user", now=clock(), actor="shell")

    ended = at_once(2, demote)
    assert sum(each is None for each in ended) == 1, "of two admins who end each other one stays"
    with store.read() as db:
        assert people.has_admin(db, clock())


def test_users_are_listed_page_by_page(store: Store) -> None:
    for name in "cabd":
        add_user(store, f"{name}@example.org")
    id = add_user(store, "a_b%@other.org")
    with store.read() as db:
        first = people.listing(db, limit=3)
        assert [each.email[0] for each in first] == ["a", "a", "b"]
        assert [each.email[0] for each in people.listing(db, after=first[-1].email)] == ["c", "d"]
        assert [each.id for each in people.listing(db, "_B%")] == [each.id for each in people.listing(db, id)] == [id]
        assert people.listing(db, "%%") == people.listing(db, "\0none") == []
        assert people.find(db, "user_none") is None
        with pytest.raises(RequestError, match="There is no user x@y"):
            people.named(db, "x@y")
