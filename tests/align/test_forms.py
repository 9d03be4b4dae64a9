"""Rows of every form become the conversations they mean; a row that cannot be used says where and why."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from alignkit import chat, write_jsonl

from foretell.align.examples import Dialogue, Preference, Unused, read_dialogues, read_preferences
from foretell.chat import Conversation, TextPart
from foretell.errors import DataError, RowError

PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


def told(conversation: Conversation) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in conversation.messages]


def one(tmp_path: Path, row: dict[str, Any], read: Any) -> Any:
    found = list(read(write_jsonl(tmp_path / "rows.jsonl", [row])))
    assert len(found) == 1
    return found[0]


QA = [("user", "Q"), ("assistant", "A")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": chat("Q", "A")},
        {"prompt": chat("Q"), "completion": chat("", "A")[1:]},
        {"prompt": "Q", "completion": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q", "output": "A"},
    ],
)
def test_forms_of_conversations(tmp_path: Path, row: dict[str, Any]) -> None:
    found = one(tmp_path, row, read_dialogues)
    assert told(found.conversation) == QA
    assert found.where == f"{tmp_path / 'rows.jsonl'}, line 1"


def test_alpaca_input_follows_its_instruction(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3"}
    assert told(one(tmp_path, row, read_dialogues).conversation) == [("user", "Add.\n\n1 2"), ("assistant", "3")]


def test_images_stand_in_content_parts(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": PIXEL}}
    asked = {"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}
    rows: list[tuple[dict[str, Any], Any]] = [
        ({"messages": [asked, *chat("", "A dot.")[1:]]}, read_dialogues),
        ({"prompt": [asked], "chosen": "A dot.", "rejected": "A cat."}, read_preferences),
    ]
    for row, read in rows:
        found = one(tmp_path, row, read)
        conversation = found.whole(0) if isinstance(found, Preference) else found.conversation
        assert len(conversation.images) == 1 and conversation.messages[0].parts[1] == TextPart("What is it?")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": chat("Q"), "chosen": chat("", "A")[1:], "rejected": chat("", "B")[1:], "margin": 0.5},
        {"prompt": "Q", "chosen": "A", "rejected": "B", "margin": 0.5},
        {"chosen": chat("Q", "A"), "rejected": chat("Q", "B"), "margin": 0.5},
        {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B", "margin": 0.5},
    ],
)
def test_forms_of_preferences(tmp_path: Path, row: dict[str, Any]) -> None:
    found = one(tmp_path, row, read_preferences)
    assert told(found.whole(0)) == QA and told(found.whole(1)) == [QA[0], ("assistant", "B")]
    assert told(found.prompt) == QA[:1] and found.margin == 0.5


def test_the_prompt_is_the_longest_beginning_that_both_share(tmp_path: Path) -> None:
    row = {"chosen": chat("Q", "A", "And?", "C"), "rejected": chat("Q", "A", "And?", "D")}
    found = one(tmp_path, row, read_preferences)
    assert told(found.prompt) == [*QA, ("user", "And?")] and [told(r) for r in found.replies] == [
        [("assistant", "C")],
        [("assistant", "D")],
    ]


def test_ranked_lists_keep_their_order(tmp_path: Path) -> None:
    found = one(tmp_path, {"prompt": "Q", "replies": ["best", chat("", "middle")[1:], "worst"]}, read_preferences)
    assert [reply.messages[0].text for reply in found.replies] == ["best", "middle", "worst"]


def tree() -> dict[str, Any]:
    def node(role: str, text: str, rank: int | None, *replies: dict[str, Any]) -> dict[str, Any]:
        return {"role": role, "text": text, "rank": rank, "replies": list(replies)}

    second = node("assistant", "A", 1, node("prompter", "And?", None, node("assistant", "C", None)))
    gone = {**node("assistant", "gone", 2), "deleted": True}
    return {"message_tree_id": "1", "prompt": node("prompter", "Q", None, second, node("assistant", "B", 0), gone)}


def test_trees_give_every_branch_and_every_ranking(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [tree()])
    dialogues = [told(row.conversation) for row in read_dialogues(path) if not isinstance(row, RowError)]
    assert dialogues == [[*QA, ("user", "And?"), ("assistant", "C")], [QA[0], ("assistant", "B")]]
    (found,) = read_preferences(path)
    assert isinstance(found, Preference)
    assert [reply.messages[0].text for reply in found.replies] == ["B", "A"]


@pytest.mark.parametrize(
    ("row", "field", "why"),
    [
        ({"prompt": "Q", "chosen": "A"}, "rejected", "missing or empty"),
        ({"prompt": "Q", "chosen": [], "rejected": "B"}, "chosen", "missing or empty"),
        ({"prompt": "", "chosen": "A", "rejected": "B"}, "prompt", "empty"),
        ({"prompt": "Q", "chosen": "A", "rejected": "A"}, "rejected", "the same as chosen"),
        ({"prompt": "Q", "chosen": " ", "rejected": "A"}, "chosen", "empty"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B", "margin": "1"}, "margin", "no finite number"),
        ({"prompt": [{"role": "robot", "content": "Q"}], "chosen": "A", "rejected": "B"}, "prompt", "OpenAI message"),
        ({"prompt": "Q", "replies": ["A"]}, "replies", "two or more"),
        ({"prompt": "Q", "replies": ["A", "B", "A"]}, r"replies\[2\]", "same as a better reply"),
        ({"chosen": chat("Q", "A"), "rejected": chat("P", "A")}, "prompt", "empty"),
        ({"chosen": chat("Q"), "rejected": chat("Q", "A")}, "chosen", "no reply of the assistant"),
        ({"chosen": "A", "rejected": "B"}, "chosen", "no transcript"),
        (
            {"message_tree_id": "", "prompt": {"role": "prompter", "text": "Q", "replies": [3]}},
            "prompt",
            "without text",
        ),
        ({"message_tree_id": "", "prompt": {"role": ["x"], "text": "Q"}}, "prompt", "known role"),
        ({"messages": chat("Q", "A")}, "the row", "holds no preferences.*`foretell sft`"),
    ],
)
def test_bad_preferences_name_file_line_and_field(tmp_path: Path, row: dict[str, Any], field: str, why: str) -> None:
    good = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    first, second = read_preferences(write_jsonl(tmp_path / "rows.jsonl", [good, row]))
    assert isinstance(first, Preference) and isinstance(second, RowError)
    with pytest.raises(RowError, match=rf"rows\.jsonl, line 2, {field}: .*{why}"):
        raise second


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": []}, "messages: empty"),
        ({"messages": chat("Q")}, "assistant says nothing"),
        ({"messages": [{"role": "boss", "content": "Q"}]}, "Message 0 has role 'boss'; allowed are system"),
        ({"instruction": "Q", "output": 3}, "output: not a string"),
        ({"text": "Q"}, "Its fields are text; expected messages"),
        ({"instruction": "", "input": " ", "output": "A"}, "instruction: empty"),
        ({"conversations": [{"from": "human", "value": "Q"}]}, "ShareGPT's conversations become messages when"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "`foretell reward` and `dpo` read such rows"),
    ],
)
def test_bad_conversations_say_why(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert why in str(one(tmp_path, row, read_dialogues))


def test_lines_that_are_no_objects_are_bad_rows_and_files_that_are_missing_end_it(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"messages": \n[1]\n' + json.dumps({"messages": chat("Q", "A")}))
    found = list(read_dialogues(path))
    assert [isinstance(row, RowError) for row in found] == [True, True, False]
    assert "line 1, the line: not JSON" in str(found[0]) and "not a JSON object" in str(found[1])
    with pytest.raises(DataError, match=r"There is no file or folder .*none\..*--data"):
        list(read_dialogues(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no file of examples"):
        list(read_dialogues(tmp_path / "empty"))


def test_arrays_folders_and_gzip(tmp_path: Path) -> None:
    rows = [{"messages": chat(f"Q{i}", "A")} for i in range(4)]
    (tmp_path / "a.json").write_text("\n" + json.dumps(rows[:2]))
    (tmp_path / "b").mkdir()
    with gzip.open(tmp_path / "b/c.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows[2:])
    found = [row for row in read_dialogues(tmp_path) if not isinstance(row, RowError)]
    assert [row.conversation.messages[0].text for row in found] == ["Q0", "Q1", "Q2", "Q3"]
    assert found[1].where.endswith("a.json, entry 2")
    (tmp_path / "b/c.jsonl.gz").write_bytes((tmp_path / "b/c.jsonl.gz").read_bytes()[:30])
    with pytest.raises(DataError, match=r"c\.jsonl\.gz could not be read"):
        list(read_dialogues(tmp_path))


FEEDBACK = [
    {"prompt": chat("Q"), "chosen": chat("", "A")[1:], "rejected": chat("", "B")[1:]},
    {"messages": chat("Q", "A"), "label": True},
    {"messages": chat("Q", "B"), "label": False},
    {"messages": chat("P", "A"), "label": True},
    {"messages": chat("P", "A", "And?", "C"), "label": False},
    {"prompt": "P", "completion": "D", "label": False},
    {"prompt": chat("P"), "completion": chat("", "D")[1:], "label": False},
    {"messages": chat("P", "E"), "label": False},
    {"messages": chat("P", "F"), "label": True},
    {"messages": chat("P", "F"), "label": False},
]
"""What people said of a chat page's replies."""


