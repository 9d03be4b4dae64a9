"""Accounts, limits and moderation between a caller and the models, through a real socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import openai
import pytest
import sqlalchemy as sa
from servekit import Live, Stub, make_server, running
from storekit import FakeClock, add_user

from foretell.errors import StoreError
from foretell.generate import Usage
from foretell.safety.moderation import Finding
from foretell.safety.policy import SCORED
from foretell.serve.accounts import keys
from foretell.serve.accounts.tables import users
from foretell.serve.door import Door
from foretell.serve.gateway import Gateway
from foretell.serve.limits.limits import Limits
from foretell.serve.limits.tables import events, reservations
from foretell.serve.limits.tiers import Tiers
from foretell.serve.reviews.tables import findings
from foretell.serve.store import Store

CHAT = "/v1/chat/completions"
TIERS = Tiers.model_validate(
    {
        "prices": {"*": {"prompt": 10.0, "completion": 20.0}},
        "tiers": {
            "free": {"requests_per_minute": 100, "images": False},
            "capped": {"caps": [{"messages": 1, "every": "3h"}]},
            "falls": {"caps": [{"messages": 1, "every": "3h", "models": ["big"]}], "fallback": "small"},
            "streams": {"streams": 1},
        },
    }
)


class Words:
    """Moderation by words that say what is to be done: flagword, refuseword, blockword."""

    def check(self, texts: Sequence[str]) -> list[Finding]:
        return [self._finding(text) for text in texts]

    def read(self, text: str, start: int = 0, final: bool = True) -> tuple[Finding, int]:
        return self._finding(text[start:]), len(text) if final else max(start, len(text) - 10)

    def _finding(self, text: str) -> Finding:
        action = next((action for action in ("block", "refuse", "flag") if f"{action}word" in text), "allow")
        found = action != "allow"
        scores = dict.fromkeys(SCORED, 0.0) | ({"violence": 0.9} if found else {})
        words = "I won't help with that." if action in ("refuse", "block") else None
        return Finding(
            scores=scores, flagged=("violence",) if found else (), action=action,  # type: ignore[arg-type]
            category="violence" if found else None, rule=None, span=None, words=words,
        )  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A server with accounts, and what is behind it."""

    live: Live
    store: Store
    clock: FakeClock
    gateway: Gateway
    stubs: dict[str, Stub]

    def key(self, tier: str = "free", scopes: Sequence[str] = ("inference", "usage"), **values: object) -> str:
        user = add_user(
            self.store, f"{tier}{self.store.clock()}{len(self.rows(users))}@example.org", tier=tier, **values
        )
        with self.store.write() as db:
            return keys.create(db, user, "k", now=self.clock(), scopes=scopes)[1]

    def ask(self, key: str | None, text: str = "hello big world", **more: Any) -> Any:
        body = {"model": "big", "messages": [{"role": "user", "content": text}], **more}
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return self.live.http.post(CHAT, json=body, headers=headers)

    def rows(self, table: sa.Table) -> list[Any]:
        with self.store.read() as db:
            return list(db.execute(sa.select(table)))

    def settled(self) -> list[Any]:
        """The events, once no call is open."""
        self.live.server.traffic  # noqa: B018
        for _ in range(2000):
            if not self.rows(reservations):
                break
        return self.rows(events)


@contextmanager
def placed(store: Store, clock: FakeClock, reply: Callable[[Any], str] | None = None, **more: Any) -> Iterator[Place]:
    stubs = {"big": Stub(reply), "small": Stub(reply)}
    gateway = Gateway(store, Limits(store, TIERS), Words(), **more)  # type: ignore[arg-type]
    server = make_server(stubs, gate=Door(store), gateway=gateway)
    with running(server) as live:
        yield Place(live, store, clock, gateway, stubs)


@pytest.fixture
def served(store: Store, clock: FakeClock) -> Iterator[Place]:
    with placed(store, clock) as found:
        yield found


