"""What the chat page's API works on, put together."""

from __future__ import annotations

from dataclasses import dataclass

from foretell.errors import RequestError
from foretell.serve.calls import Server
from foretell.serve.chats.messages import Reader
from foretell.serve.chats.replies import Replies
from foretell.serve.chats.sight import Sight
from foretell.serve.store import Store


@dataclass(frozen=True)
class Chats:
    """replies: those that this process writes. sight: what models see. reader: messages as the page is told them."""

    server: Server
    store: Store
    replies: Replies
    sight: Sight
    reader: Reader

    @classmethod
    def of(cls, server: Server, store: Store, sight: Sight) -> Chats:
        replies = Replies(server, store)
        return cls(server, store, replies, sight, Reader(store, replies.written, sight.costs))

    async def names(self) -> list[str]:
        """Of the models; where another server does not tell them just now, as it last did. Raises RequestError."""
        upstream = self.server.upstream
        if upstream is None:
            return self.server.models.names
        try:
            return await upstream.names()
        except RequestError:
            if not upstream.known:
                raise
            return [*sorted(upstream.known), *upstream.aliases]
