"""Log-ins: cookies that are new each time and end, guesses that are slowed, and nobody told who has an account."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from argon2 import PasswordHasher
from storekit import DAY, HOUR, FakeClock, add_user, at_once

from foretell.errors import RequestError
from foretell.serve.accounts import audit, passwords, people, sessions
from foretell.serve.accounts.account import Account
from foretell.serve.accounts.slowing import ACCOUNT, ADDRESS, Pace, SlowedError
from foretell.serve.accounts.tables import attempts, users
from foretell.serve.accounts.tables import sessions as table
from foretell.serve.store import Store, metadata

EMAIL, PASSWORD, HOME = "ada@example.org", "correct horse battery", "192.0.2.1"


@pytest.fixture
def ada(store: Store) -> str:
    return people.sign_up(store, EMAIL, PASSWORD, HOME)


def log_in(store: Store, password: str = PASSWORD, email: str = EMAIL, address: str = HOME, **rest: Any) -> str:
    return sessions.log_in(store, email, password, address, **rest)


def test_a_session_is_an_account(store: Store, ada: str) -> None:
    cookie = log_in(store, email="ADA@example.org")
    assert sessions.find(store, cookie) == Account(
        ada, None, "user", "free", "active", frozenset({"inference", "usage"}), None, None, None
    )
    for wrong in ("", cookie[:-1], cookie + "x", "\udcff"):
        assert sessions.find(store, wrong) is None


def test_neither_cookie_nor_password_nor_address_is_in_the_database(store: Store, ada: str) -> None:
    cookie = log_in(store)
    with pytest.raises(RequestError):
        log_in(store, "a wrong password")
    with store.read() as db:
        held = "\n".join(str(tuple(row)) for each in metadata.sorted_tables for row in db.execute(sa.select(each)))
    assert EMAIL in held
    assert not any(secret in held for secret in (cookie, PASSWORD, "a wrong password", HOME))


def test_a_log_in_gives_a_new_cookie_and_ends_the_old(store: Store, ada: str) -> None:
    """Whoever planted a cookie of theirs has nothing by it (session fixation)."""
    planted = log_in(store)
    fresh = log_in(store, session=planted)
    assert fresh != planted and sessions.find(store, planted) is None and sessions.find(store, fresh)
    made_up = "x" * 43
    assert log_in(store, session=made_up) != made_up and sessions.find(store, made_up) is None
    begun = sessions.begin(store, ada, HOME, session=fresh)
    assert sessions.find(store, fresh) is None and sessions.find(store, begun)


def test_a_failed_log_in_leaves_the_session(store: Store, ada: str) -> None:
    cookie = log_in(store)
    with pytest.raises(RequestError):
        log_in(store, "a wrong password", session=cookie)
    assert sessions.find(store, cookie)


def test_log_out_ends_one_session(store: Store, ada: str) -> None:
    here, there = log_in(store), log_in(store)
    for _ in range(2):
        sessions.end(store, here)
    assert sessions.find(store, here) is None and sessions.find(store, there)
    with store.read() as db:
        actions = [event.action for event in audit.events(db, subject=ada)]
    assert actions == ["session.end", "session.begin", "session.begin", "user.create"]


def test_sessions_end_when_unused_and_at_last(store: Store, clock: FakeClock, ada: str) -> None:
    idle, used = log_in(store), log_in(store)
    begun = clock()
    clock.advance((sessions.IDLE - 1) / 1000)
    assert sessions.find(store, used)
    clock.advance(0.001)
    assert sessions.find(store, idle) is None and sessions.find(store, used)
    while clock() + sessions.IDLE // 2 < begun + sessions.LONGEST:
        clock.advance(sessions.IDLE / 2000)
        assert sessions.find(store, used)
    clock.now = begun + sessions.LONGEST
    assert sessions.find(store, used) is None


def test_use_is_written_once_a_minute(store: Store, clock: FakeClock, ada: str) -> None:
    cookie = log_in(store)
    writes = 0

    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        nonlocal writes
        writes += statement.startswith("UPDATE")

    sa.event.listen(store.engine, "before_cursor_execute", count)
    for _ in range(120):
        clock.advance(1)
        sessions.find(store, cookie)
    assert writes == 2


def test_a_new_password_ends_every_session(store: Store, ada: str) -> None:
    old = [log_in(store) for _ in range(3)]
    other = sessions.begin(store, add_user(store, "bob@example.org"), HOME)
    fresh = sessions.change_password(store, ada, PASSWORD, "another good one", HOME)
    assert [sessions.find(store, each) for each in old] == [None] * 3
    assert sessions.find(store, fresh) and sessions.find(store, other)
    with pytest.raises(RequestError) as error:
        log_in(store)
    assert error.value.status == 401
    assert log_in(store, "another good one")


def test_a_password_is_not_changed_without_the_old_one(store: Store, ada: str) -> None:
    cookie = log_in(store)
    for old, new, status in (("wrong wrong", "another good one", 401), (PASSWORD, "short", 400)):
        with pytest.raises(RequestError) as error:
            sessions.change_password(store, ada, old, new, HOME)
        assert error.value.status == status
    with pytest.raises(RequestError) as error:
        sessions.change_password(store, "user_none", PASSWORD, "another good one", HOME)
    assert error.value.status == 404
    assert sessions.find(store, cookie) and log_in(store)


def test_two_changes_of_a_password_at_once(store: Store, ada: str) -> None:
    new = [f"another good one {n}" for n in range(2)]
    made = at_once(2, lambda n: sessions.change_password(store, ada, PASSWORD, new[n], HOME))
    good = [n for n, each in enumerate(made) if isinstance(each, str)]
    assert len(good) == 1 and log_in(store, new[good[0]])
    assert {e.status for e in made if isinstance(e, RequestError)} <= {401, 409}


def test_a_log_in_with_a_password_that_is_changed_meanwhile_fails(
    store: Store, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = passwords.is_right

    def slow(stored: str | None, password: str) -> bool:
        found = right(stored, password)
        with store.write() as db:
            sessions.set_password(db, ada, passwords.hashed("another good one"), now=store.clock())
        return found

    monkeypatch.setattr(passwords, "is_right", slow)
    with pytest.raises(RequestError, match="is wrong"):
        log_in(store)
    with store.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(table)) == 0


def test_an_old_hash_is_renewed_at_log_in(store: Store, ada: str) -> None:
    old = PasswordHasher(1, 16, 1).hash(PASSWORD)
    with store.write() as db:
        db.execute(users.update().values(password=old))
    assert log_in(store)
    with store.read() as db:
        renewed = db.scalar(sa.select(users.c.password))
    assert renewed != old and not passwords.is_dated(str(renewed)) and log_in(store)


def test_nobody_is_told_who_has_an_account(store: Store, ada: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same words, same status, same number of hashes worked out, slowed alike; also where no password is set."""
    add_user(store, "invited@example.org")
    work: list[str] = []

    class Counted(PasswordHasher):
        def hash(self, password: Any, *, salt: Any = None) -> str:
            work.append("argon2")
            return super().hash(password, salt=salt)

        def verify(self, hash: Any, password: Any) -> Any:
            work.append("argon2")
            return super().verify(hash, password)

    monkeypatch.setattr(passwords, "hasher", lambda made=Counted(1, 8, 1): made)
    told = []
    for email in (EMAIL, "nobody@example.org", "invited@example.org", "not an address"):
        answers = []
        for number in range(7):
            work.clear()
            with pytest.raises(RequestError) as error:
                log_in(store, "a wrong password", email, f"198.51.100.{len(told) * 10 + number}")
            answers.append((error.value.status, error.value.code, str(error.value), len(work)))
        told.append(answers)
    assert told[0] == told[1] == told[2] == told[3]
    assert told[0][0] == (401, "wrong_password", "The e-mail address or the password is wrong.", 1)
    assert [answer[0] for answer in told[0]] == [401] * 5 + [429] * 2


