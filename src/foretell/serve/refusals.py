"""Every failure in OpenAI's one form: which status an error has, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields

from foretell.errors import (
    CheckpointError,
    ContextLengthError,
    ConversationError,
    EndpointError,
    GenerationError,
    GrammarError,
    ImageError,
    OverloadedError,
    RequestError,
    StoreError,
)
from foretell.generate import Sampling
from foretell.serve.guard import envelope

STATUSES = (400, 401, 403, 404, 405, 408, 409, 413, 422, 429, 431, 500, 503)
_SETTINGS = {field.name for field in fields(Sampling)}
_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


@dataclass(frozen=True)
class Params:
    """Which field of a call a failure is laid to. prompt: what is read; grammar: what binds the reply."""

    prompt: str | None = None
    grammar: str | None = None


def refuse(message: str, status: int, *, param: str | None = None, code: str | None = None) -> RequestError:
    """An error with the type that goes with its status."""
    return RequestError(message, status, type=_KINDS.get(status, "invalid_request_error"), param=param, code=code)


def refusal(error: Exception, params: Params = Params()) -> RequestError:
    """What a caller is told of any error. What is not the caller's to mend is told in no detail."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, ContextLengthError):
        return refuse(str(error), 400, param=params.prompt, code="context_length_exceeded")
    if isinstance(error, OverloadedError):
        return refuse(str(error), 503, code="server_overloaded")
    if isinstance(error, StoreError):
        return refuse("The accounts cannot be reached just now. Ask again shortly.", 503, code="store_unavailable")
    if isinstance(error, GrammarError):
        return refuse(str(error), 400, param=params.grammar, code="invalid_grammar")
    if isinstance(error, ImageError):
        return refuse(str(error), 400, param=params.prompt, code="invalid_image")
    if isinstance(error, EndpointError):
        passed = error.status if error.status in (400, 404, 409, 413, 422, 429) else 503
        return refuse(str(error), passed, code="upstream_error")
    if isinstance(error, ConversationError | GenerationError):
        setting = str(error).split(" ", 1)[0]  # such an error of a setting begins with its name
        return refuse(str(error), 400, param=setting if setting in _SETTINGS else params.prompt, code="invalid_value")
    if isinstance(error, CheckpointError):
        return refuse("The model could not be loaded. The server's log says why.", 500, code="model_not_loaded")
    return refuse("The server failed while it answered. Its log names this request.", 500, code="internal_error")


def written(error: RequestError) -> bytes:
    """The body of a failure: always the same four keys, each a string or null."""
    return json.dumps(envelope(error)).encode()


def headers_of(error: RequestError) -> list[tuple[bytes, bytes]]:
    """What goes with a failure; always when to ask again, where that may help: the openai client and others wait so
    long."""
    told = list(error.headers)
    if error.status in (429, 503) and all(name != b"retry-after" for name, _ in told):
        told.append((b"retry-after", b"1"))
    return told
