"""Conversations asked of a server's own API, so many at once, streamed and timed."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import aiohttp
import httpx

JSON = {"Content-Type": "application/json"}
Messages = list[dict[str, str]]
WORDS = (
    "river", "stone", "letter", "window", "garden", "winter", "market", "engine", "paper", "silver", "mountain",
    "kitchen", "teacher", "bridge", "harbour", "music", "village", "doctor", "island", "history", "number", "question",
    "summer", "machine", "cloud", "forest", "mirror",
)  # fmt: skip


@dataclass(frozen=True)
class Load:
    """asked: messages and the most tokens of each reply. clients: how many are asked at once."""

    url: str
    model: str
    clients: int
    asked: Sequence[tuple[Messages, int]]
    stream: bool = True


@dataclass(frozen=True)
class Reply:
    """first_s: from the question to its first text. tokens: of the reply, by the server's own count."""

    first_s: float
    tokens: int


@dataclass(frozen=True)
class Told:
    replies: list[Reply]
    seconds: float


def conversations(
    count: int, rng: random.Random, words: tuple[int, int] = (10, 300), tokens: tuple[int, int] = (32, 128)
) -> list[tuple[Messages, int]]:
    """Questions of mixed lengths whose answers are long; sizes are even over a logarithm."""

    def size(least: int, most: int) -> int:
        return round(least * (most / least) ** rng.random())

    asked = []
    for _ in range(count):
        text = " ".join(rng.choices(WORDS, k=size(*words)))
        asked.append(([{"role": "user", "content": f"Tell a long story of: {text}."}], size(*tokens)))
    return asked


async def ask_all(load: Load) -> Told:
    """Every conversation, `clients` at a time. Raises RuntimeError for one that is not answered."""
    waiting = iter(load.asked)
    replies: list[Reply] = []
    timeout = aiohttp.ClientTimeout(total=1200)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:

        async def client() -> None:
            for messages, tokens in waiting:
                replies.append(await ask(session, load, messages, tokens))

        began = time.perf_counter()
        await asyncio.gather(*(client() for _ in range(load.clients)))
        return Told(replies, time.perf_counter() - began)


async def ask(session: aiohttp.ClientSession, load: Load, messages: Messages, tokens: int) -> Reply:
    body: dict[str, Any] = {"model": load.model, "messages": messages, "max_tokens": tokens, "temperature": 0}
    if load.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    began, first, pieces, used = time.perf_counter(), None, 0, None
    async with session.post(f"{load.url}/chat/completions", json=body) as response:
        if response.status != 200:
            raise RuntimeError(f"{response.status}: {(await response.text())[:500]}")
        if not load.stream:
            raw = json.loads(await response.read())
            return Reply(time.perf_counter() - began, raw["usage"]["completion_tokens"])
        async for line in response.content:
            if not line.startswith(b"data:") or b"[DONE]" in line:
                continue
            raw = json.loads(line[5:])
            if "error" in raw:
                raise RuntimeError(str(raw["error"]))
            if raw.get("usage"):
                used = raw["usage"]["completion_tokens"]
            if any(choice.get("delta", {}).get("content") for choice in raw.get("choices", ())):
                pieces += 1
                first = first or time.perf_counter() - began
    return Reply(first or time.perf_counter() - began, pieces if used is None else used)


def bad_bodies(model: str) -> dict[str, bytes]:
    """Calls to refuse that take work to refuse, by what is wrong with them."""
    opening = json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}]}).encode()[:-1]

    def says(content: Any) -> bytes:
        return json.dumps({"model": model, "messages": [{"role": "user", "content": content}]}).encode()

    def image(url: str) -> bytes:
        return says([{"type": "image_url", "image_url": {"url": url}}])

    noise = base64.b64encode(random.Random(0).randbytes(8 << 20)).decode()
    return {
        "a role that is 10 MB long": says("x" * 10_000_000).replace(b'"user"', b'"' + b"r" * 10_000_000 + b'"'),
        "80,000 empty messages": json.dumps({"model": model, "messages": [{}] * 80_000}).encode(),
        "300,000 values": opening + b', "metadata": [' + b"1," * 300_000 + b"1]}",
        "a thousand levels": opening + b', "metadata": ' + b"[" * 1000 + b"]" * 1000 + b"}",
        "70 MB": says("x" * 70_000_000),
        "an image of noise": image("data:image/png;base64," + noise),
        "base64 that is none": image("data:image/png;base64," + "*" * 10_000_000),
        "half of a body": opening,
        "temperature NaN": opening + b', "temperature": NaN}',
        "a bias of 20,000 tokens": opening
        + b', "logit_bias": '
        + json.dumps({str(i): 1000 for i in range(20_000)}).encode()
        + b"}",
    }


def refuse_all(url: str, bodies: Mapping[str, bytes]) -> dict[str, tuple[int, float]]:
    """Status, and seconds, of each body. It waits; a connection that is closed on a body too large counts as 413."""
    found = {}
    for name, body in bodies.items():
        began = time.perf_counter()
        try:
            status = httpx.post(f"{url}/chat/completions", content=body, headers=JSON, timeout=60).status_code
        except httpx.TransportError:
            status = 413
        found[name] = status, time.perf_counter() - began
    return found


async def longest_gap(url: str, model: str, tokens: int, meanwhile: Sequence[str] = ()) -> float:
    """Seconds between two tokens of one streamed reply, at most, while a command of another process runs."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens, "stream": True}
    times: list[float] = []
    other: asyncio.subprocess.Process | None = None
    async with aiohttp.ClientSession() as session, session.post(f"{url}/chat/completions", json=body) as response:
        async for line in response.content:
            if line.startswith(b"data:"):
                times.append(time.perf_counter())
                if len(times) == 20 and meanwhile and other is None:
                    other = await asyncio.create_subprocess_exec(*meanwhile)
                    times = times[-1:]
                if other is not None and other.returncode is not None:
                    break
    if other is not None and await other.wait():
        raise RuntimeError(f"{' '.join(meanwhile)} failed.")
    return max(b - a for a, b in pairwise(times[1:]))


def first_tokens(url: str, model: str, words: int, rng: random.Random) -> tuple[float, float]:
    """Seconds to the first token after a new text of so many words, and after the same text with another question."""
    text = " ".join(rng.choices(WORDS, k=words))
    asked = [([{"role": "user", "content": f"{text}\n{question}"}], 4) for question in ("Which?", "Why so?")]
    new, known = asyncio.run(ask_all(Load(url, model, 1, asked))).replies
    return new.first_s, known.first_s


if __name__ == "__main__":  # refuse everything, from a process that measures nothing
    answered = [name for name, (status, _) in refuse_all(sys.argv[1], bad_bodies("stub")).items() if status < 400]
    sys.exit(f"Not refused: {', '.join(answered)}" if answered else 0)
