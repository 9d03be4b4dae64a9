"""Conversations come in from ChatGPT's export and from our own, and go out whole; hostile files harm nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chatkit import Person, Place, bad, png

from foretell.serve.chats import chatgpt
from foretell.serve.chats.exports import disposition
from foretell.serve.chats.imported import Unreadable

START = 1_700_000_000.5  # seconds


def node(id: str, parent: str | None, role: str, parts: list[Any] | None, **more: Any) -> dict[str, Any]:
    """A node as ChatGPT writes it; children are told by `mapping`."""
    content = {"content_type": "text", "parts": parts}
    message = {
        "id": id, "author": {"role": role, "name": None, "metadata": {}}, "create_time": START, "update_time": None,
        "content": content, "status": "finished_successfully", "end_turn": True, "weight": 1.0,
        "metadata": {"model_slug": "gpt-4"}, "recipient": "all", "channel": None,
    }  # fmt: skip
    return {"id": id, "message": message | more, "parent": parent, "children": []}


def mapping(*nodes: dict[str, Any]) -> dict[str, Any]:
    found = {"root": {"id": "root", "message": None, "parent": None, "children": []}}
    found |= {one["id"]: one for one in nodes}
    for one in nodes:
        found[one["parent"]]["children"].append(one["id"])
    return found


CODE = {"content_type": "code", "language": "python", "text": "print(6 * 7)"}
OUTPUT = {"content_type": "execution_output", "text": "42"}
PICTURE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://file-x", "width": 4, "height": 4}
CHATGPT = {
    "title": "Sums & more",
    "create_time": START,
    "update_time": START + 60,
    "mapping": mapping(
        node("s", "root", "system", [""], metadata={"is_visually_hidden_from_conversation": True}),
        node("s2", "s", "system", ["Be kind."]),
        node(
            "u1",
            "s2",
            "user",
            [PICTURE, "What is this?"],
            content={"content_type": "multimodal_text", "parts": [PICTURE, "What is this?"]},
        ),
        node("a1", "u1", "assistant", ["A **bar**."]),
        node("a2", "u1", "assistant", ["A pole."]),
        node("u2", "a2", "user", ["6 * 7?"]),
        node("c1", "u2", "assistant", None, content=CODE, recipient="python"),
        node("t1", "c1", "tool", None, content=OUTPUT),
        node("a3", "t1", "assistant", ["It is 42."]),
        node("h", "a3", "user", ["hidden"], metadata={"is_visually_hidden_from_conversation": True}),
    ),
    "moderation_results": [],
    "current_node": "h",
    "conversation_id": "6566c9-x",
    "default_model_slug": "gpt-4",
}


def send(person: Person, value: object) -> Any:
    return person.post("/import", value)


def test_chatgpts_export_with_branches_code_and_images(person: Person) -> None:
    assert send(person, [CHATGPT]) == {"imported": 1, "skipped": []}
    (item,) = person.get("/conversations")["items"]
    assert (item["title"], item["updated"]) == ("Sums & more", round((START + 60) * 1000))
    found = person.get(f"/conversations/{item['id']}")
    assert found["system"] == "Be kind." and found["model"] == "big", "its own model is not here"
    texts = [(m["role"], m["text"]) for m in found["messages"]]
    assert texts == [
        ("user", "[image, which is not part of the export]\n\nWhat is this?"),
        ("assistant", "A pole."),
        ("user", "6 * 7?"),
        ("assistant", "```python\nprint(6 * 7)\n```\n\nIt is 42."),
    ]
    assert [len(m["siblings"]) for m in found["messages"]] == [1, 2, 1, 1]
    assert found["messages"][3]["blocks"][0].startswith('<pre><code class="language-python">')
    assert found["messages"][1]["model"] == "gpt-4" and found["messages"][1]["created"] == round(START * 1000)
    again = send(person, [CHATGPT])
    assert again == {"imported": 0, "skipped": [{"title": "Sums & more", "why": "It was imported before."}]}
    assert person.talk(item["id"], "go on", found["tip"])["status"] == "done"


def test_what_cannot_be_read_is_told_and_the_rest_is_kept(person: Person) -> None:
    ring = {"a": node("a", "b", "user", ["x"]), "b": node("b", "a", "assistant", ["y"])}
    entries: list[Any] = [
        {"title": "empty", "mapping": {}},
        {"title": "ring", "mapping": ring},
        {"title": "list", "mapping": []},
        {"title": "silent", "mapping": mapping(node("u", "root", "user", ["", {"x": 1}, None, 7]))},
        {"title": "odd", "mapping": {"a": 1, "b": {"message": {"author": 3, "content": [], "create_time": "x"}}}},
        {"title": "strange"},
        "text",
        None,
        {"form": "foretell-conversation", "version": 99, "title": "newer"},
        {"form": "foretell-conversation", "version": 1, "title": "short", "messages": [{"id": 1}]},
        {**CHATGPT, "conversation_id": "good", "current_node": "nowhere", "create_time": None, "update_time": -5},
    ]
    told = send(person, entries)
    assert told["imported"] == 2, "the last one, and a file that the export left out"
    why = {one["title"]: one["why"] for one in told["skipped"]}
    assert set(why) == {"empty", "ring", "list", "odd", "strange", "Untitled", "newer", "short"}
    assert "no messages" in why["empty"] and "version 99" in why["newer"] and all(why.values())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"PK\x03\x04zip", "conversations.json that is in it"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "neither"),
        (b"[]", "no conversations"),
        (b"[1, 2]", "no conversations"),
        (b'"text"', "no conversations"),
    ],
)
def test_files_that_hold_nothing(person: Person, body: bytes, says: str) -> None:
    sent = person.ask("POST", "/import", content=body, headers={"content-type": "application/json"})
    told = sent.json()["skipped"][0]["why"] if sent.status_code == 200 else sent.json()["error"]["message"]
    assert says in told and (sent.status_code == 200 or bad(sent) == (400, "invalid_file"))


def test_a_file_that_is_too_large(person: Person) -> None:
    sent = person.ask("POST", "/import", content=b" " * 50_000_001, headers={"content-type": "application/json"})
    assert sent.status_code == 413
    assert person.ask("POST", "/conversations", content=b" " * 33_000_000).status_code == 413, "others are shorter"


def test_a_file_larger_than_other_bodies_is_read(person: Person) -> None:
    long = mapping(
        *(node(str(i), str(i - 1) if i else "root", ("user", "assistant")[i % 2], ["x" * 800_000]) for i in range(42))
    )
    assert send(person, [{**CHATGPT, "mapping": long, "current_node": "41"}])["imported"] == 1


def test_a_branch_that_goes_on_in_its_own_role_costs_what_it_shows() -> None:
    many = [node("a0", "root", "assistant", ["x" * 400_000])]
    many += [node(f"a{i}", "a0", "assistant", ["y"]) for i in range(1, 300)]
    with pytest.raises(Unreadable, match="characters together"):
        chatgpt.read({"mapping": mapping(*many)})
    chain = [node(f"a{i}", f"a{i - 1}" if i else "root", "assistant", ["x" * 1000]) for i in range(900)]
    (found,) = chatgpt.read({"mapping": mapping(*chain)}).messages
    assert len(found.text) == 900 * 1000 + 899 * 2


def test_an_export_is_read_again_as_it_was(chat: Place, person: Person) -> None:
    image = person.image(name="ä bar.png")["id"]
    id = person.begin(title="Émile's <b>", system="Be brief.", temperature=0.25, second="small", persona="socratic")
    said = person.say(id, "Look: **x**", images=[image])
    one, other = (person.done(reply["id"]) for reply in said["replies"])
    person.post(f"/messages/{one['id']}/prefer", {"over": other["id"]})
    person.post(f"/messages/{one['id']}/rate", {"rating": 1, "note": "good"})
    person.post(f"/messages/{person.talk(id, 'edited', None)['id']}/rate", {"rating": -1})
    first = person.ask("GET", f"/conversations/{id}/export", params={"form": "json"})
    assert first.headers["content-disposition"].startswith("attachment;")
    assert send(person, first.json()) == {"imported": 1, "skipped": []}
    copy = next(one["id"] for one in person.get("/conversations")["items"] if one["id"] != id)

    def plain(value: Any) -> Any:
        """Without ids, each named by its place."""
        names = {value["id"]: "c"} | {message["id"]: i for i, message in enumerate(value["messages"])}
        return json.loads(
            json.dumps(value),
            object_hook=lambda o: {k: names.get(v, v) if isinstance(v, str) else v for k, v in o.items()},
        )

    again = person.get(f"/conversations/{copy}/export")
    before, after = plain(first.json()), plain(again)
    assert len(before.pop("preferences")) == len(after.pop("preferences")) == 1
    assert before == after
    everything = person.get("/export")
    assert len(everything) == 2 and send(person, everything)["imported"] == 2
    shown = person.get(f"/conversations/{copy}")
    assert [m["text"] for m in shown["messages"]] == ["edited", "edited", "edited"]


def test_markdown_shows_the_branch_that_is_shown(person: Person) -> None:
    id = person.begin(title='Bars / "and": more', system="Be brief.")
    person.talk(id, "first")
    person.talk(id, "**second**", None, images=[person.image(name="a.png")["id"]])
    found = person.ask("GET", f"/conversations/{id}/export", params={"form": "markdown"})
    assert found.headers["content-type"].startswith("text/markdown")
    assert found.text.startswith('# Bars / "and": more\n\n_big, 2026-11-20 12:00:00 UTC_\n\n> Be brief.\n\n## You\n\n')
    assert "[image: a.png]\n**second**\n\n## big\n\n**second**" in found.text and "first" not in found.text
    assert bad(person.ask("GET", f"/conversations/{id}/export", params={"form": "pdf"})) == (400, "invalid_value")


def test_file_names_cannot_carry_a_header() -> None:
    told = disposition('a"\r\nx-evil: 1; /../é', "json")
    assert "\r" not in told and "\n" not in told and told.isascii() and told.count('"') == 2


def test_hostile_images_in_an_export(person: Person) -> None:
    id = person.begin()
    person.talk(id, "x", images=[person.image()["id"]])
    export = person.get(f"/conversations/{id}/export")
    export["messages"][0]["images"][0]["data"] = "AAAA"
    told = send(person, export)
    assert told["imported"] == 0 and "cannot be read" in told["skipped"][0]["why"]
    assert len(person.get("/conversations")["items"]) == 1 and png()