def test_who_may_not_call_is_told_why(served: Place) -> None:
    good = served.key()
    assert served.ask(good).status_code == 200
    for key, code in ((None, "missing_api_key"), ("sk-ft-wrong", "invalid_api_key")):
        refused = served.ask(key)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, code)
    for status in ("suspended", "banned"):
        refused = served.ask(served.key(status=status))
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, f"account_{status}")
    assert served.ask(served.key(scopes=("usage",))).json()["error"]["code"] == "insufficient_scope"
    metrics = [served.live.http.get("/metrics", headers={"authorization": f"Bearer {key}"}) for key in
               (good, served.key(role="admin", scopes=("admin",)))]  # fmt: skip
    assert [response.status_code for response in metrics] == [403, 200]


def test_every_route_of_the_api_denies_by_default(served: Place) -> None:
    document = served.live.http.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method in methods:
            response = served.live.http.request(method, path.replace("{model}", "big"))
            assert response.status_code == (200 if path in ("/health", "/ready") else 401), (method, path)


def test_what_a_call_uses_is_counted(served: Place) -> None:
    key = served.key()
    response = served.ask(key)
    assert response.headers["x-ratelimit-limit-requests"] == "100"
    assert response.headers["x-ratelimit-remaining-requests"] == "99"
    (event,) = served.settled()
    assert (event.prompt_tokens, event.completion_tokens, event.model, event.status) == (3, 3, "big", "done")
    assert event.micros == 3 * 10 + 3 * 20 and event.key is not None


@pytest.mark.parametrize("wanted", [True, False])
def test_a_stream_is_counted_and_tells_usage_to_who_asked(served: Place, wanted: bool) -> None:
    client = openai.OpenAI(base_url=f"{served.live.url}/v1", api_key=served.key())
    more: Any = {"stream_options": {"include_usage": True}} if wanted else {}
    message: Any = {"role": "user", "content": "one two three four"}
    with client.chat.completions.with_streaming_response.create(
        model="big", messages=[message], stream=True, **more
    ) as raw:
        assert raw.headers["x-ratelimit-remaining-requests"] == "99"
        chunks = [json.loads(line[6:]) for line in raw.iter_lines() if line.startswith("data: {")]
    said = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert said == "one two three four"
    assert any(chunk.get("usage") for chunk in chunks) == wanted
    (event,) = served.settled()
    assert (event.prompt_tokens, event.completion_tokens) == (4, 4)


def test_text_completions_and_embeddings_are_counted_too(served: Place) -> None:
    headers = {"authorization": f"Bearer {served.key()}"}
    text = served.live.http.post("/v1/completions", json={"model": "big", "prompt": "a b"}, headers=headers)
    assert text.json()["choices"][0]["text"] == "a b"
    body = {"model": "big", "input": "a b c"}
    assert served.live.http.post("/v1/embeddings", json=body, headers=headers).status_code == 200
    assert {(event.prompt_tokens, event.completion_tokens) for event in served.settled()} == {(2, 2), (3, 0)}


def test_a_program_reads_what_its_account_has_used(served: Place) -> None:
    key, other = served.key(), served.key()
    served.ask(key)
    served.settled()

    def usage(key: str, **query: str) -> Any:
        return served.live.http.get("/v1/usage", params=query, headers={"authorization": f"Bearer {key}"})

    today = usage(key).json()
    assert today["total"] == {"calls": 1, "prompt_tokens": 3, "completion_tokens": 3, "image_tokens": 0,
                              "cached_tokens": 0, "dollars": 9e-05}  # fmt: skip
    assert (today["to"], [day["day"] for day in today["days"]]) == ("2026-11-20", ["2026-11-20"])
    assert [model["model"] for model in today["models"]] == ["big"]
    assert usage(other).json()["total"]["calls"] == 0, "nobody sees another's"
    assert usage(key, to="2026-11-19").json()["total"]["calls"] == 0
    for query in ({"from": "yesterday"}, {"from": "2026-11-20", "to": "2026-11-01"}, {"from": "1999-01-01"}):
        assert usage(key, **query).status_code == 400
    assert usage(served.key(scopes=("inference",))).json()["error"]["code"] == "insufficient_scope"


