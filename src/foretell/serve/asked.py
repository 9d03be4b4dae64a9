"""What callers ask, in OpenAI's form: a model of each body, from which its checks and its OpenAPI schema come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag, ValidationError
from pydantic_core import PydanticKnownError

from foretell.errors import RequestError

B = TypeVar("B", bound="Body")


def _is_list(value: Any) -> str:
    return "list" if isinstance(value, list) else "one"


def _prompt_kind(value: Any) -> str:
    if not isinstance(value, list):
        return "one"
    first = value[0] if value else ""
    return "ids" if isinstance(first, int) else "lists" if isinstance(first, list) else "list"


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _at_most(limit: int) -> BeforeValidator:
    """Refuse what is too long before its many values are looked at, of which each could be wrong in its own way."""

    def check(value: Any) -> Any:
        if isinstance(value, list | dict) and len(value) > limit:
            context = {"field_type": "List", "max_length": limit, "actual_length": len(value)}
            raise PydanticKnownError("too_long", context)
        return value

    return BeforeValidator(check)


Int = Annotated[int, BeforeValidator(_whole)]  # 2.0 is an integer to JSON Schema


class Body(BaseModel):
    """strict: a number in quotes is no number. What is not named here is refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class TextContent(Body):
    type: Literal["text"]
    text: str


class ImageURL(Body):
    url: str = Field(min_length=1, description="A data: or http(s) URL of a PNG, JPEG, WebP or GIF image.")
    detail: Literal["auto", "low", "high"] = "auto"


class ImageContent(Body):
    type: Literal["image_url"]
    image_url: ImageURL


Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
Text = Annotated[str, Tag("one")]
Texts = Annotated[
    Text | Annotated[list[TextContent], Field(fail_fast=True, min_length=1), Tag("list")], Discriminator(_is_list)
]
Part = Annotated[TextContent | ImageContent, Field(discriminator="type")]
PartList = Annotated[list[Part], Field(fail_fast=True, min_length=1), Tag("list")]
Parts = Annotated[Text | PartList, Discriminator(_is_list)]


class SystemMessage(Body):
    role: Literal["system"]
    content: Texts
    name: Name | None = None


class DeveloperMessage(SystemMessage):
    role: Literal["developer"]  # type: ignore[assignment]


class UserMessage(Body):
    role: Literal["user"]
    content: Parts
    name: Name | None = None


class FunctionCall(Body):
    name: Name
    arguments: str


class AskedToolCall(Body):
    id: str = Field(min_length=1)
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(Body):
    role: Literal["assistant"]
    content: Texts | None = None
    name: Name | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: None = None
    function_call: None = None
    tool_calls: Annotated[list[AskedToolCall], Field(fail_fast=True)] | None = None


class ToolMessage(Body):
    role: Literal["tool"]
    content: Texts
    tool_call_id: str = Field(min_length=1)


Message = Annotated[
    SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]


class Function(Body):
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Body):
    type: Literal["function"]
    function: Function


class NamedFunction(Body):
    name: Name


class NamedTool(Body):
    type: Literal["function"]
    function: NamedFunction


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("one")] | Annotated[NamedTool, Tag("named")],
    Discriminator(lambda value: "named" if isinstance(value, dict | NamedTool) else "one"),
]


class NamedSchema(Body):
    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Body):
    type: Literal["text"]


class ObjectFormat(Body):
    type: Literal["json_object"]


class SchemaFormat(Body):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]


class StreamOptions(Body):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


StopText = Annotated[str, Field(min_length=1, max_length=1024)]
Stop = Annotated[
    Annotated[StopText, Tag("one")] | Annotated[list[StopText], Field(fail_fast=True, max_length=4), Tag("list")],
    Discriminator(_is_list),
]
TokenId = Annotated[Int, Field(ge=0, lt=2**31)]
TokenIds = Annotated[list[TokenId], Field(fail_fast=True, min_length=1)]
Prompt = Annotated[
    Text
    | Annotated[list[str], Field(fail_fast=True, min_length=1, max_length=2048), Tag("list")]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[TokenIds], Field(fail_fast=True, min_length=1, max_length=2048), Tag("lists")],
    Discriminator(_prompt_kind),
]
Model = Annotated[str, Field(min_length=1, max_length=256)]
TokenKey = Annotated[str, Field(pattern=r"^\d{1,9}$")]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[dict[TokenKey, Bias], Field(max_length=1024), _at_most(1024)]


