"""The routes, and the OpenAPI document that describes them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from foretell.errors import ForetellError, RequestError
from foretell.serve import told
from foretell.serve.asked import Body, ChatBody, CompletionBody, EmbeddingBody, ModerationBody, read
from foretell.serve.calls import Server, json_response, log
from foretell.serve.chat import chat
from foretell.serve.completions import complete
from foretell.serve.embeddings import embed
from foretell.serve.front import Front, read_json, refusal_response
from foretell.serve.guard import guarded
from foretell.serve.logs import Calls
from foretell.serve.models import unknown_model
from foretell.serve.refusals import STATUSES, Params, refusal, refuse
from foretell.serve.traffic import unless_gone

B = TypeVar("B", bound=Body)

IMPORT, MOST_IMPORTED = "/chat/import", 50_000_000
"""Route of the chat page's import, and bytes of a file of conversations."""
_REF = "#/components/schemas/{model}"


def create_app(server: Server, pages: Sequence[BaseRoute] = (), log_calls: bool = False) -> FastAPI:
    """The ASGI application of a server. pages: routes of people's pages, beside the API's."""
    app = FastAPI(
        title="Foretell",
        version="1",
        summary="Models behind an API in OpenAI's form.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _http_error, RequestError: _refused},
    )
    began, upstream = int(time.time()), server.upstream

    async def body(http: Request, kind: type[B]) -> tuple[B, dict[str, Any]]:
        raw = await read_json(http, server.limits.body)
        return read(kind, raw), raw

    def through(
        request: Request, asked: Any, raw: dict[str, Any], work: Callable[..., Awaitable[Any]]
    ) -> Awaitable[Any]:
        """The work, behind limits and moderation where the caller has an account."""
        if server.gateway is None or request.state.caller.account is None:
            return work(asked, raw)
        return server.gateway.answer(request, asked, raw, work)

    async def chat_completions(request: Request) -> Any:
        asked, raw = await body(request, ChatBody)
        grammar = "response_format" if asked.tool_choice in (None, "none", "auto") else "tools"

        def work(asked: Any, raw: Any) -> Awaitable[Any]:
            return upstream.answer(server, asked, raw) if upstream else chat(server, request, asked, raw)

        return await _told(request, through(request, asked, raw, work), Params("messages", grammar))

    async def completions(request: Request) -> Any:
        asked, raw = await body(request, CompletionBody)

        def work(asked: Any, raw: Any) -> Awaitable[Any]:
            return upstream.answer(server, asked, raw) if upstream else complete(server, request, asked)

        return await _told(request, through(request, asked, raw, work), Params("prompt"))

    async def embeddings(request: Request) -> Any:
        asked, raw = await body(request, EmbeddingBody)

        def work(asked: Any, raw: Any) -> Awaitable[Any]:
            return upstream.answer(server, asked, raw) if upstream else embed(server, asked)

        return await _told(request, through(request, asked, raw, work), Params("input"))

    async def moderations(request: Request) -> Any:
        asked, raw = await body(request, ModerationBody)
        if server.moderator is None:
            raise refuse("This server moderates nothing.", 404, code="moderation_not_available")
        inputs = raw["input"] if isinstance(raw["input"], list) and isinstance(raw["input"][0], str) else [raw["input"]]
        results = await server.moderator.moderate(inputs)
        return json_response({"id": "modr-0", "model": asked.model or "moderation", "results": results})

    async def usage(request: Request) -> Any:
        from foretell.serve.told_usage import usage_of

        if server.gateway is None:
            raise refuse("This server keeps no accounts.", 404, code="accounts_not_available")
        return await usage_of(server.gateway, request)

    async def names() -> list[str]:
        return await upstream.names() if upstream else server.models.names

    def card(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": began, "owned_by": "foretell"}

    async def models(request: Request) -> Any:
        return json_response({"object": "list", "data": [card(name) for name in await names()]})

    async def model(request: Request, model: str) -> Any:
        if model not in await names():
            raise unknown_model(model)
        return json_response(card(model))

    async def health(request: Request) -> Any:
        return json_response({"status": "ok"})

    async def ready(request: Request) -> Any:
        if server.traffic.draining:
            raise refuse("The server is shutting down.", 503, code="shutting_down")
        if server.gateway is not None:
            await server.gateway.ready()
        if upstream is not None:
            await upstream.ready()
        return json_response({"status": "ready"})

    async def metrics(request: Request) -> Any:
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    stream = {"text/event-stream": {"schema": {"type": "string"}}}

    def route(
        method: str,
        path: str,
        handler: Callable[..., Awaitable[Any]],
        answer: type[BaseModel] | None,
        asked: type[Body] | None = None,
        content: dict[str, Any] | None = None,
    ) -> None:
        good: dict[str, Any] = {"description": "The answer."}
        good |= {"model": answer} if answer else {}
        good |= {"content": content} if content else {}
        refusals: dict[int | str, dict[str, Any]] = {
            status: {"model": told.ErrorBody, "description": "Why not."} for status in STATUSES
        }
        extra = {}
        if asked:
            schema = {"$ref": _REF.format(model=asked.__name__)}
            extra = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
        app.add_api_route(
            path,
            handler,
            methods=[method],
            response_model=None,
            response_class=JSONResponse if answer else Response,
            responses={200: good, **refusals},
            openapi_extra=extra,
            summary=f"{method} {path}",
        )

    route("POST", "/v1/chat/completions", chat_completions, told.ChatCompletion, ChatBody, stream)
    route("POST", "/v1/completions", completions, told.TextCompletion, CompletionBody, stream)
    route("POST", "/v1/embeddings", embeddings, told.Embeddings, EmbeddingBody)
    route("POST", "/v1/moderations", moderations, told.Moderations, ModerationBody)
    route("GET", "/v1/usage", usage, told.Usage)
    route("GET", "/v1/models", models, told.ModelList)
    route("GET", "/v1/models/{model:path}", model, told.ModelCard)
    route("GET", "/health", health, told.Health)
    route("GET", "/ready", ready, told.Health)
    route("GET", "/metrics", metrics, None, content={"text/plain": {"schema": {"type": "string"}}})
    app.router.routes.extend(pages)
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        found = plain()
        kinds = [(kind, "validation") for kind in (ChatBody, CompletionBody, EmbeddingBody, ModerationBody)]
        _, schemas = models_json_schema(kinds, ref_template=_REF)  # type: ignore[arg-type]
        found["components"]["schemas"] |= schemas["$defs"]
        return found

    app.openapi = openapi  # type: ignore[method-assign]
    app.add_middleware(guarded, limits=server.limits.body, larger={IMPORT: MOST_IMPORTED})
    app.add_middleware(Front, server=server)
    if log_calls:
        app.add_middleware(Calls)
    return app


async def _told(request: Request, work: Awaitable[Any], params: Params) -> Any:
    """The answer, or why there is none, laid to the field that it comes from; none for who has hung up."""
    try:
        return await unless_gone(request.receive, work)
    except ForetellError as error:
        refused = refusal(error, params)
        if refused.status == 500:
            log.error("%s", error)
        raise refused from error


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return refusal_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: f"Unknown request URL: {request.method} {request.url.path}.",
        405: f"Not allowed to {request.method} on {request.url.path}.",
    }.get(error.status_code, str(error.detail))
    code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
    response = refusal_response(refuse(said, error.status_code, code=code))
    response.headers.update(error.headers or {})
    return response
