"""OpenAI's form of requests and replies: what goes over the wire, and what is read back from it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, cast, get_args

from foretell.chat import Conversation
from foretell.errors import GenerationError
from foretell.generate import FinishReason, Request, Result, TokenLogprob, Usage

Messages = Sequence[Mapping[str, Any]]
_LINE = 16_000_000  # bytes of one streamed event: an endless line must not fill the memory
_HIDDEN = re.compile(r"[\x00-\x1f\x7f-\x9f]+")  # a server's words must not steer a terminal


class FormError(ValueError):
    """A reply is not in OpenAI's form; its text says how, to follow the server's name."""


@dataclass(frozen=True)
class Answer:
    """What one call returned.

    texts, finish_reasons: one for each choice, in order; a refusal's words stand as its text. usage: the counts of
    tokens, as far as the server told them. model: as the server names it. raw: the whole reply.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    usage: Mapping[str, int]
    model: str
    raw: Mapping[str, Any]


@dataclass
class _Choice:
    """A streamed choice, as it grows."""

    texts: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str | None = None


def as_messages(prompt: str | Sequence[Any], role: str) -> list[Any]:
    """Text as one message; messages as they are."""
    return [{"role": role, "content": prompt}] if isinstance(prompt, str) else list(prompt)


def as_text(prompt: str | Sequence[Any]) -> str:
    """Messages as text to be continued: one alone as it is, several behind their roles, as OpenAI Evals writes them.

    Raises GenerationError for images.
    """
    if isinstance(prompt, str):
        return prompt
    lines = []
    for message in cast(Messages, prompt):
        who, content = str(message.get("name", message.get("role", ""))), message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            if any(part.get("type") != "text" for part in content):
                raise GenerationError("Text cannot hold images. Ask a chat endpoint: leave out chat=False.")
            content = "".join(part["text"] for part in content)
        known = {"system": "", "example_user": "User: ", "example_assistant": "Assistant: "}
        lines.append((known.get(who, f"{who.capitalize()}: "), str(content or "")))
    if len(lines) == 1:
        return lines[0][1]
    return ("".join(f"{prefix}{content}\n" for prefix, content in lines) + "Assistant:").lstrip()


