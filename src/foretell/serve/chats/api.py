"""The page's API under /chat/: conversations, messages, streams, images. JSON in, JSON or events out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from foretell.errors import RequestError
from foretell.serve.asked import Body, ChatBody, read
from foretell.serve.calls import json_response
from foretell.serve.chats import conversations, exports, messages, pictures
from foretell.serve.chats.context import Context, context
from foretell.serve.chats.conversations import MOST_LISTED, Settings
from foretell.serve.chats.door import Door, Visit
from foretell.serve.chats.imports import import_file
from foretell.serve.chats.live import QUIET_S, changed
from foretell.serve.chats.markdown import clean_text
from foretell.serve.chats.messages import LONGEST, LONGEST_NOTE, MOST_IMAGES, STREAMING, Asked, Side
from foretell.serve.chats.parts import Chats
from foretell.serve.chats.personas import personas, prompts
from foretell.serve.chats.replies import Call
from foretell.serve.chats.standing import caps
from foretell.serve.front import read_json
from foretell.serve.models import unknown_model
from foretell.serve.refusals import refuse
from foretell.serve.sizes import most, size
from foretell.serve.traffic import EventStream, event

_POLL_S = 1.0  # how often a reply that another process writes is looked at
_LONGEST_SEARCH = 200

B = TypeVar("B", bound=Body)
Id = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,40}$")]


class SayBody(Body):
    parent: Id | None = None
    text: str = Field("", max_length=LONGEST)
    images: Annotated[list[Id], Field(default_factory=list, max_length=MOST_IMAGES)]


class RateBody(Body):
    rating: int = Field(ge=-1, le=1)
    note: str | None = Field(None, max_length=LONGEST_NOTE)


class PreferBody(Body):
    over: Id


def api_routes(chats: Chats, door: Door) -> list[Route]:
    api = _Api(chats)
    table = (
        ("GET", "/chat/state", api.state),
        ("GET", "/chat/usage", api.usage),
        ("GET", "/chat/conversations", api.listing),
        ("POST", "/chat/conversations", api.create),
        ("GET", "/chat/conversations/{id}", api.conversation),
        ("PATCH", "/chat/conversations/{id}", api.change),
        ("DELETE", "/chat/conversations/{id}", api.remove),
        ("POST", "/chat/conversations/{id}/say", api.say),
        ("POST", "/chat/messages/{id}/again", api.again),
        ("POST", "/chat/messages/{id}/stop", api.stop),
        ("GET", "/chat/messages/{id}/stream", api.stream),
        ("POST", "/chat/messages/{id}/rate", api.rate),
        ("POST", "/chat/messages/{id}/prefer", api.prefer),
        ("POST", "/chat/images", api.attach),
        ("GET", "/chat/images/{id}", api.image),
        ("GET", "/chat/conversations/{id}/export", api.export),
        ("GET", "/chat/export", api.export_all),
        ("POST", "/chat/import", api.import_file),
    )
    return [
        Route(path, door.api(handler), methods=[method], include_in_schema=False) for method, path, handler in table
    ]


class _Api:
    """A handler for each route."""

    def __init__(self, chats: Chats) -> None:
        self._chats, self._store, self._replies = chats, chats.store, chats.replies
        self._importing = asyncio.Semaphore(1)

    async def state(self, visit: Visit) -> Response:
        names, sight, gateway = await self._chats.names(), self._chats.sight, self._chats.server.gateway
        account = visit.account
        may = account is None or gateway is None or gateway.limits.images_allowed(account)
        models = [
            {"name": name, "images": may and sight.sees(name), "barred": not may and sight.sees(name)} for name in names
        ]
        first = names[0] if names else ""
        tiling, is_ours = sight.tiling(first), sight.is_ours(first)
        user = None if account is None else {"name": await self._email(account.user), "tier": account.tier}
        return json_response(
            {
                "user": user,
                "models": models,
                "personas": [{"id": one.id, "name": one.name, "system": one.system} for one in personas(is_ours)],
                "prompts": prompts(is_ours, bool(models and models[0]["images"])),
                "tile": None
                if tiling is None
                else {"side": tiling.tile, "grid": tiling.grid, "tokens": tiling.tokens_per_tile},
                "caps": await self._caps(visit),
            }
        )

    async def _email(self, user: str) -> str:
        from foretell.serve.accounts.tables import users

        def ask() -> str:
            with self._store.read() as db:
                return db.scalar(sa.select(users.c.email).where(users.c.id == user)) or ""

        return await self._store.quick(ask)

    async def _caps(self, visit: Visit) -> dict[str, Any] | None:
        gateway = self._chats.server.gateway
        if gateway is None or visit.account is None:
            return None
        return await asyncio.to_thread(caps, gateway.limits, visit.account)

    async def usage(self, visit: Visit) -> Response:
        return Response(json.dumps(await self._caps(visit)), media_type="application/json")

    async def listing(self, visit: Visit) -> Response:
        query = visit.request.query_params
        search = query.get("search", "").strip()[:_LONGEST_SEARCH]
        limit = _number(visit.request, "limit", 50, MOST_LISTED)
        rows, more = await asyncio.to_thread(
            conversations.listing, self._store, visit.owner, search, _before(visit), limit
        )
        return json_response({"items": [dict(row._mapping) for row in rows], "more": more})

    async def create(self, visit: Visit) -> Response:
        given = await self._body(visit, Settings)
        if given.tip is not None:
            raise refuse("A new conversation has no messages.", 400, param="tip", code="invalid_value")
        model = await self._check_models(given)
        id = await self._store.run(conversations.create, self._store, visit.owner, given, model)
        return await self._told(visit, id, status=201)

    async def conversation(self, visit: Visit) -> Response:
        limit = _number(visit.request, "limit", 60, MOST_LISTED)
        return await self._told(visit, visit.part("id"), limit, _before(visit))

    async def _told(
        self, visit: Visit, id: str, limit: int = 60, before: str | None = None, status: int = 200
    ) -> Response:
        found = await asyncio.to_thread(self._chats.reader.conversation, visit.owner, id, limit, before)
        response = json_response(found)
        response.status_code = status
        return response

    async def change(self, visit: Visit) -> Response:
        given, id = await self._body(visit, Settings), visit.part("id")
        await self._check_models(given)
        await self._store.run(conversations.change, self._store, visit.owner, id, given)
        return await self._told(visit, id)

    async def remove(self, visit: Visit) -> Response:
        id = visit.part("id")
        self._replies.stop_all(visit.owner, id)
        await self._store.run(conversations.remove, self._store, visit.owner, id)
        return Response(status_code=204)

    async def _check_models(self, given: Settings) -> str:
        """The first model there is. Raises RequestError for one that is not there."""
        names = await self._chats.names()
        for name in (given.model, given.second):
            if name is not None and name not in names:
                raise unknown_model(name)
        if not names:
            raise refuse("This server has no model just now.", 503, code="no_model")
        return names[0]

    async def say(self, visit: Visit) -> Response:
        given, id = await self._body(visit, SayBody), visit.part("id")
        text = clean_text(given.text).rstrip()
        if not text.strip() and not given.images:
            raise refuse("The message is empty.", 400, param="text", code="empty_message")
        row = await asyncio.to_thread(self._row, visit.owner, id)
        sides = [Side(0, row.model), *([Side(1, row.second)] if row.second else [])]
        asked = Asked(given.parent, text, tuple(given.images))
        if given.images and not any(self._chats.sight.sees(side.model) for side in sides):
            text = f"The model {row.model} reads no images. Send text alone, or choose another model."
            raise refuse(text, 400, param="images", code="images_not_read")
        contexts = [
            await asyncio.to_thread(context, self._store, visit.owner, id, given.parent, side.side, asked)
            for side in sides
        ]
        await self._check_room(visit, sides, contexts[0])
        user, ids = await self._store.run(messages.say, self._store, visit.owner, id, asked, sides)
        self._begin(visit, id, ids, sides, contexts)
        said, *replies = await asyncio.to_thread(self._chats.reader.messages, visit.owner, [user, *ids])
        return json_response({"user": said, "replies": replies})

    async def again(self, visit: Visit) -> Response:
        def look() -> tuple[sa.Row[Any], sa.Row[Any]]:
            with self._store.read() as db:
                row = messages.of_owner(db, visit.owner, visit.part("id"))
                return row, conversations.found(db, visit.owner, row.conversation)

        row, conversation = await asyncio.to_thread(look)
        second = conversation.second or row.model
        sides = [Side(0, conversation.model)]
        if row.role == "user":
            sides += [Side(1, conversation.second)] if conversation.second else []
            parent = row.id
        else:
            sides = [Side(1, second)] if row.side else sides
            parent = row.parent
        if parent is None:
            raise refuse("There is no message that this replies to.", 400, code="invalid_value")
        contexts = [
            await asyncio.to_thread(context, self._store, visit.owner, row.conversation, parent, side.side)
            for side in sides
        ]
        await self._check_room(visit, sides, contexts[0])
        ids = await self._store.run(messages.again, self._store, visit.owner, row.id, sides)
        self._begin(visit, row.conversation, ids, sides, contexts)
        replies = await asyncio.to_thread(self._chats.reader.messages, visit.owner, ids)
        return json_response({"replies": replies})

    def _row(self, owner: str, id: str) -> sa.Row[Any]:
        with self._store.read() as db:
            return conversations.found(db, owner, id)

    async def _check_room(self, visit: Visit, sides: Sequence[Side], found: Context) -> None:
        """Raises RequestError where nothing would be answered: then nothing is stored, and nothing typed is lost."""
        self._replies.check_room(visit.owner, len(sides))
        gateway = self._chats.server.gateway
        if gateway is None or visit.account is None:
            return
        raw = found.body(sides[0].model, images=self._chats.sight.sees(sides[0].model))
        prompt, images = size(raw, gateway.limits.tiers.images)
        try:
            await self._store.run(
                gateway.limits.check, visit.account, sides[0].model, prompt_tokens=prompt + images,
                max_tokens=most(read(ChatBody, raw)), image_tokens=images, stream=True,
            )  # fmt: skip
        except RequestError as error:
            if error.code != "above_limit":  # the beginning of a long conversation is left out
                raise

    def _begin(
        self, visit: Visit, conversation: str, ids: Sequence[str], sides: Sequence[Side], contexts: Sequence[Context]
    ) -> None:
        for id, side, found in zip(ids, sides, contexts, strict=True):
            sees = self._chats.sight.sees(side.model)
            self._replies.begin(Call(id, visit.owner, conversation, visit.caller, side.model, found, sees))

    async def stop(self, visit: Visit) -> Response:
        id = visit.part("id")
        if (live := self._replies.get(id, visit.owner)) is not None:
            self._replies.stop(live)
        else:
            await self._store.run(messages.stop, self._store, visit.owner, id)
        return Response(status_code=204)

    async def stream(self, visit: Visit) -> Response:
        id, owner = visit.part("id"), visit.owner
        live = self._replies.get(id, owner)
        if live is None:
            await self._message(owner, id)  # refused before a stream begins

        async def pieces() -> AsyncIterator[bytes]:
            if live is not None:
                async for found in live.follow():
                    yield b":\n\n" if found is None else _event(found)
            else:
                async for found in self._poll(owner, id):
                    yield b":\n\n" if found is None else _event(found)
            yield _event({"done": await self._message(owner, id)})

        async def close() -> None:
            pass

        return EventStream(pieces(), close)

    async def _message(self, owner: str, id: str) -> dict[str, Any]:
        (found,) = await asyncio.to_thread(self._chats.reader.messages, owner, [id])
        return found

    async def _poll(self, owner: str, id: str) -> AsyncIterator[dict[str, Any] | None]:
        """Of a reply that another process writes, what it stores."""
        sent, quiet = None, 0.0
        while (found := await self._message(owner, id))["status"] == STREAMING:
            if sent != found["blocks"]:
                blocks = found["blocks"]
                yield {"blocks": changed(sent, blocks), "count": len(blocks), "tokens": found["tokens"]}
                sent, quiet = blocks, 0.0
            elif (quiet := quiet + _POLL_S) > QUIET_S:
                yield None
                quiet = 0.0
            await asyncio.sleep(_POLL_S)

    async def rate(self, visit: Visit) -> Response:
        given = await self._body(visit, RateBody)
        note = None if given.note is None else clean_text(given.note)
        await self._store.run(messages.rate, self._store, visit.owner, visit.part("id"), given.rating, note)
        return Response(status_code=204)

    async def prefer(self, visit: Visit) -> Response:
        given = await self._body(visit, PreferBody)
        await self._store.run(messages.prefer, self._store, visit.owner, visit.part("id"), given.over)
        return Response(status_code=204)

    async def attach(self, visit: Visit) -> Response:
        account, gateway = visit.account, self._chats.server.gateway
        if account is not None and gateway is not None and not gateway.limits.images_allowed(account):
            raise refuse("Images are not part of this account's tier.", 403, code="images_not_allowed")
        name = visit.request.query_params.get("name", "")
        data = await visit.request.body()
        row = await asyncio.to_thread(pictures.keep, self._store, visit.owner, name, data)
        names = await self._chats.names()
        return json_response(pictures.told(row, self._chats.sight.costs(names[0] if names else None)))

    async def image(self, visit: Visit) -> Response:
        small = visit.request.query_params.get("small") == "1"
        found = await asyncio.to_thread(pictures.load, self._store, visit.owner, visit.part("id"), small)
        headers = {
            "content-security-policy": "default-src 'none'; sandbox",
            "cache-control": "private, max-age=31536000, immutable",
            "content-disposition": "inline",
        }
        return Response(found.data, media_type=found.kind, headers=headers)

    async def export(self, visit: Visit) -> Response:
        id, form = visit.part("id"), visit.request.query_params.get("form", "json")
        row = await asyncio.to_thread(self._row, visit.owner, id)
        text: str | bytes
        if form == "json":
            kind, text = "application/json", await asyncio.to_thread(exports.written, self._store, visit.owner, id)
        elif form == "markdown":
            kind, text = "text/markdown", await asyncio.to_thread(exports.as_markdown, self._store, visit.owner, id)
        else:
            raise refuse("Invalid 'form': allowed are json, markdown.", 400, param="form", code="invalid_value")
        name = exports.disposition(row.title, "json" if form == "json" else "md")
        return Response(text, media_type=kind, headers={"content-disposition": name})

    async def export_all(self, visit: Visit) -> Response:
        name = exports.disposition("conversations", "json")
        pieces = exports.everything(self._store, visit.owner)
        return StreamingResponse(pieces, media_type="application/json", headers={"content-disposition": name})

    async def import_file(self, visit: Visit) -> Response:
        kind = visit.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("application/json", "application/octet-stream", "application/zip"):
            raise refuse(f"Expected a file of JSON; found {kind[:80] or 'none'}.", 400, code="invalid_file")
        async with self._importing:  # one at a time: a file takes memory many times its size
            body = await visit.request.body()
            names = await self._chats.names()
            model = names[0] if names else ""
            return json_response(await asyncio.to_thread(import_file, self._store, visit.owner, body, model))

    async def _body(self, visit: Visit, kind: type[B]) -> B:
        return read(kind, await read_json(visit.request, self._chats.server.limits.body))


def _event(found: dict[str, Any]) -> bytes:
    return event(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode())


def _before(visit: Visit) -> str | None:
    return clean_text(visit.request.query_params.get("before", "")) or None


def _number(request: Request, name: str, usual: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return usual
    if not (text.isascii() and text.isdigit() and 1 <= len(text) < 10 and 1 <= int(text) <= most):
        raise refuse(f"Invalid '{name}': expected a number from 1 to {most}.", 400, param=name, code="invalid_value")
    return int(text)
