"""Conversations through the page's API and a real socket, for the one user of a machine."""

from __future__ import annotations

import pytest
from chatkit import Person, Place, bad


def test_a_conversation_from_its_first_word(chat: Place, person: Person) -> None:
    state = person.get("/state")
    assert state["user"] is None and state["caps"] is None
    assert [model["name"] for model in state["models"]] == ["big", "small"]
    assert any(one["name"] == "Socratic tutor" and "never give" in one["system"] for one in state["personas"])
    assert all(set(prompt) == {"title", "text"} for prompt in state["prompts"])
    id = person.begin(system="Be brief.", temperature=0.5)
    said = person.say(id, "Hello **big** world")
    assert said["user"]["blocks"] == ['<p class="plain">Hello **big** world</p>']
    (reply,) = said["replies"]
    assert (reply["status"], reply["parent"], reply["model"]) == ("streaming", said["user"]["id"], "big")
    done = person.done(reply["id"])
    assert done["text"] == "Hello **big** world" and done["status"] == "done" and done["tokens"] == 3
    assert done["blocks"] == ["<p>Hello <strong>big</strong> world</p>"]
    (request,) = chat.stubs["big"].seen
    assert [(m.role, m.text) for m in request.prompt.messages] == [
        ("system", "Be brief."),
        ("user", "Hello **big** world"),
    ]
    assert request.sampling.temperature == 0.5
    person.talk(id, "And then?", done["id"])
    assert [m.role for m in chat.stubs["big"].seen[-1].prompt.messages] == ["system", "user", "assistant", "user"]
    found = person.get(f"/conversations/{id}")
    assert [m["role"] for m in found["messages"]] == ["user", "assistant"] * 2
    assert found["title"] == "Hello **big** world" and found["tip"] == found["messages"][-1]["id"]
    assert person.get("/conversations")["items"][0] == {
        name: found[name] for name in ("id", "title", "updated", "model")
    }


def test_a_reply_goes_on_when_nobody_follows(chat: Place, person: Person) -> None:
    id = person.begin()
    reply = person.say(id, "one wait two three")["replies"][0]["id"]
    events = person.events(reply)
    first = next(event for event in events if event["count"])
    assert first["blocks"] == {"0": "<p>one</p>"}
    events.close()
    again = person.get(f"/conversations/{id}")["messages"][-1]
    assert again["status"] == "streaming" and again["text"] == "one"
    follower, other = person.events(reply), chat.person().events(reply)
    assert next(follower)["blocks"] == next(other)["blocks"] == {"0": "<p>one</p>"}
    chat.release()
    assert [list(events)[-1]["done"]["text"] for events in (follower, other)] == ["one wait two three"] * 2
    assert list(person.events(reply))[-1]["done"]["status"] == "done"


def test_stop_keeps_what_came(chat: Place, person: Person) -> None:
    id = person.begin()
    reply = person.say(id, "one wait two")["replies"][0]["id"]
    assert next(event for event in person.events(reply) if event["count"])
    assert person.ask("POST", f"/messages/{reply}/stop").status_code == 204
    done = person.done(reply)
    assert (done["status"], done["text"], done["error"]) == ("stopped", "one", None)
    assert chat.stubs["big"].closed == 1
    assert person.ask("POST", f"/messages/{reply}/stop").status_code == 204, "a second time does nothing"


def test_regenerate_edit_and_branch(chat: Place, person: Person) -> None:
    id = person.begin()
    first = person.talk(id, "one")
    (other,) = person.post(f"/messages/{first['id']}/again")["replies"]
    assert other["siblings"] == [first["id"], other["id"]] and other["parent"] == first["parent"]
    person.done(other["id"])
    later = person.talk(id, "two", other["id"])
    edited = person.talk(id, "uno", None)
    messages = person.get(f"/conversations/{id}")["messages"]
    assert [m["text"] for m in messages] == ["uno", "uno"] and len(messages[0]["siblings"]) == 2
    back = person.ask("PATCH", f"/conversations/{id}", {"tip": first["parent"]}).json()
    assert [m["text"] for m in back["messages"]] == ["one", "one", "two", "two"] and back["tip"] == later["id"]
    assert edited["siblings"] == [edited["id"]]
    again = person.post(f"/messages/{first['parent']}/again")["replies"][0]
    assert again["siblings"] == [first["id"], other["id"], again["id"]]


def test_two_models_answer_side_by_side(chat: Place, person: Person) -> None:
    id = person.begin(model="big", second="small")
    said = person.say(id, "hello")
    assert [(m["side"], m["model"]) for m in said["replies"]] == [(0, "big"), (1, "small")]
    one, other = (person.done(m["id"]) for m in said["replies"])
    assert [one["siblings"], other["siblings"]] == [[one["id"]], [other["id"]]]
    person.ask("POST", f"/messages/{other['id']}/prefer", {"over": one["id"]})
    chat.stubs["small"].reply = lambda request: "another"
    (redone,) = person.post(f"/messages/{other['id']}/again")["replies"]
    person.done(redone["id"])
    found = person.get(f"/conversations/{id}")
    assert [m["text"] for m in found["messages"]] == ["hello", "hello", "another"] and found["tip"] == one["id"]
    for reply in person.say(id, "more", one["id"])["replies"]:
        person.done(reply["id"])
    read = chat.stubs["small"].seen[-1].prompt.messages
    assert [m.text for m in read] == ["hello", "another", "more"], "each side reads its own replies"


def test_images_reach_the_model(chat: Place, person: Person) -> None:
    image = person.image((1024, 600), "a tall bar.png")
    assert (image["width"], image["height"], image["name"]) == (1024, 600, "a tall bar.png")
    assert image["tiles"] >= 1 and image["tokens"] > 0
    id = person.begin()
    second = person.image(name="b.jpg", kind="JPEG")
    done = person.talk(id, "What is it?", images=[image["id"], second["id"]])
    assert done["text"] == "What is it?"
    prompt = chat.stubs["big"].seen[0].prompt
    assert len(prompt.images) == 2 and prompt.images[1].data.startswith(b"\xff\xd8")
    shown = person.get(f"/conversations/{id}")["messages"][0]["images"]
    assert [one["id"] for one in shown] == [image["id"], second["id"]]
    whole = person.ask("GET", f"/images/{image['id']}")
    small = person.ask("GET", f"/images/{image['id']}", params={"small": 1})
    assert whole.headers["content-type"] == "image/png" and len(whole.content) > 0
    assert "sandbox" in whole.headers["content-security-policy"] and small.headers["content-type"] == "image/png"
    assert whole.headers["x-content-type-options"] == "nosniff"
    person.talk(id, "And now?", person.get(f"/conversations/{id}")["tip"])
    assert len(chat.stubs["big"].seen[-1].prompt.images) == 2, "they stay in the conversation"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": ""}, 400, "empty_message"),
        ({"text": " \n"}, 400, "empty_message"),
        ({"text": "x" * 100_001}, 400, "string_above_max_length"),
        ({"text": 1}, 400, "invalid_type"),
        ({"text": "x", "parent": "msg_none"}, 404, "not_found"),
        ({"text": "x", "images": ["img_none"]}, 404, "not_found"),
        ({"text": "x", "images": ["a"] * 17}, 400, "array_above_max_length"),
        ({"text": "x", "more": 1}, 400, "unknown_parameter"),
    ],
)
def test_what_cannot_be_said(person: Person, body: object, status: int, code: str) -> None:
    id = person.begin()
    assert bad(person.ask("POST", f"/conversations/{id}/say", body)) == (status, code)
    assert person.get(f"/conversations/{id}")["messages"] == []
