"""For what nobody is struck, and what a reviewer's decision teaches."""

from __future__ import annotations

from reviewkit import flag, status
from storekit import FakeClock, add_user

from foretell.safety.strikes import Ladder
from foretell.serve.reviews.cases import case
from foretell.serve.store import Store
from foretell.serve.web.review import _taught


def test_who_may_need_help_is_not_struck(store: Store) -> None:
    user = add_user(store)
    flag(store, user, categories=["self-harm", "self-harm/intent"])
    assert status(store, user)[0] == "active"
    flag(store, user, categories=["self-harm", "hate"])
    assert status(store, user)[0] == "warned"
    assert Ladder().weight(["self-harm"]) == 0 and Ladder().weight([]) == 1


def test_the_same_text_strikes_once_in_ten_minutes(store: Store, clock: FakeClock) -> None:
    user, other = add_user(store), add_user(store, "eve@example.org")
    for who in (user, user, other):
        flag(store, who, text="the same")
    assert (status(store, user)[0], status(store, other)[0]) == ("warned", "warned")
    clock.advance(601)
    flag(store, user, text="the same")
    assert status(store, user)[0] == "suspended"


def test_what_is_overturned_is_taught_as_wrong(store: Store) -> None:
    found = case(store, flag(store, add_user(store), categories=["hate"]).id)
    ticked = {"hate": True, "violence": True, "sexual": False}
    assert _taught(ticked, found, "upheld") == ticked
    assert _taught(ticked, found, "overturned") == {"hate": False, "violence": True, "sexual": False}