def parameters(request: Request, chat: bool) -> dict[str, Any]:
    """A request's sampling and grammar as parameters of a call; what is left at its default is left out.

    top_k and min_p are no parameters of OpenAI's own API; other servers take them.
    Raises GenerationError for a regular expression or a grammar, which have no common form.
    """
    s = request.sampling
    found: dict[str, Any] = {"max_tokens": s.max_tokens, "temperature": s.temperature, "top_p": s.top_p}
    for name in ("top_k", "min_p", "frequency_penalty", "presence_penalty"):
        found |= {name: value} if (value := getattr(s, name)) else {}
    found |= {"logit_bias": {str(token): bias for token, bias in s.logit_bias.items()}} if s.logit_bias else {}
    found |= {"stop": list(s.stop)} if s.stop else {}
    found |= {"seed": s.seed} if s.seed is not None else {}
    found |= {"n": request.n} if request.n != 1 else {}
    if s.logprobs:
        found |= {"logprobs": True, "top_logprobs": s.logprobs} if chat else {"logprobs": s.logprobs}
    if request.grammar is not None:
        if request.grammar.kind != "json_schema":
            raise GenerationError(f"An endpoint takes no {request.grammar.kind}. Give a JSON schema.")
        schema = {"name": "reply", "schema": json.loads(request.grammar.text), "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found


def prompt_of(request: Request) -> str | list[int] | Messages:
    """What a call carries of a request's prompt: messages, text, or token ids.

    Raises GenerationError for token ids with images.
    """
    prompt = request.prompt
    if isinstance(prompt, Conversation):
        return prompt.to_openai()
    if isinstance(prompt, str):
        return prompt
    if len(prompt.tiles):
        raise GenerationError("An endpoint takes images in messages only. Give the conversation, not its token ids.")
    return [int(i) for i in prompt.ids]


def read_json(body: bytes) -> dict[str, Any]:
    """A reply's JSON object. Raises FormError, with the first words of what came in its place."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        if re.match(rb"\s*<(!doctype|html|\?xml)", body, re.IGNORECASE):
            raise FormError(f"answered with a web page ({words(body)})") from error
        raise FormError(f"answered with malformed JSON ({words(body) or 'nothing at all'})") from error
    if not isinstance(found, dict):
        raise FormError(f"answered with a JSON {type(found).__name__}, not an object")
    return found


def read_answer(raw: Mapping[str, Any], chat: bool) -> Answer:
    """A finished reply. Raises FormError for one without choices, or with a choice that holds no text."""
    choices = _choices(raw)
    if not choices:
        raise FormError("answered with an empty list of choices")
    return Answer(
        tuple(_text(choice, chat) for choice in choices),
        tuple(str(choice.get("finish_reason") or "stop") for choice in choices),
        usage_of(raw),
        str(raw.get("model") or ""),
        raw,
    )


def usage_of(raw: Mapping[str, Any]) -> dict[str, int]:
    """The counts of tokens that a reply tells."""
    usage = raw.get("usage")
    return {k: v for k, v in usage.items() if type(v) is int} if isinstance(usage, Mapping) else {}


def results_of(answer: Answer, request: int, chat: bool) -> list[Result]:
    """A reply's choices as finished Results; the first carries the usage, of them all."""
    found = zip(answer.texts, answer.finish_reasons, _choices(answer.raw), strict=True)
    return [
        _finished(text, finish, answer.usage, tuple(read_logprobs(choice.get("logprobs"), chat)), request, i)
        for i, (text, finish, choice) in enumerate(found)
    ]


async def read_stream(pieces: AsyncIterable[bytes], request: int, chat: bool) -> AsyncIterator[Result]:
    """The deltas of a streamed reply, then its finished Results.

    Raises FormError where it breaks off before every choice has ended, or an event is no JSON.
    """
    choices: dict[int, _Choice] = {}
    usage: Mapping[str, int] = {}
    done = False
    async for data in events(pieces):
        if data == b"[DONE]":
            done = True
            break
        raw = read_json(data)
        if raw.get("error"):
            raise FormError(f"broke off its stream: {words(data)}")
        usage = usage_of(raw) or usage
        for i, part in enumerate(_choices(raw) if raw.get("choices") else ()):  # some events tell of other things
            place = part["index"] if type(part.get("index")) is int else i
            choice = choices.setdefault(place, _Choice())
            if part.get("finish_reason"):
                choice.finish = str(part["finish_reason"])
            found = part.get("delta") if chat else part
            if found is not None and not isinstance(found, Mapping):
                raise FormError("sent a delta that is no JSON object")
            text = (found or {}).get("content" if chat else "text") or (found or {}).get("refusal") or ""
            logprobs = tuple(read_logprobs(part.get("logprobs"), chat))
            choice.logprobs += logprobs
            if text:
                choice.texts.append(str(text))
                yield Result(str(text), logprobs=logprobs, request=request, sample=place, delta=True)
    if not choices or (not done and any(choice.finish is None for choice in choices.values())):
        raise FormError(
            f"broke off its stream after {sum(len(t) for c in choices.values() for t in c.texts)} characters"
        )
    for place, choice in sorted(choices.items()):
        text = "".join(choice.texts)
        yield _finished(text, choice.finish or "stop", usage, tuple(choice.logprobs), request, place)


def read_logprobs(raw: Any, chat: bool) -> Iterator[TokenLogprob]:
    """Log-probabilities in the form of /chat/completions or /completions; ids that are not told are -1."""
    if not isinstance(raw, Mapping):
        return
    try:
        if chat or raw.get("content"):
            for t in raw.get("content") or ():
                top = tuple((str(o["token"]), float(o["logprob"])) for o in t.get("top_logprobs") or ())
                yield TokenLogprob(str(t["token"]), int(t.get("id", -1)), float(t["logprob"]), top)
            return
        tops = raw.get("top_logprobs") or [None] * len(raw["tokens"])
        for token, logprob, others in zip(raw["tokens"], raw["token_logprobs"], tops, strict=True):
            best = sorted(((str(k), float(v)) for k, v in (others or {}).items()), key=lambda pair: -pair[1])
            yield TokenLogprob(str(token), -1, float("nan" if logprob is None else logprob), tuple(best))
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise FormError("sent log-probabilities in an unknown form") from error


def read_echoes(raw: Mapping[str, Any], prompt: str, wholes: Sequence[str]) -> list[float]:
    """Log-probability of what follows the prompt in each echoed text: of every token that reaches past the prompt.

    Raises FormError where the server did not echo the texts with their log-probabilities.
    """
    choices = _choices(raw)
    if len(choices) != len(wholes):
        raise FormError(f"answered {len(wholes)} prompts with {len(choices)} choices")
    return [_read_echo(choice, prompt, whole) for choice, whole in zip(choices, wholes, strict=True)]


def _read_echo(choice: Mapping[str, Any], prompt: str, whole: str) -> float:
    logs = choice.get("logprobs")
    if not isinstance(logs, Mapping) or not isinstance(values := logs.get("token_logprobs"), list):
        raise FormError("told no log-probabilities of the prompt")
    if not (text := str(choice.get("text", ""))).startswith(whole):
        raise FormError("did not echo the prompt")
    starts, told = logs.get("text_offset"), logs.get("tokens")
    tokens: list[str] = told if isinstance(told, list) and all(isinstance(t, str) for t in told) else []
    lengths = [0, *accumulate(map(len, tokens))]
    if "".join(tokens).endswith(text[len(prompt) :]):
        # Counted from the end, where they are spelled: a token before the text moves the places that vLLM tells.
        starts = [start + len(text) - lengths[-1] for start in lengths[:-1]]
    elif starts == lengths[:-1]:
        starts = None  # no more than the lengths of tokens that do not spell the text
    if not isinstance(starts, list) or not starts or len(starts) != len(values):
        raise FormError("told no places of its tokens in the text")
    ends = [*starts[1:], len(whole)]
    try:
        inside = [start < len(whole) and end > len(prompt) for start, end in zip(starts, ends, strict=True)]
    except TypeError as error:
        raise FormError("told places that are no numbers") from error
    found = [value for value, counts in zip(values, inside, strict=True) if counts]
    if not found or not all(isinstance(v, float | int) and v <= 0 for v in found):
        raise FormError("told no log-probabilities of the continuation")
    return math.fsum(found)


def refusal_of(body: bytes) -> tuple[str, str, str]:
    """What a server says of a failure, in one short line, with the code and the parameter that it names.

    The words are the message of its JSON, the title of its page, or the first of its text.
    """
    text, code, param = body[:20_000].decode("utf-8", "replace"), "", ""
    try:
        found = json.loads(body)
        error = found.get("error") or found if isinstance(found, dict) else found
        if isinstance(error, dict):
            code, param = str(error.get("code") or error.get("type") or ""), str(error.get("param") or "")
            error = error.get("message") or error.get("detail") or error
        text = error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)
    except (ValueError, RecursionError):
        if title := re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL):
            text = title[1]
    text = " ".join(_HIDDEN.sub(" ", text).encode("utf-8", "replace").decode().split())
    return (text if len(text) <= 400 else f"{text[:400]}…"), code, param


