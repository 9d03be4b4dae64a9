"""What becomes of a reply when its server ends, or another one looks after it."""

from __future__ import annotations

import sqlalchemy as sa
from chatkit import Person, Place, bad, chatting
from servekit import Stub
from storekit import FakeClock

from foretell.errors import ContextLengthError
from foretell.serve.chats import messages
from foretell.serve.chats.tables import images
from foretell.serve.chats.tables import messages as table
from foretell.serve.store import Store


def begun(person: Person, text: str = "one wait two") -> tuple[str, str]:
    """A conversation, and a reply of which the first word has come."""
    id = person.begin()
    reply = person.say(id, text)["replies"][0]["id"]
    assert next(event for event in person.events(reply) if event["count"])
    return id, reply


def test_a_server_that_ends_keeps_what_came(store: Store) -> None:
    with chatting(store, drain_seconds=0) as place:
        id, reply = begun(place.person())
    with chatting(store) as place:
        found = place.person().get(f"/conversations/{id}")["messages"][-1]
    assert (found["id"], found["status"], found["text"]) == (reply, "cut", "one")


def test_a_server_that_ends_lets_a_reply_finish(store: Store) -> None:
    with chatting(store) as place:
        id, _ = begun(place.person())
        place.release()
    with chatting(store) as place:
        found = place.person().get(f"/conversations/{id}")["messages"][-1]
    assert (found["status"], found["text"]) == ("done", "one wait two")


def left_open(store: Store, reply: str, **values: object) -> None:
    with store.write() as db:
        db.execute(table.update().where(table.c.id == reply).values(status="streaming", text="half", **values))


def test_what_a_dead_process_left_open_is_cut(store: Store, clock: FakeClock) -> None:
    with chatting(store) as place:
        person = place.person()
        id = person.begin()
        reply = person.talk(id, "hello")["id"]
    left_open(store, reply, place="", beat=clock())
    assert messages.cut_dead(store) == 0, "a process elsewhere may be at it"
    clock.advance(16)
    with chatting(store) as place:
        person = place.person()
        found = person.get(f"/conversations/{id}")["messages"][-1]
        assert (found["status"], found["text"]) == ("cut", "half")
        assert person.done(reply)["status"] == "cut"
        assert person.talk(id, "go on", reply)["status"] == "done"
    left_open(store, reply, place="gone", beat=clock() - 20_000)
    assert messages.cut_dead(store) == 1


def test_another_process_follows_stops_and_removes(store: Store) -> None:
    with chatting(store) as one, chatting(store) as other:
        here, there = one.person(), other.person()
        id, reply = begun(here)
        events = there.events(reply)
        assert "blocks" in next(events)
        assert bad(there.ask("POST", f"/conversations/{id}/say", {"text": "x", "parent": reply})) == (
            409,
            "still_writing",
        )
        there.post(f"/messages/{reply}/stop")
        done = here.done(reply)
        assert (done["status"], done["text"]) == ("stopped", "one")
        assert there.get(f"/conversations/{id}")["messages"][-1]["text"] == "one"
        id, reply = begun(here)
        assert there.ask("DELETE", f"/conversations/{id}").status_code == 204
        assert bad(here.ask("GET", f"/conversations/{id}")) == (404, "not_found")
        events.close()


def test_a_conversation_that_is_removed_takes_its_reply_and_images_along(chat: Place, person: Person) -> None:
    image, kept = person.image()["id"], person.image()["id"]
    other = person.begin()
    person.talk(other, "x", images=[kept])
    id = person.begin()
    person.talk(id, "y", images=[image, kept])
    person.say(id, "one wait two")
    assert person.ask("DELETE", f"/conversations/{id}").status_code == 204
    with chat.store.read() as db:
        assert list(db.scalars(sa.select(images.c.id))) == [kept]
    assert [one["id"] for one in person.get("/conversations")["items"]] == [other]


def test_too_many_replies_at_once(chat: Place, person: Person) -> None:
    ids = [person.begin() for _ in range(9)]
    for id in ids[:8]:
        person.say(id, "one wait two")
    assert bad(person.ask("POST", f"/conversations/{ids[8]}/say", {"text": "x"})) == (429, "too_many_replies")


def test_two_tabs_make_two_branches(chat: Place, person: Person) -> None:
    other = chat.person()
    id = person.begin()
    first = person.talk(id, "one")["id"]
    here, there = person.talk(id, "here", first), other.talk(id, "there", first)
    found = person.get(f"/conversations/{id}")
    assert [m["text"] for m in found["messages"]] == ["one", "one", "there", "there"]
    assert len(found["messages"][2]["siblings"]) == 2
    back = person.ask("PATCH", f"/conversations/{id}", {"tip": here["id"]}).json()
    assert back["messages"][-1]["text"] == "here" and there["siblings"] == [there["id"]]


class Short(Stub):
    """Reads ten words."""

    def encode(self, prompt: object, room: int = 1) -> object:  # type: ignore[override]
        found = super().encode(prompt, room)  # type: ignore[arg-type]
        if len(found.ids) > 10:
            raise ContextLengthError(f"The prompt is {len(found.ids)} tokens long; 10 are read.", len(found.ids), 10)
        return found


def test_a_conversation_goes_on_past_what_the_model_reads(store: Store) -> None:
    with chatting(store, stubs={"big": Short()}) as place:
        person = place.person()
        id, tip = person.begin(), None
        for i in range(5):
            reply = person.talk(id, f"message number {i}", tip)
            tip = reply["id"]
            assert reply["text"] == f"message number {i}"
        assert reply["code"] == "beginning_left_out" and reply["status"] == "done" and reply["error"]
        failed = person.talk(id, "word " * 20, tip)
        assert failed["status"] == "failed" and failed["code"] == "context_length_exceeded"


def test_a_model_that_breaks_off_fails_its_reply(chat: Place, person: Person) -> None:
    reply = person.talk(person.begin(), "one break two")
    assert reply["status"] == "failed" and reply["text"] == "one" and "secret" not in str(reply)
    (again,) = person.post(f"/messages/{reply['id']}/again")["replies"]
    assert person.done(again["id"])["siblings"] == [reply["id"], again["id"]]