def test_ratings_of_both_signs_are_preferences_and_the_rest_is_told(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "feedback.jsonl", FEEDBACK)
    found = list(read_preferences(path))
    pairs = [(told(row.whole(0)), told(row.replies[1])) for row in found if isinstance(row, Preference)]
    asked = [("user", "P"), ("assistant", "A")]
    assert pairs == [(QA, [("assistant", "B")]), (asked, [("assistant", "D")]), (asked, [("assistant", "E")])]
    unused = [(row.why, row.where.rpartition(" ")[2]) for row in found if isinstance(row, Unused)]
    assert unused == [
        ("two ratings that a preference says already", "3"),
        ("rated more than once", "7"),
        ("called good and bad", "9"),
        ("called good and bad", "10"),
        ("rated, but no reply to the same prompt has the other sign", "5"),
    ]
    assert f"{path}, line 4 beside {path}, line 8" in [row.where for row in found if isinstance(row, Preference)]


def test_only_what_was_called_good_is_learned(tmp_path: Path) -> None:
    found = list(read_dialogues(write_jsonl(tmp_path / "feedback.jsonl", FEEDBACK[1:6])))
    assert [told(row.conversation)[0][1] for row in found if isinstance(row, Dialogue)] == ["Q", "P"]
    assert [row.why for row in found if isinstance(row, Unused)] == ["called bad"] * 3
    assert told(one(tmp_path, {"messages": chat("Q", "A"), "label": "positive"}, read_dialogues).conversation) == QA


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"messages": chat("Q", "A"), "label": 1}, "label: neither true nor false"),
        ({"messages": chat("Q"), "label": True}, "messages: no reply of the assistant"),
        ({"messages": chat("", "A")[1:], "label": True}, "messages: a reply to nothing"),
        ({"prompt": "Q", "completion": " ", "label": False}, "completion: empty"),
    ],
)
def test_bad_ratings_say_why(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    assert why in str(one(tmp_path, row, read_preferences))


def test_trees_without_replies_are_told(tmp_path: Path) -> None:
    row = {"message_tree_id": "1", "prompt": {"role": "prompter", "text": "Q", "replies": []}}
    assert one(tmp_path, row, read_dialogues).why == "a tree without a reply"
    assert one(tmp_path, row, read_preferences).why == "a tree without ranked replies"


@pytest.mark.realdata
def test_published_files_read_whole(real_data: Path) -> None:
    folder = real_data / "benchmarks"
    cases: list[tuple[Any, str, int, dict[str, int]]] = [
        (read_preferences, "anthropics_hh-rlhf/harmless-base", 2308, {"no reply of the assistant": 4}),
        (read_dialogues, "tatsu-lab_stanford_alpaca/data", 4998, {"the assistant says nothing": 2}),
        (read_preferences, "LAION-AI_Open-Assistant/model", 212, {}),
        (read_dialogues, "LAION-AI_Open-Assistant/model", 400, {}),
    ]
    for read, name, good, bad in cases:
        found = [row for row in read(folder / name) if not isinstance(row, Unused)]
        errors = [row.why for row in found if isinstance(row, RowError)]
        assert (len(found) - len(errors), Counter(errors)) == (good, bad)
