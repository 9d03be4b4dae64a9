"""The server's part of the chat page: opening a long conversation, listing and searching many, rendering a stream.

    python benchmarks/chat_store.py [--conversations 10000] [--messages 500] [--rounds 9]

opened: a conversation of so many messages of 900 characters of Markdown each, as the page asks for it (the last 60)
and as much as may be asked for (200), first with every block still to be rendered and then with blocks that are kept.
listed, searched: the first page of so many conversations of two messages; a word that many hold, and one that none
holds. stream: what rendering a reply of 4,000 tokens that comes at 200 a second costs, in milliseconds of CPU for each
second of it. On SQLite. Times are those of the clock, and beside them those of the processor, which no other program
lengthens.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from common import figure, write_result
from foretell.serve.chats import conversations
from foretell.serve.chats.conversations import Settings
from foretell.serve.chats.markdown import Growing
from foretell.serve.chats.messages import Reader
from foretell.serve.chats.sight import Sight
from foretell.serve.chats.tables import conversations as conversations_table
from foretell.serve.chats.tables import messages as messages_table
from foretell.serve.migrations import upgrade
from foretell.serve.store import Store

WORDS = (
    "The ferry came in **past** the breakwater with `three` passengers, a crate of oranges and "
    "[a timetable](https://example.org/times). "
)
TEXT = (
    f"## Arrival\n\n{WORDS * 3}\n\n- {WORDS}\n- {WORDS}\n\n"
    "| when | who |\n|:--|--:|\n| noon | keeper |\n\n```python\nfor day in week:\n    print(day)\n```\n\nAnd so on."
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"{folder}/chats.db")
        upgrade(store)
        figures = opened(store, asked.messages, asked.rounds)
        figures |= many(store, asked.conversations, asked.rounds)
        store.close()
    figures |= streamed()
    command = f"python benchmarks/chat_store.py {' '.join(sys.argv[1:])}".strip()
    print(write_result("chat_store", command, figures))
    return 0


def timed(work: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """Milliseconds by the clock and of the processor, round by round."""
    wall, processor = [], []
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - begun) * 1000)
        processor.append((time.process_time() - used) * 1000)
    return wall, processor


def told(name: str, found: tuple[list[float], list[float]], aim: float | None = None) -> dict[str, Any]:
    wall, processor = found
    return {name: figure(wall, "ms", aim), f"{name}_processor": figure(processor, "ms")}


def message(conversation: str, number: int, text: str) -> dict[str, Any]:
    return {
        "id": f"msg_{conversation[-10:]}_{number}", "conversation": conversation, "number": number,
        "parent": f"msg_{conversation[-10:]}_{number - 1}" if number else None,
        "role": ("user", "assistant")[number % 2], "side": 0, "text": text, "status": "done", "rating": 0, "created": 1,
    }  # fmt: skip


def opened(store: Store, count: int, rounds: int) -> dict[str, Any]:
    id = conversations.create(store, "", Settings(title="long"), "model")
    with store.write() as db:
        rows = [message(id, number, TEXT) for number in range(count)]
        db.execute(messages_table.insert(), rows)
        db.execute(conversations_table.update().values(tip=rows[-1]["id"]))
    reader = Reader(store, lambda id: None, Sight(None).costs)

    def forget() -> None:
        with store.write() as db:
            db.execute(messages_table.update().values(blocks=None))

    def fresh(limit: int) -> tuple[list[float], list[float]]:
        wall, processor = [], []
        for _ in range(rounds):
            forget()
            one, other = timed(lambda: reader.conversation("", id, limit), 1)
            wall += one
            processor += other
        return wall, processor

    figures: dict[str, Any] = {}
    for limit in (60, 200):
        figures |= told(f"opened_{limit}_unrendered", fresh(limit), 500)
        figures |= told(
            f"opened_{limit}_kept", timed(lambda limit=limit: reader.conversation("", id, limit), rounds), 500
        )  # type: ignore[misc]
    return figures


def many(store: Store, count: int, rounds: int) -> dict[str, Any]:
    with store.write() as db:
        for first in range(0, count, 1_000):
            numbers = range(first, min(first + 1_000, count))
            rows = [
                {
                    "id": f"conv_{number:08}", "owner": "", "title": f"Conversation {number}", "model": "model",
                    "system": "", "tip": f"msg_v_{number:08}_1", "created": number, "updated": number,
                }
                for number in numbers
            ]  # fmt: skip
            db.execute(conversations_table.insert(), rows)
            said = [message(row["id"], number, TEXT) for row in rows for number in range(2)]
            db.execute(messages_table.insert(), said)

    def listing(search: str = "", before: str | None = None) -> Callable[[], Any]:
        return lambda: conversations.listing(store, "", search, before, 50)

    middle = f"conv_{count // 2:08}"
    figures = told("listed", timed(listing(), rounds), 100)
    figures |= told("listed_from_the_middle", timed(listing(before=middle), rounds))
    figures |= told("searched_common", timed(listing("breakwater"), rounds))
    return figures | told("searched_absent", timed(listing("zeppelin"), max(rounds // 3, 1)))


def streamed(tokens: int = 4_000, rate: int = 200, spacing: float = 0.05) -> dict[str, Any]:
    text = TEXT * (tokens * 4 // len(TEXT) + 1)
    growing, step = Growing(), int(rate * spacing) * 4  # about four characters a token
    used, most = time.process_time(), 0.0
    for end in range(step, tokens * 4 + 1, step):
        growing.text = text[:end]
        begun = time.process_time()
        growing.update()
        most = max(most, time.process_time() - begun)
    spent = time.process_time() - used
    begun = time.process_time()
    growing.finish()
    return {
        "stream_processor_a_second": figure(spent / (tokens / rate) * 1000, "ms"),
        "stream_longest_update": figure(most * 1000, "ms"),
        "stream_finish": figure((time.process_time() - begun) * 1000, "ms"),
    }


if __name__ == "__main__":
    sys.exit(main())