def words(body: bytes) -> str:
    """The first of `refusal_of`."""
    return refusal_of(body)[0]


def _choices(raw: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = raw.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, Mapping) for choice in choices):
        raise FormError(f"answered without choices ({words(json.dumps(dict(raw)).encode())})")
    if all(type(choice.get("index")) is int for choice in choices):
        return sorted(choices, key=lambda choice: cast(int, choice["index"]))
    return choices


def _text(choice: Mapping[str, Any], chat: bool) -> str:
    message = choice.get("message") if chat else choice
    if not isinstance(message, Mapping):
        raise FormError("answered with a choice that holds no message")
    content = message.get("content" if chat else "text")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    if isinstance(refusal := message.get("refusal"), str):
        return refusal
    # Cut short while it thought, or calling a tool: nothing was said, and that is an answer.
    if content is None and (choice.get("finish_reason") not in (None, "stop") or message.get("tool_calls")):
        return ""
    raise FormError("answered with null in place of text")


def _finished(
    text: str, finish: str, usage: Mapping[str, int], logprobs: tuple[TokenLogprob, ...], request: int, sample: int
) -> Result:
    reason = cast(FinishReason, finish if finish in get_args(FinishReason) else "stop")
    told = None
    if "prompt_tokens" in usage and sample == 0:
        told = Usage(usage["prompt_tokens"], usage.get("completion_tokens", 0))
    return Result(text, (), reason, told, logprobs, request, sample)


async def events(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The data of server-sent events.

    Source: HTML Living Standard, Server-sent events, Interpreting an event stream.
    """
    rest = b""
    data: list[bytes] = []
    async for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _LINE:
            raise FormError(f"sent an event longer than {_LINE // 10**6} MB")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []
    # A server that ends without the last empty line has still said all of it, if it was a whole event.
    if rest.startswith(b"data:"):
        data.append(rest[5:].strip())
    if data:
        yield b"\n".join(data)