def test_a_cap_that_is_reached_says_when_to_ask_again(served: Place) -> None:
    key = served.key("capped")
    assert served.ask(key).status_code == 200
    client = openai.OpenAI(base_url=f"{served.live.url}/v1", api_key=key, max_retries=0)
    with pytest.raises(openai.RateLimitError) as told:
        client.chat.completions.create(model="big", messages=[{"role": "user", "content": "hi"}])
    assert told.value.response.headers["retry-after"] == str(3 * 3600)
    served.clock.advance(3 * 3600)
    assert served.ask(key).status_code == 200


def test_the_fallback_answers_where_a_cap_is_reached(served: Place) -> None:
    key = served.key("falls")
    assert [served.ask(key).json()["model"] for _ in range(3)] == ["big", "small", "small"]
    assert len(served.stubs["small"].seen) == 2


def test_a_call_that_fails_costs_nothing(served: Place) -> None:
    key = served.key("capped")
    assert served.ask(key, model="none").status_code == 404
    assert served.ask(key, " ".join(["word"] * 2000)).status_code == 400
    assert served.settled() == [] and served.ask(key).status_code == 200


def test_images_only_where_the_tier_has_them(served: Place) -> None:
    from servekit import PNG

    image = [{"type": "image_url", "image_url": {"url": PNG}}, {"type": "text", "text": "what is it"}]
    assert served.ask(served.key(), image).json()["error"]["code"] == "images_not_allowed"
    assert served.ask(served.key(images=True), image).status_code == 200
    assert max(event.image_tokens for event in served.settled()) > 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_refused_call_is_answered_in_the_policys_words(served: Place, stream: bool) -> None:
    client = openai.OpenAI(base_url=f"{served.live.url}/v1", api_key=served.key())
    asked: Any = {"model": "big", "messages": [{"role": "user", "content": "a refuseword here"}]}
    if stream:
        choices = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
        said, finish = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
    else:
        choice = client.chat.completions.create(**asked).choices[0]
        said, finish = choice.message.content, choice.finish_reason
    assert (said, finish) == ("I won't help with that.", "content_filter")
    assert served.stubs["big"].seen == [] and served.settled() == []
    (finding,) = served.rows(findings)
    assert (finding.side, finding.text, finding.action) == ("input", "a refuseword here", "refuse")


def test_what_is_blocked_strikes_until_the_account_may_not_call(served: Place) -> None:
    key = served.key()
    told = [served.ask(key, f"a blockword {i // 2}").json()["error"] for i in range(5)]
    assert "the account is warned now" in told[0]["message"] and "strike" not in told[1]["message"], "a retry is none"
    codes = [error["code"] for error in told[::2]]
    assert codes == ["content_policy_violation", "content_policy_violation", "account_suspended"]
    served.clock.advance(25 * 3600)
    assert served.ask(key).status_code == 200, "a suspension ends"


@pytest.mark.parametrize("stream", [True, False])
def test_nothing_disallowed_is_shown(store: Store, clock: FakeClock, stream: bool) -> None:
    long = " ".join(["fine words that pass."] * 12)
    with placed(store, clock, lambda request: f"{long} Then a refuseword and a secret end.") as served:
        response = served.ask(served.key(), stream=stream)
        assert response.status_code == 200
        assert "refuseword" not in response.text and "secret" not in response.text
        assert "I won't help with that." in response.text and "content_filter" in response.text
        assert ('"fine' in response.text) == stream
        (event,) = served.settled()
        assert event.completion_tokens > 0
        for _ in range(2000):
            if kept := served.rows(findings):
                break
        assert [(row.side, row.action) for row in kept] == [("output", "refuse")]


def test_a_flag_stops_nothing_and_is_kept(served: Place) -> None:
    response = served.ask(served.key(), "a flagword said")
    assert response.json()["choices"][0]["message"]["content"] == "a flagword said"
    served.settled()
    assert sorted(row.side for row in served.rows(findings)) == ["input", "output"]