class Drawing(Body):
    """What both kinds of reply share. min_p and top_k are no fields of OpenAI's; vLLM and llama.cpp have them too.

    The last ones are taken and ignored: they change nothing in a reply.
    """

    model: Model
    max_tokens: Int | None = Field(None, ge=0)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Int | None = Field(None, ge=-1, lt=2**31)
    min_p: float | None = Field(None, ge=0, le=1)
    n: Int | None = Field(None, ge=1, le=128)
    stop: Stop | None = None
    seed: Int | None = Field(None, ge=-(2**63), lt=2**63)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: (
        Annotated[dict[Annotated[str, Field(pattern=r"^\d{1,9}$")], Bias], Field(max_length=1024), _at_most(1024)]
        | None
    ) = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=512)


class ChatBody(Drawing):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=4096)]
    max_completion_tokens: Int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: Int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True, max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None


class CompletionBody(Drawing):
    """The body of POST /v1/completions."""

    prompt: Prompt
    echo: bool | None = None
    logprobs: Int | None = Field(None, ge=0, le=20)
    best_of: Int | None = Field(None, ge=1, le=128)
    suffix: None = None


class EmbeddingBody(Body):
    """The body of POST /v1/embeddings."""

    model: Model
    input: Prompt
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Int | None = Field(None, ge=1)
    user: str | None = Field(None, max_length=512)


class ModerationBody(Body):
    """The body of POST /v1/moderations."""

    input: Parts | Annotated[list[str], Field(fail_fast=True, min_length=1)]
    model: Model | None = None


def read(kind: type[B], raw: dict[str, Any]) -> B:
    """The body, checked. Raises RequestError for the first thing wrong, in OpenAI's words as far as they are known."""
    try:
        asked = kind.model_validate(raw)
    except ValidationError as error:
        raise _refusal(raw, error.errors(include_url=False)[0]) from None
    if isinstance(asked, Drawing):
        _check(asked)
    return asked


