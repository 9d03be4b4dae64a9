"""The reviewers' queue, decisions, labels, appeals, and what is kept how long."""

import json
from pathlib import Path

import pytest
from reviewkit import LADDER, flag, status, take
from storekit import DAY, FakeClock, add_user, at_once

from foretell.errors import RequestError, RunError
from foretell.serve.accounts import audit
from foretell.serve.reviews.appeals import appeal, appeals_of
from foretell.serve.reviews.cases import case, cases, waiting
from foretell.serve.reviews.desk import claim, label, overturn, release, uphold
from foretell.serve.reviews.findings import LONGEST
from foretell.serve.reviews.retention import Forgotten, Keep, forget, forget_user
from foretell.serve.reviews.standings import strikes_of
from foretell.serve.reviews.training import export_training, training_rows
from foretell.serve.store import Store


def test_a_case_tells_what_was_flagged(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    id = flag(store, user, "block", "a bad\0 text", model="gpt", request="req_1", rule="lexicon:slur").id
    found = case(store, id)
    assert found.text == "a bad text" and found.time == clock.now and found.open and found.verdict is None
    assert (found.user, found.model, found.request, found.rule) == (user, "gpt", "req_1", "lexicon:slur")
    assert found.categories == ("hate",) and found.scores == {"hate": 0.9, "violence": 0.1}
    assert found.strike is not None and found.strike.finding == id and found.strike.given_by is None
    assert len(str(case(store, flag(store, user, text="x" * 50_000).id).text)) == LONGEST
    long = "x" * 50_000 + "bad" + "x" * 50_000
    kept = case(store, flag(store, user, text=long, span=(50_000, 50_003)).id).text
    assert kept is not None and len(kept) == LONGEST and "bad" in kept
    end = case(store, flag(store, user, text="x" * 50_000 + "bad", span=(50_000, 50_003)).id).text
    assert end is not None and len(end) == LONGEST and end.endswith("bad")
    with pytest.raises(RequestError) as refused:
        case(store, "case_none")
    assert refused.value.status == 404


def test_the_gravest_first_then_the_oldest(store: Store, clock: FakeClock) -> None:
    ids = []
    for action in ("flag", "refuse", "block", "flag", "block"):
        ids.append(flag(store, None, action).id)
        clock.advance(1)
    order = [ids[i] for i in (2, 4, 1, 0, 3)]
    assert [found.id for found in cases(store, open=True)] == order
    assert [found.id for found in cases(store)] == ids[::-1]
    assert [found.id for found in cases(store, limit=2, before=clock.now - 2000)] == [ids[2], ids[1]]
    assert waiting(store) == 5
    assert [claim(store, f"rev{i}").id for i in range(5)] == order  # type: ignore[union-attr]
    assert claim(store, "rev9") is None


def test_no_two_reviewers_get_the_same_case(store: Store) -> None:
    ids = {flag(store, None).id for _ in range(5)}
    got = at_once(8, lambda i: claim(store, f"rev{i}"))
    taken = [found.id for found in got if found is not None]  # type: ignore[union-attr]
    assert sorted(taken) == sorted(ids) and got.count(None) == 3


def test_a_claim_is_kept_given_back_or_runs_out(store: Store, clock: FakeClock) -> None:
    first, second = flag(store, None).id, flag(store, None, "flag").id
    assert claim(store, "ann").id == first  # type: ignore[union-attr]
    clock.advance(1)
    flag(store, None, "block")
    assert claim(store, "ann").id == first, "theirs comes before a new one"  # type: ignore[union-attr]
    release(store, "bob", first)
    assert case(store, first).claimed_by == "ann", "not Bob's to give back"
    release(store, "ann", first)
    assert claim(store, "bob").id == first  # type: ignore[union-attr]
    clock.advance(15 * 60)
    assert claim(store, "cid").id == first  # type: ignore[union-attr]
    with pytest.raises(RequestError) as late:
        uphold(store, LADDER, "bob", first)
    assert late.value.status == 409 and case(store, first).open
    assert case(store, second).claimed_by is None


def test_nobody_reviews_what_they_said_themselves(store: Store) -> None:
    mine = add_user(store)
    flag(store, mine)
    assert claim(store, mine) is None
    assert claim(store, "rev") is not None


def test_a_decision_is_made_once_by_who_claimed_it(store: Store) -> None:
    user = add_user(store)
    id = flag(store, user).id
    with pytest.raises(RequestError) as refused:
        uphold(store, LADDER, "rev", id)
    assert refused.value.status == 409
    take(store, "rev", id)
    outcomes = at_once(4, lambda i: (uphold if i % 2 else overturn)(store, LADDER, "rev", id))
    assert sorted(isinstance(outcome, RequestError) for outcome in outcomes) == [False, True, True, True]
    found = case(store, id)
    assert not found.open and found.decided_by == "rev" and found.claimed_by is None
    assert status(store, user)[0] == ("warned" if found.verdict == "upheld" else "active")
    assert waiting(store) == 0
    with store.read() as db:
        assert [event.action for event in audit.events(db, subject=id)] == ["case.decide"]
    with pytest.raises(RequestError) as gone:
        overturn(store, LADDER, "rev", "case_none")
    assert gone.value.status == 404


def test_labels_become_training_rows(store: Store, clock: FakeClock, tmp_path: Path) -> None:
    ids = []
    for text in ("first ä", "second\nline", "third"):
        ids.append(flag(store, None, text=text).id)
        clock.advance(1)
    label(store, "rev", ids[1], {"hate": True})
    label(store, "rev", ids[0], {"hate": True, "violence": False})
    clock.advance(1)
    found = label(store, "ann", ids[0], {"hate": False, "violence": True})
    assert found.labels == {"hate": False, "violence": True} and found.open, "the latest counts, and decides nothing"
    take(store, "rev", ids[2])
    uphold(store, LADDER, "rev", ids[2], categories={"hate": True, "harassment": True})
    rows = [
        {"text": "first ä", "labels": {"hate": False, "violence": True}},
        {"text": "second\nline", "labels": {"hate": True}},
        {"text": "third", "labels": {"hate": True, "harassment": True}},
    ]
    assert list(training_rows(store)) == rows
    assert export_training(store, tmp_path / "labels.jsonl") == 3
    lines = (tmp_path / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    with pytest.raises(RequestError) as refused:
        label(store, "rev", ids[0], {"hat": True})
    assert refused.value.status == 400 and "hate" in str(refused.value)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError):
        export_training(store, tmp_path / "file" / "labels.jsonl")
    with store.read() as db:
        assert len(audit.events(db, action="case.label")) == 4


def test_an_appeal_goes_to_the_head_of_the_queue_and_is_answered(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    id = flag(store, user).id
    take(store, "rev", id)
    uphold(store, LADDER, "rev", id)
    flag(store, None, "block")
    (given,) = strikes_of(store, user)
    asked = appeal(store, user, given.id, "  It was a quotation. ")
    assert asked.note == "It was a quotation." and asked.verdict is None
    found = claim(store, "ann")
    assert found is not None and found.id == id and found.appeal == asked and found.verdict == "upheld"
    overturn(store, LADDER, "ann", id, answer="You are right.")
    (told,) = appeals_of(store, user)
    assert (told.verdict, told.answer, told.answered_by) == ("overturned", "You are right.", "ann")
    assert told.answered_at == clock.now
    assert status(store, user) == ("active", None) and not case(store, id).open
    with store.read() as db:
        assert [event.actor for event in audit.events(db, subject=asked.id)] == ["ann", user]


def test_an_appeal_may_come_before_the_first_decision_and_be_refused(store: Store) -> None:
    user = add_user(store)
    id = flag(store, user).id
    appeal(store, user, strikes_of(store, user)[0].id, "no")
    take(store, "rev", id)
    uphold(store, LADDER, "rev", id, answer="It stands.")
    assert appeals_of(store, user)[0].verdict == "upheld" and status(store, user)[0] == "warned"


def test_what_cannot_be_appealed(store: Store) -> None:
    user, other = add_user(store), add_user(store, "bob@example.org")
    id = flag(store, user).id
    (given,) = strikes_of(store, user)
    for asker, strike, note, expected in (
        (other, given.id, "mine?", 404), (user, "strike_none", "x", 404), (user, given.id, " ", 400),
        (user, given.id, "x" * 5000, 400),
    ):  # fmt: skip
        with pytest.raises(RequestError) as refused:
            appeal(store, asker, strike, note)
        assert refused.value.status == expected
    outcomes = at_once(4, lambda i: appeal(store, user, given.id, f"note {i}"))
    assert sorted(isinstance(outcome, RequestError) for outcome in outcomes) == [False, True, True, True]
    assert {outcome.status for outcome in outcomes if isinstance(outcome, RequestError)} == {409}
    take(store, "rev", id)
    overturn(store, LADDER, "rev", id)
    with pytest.raises(RequestError) as late:
        appeal(store, user, given.id, "again")
    assert late.value.status == 409
    assert len(appeals_of(store, user)) == 1 and appeals_of(store, other) == []


def test_texts_are_deleted_when_their_time_is_over(store: Store, clock: FakeClock) -> None:
    user = add_user(store)
    plain, labelled = flag(store, user).id, flag(store, user).id
    label(store, "rev", labelled, {"hate": True})
    asked = appeal(store, user, str(case(store, plain).strike.id), "a note")  # type: ignore[union-attr]
    take(store, "rev", plain)
    uphold(store, LADDER, "rev", plain, answer="no")
    assert forget(store) == Forgotten()
    clock.advance(31 * 86_400)
    assert forget(store) == Forgotten(texts=1)
    assert case(store, plain).text is None and case(store, labelled).text is not None
    assert case(store, plain).categories == ("hate",), "the case stays"
    with pytest.raises(RequestError) as refused:
        label(store, "rev", plain, {"hate": False})
    assert refused.value.status == 409
    clock.now += 150 * DAY
    assert forget(store) == Forgotten(texts=1, notes=1)
    assert (
        list(training_rows(store)) == [] and appeals_of(store, user)[0].note == "" == appeals_of(store, user)[0].answer
    )
    assert appeals_of(store, user)[0].id == asked.id and forget(store) == Forgotten()
    with store.read() as db:
        assert len(audit.events(db, action="texts.delete")) == 2
    assert audit.verify(store).fault is None
    assert forget(store, Keep(texts=0.001)) == Forgotten()


def test_the_texts_of_one_account_go_when_it_asks(store: Store) -> None:
    user, other = add_user(store), add_user(store, "bob@example.org")
    mine, theirs = flag(store, user).id, flag(store, other).id
    appeal(store, user, strikes_of(store, user)[0].id, "a note")
    with store.write() as db:
        assert forget_user(db, user) == 2
    assert case(store, mine).text is None and case(store, theirs).text is not None
