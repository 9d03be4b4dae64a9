"""The local engine: a model of this machine behind the Generator protocol."""

from __future__ import annotations

import asyncio
import secrets
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foretell.chat import Conversation
from foretell.engine.constrain import Constrainer
from foretell.engine.draws import count_draws
from foretell.engine.reply import Reply, advance
from foretell.engine.runner import Runner
from foretell.engine.sampler import log_probabilities
from foretell.engine.scheduler import Call, EngineStats, Probe, Scheduler, Task
from foretell.errors import ContextLengthError, GenerationError
from foretell.generate import Prompt, Request, Result, Sampling, TokenLogprob
from foretell.measure.machine import memory_bytes
from foretell.model.lora import read_lora
from foretell.model.quantized import Bits
from foretell.template import ChatTemplate, Encoded

if TYPE_CHECKING:
    from foretell.data.tokenizer import Tokenizer
    from foretell.model.multimodal import Multimodal

_LOGITS = 256  # rows of logits held at once


class Engine:
    """Answers all callers at once, on one worker thread, so an event loop stays free.

    template: how the model reads conversations; None for one that only continues text. max_batch: replies written at
    the same time. max_waiting: replies that wait, from which on newcomers get an OverloadedError. cache_tokens: for
    how many tokens keys and values are kept; None for as many as max_batch can use, within a quarter of memory.
    step_tokens: prompt tokens read in a step, while replies are being written. The weights are those at the first call
    after nothing ran: training in between is seen. bits: of the weights, 8 or 4 (see `model.quantized`), which takes
    the model's own away; None leaves them.
    """

    can_score = True

    def __init__(
        self,
        model: Multimodal,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        max_batch: int = 64,
        max_waiting: int = 4096,
        cache_tokens: int | None = None,
        step_tokens: int = 256,
        bits: Bits | None = None,
    ) -> None:
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.template = template
        self.max_batch = max_batch
        allowed = np.zeros(model.config.vocab_size, np.bool_)
        allowed[: tokenizer.vocab_size] = tokenizer.token_bytes > 0
        allowed[list(tokenizer.ends)] = True
        self._allowed = torch.from_numpy(allowed).to(model.device)
        self._constrainer = Constrainer(tokenizer, model.config.vocab_size)
        self._runner = Runner(model, tokenizer.pad, bits)
        self._bits = bits
        cache = self._runner.cache(max(cache_tokens or self._affordable(), self.max_length))
        self._scheduler = Scheduler(
            self._runner, cache, partial(advance, allowed_V=self._allowed), max_batch, max_waiting, step_tokens
        )
        self.adapters: list[str] = []
        self._end = weakref.finalize(self, self._scheduler.close)

    @property
    def max_length(self) -> int:
        """Tokens of a prompt and its reply together."""
        return self.model.config.max_length

    def add_adapter(self, name: str, folder: Path) -> None:
        """Let requests name a LoRA adapter in PEFT's form. It waits for a step's end; it takes the decoder's memory
        once more. Raises CheckpointError for one that is damaged or another model's, GenerationError for a name in use.
        """
        if self._bits is not None:
            raise GenerationError(
                f"Adapters cannot be merged into weights of {self._bits} bits. Load the model with full weights."
            )
        if name in self.adapters:
            raise GenerationError(f"An adapter {name!r} is loaded already. Choose another name.")
        lora = read_lora(folder, self.model)
        self._scheduler.run(partial(self._runner.adapt, name, lora)).result()
        self.adapters.append(name)

    def stats(self) -> EngineStats:
        return self._scheduler.stats()

    def close(self) -> None:
        """End the worker thread; who still waits gets a GenerationError."""
        self._end()

    def encode_text(self, text: str) -> Encoded:
        """A prompt of plain text, to be continued as it stands."""
        ids = np.asarray([*self.tokenizer.prefix, *self.tokenizer.encode(text)], np.int32)
        return Encoded(ids, np.zeros(len(ids), np.bool_), np.zeros((0, 0, 0, 3), np.uint8))

    def encode_chat(self, conversation: Conversation) -> Encoded:
        """A prompt that ends with the opening of a reply. Raises as `ChatTemplate.encode`, and GenerationError
        without a template."""
        if self.template is None:
            raise GenerationError(
                "This model has no chat template, so it cannot read a conversation. Continue plain text with "
                "`complete`, or load the model's instruct version."
            )
        return self.template.encode(conversation, add_generation_prompt=True, learn="none")

    def encode(self, prompt: Prompt, room: int = 1) -> Encoded:
        """Token ids of a prompt, with room for so many more. Raises ContextLengthError where they do not fit,
        GenerationError for ids that are not this model's."""
        if isinstance(prompt, Conversation):
            prompt = self.encode_chat(prompt)
        elif isinstance(prompt, str):
            prompt = self.encode_text(prompt)
        config, ids = self.model.config, prompt.ids
        if not len(ids):
            raise GenerationError("The prompt is empty; give at least one token of text to continue.")
        if len(ids) + room > config.max_length:
            raise ContextLengthError(
                f"The prompt is {len(ids)} tokens long, but this model reads at most {config.max_length}, the reply "
                "included. Shorten it, or leave out earlier messages or images.",
                len(ids),
                config.max_length,
            )
        if ids.min() < 0 or ids.max() >= config.vocab_size:
            raise GenerationError(
                f"The prompt holds token ids from {ids.min()} to {ids.max()}; this model knows 0 to "
                f"{config.vocab_size - 1}. Encode it with this model's own tokenizer."
            )
        if len(prompt.tiles) and config.vision is None:
            raise GenerationError("This model reads text only, but the prompt holds an image. Remove the image.")
        slots = int((ids == config.image_token).sum()) if config.vision else 0
        expected = len(prompt.tiles) * config.vision.tokens_per_tile if config.vision else 0
        if slots != expected:
            raise GenerationError(
                f"The prompt has {slots} image slots, but its {len(prompt.tiles)} tiles fill {expected}. "
                "Build it with this model's template."
            )
        return prompt

    async def generate(self, requests: Sequence[Request]) -> AsyncIterator[Result]:
        """Deltas as they come, and one finished Result for each sample of each request.

        token_ids and logprobs of a finished Result cover every token drawn, the end token and those of a stop
        string included; its text does not. max_tokens is cut to the room the prompt leaves.
        Raises, before anything is generated, ContextLengthError for a prompt that does not fit, GenerationError for
        one the model cannot read, GrammarError for a grammar that cannot be used, and OverloadedError.
        """
        opened = await asyncio.to_thread(lambda: [self._open(request) for request in requests])
        call = Call[Result](sum(request.n for request in requests))
        replies = [
            make(call, index, sample)
            for index, (request, make) in enumerate(zip(requests, opened, strict=True))
            for sample in range(request.n)
        ]
        async with aclosing(self._results(call, replies)) as results:
            async for result in results:
                yield result

    def count(self, prompt: Encoded, draws: int, sampling: Sampling) -> Counter[str]:
        """How often each text came up in so many draws of one prompt; their order, which is random, is not kept.

        As `generate` with n draws, but what is drawn alike is computed once; stop strings, penalties and biases are
        left out. It waits. Raises ContextLengthError for a prompt that does not fit.
        """
        room = self.max_length - len(self.encode(prompt).ids)
        sampling = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        ends, counted = self.tokenizer.ends, Counter[str]()
        job = partial(count_draws, self._runner, prompt, draws, sampling, ends, self._allowed)
        for ids, n in self._scheduler.run(job).result().items():
            kept = ids[:-1] if ids[-1] in ends else ids
            counted[self.tokenizer.decode_bytes(kept).decode("utf-8", "replace")] += n
        return counted

    async def score(self, prompt: Prompt, continuations: Sequence[str]) -> list[float]:
        """Exact log-probability in nats of each continuation's tokens after the prompt, no end token counted.

        A continuation is tokenized by itself: as a reply after a conversation, else as text that goes on.
        Raises ContextLengthError when one does not fit.
        """
        return (await self.score_many([(prompt, continuations)]))[0]

    async def score_many(self, asked: Sequence[tuple[Prompt, Sequence[str]]]) -> list[list[float]]:
        """`score` of each prompt with its continuations, many prompts at once."""
        pairs = await asyncio.to_thread(lambda: [self._tails(prompt, texts) for prompt, texts in asked])
        scores = [[0.0] * len(tails) for _, tails in pairs]  # nothing is certain: log 1

        def note(i: int, j: int, position: int, logs: list[TokenLogprob]) -> None:
            scores[i][j] += sum(log.logprob for log in logs)

        await self._probe(
            [
                (prompt, tail, len(prompt.ids) - 1, self._logs(partial(note, i, j), [*prompt.ids.tolist(), *tail], 0))
                for i, (prompt, tails) in enumerate(pairs)
                for j, tail in enumerate(tails)
                if tail
            ]
        )
        return scores

    async def prompt_logprobs(self, prompt: Prompt, top: int = 0) -> list[TokenLogprob]:
        """Each token of a prompt, by the model's distribution after those before it; nan for the first."""
        encoded = await asyncio.to_thread(self.encode, prompt, 0)
        first = int(encoded.ids[0])
        found = [TokenLogprob(self.tokenizer.spell(first), first, float("nan"))]

        def note(position: int, logs: list[TokenLogprob]) -> None:
            found.extend(logs)

        if len(encoded.ids) > 1:
            await self._probe([(encoded, [], 0, self._logs(note, encoded.ids.tolist(), top))])
        return found

    async def embed(self, prompts: Sequence[Prompt]) -> list[list[float]]:
        """The mean of each prompt's final states, of length 1: (len(prompts), D)."""
        encoded = await asyncio.to_thread(lambda: [self.encode(prompt, 0) for prompt in prompts])
        sums = [torch.zeros(self.model.config.width, dtype=torch.float64) for _ in prompts]

        def add(total: Tensor, position: int, states_ND: Tensor) -> None:
            for state in states_ND.double().cpu():  # one by one, so that pieces of any size give the same sum
                total += state

        await self._probe([(prompt, [], 0, partial(add, total)) for prompt, total in zip(encoded, sums, strict=True)])
        return [(total / total.norm().clamp_min(1e-12)).tolist() for total in sums]

    def _open(self, request: Request) -> Callable[[Call[Result], int, int], Reply]:
        """What makes a request's replies, but for their call, number and sample."""
        sampling = request.sampling
        if request.n < 1:
            raise GenerationError(f"n is {request.n}; allowed is at least 1.")
        if request.adapter is not None and request.adapter not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise GenerationError(f"No adapter {request.adapter!r} is loaded; there are: {known}. Use add_adapter.")
        size = self.model.config.vocab_size
        if any(not 0 <= token < size for token in sampling.logit_bias):
            raise GenerationError(f"logit_bias names tokens outside 0 to {size - 1}, which are all this model knows.")
        prompt = self.encode(request.prompt)
        limit = min(sampling.max_tokens, self.max_length - len(prompt.ids))
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
        opens = isinstance(request.prompt, Conversation)

        def make(call: Call[Result], index: int, sample: int) -> Reply:
            sequence = self._runner.open(prompt, (), salt, adapter)
            own = None if bound is None else bound.copy()
            return Reply(index, sample, sampling, sequence, call, limit, seed, self.tokenizer, opens, own)

        adapter, salt = request.adapter, request.salt.encode("utf-8", "surrogatepass")
        bound = None if request.grammar is None else self._constrainer.open(request.grammar)
        return make

    def _tails(self, prompt: Prompt, texts: Sequence[str]) -> tuple[Encoded, list[list[int]]]:
        encode = self.tokenizer.encode if isinstance(prompt, Conversation) else self.tokenizer.encode_inside
        encoded, tails = self.encode(prompt), [encode(text) for text in texts]
        length, longest = len(encoded.ids), max(map(len, tails), default=0)
        if length + longest > self.max_length:
            raise ContextLengthError(
                f"The prompt ({length} tokens) and its longest continuation ({longest}) exceed the "
                f"{self.max_length} tokens this model reads. Shorten one of them.",
                length + longest,
                self.max_length,
            )
        return encoded, tails

    def _logs(
        self, note: Callable[[int, list[TokenLogprob]], None], ids: list[int], top: int
    ) -> Callable[[int, Tensor], None]:
        """What makes log-probabilities of the tokens after each state."""

        def take(position: int, states_ND: Tensor) -> None:
            for start in range(0, min(len(states_ND), len(ids) - 1 - position), _LOGITS):
                follow = ids[position + start + 1 : position + start + 1 + min(_LOGITS, len(states_ND) - start)]
                logits_NV = self._runner.logits(states_ND[start : start + len(follow)])
                chosen, values, tops = log_probabilities(logits_NV, torch.tensor(follow, device=logits_NV.device), top)
                rows = zip(follow, chosen.tolist(), values.tolist(), tops.tolist(), strict=True)
                spell = self.tokenizer.spell
                note(
                    position + start,
                    [
                        TokenLogprob(spell(i), i, log, tuple(zip(map(spell, best), logs, strict=True)))
                        for i, log, logs, best in rows
                    ],
                )

        return take

    async def _probe(self, asked: Sequence[tuple[Encoded, list[int], int, Callable[[int, Tensor], None]]]) -> None:
        """Give the states of a prompt and ids after it, from a position on; that of the last is not computed where
        ids follow the prompt."""
        call = Call[Any](len(asked))
        probes = [Probe(self._runner.open(prompt, tail[:-1]), call, first, take) for prompt, tail, first, take in asked]
        async for _ in self._results(call, probes):
            pass

    async def _results(self, call: Call[Any], tasks: Sequence[Task]) -> AsyncGenerator[Any]:
        if tasks:
            self._scheduler.submit(tasks)
        try:
            while True:
                for item in await call.queue.get():
                    if item is None:
                        return
                    if isinstance(item, BaseException):
                        raise item
                    yield item
        finally:
            self._scheduler.leave(call)

    def _affordable(self) -> int:
        """Tokens that the cache can hold."""
        return min(self.max_batch * self.max_length, memory_bytes() // 4 // self._runner.token_bytes)
