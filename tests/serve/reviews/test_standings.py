"""Strikes change an account's status once, hands and strikes do not undo each other, and all of it is logged."""

from collections import Counter

import sqlalchemy as sa
from reviewkit import LADDER, flag, set_by_hand, status, take
from storekit import DAY, FakeClock, add_user, at_once

from foretell.serve.accounts import audit, people
from foretell.serve.reviews.cases import case
from foretell.serve.reviews.desk import overturn, uphold
from foretell.serve.reviews.standings import refresh, strike, strikes_of
from foretell.serve.store import Store


def logged(store: Store, action: str) -> int:
    with store.read() as db:
        return len(audit.events(db, action=action, limit=1000))


def test_blocked_input_strikes_at_once_up_the_ladder(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    first = flag(store, user)
    assert first.standing is not None and first.standing.status == "warned"
    assert status(store, user) == ("warned", None)
    flag(store, user)
    assert status(store, user) == ("suspended", clock.now + DAY)
    flag(store, user)
    assert status(store, user) == ("suspended", clock.now + 7 * DAY)
    flag(store, user)
    assert status(store, user) == ("banned", None)
    assert sorted(given.step for given in strikes_of(store, user)) == ["banned", "suspended", "suspended", "warned"]
    assert sum(given.weight for given in strikes_of(store, user)) == 4
    assert logged(store, "strike.give") == logged(store, "user.status") == 4
    assert audit.verify(store).fault is None


def test_only_what_callers_say_and_only_what_is_blocked_strikes_at_once(store: Store) -> None:
    user = add_user(store)
    for recorded in (flag(store, user, "flag"), flag(store, user, "refuse"), flag(store, user, side="output")):
        assert recorded.standing is None and case(store, recorded.id).strike is None
    assert flag(store, None).standing is None and flag(store, "user_gone").standing is None
    assert status(store, user) == ("active", None) and strikes_of(store, user) == []


def test_a_grave_category_bans_at_once(store: Store) -> None:
    user = add_user(store)
    flag(store, user, categories=["sexual", "sexual/minors"])
    assert status(store, user) == ("banned", None)


def test_strikes_that_come_at_once_change_the_status_one_by_one(store: Store) -> None:
    user = add_user(store)
    outcomes = at_once(8, lambda i: flag(store, user))
    steps = Counter(outcome.standing.status for outcome in outcomes)  # type: ignore[union-attr]
    assert steps == {"warned": 1, "suspended": 2, "banned": 5}
    assert status(store, user) == ("banned", None)
    assert logged(store, "user.status") == 4 and logged(store, "strike.give") == 8
    assert audit.verify(store).fault is None


def test_one_finding_strikes_once_however_many_ask(store: Store) -> None:
    user = add_user(store)
    id = flag(store, user, "flag").id

    def give(i: int) -> object:
        with store.write() as db:
            return strike(db, LADDER, user, id, ["hate"], now=store.clock(), given_by=f"user_{i}")

    outcomes = at_once(6, give)
    assert sorted(outcome is None for outcome in outcomes) == [False] + [True] * 5, outcomes
    assert len(strikes_of(store, user)) == 1 and status(store, user) == ("warned", None)


def test_overturning_lifts_what_nothing_else_holds(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    ids = [flag(store, user).id for _ in range(4)]
    assert status(store, user)[0] == "banned"
    for id, expected in zip(ids, ["suspended", "suspended", "warned", "active"], strict=True):
        take(store, "rev", id)
        overturn(store, LADDER, "rev", id)
        assert status(store, user)[0] == expected
    assert logged(store, "strike.overturn") == 4
    assert all(given.overturned_by == "rev" for given in strikes_of(store, user))


def test_what_is_set_by_hand_holds_whatever_becomes_of_strikes(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    id = flag(store, user).id
    with store.write() as db:
        people.set_status(db, user, "suspended", now=clock.now, actor="shell")
    flag(store, user)
    assert status(store, user) == ("suspended", None), "without an end is longer than a day"
    take(store, "rev", id)
    overturn(store, LADDER, "rev", id)
    clock.advance(200 * 86_400)
    refresh(store, LADDER)
    assert status(store, user) == ("suspended", None)
    flag(store, user, categories=["sexual/minors"])
    assert status(store, user) == ("banned", None), "strikes may make it worse"


def test_a_ban_by_hand_over_a_ban_by_strikes_outlasts_it(store: Store) -> None:
    user = add_user(store)
    set_by_hand(store, user, "banned")
    id = flag(store, user, categories=["sexual/minors"]).id
    take(store, "rev", id)
    overturn(store, LADDER, "rev", id)
    assert status(store, user) == ("banned", None)


def test_strikes_warn_an_admin_and_no_more(store: Store) -> None:
    admin = add_user(store, role="admin", password="x")
    for _ in range(5):
        flag(store, admin)
    assert status(store, admin) == ("warned", None)
    assert [given.step for given in strikes_of(store, admin)] == ["warned"] * 5


def test_a_suspension_by_hand_that_is_over_leaves_a_warning(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    set_by_hand(store, user, "suspended", clock.now + 1000)
    clock.advance(5)
    id = flag(store, user).id
    take(store, "rev", id)
    overturn(store, LADDER, "rev", id)
    assert status(store, user) == ("warned", None)


def test_easing_by_hand_wipes_the_slate(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    for _ in range(4):
        flag(store, user)
    clock.advance(60)
    set_by_hand(store, user, "active")
    refresh(store, LADDER)
    assert status(store, user) == ("active", None)
    flag(store, user)
    assert status(store, user) == ("warned", None), "the first anew"
    flag(store, user)
    assert status(store, user) == ("suspended", clock.now + DAY)


def test_what_runs_out_is_lifted(store: Store, clock: FakeClock) -> None:
    user, other = add_user(store), add_user(store, "bob@example.org")
    flag(store, user), flag(store, user), flag(store, other)
    assert refresh(store, LADDER) == 0
    clock.advance(86_400)
    assert refresh(store, LADDER) == 1 and status(store, user) == ("warned", None)
    clock.advance(90 * 86_400)
    assert refresh(store, LADDER) == 2
    assert status(store, user) == status(store, other) == ("active", None)
    assert refresh(store, LADDER) == 0


def test_a_clock_behind_anothers_does_not_forget_the_strike_before(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    flag(store, user)
    clock.advance(-2)
    flag(store, user)
    assert status(store, user)[0] == "suspended"


def test_a_strike_that_a_reviewer_gives(store: Store) -> None:
    user = add_user(store)
    for action, side in (("refuse", "input"), ("flag", "output")):
        id = flag(store, user, action, side=side).id
        take(store, "rev", id)
        uphold(store, LADDER, "rev", id)
    (given,) = strikes_of(store, user)
    assert given.given_by == "rev" and given.step == "warned", "what the model says strikes nobody"
    with store.read() as db:
        events = audit.events(db, subject="rev")
        assert [event.action for event in events if event.action.startswith("case")] == ["case.decide"] * 2
        assert db.scalar(sa.text("SELECT count(*) FROM strikes")) == 1
