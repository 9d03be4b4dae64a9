"""The ways to an account: the waitlist, invitations, links for a password, the first admin. Each link works once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from storekit import DAY, MINUTE, FakeClock, add_user, at_once

from foretell.errors import RequestError
from foretell.serve.accounts import audit, links, people, sessions, waitlist
from foretell.serve.accounts.people import Person
from foretell.serve.accounts.slowing import ADDRESS, SlowedError
from foretell.serve.store import Store

EMAIL, PASSWORD, HOME = "ada@example.org", "correct horse battery", "192.0.2.1"


def invite(store: Store, name: str = EMAIL, tier: str = "plus") -> str:
    with store.write() as db:
        return waitlist.invite(db, name, now=store.clock(), actor="user_admin", tier=tier)


def entries(store: Store, *, all: bool = True) -> list[waitlist.Waiting]:
    with store.read() as db:
        return list(waitlist.listing(db, all=all))


def person(store: Store, name: str) -> Person:
    with store.read() as db:
        return people.named(db, name, store.clock())


def refused(work: Callable[[], object], status: int) -> None:
    with pytest.raises(RequestError) as error:
        work()
    assert error.value.status == status


def test_from_the_list_to_an_account(store: Store, clock: FakeClock) -> None:
    waitlist.join(store, "Ada@Example.org", " To count. ", HOME)
    joined = clock()
    clock.advance(60)
    (entry,) = entries(store)
    assert (entry.email, entry.note, entry.joined, entry.invited) == (EMAIL, "To count.", joined, None)
    token = invite(store, entry.id)
    clock.advance(60)
    user = waitlist.accept(store, token, PASSWORD, HOME)
    found = person(store, EMAIL)
    assert (found.id, found.tier, found.role, found.created) == (user, "plus", "user", clock())
    assert sessions.find(store, sessions.log_in(store, EMAIL, PASSWORD, HOME))
    (entry,) = entries(store)
    assert (entry.invited, entry.accepted, entry.user) == (joined + MINUTE, joined + 2 * MINUTE, user)
    assert entries(store, all=False) == []
    refused(lambda: invite(store), 409)
    with store.read() as db:
        actions = [event.action for event in reversed(audit.events(db))]
    assert actions == ["waitlist.join", "waitlist.invite", "user.create", "session.begin"]


def test_whether_somebody_waits_or_has_an_account_is_not_told(store: Store) -> None:
    add_user(store, "bob@example.org")
    for email in (EMAIL, EMAIL, "ADA@example.org", "bob@example.org"):
        waitlist.join(store, email, "", HOME)  # answers nothing, the same for all
    assert [each.email for each in entries(store)] == [EMAIL]


def test_two_join_at_once(store: Store) -> None:
    assert at_once(4, lambda n: waitlist.join(store, EMAIL, str(n), f"a{n}")) == [None] * 4
    assert len(entries(store)) == 1


def test_many_from_one_address_are_slowed(store: Store) -> None:
    for number in range(ADDRESS.free):
        waitlist.join(store, f"u{number}@example.org", "", HOME)
    with pytest.raises(SlowedError):
        waitlist.join(store, "more@example.org", "", HOME)


@pytest.mark.parametrize(("email", "note"), [("no address", ""), (EMAIL, "x" * 1001), (EMAIL, "a\0b")])
def test_what_cannot_be_on_the_list(store: Store, email: str, note: str) -> None:
    refused(lambda: waitlist.join(store, email, note, HOME), 400)


def test_who_waits_longest_is_next(store: Store, clock: FakeClock) -> None:
    for name in "dbca":
        waitlist.join(store, f"{name}@example.org", "", HOME)
        clock.advance(1)
    with store.read() as db:
        assert [each.email[0] for each in waitlist.next_in_line(db, 2)] == ["d", "b"]
        assert [each.email[0] for each in waitlist.listing(db, after=clock() - 3000)] == ["c", "a"]
    invite(store, "d@example.org")
    with store.read() as db:
        assert [each.email[0] for each in waitlist.next_in_line(db, 2)] == ["b", "c"]
        assert waitlist.next_in_line(db, 0) == []
    refused(lambda: invite(store, "x@example.org"), 404)
    refused(lambda: invite(store, "a@example.org", "no tier"), 400)


def test_an_invitation_accepted_twice_at_once(store: Store) -> None:
    waitlist.join(store, EMAIL, "", HOME)
    token = invite(store)
    made = at_once(5, lambda n: waitlist.accept(store, token, f"{PASSWORD} {n}", HOME))
    (winner,) = (number for number, each in enumerate(made) if isinstance(each, str))
    assert [each.status for each in made if isinstance(each, RequestError)] == [404] * 4
    assert sessions.log_in(store, EMAIL, f"{PASSWORD} {winner}", HOME)
    refused(lambda: waitlist.accept(store, token, PASSWORD, HOME), 404)


def test_a_link_is_good_for_its_time_and_the_newest_alone(store: Store, clock: FakeClock) -> None:
    waitlist.join(store, EMAIL, "", HOME)
    first, second = invite(store), invite(store)
    refused(lambda: waitlist.accept(store, first, PASSWORD, HOME), 404)
    clock.advance(14 * 86_400)
    refused(lambda: waitlist.accept(store, second, PASSWORD, HOME), 404)
    third = invite(store)
    refused(lambda: waitlist.accept(store, third, "short", HOME), 400)
    assert waitlist.accept(store, third, PASSWORD, HOME), "a poor password has not used it up"


def test_an_invitation_to_who_has_got_an_account_otherwise(store: Store) -> None:
    waitlist.join(store, EMAIL, "", HOME)
    token = invite(store)
    people.sign_up(store, EMAIL, PASSWORD, HOME)
    refused(lambda: waitlist.accept(store, token, "another good one", HOME), 409)
    assert sessions.log_in(store, EMAIL, PASSWORD, HOME)


def test_a_link_for_a_password(store: Store, clock: FakeClock) -> None:
    user = people.sign_up(store, EMAIL, PASSWORD, HOME)
    old = sessions.log_in(store, EMAIL, PASSWORD, HOME)
    for _ in range(5):
        refused(lambda: sessions.log_in(store, EMAIL, "a wrong password", HOME), 401)
    with store.write() as db:
        token = waitlist.password_link(db, user, now=clock(), actor="shell")
    assert waitlist.accept(store, token, "another good one", HOME) == user
    assert sessions.find(store, old) is None
    assert sessions.log_in(store, EMAIL, "another good one", HOME), "and what was guessed before is forgotten"
    refused(lambda: waitlist.accept(store, token, PASSWORD, HOME), 404)
    with store.write() as db:
        refused(lambda: waitlist.password_link(db, "user_none", now=clock(), actor="shell"), 404)


def test_a_new_password_ends_the_links_for_one(store: Store, clock: FakeClock) -> None:
    user = people.sign_up(store, EMAIL, PASSWORD, HOME)
    with store.write() as db:
        token = waitlist.password_link(db, user, now=clock(), actor="shell")
    sessions.change_password(store, user, PASSWORD, "another good one", HOME)
    refused(lambda: waitlist.accept(store, token, PASSWORD, HOME), 404)


def test_the_first_admin(store: Store, clock: FakeClock) -> None:
    token = waitlist.first_link(store)
    assert token is not None
    refused(lambda: waitlist.become_admin(store, token, EMAIL, "short", HOME), 400)
    user = waitlist.become_admin(store, token, EMAIL, PASSWORD, HOME)
    assert person(store, user).role == "admin" and sessions.log_in(store, EMAIL, PASSWORD, HOME)
    assert waitlist.first_link(store) is None
    refused(lambda: waitlist.become_admin(store, token, "bob@example.org", PASSWORD, HOME), 404)


def test_links_of_servers_that_start_at_once(store: Store) -> None:
    """Each prints one, each is good, and of two that are used at once one makes the first admin."""
    tokens = [token for token in at_once(4, lambda n: waitlist.first_link(store)) if isinstance(token, str)]
    assert len(set(tokens)) == 4
    made = at_once(4, lambda n: waitlist.become_admin(store, tokens[n], f"u{n}@example.org", PASSWORD, HOME))
    assert sum(isinstance(each, str) for each in made) == 1
    assert [each.status for each in made if isinstance(each, RequestError)] == [404] * 3
    with store.read() as db:
        assert len(people.listing(db)) == 1


def test_a_first_link_used_twice_at_once(store: Store) -> None:
    token = str(waitlist.first_link(store))
    made = at_once(4, lambda n: waitlist.become_admin(store, token, f"u{n}@example.org", PASSWORD, HOME))
    assert sum(isinstance(each, str) for each in made) == 1


def test_first_links_are_given_while_no_admin_can_log_in(store: Store, clock: FakeClock) -> None:
    add_user(store, "a@example.org", role="admin")
    add_user(store, "b@example.org", role="admin", password="x", status="banned")
    token = waitlist.first_link(store)
    assert token
    add_user(store, "c@example.org", role="admin", password="x", status="suspended", status_until=clock() + DAY)
    assert waitlist.first_link(store)
    clock.advance(86_399)
    assert waitlist.first_link(store)
    clock.advance(1)
    assert waitlist.first_link(store) is None
    refused(lambda: waitlist.become_admin(store, token, EMAIL, PASSWORD, HOME), 404)


def test_a_further_admin(store: Store, clock: FakeClock) -> None:
    waitlist.become_admin(store, str(waitlist.first_link(store)), EMAIL, PASSWORD, HOME)
    with store.write() as db:
        tokens = [waitlist.admin_link(db, now=clock(), actor="shell") for _ in range(2)]
    refused(lambda: waitlist.become_admin(store, tokens[0], EMAIL, PASSWORD, HOME), 409)
    for number, token in enumerate(tokens):
        assert waitlist.become_admin(store, token, f"u{number}@example.org", PASSWORD, HOME)
        refused(lambda token=token: waitlist.become_admin(store, token, "x@example.org", PASSWORD, HOME), 404)  # type: ignore[misc]


def test_a_link_of_one_purpose_is_none_of_another(store: Store, clock: FakeClock) -> None:
    waitlist.join(store, EMAIL, "", HOME)
    invitation, first = invite(store), str(waitlist.first_link(store))
    refused(lambda: waitlist.become_admin(store, invitation, EMAIL, PASSWORD, HOME), 404)
    refused(lambda: waitlist.accept(store, first, PASSWORD, HOME), 404)
    for wrong in ("", "x" * 43, "\udcff", invitation[:-1]):
        refused(lambda wrong=wrong: waitlist.accept(store, wrong, PASSWORD, HOME), 404)  # type: ignore[misc]
    with store.read() as db:
        assert links.peek(db, invitation, "invite", now=clock())[0] == "invite"
    assert waitlist.accept(store, invitation, PASSWORD, HOME)