def test_guesses_at_an_account_are_slowed_more_and_more(store: Store, clock: FakeClock, ada: str) -> None:
    """From whatever addresses they come. The right password too has to wait, or a guess would be told apart."""
    waits = []
    for number in range(20):
        with pytest.raises(RequestError, match="is wrong"):
            log_in(store, "a wrong password", address=f"198.51.100.{number}")
        try:
            log_in(store, "a wrong password", address=f"203.0.113.{number}")
        except SlowedError as error:
            waits.append(error.retry_after)
            assert error.status == 429 and error.headers == ((b"retry-after", b"%d" % error.retry_after),)
            clock.advance(error.retry_after - 0.001)
            with pytest.raises(SlowedError):
                log_in(store, address=f"203.0.113.{number}")
            clock.advance(0.001)
        except RequestError:
            waits.append(0)
    assert waits[:2] == [0, 0] and waits[2:] == sorted(waits[2:]) and waits[2:5] == [1, 2, 4]
    assert waits[-1] == ACCOUNT.longest / 1000
    clock.advance(waits[-1])
    assert log_in(store)
    with pytest.raises(RequestError, match="is wrong"):
        log_in(store, "a wrong password")
    assert log_in(store), "a log-in has begun the count anew"


def test_guesses_from_an_address_are_slowed(store: Store, clock: FakeClock, ada: str) -> None:
    for number in range(ADDRESS.free):
        with pytest.raises(RequestError, match="is wrong"):
            log_in(store, email=f"u{number}@example.org")
    with pytest.raises(SlowedError):
        log_in(store)
    assert log_in(store, address="198.51.100.1")
    clock.advance(1)
    assert log_in(store)
    with pytest.raises(RequestError, match="is wrong"):
        log_in(store, email="more@example.org")
    with pytest.raises(SlowedError):
        log_in(store)  # one's own log-ins between the guesses do not help


