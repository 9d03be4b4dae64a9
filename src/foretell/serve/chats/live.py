"""Replies while they are written: what came so far, and who follows it. Nobody needs to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from foretell.serve.chats.markdown import Growing
from foretell.serve.chats.messages import Written

SPACING_S = 0.05  # between two pieces of what a page is sent
QUIET_S = 15.0  # after which a word without meaning keeps a connection open
_SHORT = 6_000  # characters that are rendered at once; more on a thread, since others wait


@dataclass
class Live:
    """One reply on its way. status: "streaming" until it has ended. is_kept: its end is in the database. refusal: the
    model's own. first: when its first piece came. task, end: what writes it, and what keeps its end."""

    id: str
    owner: str
    conversation: str
    growing: Growing = field(default_factory=Growing)
    tokens: int = 0
    status: str = "streaming"
    error: str | None = None
    code: str | None = None
    model: str | None = None
    refusal: str = ""
    first: float | None = None
    has_begun: bool = False
    is_kept: bool = False
    task: asyncio.Task[None] | None = None
    end: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _render: asyncio.Lock = field(default_factory=asyncio.Lock)

    def tell(self) -> None:
        """Wake those who follow."""
        self._news.set()
        self._news = asyncio.Event()

    def push(self, text: str) -> None:
        self.first = self.first or time.perf_counter()
        self.growing.text += text
        self.tokens += 1
        self.tell()

    def written(self) -> Written:
        """As it is now."""
        blocks = list(self.growing.blocks)
        return Written(self.growing.text, blocks, self.tokens, self.status, self.error, self.code, self.model)

    async def blocks(self) -> list[str]:
        async with self._render:
            if self.growing.open > _SHORT:
                return list(await asyncio.to_thread(self.growing.update))
            return list(self.growing.update())

    async def finish(self) -> None:
        async with self._render:
            if len(self.growing.text) > _SHORT:
                await asyncio.to_thread(self.growing.finish)
            else:
                self.growing.finish()

    async def follow(self) -> AsyncIterator[dict[str, Any] | None]:
        """All blocks, then those that change, until the end is kept; None where for long nothing comes."""
        sent: list[str] | None = None
        while True:
            news, is_last = self._news, self.is_kept
            began = time.perf_counter()
            blocks = await self.blocks()
            if sent != blocks:
                yield {"blocks": changed(sent, blocks), "count": len(blocks), "tokens": self.tokens}
                sent = blocks
            if is_last:
                return
            # What took long to render is rendered less often.
            await asyncio.sleep(max(SPACING_S, 4 * (time.perf_counter() - began)))
            while not news.is_set():
                try:
                    await asyncio.wait_for(news.wait(), QUIET_S)
                except TimeoutError:
                    yield None


def changed(before: Sequence[str] | None, after: Sequence[str]) -> dict[str, str]:
    """The blocks that differ, by their place."""
    old = before or ()
    return {str(i): html for i, html in enumerate(after) if i >= len(old) or old[i] != html}
