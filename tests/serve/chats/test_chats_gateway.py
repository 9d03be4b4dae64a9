"""Replies go the way of a call: limits, moderation and bills are the same, and are told where they are met."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from chatkit import Person, Place, bad, chatting
from storekit import FakeClock, add_user

from foretell.safety.moderation import Finding
from foretell.safety.policy import SCORED
from foretell.serve.accounts import sessions
from foretell.serve.gateway import Gateway
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tables import events
from foretell.serve.limits.tiers import Tiers
from foretell.serve.reviews.tables import findings
from foretell.serve.store import Store

TIERS = Tiers.model_validate(
    {
        "prices": {"*": {"prompt": 10.0, "completion": 20.0}},
        "tiers": {
            "free": {"requests_per_minute": 100, "images": False},
            "capped": {"caps": [{"messages": 2, "every": "3h"}]},
            "falls": {"caps": [{"messages": 1, "every": "3h", "models": ["big"]}], "fallback": "small"},
            "streams": {"streams": 1},
            "unlimited": {},
        },
    }
)


class Words:
    """Moderation by words that say what is to be done."""

    def check(self, texts: Sequence[str]) -> list[Finding]:
        return [self._finding(text) for text in texts]

    def read(self, text: str, start: int = 0, final: bool = True) -> tuple[Finding, int]:
        return self._finding(text[start:]), len(text) if final else max(start, len(text) - 10)

    def _finding(self, text: str) -> Finding:
        action = next((action for action in ("block", "refuse") if f"{action}word" in text), "allow")
        found = action != "allow"
        scores = dict.fromkeys(SCORED, 0.0) | ({"violence": 0.9} if found else {})
        return Finding(
            scores=scores, flagged=("violence",) if found else (), action=action,  # type: ignore[arg-type]
            category="violence" if found else None, rule=None, span=None,
            words="I won't help with that." if found else None,
        )  # fmt: skip


@contextmanager
def placed(store: Store, reply: Callable[[Any], str] | None = None) -> Iterator[Place]:
    with chatting(store, reply, gateway=Gateway(store, Limits(store, TIERS), Words())) as served:  # type: ignore[arg-type]
        yield served


@pytest.fixture
def served(store: Store) -> Iterator[Place]:
    with placed(store) as found:
        yield found


def enter(served: Place, tier: str) -> Person:
    user = add_user(served.store, f"{tier}@example.org", tier=tier)
    return served.person(sessions.begin(served.store, user, "127.0.0.1"))


def rows(store: Store, table: sa.Table) -> list[Any]:
    with store.read() as db:
        return list(db.execute(sa.select(table)))


def test_a_reply_is_billed_to_no_key(served: Place) -> None:
    person = enter(served, "unlimited")
    person.talk(person.begin(model="big"), "hello big world")
    (event,) = rows(served.store, events)
    assert (event.key, event.model, event.prompt_tokens, event.completion_tokens) == (None, "big", 3, 3)
    caps = person.get("/usage")
    assert caps["used_tokens"] == 6 and caps["limit_tokens"] is None and caps["text"] == "6 tokens today"
    metrics = served.live.server.metrics.text().decode()
    assert 'foretell_requests_total{route="/chat/reply",status="200"} 1.0' in metrics


def test_a_cap_is_told_and_nothing_that_was_typed_is_lost(served: Place, clock: FakeClock) -> None:
    person = enter(served, "capped")
    id = person.begin()
    last = person.talk(id, "one")
    assert person.get("/usage")["requests_left"] == 1
    last = person.talk(id, "two", last["id"])
    caps = person.get("/state")["caps"]
    assert (caps["requests_left"], caps["requests_limit"]) == (0, 2) and caps["resets_ms"] == 3 * 3_600_000
    assert "0 of 2 messages left every 3 hours" in caps["text"]
    refused = person.ask("POST", f"/conversations/{id}/say", {"text": "three", "parent": last["id"]})
    assert bad(refused) == (429, "rate_limit_exceeded") and refused.headers["retry-after"] == str(3 * 3600)
    assert "2 messages every 3 hours" in refused.json()["error"]["message"]
    assert bad(person.ask("POST", f"/messages/{last['id']}/again", {}))[0] == 429
    assert len(person.get(f"/conversations/{id}")["messages"]) == 4, "nothing was stored"
    clock.advance(3 * 3600)
    assert person.talk(id, "three", last["id"])["status"] == "done"


def test_a_cap_that_is_reached_between_two_sides_is_told_by_a_reply(served: Place) -> None:
    person = enter(served, "capped")
    person.talk(person.begin(), "one")
    id = person.begin(model="big", second="small")
    replies = [person.done(one["id"]) for one in person.say(id, "two")["replies"]]
    assert sorted(one["status"] for one in replies) == ["done", "failed"]
    failed = next(one for one in replies if one["status"] == "failed")
    assert failed["code"] == "rate_limit_exceeded" and "2 messages every 3 hours" in failed["error"]


def test_the_fallback_answers_and_says_so(served: Place) -> None:
    person = enter(served, "falls")
    id = person.begin(model="big")
    one = person.talk(id, "one")
    assert [one["model"], person.talk(id, "two", one["id"])["model"]] == ["big", "small"]


def test_images_only_where_the_tier_has_them(served: Place) -> None:
    person = enter(served, "free")
    assert all(not model["images"] for model in person.get("/state")["models"])
    assert bad(person.ask("POST", "/images", content=b"x")) == (403, "images_not_allowed")


@pytest.mark.parametrize(("word", "said"), [("refuseword", ""), ("blockword", "warned")])
def test_what_is_refused_is_told_by_the_reply_and_not_read_again(served: Place, word: str, said: str) -> None:
    person = enter(served, "unlimited")
    id = person.begin(model="big")
    reply = person.talk(id, f"a {word} here")
    assert reply["status"] == "refused" and reply["code"] == "content_policy_violation" and reply["text"] == ""
    assert reply["error"].startswith("I won't help with that.") and said in reply["error"]
    assert served.stubs["big"].seen == []
    assert person.talk(id, "something else", reply["id"])["status"] == "done"
    assert [m.text for m in served.stubs["big"].seen[0].prompt.messages] == ["something else"]
    (finding,) = rows(served.store, findings)
    assert (finding.side, finding.text) == ("input", f"a {word} here")


def test_nothing_disallowed_is_shown_or_kept(store: Store) -> None:
    long = " ".join(["fine words that pass."] * 12)
    with placed(store, lambda request: f"{long} Then a refuseword and a secret end.") as served:
        person = enter(served, "unlimited")
        id = person.begin()
        reply = person.talk(id, "go on")
        assert reply["status"] == "refused" and reply["error"] == "I won't help with that."
        assert reply["text"].startswith("fine words") and "refuseword" not in reply["text"]
        assert "secret" not in person.ask("GET", f"/conversations/{id}/export").text


def test_a_stopped_reply_is_paid_for_and_gives_its_stream_back(served: Place) -> None:
    person = enter(served, "streams")
    id = person.begin()
    reply = person.say(id, "one wait two")["replies"][0]["id"]
    for _ in range(2000):  # until the model has begun: moderation holds the first word back
        if any(stub.seen for stub in served.stubs.values()):
            break
        person.get("/state")
    other = person.begin()
    assert bad(person.ask("POST", f"/conversations/{other}/say", {"text": "x"}))[0] == 429, "one stream at a time"
    person.post(f"/messages/{reply}/stop")
    assert person.done(reply)["status"] == "stopped"
    (event,) = rows(served.store, events)
    assert event.status == "broken" and event.prompt_tokens > 0
    assert person.talk(other, "again")["status"] == "done"
