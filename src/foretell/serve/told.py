"""What callers are told, in OpenAI's form, for the OpenAPI document; replies themselves are written as plain JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class Told(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ErrorFields(Told):
    message: str | None
    type: str | None
    param: str | None
    code: str | None


class ErrorBody(Told):
    error: ErrorFields


class PromptDetails(Told):
    cached_tokens: int
    audio_tokens: int
    image_tokens: int


class CompletionDetails(Told):
    reasoning_tokens: int
    audio_tokens: int


class UsageFields(Told):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


class Alternative(Told):
    token: str
    bytes: list[int] | None
    logprob: float


class TokenLogprobs(Alternative):
    top_logprobs: list[Alternative]


class ChatLogprobs(Told):
    content: list[TokenLogprobs] | None
    refusal: list[TokenLogprobs] | None


class CalledFunction(Told):
    name: str
    arguments: str


class Call(Told):
    id: str
    type: Literal["function"]
    function: CalledFunction


class Reply(Told):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[Call] | None = None


class ChatChoice(Told):
    index: int
    message: Reply
    logprobs: ChatLogprobs | None
    finish_reason: Finish


class ChatCompletion(Told):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageFields


class TextLogprobs(Told):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Told):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Finish


class TextCompletion(Told):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: UsageFields


class Embedding(Told):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Told):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Told):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelCard(Told):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Told):
    object: Literal["list"]
    data: list[ModelCard]


class UsageSums(Told):
    """dollars: what was charged."""

    calls: int
    prompt_tokens: int
    completion_tokens: int
    image_tokens: int
    cached_tokens: int
    dollars: float


class UsageDay(UsageSums):
    day: str


class UsageModel(UsageSums):
    model: str


class Usage(Told):
    object: Literal["usage"]
    from_: str = Field(alias="from")
    to: str
    total: UsageSums
    days: list[UsageDay]
    models: list[UsageModel]


class ModerationResult(Told):
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]


class Moderations(Told):
    id: str
    model: str
    results: list[ModerationResult]


class Health(Told):
    status: str