def _check(asked: Drawing) -> None:
    """What no field tells alone."""
    if asked.stream_options is not None and not asked.stream:
        raise _wrong("stream_options", "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if isinstance(asked, CompletionBody):
        if asked.best_of is not None and asked.best_of != (asked.n or 1):
            raise _wrong("best_of", "'best_of' is not supported beyond 'n': leave it out, or give it the value of 'n'.")
        return
    assert isinstance(asked, ChatBody)
    if asked.max_tokens is not None and asked.max_completion_tokens is not None:
        raise _wrong("max_tokens", "Give either 'max_tokens' or 'max_completion_tokens', not both.")
    if asked.max_tokens == 0:
        raise _wrong("max_tokens", "Invalid 'max_tokens': expected a value >= 1, but got 0 instead.")
    if asked.top_logprobs is not None and not asked.logprobs:
        raise _wrong("top_logprobs", "The 'top_logprobs' parameter is only allowed when 'logprobs' is true.")
    known = {tool.function.name for tool in asked.tools or ()}
    if len(known) < len(asked.tools or ()):
        raise _wrong("tools", "Two of the 'tools' have the same name; each must have its own.")
    if asked.tool_choice not in (None, "none", "auto") and not known:
        raise _wrong("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    if isinstance(asked.tool_choice, NamedTool) and asked.tool_choice.function.name not in known:
        name = asked.tool_choice.function.name
        raise _wrong("tool_choice", f"Tool choice {name!r} not found in the 'tools' parameter.")
    if asked.parallel_tool_calls is not None and not known:
        raise _wrong("parallel_tool_calls", "'parallel_tool_calls' is only allowed when 'tools' are specified.")
    formatted = asked.response_format is not None and asked.response_format.type != "text"
    if formatted and known and asked.tool_choice != "none":
        text = (
            "A 'response_format' and 'tools' cannot both bind one reply: leave one out, or set 'tool_choice' to 'none'."
        )
        raise _wrong("response_format", text)
    waiting: set[str] = set()  # calls of tools without a result
    for i, message in enumerate(asked.messages):
        if isinstance(message, AssistantMessage):
            if message.content is None and not message.tool_calls and message.refusal is None:
                raise _wrong(f"messages[{i}].content", "An assistant message needs 'content' or 'tool_calls'.")
            waiting = {call.id for call in message.tool_calls or ()}
        elif isinstance(message, ToolMessage):
            if message.tool_call_id not in waiting:
                text = f"No call {message.tool_call_id!r} of an assistant message stands before this tool message."
                raise _wrong(f"messages[{i}].tool_call_id", text)
            waiting.discard(message.tool_call_id)


def _wrong(param: str, message: str) -> RequestError:
    return RequestError(message, param=param, code="invalid_value")


_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a decimal",
    "bool_type": "a boolean",
    "list_type": "an array",
    "none_required": "null",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type", "union_tag_not_found"), "an object"),
}
_KINDS = ((str, "string"), (bool, "boolean"), (int, "integer"), (float, "decimal"), (list, "array"), (dict, "object"))
_FOUND = {kind: f"a{'n' if name[0] in 'aio' else ''} {name}" for kind, name in _KINDS}
_LENGTHS = {
    "string_too_short": ("string", "least", "min_length"),
    "string_too_long": ("string", "most", "max_length"),
    "too_short": ("array", "least", "min_length"),
    "too_long": ("array", "most", "max_length"),
}
_BOUNDS = {
    "greater_than_equal": (">=", "below_min"),
    "greater_than": (">", "below_min"),
    "less_than_equal": ("<=", "above_max"),
    "less_than": ("<", "above_max"),
}


def _refusal(raw: Any, error: Mapping[str, Any]) -> RequestError:
    param = _param(raw, error["loc"], error["type"] == "missing")
    kind, context, value = error["type"], error.get("ctx") or {}, error["input"]
    code = "invalid_value"
    if kind == "union_tag_not_found" and isinstance(value, dict):
        kind, param = "missing", f"{param}.{context['discriminator'].strip(chr(39))}"
    if kind == "missing":
        code, message = "missing_required_parameter", f"Missing required parameter: '{param}'."
    elif kind == "extra_forbidden":
        code, message = "unknown_parameter", f"Unknown parameter: '{param}'."
    elif kind in _EXPECTED:
        code, found = "invalid_type", _FOUND.get(type(value), "null")
        message = f"Invalid type for '{param}': expected {_EXPECTED[kind]}, but got {found} instead."
    elif kind in _LENGTHS:
        what, side, limit = _LENGTHS[kind]
        code = f"{what}_{'below_min' if side == 'least' else 'above_max'}_length"
        message = f"Invalid '{param}': expected a length of at {side} {context[limit]}."
    elif kind in _BOUNDS:
        sign, side = _BOUNDS[kind]
        bound = next(iter(context.values()))
        code = f"{'integer' if isinstance(bound, int) else 'decimal'}_{side}_value"
        message = f"Invalid '{param}': expected a value {sign} {bound}, but got {str(value)[:40]} instead."
    elif kind == "union_tag_invalid":
        param = f"{param}.{context['discriminator'].strip(chr(39))}"
        message = f"Invalid value: '{context['tag'][:80]}'. Supported values are: {context['expected_tags']}."
    elif kind == "literal_error":
        message = f"Invalid value: {str(value)[:80]!r}. Supported values are: {context['expected']}."
    else:
        message = f"Invalid '{param}': {error['msg'].removesuffix('.')}."
    return RequestError(message, param=param or None, code=code)


def _param(raw: Any, place: Sequence[str | int], missing: bool) -> str:
    """A place as a parameter's name: pydantic also tells there which kind of a union was tried."""
    param = ""
    for i, step in enumerate(place):
        if isinstance(step, int):
            raw, param = raw[step], f"{param}[{step}]"
        elif isinstance(raw, dict) and (step in raw or (missing and i == len(place) - 1)):
            raw, param = raw.get(step), f"{param}.{step}" if param else step
    return param
