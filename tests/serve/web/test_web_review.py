"""The review queue, appeals and anomalies by their pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from storekit import FakeClock
from webkit import PASSWORD, Browser, Read, enter, join

from foretell.safety.strikes import Ladder
from foretell.serve.reviews import cases
from foretell.serve.reviews.appeals import appeals_of
from foretell.serve.reviews.findings import record
from foretell.serve.reviews.tables import anomalies
from foretell.serve.store import Store

Visitor = Callable[..., Browser]
HOSTILE = "</blockquote><script>alert('x')</script><form action=/log-out>"


@pytest.fixture
def flagged(store: Store) -> tuple[str, str]:
    """(user, case) of a text that was blocked, for which its account was struck."""
    ada = join(store, "ada@example.org")
    scores = {"hate": 0.2, "violence": 0.9}
    made = record(
        store, Ladder(), HOSTILE, side="input", categories=["violence"], scores=scores, action="block", user=ada,
        model="m", rule="lexicon",
    )  # fmt: skip
    return ada, made.id


def reviewer(store: Store, visitor: Visitor, name: str = "rae") -> Browser:
    join(store, f"{name}@example.org", role="reviewer")
    return enter(visitor(), f"{name}@example.org")


def test_a_case_is_taken_decided_and_labelled(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    case = flagged[1]
    browser = reviewer(store, visitor)
    queue = browser.get("/review").text
    assert "1 case waits" in queue and "<script>alert" not in queue and HOSTILE in "".join(Read(queue).words)
    before = Read(browser.get(f"/review/{case}").text)
    assert not any(form.action == f"/review/{case}" for form in before.forms), "decided without being taken"
    assert browser.submit("/review").headers["location"] == f"/review/{case}"
    shown = browser.get(f"/review/{case}").text
    assert "<script>alert" not in shown and HOSTILE in "".join(Read(shown).words)
    assert Read(shown).forms[-1].fields["labels"] == ["violence"], "what was flagged is ticked at first"
    done = browser.submit(f"/review/{case}", press=("verdict", "overturned"), labels=["hate"])
    assert done.headers["location"] == "/review?said=decided"
    found = cases.case(store, case)
    assert found.verdict == "overturned" and found.labels == {"hate": True, "violence": False}
    assert found.strike and found.strike.overturned_at is not None
    assert "Nothing waits" in browser.get("/review").text


def test_of_two_reviewers_one_takes_a_case(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    first, second = reviewer(store, visitor), reviewer(store, visitor, "sam")
    page = f"/review/{flagged[1]}"
    assert first.submit("/review").headers["location"] == page
    assert second.submit("/review").status_code == 400
    token = Read(second.get("/review").text).forms[0].fields["form"][0]
    sent = second.post(page, {"form": token, "verdict": "upheld", "labels": "violence"})
    assert sent.status_code == 409 and cases.case(store, flagged[1]).verdict is None
    assert first.submit(page, press=("verdict", "release")).headers["location"] == "/review"
    assert second.submit("/review").headers["location"] == page
    assert second.submit(page, press=("verdict", "upheld")).status_code == 303


def test_nobody_judges_their_own(store: Store, visitor: Visitor) -> None:
    rae = join(store, "rae@example.org", role="reviewer")
    made = record(store, Ladder(), "x", side="input", categories=[], scores={}, action="flag", user=rae)
    browser = enter(visitor(), "rae@example.org")
    assert "Take the next" not in browser.get("/review").text
    assert browser.get(f"/review/{made.id}").status_code == 404
    token = Read(browser.get("/review").text).forms[0].fields["form"][0]
    for path in (f"/review/{made.id}", f"/review/{made.id}/label"):
        assert browser.post(path, {"form": token, "verdict": "overturned"}).status_code == 404


def test_a_label_without_a_decision(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    browser, case = reviewer(store, visitor), flagged[1]
    assert browser.submit(f"/review/{case}", f"/review/{case}/label", labels=["hate"]).status_code == 303
    found = cases.case(store, case)
    assert found.labels == {"hate": True, "violence": False} and found.open
    wrong = browser.submit(f"/review/{case}", f"/review/{case}/label", labels=["nonsense"])
    assert wrong.status_code == 400 and "not one of the choices" in wrong.text


def test_an_appeal_comes_to_a_reviewer_and_its_answer_back(
    store: Store, visitor: Visitor, flagged: tuple[str, str]
) -> None:
    user, case = flagged
    ada, rae = enter(visitor(), "ada@example.org"), reviewer(store, visitor)
    assert ada.submit("/appeal", note="   ").status_code == 400
    assert ada.submit("/appeal", note=HOSTILE).headers["location"] == "/appeal?said=appealed"
    assert not any(form.action == "/appeal" for form in Read(ada.get("/appeal").text).forms), "appealed twice"
    assert "appeal" in Read(rae.get("/review").text).text
    rae.submit("/review")
    shown = rae.get(f"/review/{case}").text
    assert "<script>alert" not in shown and "".join(Read(shown).words).count(HOSTILE) == 2
    rae.submit(f"/review/{case}", press=("verdict", "overturned"), answer="You are <i>right</i>.")
    told = ada.get("/appeal").text
    assert "overturned" in told and "taken back" in told and "<i>" not in told
    assert "You are <i>right</i>." in "".join(Read(told).words)
    assert appeals_of(store, user)[0].verdict == "overturned"
    assert "active" in Read(ada.get("/account").text).text


def test_anothers_strike_cannot_be_appealed(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    strike = cases.case(store, flagged[1]).strike
    assert strike
    join(store, "eve@example.org")
    eve = enter(visitor(), "eve@example.org")
    shown = eve.get("/appeal").text
    assert "alert" not in shown
    token = Read(shown).forms[0].fields["form"][0]
    answers = [eve.post("/appeal", {"form": token, "strike": one, "note": "mine"}) for one in (strike.id, "strike_0")]
    assert [found.status_code for found in answers] == [404, 404] and appeals_of(store, flagged[0]) == []


def test_the_suspended_can_appeal_and_little_else(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    from foretell.serve.accounts import people

    with store.write() as db:
        people.set_status(db, flagged[0], "banned", now=store.clock(), actor="shell")
    ada = enter(visitor(), "ada@example.org")
    assert "banned" in Read(ada.get("/account").text).text
    assert ada.submit("/appeal", note="I was quoting.").status_code == 303


def test_anomalies_are_looked_at_once(store: Store, visitor: Visitor, clock: FakeClock) -> None:
    with store.write() as db:
        row = {"id": "odd_1", "time": clock.now, "kind": "burst", "subject": "user_<b>", "began": clock.now}
        db.execute(anomalies.insert().values(**row, seen=900.0, expected=4.0, chance=1e-9))
    browser = reviewer(store, visitor)
    shown = browser.get("/anomalies").text
    assert "many calls at once" in shown and "<b>" not in shown
    assert browser.submit("/anomalies", "/anomalies/odd_1/close").status_code == 303
    again = browser.get("/anomalies").text
    assert "Nothing odd" in again and "Looked at" in again
    token = Read(again).forms[0].fields["form"][0]
    assert browser.post("/anomalies/odd_1/close", {"form": token}).status_code == 404


def test_an_admin_reviews_too_and_a_user_does_not(store: Store, visitor: Visitor, flagged: tuple[str, str]) -> None:
    join(store, "root@example.org", role="admin")
    root = enter(visitor(), "root@example.org")
    assert f"/admin/users/{flagged[0]}" in Read(root.get(f"/review/{flagged[1]}").text).links
    ada = visitor()
    ada.submit("/log-in", email="ada@example.org", password=PASSWORD)
    assert ada.get(f"/review/{flagged[1]}").status_code == 403
