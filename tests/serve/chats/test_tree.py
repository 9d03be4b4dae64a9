"""Branches: which is shown, what a model reads of it."""

from __future__ import annotations

from foretell.serve.chats.tree import Node, Tree


def tree(*rows: tuple[str, str | None, str], sides: dict[str, int] | None = None, empty: str = "") -> Tree:
    names = {"u": "user", "a": "assistant"}
    return Tree.of(
        Node(id, parent, names[role], (sides or {}).get(id, 0), i, id in empty.split())
        for i, (id, parent, role) in enumerate(rows)
    )


def ids(nodes: list[Node]) -> str:
    return " ".join(node.id for node in nodes)


BRANCHED = (
    ("1", None, "u"), ("2", "1", "a"), ("3", "2", "u"), ("4", "3", "a"), ("5", "1", "a"), ("6", None, "u"),
    ("7", "6", "a"), ("8", "4", "u"),
)  # fmt: skip


def test_paths_siblings_and_leaves() -> None:
    found = tree(*BRANCHED)
    assert ids(found.path("8")) == "1 2 3 4 8" and found.path(None) == found.path("none") == []
    assert ids(found.siblings(found.nodes["2"])) == "2 5" and ids(found.siblings(found.nodes["1"])) == "1 6"
    assert [found.leaf(id) for id in "1256"] == ["8", "8", "5", "7"]


def test_two_sides_are_shown_in_order_and_each_reads_its_own() -> None:
    found = tree(
        ("1", None, "u"), ("2", "1", "a"), ("3", "1", "a"), ("4", "2", "u"), ("5", "4", "a"), ("6", "4", "a"),
        ("7", "1", "a"), sides={"3": 1, "6": 1, "7": 1},
    )  # fmt: skip
    assert ids(found.shown("5")) == "1 2 7 4 5 6" and ids(found.shown("7")) == "1 2 7"
    assert ids(found.siblings(found.nodes["3"])) == "3 7" and ids(found.siblings(found.nodes["2"])) == "2"
    assert ids(found.read("5", 0)) == "1 2 4 5" and ids(found.read("5", 1)) == "1 7 4 6"
    assert found.leaf("4") == "5", "the first side is gone on from"
    assert found.leaf("7") == "7"


def test_what_was_not_answered_is_not_read() -> None:
    found = tree(*BRANCHED[:4], ("5", "4", "u"), ("6", "5", "a"), empty="2 6")
    assert ids(found.read("6")) == "3 4" and ids(found.read("5")) == "3 4 5" and ids(found.read("2")) == ""


def test_a_ring_ends() -> None:
    found = tree(("1", "2", "u"), ("2", "1", "a"))
    assert len(found.path("1")) == 2
