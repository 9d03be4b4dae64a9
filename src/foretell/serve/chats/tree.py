"""A conversation as a tree: each message has a parent, and one branch of it is shown.

An edited message and a reply that was made anew are siblings of the first one. Where two models answer side by side,
both replies have one parent and different sides; the branch goes on from one of them, and the other is shown beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Node:
    """A message without what it says. number: in the order in which messages came. is_empty: it says nothing to go on
    from: a reply that failed or was refused. is_open: it is being written."""

    id: str
    parent: str | None
    role: str
    side: int
    number: int
    is_empty: bool = False
    is_open: bool = False


@dataclass(frozen=True)
class Tree:
    """All messages of a conversation."""

    nodes: Mapping[str, Node]
    children: Mapping[str | None, list[Node]] = field(default_factory=dict)

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Tree:
        by_number = sorted(nodes, key=lambda node: node.number)
        children: dict[str | None, list[Node]] = {}
        for node in by_number:
            children.setdefault(node.parent, []).append(node)
        return cls({node.id: node for node in by_number}, children)

    def path(self, tip: str | None) -> list[Node]:
        """From the first message to `tip`."""
        found: list[Node] = []
        node = self.nodes.get(tip or "")
        while node is not None and len(found) < len(self.nodes):
            found.append(node)
            node = self.nodes.get(node.parent or "")
        return found[::-1]

    def siblings(self, node: Node) -> list[Node]:
        """Those that stand in one place, itself included, in order: same parent, same role, same side."""
        return [one for one in self.children[node.parent] if (one.role, one.side) == (node.role, node.side)]

    def leaf(self, id: str) -> str:
        """The newest message below this one that has nothing below it, or itself; of two sides the first one's."""
        newest, waiting = self.nodes[id], [self.nodes[id]]
        while waiting:
            node = waiting.pop()
            newest = max(newest, node, key=lambda one: one.number)
            waiting += self.children.get(node.id, ())
        if newest.side and newest.id != id:
            beside = self.beside(newest)
            if beside is not None and beside.id not in self.children:
                return beside.id
        return newest.id

    def beside(self, node: Node) -> Node | None:
        """The newest reply of the other side."""
        if node.role != "assistant":
            return None
        others = [one for one in self.children[node.parent] if one.role == node.role and one.side != node.side]
        return others[-1] if others else None

    def shown(self, tip: str | None) -> list[Node]:
        """The branch that ends in `tip`, with the replies of both sides, the first side first."""
        found: list[Node] = []
        for node in self.path(tip):
            beside = self.beside(node)
            found += sorted((node, beside), key=lambda one: one.side) if beside is not None else [node]
        return found

    def read(self, tip: str | None, side: int = 0) -> list[Node]:
        """What a model of a side reads of a branch: its own side's replies where there are two, and no turn that was
        not answered, since what was refused once would be refused for ever."""
        found: list[Node] = []
        for node in self.path(tip):
            if node.role == "assistant" and node.side != side:
                node = self.beside(node) or node
            if node.role == "assistant" and node.is_empty:
                if found and found[-1].role == "user":
                    found.pop()
                continue
            found.append(node)
        return found