def test_a_subnet_of_ipv6_is_one_address(store: Store, ada: str) -> None:
    for number in range(ADDRESS.free):
        with pytest.raises(RequestError, match="is wrong"):
            log_in(store, email=f"u{number}@example.org", address=f"2001:db8::{number + 1:x}")
    with pytest.raises(SlowedError):
        log_in(store, address="2001:db8::ffff")
    assert log_in(store, address="2001:db8:0:1::1")


def test_guesses_at_once_are_all_counted(store: Store, ada: str) -> None:
    """Many sent together are no way around: only so many are tried as one after the other."""
    tried = at_once(16, lambda n: log_in(store, "a wrong password", address=f"198.51.100.{n}"))
    assert sum(isinstance(each, SlowedError) for each in tried) == 16 - ACCOUNT.free


def test_what_is_forgotten_after_a_day(store: Store, clock: FakeClock, ada: str) -> None:
    for _ in range(ACCOUNT.free):
        with pytest.raises(RequestError, match="is wrong"):
            log_in(store, "a wrong password")
    clock.advance(86_400)
    for _ in range(ACCOUNT.free):
        with pytest.raises(RequestError, match="is wrong"):
            log_in(store, "a wrong password")


def test_a_pace_doubles_up_to_its_longest() -> None:
    pace = Pace(3, longest=10_000)
    assert [pace.wait(n) for n in range(1, 9)] == [0, 0, 1000, 2000, 4000, 8000, 10_000, 10_000]
    assert pace.wait(10**9) == 10_000


def test_tidying_removes_what_is_over(store: Store, clock: FakeClock, ada: str) -> None:
    log_in(store)
    with pytest.raises(RequestError):
        log_in(store, "a wrong password")
    assert sessions.tidy(store) == 0
    clock.advance((sessions.IDLE - HOUR) / 1000)
    kept = log_in(store)
    clock.advance(HOUR / 1000)
    assert sessions.tidy(store) == 2  # the session and what was counted of signing up
    clock.advance(DAY / 1000)
    assert sessions.tidy(store) == 1 and sessions.find(store, kept)
    with store.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(attempts)) == 0
