"""Keys: who they belong to, what ends them, and that none is kept."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from storekit import DAY, MINUTE, FakeClock, add_user, at_once

from foretell.errors import RequestError
from foretell.serve.accounts import audit, keys
from foretell.serve.accounts.account import Account
from foretell.serve.accounts.tables import keys as table
from foretell.serve.accounts.tables import users
from foretell.serve.store import Store, metadata


def make(store: Store, user: str, **values: object) -> tuple[str, str]:
    with store.write() as db:
        return keys.create(db, user, "laptop", now=store.clock(), **values)  # type: ignore[arg-type]


def test_a_key_finds_its_account(store: Store) -> None:
    user = add_user(store, tier="plus", images=True, budget=5_000_000)
    id, secret = make(store, user, budget=1_000_000)
    assert secret.startswith("sk-ft-") and len(secret) == 49
    assert keys.find(store, secret) == Account(
        user, id, "user", "plus", "active", frozenset({"inference", "usage"}), True, 5_000_000, 1_000_000
    )
    for wrong in (secret[:-1], secret + "x", secret.swapcase(), "", "sk-ft-", id, "\udcff", "x" * 100_000):
        assert keys.find(store, wrong) is None


def test_the_key_itself_is_nowhere_in_the_database(store: Store) -> None:
    _, secret = make(store, add_user(store))
    assert keys.find(store, secret)
    with store.read() as db:
        held = "\n".join(str(tuple(row)) for each in metadata.sorted_tables for row in db.execute(sa.select(each)))
    assert secret[-4:] in held
    assert secret not in held and secret.removeprefix("sk-ft-")[:16] not in held


def test_expiry_and_revocation_end_a_key(store: Store, clock: FakeClock) -> None:
    user, other = add_user(store), add_user(store, "bob@example.org")
    _, short = make(store, user, expires=clock() + DAY)
    clock.advance(1)
    id, long = make(store, user)
    clock.advance(86_398.999)
    assert keys.find(store, short)
    clock.advance(0.001)
    assert keys.find(store, short) is None and keys.find(store, long)
    with store.write() as db, pytest.raises(RequestError, match="There is no key") as theirs:
        keys.revoke(db, id, now=clock(), user=other)
    with store.write() as db, pytest.raises(RequestError) as none:
        keys.revoke(db, "key_none", now=clock(), user=other)
    assert theirs.value.status == none.value.status == 404
    assert keys.find(store, long)
    for _ in range(2):
        with store.write() as db:
            keys.revoke(db, id, now=clock(), user=user)
    assert keys.find(store, long) is None
    with store.read() as db:
        assert [key.state(clock()) for key in keys.of_user(db, user)] == ["revoked", "expired"]
        assert [event.action for event in audit.events(db, subject=id)] == ["key.revoke", "key.create"]


def test_use_is_written_once_a_minute(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    _, secret = make(store, user)
    first = clock()
    writes = 0

    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        nonlocal writes
        writes += statement.startswith("UPDATE")

    sa.event.listen(store.engine, "before_cursor_execute", count)
    for _ in range(60):
        keys.find(store, secret)
        clock.advance(0.999)
    assert writes == 1
    clock.advance(0.06)
    keys.find(store, secret)
    assert writes == 2
    with store.read() as db:
        assert keys.of_user(db, user)[0].used == first + MINUTE


@pytest.mark.parametrize(
    ("role", "scopes", "given"),
    [("user", ["inference"], {"inference"}), ("admin", ["admin", "usage"], {"admin", "usage"}), ("user", ["admin"], 0)],
)
def test_scopes_are_within_the_role(store: Store, role: str, scopes: list[str], given: object) -> None:
    user = add_user(store, role=role)
    if not given:
        with pytest.raises(RequestError, match="cannot have the scope 'admin'; allowed are inference, usage"):
            make(store, user, scopes=scopes)
        return
    _, secret = make(store, user, scopes=scopes)
    found = keys.find(store, secret)
    assert found and found.scopes == given
    with store.write() as db:
        db.execute(users.update().values(role="user"))
    found = keys.find(store, secret)
    assert found and "admin" not in found.scopes, "a key never gives more than its owner's role"


def test_a_suspension_runs_out(store: Store, clock: FakeClock) -> None:
    user = add_user(store, status="suspended", status_until=clock() + 1)
    _, secret = make(store, user)
    assert [found.status for found in [keys.find(store, secret)] if found] == ["suspended"]
    clock.advance(0.001)
    assert [found.status for found in [keys.find(store, secret)] if found] == ["warned"]


@pytest.mark.parametrize(
    ("values", "status", "told"),
    [
        ({"scopes": []}, 400, "needs a scope"),
        ({"expires": 1}, 400, "expired already"),
        ({"budget": -1}, 400, "cannot be negative"),
        ({"name": " "}, 400, "needs a name"),
        ({"name": "a\0b"}, 400, "needs a name"),
        ({"name": "x" * 81}, 400, "needs a name"),
        ({"user": "user_none"}, 404, "no user"),
    ],
)
def test_what_cannot_be_given_is_told(store: Store, values: dict[str, object], status: int, told: str) -> None:
    asked = {"user": add_user(store), "name": "laptop", "now": store.clock(), **values}
    with store.write() as db, pytest.raises(RequestError, match=told) as error:
        keys.create(db, **asked)  # type: ignore[arg-type]
    assert error.value.status == status


def test_a_user_has_so_many_keys_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST", 3)
    user = add_user(store)
    made = at_once(6, lambda _: make(store, user))
    assert sum(isinstance(each, tuple) for each in made) == 3
    assert {each.status for each in made if isinstance(each, RequestError)} == {409}
    with store.read() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(table)) == 3
