"""What people say of replies becomes data that the post-training reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chatkit import Person, Place, bad

from clikit import invoke
from foretell.align.examples import Preference, read_dialogues, read_preferences
from foretell.chat import Conversation
from foretell.serve.chats.feedback import export
from foretell.serve.store import Store


def test_preferences_and_ratings_are_read_by_the_post_training(chat: Place, person: Person, tmp_path: Path) -> None:
    words = iter(["one", "two", "three", "four", "five", "six", "seven"])
    chat.stubs["big"].reply = lambda request: next(words)
    id = person.begin(system="Be brief.")
    image = person.image()["id"]
    first = person.talk(id, "Which?", images=[image])
    (again,) = person.post(f"/messages/{first['id']}/again")["replies"]
    second = person.done(again["id"])
    person.post(f"/messages/{first['id']}/prefer", {"over": second["id"]})
    person.post(f"/messages/{second['id']}/prefer", {"over": first["id"]})  # a change of mind
    assert person.get(f"/conversations/{id}")["messages"][1]["preferred"]
    third = person.talk(id, "And?", second["id"])
    (again,) = person.post(f"/messages/{third['id']}/again")["replies"]
    fourth = person.done(again["id"])
    person.post(f"/messages/{third['id']}/rate", {"rating": -1, "note": "wrong"})
    person.post(f"/messages/{fourth['id']}/rate", {"rating": 1})
    person.talk(person.begin(), "of which nothing was said")
    out, count, ratings, rated = export(chat.store, tmp_path / "said.jsonl")
    assert (count, rated, ratings.name) == (2, 2, "said-ratings.jsonl")
    found = list(read_preferences(out))
    assert all(isinstance(one, Preference) for one in found), found
    prompts = [[(m.role, m.text) for m in one.prompt.messages] for one in found if isinstance(one, Preference)]
    assert prompts == [
        [("system", "Be brief."), ("user", "Which?")],
        [("system", "Be brief."), ("user", "Which?"), ("assistant", "two"), ("user", "And?")],
    ]
    replies = [[reply.messages[0].text for reply in one.replies] for one in found if isinstance(one, Preference)]
    assert replies == [["two", "one"], ["four", "three"]]
    assert isinstance(found[0], Preference) and len(found[0].prompt.images) == 1
    rows = [json.loads(line) for line in ratings.read_text().splitlines()]
    assert [(row["completion"][0]["content"], row["label"]) for row in rows] == [("three", False), ("four", True)]
    assert len(Conversation.from_openai(rows[0]["prompt"]).messages) == 4
    assert len(list(read_dialogues(ratings))) == 2


@pytest.mark.parametrize("rating", [2, "1", None, 0.5, True])
def test_what_is_no_rating(person: Person, rating: object) -> None:
    reply = person.talk(person.begin(), "x")["id"]
    assert bad(person.ask("POST", f"/messages/{reply}/rate", {"rating": rating}))[0] == 400


def test_only_replies_to_one_message_compare(person: Person) -> None:
    id = person.begin()
    one = person.talk(id, "x")
    other = person.talk(id, "y", one["id"])
    for over in (other["id"], one["id"]):
        assert bad(person.ask("POST", f"/messages/{one['id']}/prefer", {"over": over})) == (400, "invalid_value")
    assert bad(person.ask("POST", f"/messages/{one['parent']}/rate", {"rating": 1})) == (400, "invalid_value")


def test_the_command(store: Store, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not store.is_sqlite:
        pytest.skip("one database is enough for the command")
    out = tmp_path / "said.jsonl"
    code, said, err = invoke(capsys, "admin", "feedback", "--to", out, "--chats", tmp_path / "chats.db")
    assert code == 0 and "0 preferences" in said and "0 ratings" in said, err
    assert out.read_text() == ""