def test_who_hangs_up_pays_for_what_was_written(served: Place) -> None:
    key = served.key("streams")
    body = {"model": "big", "messages": [{"role": "user", "content": "one wait for ever"}], "stream": True}
    with served.live.http.stream("POST", CHAT, json=body, headers={"authorization": f"Bearer {key}"}) as response:
        lines = response.iter_lines()  # held, since httpx closes with it
        assert next(lines)
        busy = served.ask(key, stream=True)
        assert busy.status_code == 429, "one stream at a time"
    for _ in range(2000):
        if served.rows(events):
            break
    (event,) = served.settled()
    assert event.status == "broken" and event.prompt_tokens > 0
    assert served.ask(key, "again", stream=True).status_code == 200


def test_two_servers_let_one_of_many_through(store: Store, clock: FakeClock) -> None:
    with placed(store, clock) as one, placed(store, clock) as other:
        key = one.key("capped")
        with ThreadPoolExecutor(16) as threads:
            statuses = list(threads.map(lambda i: (one, other)[i % 2].ask(key).status_code, range(32)))
    assert sorted(set(statuses)) == [200, 429] and statuses.count(200) == 1


def test_a_database_that_is_gone_gives_503_and_comes_back(served: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    key = served.key()
    plain = Store.write

    @contextmanager
    def gone(self: Store) -> Iterator[sa.Connection]:
        raise StoreError("The database does not answer (locked).")
        yield  # pragma: no cover

    monkeypatch.setattr(Store, "write", gone)
    refused = served.ask(key)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
    assert refused.headers["retry-after"] == "1" and "locked" not in refused.text
    monkeypatch.setattr(Store, "write", plain)
    assert served.ask(key).status_code == 200
    assert served.live.http.get("/ready").status_code == 200
    monkeypatch.setattr(Store, "read", gone)
    assert served.live.http.get("/ready").json()["error"]["code"] == "store_unavailable"
    monkeypatch.undo()


def test_a_full_disk_gives_503_and_nothing_is_half_written(tmp_path: Any, clock: FakeClock) -> None:
    from storekit import empty_store

    with empty_store(str(tmp_path / "full.db"), clock) as store, placed(store, clock) as served:
        key = served.key()
        assert served.ask(key).status_code == 200

        def limit(pages: int) -> Callable[..., None]:
            def set_limit(connection: Any, *_: Any) -> None:
                connection.execute(f"PRAGMA max_page_count={pages}")

            return set_limit

        with store.engine.connect() as db:
            pages = db.exec_driver_sql("PRAGMA page_count").scalar_one()
        full = limit(pages)
        for engine in (store.engine, store._hasty):
            sa.event.listen(engine, "checkout", full)
        statuses = [served.ask(key).status_code for _ in range(40)]
        for engine in (store.engine, store._hasty):
            sa.event.remove(engine, "checkout", full)
            sa.event.listen(engine, "checkout", limit(10**6))
        assert set(statuses) <= {200, 503}
        assert served.ask(key).status_code == 200
        assert served.gateway.settle_late() + statuses.count(503) > 0, "the disk was not full"
        assert len(served.settled()) == 2 + statuses.count(200), "what was answered is billed"


def test_usage_of_whole_calls_stands_for_n_replies(served: Place) -> None:
    served.ask(served.key(), n=3)
    (event,) = served.settled()
    assert Usage(event.prompt_tokens, event.completion_tokens) == Usage(3, 9)


def test_limits_and_accounts_work_without_moderation(store: Store, clock: FakeClock) -> None:
    with placed(store, clock) as served:
        bare = replace(served.gateway, moderation=None)
        with running(make_server({"big": Stub()}, gate=Door(store), gateway=bare)) as live:
            body = {"model": "big", "messages": [{"role": "user", "content": "a blockword passes"}]}
            told = live.http.post(CHAT, json=body, headers={"authorization": f"Bearer {served.key()}"})
    assert told.json()["choices"][0]["message"]["content"] == "a blockword passes"
